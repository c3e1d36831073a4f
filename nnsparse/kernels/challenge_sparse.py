"""Graph Challenge inference as sparse times sparse: CSR activations, CSR weights by input, a row at a time (Gustavson).

Rows of activations have slots of n entries each, of which the first counts[r] are used, inputs ascending. So nothing
need be counted or allocated before a product.
"""

from __future__ import annotations

from numba import get_thread_id, prange

from nnsparse import jit
from nnsparse.simd import item, put

ROWS = 16  # images of one task


@jit.parallel
def enter_rows(indptr, indices, data, first, counts, places, values):
    """Write the images first ... (CSR, inputs ascending) into the slots of places and values (n_rows, n)."""
    n = places.shape[1]
    for r in prange(counts.size):
        start = indptr[first + r]
        count = indptr[first + r + 1] - start
        for k in range(count):
            put(places, r * n + k, item(indices, start + k))
            put(values, r * n + k, item(data, start + k))
        counts[r] = count


@jit.parallel
def multiply_sparse(
    pointers, outputs, weights, bias, top, counts, places, values, new_counts, new_places, new_values, sums, work
):  # fmt: skip
    """Write one layer of all rows: new = min(max(Z + bias, 0), top) where Z = Y·W is not 0.

    Parameters
    ----------
    pointers, outputs, weights : (n + 1,), (nnz,), (nnz,)
        The weights by input.
    counts, places, values : (n_rows,), (n_rows, n), (n_rows, n)
        Y; and so `new_...`.
    sums : (n_threads, n)
        Scratch, zero on entry and afterwards.
    work : (n_rows,) int64
        To which the multiplications of each row are added.
    """
    n = places.shape[1]
    for task in prange((counts.size + ROWS - 1) // ROWS):
        base = get_thread_id() * n
        for r in range(task * ROWS, min(counts.size, (task + 1) * ROWS)):
            slot, done, kept = r * n, 0, 0
            for e in range(slot, slot + item(counts, r)):
                i, y = item(places, e), item(values, e)
                start, end = item(pointers, i), item(pointers, i + 1)
                for k in range(start, end):
                    o = base + item(outputs, k)
                    put(sums, o, item(sums, o) + y * item(weights, k))
                done += end - start
            if done > 0:
                for o in range(n):
                    z = item(sums, base + o)
                    if z != 0:
                        put(sums, base + o, 0)
                        z += bias
                        # written so that a NaN stays
                        if not z <= 0:
                            put(new_places, slot + kept, o)
                            put(new_values, slot + kept, top if z > top else z)
                            kept += 1
            new_counts[r] = kept
            work[r] += done
