"""The n best of every m consecutive inputs of a neuron: what an N:M pattern keeps."""

from __future__ import annotations

from numba import prange

from nnsparse import jit


@jit.parallel
def best_n_of_m(indptr, columns, scores, n, m, kept):
    """Write into kept (nnz,), bool, whether fewer than n weights of its group are better than each.

    Parameters
    ----------
    indptr, columns : (n_out + 1,), (nnz,) integers
        Positions in canonical order; a group is what shares a row and columns // m.
    scores : (nnz,)
        The first among equals is the better one; a NaN is worse than any number.
    n, m : int
    """
    for row in prange(indptr.size - 1):
        start, end = indptr[row], indptr[row + 1]
        while start < end:
            limit = (columns[start] // m + 1) * m
            stop = start + 1
            while stop < end and columns[stop] < limit:
                stop += 1
            for i in range(start, stop):
                own = scores[i]
                nan = own != own
                better = 0
                for j in range(start, i):
                    other = scores[j]
                    better += int(nan | (other >= own))
                for j in range(i + 1, stop):
                    other = scores[j]
                    better += int((other > own) | (nan & (other == other)))
                kept[i] = better < n
            start = stop
