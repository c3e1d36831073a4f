"""16×16 blocks in registers: load rows, transpose, store rows.

The corner turn between samples × features and features × samples. A block is one `simd.Vector` of 256 elements, row
by row; LLVM splits it into registers. Nothing here checks bounds.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnsparse.simd import Vector, _address


@intrinsic
def load_rows(typingctx, array, offset, pitch):
    """Return a 16×16 block: rows of 16 elements at `offset + r·pitch`, one vector of 256."""
    result = Vector(array.dtype, 256)

    def codegen(context, builder, signature, args):
        offset, pitch = (
            context.cast(builder, args[i], signature.args[i], types.intp) for i in (1, 2)
        )
        rows = []
        for _ in range(16):
            rows.append(_load16(context, builder, array, args[0], offset))
            offset = builder.add(offset, pitch)
        return _concatenate(builder, rows)

    return result(array, offset, pitch), codegen


@intrinsic
def load_rows_at(typingctx, array, index, first, count, pitch, column):
    """Return a 16×16 block: `count` rows (one or more) at `index[first + r]·pitch + column`, then zeros."""
    result = Vector(array.dtype, 256)

    def codegen(context, builder, signature, args):
        first, count, pitch, column = (
            context.cast(builder, args[i], signature.args[i], types.intp) for i in (2, 3, 4, 5)
        )
        numbers = context.make_array(index)(context, builder, args[1]).data
        rows = []
        for r in range(16):
            row = ir.Constant(first.type, r)
            inside = builder.icmp_signed("<", row, count)
            position = builder.add(first, builder.select(inside, row, ir.Constant(first.type, 0)))
            number = builder.load(builder.gep(numbers, [position]))
            number = context.cast(builder, number, index.dtype, types.intp)
            offset = builder.add(builder.mul(number, pitch), column)
            values = _load16(context, builder, array, args[0], offset)
            rows.append(builder.select(inside, values, ir.Constant(values.type, None)))
        return _concatenate(builder, rows)

    return result(array, index, first, count, pitch, column), codegen


@intrinsic
def store_rows(typingctx, array, offset, pitch, block):
    """Write the rows of a 16×16 block to `offset + r·pitch`."""

    def codegen(context, builder, signature, args):
        offset, pitch = (
            context.cast(builder, args[i], signature.args[i], types.intp) for i in (1, 2)
        )
        for r in range(16):
            row = _shuffle(builder, args[3], args[3], range(16 * r, 16 * r + 16))
            address = _address(context, builder, array, args[0], offset, types.intp, 16)
            builder.store(row, address, align=array.dtype.bitwidth // 8)
            offset = builder.add(offset, pitch)
        return context.get_dummy_value()

    return types.void(array, offset, pitch, block), codegen


@intrinsic
def transpose(typingctx, block):
    """Return the transpose of a 16×16 block."""

    def codegen(context, builder, signature, args):
        rows = [_shuffle(builder, args[0], args[0], range(16 * r, 16 * r + 16)) for r in range(16)]
        while len(rows) > 1:  # a perfect shuffle: interleave row r with row r + n/2
            half, n = len(rows) // 2, 256 // len(rows)
            order = [i for k in range(n) for i in (k, n + k)]
            rows = [_shuffle(builder, rows[r], rows[r + half], order) for r in range(half)]
        return rows[0]

    return block(block), codegen


def _load16(context, builder, array_type, array, offset):
    address = _address(context, builder, array_type, array, offset, types.intp, 16)
    return builder.load(address, align=array_type.dtype.bitwidth // 8)


def _shuffle(builder, a, b, order):
    order = list(order)
    return builder.shuffle_vector(
        a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    )


def _concatenate(builder, vectors):
    while len(vectors) > 1:
        n = vectors[0].type.count
        vectors = [
            _shuffle(builder, vectors[i], vectors[i + 1], range(2 * n))
            for i in range(0, len(vectors), 2)
        ]
    return vectors[0]
