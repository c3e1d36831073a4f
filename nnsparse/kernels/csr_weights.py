"""Products of a layer's weights with mini-batches of sparse rows (see `csr`), forward and for the weights' gradients.

Nothing of batch × n_in is ever made. The forward products sum up the outputs of one sample, a vector at a time, and
turn sixteen samples at once into the layout of tiles; the gradients take the batch sorted by column, so that whoever
owns a column owns its weights.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.kernels.csr_table import SIDE, flush, weighted4
from nnsparse.simd import item, load, put, relu, store, zero
from nnsparse.simd_block import load_rows, store_rows, transpose

EXTRA = (SIDE + 1) * SIDE  # numbers that the dense products need beside their packed rows
COLUMNS = 256  # per task of `pack_weights`

# ---------------------------------------------------------------- dense weights (n_out, n_in)


@jit.inline
def pack_columns(w, o, outputs, n_in, used, pack, base):
    """Write the used columns of `outputs` rows of w, from row `o` on, as rows of 16 to `base`.

    Sixteen columns at a time and number by number: most of a block is not used, and with blocks transposed in
    registers the whole product took 1.4 times as long (32 000 → 256, batch 256).
    """
    n, u = used.size, 0
    while u < n:
        end = item(used, u) // SIDE * SIDE + SIDE
        first = u
        while u < n and item(used, u) < end:
            u += 1
        for r in range(outputs):
            row = (o + r) * n_in
            for v in range(first, u):
                put(pack, base + v * SIDE + r, item(w, row + item(used, v)))
        for r in range(outputs, SIDE):
            for v in range(first, u):
                put(pack, base + v * SIDE + r, 0)


@jit.parallel
def dense_forward(
    w, used, indptr, compact, values, n_splits, bias, rectify, pack, room, n_in, out
):  # fmt: skip
    """Write W·x (+ bias, ReLU): w (n_out · n_in,), the batch with the ranks of its columns among the used ones.

    Every task packs its sixteen outputs' weights of the used columns, so that a sample reads one line for each of its
    entries. pack is (n_threads · room,), room (n_used · 16 + EXTRA) or more; out (n_tiles, n_out, lanes).
    """
    n_tiles, n_out, lanes = out.shape
    n_groups = (lanes + SIDE - 1) // SIDE
    per_split = (n_tiles * n_groups + n_splits - 1) // n_splits
    none = zero(out, 16)
    for task in prange((n_out + SIDE - 1) // SIDE * n_splits):
        o = task // n_splits * SIDE
        outputs = min(SIDE, n_out - o)
        begin = task % n_splits * per_split
        stop = min(n_tiles * n_groups, begin + per_split)
        base = get_thread_id() * room
        block = base + used.size * SIDE
        if begin < stop:
            pack_columns(w, o, outputs, n_in, used, pack, base)
        for r in range(SIDE):
            put(pack, block + SIDE * SIDE + r, item(bias, o + r) if r < outputs else 0)
        offset = load(pack, block + SIDE * SIDE, 16)
        for group in range(begin, stop):
            tile, lane = group // n_groups, group % n_groups * SIDE
            first = tile * lanes + lane
            n_lanes = min(SIDE, lanes - lane)
            samples = min(n_lanes, indptr.size - 1 - first)
            for i in range(n_lanes):
                acc = none
                if i < samples:
                    k, end = item(indptr, first + i), item(indptr, first + i + 1)
                    acc = weighted4(pack, SIDE, base, compact, values, k, end, offset, none)
                    if rectify:
                        acc = relu(acc)
                store(pack, block + i * SIDE, acc)
            target = (tile * n_out + o) * lanes + lane
            flush(pack, block, SIDE, out, target, lanes, n_lanes, outputs)


@jit.parallel
def dense_gradient(d, used, starts, samples, weights, bounds, width, pack, room, n_in, out):
    """Write d·xᵀ (n_out · n_in,), zeros where no sample has an entry: every line of it is written once.

    d is (n_tiles, n_out, lanes); bounds (n_splits + 1,) cuts the used columns at multiples of `width`, itself one of
    16; pack is (n_threads · room,), room (n_tiles · lanes · 16 + EXTRA) or more.
    """
    n_tiles, n_out, lanes = d.shape
    n_splits = bounds.size - 1
    none = zero(out, 16)
    for task in prange((n_out + SIDE - 1) // SIDE * n_splits):
        o = task // n_splits * SIDE
        outputs = min(SIDE, n_out - o)
        split = task % n_splits
        base = get_thread_id() * room
        block = base + n_tiles * lanes * SIDE
        for tile in range(n_tiles):
            for lane in range(0, lanes, SIDE):
                source = (tile * n_out + o) * lanes + lane
                at = base + (tile * lanes + lane) * SIDE
                if outputs == SIDE and lane + SIDE <= lanes:
                    store_rows(pack, at, SIDE, transpose(load_rows(d, source, lanes)))
                else:
                    for i in range(min(SIDE, lanes - lane)):
                        for r in range(SIDE):
                            value = item(d, source + r * lanes + i) if r < outputs else 0
                            put(pack, at + i * SIDE + r, value)
        u, last = bounds[split], bounds[split + 1]
        for j in range(split * width, min(n_in, (split + 1) * width), SIDE):
            columns, first = min(SIDE, n_in - j), u
            while u < last and item(used, u) < j + columns:
                k, end = item(starts, u), item(starts, u + 1)
                acc = weighted4(pack, SIDE, base, samples, weights, k, end, none, none)
                store(pack, block + (u - first) * SIDE, acc)
                u += 1
            for r in range(outputs):
                row = (o + r) * n_in
                if columns == SIDE:
                    store(out, row + j, none)
                else:
                    for c in range(columns):
                        put(out, row + j + c, 0)
                for v in range(first, u):
                    put(out, row + item(used, v), item(pack, block + (v - first) * SIDE + r))


# ---------------------------------------------------------------- sparse weights


@jit.serial
def count_weights(used, pointers, starts):
    """Write where the weights of each used column will start when they are packed (n_used + 1,); return how many."""
    at = 0
    for u in range(used.size):
        column = item(used, u)
        put(starts, u, at)
        at += item(pointers, column + 1) - item(pointers, column)
    put(starts, used.size, at)
    return at


@jit.parallel
def pack_weights(used, starts, pointers, rows, source, w, packed_rows, packed):
    """Write outputs and values of the used columns' weights one after the other; column j has m from pointers[j] on.

    In the order of the plan the weights of a column are far apart: a batch reads each of them once here instead of
    once for every sample that uses it (1.46 → 0.91 ms at 32 000 → 256, 95 % sparse, batch 256, one thread).
    """
    n = used.size
    for piece in prange((n + COLUMNS - 1) // COLUMNS):
        for u in range(piece * COLUMNS, min(n, (piece + 1) * COLUMNS)):
            first, at = item(pointers, item(used, u)), item(starts, u)
            for m in range(item(starts, u + 1) - at):
                put(packed_rows, at + m, item(rows, first + m))
                put(packed, at + m, item(w, item(source, first + m)))


@jit.parallel
def sparse_forward(
    indptr, compact, values, starts, rows, w, bias, rectify, pitch, scratch, out
):  # fmt: skip
    """Write W·x (+ bias, ReLU), for a batch with the ranks of its columns and the weights that `pack_weights` wrote.

    scratch is (n_threads · 16 · pitch,), pitch n_out or more; out (n_tiles, n_out, lanes). The cost is one
    multiply-add for each pair of an entry of x and a weight of its column.
    """
    n_tiles, n_out, lanes = out.shape
    n_groups = (lanes + SIDE - 1) // SIDE
    for task in prange(n_tiles * n_groups):
        tile, lane = task // n_groups, task % n_groups * SIDE
        first = tile * lanes + lane
        n_lanes = min(SIDE, lanes - lane)
        samples = min(n_lanes, indptr.size - 1 - first)
        base = get_thread_id() * SIDE * pitch
        for i in range(n_lanes):
            corner = base + i * pitch
            for o in range(n_out):
                put(scratch, corner + o, item(bias, o) if i < samples else 0)
            if i < samples:
                for k in range(item(indptr, first + i), item(indptr, first + i + 1)):
                    rank, value = item(compact, k), item(values, k)
                    for m in range(item(starts, rank), item(starts, rank + 1)):
                        at = corner + item(rows, m)
                        put(scratch, at, item(scratch, at) + value * item(w, m))
                if rectify:
                    for o in range(n_out):
                        z = item(scratch, corner + o)
                        put(scratch, corner + o, 0 if z < 0 else z)
        for o in range(0, n_out, SIDE):
            target = (tile * n_out + o) * lanes + lane
            flush(scratch, base + o, pitch, out, target, lanes, n_lanes, min(SIDE, n_out - o))


@jit.parallel
def sparse_gradient(
    bounds, used, starts, samples, weights, pointers, rows, source, d, n_out, pack, room, out
):  # fmt: skip
    """Write d·xᵀ at the weights of the used columns; `out` (nnz,) is zero on entry.

    bounds (n_tasks + 1,) cuts the used columns; d is (batch · n_out,), sample by sample; pack (n_threads · room,),
    room at least the most weights of one column.
    """
    for task in prange(bounds.size - 1):
        base = get_thread_id() * room
        for u in range(bounds[task], bounds[task + 1]):
            column = item(used, u)
            first = item(pointers, column)
            n = item(pointers, column + 1) - first
            for m in range(n):
                put(pack, base + m, 0)
            for k in range(item(starts, u), item(starts, u + 1)):
                value, corner = item(weights, k), item(samples, k) * n_out
                for m in range(n):
                    term = value * item(d, corner + item(rows, first + m))
                    put(pack, base + m, item(pack, base + m) + term)
            for m in range(n):
                put(out, item(source, first + m), item(pack, base + m))
