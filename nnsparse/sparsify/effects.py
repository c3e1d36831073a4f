"""What a method does at every step, beside moving weights: SR-STE's and Top-KAST's masks and penalties.

An effect is a frozen dataclass with two methods. Called, after `backward` and before `optimizer.step`, it adds to the
gradients; `refresh`, after `optimizer.step`, looks at the new weights. Masks live in `weight.buffers["forward"]`, which
`SparseLinear` multiplies with; `harden` turns them into topologies. `group_lasso` holds another effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from nnsparse import tiles
from nnsparse.allocation import apportion, exact_count
from nnsparse.kernels.masks import best_n_of, penalize
from nnsparse.parameter import FORWARD
from nnsparse.sparsify.arguments import fraction, non_negative
from nnsparse.sparsify.context import Context, Target
from nnsparse.sparsify.holding import alive_count, alive_largest
from nnsparse.sparsify.units import Mask, NofM, subset

Array = NDArray[Any]


class Effect(Protocol):
    """What happens at every step of training; frozen, all state is in the parameters' buffers.

    `sets_forward` says whether `refresh` makes the mask that the forward pass sees, of every target.
    """

    sets_forward: ClassVar[bool]

    def __call__(self, context: Context) -> None:
        """Add to `weight.grad` of each target that has one; after `backward`, before `optimizer.step`."""

    def refresh(self, context: Context, lr: float) -> None:
        """Look at the new weights, after every `optimizer.step` with its learning rate; before the first with 0."""


@dataclass(frozen=True)
class SrSte:
    """Sparse-refined straight-through estimator: dense weights, of which the forward pass sees n of every m.

    The mask follows the weights at every step, gradients reach all weights, and those that the forward pass does not
    see decay: g ← g + λ(1 − mask) ⊙ w.

    Parameters
    ----------
    unit : NofM
    decay : float
        λ, at least 0.

    Raises
    ------
    ValueError
        If decay is negative or not finite.

    Notes
    -----
    Source: Zhou et al., Learning N:M fine-grained structured sparse neural networks from scratch, 2021, eq. 7, with
    their λ = 2·10⁻⁴. The layers are to hold all weights (`prunable`); `harden` makes them N:M for good.
    """

    sets_forward: ClassVar[bool] = True
    unit: NofM = field(default_factory=lambda: NofM(2, 4))
    decay: float = 2e-4

    def __post_init__(self) -> None:
        non_negative("decay", self.decay)

    def __call__(self, context: Context) -> None:
        """Add λ(1 − mask) ⊙ w to the gradients."""
        for target in context.targets:
            _add_penalty(target, 0.0, self.decay)

    def refresh(self, context: Context, lr: float = 0.0) -> None:
        """Set each forward mask to the n largest |w| of every m inputs."""
        for target in context.targets:
            if target.topology.is_full:
                target.weight.buffers[FORWARD] = _n_of_m(self.unit, target)
            else:
                scores = np.abs(target.canonical())
                set_forward(target, self.unit.best(target.topology, scores))


@dataclass(frozen=True)
class TopKast:
    """Top-KAST's two sets: the forward pass sees A, the largest weights; gradients reach all weights, B ⊃ A.

    The penalty λ(Σ_A w² + Σ_{B∖A} w² / D), with D = |A| / positions of the layer, pulls down what A does not use.

    Parameters
    ----------
    share : float in [0, 1]
        |A| / |B|, nearly the same in each layer, at least one weight: (1 − s_forward) / (1 − s_backward).
    decay : float
        λ, at least 0.
    every : int
        Steps from one choice of A to the next, at least 1.
    sparsity : float in [0, 1], optional
        Of A over the positions of all targets together, which makes |A| exact where |B| was rounded. Default: by
        `share` of what is there.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    Source: Jayakumar et al., Top-KAST: top-K always sparse training, 2020, sec. 2.3, as sums of squares. Differences:
    each layer's part of A is in proportion to its B, so that any allocation of B serves; B changes only
    where a recipe moves it.
    """

    sets_forward: ClassVar[bool] = True
    share: float
    decay: float = 1e-4
    every: int = 100
    sparsity: float | None = None

    def __post_init__(self) -> None:
        non_negative("decay", self.decay)
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"TopKast expects share in [0, 1], |A| / |B|; got {self.share!r}.")
        if self.every < 1:
            raise ValueError(f"TopKast expects every >= 1 steps; got {self.every!r}.")
        if self.sparsity is not None:
            fraction("sparsity", self.sparsity)

    def __call__(self, context: Context) -> None:
        """Add 2λw on A and 2λw / D on B∖A to the gradients."""
        for target, count in zip(context.targets, self._counts(context), strict=True):
            d = count / max(target.size, 1)
            if d:
                _add_penalty(target, 2 * self.decay, 2 * self.decay / d)

    def refresh(self, context: Context, lr: float = 0.0) -> None:
        """Choose A anew if `context.step` is a multiple of `every`, or a layer has no mask yet."""
        for target, count in zip(context.targets, self._counts(context), strict=True):
            if context.step % self.every == 0 or FORWARD not in target.weight.buffers:
                set_forward(target, alive_largest(target, np.abs(target.canonical()), count))

    def _counts(self, context: Context) -> list[int]:
        """Return |A| of each layer: the exact total in proportion to |B|, and one at least where there is a weight."""
        present = [alive_count(target) for target in context.targets]
        total = exact_count(sum(present), density=self.share)
        if self.sparsity is not None:
            size = sum(target.size for target in context.targets)
            total = min(sum(present), exact_count(size, sparsity=self.sparsity))
        counts = apportion(present, present, total)
        for index, n in enumerate(present):
            if n and not counts[index]:
                richest = max(range(len(counts)), key=lambda i: counts[i])
                counts[richest] -= counts[richest] > 1
                counts[index] = 1
        return counts


def set_forward(target: Target, mask: Mask) -> None:
    """Let the forward pass see only the weights where `mask`, (nnz,) in canonical order, is true."""
    weight = target.weight
    weight.buffers[FORWARD] = weight.planned(mask.astype(weight.dtype))


def harden(target: Target) -> None:
    """Drop for good the weights that the forward pass does not see; the layer's function stays as it is."""
    weight = target.weight
    mask = weight.buffers.pop(FORWARD, None)
    if mask is not None:
        weight.move_to(subset(weight.topology, weight.canonical(mask) != 0))


def _n_of_m(unit: NofM, target: Target) -> Array:
    """Return the mask of the n largest |w| of every m inputs of a layer that stores all weights, in their own order."""
    w = np.ascontiguousarray(target.weight.data)
    mask = tiles.empty(w.shape, w.dtype)
    best_n_of(unit.m)(w, target.topology.shape[1], unit.n, mask)
    return mask


def _add_penalty(target: Target, seen: float, unseen: float) -> None:
    """Add seen · w where the forward pass sees a weight, unseen · w elsewhere, to the gradient if there is one."""
    weight = target.weight
    grad, mask = weight.grad, weight.buffers.get(FORWARD)
    if grad is None or mask is None:
        return
    if not grad.shape == mask.shape == weight.data.shape:
        raise ValueError(
            f"layer {target.name!r} expects a gradient and a mask of shape {weight.data.shape}; got {grad.shape} and "
            f"{mask.shape}."
        )
    weight.grad = tiles.empty(grad.shape, weight.dtype)  # `grad` may be somebody else's array too
    penalize(grad, weight.data, mask, seen, unseen, weight.grad)
