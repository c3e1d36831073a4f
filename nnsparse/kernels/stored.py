"""Weights and indices as a compiled model stores them: float16 bit patterns, four small indices in one load.

An array of weights is of the dtype that is computed in, or of uint16: IEEE 754 half precision, widened as it is read,
without error, subnormals included, infinities and NaN excluded. Nothing here checks bounds.
"""

# mypy: disable-error-code="attr-defined, no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import sys

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnsparse.simd import Vector, _address, _i32, _length


def _widen(context, builder, bits, dtype):
    """Return float16 bit patterns, a scalar or a vector of i16, as numbers of `dtype`."""
    count = bits.type.count if isinstance(bits.type, ir.VectorType) else 0

    def kind(scalar):
        return ir.VectorType(scalar, count) if count else scalar

    def constant(scalar, value):
        return ir.Constant(kind(scalar), [value] * count if count else value)

    single, word = ir.FloatType(), ir.IntType(32)
    if "+f16c" in context.codegen().magic_tuple()[2].split(","):
        value = builder.fpext(builder.bitcast(bits, kind(ir.HalfType())), kind(single))
    else:
        # No instruction for it, and perhaps no library: move the exponent, then multiply the rest of its bias away.
        wide = builder.zext(bits, kind(word))
        low = builder.shl(builder.and_(wide, constant(word, 0x7FFF)), constant(word, 13))
        value = builder.fmul(builder.bitcast(low, kind(single)), constant(single, 2.0**112))
        sign = builder.shl(builder.and_(wide, constant(word, 0x8000)), constant(word, 16))
        value = builder.bitcast(builder.or_(builder.bitcast(value, kind(word)), sign), kind(single))
    return builder.fpext(value, kind(ir.DoubleType())) if dtype == types.float64 else value


@intrinsic
def weight(typingctx, stored, offset, like):
    """Return element `offset` of the stored weights as a number of the dtype of array `like`."""

    def codegen(context, builder, signature, args):
        data = context.make_array(stored)(context, builder, args[0]).data
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        value = builder.load(builder.gep(data, [at]))
        return _widen(context, builder, value, like.dtype) if _is_half(stored) else value

    return like.dtype(stored, offset, like), codegen


@intrinsic(prefer_literal=True)
def weights(typingctx, stored, offset, like, n):
    """Return elements `offset ... offset + n - 1` of the stored weights as a vector of the dtype of array `like`."""
    length = _length(n)
    result = Vector(like.dtype, length)

    def codegen(context, builder, signature, args):
        if not _is_half(stored):
            where = _address(context, builder, stored, args[0], args[1], signature.args[1], length)
            return builder.load(where, align=stored.dtype.bitwidth // 8)
        data = context.make_array(stored)(context, builder, args[0]).data
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        bits = ir.VectorType(ir.IntType(16), length)
        where = builder.bitcast(builder.gep(data, [at]), bits.as_pointer())
        return _widen(context, builder, builder.load(where, align=2), like.dtype)

    return result(stored, offset, like, n), codegen


def _is_half(stored):
    return stored.dtype == types.uint16


@intrinsic
def four(typingctx, indices, at):
    """Return elements at ... at + 3 of an array of uint8 or uint16, read by one load, as a tuple of intp."""
    result = types.UniTuple(types.intp, 4)

    def codegen(context, builder, signature, args):
        data = context.make_array(indices)(context, builder, args[0]).data
        place = context.cast(builder, args[1], signature.args[1], types.intp)
        bits, word = indices.dtype.bitwidth, ir.IntType(64)
        packed = ir.IntType(4 * bits)
        where = builder.bitcast(builder.gep(data, [place]), packed.as_pointer())
        chunk = builder.zext(builder.load(where, align=bits // 8), word)
        parts = range(4) if sys.byteorder == "little" else range(3, -1, -1)
        mask = ir.Constant(word, 2**bits - 1)
        found = [
            builder.and_(builder.lshr(chunk, ir.Constant(word, bits * part)), mask)
            for part in parts
        ]
        return context.make_tuple(builder, result, found)

    return result(indices, at), codegen


@intrinsic
def collect(typingctx, x, offset, where):
    """Return the vector x[offset + where[0]], ..., x[offset + where[3]]."""
    result = Vector(x.dtype, 4)

    def codegen(context, builder, signature, args):
        data = context.make_array(x)(context, builder, args[0]).data
        offset = context.cast(builder, args[1], signature.args[1], types.intp)
        base = builder.gep(data, [offset])
        vector = ir.Constant(context.get_value_type(result), ir.Undefined)
        for lane in range(4):
            number = builder.load(builder.gep(base, [builder.extract_value(args[2], lane)]))
            vector = builder.insert_element(vector, number, _i32(lane))
        return vector

    return result(x, offset, where), codegen


@intrinsic
def spread(typingctx, vector):
    """Return the four elements of a vector as a tuple."""
    result = types.UniTuple(vector.dtype, 4)

    def codegen(context, builder, signature, args):
        parts = [builder.extract_element(args[0], _i32(lane)) for lane in range(4)]
        return context.make_tuple(builder, result, parts)

    return result(vector), codegen
