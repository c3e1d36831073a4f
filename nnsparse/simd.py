"""A SIMD vector type for Numba kernels: load, store, splat, multiply-add. Sums are in `simd_sums`.

Numba does not keep a local array in registers; a value whose data model is the LLVM vector `<n x float>` stays there,
and LLVM splits it into whatever registers the CPU has. Vector lengths `n` must be compile-time constants: literals,
or integers in a kernel's closure. Offsets count elements from the start of a C-contiguous array. Nothing here checks
bounds.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.core.errors import TypingError
from numba.extending import intrinsic


class Vector(types.Type):
    """`length` numbers of one floating-point type, held in SIMD registers."""

    def __init__(self, dtype, length):
        self.dtype = dtype
        self.length = length
        super().__init__(name=f"Vector({dtype} x {length})")

    @property
    def key(self):
        """What makes two vector types equal."""
        return self.dtype, self.length


_IR = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(_IR[fe_type.dtype], fe_type.length))


def _length(n):
    """Return the length that `n` stands for: a constant, or another vector whose length to take."""
    if isinstance(n, Vector):
        return n.length
    if not isinstance(n, types.IntegerLiteral):
        raise TypingError("a vector length must be a compile-time constant")
    return n.literal_value


def _address(context, builder, array_type, array, offset, offset_type, length):
    data = context.make_array(array_type)(context, builder, array).data
    offset = context.cast(builder, offset, offset_type, types.intp)
    vector = ir.VectorType(_IR[array_type.dtype], length)
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


@intrinsic(prefer_literal=True)
def load(typingctx, array, offset, n):
    """Return elements `offset ... offset + n - 1` of a C-contiguous array as a vector."""
    length = _length(n)
    result = Vector(array.dtype, length)

    def codegen(context, builder, signature, args):
        address = _address(context, builder, array, args[0], args[1], signature.args[1], length)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return result(array, offset, n), codegen


@intrinsic
def item(typingctx, array, offset):
    """Return element `offset` of a C-contiguous array; integers come as intp.

    `array[offset]` would first ask whether a signed offset is negative and counts from the end: 1.1-1.2x on the
    sparse products.
    """
    result = types.intp if isinstance(array.dtype, types.Integer) else array.dtype

    def codegen(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        offset = context.cast(builder, args[1], signature.args[1], types.intp)
        value = builder.load(builder.gep(data, [offset]))
        return context.cast(builder, value, array.dtype, result)

    return result(array, offset), codegen


@intrinsic
def put(typingctx, array, offset, value):
    """Write element `offset` of a C-contiguous array (see `item`)."""

    def codegen(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        offset = context.cast(builder, args[1], signature.args[1], types.intp)
        value = context.cast(builder, args[2], signature.args[2], array.dtype)
        builder.store(value, builder.gep(data, [offset]))
        return context.get_dummy_value()

    return types.void(array, offset, value), codegen


@intrinsic
def store(typingctx, array, offset, vector):
    """Write a vector to elements `offset ...` of a C-contiguous array."""

    def codegen(context, builder, signature, args):
        address = _address(
            context, builder, array, args[0], args[1], signature.args[1], vector.length
        )
        builder.store(args[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, offset, vector), codegen


def _head(context, builder, count, count_type, length):
    """Return the mask of the first `count` of `length` elements."""
    count = context.cast(builder, count, count_type, types.int32)
    steps = ir.Constant(ir.VectorType(ir.IntType(32), length), list(range(length)))
    return builder.icmp_signed("<", steps, _splat(builder, count, length))


def _masked(builder, name, result, args):
    """Call LLVM's masked load or store, which touches only the elements of the mask."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic(prefer_literal=True)
def load_head(typingctx, array, offset, n, count):
    """Return elements `offset ... offset + count - 1` and then zeros, `n` in all; nothing beyond them is read."""
    result = Vector(array.dtype, _length(n))

    def codegen(context, builder, signature, args):
        where = _address(
            context, builder, array, args[0], args[1], signature.args[1], result.length
        )
        mask = _head(context, builder, args[3], signature.args[3], result.length)
        kind = context.get_value_type(result)
        name = f"llvm.masked.load.v{result.length}f{array.dtype.bitwidth}.p0"
        align = _i32(array.dtype.bitwidth // 8)
        return _masked(builder, name, kind, [where, align, mask, ir.Constant(kind, None)])

    return result(array, offset, n, count), codegen


@intrinsic
def store_head(typingctx, array, offset, vector, count):
    """Write the first `count` numbers of a vector to elements `offset ...`; nothing beyond them is touched."""

    def codegen(context, builder, signature, args):
        where = _address(
            context, builder, array, args[0], args[1], signature.args[1], vector.length
        )
        mask = _head(context, builder, args[3], signature.args[3], vector.length)
        name = f"llvm.masked.store.v{vector.length}f{array.dtype.bitwidth}.p0"
        align = _i32(array.dtype.bitwidth // 8)
        _masked(builder, name, ir.VoidType(), [args[2], where, align, mask])
        return context.get_dummy_value()

    return types.void(array, offset, vector, count), codegen


def _splat(builder, value, length):
    vector = ir.VectorType(value.type, length)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _i32(0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), length), [0] * length)
    return builder.shuffle_vector(one, one, order)


@intrinsic(prefer_literal=True)
def splat(typingctx, scalar, n):
    """Return a vector of `n` copies of `scalar`."""
    length = _length(n)
    dtype = types.unliteral(scalar)

    def codegen(context, builder, signature, args):
        return _splat(builder, context.cast(builder, args[0], signature.args[0], dtype), length)

    return Vector(dtype, length)(scalar, n), codegen


@intrinsic(prefer_literal=True)
def broadcast(typingctx, array, offset, n):
    """Return a vector of `n` copies of element `offset` of a C-contiguous array."""
    length = _length(n)

    def codegen(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        offset = context.cast(builder, args[1], signature.args[1], types.intp)
        return _splat(builder, builder.load(builder.gep(data, [offset])), length)

    return Vector(array.dtype, length)(array, offset, n), codegen


@intrinsic(prefer_literal=True)
def zero(typingctx, array, n):
    """Return a vector of `n` zeros of an array's dtype."""
    result = Vector(array.dtype, _length(n))

    def codegen(context, builder, signature, args):
        return ir.Constant(context.get_value_type(result), None)

    return result(array, n), codegen


def _i32(value):
    return ir.Constant(ir.IntType(32), value)


def _binary(emit):
    def typer(typingctx, a, b):
        if a != b or not isinstance(a, Vector):
            raise TypingError(f"expected two equal vector types, got {a} and {b}")
        return a(a, b), lambda context, builder, signature, args: emit(builder, *args)

    return typer


@intrinsic
def add(typingctx, a, b):
    """Return a + b."""
    return _binary(lambda builder, x, y: builder.fadd(x, y, flags=("contract",)))(typingctx, a, b)


@intrinsic
def mul(typingctx, a, b):
    """Return a · b."""
    return _binary(lambda builder, x, y: builder.fmul(x, y, flags=("contract",)))(typingctx, a, b)


@intrinsic
def madd(typingctx, a, b, c):
    """Return a · b + c: one FMA where the CPU has it, a multiply and an add where not (never a call of libm)."""

    def codegen(context, builder, signature, args):
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fadd(product, args[2], flags=("contract",))

    return a(a, b, c), codegen


@intrinsic
def relu(typingctx, a):
    """Return max(a, 0) elementwise; a NaN stays a NaN."""

    def codegen(context, builder, signature, args):
        zero = ir.Constant(args[0].type, None)
        negative = builder.fcmp_ordered("<", args[0], zero)
        return builder.select(negative, zero, args[0])

    return a(a), codegen


@intrinsic
def where_positive(typingctx, a, b):
    """Return b where a > 0, else 0 (the backward pass of ReLU); b where a is NaN."""

    def codegen(context, builder, signature, args):
        zero = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_unordered(">", args[0], zero), args[1], zero)

    return b(a, b), codegen
