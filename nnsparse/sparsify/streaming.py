"""The largest missing entries of a weight gradient Σ d·xᵀ, never stored: `largest_gradients`, `largest_per_row`.

Blocks of the product are made in cache, and what reaches a bar is noted (`kernels.outer`). The bar is first guessed
from a sample; if what was noted fills its room, the best so far raise it; if too little was noted, the search begins
again with a lower one. Row by row each has a bar of its own, its worst entry so far (`kernels.row_select`). Whatever
the bars were, the result is exact. `growth` and `fan_in` make growth rules of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isqrt, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit, tiles
from nnsparse.kernels import gemm, outer
from nnsparse.kernels.row_select import best_of_rows
from nnsparse.kernels.select import bar as bar_of
from nnsparse.kernels.select import largest, to_csr
from nnsparse.topology import Topology

Array = NDArray[Any]
Tap = tuple[Array, Array]  # (d, x) as in Context.taps

SAMPLE = 2**14  # entries of the gradient from which the first bar is guessed
TASKS = 4  # per thread
BLOCK = outer.ROWS * outer.COLUMNS


@dataclass(frozen=True)
class Stream:
    """A weight gradient Σ d·xᵀ, to be looked at block by block.

    Attributes
    ----------
    d, x : (n_tiles, n_out, lanes) and (n_tiles, n_in, lanes) arrays
    used : int
        The lanes of the last tile that hold samples.
    rows, cols : (n_out,) and (n_in,) int64
        Outputs and inputs by falling norm of d and x, so that what is left out comes in whole blocks.
    row_norms, col_norms : (n_out,) and (n_in,) float64
        Upper bounds of these norms, falling. An entry, as it is computed, is at most the product of both + `least`.
    kept : Topology
        The positions that are not free.
    """

    d: Array
    x: Array
    used: int
    rows: Array
    cols: Array
    row_norms: Array
    col_norms: Array
    kept: Topology

    @classmethod
    def of(cls, taps: Sequence[Tap], kept: Topology) -> Stream:
        """Return the stream of a gradient from what it is made of, at least one tap; those in `kept` are not free."""
        d, x = stacked(taps)
        row_norms, used = _norms(d)
        col_norms, _ = _norms(x)
        rows, cols = np.argsort(-row_norms), np.argsort(-col_norms)
        slack = 1.0 + 4.0 * d.shape[0] * d.shape[2] * float(np.finfo(d.dtype).eps)
        return cls(d, x, used, rows, cols, row_norms[rows] * slack, col_norms[cols], kept)

    @property
    def least(self) -> float:
        """What products may be off by where they underflow."""
        n_tiles, _, lanes = self.d.shape
        return float(n_tiles * lanes * np.finfo(self.d.dtype).tiny)

    @cached_property
    def limits(self) -> Array:
        """Upper bounds of the magnitudes in each block, as they are computed, (n_panels, n_tops) float64."""
        with np.errstate(over="ignore", invalid="ignore"):
            tops = self.row_norms[:: outer.ROWS]
            return np.outer(self.col_norms[:: outer.COLUMNS], tops) + self.least

    @property
    def size(self) -> int:
        """The number of entries, n_out · n_in."""
        return self.rows.size * self.cols.size

    def run(
        self, rows: Array, cols: Array, blocks: Array, room: int, bar: float, place: int
    ) -> tuple[Array, Array, Array]:
        """Look at blocks of some rows and columns; return magnitudes, positions and the blocks that are left over.

        Noted is, at free positions, what reaches `bar` and, if equal to it, lies before `place`. Blocks are left over
        when there is more of it than about `room`.
        """
        n_tiles, _, lanes = self.x.shape
        n_tasks = min(TASKS * jit.MAX_THREADS, blocks.size)
        bounds = np.arange(n_tasks + 1) * blocks.size // n_tasks
        each = min(room // n_tasks + 2 * BLOCK, -(-blocks.size // n_tasks) * BLOCK)
        found = np.empty(n_tasks * each, self.x.dtype)
        where = np.empty(found.size, np.uint32 if self.size <= 2**32 else np.int64)
        progress, counts = bounds[:-1].copy(), np.empty(n_tasks, np.int64)
        pack = tiles.empty((jit.MAX_THREADS * n_tiles * lanes * outer.COLUMNS,), self.x.dtype)
        block = tiles.empty((jit.MAX_THREADS * BLOCK,), self.x.dtype)
        masks = tiles.empty((jit.MAX_THREADS * outer.MASKS,), np.int64)
        outer.candidates(gemm.width(outer.COLUMNS, self.x.itemsize))(
            self.d, self.x, self.used, rows, cols, blocks, bounds, progress, bar, place,
            *self._taken(rows, cols), pack, block, masks, found, where, counts,
        )  # fmt: skip
        parts = [slice(t * each, t * each + n) for t, n in enumerate(counts.tolist())]
        left = [blocks[a:b] for a, b in zip(progress, bounds[1:], strict=True) if a < b]
        return (
            np.concatenate([found[part] for part in parts]),
            np.concatenate([where[part] for part in parts]),
            np.concatenate([blocks[:0], *left]),
        )

    def _taken(self, rows: Array, cols: Array) -> tuple[Array, Array]:
        """Return where in each block of some rows and columns positions are not free (`outer.sort_taken`)."""
        per_row = self.kept.row_counts()[rows]
        ends = np.cumsum(
            np.add.reduceat(per_row, np.arange(0, rows.size, outer.ROWS)), dtype=np.int64
        )
        ranks = np.full(self.cols.size, -1, np.int32)
        ranks[cols] = np.arange(cols.size, dtype=np.int32)
        starts = np.empty((ends.size, -(-cols.size // outer.COLUMNS) + 2), np.int64)
        taken = np.empty(int(ends[-1]), np.uint16)
        firsts = np.concatenate([[0], ends[:-1]])
        outer.sort_taken(self.kept._indptr, self.kept._columns, rows, ranks, firsts, starts, taken)
        return starts, taken

    def sample(self) -> Array:
        """Return the magnitudes at the free positions of some rows and columns, spread over all norms."""
        n_out, n_in = self.rows.size, self.cols.size
        # Every by_row-th row and by_col-th column, but 32 of each if there are so many.
        by_col = min(isqrt(self.size // SAMPLE) or 1, n_in // 32 or 1)
        by_row = min(-(-self.size // (SAMPLE * by_col)), n_out // 32 or 1)
        by_col = min(-(-self.size // (SAMPLE * by_row)), n_in // 32 or 1)
        rows, cols = (
            order[step // 2 :: step].copy()
            for order, step in ((self.rows, by_row), (self.cols, by_col))
        )
        n_blocks = -(-rows.size // outer.ROWS) * -(-cols.size // outer.COLUMNS)
        return self.run(rows, cols, np.arange(n_blocks), self.size, 0.0, self.size)[0]

    def best(self, k: int, bar: float) -> Array:
        """Return the positions of the k largest free entries, in any order, ties to the lower one.

        Fewer if fewer reach `bar`.
        """
        place = self.size
        blocks = np.flatnonzero(~(self.limits < bar))  # a limit that is NaN excludes nothing
        # Deal the panels out: the first ones, of large norm, hold most of what will be found.
        deal = blocks // self.limits.shape[1] % (TASKS * jit.MAX_THREADS)
        blocks = blocks[np.argsort(deal, kind="stable")]
        magnitudes, positions = np.empty(0, self.d.dtype), np.empty(0, np.uint32)
        while blocks.size:
            found, where, blocks = self.run(self.rows, self.cols, blocks, 4 * k, bar, place)
            if magnitudes.size:
                found, where = (
                    np.concatenate(pair) for pair in ((magnitudes, found), (positions, where))
                )
            if found.size > k:
                chosen = np.flatnonzero(largest(found, k, where))
                found, where = found[chosen], where[chosen]
            magnitudes, positions = found, where
            if blocks.size and magnitudes.size == k:
                bar = float(magnitudes.min())
                place = int(positions[magnitudes == bar].max())
                blocks = blocks[~(self.limits.reshape(-1)[blocks] < bar)]
        return positions


def stacked(taps: Sequence[Tap]) -> Tap:
    """Return all taps as one: their tiles one after the other, padded to the most lanes."""
    if not any(len(d) for d, _ in taps):  # an empty batch: a gradient of zeros
        d, x = (np.zeros((1, a.shape[1], tiles.LANES[0]), a.dtype) for a in taps[0])
        return d, x
    if len(taps) == 1:
        d, x = taps[0]
        return np.ascontiguousarray(d), np.ascontiguousarray(x)
    lanes = max(x.shape[2] for _, x in taps)

    def stack(arrays: list[Array]) -> Array:
        padded = [np.pad(a, ((0, 0), (0, 0), (0, lanes - a.shape[2]))) for a in arrays]
        return np.concatenate(padded)

    return stack([d for d, _ in taps]), stack([x for _, x in taps])


def _norms(a: Array) -> tuple[NDArray[np.float64], int]:
    """Return upper bounds of the features' norms, (n,), and the lanes up to the last nonzero of the last tile."""
    squares, ends = np.empty(a.shape[1], a.dtype), np.empty(a.shape[1], np.int64)
    outer.norms(a, squares, ends)
    terms, info = a.shape[0] * a.shape[2], np.finfo(a.dtype)
    wide = squares.astype(np.float64)
    wide *= 1.0 + 2.0 * terms * float(info.eps)
    wide += terms * float(info.tiny)  # for squares that underflow
    return np.sqrt(wide), int(ends.max(initial=0))


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
