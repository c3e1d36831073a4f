"""Growth rules: which missing weights come (back) to life, and with which values.

A rule is `Growth`: (context, index of the target, topology that stays, k) -> (exactly k other positions, their
values in canonical order or one number for all). `Random` is SET's, `Gradient` is RigL's, streamed: the gradient of
the missing weights is never stored (`streaming`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.sparsify.context import Context, Target
from nnsparse.sparsify.stream import Tap
from nnsparse.sparsify.streaming import largest_gradients
from nnsparse.topology import Topology

Array = NDArray[Any]
# (context, target, kept positions, k) -> k positions that are not kept, and their values (or one for all)
Growth: TypeAlias = Callable[[Context, int, Topology, int], tuple[Topology, ArrayLike]]


def check_room(target: Target, kept: Topology, k: int) -> None:
    """Refuse a topology of another layer, and more weights than there are free positions.

    Raises
    ------
    ValueError
        Naming the layer.
    """
    n_out, n_in = kept.shape
    if kept.shape != target.topology.shape:
        raise ValueError(
            f"layer {target.name!r} expects a topology of shape {target.topology.shape} to stay; got {kept.shape}"
        )
    if not 0 <= k <= n_out * n_in - kept.nnz:
        raise ValueError(
            f"layer {target.name!r} has {n_out * n_in - kept.nnz} free positions; cannot grow {k}. "
            "Drop more, or ask for a higher sparsity."
        )


def taps_of(context: Context, index: int) -> Sequence[Tap]:
    """Return what a target's gradient was made of in this step.

    Raises
    ------
    ValueError
        If nobody took a note of it, or it is that of another layer.
    """
    target = context.targets[index]
    taps = context.taps[index] if index < len(context.taps) else []
    if not taps:
        raise ValueError(
            f"growing by gradient needs that of layer {target.name!r}: set layer.taps = [] before the forward "
            "pass, and give Context(taps=[layer.taps, ...]) after the backward pass. Sparsifier does so."
        )
    for d, x in taps:
        if (d.shape[1], x.shape[1]) != target.topology.shape or d.shape[::2] != x.shape[::2]:
            raise ValueError(
                f"layer {target.name!r} expects taps (d, x) of {target.topology.shape} features and equal batches; "
                f"got arrays {d.shape} and {x.shape}. Are the taps in the order of the targets?"
            )
    return taps


def old_values(target: Target, grown: Topology) -> ArrayLike:
    """Return the values of grown weights that are still stored, 0 for the others (a single 0 if none is)."""
    origin = grown.positions_in(target.topology)
    back = np.flatnonzero(origin >= 0)
    if not back.size:
        return 0.0
    values = np.zeros(grown.nnz, target.weight.dtype)
    values[back] = target.canonical()[origin[back]]
    return values


@dataclass(frozen=True)
class Random:
    """Grow at random free positions, every set of them equally likely, with values N(mean, std²).

    Parameters
    ----------
    mean, std : float
        Of the new values; 0 and 0 make them zero.

    Notes
    -----
    Source: Mocanu et al. 2018 (SET), with N(0, 0.1²). Differences: exactly k positions are drawn, not about k; one that
    has just been dropped may come back, as any other, and gets a new value. Cost: O(nnz + k log k).
    """

    mean: float = 0.0
    std: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std >= 0):
            raise ValueError(
                f"Random expects a finite mean and a finite std >= 0; got {self.mean} and {self.std}"
            )

    def __call__(
        self, context: Context, index: int, kept: Topology, k: int
    ) -> tuple[Topology, ArrayLike]:
        """Return k positions outside `kept` and their values (see `Growth`)."""
        target = context.targets[index]
        check_room(target, kept, k)
        rng = context.rng(index)
        grown = kept.random_free(k, rng)
        if self.std == 0:
            return grown, self.mean
        return grown, rng.normal(self.mean, self.std, k).astype(target.weight.dtype)


@dataclass(frozen=True)
class Gradient:
    """Grow where the loss falls fastest: the k largest |dL/dW| among the free positions, ties to the lower position.

    Parameters
    ----------
    returning : bool
        A weight that is grown where one has just been dropped gets its old value back; otherwise 0, as all others.

    Raises
    ------
    ValueError
        If the step left no taps for the layer, if `k` exceeds the free positions, or if too few of them have a gradient
        that is a number. A NaN never grows; infinity does.

    Notes
    -----
    Source: Evci et al. 2020 (RigL), Algorithm 1. dL/dW = Σ d·xᵀ over all uses of the layer (several taps) is made in
    blocks and never stored: memory is O(k + n_out + n_in), where RigL's authors needed n_out · n_in. Differences: ties
    are broken by position; the value of what returns is kept by default; several uses of a layer are summed in one
    go, which may round otherwise than their separate gradients do.

    Cost: that of the dense product at most. Blocks whose entries cannot reach the k-th largest so far, by
    |Σ d x| <= ‖d‖ ‖x‖, are left out: about half of them on MNIST (benchmarks/growth.py). The result is the same for any
    number of threads, bit for bit.

    Growth by momentum (Dettmers & Zettlemoyer 2019, SNFS) is this rule on the gradient of one step. Theirs needs the
    momentum of all n_out · n_in weights, updated by the dense product in every step: no sparse training any more. A
    running mean over some steps is Σ β^s (d_s x_sᵀ): give the taps of several steps, each d scaled by its weight.
    """

    returning: bool = True

    def __call__(
        self, context: Context, index: int, kept: Topology, k: int
    ) -> tuple[Topology, ArrayLike]:
        """Return k positions outside `kept` and their values (see `Growth`)."""
        target = context.targets[index]
        check_room(target, kept, k)
        if k == 0:
            return Topology.empty(kept.shape), 0.0
        grown = largest_gradients(taps_of(context, index), kept, k)
        if grown.nnz < k:
            raise ValueError(
                f"layer {target.name!r} was to grow {k} weights, but only {grown.nnz} free positions have a gradient "
                "that is not NaN. Is the loss finite? Lower the learning rate."
            )
        return grown, old_values(target, grown) if self.returning else 0.0
