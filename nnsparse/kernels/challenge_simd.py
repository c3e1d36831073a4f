"""Vector operations of the Graph Challenge's kernels: its activation, live lanes as bits, lanes moved together.

Sets of lanes are bits of an int64, lane 0 the lowest. Read `simd` first.
"""

# mypy: disable-error-code="attr-defined, no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from nnsparse import jit
from nnsparse.simd import _i32


@intrinsic
def finish(typingctx, z, bias, top):
    """Return min(max(z + bias, 0), top) where z is not 0, and 0 where it is; a NaN stays a NaN."""

    def codegen(context, builder, signature, args):
        z, bias, top = args
        none = ir.Constant(z.type, None)
        y = builder.fadd(z, bias)
        y = builder.select(builder.fcmp_ordered("<", y, none), none, y)
        y = builder.select(builder.fcmp_ordered(">", y, top), top, y)
        return builder.select(builder.fcmp_unordered("!=", z, none), y, none)

    return z(z, bias, top), codegen


@intrinsic
def nonzero_bits(typingctx, vector):
    """Return which of at most 64 elements are not 0 (a NaN is not), as bits."""

    def codegen(context, builder, signature, args):
        found = builder.fcmp_unordered("!=", args[0], ir.Constant(args[0].type, None))
        bits = builder.bitcast(found, ir.IntType(vector.length))
        return bits if vector.length == 64 else builder.zext(bits, ir.IntType(64))

    return types.int64(vector), codegen


@intrinsic
def popcount(typingctx, bits):
    """Return the number of ones of an int64."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


def _compress_by_one(builder, value, bits):
    """Write all elements to memory, each over the one before it unless that one is chosen."""
    place = cgutils.alloca_once(builder, value.type)
    front = builder.bitcast(place, value.type.element.as_pointer())
    to = _i32(0)
    for lane in range(value.type.count):
        builder.store(builder.extract_element(value, _i32(lane)), builder.gep(front, [to]))
        bit = builder.lshr(bits, ir.Constant(bits.type, lane))
        to = builder.add(to, builder.and_(builder.trunc(bit, to.type), _i32(1)))
    return builder.load(place)


@intrinsic
def compress(typingctx, vector, bits):
    """Return the elements of a vector whose bits are set, moved together to the front; the rest is arbitrary.

    One instruction where the vector fills a register of AVX-512. LLVM has it from version 19 on for all vectors, but
    what it made of 16 float64 crashed (LLVM 22).
    """

    def codegen(context, builder, signature, args):
        value, bits = args
        kind = value.type
        features = context.codegen().magic_tuple()[2].split(",")
        whole = kind.count * vector.dtype.bitwidth == 512 and "+avx512f" in features
        if not whole or binding.llvm_version_info[0] < 19:
            return _compress_by_one(builder, value, bits)
        chosen = ir.VectorType(ir.IntType(1), kind.count)
        mask = builder.bitcast(builder.trunc(bits, ir.IntType(kind.count)), chosen)
        name = f"llvm.experimental.vector.compress.v{kind.count}f{vector.dtype.bitwidth}"
        call = ir.FunctionType(kind, [kind, chosen, kind])
        function = cgutils.get_or_insert_function(builder.module, call, name)
        return builder.call(function, [value, mask, ir.Constant(kind, ir.Undefined)])

    return vector(vector, types.int64), codegen


@jit.inline
def lowest(bits, count):
    """Return the `count` lowest ones of `bits`."""
    rest = bits
    for _ in range(count):
        rest &= rest - 1
    return bits ^ rest


@jit.inline
def first_lanes(count):
    """Return the bits of lanes 0 ... count - 1 of at most 64."""
    return -1 if count >= 64 else (1 << count) - 1
