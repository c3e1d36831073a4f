"""Allocations: how many of all weights each layer gets, as exact integer counts.

`Allocation` says what each layer holds after an update; `Share` only in what proportion grown weights are shared out.
Both see present weights alone. The arithmetic is that of `nnsparse.allocation`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnsparse.allocation import apportion
from nnsparse.kernels.select import largest
from nnsparse.parameter import HELD
from nnsparse.sparsify.context import Context

Array = NDArray[Any]
MOMENTA = "momentum", "exp_avg"  # the buffers of SGD and Adam
# (context, total, the scores of each target's weights) -> weights of each target, `total` of them together
Allocation: TypeAlias = Callable[[Context, int, list[Array]], list[int]]
# context -> a number >= 0 for each target: in what proportion they get what grows
Share: TypeAlias = Callable[[Context], list[float]]


def uniform(context: Context, total: int, scores: list[Array]) -> list[int]:
    """Return counts that give all layers the same density.

    Parameters
    ----------
    context : Context
    total : int
        Weights of all layers together.
    scores : list of (nnz,) arrays
        Of each target's present weights. A layer cannot get more than it has unless `total` is more than all have,
        that is, when weights grow.

    Returns
    -------
    list of int
        One count per target; they sum to `total`.
    """
    return apportion([t.size for t in context.targets], _caps(context, total, scores), total)


def erdos_renyi(context: Context, total: int, scores: list[Array]) -> list[int]:
    """Return counts in proportion to n_in + n_out: wide layers are sparser. Parameters as for `uniform`.

    Source: Mocanu et al. 2018, Evci et al. 2020 (ERK, the same for linear layers); see `allocation.erdos_renyi`.
    """
    shares = [sum(t.topology.shape) for t in context.targets]
    return apportion(shares, _caps(context, total, scores), total)


def fixed(context: Context, total: int, scores: list[Array]) -> list[int]:
    """Return counts in the layers' present proportion: an unchanged total leaves every layer its count."""
    counts = [s.size for s in scores]
    if sum(counts) == 0:
        return uniform(context, total, scores)
    return apportion(counts, _caps(context, total, scores), total)


def global_rank(context: Context, total: int, scores: list[Array]) -> list[int]:
    """Return how many of the `total` largest scores of all layers fall into each; the first among equals.

    Raises
    ------
    ValueError
        If there are fewer weights than `total`: what does not exist has no rank.

    Notes
    -----
    Cost: O(n log n) for n weights. Source: Lee et al., SNIP, 2019, sec. 4.1, and Han et al. 2015 with one threshold for
    all layers. A score of NaN ranks last.
    """
    pooled = np.concatenate([np.asarray(s, np.float64) for s in scores])
    if total > pooled.size:
        raise ValueError(
            f"global_rank cannot pick {total} weights from {pooled.size}. For growing methods take erdos_renyi, "
            "uniform or fixed."
        )
    kept = largest(pooled, total)
    bounds = np.cumsum([0, *(s.size for s in scores)])
    return [int(np.count_nonzero(kept[a:b])) for a, b in pairwise(bounds)]


def momentum_share(context: Context) -> list[float]:
    """Return the mean |momentum| of each layer's weights: where the loss still falls fastest.

    The momentum is the optimizer's: `buffers["momentum"]` of SGD, or Adam's `buffers["exp_avg"]`.

    Raises
    ------
    ValueError
        If the optimizer keeps none, or a layer's is not finite.

    Notes
    -----
    Source: Dettmers & Zettlemoyer, Sparse networks from scratch, 2019, sec. 3.2.
    """
    shares: list[float] = []
    for target in context.targets:
        buffers = target.weight.buffers
        momentum = next((buffers[name] for name in MOMENTA if name in buffers), None)
        if momentum is None:
            raise ValueError(
                f"momentum_share: layer {target.name!r} has no momentum. Use SGD(..., momentum=0.9) or Adam, and make "
                "a step before the first update."
            )
        held = buffers.get(HELD)  # what is held at zero has no momentum either
        count = momentum.size if held is None else int(np.count_nonzero(held))
        share = float(np.abs(momentum).sum(dtype=np.float64)) / max(1, count)
        if not np.isfinite(share):
            raise ValueError(
                f"momentum_share: the momentum of layer {target.name!r} is not finite. Is the loss? Look for inputs "
                "that are NaN, lower the learning rate, or clip gradients."
            )
        shares.append(share)
    return shares


def _caps(context: Context, total: int, scores: list[Array]) -> list[int]:
    """Return the most that each layer can get: its present weights, or all positions if weights have to grow."""
    present = [s.size for s in scores]
    return present if total <= sum(present) else [t.size for t in context.targets]
