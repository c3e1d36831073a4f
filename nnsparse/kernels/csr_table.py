"""Weighted sums of a table's rows, and the gradient of the rows: products of a table with mini-batches as in `csr`.

All products with sparse rows are such sums: see `csr_weights` for those of a layer's weights.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from functools import cache
from typing import Any

from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.simd import (
    add,
    broadcast,
    item,
    load,
    load_head,
    madd,
    put,
    store,
    store_head,
    zero,
)  # fmt: skip
from nnsparse.simd_block import load_rows, store_rows, transpose

SIDE = 16  # samples and outputs of the blocks that are transposed in registers


@jit.inline
def weighted(table, pitch, column, indices, values, k, end, acc):
    """Return acc + Σ values[k]·(row indices[k] of a table, from `column` on, as wide as acc)."""
    while k < end:
        row = load(table, item(indices, k) * pitch + column, acc)
        acc = madd(broadcast(values, k, acc), row, acc)
        k += 1
    return acc


@jit.inline
def weighted4(table, pitch, column, indices, values, k, end, acc, none):
    """Return the same in four chains, for vectors of one register: a chain waits four cycles for each sum."""
    b = c = d = none
    while k + 4 <= end:
        x0 = load(table, item(indices, k) * pitch + column, acc)
        x1 = load(table, item(indices, k + 1) * pitch + column, acc)
        x2 = load(table, item(indices, k + 2) * pitch + column, acc)
        x3 = load(table, item(indices, k + 3) * pitch + column, acc)
        acc = madd(broadcast(values, k, acc), x0, acc)
        b = madd(broadcast(values, k + 1, acc), x1, b)
        c = madd(broadcast(values, k + 2, acc), x2, c)
        d = madd(broadcast(values, k + 3, acc), x3, d)
        k += 4
    acc = weighted(table, pitch, column, indices, values, k, end, acc)
    return add(add(acc, b), add(c, d))


@jit.inline
def weighted_head(table, pitch, column, indices, values, k, end, acc, count):
    """Return the same for the first `count` numbers of a vector; nothing beyond them is read."""
    while k < end:
        row = load_head(table, item(indices, k) * pitch + column, acc, count)
        acc = madd(broadcast(values, k, acc), row, acc)
        k += 1
    return acc


@jit.inline
def flush(rows, base, pitch, out, target, lanes, width, outputs):
    """Write up to 16 rows (samples) of up to 16 numbers as columns of a tile: `width` lanes of `outputs` features."""
    if width == SIDE and outputs == SIDE:
        store_rows(out, target, lanes, transpose(load_rows(rows, base, pitch)))
    else:
        for o in range(outputs):
            for i in range(width):
                put(out, target + o * lanes + i, item(rows, base + i * pitch + o))


# ---------------------------------------------------------------- tables: weights (n_in, n_out)


@cache
def table_forward(width: int) -> Any:
    """Return the kernel out[s] = Σ_k values[k]·table[indices[k]], `width` numbers at a time (a multiple of 16).

    It takes a mini-batch, table (n_in · n_out,), scratch (n_threads · 16 · width,), and writes all of
    out (n_tiles, n_out, lanes).
    """

    @jit.parallel
    def table_forward_kernel(indptr, indices, values, table, scratch, out):
        n_tiles, n_out, lanes = out.shape
        n_groups = (lanes + SIDE - 1) // SIDE
        wide, narrow = zero(out, width), zero(out, 16)
        for task in prange(n_tiles * n_groups):
            tile, lane = task // n_groups, task % n_groups * SIDE
            first = tile * lanes + lane
            n_lanes = min(SIDE, lanes - lane)
            samples = min(n_lanes, indptr.size - 1 - first)
            base = get_thread_id() * SIDE * width
            column = 0
            while column < n_out:
                outputs = width if column + width <= n_out else min(16, n_out - column)
                for i in range(n_lanes):
                    k = end = 0
                    if i < samples:
                        k, end = item(indptr, first + i), item(indptr, first + i + 1)
                    at = base + i * width
                    if outputs == width:
                        store(
                            scratch,
                            at,
                            weighted(table, n_out, column, indices, values, k, end, wide),
                        )
                    elif outputs == 16:
                        acc = weighted4(
                            table, n_out, column, indices, values, k, end, narrow, narrow
                        )
                        store(scratch, at, acc)
                    else:
                        acc = weighted_head(
                            table, n_out, column, indices, values, k, end, narrow, outputs
                        )
                        store(scratch, at, acc)
                for o in range(0, outputs, SIDE):
                    target = (tile * n_out + column + o) * lanes + lane
                    flush(
                        scratch,
                        base + o,
                        width,
                        out,
                        target,
                        lanes,
                        n_lanes,
                        min(SIDE, outputs - o),
                    )
                column += outputs

    return table_forward_kernel


@cache
def table_gradient(width: int) -> Any:
    """Return the kernel out[u] = Σ_k weights[k]·d[samples[k]], the gradient of each used row of a table.

    It takes ranges of used columns (n_tasks + 1,), the batch sorted by column, d (batch · n_out,), sample by sample,
    and writes all of out (n_used, n_out).
    """

    @jit.parallel
    def table_gradient_kernel(bounds, starts, samples, weights, d, out):
        n_out = out.shape[1]
        wide, narrow = zero(out, width), zero(out, 16)
        for task in prange(bounds.size - 1):
            for u in range(bounds[task], bounds[task + 1]):
                k, end = item(starts, u), item(starts, u + 1)
                at = u * n_out
                column = 0
                while column + width <= n_out:
                    acc = weighted(d, n_out, column, samples, weights, k, end, wide)
                    store(out, at + column, acc)
                    column += width
                while column + 16 <= n_out:
                    acc = weighted4(d, n_out, column, samples, weights, k, end, narrow, narrow)
                    store(out, at + column, acc)
                    column += 16
                if column < n_out:
                    left = n_out - column
                    acc = weighted_head(d, n_out, column, samples, weights, k, end, narrow, left)
                    store_head(out, at + column, acc, left)

    return table_gradient_kernel
