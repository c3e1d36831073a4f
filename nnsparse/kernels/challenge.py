"""Graph Challenge inference on tiles: Y = min(max(Z + bias, 0), top) with Z = Y·W, the bias only where Z is not 0.

A tile is (n, lanes): the values of `lanes` images side by side, neuron by neuron. Layers come in stacks, ordered by
`challenge_plan`: weights, inputs, counts, starts and firsts for `simd_quads.quad`, which computes four outputs at a
time and loads the inputs that they have in common once, and `outputs` (n_layers · n,), which ones these are. A thread
leads a tile through many layers while it is in cache. Sets of lanes are bits of an int64. What drops dead images is in
`challenge_filter`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.kernels.challenge_simd import finish, nonzero_bits, popcount
from nnsparse.simd import add, item, load, put, splat, store, zero
from nnsparse.simd_quads import MASKS, quad

NARROW = 16  # lanes of a pass over the weights where at least half of a tile is empty
SCAN = 16  # neurons between two looks at which lanes live


@jit.inline
def _slice(stack, n, first, bias, top, x, s, out, t, pitch, none):
    """Write one layer of the tile x[s:] into the tile out[t:], for as many lanes as the zeros `none`."""
    weights, inputs, counts, starts, firsts, outputs = stack
    shift, limit = splat(bias, none), splat(top, none)
    for q in range((n + 3) // 4):
        j = first + q
        a, b, c, d = quad(
            weights, item(starts, j), x, s, pitch, inputs, item(firsts, j), counts, j * MASKS,
            none, none, none, none,
        )  # fmt: skip
        rows, o = n - 4 * q, first // ((n + 3) // 4) * n + 4 * q
        store(out, t + item(outputs, o) * pitch, finish(a, shift, limit))
        if rows > 1:
            store(out, t + item(outputs, o + 1) * pitch, finish(b, shift, limit))
        if rows > 2:
            store(out, t + item(outputs, o + 2) * pitch, finish(c, shift, limit))
        if rows > 3:
            store(out, t + item(outputs, o + 3) * pitch, finish(d, shift, limit))


@jit.inline
def multiply(stack, n, layer, bias, top, x, s, out, t, lanes, used, width, wide, narrow):
    """Write one layer of the first `used` lanes, or more, of the tile x[s:] into the tile out[t:].

    `wide`, of `width` lanes, and `narrow`, of NARROW, are vectors of zeros.
    """
    first = layer * ((n + 3) // 4)
    if 2 * used > lanes:
        for lane in range(0, lanes, width):
            _slice(stack, n, first, bias, top, x, s + lane, out, t + lane, lanes, wide)
    else:
        for lane in range(0, used, NARROW):
            _slice(stack, n, first, bias, top, x, s + lane, out, t + lane, lanes, narrow)


@jit.inline
def living(x, t, n, lanes, wanted, full):
    """Return which of the lanes `wanted` of the tile x[t:], nowhere negative, are not all 0; `full` are `lanes` zeros.

    Reads no further than until all of them are known to live.
    """
    found, i = 0, 0
    while i < n and found != wanted:
        stop = min(n, i + SCAN)
        total = full
        while i < stop:
            total = add(total, load(x, t + i * lanes, full))
            i += 1
        found |= nonzero_bits(total) & wanted
    return found


@jit.inline
def enter(indptr, indices, data, row, count, x, t, n, lane, lanes, full):
    """Write images row ... row + count - 1, CSR, into lanes from `lane` on of the tile x[t:].

    With lane 0 the whole tile is zeroed before; else those lanes must be 0.
    """
    if lane == 0:
        for i in range(n):
            store(x, t + i * lanes, full)
    for r in range(count):
        at = t + lane + r
        for k in range(item(indptr, row + r), item(indptr, row + r + 1)):
            put(x, at + item(indices, k) * lanes, item(data, k))


@cache
def fill(lanes: int) -> Any:
    """Return the kernel that writes images into tiles.

    It takes indptr, indices, data (CSR), the first row and how many rows to take, x (n_tiles, n, lanes) and the lane,
    counted through all tiles, where the first one goes. Lanes behind the last one become 0.
    """

    @jit.parallel
    def challenge_fill(indptr, indices, data, first, count, x, start):
        n = x.shape[1]
        begin = start // lanes
        for tile in prange(begin, (start + count + lanes - 1) // lanes):
            lane = max(0, start - tile * lanes)
            row = tile * lanes + lane - start
            rows = min(lanes - lane, count - row)
            full = zero(x, lanes)
            enter(
                indptr, indices, data, first + row, rows, x, tile * n * lanes, n, lane, lanes, full
            )

    return challenge_fill


@cache
def advance(lanes: int, width: int) -> Any:
    """Return the kernel that leads tiles of `lanes` images through a stack of layers, `width` lanes at a time.

    It takes a stack, layers first ... last - 1 of which are meant, bias and top (scalars of x's dtype), and

    - x (any number of tiles, n, lanes) with place (n_tiles,) int64, where in x each tile lies, and spare (n_threads,)
      int64, where nothing lies; both are exchanged as tiles move;
    - used (n_tiles,) int64, the lanes of each tile with images, alive (n_tiles,) int64, which of them live, updated,
      and whether to leave out what is dead;
    - rows (last - first, n_tiles) int64, zero on entry: how many images of each tile live after each layer.
    """

    @jit.parallel
    def challenge_advance(
        weights, inputs, counts, starts, firsts, outputs, first, last, bias, top, x, place, spare, used, alive,
        skip, rows,
    ):  # fmt: skip
        n = x.shape[1]
        for tile in prange(place.size):
            stack = (weights, inputs, counts, starts, firsts, outputs)
            full, wide, narrow = zero(x, lanes), zero(x, width), zero(x, NARROW)
            thread = get_thread_id()
            here, there = place[tile], spare[thread]
            now = alive[tile]
            for layer in range(first, last):
                if skip and now == 0:
                    break
                s, t = here * n * lanes, there * n * lanes
                multiply(
                    stack, n, layer, bias, top, x, s, x, t, lanes, used[tile], width, wide, narrow
                )
                now = living(x, t, n, lanes, now, full)
                rows[layer - first, tile] = popcount(now)
                here, there = there, here
            alive[tile] = now
            place[tile] = here
            spare[thread] = there

    return challenge_advance


@cache
def step(lanes: int, width: int) -> Any:
    """Return the kernel that writes out (n_tiles, n, lanes), one layer of x (n_tiles, n, lanes).

    It takes a stack, the number of the layer in it, bias and top as `advance` does, and used and alive.
    """

    @jit.parallel
    def challenge_step(
        weights, inputs, counts, starts, firsts, outputs, layer, bias, top, x, out, used, alive
    ):  # fmt: skip
        n = x.shape[1]
        for tile in prange(x.shape[0]):
            stack = (weights, inputs, counts, starts, firsts, outputs)
            full, wide, narrow = zero(x, lanes), zero(x, width), zero(x, NARROW)
            s = tile * n * lanes
            multiply(
                stack, n, layer, bias, top, x, s, out, s, lanes, used[tile], width, wide, narrow
            )
            alive[tile] = living(out, s, n, lanes, alive[tile], full)

    return challenge_step
