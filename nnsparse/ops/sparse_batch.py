"""Mini-batches that are not laid out in tiles: sparse rows, and integer tokens. What a first layer may take instead.

They are tensors without `data`: whoever asks for the numbers of all features, as every other layer does, gets an error
that says what to do. No gradient flows into them. The products with sparse rows are in `sparse_input`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from nnsparse import tiles
from nnsparse.autograd import Tensor
from nnsparse.kernels import csr
from nnsparse.rows import Rows, SparseRows

Array = NDArray[Any]

_NONE = np.empty(0, np.int32)


def buffer(n: int, dtype: Any, width: int = 1) -> Array:
    """Return a pooled array (n · width,), n being rounded up by at most an eighth: batches differ a little in size."""
    step = 1 << max(4, n.bit_length() - 4)
    return tiles.empty((-(-n // step) * step * width,), dtype)


class Entered(Tensor, ABC):
    """A mini-batch of logical shape (batch, n_features) that only a layer made for it can read.

    Parameters
    ----------
    shape : (batch, n_features)
    dtype : float32 or float64
        Of the model that it entered.
    lanes : int
        Of the tiles that are to come out of the first layer.
    """

    __slots__ = ("_dtype", "_shape", "lanes")

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], lanes: int) -> None:
        # Not Tensor.__init__, which wants data.
        self.batch, self.requires_grad, self.grad, self.node = shape[0], False, None, None
        self._shape, self._dtype, self.lanes = shape, dtype, lanes

    @property
    @abstractmethod
    def _what(self) -> str:
        """What this is and who takes it, and what to do else."""

    @property
    def data(self) -> Array:  # type: ignore[override]
        """Raise a TypeError: there is no array of all features."""
        raise TypeError(f"the layer or function that comes first cannot take {self._what}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, n_features)."""
        return self._shape

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the model."""
        return self._dtype

    def detach(self) -> Tensor:
        """Return itself: it has no history."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"


class ByColumn(NamedTuple):
    """The entries of a mini-batch, sorted by column, then by sample.

    Attributes
    ----------
    used : (n_used,) integers
        The columns that have entries, ascending.
    starts : (n_used + 1,) int32 or int64
        Where the entries of each begin.
    samples, weights : (nnz,) or longer
        Sample and value of each entry.
    compact : (nnz,) or longer, or (0,)
        For each entry in the order of the samples, the rank of its column among the used ones.
    """

    used: Array
    starts: Array
    samples: Array
    weights: Array
    compact: Array

    def shared(self, n_tasks: int) -> NDArray[np.int64]:
        """Return ranges (n_tasks + 1,) of used columns with about equally many entries; each column counts as one."""
        work = self.starts.astype(np.int64) + np.arange(self.starts.size)
        shares = np.arange(n_tasks + 1) * work[-1] // n_tasks
        bounds: NDArray[np.int64] = np.searchsorted(work, shares).astype(np.int64)
        return bounds


@final
class SparseBatch(Entered):
    """A mini-batch of sparse rows; columns may repeat within a row and stand in any order.

    Attributes
    ----------
    indptr : (batch + 1,) int64
    indices : (nnz,) int32 or int64
    values : (nnz,) float32 or float64
    """

    __slots__ = ("_by_column", "indices", "indptr", "values")

    def __init__(
        self, indptr: Array, indices: Array, values: Array, n_features: int, lanes: int
    ) -> None:
        super().__init__((indptr.size - 1, n_features), values.dtype, lanes)
        self.indptr, self.indices, self.values = indptr, indices, values
        self._by_column: ByColumn | None = None

    @property
    def _what(self) -> str:
        return (
            "a sparse mini-batch: Linear, SparseLinear, NumpyLinear and EmbeddingBag do, as the first layer. "
            "Pass x.toarray()."
        )

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.indices.size

    def numpy(self) -> Array:
        """Return a dense copy, (batch, n_features)."""
        dense = np.zeros(self._shape, self.dtype)
        np.add.at(dense, (self._samples(), self.indices), self.values)
        return dense

    def to_tiles(self) -> Array:
        """Return a dense copy as tiles (n_tiles, n_features, lanes)."""
        batch, n_features = self._shape
        dense = tiles.zeros((tiles.n_tiles(batch, self.lanes), n_features, self.lanes), self.dtype)
        tile, lane = np.divmod(self._samples(), self.lanes)
        np.add.at(dense, (tile, self.indices, lane), self.values)
        return dense

    def _samples(self) -> Array:
        """Return the sample of each entry, (nnz,)."""
        return np.repeat(np.arange(self._shape[0]), np.diff(self.indptr))

    def by_column(self, compact: bool = False) -> ByColumn:
        """Return the entries by column, made at the first call; O(nnz + n_features)."""
        found = self._by_column
        if found is None or (compact and not found.compact.size):
            nnz, n_features = self.nnz, self._shape[1]
            kind = np.int32 if nnz < 2**31 else np.int64
            most = min(n_features, nnz) + 1
            used, starts = buffer(most, self.indices.dtype), buffer(most, kind)
            samples, weights = buffer(nnz, np.int32), buffer(nnz, self.dtype)
            cursors, ranks, order = tiles.zeros((n_features,), kind), _NONE, _NONE
            if compact and nnz:
                ranks, order = tiles.empty((n_features,), np.int32), buffer(nnz, np.int32)
            n = csr.sort_by_column(
                self.indptr, self.indices, self.values, cursors, ranks,
                used, starts, samples, weights, order,
            )  # fmt: skip
            found = self._by_column = ByColumn(used[:n], starts[: n + 1], samples, weights, order)
        return found


def to_csr(rows: SparseRows, lanes: int, dtype: np.dtype[Any]) -> SparseBatch:
    """Return rows as a sparse mini-batch, values converted to `dtype` (beyond its range they become infinite)."""
    index, source = rows.index, rows.indptr
    nnz = int((source[index + 1] - source[index]).sum(dtype=np.int64))
    indptr = np.empty(index.size + 1, np.int64)
    indices, values = buffer(nnz, rows.indices.dtype)[:nnz], buffer(nnz, dtype)[:nnz]
    csr.gather_csr(source, rows.indices, rows.values, index, indptr, indices, values)
    return SparseBatch(indptr, indices, values, rows.n_features, lanes)


def scaled(x: SparseBatch, padding: int, mean: bool) -> SparseBatch:
    """Return a mini-batch without column `padding` (none: −1), with `mean` each row divided by its sum."""
    if padding < 0 and not mean:
        return x
    indptr = np.empty_like(x.indptr)
    indices, values = buffer(x.nnz, x.indices.dtype), buffer(x.nnz, x.dtype)
    csr.scale_rows(x.indptr, x.indices, x.values, padding, mean, indptr, indices, values)
    nnz = int(indptr[-1])
    return SparseBatch(indptr, indices[:nnz], values[:nnz], x.shape[1], x.lanes)


@final
class Tokens(Entered):
    """A mini-batch of integer tokens (batch, length), not yet looked at.

    Attributes
    ----------
    rows : Rows
        Of an array of integers.
    """

    __slots__ = ("rows",)

    def __init__(self, rows: Rows, dtype: np.dtype[Any], lanes: int) -> None:
        super().__init__(rows.shape, dtype, lanes)
        self.rows = rows

    @property
    def _what(self) -> str:
        return "integer tokens: Embedding and EmbeddingBag do, as the first layer."

    def numpy(self) -> Array:
        """Return the tokens, (batch, length) integers."""
        return np.asarray(self.rows)

    def bags(self, n: int, padding: int, mean: bool, each: bool = False) -> SparseBatch:
        """Return one row per sample, or per token if `each`, with the tokens that are not `padding` (none: −1).

        Raises
        ------
        ValueError
            If a token is not from 0 to n - 1.
        """
        array, index = self.rows.array, self.rows.index
        fits = (
            array.dtype in (np.int32, np.int64) and array.flags.c_contiguous and array.flags.aligned
        )
        if not fits or each:
            array = np.ascontiguousarray(array[index], np.int64)
            if each:
                array = array.reshape(-1, 1)
            index = np.arange(len(array))
        indptr = np.empty(index.size + 1, np.int64)
        room = index.size * array.shape[1]
        indices = buffer(room, np.int32 if n < 2**31 else np.int64)
        values = buffer(room, self.dtype)
        wrong = csr.gather_tokens(array, index, n, padding, mean, indptr, indices, values)
        if wrong >= 0:
            sample, position = divmod(wrong, max(1, self.shape[1]))
            token = self.rows.array[self.rows.index[sample], position]
            raise ValueError(
                f"expected tokens from 0 to num_embeddings - 1 = {n - 1}; got {token} in sample {sample} at position "
                f"{position}. Is the vocabulary larger than the table?"
            )
        nnz = int(indptr[-1])
        return SparseBatch(indptr, indices[:nnz], values[:nnz], n, self.lanes)
