"""Which scores are the largest: exact, deterministic, in linear time. Also how positions become a CSR pattern.

Scores are read as integers of the same order and their k-th largest is found digit by digit (a radix select, most
significant digit first), without comparing two of them; ties fall to the lower index. The streamed top-k of a weight
gradient, which uses this, is in `kernels.outer`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit
from nnsparse.simd import item, put

Array = NDArray[Any]

DIGIT = 11  # bits per pass: the counters fill half of the first-level cache

_ZERO, _ONE = np.uint64(0), np.uint64(1)


@jit.inline
def rank(bits, sign, infinity):
    """Return a uint64 in the order of the floats with these bits: NaN first, then -inf, ..., -0 = +0, ..., inf."""
    magnitude = bits & (sign - _ONE)
    flip = _ZERO - _ONE if bits & sign else _ZERO  # no branch on the sign, which nothing predicts
    return _ZERO if magnitude > infinity else sign + ((magnitude ^ flip) - flip)


@jit.serial
def find_digit(bits, sign, infinity, shift, width, k, counts):
    """Return the k-th largest digit, the `width` bits above `shift` of a rank, how many are larger and how many equal.

    Scratch: counts (2**DIGIT,) integers.
    """
    mask = (_ONE << width) - _ONE
    counts[:] = 0
    for i in range(bits.size):
        counts[(rank(np.uint64(bits[i]), sign, infinity) >> shift) & mask] += 1
    larger, digit = 0, counts.size - 1
    while larger + counts[digit] < k:
        larger += counts[digit]
        digit -= 1
    return digit, larger, counts[digit]


@jit.serial
def gather(bits, sign, infinity, shift, prefix, out):
    """Write those whose rank's digits above `shift` are `prefix`, in order, and stop when `out` is full."""
    n = 0
    for i in range(bits.size):
        put(out, n, bits[i])
        n += (rank(np.uint64(bits[i]), sign, infinity) >> shift) == prefix
        if n == out.size:
            break


@jit.serial
def mark(bits, sign, infinity, lowest, out):
    """Write out[i] = whether rank i is `lowest` or more."""
    for i in range(bits.size):
        out[i] = rank(np.uint64(bits[i]), sign, infinity) >= lowest


@jit.inline
def row_of(position, n_in, inverse):
    """Return position // n_in without a division; `inverse` is 1 / n_in."""
    row = int(position * inverse)
    left = position - row * n_in
    return row + (left >= n_in) - (left < 0)


@jit.serial
def to_csr(positions, starts, rows, indptr, columns):
    """Write the CSR pattern (n_out + 1,), (k,) of positions row · n_in + column (k,), all different, in any order.

    Two counting sorts, by column and then by row: O(k + n_in + n_out). Scratch: starts (n_in + 1,) and rows (k,).
    """
    n_in = starts.size - 1
    inverse = 1.0 / n_in
    starts[:] = 0
    indptr[:] = 0
    for k in range(positions.size):
        position = item(positions, k)
        row = row_of(position, n_in, inverse)
        starts[position - row * n_in + 1] += 1
        indptr[row + 1] += 1
    for i in range(n_in):
        starts[i + 1] += starts[i]
    for o in range(indptr.size - 1):
        indptr[o + 1] += indptr[o]
    for k in range(positions.size):
        position = item(positions, k)
        row = row_of(position, n_in, inverse)
        i = position - row * n_in
        rows[starts[i]] = row
        starts[i] += 1
    k = 0
    for i in range(n_in):  # starts[i] is now where column i ends
        while k < starts[i]:
            row = item(rows, k)
            columns[indptr[row]] = i
            indptr[row] += 1
            k += 1
    for o in range(indptr.size - 1, 0, -1):
        indptr[o] = indptr[o - 1]
    indptr[0] = 0


def largest(scores: Array, k: int, order: Array | None = None) -> NDArray[np.bool_]:
    """Mark the k largest scores; among equal ones those of the lower index.

    Parameters
    ----------
    scores : (n,) float32 or float64
        NaN is smaller than every number; -0 equals +0.
    k : int
        From 0 to n.
    order : (n,) distinct integers, optional
        Among equal scores those of the lower `order` win, instead of those of the lower index.

    Returns
    -------
    (n,) bool
        Exactly k are True.

    Raises
    ------
    TypeError
        If the scores are of another dtype.
    ValueError
        If they are not one-dimensional, or `k` is out of range.

    Notes
    -----
    Cost: O(n) time on one thread, 3-4x less than that of `np.argpartition`; memory for the result and the scores that
    share the k-th one's first digits.

    Examples
    --------
    >>> largest(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([False,  True,  True, False])
    """
    if scores.dtype not in (np.float32, np.float64):
        raise TypeError(f"largest expects float32 or float64 scores; got {scores.dtype}")
    if scores.ndim != 1 or not 0 <= k <= scores.size:
        raise ValueError(
            f"largest expects scores (n,) and k from 0 to n; got shape {scores.shape} and k = {k}"
        )
    if k == 0 or k == scores.size:
        return np.full(scores.size, k > 0)
    bits, key = _read(scores)
    lowest, left, total = _kth(bits, key, k)
    out = np.empty(scores.size, np.bool_)
    mark(bits, *key, np.uint64(lowest), out)
    if left < total:  # more are equal to the k-th than fit
        more = np.empty(scores.size, np.bool_)
        mark(bits, *key, np.uint64(lowest + 1), more)
        ties = np.flatnonzero(out & ~more)
        if order is not None:
            ties = ties[np.argsort(order[ties])]
        out[ties[left:]] = False
    return out


def _kth(bits: Array, key: tuple[np.uint64, np.uint64], k: int) -> tuple[int, int, int]:
    """Return a rank that k scores or more reach, how many of those below the next rank count, and how many there are.

    If these two differ, the rank is that of the k-th score; else it may be lower, with nothing between.
    """
    pool, shift, prefix, left = bits, 8 * bits.itemsize, 0, k
    counts = np.empty(2**DIGIT, np.int64)
    while True:
        width = min(DIGIT, shift)
        shift -= width
        digit, larger, total = find_digit(
            pool, *key, np.uint64(shift), np.uint64(width), left, counts
        )
        left -= larger
        prefix = prefix << width | digit
        if left == total or shift == 0:
            return prefix << shift, left, total
        if total < pool.size:
            fewer = np.empty(total, bits.dtype)
            gather(pool, *key, np.uint64(shift), np.uint64(prefix), fewer)
            pool = fewer


def _read(scores: Array) -> tuple[Array, tuple[np.uint64, np.uint64]]:
    """Return the bits of the scores as integers, that of the sign, and those of infinity."""
    integer = np.uint32 if scores.itemsize == 4 else np.uint64
    bits = np.ascontiguousarray(scores).view(integer)
    infinity = np.array(np.inf, scores.dtype).view(integer)
    return bits, (np.uint64(2 ** (8 * bits.itemsize - 1)), np.uint64(infinity))


def bar(magnitudes: Array, k: int) -> float:
    """Return a number that k of these numbers >= 0 reach: the k-th largest, or one below it with none between.

    Cost: O(n), half of that of `largest`.
    """
    bits, key = _read(magnitudes)
    lowest = _kth(bits, key, k)[0] - int(key[0])
    return float(np.array(lowest, bits.dtype).view(magnitudes.dtype))
