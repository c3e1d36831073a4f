"""What the arrays of a text data set look like: settings, the encoded form on disk, the result.

`imdb` and `reviews` share this path. A result is always made from its packed form, whether that
comes from the cache or was just computed, so both are the same.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._text import FIRST, Corpus, count_terms, cut, encode, pad, vocabulary

__all__ = ["Encoding", "Form", "Labelled", "Split", "encoding", "pack", "unpack"]

Form: TypeAlias = Literal["indices", "counts"]
Labelled: TypeAlias = tuple[Corpus, NDArray[np.int64]]
Split: TypeAlias = tuple[Any, NDArray[np.int64]]  # X is an array or a csr_array
Packed: TypeAlias = Mapping[str, NDArray[Any]]

_MOST = 1 << 24  # rows of an embedding; float32 holds such column numbers exactly
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """How texts become arrays; see `imdb` for the meaning of each."""

    vocabulary: int
    ngrams: int
    form: str
    max_length: int


def encoding(caller: str, vocabulary: int, ngrams: int, form: str, max_length: int) -> Encoding:
    """Check the settings that users give to ``caller``.

    Raises
    ------
    TypeError
        If a number is not an integer, or the form no string.
    ValueError
        If a number or the form is out of range.
    """
    if not isinstance(form, str):
        raise TypeError(f"{caller} expects form 'indices' or 'counts'; got {form!r}")
    if form not in ("indices", "counts"):
        raise ValueError(f"{caller} expects form 'indices' or 'counts'; got {form!r}")
    return Encoding(
        integer(caller, "vocabulary", vocabulary, FIRST + 1, _MOST),
        integer(caller, "ngrams", ngrams, 1, 2),
        form,
        integer(caller, "max_length", max_length, 1, _LONGEST),
    )


def integer(caller: str, name: str, value: int, least: int, most: int) -> int:
    """Return ``value`` as an int from ``least`` to ``most``, or raise."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{caller} expects an integer {name}; got {value!r}") from None
    if not least <= number <= most:
        why = " (padding, unknown words and one word at least)" if name == "vocabulary" else ""
        raise ValueError(f"{caller} expects {name} from {least} to {most}{why}; got {number}")
    return number


def pack(train: Labelled, test: Labelled, settings: Encoding) -> dict[str, NDArray[Any]]:
    """Encode both parts with the vocabulary of the first, in the smallest types that hold them.

    Returns
    -------
    dict
        For each part: ``lengths`` (n,), ``indices`` (sum of lengths,), ``labels`` (n,), and for
        counts also ``counts``, parallel to the indices.
    """
    terms = vocabulary(train[0], settings.vocabulary, settings.ngrams)
    packed: dict[str, NDArray[Any]] = {}
    for part, (corpus, labels) in (("train", train), ("test", test)):
        indices, starts = encode(corpus, terms)
        if settings.form == "counts":
            matrix = count_terms(indices, starts, settings.vocabulary)
            indices, lengths = matrix.indices, np.diff(matrix.indptr)
            packed[f"{part}_counts"] = _smallest(matrix.data.astype(np.uint32))
        else:
            indices, starts = cut(indices, starts, settings.max_length)
            lengths = np.diff(starts)
        packed[f"{part}_indices"] = _smallest(indices)
        packed[f"{part}_lengths"] = _smallest(lengths)
        packed[f"{part}_labels"] = labels.astype(np.uint8)
    return packed


def unpack(packed: Packed, settings: Encoding) -> tuple[Split, Split]:
    """Make the arrays that users get.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)

    Raises
    ------
    ValueError, KeyError
        If what is packed does not fit the settings or itself.
    """
    return _unpack(packed, "train", settings), _unpack(packed, "test", settings)


def _unpack(packed: Packed, part: str, settings: Encoding) -> Split:
    lengths, indices, labels = (packed[f"{part}_{k}"] for k in ("lengths", "indices", "labels"))
    for array in (lengths, indices, labels):
        if array.ndim != 1 or array.dtype.kind != "u":
            raise ValueError("expected vectors of unsigned integers")
    if len(lengths) and lengths.max() > len(indices):
        raise ValueError("expected no length above the number of indices")  # nor any overflow
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, dtype=np.int64, out=starts[1:])
    if len(labels) != len(lengths) or starts[-1] != len(indices) or (labels > 1).any():
        raise ValueError("expected a length and a label of 0 or 1 for each text")
    # Kernels use indices unchecked, so they are checked even in a file of our own.
    if len(indices) and not 0 < indices.min() <= indices.max() < settings.vocabulary:
        raise ValueError(f"expected indices from 1 to {settings.vocabulary - 1}")
    y = labels.astype(np.int64)
    if settings.form == "counts":
        return _matrix(starts, indices, packed[f"{part}_counts"], settings.vocabulary), y
    if (lengths > settings.max_length).any():
        raise ValueError(f"expected at most {settings.max_length} indices a text")
    return pad(indices.astype(np.int32), starts, settings.max_length), y


def _matrix(
    starts: NDArray[np.int64], indices: NDArray[Any], counts: NDArray[Any], n_columns: int
) -> sparse.csr_array[np.float32, tuple[int, int]]:
    """Return the canonical CSR matrix of counts."""
    if counts.shape != indices.shape or counts.dtype.kind != "u" or (counts == 0).any():
        raise ValueError("expected a count of at least 1 for each index")
    matrix: Any = sparse.csr_array(
        (counts.astype(np.float32), indices.astype(np.int32), starts.astype(np.int32)),
        shape=(len(starts) - 1, n_columns),
    )
    if not matrix.has_canonical_format:
        raise ValueError("expected ascending indices in each text")
    result: sparse.csr_array[np.float32, tuple[int, int]] = matrix
    return result


def _smallest(array: NDArray[np.integer]) -> NDArray[Any]:
    """Return the same numbers, none negative, in the smallest unsigned type that holds them."""
    largest = int(array.max()) if len(array) else 0
    return array.astype(np.min_scalar_type(largest))
