"""Mini-batches of sparse rows: gathered from a user's matrix or token array, scaled, and sorted by column.

A mini-batch is `indptr` (batch + 1,), `indices` (nnz,) and `values` (nnz,) as in CSR; columns may repeat within a row
and stand in any order. Arrays that are written may be longer than what is written. The products are in `csr_table` and
`csr_weights`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from numba import prange

from nnsparse import jit
from nnsparse.simd import item, put

PIECE = 1 << 12  # numbers that one thread updates at a time, as in `optimizer`


@jit.serial
def gather_csr(indptr, indices, values, index, out_indptr, out_indices, out_values):
    """Write rows `index` (batch,) of a CSR matrix, values converted."""
    at = 0
    put(out_indptr, 0, 0)
    for s in range(index.size):
        row = item(index, s)
        for k in range(item(indptr, row), item(indptr, row + 1)):
            put(out_indices, at, item(indices, k))
            put(out_values, at, item(values, k))
            at += 1
        put(out_indptr, s + 1, at)


@jit.serial
def gather_tokens(tokens, index, n, padding, mean, out_indptr, out_indices, out_values):
    """Write rows `index` (batch,) of tokens (n_rows, length) without `padding`, each with 1 or, if `mean`, 1 / count.

    Returns the place (sample · length + position) of the first token outside 0 ... n - 1, or -1.
    """
    length = tokens.shape[1]
    at, wrong = 0, -1
    put(out_indptr, 0, 0)
    for s in range(index.size):
        row = item(index, s) * length
        kept, outside = 0, 0
        for t in range(
            length
        ):  # a pass of its own, in vectors: the next one ends where padding begins
            token = item(tokens, row + t)
            kept += token != padding
            outside += (token < 0) | (token >= n)
        if outside > 0 and wrong < 0:
            t = 0
            while 0 <= item(tokens, row + t) < n:
                t += 1
            wrong = s * length + t
        first, end, t = at, at + kept, row
        while at < end:
            token = item(tokens, t)
            if token != padding:
                put(out_indices, at, token)
                at += 1
            t += 1
        weight = 1.0 / kept if mean and kept > 0 else 1.0
        for k in range(first, end):
            put(out_values, k, weight)
        put(out_indptr, s + 1, end)
    return wrong


@jit.serial
def scale_rows(indptr, indices, values, padding, mean, out_indptr, out_indices, out_values):
    """Write a mini-batch without column `padding`; if `mean`, each row divided by its sum, or zero where that is 0."""
    at = 0
    put(out_indptr, 0, 0)
    for s in range(indptr.size - 1):
        first, total = at, 0.0
        for k in range(item(indptr, s), item(indptr, s + 1)):
            column = item(indices, k)
            if column != padding:
                value = item(values, k)
                total += value
                put(out_indices, at, column)
                put(out_values, at, value)
                at += 1
        if mean:
            factor = 1.0 / total if total != 0.0 else 0.0
            for k in range(first, at):
                put(out_values, k, item(out_values, k) * factor)
        put(out_indptr, s + 1, at)


@jit.serial
def sort_by_column(
    indptr, indices, values, cursors, ranks, used, starts, samples, weights, compact
):  # fmt: skip
    """Sort the entries of a mini-batch by column, then by sample; return how many columns are used.

    Writes the used columns, ascending, where the entries of each start (one more), and for each entry its sample and
    its value; into `compact` (nnz,), unless that is (0,), for each entry in the old order the rank of its column among
    the used ones. `used` and `starts` hold min(n_columns, nnz) + 1 or more; `cursors` (n_columns,) is zero on entry,
    `ranks`, of the same size, is scratch for `compact`.
    """
    batch = indptr.size - 1
    ranked = compact.size > 0
    for k in range(item(indptr, batch)):
        column = item(indices, k)
        put(cursors, column, item(cursors, column) + 1)
    n, at = 0, 0
    for column in range(cursors.size):  # no branch: nobody can predict which columns are used
        count = item(cursors, column)
        put(used, n, column)
        put(starts, n, at)
        put(cursors, column, at)
        if ranked:
            put(ranks, column, n)
        at += count
        n += count > 0
    put(starts, n, at)
    for s in range(batch):
        for k in range(item(indptr, s), item(indptr, s + 1)):
            column = item(indices, k)
            place = item(cursors, column)
            put(cursors, column, place + 1)
            put(samples, place, s)
            put(weights, place, item(values, k))
            if ranked:
                put(compact, k, item(ranks, column))
    return n


@jit.parallel
def sgd_rows(p, rows, values, lr):
    """Step down a gradient that is zero but for some rows: p[rows] ← p[rows] − lr·values.

    p is flat, (n_rows · width,), values (n, width); the bits are those of `optimizer.sgd` on the whole gradient.
    """
    rate = p.dtype.type(lr)
    n, width = values.shape
    each = max(1, PIECE // max(1, width))
    for piece in prange((n + each - 1) // each):
        for r in range(piece * each, min(n, (piece + 1) * each)):
            at = item(rows, r) * width
            for i in range(width):
                put(p, at + i, item(p, at + i) - rate * item(values, r * width + i))
