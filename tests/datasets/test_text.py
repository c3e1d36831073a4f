"""Words, vocabularies and encodings, against slow and obvious versions of each."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse.datasets import _text
from nnsparse.datasets._text import FIRST, PADDING, UNKNOWN

TEXTS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "dd", "e'e", "f"]), max_size=9).map(" ".join),
    max_size=8,
)


def terms_of(text: str, ngrams: int) -> list[str]:
    """Words and bigrams of a text in the order that `encode` promises."""
    words = text.split()
    terms = []
    for i, word in enumerate(words):
        terms.append(word)
        if ngrams == 2 and i + 1 < len(words):
            terms.append(f"{word} {words[i + 1]}")
    return terms


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t!?--", []),
        ("Good, GOOD: gOOd.", ["good", "good", "good"]),
        ("line<br />break<BR>and<br/>more<br  / >", ["line", "break", "and", "more", "br"]),
        (
            "don't 'quote' rock'n'roll it''s 'tis '",
            ["don't", "quote", "rock'n'roll", "it", "s", "tis"],
        ),
        ("don’t don\x92t", ["don't", "don't"]),
        ("snake_case 10/10 3.5", ["snake", "case", "10", "10", "3", "5"]),
        ("Ünïcödé ÉTÉ кино 映画", ["ünïcödé", "été", "кино", "映画"]),
        ("bad\ufffdbyte", ["bad", "byte"]),
        ("a < b > c", ["a", "b", "c"]),
    ],
)
def test_a_text_is_cut_into_lower_case_words(text: str, words: list[str]) -> None:
    assert _text.tokenise(text) == words


@given(TEXTS)
def test_word_numbers_give_back_the_texts(texts: list[str]) -> None:
    corpus = _text.number(texts)
    assert len(set(corpus.words)) == len(corpus.words)
    assert corpus.tokens.dtype == np.int32
    assert corpus.starts.dtype == np.int64
    words = [corpus.words[token] for token in corpus.tokens]
    ends = corpus.starts.tolist()
    assert [" ".join(words[a:b]) for a, b in itertools.pairwise(ends)] == texts


def test_texts_are_read_one_by_one() -> None:
    def texts():
        yield "one"
        raise KeyError("stop here")

    with pytest.raises(KeyError, match="stop here"):
        _text.number(texts())


@given(TEXTS, st.randoms())
def test_taking_rows_is_like_numbering_the_texts_in_that_order(texts, random) -> None:
    rows = [random.randrange(len(texts)) for _ in range(5)] if texts else []
    taken = _text.take(_text.number(texts), np.array(rows, np.int64))
    again = _text.number([texts[i] for i in rows])
    assert [taken.words[t] for t in taken.tokens] == [again.words[t] for t in again.tokens]
    np.testing.assert_array_equal(taken.starts, again.starts)


@given(TEXTS, st.integers(3, 30), st.sampled_from([1, 2]))
def test_the_vocabulary_is_the_most_frequent_terms_ties_in_order(texts, size, ngrams) -> None:
    counts = Counter(term for text in texts for term in terms_of(text, ngrams))
    expected = sorted(counts, key=lambda term: (-counts[term], term))[: size - FIRST]
    assert _text.vocabulary(_text.number(texts), size, ngrams) == expected


def test_words_of_texts_that_were_not_taken_are_not_in_the_vocabulary() -> None:
    corpus = _text.take(_text.number(["train word", "test other"]), np.array([0]))
    assert _text.vocabulary(corpus, 100, 2) == ["train", "train word", "word"]


def test_no_bigram_reaches_across_two_texts() -> None:
    assert "b c" not in _text.vocabulary(_text.number(["a b", "", "c d"]), 100, 2)


@given(TEXTS, TEXTS, st.integers(3, 12), st.sampled_from([1, 2]))
def test_encoding_another_corpus_is_a_look_up_term_by_term(train, test, size, ngrams) -> None:
    terms = _text.vocabulary(_text.number(train), size, ngrams)
    indices, starts = _text.encode(_text.number(test), terms)
    assert indices.dtype == np.int32
    expected = [
        [
            FIRST + terms.index(term) if term in terms else UNKNOWN
            for term in terms_of(text, ngrams)
            if term in terms or " " not in term
        ]
        for text in test
    ]
    ends = starts.tolist()
    parts = [indices[a:b].tolist() for a, b in itertools.pairwise(ends)]
    assert parts == expected


@given(TEXTS, st.integers(1, 12), st.sampled_from([1, 2]))
def test_cut_and_padded_rows_hold_the_end_of_each_text(texts, length, ngrams) -> None:
    corpus = _text.number(texts)
    terms = _text.vocabulary(corpus, 50, ngrams)
    indices, starts = _text.encode(corpus, terms)
    rows = _text.pad(*_text.cut(indices, starts, length), length)
    assert rows.shape == (len(texts), length)
    assert rows.dtype == np.int32
    assert rows.flags.c_contiguous
    for i, row in enumerate(rows.tolist()):
        kept = indices[starts[i] : starts[i + 1]][-length:].tolist()
        assert row == kept + [PADDING] * (length - len(kept))


@given(TEXTS, st.sampled_from([1, 2]))
def test_counts_are_those_of_a_counter_and_canonical(texts, ngrams) -> None:
    corpus = _text.number(texts)
    terms = _text.vocabulary(corpus, 9, ngrams)
    indices, starts = _text.encode(corpus, terms)
    before = indices.copy()
    matrix = _text.count_terms(indices, starts, 9)
    np.testing.assert_array_equal(indices, before)
    assert matrix.dtype == np.float32
    assert matrix.shape == (len(texts), 9)
    assert matrix.has_canonical_format
    dense = matrix.toarray()
    for i in range(len(texts)):
        counter = Counter(indices[starts[i] : starts[i + 1]].tolist())
        assert dense[i].tolist() == [counter[k] for k in range(9)]
