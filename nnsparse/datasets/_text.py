"""Texts as numbers: words of a text, a vocabulary by frequency, and arrays of indices or counts.

Strings are touched once, by `number`; vocabularies, bigrams and encodings are then arithmetic on
arrays of word numbers. What the arrays of a data set look like is decided in `_encoding`.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = [
    "FIRST",
    "PADDING",
    "UNKNOWN",
    "Corpus",
    "count_terms",
    "cut",
    "encode",
    "number",
    "pad",
    "take",
    "tokenise",
    "vocabulary",
]

PADDING = 0  # index of no word: fills the end of short rows
UNKNOWN = 1  # index of every word that is not in the vocabulary
FIRST = 2  # index of the most frequent term

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# Letters and digits of any script; apostrophes only between them ("don't", but not "'twas'").
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u0092": "'"})  # typographic; cp1252 read as latin-1


class Corpus(NamedTuple):
    """Texts as numbers of their words.

    Attributes
    ----------
    words : list of str
        Distinct words; a word's number is its place here. Parts of one corpus share the list.
    tokens : (n_tokens,) int32
        The word numbers of all texts, one text after the other.
    starts : (n_texts + 1,) int64
        Text i is ``tokens[starts[i] : starts[i + 1]]``.
    """

    words: list[str]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]


def tokenise(text: str) -> list[str]:
    """Return the words of a text: lower case, HTML line breaks gone, apostrophes inside kept.

    A word is a run of letters and digits of any script, or several joined by single apostrophes.

    Examples
    --------
    >>> tokenise("It's 'GOOD'.<br /><br />10/10, isn’t it?")
    ["it's", 'good', '10', '10', "isn't", 'it']
    """
    if "<" in text:
        text = _BREAK.sub(" ", text)
    if not text.isascii():
        text = text.translate(_APOSTROPHES)
    words: list[str] = _WORD.findall(text.lower())
    return words


def number(texts: Iterable[str]) -> Corpus:
    """Tokenise texts and number their words in order of first appearance.

    Parameters
    ----------
    texts : iterable of str
        Consumed once, one text at a time.

    Returns
    -------
    Corpus

    Notes
    -----
    Memory: 4 bytes a token, and each distinct word once.

    Examples
    --------
    >>> corpus = number(["a film, a good film", "", "good"])
    >>> corpus.words, corpus.tokens.tolist(), corpus.starts.tolist()
    (['a', 'film', 'good'], [0, 1, 0, 2, 1, 2], [0, 5, 5, 6])
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a new word gets the next number
    tokens, starts = array("i"), array("q", [0])
    for text in texts:
        tokens.extend(map(numbers.__getitem__, tokenise(text)))
        starts.append(len(tokens))
    return Corpus(list(numbers), np.array(tokens, np.int32), np.array(starts, np.int64))


def take(corpus: Corpus, rows: NDArray[np.integer]) -> Corpus:
    """Return the texts of the given rows, in that order.

    Examples
    --------
    >>> take(number(["a b", "c", "b a"]), np.array([2, 1])).tokens.tolist()
    [1, 0, 2]
    """
    lengths = np.diff(corpus.starts)[rows]
    starts = _starts(lengths)
    source = np.arange(starts[-1]) + np.repeat(corpus.starts[rows] - starts[:-1], lengths)
    return Corpus(corpus.words, corpus.tokens[source], starts)


def vocabulary(corpus: Corpus, size: int, ngrams: int = 1) -> list[str]:
    """Choose the most frequent words, or words and bigrams, of a corpus.

    Parameters
    ----------
    corpus : Corpus
    size : int
        Rows of an embedding: ``size - FIRST`` terms are chosen, or all if there are fewer.
    ngrams : int
        1 for words, 2 for words and bigrams together. A bigram is two words that follow each other
        in a text, whatever stands between them, written with a space.

    Returns
    -------
    list of str
        By falling frequency, ties by the order of Unicode. Term k has index ``FIRST + k``.

    Notes
    -----
    Cost: O(n_tokens log n_tokens) for bigrams, else O(n_tokens).

    Examples
    --------
    >>> vocabulary(number(["not good", "not bad", "bad"]), size=5, ngrams=2)
    ['bad', 'not', 'good']
    """
    n_words, n_terms = len(corpus.words), size - FIRST
    counts = np.bincount(corpus.tokens, minlength=n_words)
    pairs, pair_counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if ngrams == 2:
        pairs = _pairs(corpus)
        pairs, pair_counts = np.unique(pairs[pairs >= 0], return_counts=True)
    # Only terms at least as frequent as the last one chosen are made into strings and sorted.
    every = np.concatenate([counts, pair_counts])
    place = max(len(every) - n_terms, 0)
    least = max(int(np.partition(every, place)[place]), 1) if len(every) else 1
    terms = [(-int(counts[i]), corpus.words[i]) for i in np.flatnonzero(counts >= least)]
    for i in np.flatnonzero(pair_counts >= least):
        a, b = divmod(int(pairs[i]), n_words)
        terms.append((-int(pair_counts[i]), f"{corpus.words[a]} {corpus.words[b]}"))
    return [term for _, term in sorted(terms)[:n_terms]]


def encode(corpus: Corpus, terms: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Write texts as indices of a vocabulary, `UNKNOWN` for other words.

    Where the vocabulary has bigrams, the bigram of words i and i + 1 stands between their indices;
    bigrams that are not in the vocabulary leave no trace.

    Parameters
    ----------
    corpus : Corpus
    terms : sequence of str
        As from `vocabulary`, of this corpus or another.

    Returns
    -------
    indices : (n_indices,) int32
        From `UNKNOWN` to ``len(terms) + FIRST - 1``.
    starts : (n_texts + 1,) int64

    Examples
    --------
    >>> indices, starts = encode(number(["not so good", "so"]), ["good", "not", "so good"])
    >>> indices.tolist(), starts.tolist()
    ([3, 1, 4, 2, 1], [0, 4, 5])
    """
    index = {term: FIRST + i for i, term in enumerate(terms)}
    of_word = np.array([index.get(word, UNKNOWN) for word in corpus.words], np.int32)
    words = of_word[corpus.tokens] if len(of_word) else np.zeros(0, np.int32)
    numbers = {word: i for i, word in enumerate(corpus.words)}
    known = []
    for term in terms:
        first, gap, second = term.partition(" ")
        if gap and first in numbers and second in numbers:
            known.append((numbers[first] * len(corpus.words) + numbers[second], index[term]))
    if not known:
        return words, corpus.starts
    keys, of_pair = np.array(sorted(known), np.int64).T
    pairs = _pairs(corpus)
    place = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
    # Word, bigram, word, bigram, ..., with PADDING for each bigram that is not known.
    both = np.empty((len(words), 2), np.int32)
    both[:, 0] = words
    both[:, 1] = np.where(keys[place] == pairs, of_pair[place], PADDING)
    kept = both[:, 1] != PADDING
    return both[both != PADDING], corpus.starts + _starts(kept)[corpus.starts]


def _pairs(corpus: Corpus) -> NDArray[np.int64]:
    """Return first * n_words + second for every word and its successor; -1 at a text's end."""
    keys = corpus.tokens.astype(np.int64)
    keys *= len(corpus.words)
    keys[:-1] += corpus.tokens[1:]
    ends = corpus.starts[1:][np.diff(corpus.starts) > 0] - 1
    keys[ends] = -1
    return keys


def cut(
    indices: NDArray[np.int32], starts: NDArray[np.int64], length: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Keep the end of each text, ``length`` indices at most.

    Examples
    --------
    >>> indices, starts = cut(np.array([5, 6, 7, 8], np.int32), np.array([0, 3, 3, 4]), 2)
    >>> indices.tolist(), starts.tolist()
    ([6, 7, 8], [0, 2, 2, 3])
    """
    lengths = np.diff(starts)
    before_end = np.repeat(starts[1:], lengths) - np.arange(len(indices))
    return indices[before_end <= length], _starts(np.minimum(lengths, length))


def pad(indices: NDArray[np.int32], starts: NDArray[np.int64], length: int) -> NDArray[np.int32]:
    """Lay texts out as rows of one length, filled up with `PADDING`.

    Parameters
    ----------
    indices : (n_indices,) int32
    starts : (n_texts + 1,) int64
    length : int
        Of the longest text at least.

    Returns
    -------
    (n_texts, length) int32, C-contiguous

    Examples
    --------
    >>> pad(np.array([5, 6, 8], np.int32), np.array([0, 2, 2, 3]), 3)
    array([[5, 6, 0], [0, 0, 0], [8, 0, 0]], dtype=int32)
    """
    rows = np.full((len(starts) - 1, length), PADDING, np.int32)
    rows[np.arange(length) < np.diff(starts)[:, None]] = indices
    return rows


def count_terms(
    indices: NDArray[np.int32], starts: NDArray[np.int64], n_columns: int
) -> sparse.csr_array[np.float32, tuple[int, int]]:
    """Count how often each index occurs in each text: a bag of words.

    Returns
    -------
    scipy.sparse.csr_array (n_texts, n_columns) float32
        Canonical: columns ascend within a row, none twice.

    Examples
    --------
    >>> count_terms(np.array([2, 1, 2], np.int32), np.array([0, 3, 3]), 4).toarray()
    array([[0., 1., 2., 0.], [0., 0., 0., 0.]], dtype=float32)
    """
    ones = np.ones(len(indices), np.float32)
    # SciPy sums duplicates in place, so it must own the indices.
    matrix = sparse.csr_array(
        (ones, indices.copy(), starts.astype(np.int32)), shape=(len(starts) - 1, n_columns)
    )
    matrix.sum_duplicates()
    return matrix


def _starts(lengths: NDArray[np.integer | np.bool_]) -> NDArray[np.int64]:
    """Return where parts of these lengths start, and the end of the last: (n + 1,)."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
