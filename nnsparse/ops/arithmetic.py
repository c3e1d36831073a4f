"""Differentiable arithmetic with NumPy's broadcasting, and the operators of `Tensor`.

Every gradient rule is made of the ops in this file, so all of them can be differentiated any
number of times. These ops are for losses, penalties and criteria, not for the inner loop of
training: they work on plain arrays. A tiled activation is turned plain first, except where two of
them of one layout are added, subtracted or multiplied. Over 300 lines because every op stands
beside its derivative, backwards and forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from nnsparse.autograd import Tensor, record
from nnsparse.ops.layout import untile
from nnsparse.ops.tangents import bilinear, total

Operand: TypeAlias = Tensor | ArrayLike
Axis: TypeAlias = int | tuple[int, ...] | None
Gradients: TypeAlias = Sequence[Tensor | None]
Needs: TypeAlias = tuple[bool, ...]


# ---------------------------------------------------------------- operands


def _constant(value: ArrayLike, dtype: DTypeLike | None = None) -> Tensor:
    """Return numbers that are no tensor in `dtype`, so that they never widen what is trained.

    Without `dtype`, float64 stays and all else becomes float32.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"expected a Tensor or real numbers; got {type(value).__name__} {value!r}.")
    if dtype is None:
        dtype = np.float64 if array.dtype == np.float64 else np.float32
    return Tensor(np.asarray(array, dtype))


def _one(a: Operand) -> Tensor:
    """Return the operand as a plain tensor."""
    return untile(a) if isinstance(a, Tensor) else _constant(a)


def _pair(a: Operand, b: Operand, tiles: bool = False) -> tuple[Tensor, Tensor]:
    """Return both operands as tensors of one dtype, plain unless `tiles` and one layout."""
    if not isinstance(a, Tensor):
        a = _constant(a, b.dtype if isinstance(b, Tensor) else None)
    if not isinstance(b, Tensor):
        b = _constant(b, a.dtype)
    if a.data.dtype != b.data.dtype:
        dtype = np.result_type(a.data.dtype, b.data.dtype)
        a, b = cast(a, dtype), cast(b, dtype)
    if a.batch is None and b.batch is None:
        return a, b
    if tiles and a.batch == b.batch and a.data.shape == b.data.shape:
        return a, b
    return untile(a), untile(b)


# ---------------------------------------------------------------- elementwise


def add(a: Operand, b: Operand) -> Tensor:
    """Return a + b, broadcast.

    >>> from nnsparse.autograd import tensor
    >>> print(add(tensor([1.0, 2.0]), 1).numpy())
    [2. 3.]
    """
    a, b = _pair(a, b, tiles=True)
    shapes = (a.shape, b.shape)

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        return (
            sum_to(g, shapes[0]) if needs[0] else None,
            sum_to(g, shapes[1]) if needs[1] else None,
        )

    return record(np.asarray(a.data + b.data), (a, b), rule, a.batch, push=total)


def subtract(a: Operand, b: Operand) -> Tensor:
    """Return a - b, broadcast."""
    a, b = _pair(a, b, tiles=True)
    shapes = (a.shape, b.shape)

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        return (
            sum_to(g, shapes[0]) if needs[0] else None,
            sum_to(negative(g), shapes[1]) if needs[1] else None,
        )

    def push(out: Tensor, da: Tensor | None, db: Tensor | None) -> Tensor:
        return total(out, da, None if db is None else negative(db))

    return record(np.asarray(a.data - b.data), (a, b), rule, a.batch, push)


def multiply(a: Operand, b: Operand) -> Tensor:
    """Return a · b elementwise, broadcast."""
    x, y = _pair(a, b, tiles=True)

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        return (
            sum_to(multiply(g, y), x.shape) if needs[0] else None,
            sum_to(multiply(g, x), y.shape) if needs[1] else None,
        )

    push = bilinear(multiply, x, y)
    return record(np.asarray(x.data * y.data), (x, y), rule, x.batch, push)


def divide(a: Operand, b: Operand) -> Tensor:
    """Return a / b elementwise, broadcast; division by zero gives inf or NaN, without a warning."""
    x, y = _pair(a, b)

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        quotient = divide(g, y)
        return (
            sum_to(quotient, x.shape) if needs[0] else None,
            sum_to(negative(multiply(quotient, out)), y.shape) if needs[1] else None,
        )

    def push(out: Tensor, dx: Tensor | None, dy: Tensor | None) -> Tensor:
        return divide(total(out, dx, None if dy is None else negative(multiply(out, dy))), y)

    with np.errstate(divide="ignore", invalid="ignore"):
        return record(np.asarray(x.data / y.data), (x, y), rule, push=push)


def negative(a: Operand) -> Tensor:
    """Return -a."""
    a = a if isinstance(a, Tensor) else _one(a)
    data = np.asarray(-a.data)
    return record(data, (a,), lambda g, out, needs: (negative(g),), a.batch, symmetric=True)


def power(a: Operand, exponent: float) -> Tensor:
    """Return a ** exponent elementwise, for a number as exponent; 0 ** -1 is inf, no warning."""
    if not isinstance(exponent, int | float | np.integer | np.floating):
        raise TypeError(
            f"power expects a number as exponent; got {type(exponent).__name__}. "
            "For a tensor as exponent write exp(log(a) * b)."
        )
    x = _one(a)
    p = float(exponent)

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        # 0 · x ** -1 would be NaN at x = 0, where the derivative of a constant is 0.
        slope = multiply(power(x, p - 1.0), p) if p != 0.0 else Tensor(np.zeros_like(x.data))
        return (multiply(g, slope),)

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return record(np.asarray(x.data**p), (x,), rule, symmetric=True)


def exp(a: Operand) -> Tensor:
    """Return e ** a elementwise."""
    x = _one(a)
    with np.errstate(over="ignore", under="ignore"):
        data = np.asarray(np.exp(x.data))
    return record(data, (x,), lambda g, out, needs: (multiply(g, out),), symmetric=True)


def log(a: Operand) -> Tensor:
    """Return the natural logarithm elementwise; -inf at 0 and NaN below, without a warning."""
    x = _one(a)
    with np.errstate(divide="ignore", invalid="ignore"):
        data = np.asarray(np.log(x.data))
    return record(data, (x,), lambda g, out, needs: (divide(g, x),), symmetric=True)


def cast(a: Tensor, dtype: DTypeLike) -> Tensor:
    """Return `a` in another floating-point dtype; the gradient comes back in the first one."""
    before = a.data.dtype
    if before == dtype:
        return a
    return record(
        a.data.astype(dtype),
        (a,),
        lambda g, out, needs: (cast(g, before),),
        a.batch,
        push=lambda out, t: cast(t, dtype),
    )


# ---------------------------------------------------------------- products, sums, shapes


def matmul(a: Operand, b: Operand) -> Tensor:
    """Return the matrix product of a (n, k) and b (k, m): (n, m).

    Raises
    ------
    ValueError
        If one of them is not two-dimensional, or the inner sizes differ.
    """
    x, y = _pair(a, b)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
        raise ValueError(
            f"matmul expects shapes (n, k) and (k, m); got {x.shape} and {y.shape}. "
            "Transposed? Use .T. A vector? Use .reshape((-1, 1))."
        )

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        return (
            matmul(g, transpose(y)) if needs[0] else None,
            matmul(transpose(x), g) if needs[1] else None,
        )

    return record(x.data @ y.data, (x, y), rule, push=bilinear(matmul, x, y))


def sum(a: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the sum over `axis`: one number, several, or None for all of them.

    Parameters
    ----------
    a : Tensor or array-like
        Any shape.
    axis : int, tuple of int or None
        Axes to sum over.
    keepdims : bool
        Keep them, with length 1.
    """
    x = _one(a)
    shape = x.shape
    kept = np.sum(x.data, axis=axis, keepdims=True)
    narrow = kept.shape

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        return (broadcast_to(reshape(g, narrow), shape),)

    data = kept if keepdims else np.sum(x.data, axis=axis)
    return record(np.asarray(data), (x,), rule, push=lambda out, t: sum(t, axis, keepdims))


def mean(a: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the mean over `axis`; see `sum`. Of nothing it is NaN."""
    x = _one(a)
    total = sum(x, axis, keepdims)
    return divide(total, x.size / total.size if total.size else 1.0)


def reshape(a: Operand, *shape: int | tuple[int, ...]) -> Tensor:
    """Return `a` in another shape of the same size; one extent may be -1.

    >>> from nnsparse.autograd import tensor
    >>> reshape(tensor([1.0, 2.0]), 2, 1).shape
    (2, 1)
    """
    x = _one(a)
    before = x.shape
    extents = shape[0] if len(shape) == 1 else shape
    data = x.data.reshape(extents)
    return record(
        data,
        (x,),
        lambda g, out, needs: (reshape(g, before),),
        push=lambda out, t: reshape(t, out.shape),
    )


def transpose(a: Operand) -> Tensor:
    """Return `a` with its axes in reverse order."""
    x = _one(a)
    return record(
        x.data.T, (x,), lambda g, out, needs: (transpose(g),), push=lambda out, t: transpose(t)
    )


def broadcast_to(a: Operand, shape: tuple[int, ...]) -> Tensor:
    """Return `a` repeated along new and length-1 axes to `shape`."""
    x = _one(a)
    before = x.shape
    if before == shape:
        return x
    data = np.ascontiguousarray(np.broadcast_to(x.data, shape)).reshape(shape)
    return record(data, (x,), lambda g, out, needs: (sum_to(g, before),), push=total)


def sum_to(a: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return `a` summed over the axes along which `shape` was broadcast to it; tiles stay tiles."""
    if a.shape == shape:
        return a
    x = untile(a)
    new = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < new or (shape[i - new] == 1 != x.shape[i]))
    return reshape(sum(x, axes, keepdims=True), shape)


# ---------------------------------------------------------------- operators

_OPERATORS: dict[str, Callable[..., Any]] = {
    "__add__": add,
    "__radd__": lambda a, b: add(b, a),
    "__sub__": subtract,
    "__rsub__": lambda a, b: subtract(b, a),
    "__mul__": multiply,
    "__rmul__": lambda a, b: multiply(b, a),
    "__truediv__": divide,
    "__rtruediv__": lambda a, b: divide(b, a),
    "__matmul__": matmul,
    "__rmatmul__": lambda a, b: matmul(b, a),
    "__pow__": power,
    "__neg__": negative,
    "sum": sum,
    "mean": mean,
    "reshape": reshape,
}
for _name, _function in _OPERATORS.items():
    setattr(Tensor, _name, _function)
setattr(Tensor, "T", property(transpose))  # noqa: B010 - mypy refuses the assignment
