"""Sparse weights times tiles of activations: out = W·x (+ bias, ReLU or its gradient).

The forward product and, on the transposed pattern, the input gradient. `spmm` takes one output at a time, its weights
in the order of `plan.Slabs`; `spmm_quads` takes four, in the order of `plan.Quads`, which is faster for dense patterns.

A task is a panel of outputs and a few tiles. Its loops go slab, tile, output: the weights of one panel and slab are
read from memory once and used for all tiles. Where they are stored in another order (`source` is not empty), the first
tile gathers them, in the shadow of its arithmetic, and leaves them in `pack` for the others, where they stay in cache.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.simd import (
    broadcast,
    item,
    load,
    madd,
    mul,
    put,
    relu,
    splat,
    store,
    where_positive,
    zero,
)  # fmt: skip
from nnsparse.simd_quads import MASKS, quad, quad_fresh

# What becomes of a sum before it is written: nothing, its ReLU, or 0 where `gate` is not positive: where `gate` is the
# output of a ReLU and the product a gradient with respect to it, that is the gradient before the ReLU.
PLAIN, RELU, GATE = 0, 1, 2


@cache
def spmm(lanes: int) -> Any:
    """Return the kernel for tiles of `lanes` samples.

    It takes values (nnz,), source (nnz,) or (0,), pack (n_threads · room,) or (0,), room, the arrays of `plan.Slabs`,
    the tiles per task, bias (n_out,), valid (2·lanes,) with ones for the lanes of a full tile and of the last one,
    `finish`, gate (n_tiles, n_out, lanes), which only GATE reads, x (n_tiles, n_in, lanes), and writes all of
    out (n_tiles, n_out, lanes).
    """

    @jit.parallel
    def spmm_kernel(
        values, source, pack, room, indices, pointers, outputs, panels, slab, group, bias, valid, finish,
        gate, x, out,
    ):  # fmt: skip
        n_tiles, n_in, _ = x.shape
        n_out = out.shape[1]
        n_panels = panels.size - 1
        n_slabs = max(1, (n_in + slab - 1) // slab)
        gathered = source.size > 0
        weights = pack if gathered else values
        for task in prange((n_tiles + group - 1) // group * n_panels):
            begin = task // n_panels * group
            first = panels[task % n_panels]
            size = panels[task % n_panels + 1] - first
            for s in range(n_slabs):
                run = first * n_slabs + s * size
                shift = 0
                if gathered:
                    shift = get_thread_id() * room - item(pointers, run)
                for tile in range(begin, min(n_tiles, begin + group)):
                    row = lanes if tile == n_tiles - 1 else 0
                    corner = (tile * n_in + s * slab) * lanes
                    k = item(pointers, run)
                    for j in range(run, run + size):
                        o = item(outputs, j)
                        target = (tile * n_out + o) * lanes
                        if s == 0:
                            acc = mul(broadcast(bias, o, lanes), load(valid, row, lanes))
                        else:
                            acc = load(out, target, lanes)
                        end = item(pointers, j + 1)
                        if gathered and tile == begin:
                            for m in range(k, end):
                                w = item(values, item(source, m))
                                put(pack, m + shift, w)
                                at = corner + item(indices, m) * lanes
                                acc = madd(splat(w, lanes), load(x, at, lanes), acc)
                            k = end
                        while k < end:
                            at = corner + item(indices, k) * lanes
                            acc = madd(
                                broadcast(weights, k + shift, lanes), load(x, at, lanes), acc
                            )
                            k += 1
                        if s == n_slabs - 1:
                            if finish == RELU:
                                acc = relu(acc)
                            elif finish == GATE:
                                acc = where_positive(load(gate, target, lanes), acc)
                        store(out, target, acc)

    return spmm_kernel


@cache
def spmm_quads(lanes: int, width: int) -> Any:
    """Return the kernel for tiles of `lanes` samples, `width` of them at a time (four sums must fit the registers).

    It takes values (nnz,), source (nnz,), pack (n_threads · room,), room, the arrays of `plan.Quads`, and the rest
    like `spmm`.
    """

    @jit.parallel
    def spmm_quads_kernel(
        values, source, pack, room, indices, counts, starts, firsts, panels, slab, group, bias, valid,
        finish, gate, x, out,
    ):  # fmt: skip
        n_tiles, n_in, _ = x.shape
        n_out = out.shape[1]
        n_panels = panels.size - 1
        n_slabs = max(1, (n_in + slab - 1) // slab)
        for task in prange((n_tiles + group - 1) // group * n_panels):
            begin = task // n_panels * group
            first = panels[task % n_panels]
            last = panels[task % n_panels + 1]
            quads = (last - first + 3) // 4
            base = get_thread_id() * room
            for s in range(n_slabs):
                block = first // 4 * n_slabs + s * quads
                start = item(starts, block)
                for tile in range(begin, min(n_tiles, begin + group)):
                    row = lanes if tile == n_tiles - 1 else 0
                    corner = (tile * n_in + s * slab) * lanes
                    final = finish if s == n_slabs - 1 else PLAIN
                    for q in range(quads):
                        j = block + q
                        k, i = item(starts, j) - start + base, item(firsts, j)
                        o = first + 4 * q
                        rows = last - o
                        for lane in range(0, lanes, width):
                            t = (tile * n_out + o) * lanes + lane
                            a = b = c = d = zero(out, width)
                            if s == 0:
                                mask = load(valid, row + lane, width)
                                a = mul(broadcast(bias, o, width), mask)
                                if rows > 1:
                                    b = mul(broadcast(bias, o + 1, width), mask)
                                if rows > 2:
                                    c = mul(broadcast(bias, o + 2, width), mask)
                                if rows > 3:
                                    d = mul(broadcast(bias, o + 3, width), mask)
                            else:
                                a = load(out, t, width)
                                if rows > 1:
                                    b = load(out, t + lanes, width)
                                if rows > 2:
                                    c = load(out, t + 2 * lanes, width)
                                if rows > 3:
                                    d = load(out, t + 3 * lanes, width)
                            if tile == begin and lane == 0:
                                a, b, c, d = quad_fresh(
                                    values, source, item(starts, j), pack, k,
                                    x, corner, lanes, indices, i, counts, j * MASKS, a, b, c, d,
                                )  # fmt: skip
                            else:
                                a, b, c, d = quad(
                                    pack, k,
                                    x, corner + lane, lanes, indices, i, counts, j * MASKS,
                                    a, b, c, d,
                                )  # fmt: skip
                            if final == RELU:
                                a, b, c, d = relu(a), relu(b), relu(c), relu(d)
                            elif final == GATE:
                                a = where_positive(load(gate, t, width), a)
                                if rows > 1:
                                    b = where_positive(load(gate, t + lanes, width), b)
                                if rows > 2:
                                    c = where_positive(load(gate, t + 2 * lanes, width), c)
                                if rows > 3:
                                    d = where_positive(load(gate, t + 3 * lanes, width), d)
                            store(out, t, a)
                            if rows > 1:
                                store(out, t + lanes, b)
                            if rows > 2:
                                store(out, t + 2 * lanes, c)
                            if rows > 3:
                                store(out, t + 3 * lanes, d)

    return spmm_quads_kernel
