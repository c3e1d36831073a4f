"""A weight gradient Σ d·xᵀ, to be looked at block by block: `Stream`. What it is searched for is in `streaming`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit, tiles
from nnsparse.kernels import gemm, outer
from nnsparse.kernels.select import largest
from nnsparse.topology import Topology

Array = NDArray[Any]
Tap = tuple[Array, Array]  # (d, x) as in Context.taps

SAMPLE = 2**14  # entries of the gradient from which the first bar is guessed
TASKS = 4  # per thread
BLOCK = outer.ROWS * outer.COLUMNS


@dataclass
class Best:
    """The k largest entries seen so far, ties to the lower position.

    Attributes
    ----------
    k : int
    bar, place : float, int
        What is smaller than `bar`, or equal to it and not before `place`, is not among them.
    magnitudes, positions : (n,) arrays
        In any order, n at most k.
    """

    k: int
    bar: float
    place: int
    magnitudes: Array
    positions: Array

    def take(self, found: Array, where: Array) -> None:
        """See more entries."""
        if self.magnitudes.size:
            found = np.concatenate([self.magnitudes, found])
            where = np.concatenate([self.positions, where])
        if found.size > self.k:
            chosen = np.flatnonzero(largest(found, self.k, where))
            found, where = found[chosen], where[chosen]
        self.magnitudes, self.positions = found, where

    def raise_bar(self) -> None:
        """Set the bar to the smallest of k entries."""
        if self.magnitudes.size == self.k:
            self.bar = float(self.magnitudes.min())
            self.place = int(self.positions[self.magnitudes == self.bar].max())


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
        return self.kept.shape[0] * self.kept.shape[1]

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
        ranks = np.full(self.kept.shape[1], -1, np.int32)
        ranks[cols] = np.arange(cols.size, dtype=np.int32)
        starts = np.empty((ends.size, -(-cols.size // outer.COLUMNS) + 2), np.int64)
        taken = np.empty(int(ends[-1]), np.uint16)
        firsts = np.concatenate([[0], ends[:-1]])
        outer.sort_taken(*self.kept.sound(), rows, ranks, firsts, starts, taken)
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

    def nothing(self, k: int, bar: float) -> Best:
        """Return where a search for k entries that reach `bar` begins."""
        return Best(k, bar, self.size, np.empty(0, self.d.dtype), np.empty(0, np.uint32))

    def best(self, k: int, bar: float) -> Array:
        """Return the positions of the k largest free entries, in any order, ties to the lower one.

        Fewer if fewer reach `bar`.
        """
        best, limits = self.nothing(k, bar), self.limits.reshape(-1)
        blocks = np.flatnonzero(~(limits < bar))  # a limit that is NaN excludes nothing
        self.look(best, self.rows, self.cols, blocks, limits.__getitem__)
        return best.positions

    def look(
        self,
        best: Best,
        rows: Array,
        cols: Array,
        blocks: Array,
        limits: Callable[[Array], Array],
    ) -> None:
        """See blocks of some rows and columns, whose limits are `limits(blocks)`."""
        # Deal the panels out: the first ones, of large norm, hold most of what will be found.
        panels = blocks // -(-rows.size // outer.ROWS)
        blocks = blocks[np.argsort(panels % (TASKS * jit.MAX_THREADS), kind="stable")]
        while blocks.size:
            found, where, blocks = self.run(rows, cols, blocks, 4 * best.k, best.bar, best.place)
            best.take(found, where)
            if blocks.size and best.magnitudes.size == best.k:
                best.raise_bar()
                blocks = blocks[~(limits(blocks) < best.bar)]


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
