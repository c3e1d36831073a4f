"""The filter of dead images: a funnel that packs the living ones of each layer together, and tiles repacked.

Read `challenge` first. In the funnel each worker has, for every layer of a stack but the first, a queue of images that
still live: as soon as it holds a full tile, the next layer is done. So nearly all tiles are full at every layer, and
their activations never leave the caches, however many images there are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import prange

from nnsparse import jit
from nnsparse.kernels.challenge import NARROW, enter, living, multiply
from nnsparse.kernels.challenge_simd import compress, first_lanes, lowest, popcount
from nnsparse.simd import item, load, put, store, store_head, zero

PACKED = 4  # a tile of which more than 3/4 live goes on as it is
GROUP = 16  # lanes moved together at a time


@jit.inline
def _pack(x, s, chosen, out, t, n, lanes, full):
    """Move the lanes `chosen` of the tile x[s:] together, to offset t on of another tile, which has room for them."""
    group = zero(x, GROUP)
    if chosen == first_lanes(lanes):
        for i in range(0, n * lanes, lanes):
            store(out, t + i, load(x, s + i, full))
        return
    for i in range(0, n * lanes, lanes):
        to = t + i
        for g in range(0, lanes, GROUP):
            bits = (chosen >> g) & (2**GROUP - 1)
            count = popcount(bits)
            store_head(out, to, compress(load(x, s + i + g, group), bits), count)
            to += count


@jit.inline
def _pack_ids(ids, s, chosen, out, t, lanes):
    """Do the same with the numbers of the images."""
    to = t
    for lane in range(lanes):
        if (chosen >> lane) & 1:
            put(out, to, item(ids, s + lane))
            to += 1


@cache
def funnel(lanes: int, width: int) -> Any:
    """Return the kernel that leads images through the layers of a stack, and keeps those that live.

    It takes a stack (see `challenge`), bias and top as `advance` does, and

    - indptr, indices, data (CSR), the first row, how many rows to take, and the number of the first image;
    - x (n_workers, 2·layers + room, n, lanes) and ids (n_workers, 2·layers + room, lanes) int64. Tile 0 of a worker is
      for new images, tile 1 for what comes out, 2l and 2l + 1 are the queue of layer l, and from 2·layers on the images
      that have passed all layers lie side by side;
    - state (n_workers, layers + 1, 2) int64: how many images wait for each layer, and which half of the queue is in
      front; state[:, layers, 0] counts the images that have passed. Kept between calls, zero at first;
    - rows (n_workers, layers) int64, to which the images that live after each layer are added;
    - whether to empty all queues at the end.
    """

    @jit.parallel
    def challenge_funnel(
        weights, inputs, counts, starts, firsts, outputs, bias, top, indptr, indices, data, first, count, number, x,
        ids, state, rows, flush,
    ):  # fmt: skip
        workers, tiles, n, _ = x.shape
        depth = state.shape[1] - 1
        size = n * lanes
        for w in prange(workers):
            stack = (weights, inputs, counts, starts, firsts, outputs)
            full, wide, narrow = zero(x, lanes), zero(x, width), zero(x, NARROW)
            base = w * tiles
            row = count * w // workers
            end = count * (w + 1) // workers
            while True:
                # the tile to begin with: new images, else, at the end, the first queue that is not empty
                layer = 0
                if row < end:
                    here, used = base, min(lanes, end - row)
                    enter(
                        indptr, indices, data, first + row, used, x, here * size, n, 0, lanes, full
                    )
                    for lane in range(used):
                        put(ids, here * lanes + lane, number + row + lane)
                    row += used
                elif flush:
                    layer = 1
                    while layer < depth and state[w, layer, 0] == 0:
                        layer += 1
                    if layer >= depth:
                        break
                    here, used = (base + 2 * layer + state[w, layer, 1], state[w, layer, 0])
                    state[w, layer, 0] = 0
                else:
                    break
                s, t, alive = here, base + 1, first_lanes(used)
                while True:
                    multiply(
                        stack, n, layer, bias, top, x, s * size, x, t * size, lanes, used, width, wide,
                        narrow,
                    )  # fmt: skip
                    alive = living(x, t * size, n, lanes, alive, full)
                    n_alive = popcount(alive)
                    rows[w, layer] += n_alive
                    layer += 1
                    if layer < depth and PACKED * n_alive > (PACKED - 1) * used:
                        s, t = t, s
                        continue
                    waiting, half = state[w, layer, 0], 0
                    if layer < depth:
                        half = state[w, layer, 1]
                        near, far = base + 2 * layer + half, base + 2 * layer + 1 - half
                        lane = waiting
                    else:
                        near = base + 2 * depth + waiting // lanes
                        far = near + 1
                        lane = waiting % lanes
                    now = lowest(alive, min(n_alive, lanes - lane))
                    _pack(x, t * size, now, x, near * size + lane, n, lanes, full)
                    _pack_ids(ids, here * lanes, now, ids, near * lanes + lane, lanes)
                    if now != alive:
                        _pack(x, t * size, alive ^ now, x, far * size, n, lanes, full)
                        _pack_ids(ids, here * lanes, alive ^ now, ids, far * lanes, lanes)
                    waiting += n_alive
                    state[w, layer, 0] = waiting
                    if layer == depth or waiting < lanes:
                        break
                    state[w, layer, 0] = waiting - lanes
                    state[w, layer, 1] = 1 - half
                    here, used = near, lanes
                    s, t, alive = here, base + 1, first_lanes(used)

    return challenge_funnel


@cache
def repack(lanes: int) -> Any:
    """Return the kernel that packs the living images of tiles together.

    It takes x (any number of tiles, n, lanes) with place and alive as `advance` does, ids (n_tiles, lanes), before
    (n_tiles + 1,), how many images live before each tile, origin (n_new,), the tile where the first image of each new
    tile is found; and writes the first n_new tiles of out (≥ n_new, n, lanes) and out_ids (n_new, lanes).
    """

    @jit.parallel
    def challenge_repack(x, place, alive, ids, before, origin, out, out_ids):
        n = x.shape[1]
        size = n * lanes
        for tile in prange(origin.size):
            full = zero(x, lanes)
            lane, source = 0, origin[tile]
            while lane < lanes and source < place.size:
                gone = max(0, tile * lanes - before[source])
                rest = alive[source] ^ lowest(alive[source], gone)
                now = lowest(rest, min(popcount(rest), lanes - lane))
                _pack(x, place[source] * size, now, out, tile * size + lane, n, lanes, full)
                _pack_ids(ids, source * lanes, now, out_ids, tile * lanes + lane, lanes)
                lane += popcount(now)
                source += 1

    return challenge_repack
