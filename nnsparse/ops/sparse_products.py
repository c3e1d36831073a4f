"""Launches the products with sparse mini-batches: of dense and sparse weights (`csr_weights`) and tables (`csr_table`).

Like the structures, whose methods these are, they validate nothing and are not differentiable.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit, tiles
from nnsparse.kernels import csr_table, planning
from nnsparse.kernels import csr_weights as kernels
from nnsparse.kernels.csr_table import SIDE
from nnsparse.kernels.layout import scatter_rows
from nnsparse.ops.sparse_batch import SparseBatch, buffer
from nnsparse.parameter import storage
from nnsparse.row_gradient import RowGradient
from nnsparse.topology import Topology

Array = NDArray[Any]

TASKS = 4  # per thread: columns are shared out by their entries, which is not quite their time


def _out(x: SparseBatch, n_out: int) -> Array:
    """Return tiles for the outputs of a mini-batch."""
    return tiles.empty((tiles.n_tiles(x.shape[0], x.lanes), n_out, x.lanes), x.dtype)


def _samples_first(d: Array, batch: int) -> Array:
    """Return tiles (n_tiles, n_out, lanes) sample by sample, (batch, n_out)."""
    plain = tiles.empty((batch, d.shape[1]), d.dtype)
    scatter_rows(d, plain)
    return plain


# ---------------------------------------------------------------- dense weights


def _splits(pieces: int) -> int:
    """Return into how many parts to cut what is not cut into `pieces`, so that every thread gets a few tasks."""
    return max(1, -(-TASKS * jit.MAX_THREADS // max(1, pieces)))


def dense_forward(w: Array, x: SparseBatch, bias: Array, rectify: bool) -> Array:
    """Return W·x + bias, then ReLU if `rectify`, as tiles: w (n_out · n_in,)."""
    out = _out(x, bias.size)
    columns = x.by_column(compact=True)
    blocks = -(-bias.size // SIDE)
    # All of a split's samples read the same packed weights: as few splits as give every thread a task.
    splits = max(1, -(-jit.MAX_THREADS // max(1, blocks)))
    pack = buffer(columns.used.size * SIDE + kernels.EXTRA, x.dtype, jit.MAX_THREADS)
    kernels.dense_forward(
        w, columns.used, x.indptr, columns.compact, x.values, splits, bias, rectify,
        pack, pack.size // jit.MAX_THREADS, x.shape[1], out,
    )  # fmt: skip
    return out


def dense_gradient(d: Array, x: SparseBatch) -> Array:
    """Return Σ_samples d·xᵀ, (n_out · n_in,): d (n_tiles, n_out, lanes)."""
    n_tiles, n_out, lanes = d.shape
    n_in, columns = x.shape[1], x.by_column()
    out = tiles.empty((n_out * n_in,), d.dtype)
    splits = _splits(-(-n_out // SIDE))
    width = -(-n_in // (splits * SIDE)) * SIDE
    bounds = np.searchsorted(columns.used, np.arange(splits + 1) * width).astype(np.int64)
    pack = buffer(n_tiles * lanes * SIDE + kernels.EXTRA, d.dtype, jit.MAX_THREADS)
    kernels.dense_gradient(
        d, columns.used, columns.starts, columns.samples, columns.weights, bounds, width,
        pack, pack.size // jit.MAX_THREADS, n_in, out,
    )  # fmt: skip
    return out


# ---------------------------------------------------------------- sparse weights


class ColumnView(NamedTuple):
    """The weights of a topology by column: those of input j are m = pointers[j] ... pointers[j + 1] - 1.

    Attributes
    ----------
    pointers : (n_in + 1,) int32 or int64
    rows : (nnz,) uint16 or int32
        The output of each.
    source : (nnz,) uint32 or int64
        Where its value is, in plan order.
    longest : int
        The most weights of one column.
    """

    pointers: Array
    rows: Array
    source: Array
    longest: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.pointers.nbytes + self.rows.nbytes + self.source.nbytes


def column_view(topology: Topology) -> ColumnView:
    """Return the weights of a topology by column; made in O(nnz + n_in) at the first call and kept with it."""
    return topology.derived(_column_view)


def known_column_view(topology: Topology) -> ColumnView | None:
    """Return it only if somebody has made it."""
    view: ColumnView | None = topology._derived.get(_column_view)
    return view


def _column_view(topology: Topology) -> ColumnView:
    n_out, n_in = topology.shape
    (indptr, columns), positions = topology.sound(), storage(topology)
    pointers = np.zeros(n_in + 1, indptr.dtype)
    rows = np.empty(columns.size, np.uint16 if n_out <= 2**16 else np.int32)
    permutation = np.empty(columns.size, positions.dtype)
    planning.transpose_csr(indptr, columns, pointers, rows, permutation)
    longest = int(np.diff(pointers).max(initial=0))
    return ColumnView(pointers, rows, positions[permutation], longest)


def sparse_forward(
    topology: Topology, w: Array, x: SparseBatch, bias: Array, rectify: bool
) -> Array:
    """Return W·x + bias, then ReLU if `rectify`, as tiles: w (nnz,) in plan order."""
    out, view, columns = _out(x, bias.size), column_view(topology), x.by_column(compact=True)
    starts = buffer(columns.used.size + 1, view.pointers.dtype)
    n = kernels.count_weights(columns.used, view.pointers, starts)
    rows, packed = buffer(n, view.rows.dtype), buffer(n, x.dtype)
    kernels.pack_weights(
        columns.used, starts, view.pointers, view.rows, view.source, w, rows, packed
    )
    # Sixteen rows that lie a multiple of 4 KB apart would share a few lines of the cache.
    pitch = -(-bias.size // SIDE) * SIDE + SIDE
    scratch = tiles.empty((jit.MAX_THREADS * SIDE * pitch,), x.dtype)
    kernels.sparse_forward(
        x.indptr, columns.compact, x.values, starts, rows, packed, bias, rectify, pitch, scratch, out
    )  # fmt: skip
    return out


def sparse_gradient(topology: Topology, d: Array, x: SparseBatch) -> Array:
    """Return Σ_samples d·xᵀ where the weights are, (nnz,) in plan order: d (n_tiles, n_out, lanes)."""
    view, columns = column_view(topology), x.by_column()
    out = tiles.zeros((topology.nnz,), d.dtype)
    plain = _samples_first(d, x.shape[0])
    room = -(-view.longest // SIDE) * SIDE
    pack = tiles.empty((jit.MAX_THREADS * room,), d.dtype)
    kernels.sparse_gradient(
        columns.shared(TASKS * jit.MAX_THREADS), columns.used, columns.starts, columns.samples,
        columns.weights, view.pointers, view.rows, view.source, plain.reshape(-1), d.shape[1],
        pack, room, out,
    )  # fmt: skip
    return out


# ---------------------------------------------------------------- tables


def _width(itemsize: int) -> int:
    """Return how many numbers to sum up at a time: four registers of this CPU."""
    return max(SIDE, 4 * jit.vector_bits() // (8 * itemsize))


@final
class Table:
    """Weights (n_in, n_out), one row per input: an embedding."""

    def __init__(self, n_in: int, n_out: int) -> None:
        self.n_in, self.n_out = n_in, n_out

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        """Return wᵀ·x as tiles (n_tiles, n_out, lanes); there is no bias and no ReLU."""
        assert bias is None
        assert not rectify
        out, width = _out(x, self.n_out), _width(x.dtype.itemsize)
        scratch = tiles.empty((jit.MAX_THREADS * SIDE * width,), x.dtype)
        csr_table.table_forward(width)(x.indptr, x.indices, x.values, w.reshape(-1), scratch, out)
        return out

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        """Return Σ_samples x·dᵀ, (n_in, n_out)."""
        return np.asarray(self.row_gradient(d, x))

    def row_gradient(self, d: Array, x: SparseBatch) -> RowGradient:
        """Return the same on the rows that the mini-batch used."""
        columns, plain = x.by_column(), _samples_first(d, x.shape[0])
        n = columns.used.size
        values = buffer(n, d.dtype, self.n_out)[: n * self.n_out].reshape(n, self.n_out)
        csr_table.table_gradient(_width(d.itemsize))(
            columns.shared(TASKS * jit.MAX_THREADS), columns.starts, columns.samples,
            columns.weights, plain.reshape(-1), values,
        )  # fmt: skip
        return RowGradient.trusted(columns.used, values, (self.n_in, self.n_out))
