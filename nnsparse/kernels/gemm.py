"""Dense weights on the same tiles: the three products of a dense layer without BLAS.

OpenBLAS' workers keep spinning on the cores that Numba's threads want (DESIGN §1.8), so inside a model every product
runs on one thread pool. All three products are one register block: four rows of A times a panel of B, with strides.
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
from nnsparse.simd_block import load_rows, store_rows, transpose
from nnsparse.simd_sums import total

DEPTH = 128  # k per panel: 128 x 64 lanes of float32 fill the 32 KB of L1; not tuned further
ROWS = 64  # rows of a packed block of A, columns of a packed block of B


def width(lanes: int, itemsize: int) -> int:
    """Return the lanes of a register block, so that 4 rows fit the registers of this CPU.

    16 of 32 registers with AVX-512, 8 of 16 with AVX2 or SSE.
    """
    bits = jit.vector_bits()
    return min(lanes, (4 if bits == 512 else 2) * bits // (8 * itemsize))


@jit.inline
def block4(a, i, row, step, b, j, pitch, depth, c0, c1, c2, c3):
    """Return c + A·B for four rows: A(r, k) = a[i + r·row + k·step], B(k, :) = b[j + k·pitch : ...]."""
    for _ in range(depth):
        x = load(b, j, c0)
        c0 = madd(broadcast(a, i, c0), x, c0)
        c1 = madd(broadcast(a, i + row, c0), x, c1)
        c2 = madd(broadcast(a, i + 2 * row, c0), x, c2)
        c3 = madd(broadcast(a, i + 3 * row, c0), x, c3)
        i += step
        j += pitch
    return c0, c1, c2, c3


@jit.inline
def block1(a, i, step, b, j, pitch, depth, c):
    """Return c + A·B for one row (see `block4`)."""
    for k in range(depth):
        c = madd(broadcast(a, i + k * step, c), load(b, j + k * pitch, c), c)
    return c


@jit.inline
def rows4(d, a, lanes, pack, j, out, t, pitch, fresh, none):
    """Add d·xᵀ to four rows of `out` from offset `t` on (or write it, if `fresh`), as wide as the vector `none`."""
    c0 = c1 = c2 = c3 = none
    if not fresh:
        c0, c1 = load(out, t, none), load(out, t + pitch, none)
        c2, c3 = load(out, t + 2 * pitch, none), load(out, t + 3 * pitch, none)
    c0, c1, c2, c3 = block4(d, a, lanes, 1, pack, j, ROWS, lanes, c0, c1, c2, c3)
    store(out, t, c0)
    store(out, t + pitch, c1)
    store(out, t + 2 * pitch, c2)
    store(out, t + 3 * pitch, c3)


@cache
def gemm(lanes: int, width: int) -> Any:
    """Return the kernel out = W·x (+ bias, ReLU); W is (n_out, n_in), row-major, given flat."""

    @jit.parallel
    def gemm_kernel(w, n_splits, bias, valid, rectify, x, out):
        n_tiles, n_in, _ = x.shape
        n_out = out.shape[1]
        n_depth = max(1, (n_in + DEPTH - 1) // DEPTH)
        per_split = ((n_out + n_splits - 1) // n_splits + 3) // 4 * 4
        for task in prange(n_tiles * n_splits):
            tile = task // n_splits
            first = (task % n_splits) * per_split
            last = min(n_out, first + per_split)
            row = lanes if tile == n_tiles - 1 else 0
            for q in range(n_depth):
                depth = min(DEPTH, n_in - q * DEPTH)
                final = rectify and q == n_depth - 1
                for lane in range(0, lanes, width):
                    j = (tile * n_in + q * DEPTH) * lanes + lane
                    mask = load(valid, row + lane, width)
                    o = first
                    while o + 4 <= last:
                        t = (tile * n_out + o) * lanes + lane
                        if q == 0:
                            c0 = mul(splat(bias[o], width), mask)
                            c1 = mul(splat(bias[o + 1], width), mask)
                            c2 = mul(splat(bias[o + 2], width), mask)
                            c3 = mul(splat(bias[o + 3], width), mask)
                        else:
                            c0 = load(out, t, width)
                            c1 = load(out, t + lanes, width)
                            c2 = load(out, t + 2 * lanes, width)
                            c3 = load(out, t + 3 * lanes, width)
                        i = o * n_in + q * DEPTH
                        c0, c1, c2, c3 = block4(w, i, n_in, 1, x, j, lanes, depth, c0, c1, c2, c3)
                        if final:
                            c0, c1, c2, c3 = relu(c0), relu(c1), relu(c2), relu(c3)
                        store(out, t, c0)
                        store(out, t + lanes, c1)
                        store(out, t + 2 * lanes, c2)
                        store(out, t + 3 * lanes, c3)
                        o += 4
                    while o < last:
                        t = (tile * n_out + o) * lanes + lane
                        c = mul(splat(bias[o], width), mask) if q == 0 else load(out, t, width)
                        c = block1(w, o * n_in + q * DEPTH, 1, x, j, lanes, depth, c)
                        store(out, t, relu(c) if final else c)
                        o += 1

    return gemm_kernel


@cache
def gemm_t(lanes: int, width: int) -> Any:
    """Return the kernel out = Wᵀ·d, the input gradient; W is (n_out, n_in), row-major, given flat.

    With `gated`, out is 0 where gate (n_tiles, n_in, lanes) is not positive (see `spmm.GATE`).

    Blocks of Wᵀ are packed into `pack` (n_threads · ROWS · DEPTH,): its columns lie n_in apart, a power of two that
    would map them onto a few cache sets.
    """

    @jit.parallel
    def gemm_t_kernel(w, pack, gated, gate, d, out):
        n_tiles, n_out, _ = d.shape
        n_in = out.shape[1]
        n_depth = max(1, (n_out + DEPTH - 1) // DEPTH)
        for task in prange((n_in + ROWS - 1) // ROWS):
            first = task * ROWS
            rows = min(ROWS, n_in - first)
            groups = (rows + 3) // 4
            base = get_thread_id() * ROWS * DEPTH
            for q in range(n_depth):
                depth = min(DEPTH, n_out - q * DEPTH)
                final = gated and q == n_depth - 1
                for k in range(depth):
                    i = (q * DEPTH + k) * n_in + first
                    for g in range(rows // 4):
                        store(pack, base + (g * DEPTH + k) * 4, load(w, i + 4 * g, 4))
                    for r in range(rows // 4 * 4, rows):
                        pack[base + (r // 4 * DEPTH + k) * 4 + r % 4] = w[i + r]
                for tile in range(n_tiles):
                    for lane in range(0, lanes, width):
                        j = (tile * n_out + q * DEPTH) * lanes + lane
                        for g in range(groups):
                            t = (tile * n_in + first + 4 * g) * lanes + lane
                            i = base + g * DEPTH * 4
                            if 4 * g + 4 <= rows:
                                c0 = c1 = c2 = c3 = zero(out, width)
                                if q > 0:
                                    c0, c1 = load(out, t, width), load(out, t + lanes, width)
                                    c2 = load(out, t + 2 * lanes, width)
                                    c3 = load(out, t + 3 * lanes, width)
                                c0, c1, c2, c3 = block4(
                                    pack, i, 1, 4, d, j, lanes, depth, c0, c1, c2, c3
                                )
                                if final:
                                    c0 = where_positive(load(gate, t, width), c0)
                                    c1 = where_positive(load(gate, t + lanes, width), c1)
                                    c2 = where_positive(load(gate, t + 2 * lanes, width), c2)
                                    c3 = where_positive(load(gate, t + 3 * lanes, width), c3)
                                store(out, t, c0)
                                store(out, t + lanes, c1)
                                store(out, t + 2 * lanes, c2)
                                store(out, t + 3 * lanes, c3)
                            else:
                                for r in range(rows - 4 * g):
                                    at = t + r * lanes
                                    c = load(out, at, width) if q > 0 else zero(out, width)
                                    c = block1(pack, i + r, 4, d, j, lanes, depth, c)
                                    if final:
                                        c = where_positive(load(gate, at, width), c)
                                    store(out, at, c)

    return gemm_t_kernel


@cache
def gemm_w(lanes: int, width: int) -> Any:
    """Return the kernel out = d·xᵀ, the weight gradient (n_out, n_in), row-major, flat.

    Into sums (n_out,) it writes the bias gradient, unless that is (0,).

    A block of xᵀ is packed into `pack` (n_threads · (lanes + 1) · ROWS,) with samples as rows; then it is the same
    register block again.
    """

    @jit.parallel
    def gemm_w_kernel(n_splits, pack, d, x, sums, out):
        n_tiles, n_out, _ = d.shape
        n_in = x.shape[1]
        n_blocks = (n_in + ROWS - 1) // ROWS
        per_split = ((n_out + n_splits - 1) // n_splits + 3) // 4 * 4
        for task in prange(n_blocks * n_splits):
            start = (task // n_splits) * ROWS
            columns = min(ROWS, n_in - start)
            first = (task % n_splits) * per_split
            last = min(n_out, first + per_split)
            base = get_thread_id() * (lanes + 1) * ROWS
            edge = base + lanes * ROWS  # one row behind the packed block
            wide, narrow = zero(out, width), zero(out, 16)
            for tile in range(n_tiles):
                whole = columns // 16 * 16
                for i in range(0, whole, 16):
                    for lane in range(0, lanes, 16):
                        rows = load_rows(x, (tile * n_in + start + i) * lanes + lane, lanes)
                        store_rows(pack, base + lane * ROWS + i, ROWS, transpose(rows))
                for i in range(whole, columns):
                    for lane in range(x.shape[2]):
                        pack[base + lane * ROWS + i] = x[tile, start + i, lane]
                fresh = tile == 0
                if start == 0 and sums.size > 0:
                    for o in range(first, last):
                        part = total(load(d, (tile * n_out + o) * lanes, lanes))
                        put(sums, o, part if fresh else item(sums, o) + part)
                for o in range(first, last, 4):
                    a = (tile * n_out + o) * lanes
                    t = o * n_in + start
                    column = 0
                    if o + 4 <= last:
                        while column + width <= columns:
                            j = base + column
                            rows4(d, a, lanes, pack, j, out, t + column, n_in, fresh, wide)
                            column += width
                        while column + 16 <= columns:
                            j = base + column
                            rows4(d, a, lanes, pack, j, out, t + column, n_in, fresh, narrow)
                            column += 16
                    for c in range(column, columns, 16):
                        inside = min(16, columns - c)
                        for r in range(min(4, last - o)):
                            at = t + r * n_in + c
                            for i in range(16):
                                pack[edge + i] = 0 if fresh or i >= inside else out[at + i]
                            acc = load(pack, edge, 16)
                            acc = block1(d, a + r * lanes, 1, pack, base + c, ROWS, lanes, acc)
                            store(pack, edge, acc)
                            for i in range(inside):
                                out[at + i] = pack[edge + i]

    return gemm_w_kernel
