"""The largest entries in each row of a weight gradient Σ d·xᵀ, as many as each row asks for, at free positions.

Blocks of the product are made in cache and forgotten, as in `outer`. Each row keeps a short list of the best so far,
whose last one is the bar for what follows. What drives this is `sparsify.streaming`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.kernels.outer import (
    COLUMNS,
    ROWS,
    SCAN,
    lowest_bit,
    make_block,
    pack_panel,
    reaching,
)
from nnsparse.simd import item, load, put, zero


@jit.inline
def beats(a, i, b, j):
    """Return whether magnitude a in column i comes before magnitude b in column j."""
    return (a > b) | ((a == b) & (i < j))


@jit.inline
def lead(found, where, first, n, k):
    """Bring the best k of the n entries from `first` on to the front, the last of them to place k - 1.

    Hoare's quickselect, O(n) on average. There is no NaN among them.
    """
    low, high, last = first, first + n - 1, first + k - 1
    while low < high:
        middle = (low + high) // 2
        a, i = item(found, middle), item(where, middle)
        left, right = low, high
        while left <= right:
            while beats(item(found, left), item(where, left), a, i):
                left += 1
            while beats(a, i, item(found, right), item(where, right)):
                right -= 1
            if left <= right:
                value, column = item(found, left), item(where, left)
                put(found, left, item(found, right))
                put(where, left, item(where, right))
                put(found, right, value)
                put(where, right, column)
                left += 1
                right -= 1
        if last <= right:
            high = right
        elif last >= left:
            low = left
        else:
            break


@jit.inline
def collect(block, b, cols, left, n_cols, start, n, bar, place, found, where):
    """Append what beats (bar, place) in one row of a block to the list from `start` on; return its new length."""
    for c in range(0, n_cols, SCAN):
        hits = reaching(load(block, b + c, SCAN), bar) & ((1 << min(SCAN, n_cols - c)) - 1)
        while hits != 0:
            t = c + lowest_bit(hits)
            value, column = abs(item(block, b + t)), item(cols, left + t)
            put(found, start + n, value)
            put(where, start + n, column)
            n += (value > bar) | (column < place)
            hits &= hits - 1
    return n


@jit.inline
def worth(limit, least, norms, bars, top, n_rows):
    """Return whether a block may hold an entry that reaches the bar of its row."""
    found = False
    for row in range(top, top + n_rows):
        found |= not limit * norms[row] + least < bars[row]  # a limit that is NaN excludes nothing
    return found


@cache
def best_of_rows(width: int) -> Any:
    """Return the kernel that finds the best entries of each row of Σ d·xᵀ, in registers of `width` numbers.

    d (n_tiles, n_out, lanes) and x (n_tiles, n_in, lanes); of the last tile only `used` lanes. Row r of `rows` asks
    for firsts[r + 1] - firsts[r] >= 1 entries, the largest magnitudes, ties to the lower column: their positions,
    row · n_in + column, come to `best` from firsts[r] on in any order, and `counts` says how many there are: fewer only
    if the other free ones are NaN. Not free is what `outer.sort_taken` put into `starts` and `taken`.

    The columns come in the order of `cols`. No entry of panel p is larger than limits[p] · norms[r] + least; the limits
    fall. Task t of n_tasks has every n_tasks-th tier of rows. Scratch: `pack` (n_threads · n_tiles · lanes · COLUMNS,),
    `block` (n_threads · ROWS · COLUMNS,), `bars` (n_rows,) zeros, `places` (n_rows,) of n_in, `counts` zeros, `found`
    and `where` (2 · firsts[-1] + n_rows · COLUMNS,).
    """

    @jit.parallel
    def best_of_rows_kernel(
        d, x, used, rows, cols, firsts, limits, norms, least, n_tasks, starts, taken, pack, block,
        bars, places, found, where, counts, best,
    ):  # fmt: skip
        n_tiles, n_in, lanes = x.shape
        n_tiers = (rows.size + ROWS - 1) // ROWS
        for task in prange(n_tasks):
            thread = get_thread_id()
            p, b = thread * n_tiles * lanes * COLUMNS, thread * ROWS * COLUMNS
            none = zero(block, width)
            for panel in range(limits.size):
                left, packed = panel * COLUMNS, False
                n_cols = min(COLUMNS, cols.size - left)
                for tier in range(task, n_tiers, n_tasks):
                    top = tier * ROWS
                    n_rows = min(ROWS, rows.size - top)
                    if not worth(limits[panel], least, norms, bars, top, n_rows):
                        continue
                    if not packed:
                        pack_panel(x, used, cols, left, pack, p)
                        packed = True
                    make_block(d, used, rows, top, pack, p, block, b, width, none)
                    for k in range(starts[tier, panel], starts[tier, panel + 1]):
                        put(block, b + item(taken, k), np.nan)
                    for r in range(n_rows):
                        row = top + r
                        k = firsts[row + 1] - firsts[row]
                        start = 2 * firsts[row] + row * COLUMNS
                        n = collect(
                            block, b + r * COLUMNS, cols, left, n_cols, start, counts[row],
                            bars[row], places[row], found, where,
                        )  # fmt: skip
                        if n > 2 * k:  # else the next block finds room
                            lead(found, where, start, n, k)
                            n = k
                            bars[row] = item(found, start + k - 1)
                            places[row] = item(where, start + k - 1)
                        counts[row] = n
                if not packed:  # nothing was worth it, and the limits fall
                    break
            for tier in range(task, n_tiers, n_tasks):
                for row in range(tier * ROWS, min(tier * ROWS + ROWS, rows.size)):
                    k = firsts[row + 1] - firsts[row]
                    start = 2 * firsts[row] + row * COLUMNS
                    if counts[row] > k:
                        lead(found, where, start, counts[row], k)
                        counts[row] = k
                    for i in range(counts[row]):
                        best[firsts[row] + i] = rows[row] * n_in + item(where, start + i)

    return best_of_rows_kernel
