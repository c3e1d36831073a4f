"""What masks of zeros and ones do at every step: hold weights at zero, add penalties, choose n of every m.

The arrays are flat, of one dtype, in any order that they share. The `_parallel` twins cut the same loops into pieces of
fixed length, so the bits do not depend on the number of threads. What the masks mean is in `sparsify`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import math
from functools import cache
from typing import Any

from llvmlite import ir
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from nnsparse import jit
from nnsparse.simd import load, store

PIECE = 1 << 12  # elements that one thread works on at a time
VECTOR = 16  # weights that are ranked in registers at a time


@jit.inline
def _clear(a, mask):
    nothing = a.dtype.type(0)
    for i in range(a.size):
        a[i] = nothing if mask[i] == 0 else a[i]


@jit.serial
def clear(a, mask):
    """Set `a` to 0 where `mask` is 0, whatever is there; all else keeps its bits."""
    _clear(a, mask)


@jit.parallel
def clear_parallel(a, mask):
    """Do what `clear` does, on all threads."""
    for piece in prange((a.size + PIECE - 1) // PIECE):
        low = piece * PIECE
        high = min(a.size, low + PIECE)
        _clear(a[low:high], mask[low:high])


@jit.parallel
def penalize(g, w, mask, seen, unseen, out):
    """Write out = g + seen · w where `mask` is not 0, g + unseen · w elsewhere; a factor of 0 adds nothing."""
    inside, outside = w.dtype.type(seen), w.dtype.type(unseen)
    for piece in prange((g.size + PIECE - 1) // PIECE):
        low = piece * PIECE
        high = min(g.size, low + PIECE)
        g_, w_, mask_, out_ = g[low:high], w[low:high], mask[low:high], out[low:high]
        for i in range(out_.size):
            factor = outside if mask_[i] == 0 else inside
            out_[i] = g_[i] if factor == 0 else g_[i] + factor * w_[i]


# ---------------------------------------------------------------- n of every m


@intrinsic(prefer_literal=True)
def best_lanes(typingctx, vector, n, m):
    """Return a vector of 1 where fewer than n elements of a group of m are better, else 0; m divides the length.

    Better is a larger magnitude, of equal ones the first; NaN is worst. The magnitudes' bits are compared as integers,
    those of NaN as -1, with those of the group rotated by 1, 2, ... m - 1.
    """
    size, length = m.literal_value, vector.length

    def codegen(context, builder, signature, args):
        bits = vector.dtype.bitwidth
        number = ir.IntType(bits)
        ints = ir.VectorType(number, length)

        def every(value):
            return ir.Constant(ints, [value] * length)

        infinity = 0x7F800000 if bits == 32 else 0x7FF0000000000000
        magnitude = builder.and_(builder.bitcast(args[0], ints), every(2 ** (bits - 1) - 1))
        nan = builder.icmp_signed(">", magnitude, every(infinity))
        own, better = builder.select(nan, every(-1), magnitude), every(0)
        for turn in range(1, size):
            others = [i - i % size + (i + turn) % size for i in range(length)]
            order = ir.Constant(ir.VectorType(ir.IntType(32), length), others)
            other = builder.shuffle_vector(own, own, order)
            # An element before this one is better already if it is equal: larger than one less.
            before = ir.Constant(ints, [int(o < i) for i, o in enumerate(others)])
            wins = builder.icmp_signed(">", other, builder.sub(own, before))
            better = builder.add(better, builder.zext(wins, ints))
        limit = context.cast(builder, args[1], signature.args[1], types.Integer.from_bitwidth(bits))
        first = builder.insert_element(
            ir.Constant(ints, ir.Undefined), limit, ir.Constant(ir.IntType(32), 0)
        )
        all_lanes = ir.Constant(ir.VectorType(ir.IntType(32), length), [0] * length)
        kept = builder.icmp_signed("<", better, builder.shuffle_vector(first, first, all_lanes))
        kind = context.get_value_type(vector)
        one, nothing = ir.Constant(kind, [1.0] * length), ir.Constant(kind, None)
        return builder.select(kept, one, nothing)

    return vector(vector, n, m), codegen


@jit.inline
def _best_of_group(w, start, size, n, out):
    """Write 1 for the n best of the `size` elements from `start` on, else 0 (see `best_lanes`).

    One after the other the best ones are taken in, or the worst ones left out, whichever are fewer.
    """
    end, n = start + size, min(n, size)
    leaving = 2 * n > size
    for i in range(start, end):
        out[i] = leaving
    for _ in range(size - n if leaving else n):
        found = start
        bar = w.dtype.type(math.inf if leaving else -2.0)
        for i in range(start, end):
            magnitude = abs(w[i])
            magnitude = magnitude if magnitude == magnitude else w.dtype.type(-1.0)
            further = magnitude <= bar if leaving else magnitude > bar
            if further and (out[i] != 0) == leaving:
                found, bar = i, magnitude
        out[found] = not leaving


@cache
def best_n_of(m: int) -> Any:
    """Return the kernel that writes 1 for the n largest |w| of every m consecutive inputs of a row, else 0.

    w and out (n_out · n_in,), row by row; the last group of a row may be short. Where m divides VECTOR, whole vectors
    are ranked at a time; elsewhere it takes O(m · min(n, m - n)) for each group.
    """
    whole = VECTOR if VECTOR % m == 0 else 0
    lanes = m if whole else 1

    @jit.parallel
    def best_n_of_kernel(w, n_in, n, out):
        n_out = w.size // n_in
        each = max(1, PIECE // n_in)
        for piece in prange((n_out + each - 1) // each):
            for row in range(piece * each, min(n_out, piece * each + each)):
                start, end = row * n_in, (row + 1) * n_in
                if whole:
                    while start + VECTOR <= end:
                        store(out, start, best_lanes(load(w, start, VECTOR), n, lanes))
                        start += VECTOR
                while start < end:
                    _best_of_group(w, start, min(m, end - start), n, out)
                    start += m

    return best_n_of_kernel
