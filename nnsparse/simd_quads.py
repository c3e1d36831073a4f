"""Register tiling: up to four outputs at a time, each input loaded once for all outputs that use it.

One intrinsic emits fifteen small loops, one for every set of outputs that can share an input. Written in Python they
would take a second longer to compile and run 1.1x slower. Read `simd` first; the kernel is in `kernels.spmm`, the order
of the weights in `plan.Quads`.
"""

# mypy: disable-error-code="attr-defined, no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from nnsparse.simd import _splat

MASKS = 15  # the nonempty subsets of four outputs


def _emit(context, builder, kinds, args, fresh):
    """Emit the fifteen loops and return the four sums; `kinds` and `args` are those of `quad` or `quad_fresh`."""
    skip = 3 if fresh else 0
    intp = context.get_value_type(types.intp)

    def constant(n):
        return ir.Constant(intp, n)

    def pointer(array, offset):
        data = context.make_array(kinds[array])(context, builder, args[array]).data
        return builder.gep(data, [context.cast(builder, args[offset], kinds[offset], types.intp)])

    def cursor(array, offset):
        return cgutils.alloca_once_value(builder, pointer(array, offset))

    def advance(place, at, n):
        builder.store(builder.gep(at, [constant(n)]), place)

    weight, index = cursor(skip, skip + 1), cursor(skip + 5, skip + 6)
    inputs, count = pointer(skip + 2, skip + 3), pointer(skip + 7, skip + 8)
    pitch = context.cast(builder, args[skip + 4], kinds[skip + 4], types.intp)
    if fresh:
        values = context.make_array(kinds[0])(context, builder, args[0]).data
        origin = cursor(1, 2)
    sums = [cgutils.alloca_once_value(builder, vector) for vector in args[skip + 9 :]]
    kind = args[-1].type
    align = kinds[skip].dtype.bitwidth // 8
    for mask in range(1, MASKS + 1):
        users = [r for r in range(4) if mask >> r & 1]
        times = builder.load(builder.gep(count, [constant(mask - 1)]))
        with cgutils.for_range(builder, builder.zext(times, intp)):
            at, w = builder.load(index), builder.load(weight)
            start = builder.mul(builder.zext(builder.load(at), intp), pitch)
            where = builder.bitcast(builder.gep(inputs, [start]), kind.as_pointer())
            shared = builder.load(where, align=align)
            if fresh:
                o = builder.load(origin)
                advance(origin, o, len(users))
            for n, r in enumerate(users):
                place = builder.gep(w, [constant(n)])
                if fresh:
                    k = builder.zext(builder.load(builder.gep(o, [constant(n)])), intp)
                    scalar = builder.load(builder.gep(values, [k]))
                    builder.store(scalar, place)
                else:
                    scalar = builder.load(place)
                scaled = builder.fmul(
                    _splat(builder, scalar, kind.count), shared, flags=("contract",)
                )
                total = builder.fadd(scaled, builder.load(sums[r]), flags=("contract",))
                builder.store(total, sums[r])
            advance(index, at, 1)
            advance(weight, w, len(users))
    return [builder.load(s) for s in sums]


@intrinsic
def quad(typingctx, weights, k, x, corner, pitch, indices, i, counts, j, a, b, c, d):
    """Return (a, b, c, d) + W·x for four outputs and one slab of inputs.

    For mask = 1 ... 15 (bit r set: output r uses the input) it takes the next counts[j + mask - 1] of `indices`, from
    i on; each is an input whose vector lies at x[corner + index·pitch], and is followed in `weights`, from k on, by
    one weight per output of the mask.
    """
    result = types.UniTuple(a, 4)

    def codegen(context, builder, signature, args):
        sums = _emit(context, builder, signature.args, args, fresh=False)
        return context.make_tuple(builder, result, sums)

    return result(weights, k, x, corner, pitch, indices, i, counts, j, a, b, c, d), codegen


@intrinsic
def quad_fresh(
    typingctx, values, source, m, weights, k, x, corner, pitch, indices, i, counts, j, a, b, c, d
):
    """Do the same with the weights values[source[m]], values[source[m + 1]] ..., and leave them in `weights`.

    Gathered in the shadow of the arithmetic they cost a third of a pass of their own.
    """
    result = types.UniTuple(a, 4)

    def codegen(context, builder, signature, args):
        sums = _emit(context, builder, signature.args, args, fresh=True)
        return context.make_tuple(builder, result, sums)

    rest = (weights, k, x, corner, pitch, indices, i, counts, j, a, b, c, d)
    return result(values, source, m, *rest), codegen
