"""The largest entries of a gradient too wide for a list of its blocks: those whose limits are largest first.

Rows and columns are sorted by norm, so in each tier of rows the panels whose limit reaches a bar are the first few: a
staircase. It goes down in rounds, each of a few times as many blocks, until no block beyond it can matter. In a trained
network norms differ so much that this looks at some hundred entries for each that grows, however wide the layer is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.kernels import outer
from nnsparse.sparsify.stream import BLOCK, Best, Stream

Array = NDArray[Any]

AREA = 2**22  # blocks of a rectangle: 40 bytes each while it is looked at
FEW = 2**10  # blocks of the first round, or 32 entries for each one wanted
STEPS = 32  # of a bisection, over 100 binary orders of magnitude


def is_wide(stream: Stream) -> bool:
    """Return whether a gradient has too many blocks to list their limits."""
    return -(-stream.rows.size // outer.ROWS) * -(-stream.cols.size // outer.COLUMNS) > AREA


def best(stream: Stream, k: int) -> Array:
    """Return the positions of the k largest free entries, in any order, ties to the lower one.

    Fewer only if others are NaN. Memory is O(k + nnz + n_out + n_in), time that of the dense product at most.
    """
    found = _search(_without_zeros(stream), k)
    if found.magnitudes.size == k and found.magnitudes.min() > 0:
        return found.positions
    if not (np.isfinite(stream.row_norms).all() and np.isfinite(stream.col_norms).all()):
        return found.positions
    # All entries that are not 0 have been found; of the others the lowest positions win.
    positive = found.positions[found.magnitudes > 0].astype(np.int64)
    taken = np.concatenate([stream.kept._keys(), positive])
    taken.sort()
    taken -= np.arange(taken.size)  # now the number of other positions before each
    lowest = np.arange(min(k - positive.size, stream.size - taken.size))
    lowest += np.searchsorted(taken, lowest, side="right")
    return np.concatenate([positive, lowest])


def _without_zeros(stream: Stream) -> Stream:
    """Return the stream without rows and columns that are zero: their entries are."""
    rows, cols = (
        np.asarray(a.any(axis=(0, 2)))[order]
        for a, order in ((stream.d, stream.rows), (stream.x, stream.cols))
    )
    return replace(
        stream,
        rows=stream.rows[rows],
        cols=stream.cols[cols],
        row_norms=stream.row_norms[rows],
        col_norms=stream.col_norms[cols],
    )


def _search(stream: Stream, k: int) -> Best:
    """Return the k largest free entries of the rows and columns of a stream."""
    tops, fronts = stream.row_norms[:: outer.ROWS], stream.col_norms[:: outer.COLUMNS]
    found, seen = stream.nothing(k, 0.0), np.zeros(tops.size, np.int64)
    wanted = max(FEW, 32 * k // BLOCK)
    while seen.sum() < tops.size * fronts.size:
        lowest = max(found.bar, _level(tops, fronts, stream.least, wanted))
        reached = np.maximum(seen, _reach(tops, fronts, stream.least, lowest))
        for first, last, n_panels, blocks in _rectangles(seen, reached):
            _look(stream, found, first, last, n_panels, blocks)
            found.raise_bar()
        if lowest <= found.bar:
            break
        seen, wanted = reached, 4 * wanted
    return found


def _reach(tops: Array, fronts: Array, least: float, bar: float) -> NDArray[np.int64]:
    """Return of each tier how many panels have a limit tops · fronts + least of `bar` or more, or a few more.

    None where the norm is NaN: so are all entries.
    """
    if bar <= least:
        return np.full(tops.size, fronts.size)
    with np.errstate(divide="ignore"):
        lowest = (bar - least) / tops * (1.0 - 1e-12)
    return np.where(np.isnan(tops), 0, np.searchsorted(-fronts, -lowest, side="right"))


def _level(tops: Array, fronts: Array, least: float, wanted: int) -> float:
    """Return a bar that about `wanted` blocks reach, 0 if there are not more."""
    if tops.size * fronts.size <= wanted:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        most = tops[0] * fronts[0] + least
    high = np.log2(most) if np.isfinite(most) else np.log2(np.finfo(np.float64).max)
    low = high - 100.0
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        enough = _reach(tops, fronts, least, 2.0**middle).sum() >= wanted
        low, high = (middle, high) if enough else (low, middle)
    reached = _reach(tops, fronts, least, 2.0**low).sum()
    return float(2.0**low) if reached >= wanted else 0.0


def _rectangles(seen: Array, reached: Array) -> Iterator[tuple[int, int, int, Array]]:
    """Yield (first tier, behind the last, panels, blocks) of all that is between two staircases.

    A rectangle has AREA blocks or less, if not one tier has more; its block u is tier u % n and panel u // n of it,
    of n tiers.
    """
    first, n_tiers = 0, int(np.count_nonzero(reached))
    while first < n_tiers:
        n_panels = int(reached[first])
        last = min(n_tiers, first + max(1, AREA // n_panels))
        counts = reached[first:last] - seen[first:last]
        if counts.any():
            tiers = np.repeat(np.arange(last - first), counts)
            begin = np.repeat(seen[first:last] - np.cumsum(counts) + counts, counts)
            panels = np.arange(tiers.size) + begin
            yield first, last, n_panels, np.sort(panels * (last - first) + tiers)
        first = last


def _look(stream: Stream, found: Best, first: int, last: int, n_panels: int, blocks: Array) -> None:
    """See the blocks of a rectangle."""
    n = last - first
    tops = stream.row_norms[first * outer.ROWS : last * outer.ROWS : outer.ROWS]
    fronts = stream.col_norms[: n_panels * outer.COLUMNS : outer.COLUMNS]

    def limits(some: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            highest: Array = fronts[some // n] * tops[some % n] + stream.least
        return highest

    rows = stream.rows[first * outer.ROWS : last * outer.ROWS]
    cols = stream.cols[: n_panels * outer.COLUMNS]
    stream.look(found, rows, cols, blocks, limits)
