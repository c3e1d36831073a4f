"""Sums over the elements of SIMD vectors (see `simd`): inner products, totals of one vector or of four together."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from nnsparse.simd import Vector, _i32, _length


def _half(builder, vector, length):
    """Return the sum of both halves of a vector."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    low, high = (
        builder.shuffle_vector(
            vector,
            undefined,
            ir.Constant(
                ir.VectorType(ir.IntType(32), length // 2), list(range(i, i + length // 2))
            ),
        )
        for i in (0, length // 2)
    )
    return builder.fadd(low, high, flags=("contract",))


@intrinsic(prefer_literal=True)
def dot(typingctx, a, b, n):
    """Return `n` partial sums of the elementwise product a · b: one multiply-add after the other, `n` numbers wide."""
    length = _length(n)
    result = Vector(a.dtype, length)

    def codegen(context, builder, signature, args):
        def part(vector, start):
            order = list(range(start, start + length))
            order = ir.Constant(ir.VectorType(ir.IntType(32), length), order)
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)

        acc = builder.fmul(part(args[0], 0), part(args[1], 0), flags=("contract",))
        for start in range(length, a.length, length):
            x, y = part(args[0], start), part(args[1], start)
            acc = builder.fadd(builder.fmul(x, y, flags=("contract",)), acc, flags=("contract",))
        return acc

    return result(a, b, n), codegen


@intrinsic
def total(typingctx, a):
    """Return the sum of a vector's elements, added pairwise."""

    def codegen(context, builder, signature, args):
        value, have = args[0], a.length
        while have > 1:
            value, have = _half(builder, value, have), have // 2
        return builder.extract_element(value, _i32(0))

    return a.dtype(a), codegen


@intrinsic
def totals(typingctx, a, b, c, d):
    """Return the four sums of four vectors of equal length as one vector, with shared shuffles."""
    result = Vector(a.dtype, 4)

    def codegen(context, builder, signature, args):
        def pick(x, y, order):
            return builder.shuffle_vector(
                x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
            )

        def merge(x, y, length):
            # Within groups of four: [x0+x2, x1+x3, y0+y2, y1+y3] keeps each shuffle inside 128-bit lanes.
            even, odd = [], []
            for g in range(0, length, 4):
                even += [g, g + 1, length + g, length + g + 1]
                odd += [g + 2, g + 3, length + g + 2, length + g + 3]
            return builder.fadd(pick(x, y, even), pick(x, y, odd))

        n = a.length
        ab, cd = merge(args[0], args[1], n), merge(args[2], args[3], n)
        even, odd = [], []
        for g in range(0, n, 4):
            even += [g, g + 2, n + g, n + g + 2]
            odd += [g + 1, g + 3, n + g + 1, n + g + 3]
        value = builder.fadd(pick(ab, cd, even), pick(ab, cd, odd))
        while n > 4:
            value, n = _half(builder, value, n), n // 2
        return value

    return result(a, b, c, d), codegen
