"""Forward-mode differentiation: `jvp`, one forward pass that carries a tangent beside each activation.

Nothing is recorded: a tangent lives as long as its activation, so memory does not grow with depth. What an op does to
tangents is its `push` rule, which stands beside its gradient rule in `ops`; here is only the carrying. Tangents are
kept in a dictionary of their own, not in the tensors: a model that other threads use as well is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from nnsparse.autograd import Array, Push, Rule, Tensor, in_forward_mode, no_grad, unrecorded
from nnsparse.ops.layout import tile


def jvp(
    f: Callable[[], Tensor], primals: Iterable[Tensor], tangents: Iterable[ArrayLike]
) -> tuple[Tensor, Array]:
    """Return f() and its derivative along the tangents, Σ_i (∂f / ∂primal_i)·tangent_i, in one forward pass.

    Parameters
    ----------
    f : callable
        Takes nothing, computes with the primals and returns one Tensor of any shape.
    primals : iterable of Tensor
        Parameters or other tensors that require a gradient, each once.
    tangents : iterable of arrays
        A direction for each primal, in its shape. For the weight of a sparse layer (nnz,), in the parameter's own order
        as its `data`; `parameter.planned(v)` brings canonical order into it.

    Returns
    -------
    value : Tensor
        What f returned, without history.
    tangent : array, shape of value
        For a loss a single number, the slope ⟨gradient, tangents⟩.

    Raises
    ------
    TypeError
        If a primal or f() is no Tensor, or a tangent holds no real numbers.
    ValueError
        If there are no primals, one comes twice or requires no gradient, or a tangent has the wrong shape.
    RuntimeError
        If f() does not depend on the primals, calls `backward`, `ns.grad` or `jvp`, or gives a primal another array.
    NotImplementedError
        If a primal reaches an op without a push rule.

    Notes
    -----
    What f computes under `no_grad`, or from the `data` of a primal, counts as constant, as in `backward`, and a
    straight-through mask lets tangents pass as it does gradients: always the tangent of a loss is ⟨gradient, tangents⟩.

    Cost: that of two or three forward passes (the sparse products with weight and tangent, each on the nonzeros only).
    Memory: the activations and tangents of one layer, whatever the depth.

    Source: Wengert, A simple automatic derivative evaluation program, 1964; for random directions, Baydin, Pearlmutter,
    Syme, Wood & Torr, Gradients without Backpropagation, 2022, section 3: (slope · v) is an unbiased estimate of the
    gradient if v is drawn from N(0, I).

    Examples
    --------
    >>> from nnsparse.autograd import tensor
    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> value, slope = jvp(lambda: (x * x).sum(), [x], [[1.0, 10.0]])
    >>> value.item(), slope.item()
    (5.0, 42.0)
    """
    primals, directions = list(primals), list(tangents)
    _check(primals, directions)
    if in_forward_mode():
        raise RuntimeError(
            "jvp: not inside another jvp. For second derivatives call ns.grad(..., create_graph=True) twice."
        )
    carried = _Tangents()
    for i, (primal, direction) in enumerate(zip(primals, directions, strict=True)):
        carried.of[primal] = _direction(i, primal, direction)
    arrays = [primal.data for primal in primals]
    with unrecorded(carried):
        value = f()
    if not isinstance(value, Tensor):
        raise TypeError(f"jvp expects f to return a Tensor; got {type(value).__name__}.")
    for i, (primal, array) in enumerate(zip(primals, arrays, strict=True)):
        if primal.data is not array:
            raise RuntimeError(
                f"jvp: f gave primal {i} another array, or moved it to another topology. Do that "
                "before or after; to change values, write into data[...] in place."
            )
    tangent = carried.of.get(value)
    if tangent is None:
        raise RuntimeError(
            "jvp: what f returned does not depend on any primal (computed under no_grad, detached, "
            "or made before the call?)"
        )
    return value.detach(), np.array(tangent.numpy())


@final
class _Tangents:
    """The tangents of one pass, by tensor; each goes when its tensor goes."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[Tensor, Tensor | None] = WeakKeyDictionary()

    def __call__(
        self,
        out: Tensor,
        inputs: tuple[Tensor, ...],
        rule: Rule,
        push: Push | None,
        symmetric: bool,
    ) -> None:
        """Give `out`, just made from `inputs`, its tangent if any of them has one."""
        found = [self.of.get(t) for t in inputs]
        present = [t for t in found if t is not None]
        if not present:
            return
        for source, t in zip(inputs, found, strict=True):
            if t is not None and t.data.shape != source.data.shape:  # kernels check no bounds
                raise RuntimeError(
                    f"jvp: f gave a tensor another array, or moved it to another topology: its "
                    f"tangent has shape {t.data.shape}, it has {source.data.shape}. Do that before."
                )
        with no_grad():
            if push is not None:
                self.of[out] = push(out, *found)
            elif symmetric:
                (self.of[out],) = rule(present[0], out, (True,))
            else:
                name = rule.__qualname__.rpartition(".<locals>")[0]
                raise NotImplementedError(
                    f"jvp: {rule.__module__}.{name} has no push rule. Give its `record` one, or "
                    "differentiate with ns.grad."
                )
        out.requires_grad = True  # so that whoever converts it knows that its derivative matters


def _check(primals: list[Tensor], directions: list[ArrayLike]) -> None:
    if not primals or len(primals) != len(directions):
        raise ValueError(
            "jvp expects primals, at least one, and as many tangents; "
            f"got {len(primals)} and {len(directions)}."
        )
    seen: set[int] = set()
    for i, primal in enumerate(primals):
        if not isinstance(primal, Tensor):
            raise TypeError(
                f"jvp expects tensors or parameters as primals; primal {i} is a {type(primal).__name__}. "
                "Make it with ns.tensor(a, requires_grad=True) and let f use that."
            )
        if not primal.requires_grad:
            raise ValueError(
                f"jvp: primal {i} (shape {primal.shape}) requires no gradient. Make it with "
                "ns.tensor(a, requires_grad=True)."
            )
        if id(primal) in seen:
            raise ValueError(f"jvp: primal {i} came before. Add up its tangents.")
        seen.add(id(primal))


def _direction(i: int, primal: Tensor, direction: ArrayLike) -> Tensor:
    """Return the tangent of primal i as a tensor of its dtype and layout."""
    array = np.asarray(direction)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"jvp expects real numbers; tangent {i} has dtype {array.dtype}.")
    if array.shape != primal.shape:
        raise ValueError(
            f"jvp expects tangent {i} in the shape of its primal, {primal.shape}; got {array.shape}."
        )
    plain = Tensor(np.asarray(array, primal.dtype, order="C"))
    return plain if primal.batch is None else tile(plain, primal.data.shape[2])
