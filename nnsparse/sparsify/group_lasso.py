"""Group lasso: a penalty that takes whole rows, columns or blocks of weights to zero while a network is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnsparse.sparsify.arguments import non_negative
from nnsparse.sparsify.context import Context, Target
from nnsparse.sparsify.holding import alive_mask
from nnsparse.sparsify.units import Mask
from nnsparse.topology import Topology

Array = NDArray[Any]
# Topology -> number of each position's group, (nnz,) integers >= 0 in canonical order. `Block(4, 4).groups` is one.
Groups: TypeAlias = Callable[[Topology], Array]


def by_row(topology: Topology) -> Array:
    """Group the weights by neuron: one group for each row of W."""
    return topology.rows()


def by_column(topology: Topology) -> Array:
    """Group the weights by input: one group for each column of W."""
    return topology.indices


@dataclass(frozen=True)
class GroupLasso:
    """The penalty λ Σ_g √|g| ‖W_g‖₂, by its proximal step W_g ← max(0, 1 − ηλ√|g| / ‖W_g‖) W_g.

    |g| counts the weights of a group that are stored and not held at zero. An effect (see `effects`): `refresh` takes
    the proximal step after every optimizer step, which sets whole groups to exactly zero; `survivors` says which
    weights are left, for the recipe to drop the others and fine-tune the rest.

    Parameters
    ----------
    strength : float
        λ, at least 0.
    groups : callable
        `by_row`, `by_column`, or the `groups` of a `Block`.

    Raises
    ------
    TypeError, ValueError
        If the strength is no number, negative or not finite.

    Notes
    -----
    Cost: O(nnz) at every step.
    Source: Yuan & Lin, Model selection and estimation in regression with grouped variables, 2006; the proximal step as
    in Parikh & Boyd, Proximal algorithms, 2014, sec. 6.5.1. The Graph Challenge paper that trains with structured
    sparsity (FSSL) gives no formula: this is the usual one, not a reading of theirs.
    """

    sets_forward: ClassVar[bool] = False
    strength: float
    groups: Groups = by_row

    def __post_init__(self) -> None:
        non_negative("strength", self.strength)

    def value(self, context: Context) -> float:
        """Return the penalty of all targets together."""
        total = 0.0
        for target in context.targets:
            _, sizes, norms = self._norms(target)
            total += float(np.sqrt(sizes) @ norms)
        return self.strength * total

    def __call__(self, context: Context) -> None:
        """Leave the gradients alone: all happens in `refresh`."""

    def refresh(self, context: Context, lr: float) -> None:
        """Take the proximal step with learning rate η = lr, in place."""
        if self.strength and lr:
            for target in context.targets:
                index, sizes, norms = self._norms(target)
                limits = lr * self.strength * np.sqrt(sizes)
                # Groups of norm 0 stay 0; those of norm infinity, or NaN, stay what they are.
                with np.errstate(over="ignore"):
                    far = np.full_like(norms, np.inf)
                    ratios = np.divide(limits, norms, out=far, where=norms != 0)
                factors = np.maximum(1.0 - ratios, 0.0)
                target.weight.set_canonical(target.canonical() * factors[index])

    def survivors(self, target: Target) -> Mask:
        """Return the mask (nnz,), in canonical order, of the weights in groups that are not all zero.

        A stored zero is otherwise a legal weight; here it is the proximal step that says so.
        """
        index, _, norms = self._norms(target)
        return np.asarray(norms[index] != 0)

    def _norms(self, target: Target) -> tuple[Array, Array, Array]:
        """Return (group of each weight, weights per group, ‖W_g‖ per group), all in float64 but the first."""
        index = self.groups(target.topology)
        squares = np.square(target.canonical(), dtype=np.float64)
        alive = alive_mask(target)
        sizes = np.bincount(index, weights=alive).astype(np.float64)
        return index, sizes, np.sqrt(np.bincount(index, weights=squares))
