"""The whole forward pass for many samples: each thread leads its tile through all layers while it is in cache.

Read `forward` first, which says what a program is. A tile is (n_features, lanes) in a thread's scratch memory, which
has room for two of them: a layer reads one and writes the other. The products have more than 40 lines because four sums
stay in registers only where they are written out.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.kernels.forward import BLOCK, DENSE, HEAD, NARROW, RELU, SCALE, activate
from nnsparse.kernels.gemm import DEPTH
from nnsparse.kernels.stored import four, weight
from nnsparse.simd import broadcast, item, load, madd, put, relu, splat, store
from nnsparse.simd_block import load_rows, store_rows, transpose


@jit.inline
def _enter(x, first, rows, tile, s, lanes):
    """Write samples first ... first + rows - 1 of x (batch, n_in) into the tile at `s`, zeros beyond them."""
    n_in = x.shape[1]
    for lane in range(0, lanes, 16):
        whole = 0
        if rows - lane >= 16:
            whole = n_in // 16 * 16
            for f in range(0, whole, 16):
                block = load_rows(x, (first + lane) * n_in + f, n_in)
                store_rows(tile, s + f * lanes + lane, lanes, transpose(block))
        for r in range(lane, lane + 16):
            if r < rows:
                for f in range(whole, n_in):
                    put(tile, s + f * lanes + r, item(x, (first + r) * n_in + f))
            else:
                for f in range(whole, n_in):
                    put(tile, s + f * lanes + r, 0)


@jit.inline
def _leave(tile, s, lanes, first, rows, out):
    """Write the tile at `s` into samples first ... first + rows - 1 of out (batch, n_out)."""
    n_out = out.shape[1]
    for lane in range(0, min(lanes, rows), 16):
        whole = 0
        if rows - lane >= 16:
            whole = n_out // 16 * 16
            for f in range(0, whole, 16):
                block = load_rows(tile, s + f * lanes + lane, lanes)
                store_rows(out, (first + lane) * n_out + f, n_out, transpose(block))
        for r in range(lane, min(rows, lane + 16)):
            for f in range(whole, n_out):
                put(out, (first + r) * n_out + f, item(tile, s + f * lanes + r))


@cache
def _products(lanes: int, width: int) -> Any:
    """Return the products of one block, sparse and dense, with a tile of `lanes` samples, `width` of them at a time."""

    @jit.inline
    def sparse_rows(program, block, values, indices, wide, bias, b, fresh, rectify, x, s, t):
        first, n = item(program, block), item(program, block + 5)
        j, i, k = item(program, block + 2), item(program, block + 3), item(program, block + 4)
        t += first * lanes
        b += first
        for g in range(n):
            count = item(program, block + BLOCK + 2 * g)
            rows = item(program, block + BLOCK + 2 * g + 1)
            for _ in range(rows // 4):
                o = four(wide, j)
                t0, t1, t2, t3 = (
                    t + o[0] * lanes,
                    t + o[1] * lanes,
                    t + o[2] * lanes,
                    t + o[3] * lanes,
                )
                for lane in range(0, lanes, width):
                    if fresh:
                        a0, a1 = broadcast(bias, b + o[0], width), broadcast(bias, b + o[1], width)
                        a2, a3 = broadcast(bias, b + o[2], width), broadcast(bias, b + o[3], width)
                    else:
                        a0, a1 = load(x, t0 + lane, width), load(x, t1 + lane, width)
                        a2, a3 = load(x, t2 + lane, width), load(x, t3 + lane, width)
                    for m in range(0, 4 * count, 4):
                        c, q = four(indices, i + m), k + m
                        corner = s + lane
                        a0 = madd(
                            splat(weight(values, q, x), width),
                            load(x, corner + c[0] * lanes, width), a0,
                        )  # fmt: skip
                        a1 = madd(
                            splat(weight(values, q + 1, x), width),
                            load(x, corner + c[1] * lanes, width), a1,
                        )  # fmt: skip
                        a2 = madd(
                            splat(weight(values, q + 2, x), width),
                            load(x, corner + c[2] * lanes, width), a2,
                        )  # fmt: skip
                        a3 = madd(
                            splat(weight(values, q + 3, x), width),
                            load(x, corner + c[3] * lanes, width), a3,
                        )  # fmt: skip
                    if rectify:
                        a0, a1, a2, a3 = relu(a0), relu(a1), relu(a2), relu(a3)
                    store(x, t0 + lane, a0)
                    store(x, t1 + lane, a1)
                    store(x, t2 + lane, a2)
                    store(x, t3 + lane, a3)
                j += 4
                i += 4 * count
                k += 4 * count
            for _ in range(rows % 4):
                o1 = item(wide, j)
                for lane in range(0, lanes, width):
                    at = t + o1 * lanes + lane
                    acc = broadcast(bias, b + o1, width) if fresh else load(x, at, width)
                    for m in range(count):
                        corner = s + lane + item(indices, i + m) * lanes
                        acc = madd(
                            splat(weight(values, k + m, x), width), load(x, corner, width), acc
                        )
                    store(x, at, relu(acc) if rectify else acc)
                j += 1
                i += count
                k += count

    @jit.inline
    def dense_rows(program, block, n_in, values, bias, b, rectify, x, s, t):
        first, n, base = item(program, block), item(program, block + 1), item(program, block + 4)
        for start in range(0, n_in, DEPTH):
            stop = min(n_in, start + DEPTH)
            last = rectify and stop == n_in
            for lane in range(0, lanes, width):
                for r in range(0, n, 4):
                    # Where fewer than four outputs are left, the last one is computed several times.
                    r1, r2, r3 = min(r + 1, n - 1), min(r + 2, n - 1), min(r + 3, n - 1)
                    t0, t1 = t + (first + r) * lanes + lane, t + (first + r1) * lanes + lane
                    t2, t3 = t + (first + r2) * lanes + lane, t + (first + r3) * lanes + lane
                    o = b + first
                    if start == 0:
                        a0, a1 = broadcast(bias, o + r, width), broadcast(bias, o + r1, width)
                        a2, a3 = broadcast(bias, o + r2, width), broadcast(bias, o + r3, width)
                    else:
                        a0, a1 = load(x, t0, width), load(x, t1, width)
                        a2, a3 = load(x, t2, width), load(x, t3, width)
                    for i in range(start, stop):
                        v = load(x, s + i * lanes + lane, width)
                        k = base + i
                        a0 = madd(splat(weight(values, k + r * n_in, x), width), v, a0)
                        a1 = madd(splat(weight(values, k + r1 * n_in, x), width), v, a1)
                        a2 = madd(splat(weight(values, k + r2 * n_in, x), width), v, a2)
                        a3 = madd(splat(weight(values, k + r3 * n_in, x), width), v, a3)
                    if last:
                        a0, a1, a2, a3 = relu(a0), relu(a1), relu(a2), relu(a3)
                    store(x, t0, a0)
                    store(x, t1, a1)
                    store(x, t2, a2)
                    store(x, t3, a3)

    return sparse_rows, dense_rows


@cache
def _panel(lanes: int, width: int) -> Any:
    """Return the product and activation of one panel of a layer with a tile of `lanes` samples."""
    sparse_rows, dense_rows = _products(lanes, width)

    @jit.inline
    def panel_forward(program, layer, panel, values, narrow, wide, constants, x, s, t):
        kind, n_in = item(program, layer + 1), item(program, layer + 2)
        act, b = item(program, layer + 4), item(program, layer + 6)
        a, slab = item(program, layer + 7), item(program, layer + 8)
        block = item(program, layer + HEAD + panel)
        begin = t + item(program, block) * lanes
        end = begin + item(program, block + 1) * lanes
        rectify = act == RELU
        if kind == SCALE:
            for f in range(n_in):
                scale, shift = item(constants, a + f), item(constants, b + f)
                for lane in range(f * lanes, f * lanes + lanes):
                    put(x, t + lane, scale * item(x, s + lane) + shift)
        elif kind == DENSE:
            dense_rows(program, block, n_in, values, constants, b, rectify, x, s, t)
        else:
            for c in range(0, n_in, slab):
                corner, last = s + c * lanes, rectify and c + slab >= n_in
                if kind == NARROW:
                    sparse_rows(
                        program, block, values, narrow, wide, constants, b, c == 0, last, x, corner, t
                    )  # fmt: skip
                else:
                    sparse_rows(
                        program, block, values, wide, wide, constants, b, c == 0, last, x, corner, t
                    )  # fmt: skip
                block += BLOCK + 2 * item(program, block + 5)
        if not rectify or kind == SCALE:
            activate(act, item(constants, item(program, layer + 5)), x, begin, end)

    return panel_forward


@cache
def _tile(lanes: int, width: int) -> Any:
    """Return the forward pass of one tile of `lanes` samples."""
    panel_forward = _panel(lanes, width)

    @jit.inline
    def tile_forward(program, values, narrow, wide, constants, x, tile, scratch, base, out):
        first = tile * lanes
        rows = min(lanes, x.shape[0] - first)
        s, t = base, base + item(program, 1) * lanes
        _enter(x, first, rows, scratch, s, lanes)
        layer = 2
        for _ in range(item(program, 0)):
            for p in range(item(program, layer + 9)):
                panel_forward(program, layer, p, values, narrow, wide, constants, scratch, s, t)
            s, t = t, s
            layer = item(program, layer)
        _leave(scratch, s, lanes, first, rows, out)

    return tile_forward


@cache
def tiles_serial(lanes: int, width: int) -> Any:
    """Return the kernel that writes out (batch, n_out) for x (batch, n_in), one tile after the other.

    `scratch` is (2 · widest layer · lanes,), `width` the lanes of which four sums fit the registers.
    """
    tile_forward = _tile(lanes, width)

    @jit.serial
    def tiles_serial_kernel(program, values, narrow, wide, constants, x, scratch, out):
        for tile in range((x.shape[0] + lanes - 1) // lanes):
            tile_forward(program, values, narrow, wide, constants, x, tile, scratch, 0, out)

    return tiles_serial_kernel


@cache
def tiles_parallel(lanes: int, width: int) -> Any:
    """Return the kernel that does so with a tile on each thread; `scratch` has room for two tiles a thread."""
    tile_forward = _tile(lanes, width)

    @jit.parallel
    def tiles_parallel_kernel(program, values, narrow, wide, constants, x, scratch, out):
        room = 2 * program[1] * lanes
        for tile in prange((x.shape[0] + lanes - 1) // lanes):
            base = get_thread_id() * room
            tile_forward(program, values, narrow, wide, constants, x, tile, scratch, base, out)

    return tiles_parallel_kernel


@cache
def tiles_split(lanes: int, width: int) -> Any:
    """Return the kernel that does so for one tile after the other, the panels of each layer on all threads."""
    panel_forward = _panel(lanes, width)

    @jit.parallel
    def tiles_split_kernel(program, values, narrow, wide, constants, x, scratch, out):
        room = program[1] * lanes
        for first in range(0, x.shape[0], lanes):
            rows = min(lanes, x.shape[0] - first)
            _enter(x, first, rows, scratch, 0, lanes)
            layer, s = 2, 0
            for _ in range(program[0]):
                for p in prange(program[layer + 9]):
                    panel_forward(
                        program, layer, p, values, narrow, wide, constants, scratch, s, room - s
                    )
                s = room - s
                layer = program[layer]
            _leave(scratch, s, lanes, first, rows, out)

    return tiles_split_kernel
