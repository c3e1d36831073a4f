"""The largest entries of a weight gradient Σ d·xᵀ at free positions, without the array of all of them.

The product is made in blocks that stay in the first-level cache; what reaches a bar there is noted and the block is
forgotten. Blocks whose entries cannot reach it, by the Cauchy-Schwarz inequality, are not made at all. What drives
this is `sparsify.streaming`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import get_thread_id, prange
from numba.core import cgutils, types
from numba.extending import intrinsic

from nnsparse import jit
from nnsparse.simd import _splat, broadcast, item, load, madd, put, store, zero
from nnsparse.simd_block import load_rows_at, store_rows, transpose
from nnsparse.simd_sums import total

# Of a block: with a panel of x for 64 lanes it fills most of the first-level cache
ROWS, COLUMNS = 32, 64
SCAN = 32  # entries compared at a time
MASKS = 2 * ROWS * COLUMNS // SCAN + 2  # numbers that note which entries of a block reach the bar


@intrinsic
def reaching(typingctx, vector, bar):
    """Return an int64 whose bit i says whether |vector[i]| >= bar; a NaN does not. At most 32 elements."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        name = f"llvm.fabs.v{vector.length}f{vector.dtype.bitwidth}"
        fabs = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
        magnitude = builder.call(fabs, [args[0]])
        bar = context.cast(builder, args[1], signature.args[1], vector.dtype)
        hits = builder.fcmp_ordered(">=", magnitude, _splat(builder, bar, vector.length))
        return builder.zext(builder.bitcast(hits, ir.IntType(vector.length)), ir.IntType(64))

    return types.int64(vector, bar), codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """Return the number of the lowest bit that is set in an int64 other than 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@intrinsic
def fetch(typingctx, array, offset):
    """Ask for the cache line of an element of a C-contiguous array ahead of its use."""

    def codegen(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        where = builder.gep(data, [context.cast(builder, args[1], signature.args[1], types.intp)])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [where.type, number, number, number])
        name = "llvm.prefetch.p0"
        call = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(call, [where, *(ir.Constant(number, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, offset), codegen


@jit.parallel
def norms(a, squares, ends):
    """Write Σ a² of each feature of a (n_tiles, n, lanes), and behind which lane of the last tile it is all zero."""
    n_tiles, n, lanes = a.shape
    for i in prange(n):
        acc = zero(a, 16)
        for tile in range(n_tiles):
            for lane in range(0, lanes, 16):
                part = load(a, (tile * n + i) * lanes + lane, 16)
                acc = madd(part, part, acc)
        used = lanes
        while used > 0 and item(a, ((n_tiles - 1) * n + i) * lanes + used - 1) == 0:
            used -= 1
        squares[i] = total(acc)
        ends[i] = used


@jit.parallel
def sort_taken(indptr, columns, rows, ranks, firsts, starts, taken):
    """Sort the positions of a CSR pattern by the block that they are in.

    Writes into `taken` (uint16) where in its block each lies, row · COLUMNS + column. Those of a block begin at
    starts[tier, panel] and end at starts[tier, panel + 1]. A tier is ROWS of `rows`, and its positions lie from
    firsts[tier] on; `ranks` (n_in,) says where in the order of the panels a column is, -1 if nowhere. starts has
    n_panels + 2 columns.
    """
    for tier in prange(firsts.size):
        starts[tier, :] = 0
        top = tier * ROWS
        starts[tier, 0] = starts[tier, 1] = firsts[tier]
        for r in range(min(ROWS, rows.size - top)):
            for k in range(indptr[rows[top + r]], indptr[rows[top + r] + 1]):
                rank = ranks[columns[k]]
                if rank >= 0:
                    starts[tier, rank // COLUMNS + 2] += 1
        for panel in range(2, starts.shape[1]):
            starts[tier, panel] += starts[tier, panel - 1]
        for r in range(min(ROWS, rows.size - top)):
            for k in range(indptr[rows[top + r]], indptr[rows[top + r] + 1]):
                rank = ranks[columns[k]]
                if rank >= 0:
                    panel = rank // COLUMNS + 1
                    taken[starts[tier, panel]] = r * COLUMNS + rank % COLUMNS
                    starts[tier, panel] += 1


@jit.inline
def pack_panel(x, used, cols, left, pack, p):
    """Write the columns cols[left : left + COLUMNS] of xᵀ to `pack`, one sample after the other."""
    n_tiles, n_in, lanes = x.shape
    count = min(COLUMNS, cols.size - left)
    for tile in range(n_tiles):
        depth = used if tile == n_tiles - 1 else lanes
        for c in range(0, count, 16):
            for lane in range(0, depth, 16):
                start = tile * n_in * lanes + lane
                block = load_rows_at(x, cols, left + c, min(16, count - c), lanes, start)
                target = p + (tile * lanes + lane) * COLUMNS + c
                store_rows(pack, target, COLUMNS, transpose(block))


@jit.inline
def four_rows(d, i0, i1, i2, i3, pack, j, depth, c0, c1, c2, c3):
    """Return c + d·xᵀ for four rows of d, which begin anywhere (see `gemm.block4`)."""
    for k in range(depth):
        x = load(pack, j, c0)
        c0 = madd(broadcast(d, i0 + k, c0), x, c0)
        c1 = madd(broadcast(d, i1 + k, c0), x, c1)
        c2 = madd(broadcast(d, i2 + k, c0), x, c2)
        c3 = madd(broadcast(d, i3 + k, c0), x, c3)
        j += COLUMNS
    return c0, c1, c2, c3


@jit.inline
def make_block(d, used, rows, top, pack, p, block, b, width, none):
    """Write the rows rows[top : top + ROWS] of d·xᵀ for the panel in `pack` to `block`."""
    n_tiles, n_out, lanes = d.shape
    end = rows.size - 1
    for tile in range(n_tiles):
        depth = used if tile == n_tiles - 1 else lanes
        base = tile * n_out * lanes
        for r in range(0, min(ROWS, rows.size - top), 4):
            # Behind the last row its results are made again, and nobody looks at them.
            i0 = base + item(rows, min(top + r, end)) * lanes
            i1 = base + item(rows, min(top + r + 1, end)) * lanes
            i2 = base + item(rows, min(top + r + 2, end)) * lanes
            i3 = base + item(rows, min(top + r + 3, end)) * lanes
            for i in range(4):  # rows lie anywhere, the CPU cannot guess the next: 1.1x
                ahead = base + item(rows, min(top + r + 4 + i, end)) * lanes
                for lane in range(0, depth, 64 // d.itemsize):
                    fetch(d, ahead + lane)
            for c in range(0, COLUMNS, width):
                t = b + r * COLUMNS + c
                c0 = c1 = c2 = c3 = none
                if tile > 0:
                    c0, c1 = load(block, t, none), load(block, t + COLUMNS, none)
                    c2 = load(block, t + 2 * COLUMNS, none)
                    c3 = load(block, t + 3 * COLUMNS, none)
                j = p + tile * lanes * COLUMNS + c
                c0, c1, c2, c3 = four_rows(d, i0, i1, i2, i3, pack, j, depth, c0, c1, c2, c3)
                store(block, t, c0)
                store(block, t + COLUMNS, c1)
                store(block, t + 2 * COLUMNS, c2)
                store(block, t + 3 * COLUMNS, c3)


@jit.inline
def scan(block, b, n_rows, n_cols, bar, masks, m):
    """Write which entries of a block reach the bar, as bits, wherever any does; return the end of these `masks`.

    A mask is followed by the offset of its first entry. At the end stands one mask more, of no meaning.
    """
    for r in range(n_rows):
        for c in range(0, n_cols, SCAN):
            t = b + r * COLUMNS + c
            hits = reaching(load(block, t, SCAN), bar) & ((1 << min(SCAN, n_cols - c)) - 1)
            put(masks, m, hits)
            put(masks, m + 1, t)
            m += 2 if hits != 0 else 0
    return m


@jit.inline
def note(block, b, masks, m, end, rows, top, cols, left, n_in, bar, place, found, where, n):
    """Append the entries that beat (bar, place) to `found` and `where`; return the new end.

    One step per bit of the masks, and no branch on what it finds.
    """
    hits = item(masks, m)
    while m < end:
        t = item(masks, m + 1) + lowest_bit(hits)
        row, column = item(rows, top + (t - b) // COLUMNS), item(cols, left + (t - b) % COLUMNS)
        value, position = abs(item(block, t)), row * n_in + column
        put(found, n, value)
        put(where, n, position)
        n += (value > bar) | (position < place)
        hits &= hits - 1
        m += 2 if hits == 0 else 0
        hits = item(masks, m) if hits == 0 else hits
    return n


@cache
def candidates(width: int) -> Any:
    """Return the kernel that looks for the entries of Σ d·xᵀ that reach a bar, in registers of `width` numbers.

    d (n_tiles, n_out, lanes) and x (n_tiles, n_in, lanes); of the last tile only `used` lanes. Block u is made of the
    rows and columns that `rows` and `cols` name from ROWS·(u % n) and COLUMNS·(u // n) on, where n blocks hold all of
    `rows`. Task t goes through blocks[bounds[t] : bounds[t + 1]] from `progress[t]` on, which it advances; it stops
    when its part of `found` (magnitudes) and `where` (row · n_in + column), of equal parts for all, might overflow.
    `counts` says how many it found. Noted is what exceeds `bar`, or equals it at a position below `place`, unless
    `sort_taken` put it into `starts` and `taken`. Scratch: `pack` (n_threads · n_tiles · lanes · COLUMNS,), `block`
    (n_threads · ROWS · COLUMNS,) and `masks` (n_threads · MASKS,) int64.
    """

    @jit.parallel
    def candidates_kernel(
        d, x, used, rows, cols, blocks, bounds, progress, bar, place, starts, taken, pack, block,
        masks, found, where, counts,
    ):  # fmt: skip
        n_tiles, n_in, lanes = x.shape
        n_tops = (rows.size + ROWS - 1) // ROWS
        room = found.size // counts.size
        for task in prange(counts.size):
            thread = get_thread_id()
            p, b = thread * n_tiles * lanes * COLUMNS, thread * ROWS * COLUMNS
            none = zero(block, width)
            u, packed = progress[task], -1
            n = start = task * room
            while u < bounds[task + 1] and n + ROWS * COLUMNS <= start + room:
                panel, tier = blocks[u] // n_tops, blocks[u] % n_tops
                left, top = panel * COLUMNS, tier * ROWS
                if left != packed:
                    pack_panel(x, used, cols, left, pack, p)
                    packed = left
                make_block(d, used, rows, top, pack, p, block, b, width, none)
                for k in range(starts[tier, panel], starts[tier, panel + 1]):
                    put(block, b + item(taken, k), np.nan)
                n_rows, n_cols = min(ROWS, rows.size - top), min(COLUMNS, cols.size - left)
                m = thread * MASKS
                end = scan(block, b, n_rows, n_cols, bar, masks, m)
                n = note(
                    block, b, masks, m, end, rows, top, cols, left, n_in, bar, place, found,
                    where, n,
                )  # fmt: skip
                u += 1
            progress[task] = u
            counts[task] = n - start

    return candidates_kernel
