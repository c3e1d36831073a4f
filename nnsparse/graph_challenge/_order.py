"""Entries of a file, put in order, and blocks of rows, put together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._lines import Ints, PathLike, entries, refuse

Floats = NDArray[np.float32]


def read_sorted(
    path: PathLike, n_rows: int, n_columns: int, *, by_column: bool
) -> tuple[Ints, Floats]:
    """Return all entries of a file as increasing keys, row·n_columns + column or column·n_rows + row, and values.

    Memory: 12 bytes per entry, at most twice that; three times where the file has another order and values differ.

    Raises
    ------
    OSError, ValueError
        As `entries`, and if a position occurs twice.
    """
    keys, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    free = n_rows * n_columns
    for part in entries(path, n_rows, n_columns):
        free -= part.rows.size
        if free < 0:  # before more of a file that unpacks without end is kept
            refuse(path, part.line, "every position once", "more lines than there are positions")
        major, minor = (part.columns, part.rows) if by_column else (part.rows, part.columns)
        keys.append(major * (n_rows if by_column else n_columns) + minor)
        values.append(part.values.astype(np.float32))
    key, value = _joined(keys), _joined(values)
    if (key[1:] > key[:-1]).all():
        return key, value
    if (value == value[0]).all():
        key.sort()  # needs no memory for an order
    else:
        order = np.argsort(key, kind="stable")
        key, value = key[order], value[order]
    twice = np.flatnonzero(key[1:] == key[:-1])
    if twice.size:
        major_, minor_ = divmod(int(key[twice[0]]), n_rows if by_column else n_columns)
        _refuse_second(path, *((minor_, major_) if by_column else (major_, minor_)))
    return key, value


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate, letting each part go."""
    joined = np.concatenate(parts)
    parts.clear()
    return joined


def _refuse_second(path: PathLike, row: int, column: int) -> None:
    """Read a file again up to the line where a position occurs for the second time, and name it."""
    seen = 0
    for part in entries(path, 2**62, 2**62):
        places = np.flatnonzero((part.rows == row) & (part.columns == column))
        if seen + places.size > 1:
            line = part.line + int(places[1 - seen])
            refuse(path, line, "every position once", f"row {row + 1}, column {column + 1} again")
        seen += places.size


def csr(keys: Ints, values: Floats, first: int, n_rows: int, n_columns: int) -> Any:
    """Return the rows first … first + n_rows - 1 that increasing keys row·n_columns + column hold, float32."""
    bounds = np.arange(first, first + n_rows + 1, dtype=np.int64) * n_columns
    indices = (keys % n_columns).astype(np.int32)
    return canonical(values, indices, np.searchsorted(keys, bounds), (n_rows, n_columns))


def canonical(values: Floats, indices: Any, indptr: Any, shape: tuple[int, int]) -> Any:
    """Return a csr_matrix of arrays known to be sorted and without duplicates, not copied."""
    matrix: Any = sparse.csr_matrix((values, indices, indptr), shape=shape, copy=False)
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix


def stack(blocks: Iterable[Any], n_columns: int) -> Any:
    """Return the rows of all blocks, canonical csr_matrix float32, as one.

    Each block is let go as it is copied: memory of twice the result at most.
    """
    parts: list[Any] = list(blocks)
    sizes = np.cumsum([0, *(part.nnz for part in parts)])
    counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.indptr) for part in parts)])
    indices, values = np.empty(sizes[-1], np.int32), np.empty(sizes[-1], np.float32)
    for i, (start, end) in enumerate(pairwise(sizes)):
        indices[start:end], values[start:end] = parts[i].indices, parts[i].data
        parts[i] = None
    return canonical(values, indices, np.cumsum(counts), (counts.size - 1, n_columns))
