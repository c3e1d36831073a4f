"""`check_gradients`: compares the gradients of a function with finite differences, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nnsparse.autograd import Array, Tensor, no_grad, sweep
from nnsparse.ops.arithmetic import add, multiply
from nnsparse.ops.arithmetic import sum as sum_of

Function: TypeAlias = Callable[..., Tensor]


class GradientError(AssertionError):
    """A gradient that finite differences contradict."""


def check_gradients(
    f: Function,
    *arrays: ArrayLike,
    order: int = 1,
    eps: float = 1e-6,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    rng: np.random.Generator | int | None = 0,
) -> None:
    """Check d<f(x), c> / dx against central differences (F(x + eps) − F(x − eps)) / 2 eps.

    c is a random cotangent, so that one number stands for all outputs. With order 2, also the
    gradient made with `create_graph=True`, and the derivative of its product with random vectors.

    Parameters
    ----------
    f : callable
        Takes one Tensor per array and returns one Tensor of any shape; the same at every call, and
        smooth within eps of the arrays.
    *arrays : array-like of numbers
        Taken as float64.
    order : 1 or 2
        Highest order of derivative to check.
    eps : float
        Step of the differences.
    rtol, atol : float
        A difference of up to atol + rtol·|numeric| passes.
    rng : Generator, int or None
        For cotangents.

    Raises
    ------
    GradientError
        An AssertionError that names input, position, analytic and numeric value.
    TypeError
        If f does not return a Tensor.
    ValueError
        If order is not 1 or 2, or there are no arrays.

    Notes
    -----
    Cost: 2 · (elements of all arrays) calls of f and order.

    Examples
    --------
    >>> check_gradients(lambda x: x * x, [1.0, 2.0], order=2)
    """
    if order not in (1, 2):
        raise ValueError(f"check_gradients expects order 1 or 2; got {order!r}.")
    if not arrays:
        raise ValueError("check_gradients expects at least one array to differentiate by.")
    points = [np.array(a, np.float64, order="C") for a in arrays]
    generator = np.random.default_rng(rng)
    with no_grad():
        cotangent = generator.standard_normal(_call(f, _leaves(points)).shape)

    def value(inputs: Sequence[Tensor]) -> float:
        with no_grad():
            return float(np.sum(_call(f, inputs).numpy() * cotangent))

    numeric = _differences(value, points, eps)
    for create_graph in (False, True)[:order]:
        analytic = _gradients(_call(f, inputs := _leaves(points)), inputs, cotangent, create_graph)
        name = "gradient, create_graph=True" if create_graph else "gradient"
        _compare(name, analytic, numeric, rtol, atol)
    if order == 2:
        vectors = [generator.standard_normal(a.shape) for a in points]
        along = _directional(f, cotangent, vectors)
        numeric = _differences(lambda inputs: along(inputs).item(), points, eps)
        analytic = _gradients(along(inputs := _leaves(points)), inputs, np.ones(()), False)
        _compare("second derivative", analytic, numeric, rtol, atol)


def _directional(
    f: Function, cotangent: Array, vectors: Sequence[Array]
) -> Callable[[Sequence[Tensor]], Tensor]:
    """Return the function inputs -> Σ_i <d<f, cotangent> / dx_i, vector_i>, a single number."""

    def along(inputs: Sequence[Tensor]) -> Tensor:
        total = Tensor(np.zeros(()))
        gradients = _gradients(_call(f, inputs), inputs, cotangent, True)
        for gradient, vector in zip(gradients, vectors, strict=True):
            total = add(total, sum_of(multiply(gradient, vector)))
        return total

    return along


def _leaves(points: Sequence[Array]) -> list[Tensor]:
    return [Tensor(a.copy(), requires_grad=True) for a in points]


def _call(f: Function, inputs: Sequence[Tensor]) -> Tensor:
    out = f(*inputs)
    if not isinstance(out, Tensor):
        raise TypeError(f"check_gradients expects f to return a Tensor; got {type(out).__name__}.")
    return out


def _gradients(
    out: Tensor, inputs: Sequence[Tensor], cotangent: Array, create_graph: bool
) -> list[Tensor]:
    """Return d<out, cotangent> / d input for each, zeros where `out` was not made from it."""
    found: dict[int, Tensor] = {}
    if out.requires_grad:
        pairs = sweep(out, cotangent, inputs, create_graph, create_graph)
        found = {id(t): gradient for t, gradient in pairs}
    return [found.get(id(t), Tensor(np.zeros_like(t.data))) for t in inputs]


def _differences(
    value: Callable[[Sequence[Tensor]], float], points: Sequence[Array], eps: float
) -> list[Array]:
    """Return the central differences of `value` for every element of every array."""
    numeric = [np.zeros_like(a) for a in points]
    for i, point in enumerate(points):
        for position in np.ndindex(point.shape):
            ends = []
            for step in (eps, -eps):
                inputs = _leaves(points)
                inputs[i].data[position] += step
                ends.append(value(inputs))
            numeric[i][position] = (ends[0] - ends[1]) / (2 * eps)
    return numeric


def _compare(
    name: str, analytic: Sequence[Tensor], numeric: Sequence[Array], rtol: float, atol: float
) -> None:
    for i, (gradient, expected) in enumerate(zip(analytic, numeric, strict=True)):
        if gradient.data.shape != expected.shape:
            raise GradientError(
                f"{name} of input {i}: expected shape {expected.shape}; got {gradient.data.shape}."
            )
        # Written so that a NaN on either side counts as wrong.
        wrong = ~(np.abs(gradient.data - expected) <= atol + rtol * np.abs(expected))
        if wrong.any():
            position = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise GradientError(
                f"{name} of input {i} at {position}: analytic {gradient.data[position]:.10g}, "
                f"numeric {expected[position]:.10g}; {wrong.sum()} of {wrong.size} are wrong."
            )
