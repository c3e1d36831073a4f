"""The largest missing entries of a weight gradient Σ d·xᵀ, never stored: `largest_gradients`, `largest_per_row`.

Blocks of the product are made in cache, and what reaches a bar is noted (`stream`, `kernels.outer`). The bar is first
guessed from a sample; if what was noted fills its room, the best so far raise it; if too little was noted, the search
begins again with a lower one. Layers with very many blocks are searched from the large norms on instead (`staircase`).
Row by row each has a bar of its own, its worst entry so far (`kernels.row_select`). Whatever the bars were, the result
is exact. `growth` and `fan_in` make growth rules of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit, tiles
from nnsparse.kernels import gemm, outer
from nnsparse.kernels.row_select import best_of_rows
from nnsparse.kernels.select import bar as bar_of
from nnsparse.kernels.select import to_csr
from nnsparse.sparsify import staircase
from nnsparse.sparsify.stream import BLOCK, SAMPLE, TASKS, Stream, Tap
from nnsparse.topology import Topology

Array = NDArray[Any]


def _guesses(stream: Stream, free: int, k: int) -> list[float]:
    """Return the bars to try: one that k free entries probably reach, one that surely more do, one that all do."""
    if stream.size <= 4 * SAMPLE or free <= 2 * k:
        return [0.0]
    sample = stream.sample()
    # Large entries share rows and columns: their number varies 2-3 times as much as if they were independent.
    expected = k * sample.size / free
    ranks = [ceil(c * expected + 3.0 * sqrt(expected)) + 8 for c in (1.2, 5.0)]
    return [*(bar_of(sample, rank) for rank in ranks if rank < sample.size), 0.0]


def largest_gradients(taps: Sequence[Tap], kept: Topology, k: int) -> Topology:
    """Return the k positions outside `kept` with the largest |Σ d·xᵀ|; fewer only if the other entries are NaN.

    Parameters
    ----------
    taps : sequence of (d, x)
        Tiled arrays (n_tiles, n_out, lanes) and (n_tiles, n_in, lanes), at least one pair, float32 or float64.
    kept : Topology
        Of shape (n_out, n_in).
    k : int
        From 1 to the number of positions outside `kept`.

    Notes
    -----
    The result is that of sorting all entries by (-magnitude, position), for any number of threads. Memory is O(k +
    n_out + n_in + batch). Time is that of the dense product at most; a block is not made where ‖d_i‖ ‖x_j‖ stays below
    the bar. Several taps are copied, and summed up in one go, which may round otherwise than adding their gradients.
    """
    stream = Stream.of(taps, kept)
    if staircase.is_wide(stream):
        return _pattern(kept, staircase.best(stream, k))
    for bar in _guesses(stream, stream.size - kept.nnz, k):
        positions = stream.best(k, bar)
        if positions.size >= k:
            break
    return _pattern(kept, positions)


def largest_per_row(taps: Sequence[Tap], kept: Topology, numbers: Array) -> Topology:
    """Return the positions outside `kept` with the largest |Σ d·xᵀ| of each row.

    Parameters
    ----------
    taps, kept
        As for `largest_gradients`.
    numbers : (n_out,) integers
        How many each row gets, from 0 to its positions outside `kept`.

    Notes
    -----
    The result is that of sorting each row by (-magnitude, position), NaN behind all numbers, for any number of threads.
    Memory is O(Σ numbers + n_out + n_in + batch). Time and several taps as for `largest_gradients`; each row's bar is
    its own.
    """
    stream = Stream.of(taps, kept)
    asking = numbers[stream.rows] > 0
    rows, norms = stream.rows[asking], stream.row_norms[asking]
    firsts = np.concatenate([[0], np.cumsum(numbers[rows], dtype=np.int64)])
    total, n, n_in = int(firsts[-1]), rows.size, stream.cols.size
    if total == 0:
        return Topology.empty(kept.shape)
    d, x = stream.d, stream.x
    n_tiles, _, lanes = x.shape
    n_tasks = min(TASKS * jit.MAX_THREADS, -(-n // outer.ROWS))
    pack = tiles.empty((jit.MAX_THREADS * n_tiles * lanes * outer.COLUMNS,), x.dtype)
    block = tiles.empty((jit.MAX_THREADS * BLOCK,), x.dtype)
    room = 2 * total + n * outer.COLUMNS
    found, where = np.empty(room, x.dtype), np.empty(room, np.uint32 if n_in <= 2**32 else np.int64)
    counts = np.zeros(n, np.int64)
    best = np.empty(total, np.uint32 if stream.size <= 2**32 else np.int64)
    best_of_rows(gemm.width(outer.COLUMNS, x.itemsize))(
        d, x, stream.used, rows, stream.cols, firsts, stream.col_norms[:: outer.COLUMNS].copy(),
        norms, stream.least, n_tasks, *stream._taken(rows, stream.cols), pack, block,
        np.zeros(n, x.dtype), np.full(n, n_in), found, where, counts, best,
    )  # fmt: skip
    for r in np.flatnonzero(counts < np.diff(firsts)):
        found, missing = np.split(best[firsts[r] : firsts[r + 1]], counts[r : r + 1])
        missing[...] = _first_free(kept, rows[r], found)[: missing.size]  # all of them are NaN
    return _pattern(kept, best)


def _first_free(kept: Topology, row: int, found: Array) -> Array:
    """Return the positions of a row that are neither in `kept` nor in `found`, rising."""
    columns = kept._columns[kept._indptr[row] : kept._indptr[row + 1]]
    start = row * kept.shape[1]
    return np.setdiff1d(np.arange(start, start + kept.shape[1]), [*(columns + start), *found])


def _pattern(kept: Topology, positions: Array) -> Topology:
    """Return the topology of positions row · n_in + column, in any order, of the shape of `kept`."""
    n_out, n_in = kept.shape
    indptr, columns = np.empty(n_out + 1, np.int64), np.empty(positions.size, kept._columns.dtype)
    rows = np.empty(positions.size, np.uint16 if n_out <= 2**16 else np.int32)
    to_csr(positions, np.empty(n_in + 1, np.int64), rows, indptr, columns)
    return Topology(kept.shape, indptr, columns)
