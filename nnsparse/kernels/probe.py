"""What this machine can do at most: multiply-adds on registers, and copies of memory. For `roofline`."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from functools import cache
from typing import Any

from numba import prange

from nnsparse import jit
from nnsparse.simd import add, broadcast, load, madd, store

CHAINS = (
    10  # independent sums: two units of latency 4 or 5; with two constants they fit 16 registers
)
PIECE = 1 << 16  # numbers that a task copies


@cache
def multiply_add(width: int) -> Any:
    """Return the kernel that does `n_rounds` × 10 multiply-adds of vectors of `width` numbers per row of `out`.

    It takes constants (2,), n_rounds, and out (n_tasks, width), which starts as what is multiplied.
    """

    @jit.parallel
    def multiply_add_kernel(constants, n_rounds, out):
        for task in prange(len(out)):
            at = task * width
            m, c = broadcast(constants, 0, width), broadcast(constants, 1, width)
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = load(out, at, width)
            # Different sums, or the compiler would keep one only.
            s1, s2, s3 = add(s1, m), add(s2, c), add(s3, add(m, c))
            s4, s5, s6 = add(s1, s1), add(s1, s2), add(s2, s2)
            s7, s8, s9 = add(s4, s1), add(s4, s2), add(s5, s3)
            for _ in range(n_rounds):
                s0, s1, s2 = madd(s0, m, c), madd(s1, m, c), madd(s2, m, c)
                s3, s4, s5 = madd(s3, m, c), madd(s4, m, c), madd(s5, m, c)
                s6, s7, s8 = madd(s6, m, c), madd(s7, m, c), madd(s8, m, c)
                s9 = madd(s9, m, c)
            s0, s1, s2 = add(s0, s5), add(s1, s6), add(s2, s7)
            s3, s4 = add(s3, s8), add(s4, s9)
            store(out, at, add(add(add(s0, s1), add(s2, s3)), s4))

    return multiply_add_kernel


@jit.parallel
def copy_numbers(x, out):
    """Write out[k] = x[k]; both (n,), n a multiple of 65 536."""
    for task in prange(x.size // PIECE):
        for k in range(task * PIECE, task * PIECE + PIECE, 64):
            store(out, k, load(x, k, 64))
