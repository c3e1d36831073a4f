"""Constant fan-in: the same number of weights for every neuron, at the start and after each update of SRigL.

`ConstantFanIn`, a unit (see `units`), drops; `FanInGradient` grows. A layer of constant fan-in is an ELL matrix: no row
pointers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.allocation import Shape, check_shape, draw
from nnsparse.kernels.select import largest
from nnsparse.sparsify.context import Context, Target
from nnsparse.sparsify.growth import check_room, old_values, taps_of
from nnsparse.sparsify.holding import alive_topology
from nnsparse.sparsify.streaming import largest_per_row
from nnsparse.sparsify.units import Mask, checked
from nnsparse.topology import Seed, Topology

Array = NDArray[Any]


def fan_in_topology(shape: Shape, fan_in: int, rng: Seed = None) -> Topology:
    """Draw `fan_in` inputs for every neuron, every set equally likely.

    Parameters
    ----------
    shape : (n_out, n_in)
    fan_in : int
        From 0 to n_in.
    rng : numpy.random.Generator, int or None

    Raises
    ------
    TypeError, ValueError
        If the shape is no pair of integers >= 0, or `fan_in` is no integer in its range.

    Examples
    --------
    >>> int(fan_in_topology((100, 784), 39, rng=0).row_counts().max())
    39
    """
    n_out, n_in = check_shape(shape)
    random = np.random.default_rng(rng)
    columns = [draw(n_in, fan_in, random) for _ in range(n_out)]
    return Topology(
        (n_out, n_in),
        np.arange(n_out + 1) * fan_in,
        np.concatenate([np.empty(0, np.int64), *columns]),
    )


@dataclass(frozen=True)
class ConstantFanIn:
    """The same number of weights for every neuron that stays; neurons with too few salient ones go altogether.

    The k best weights of the layer are its salient ones. With f = k // (neurons that have weights), a neuron with fewer
    than max(1, ⌊min_salient · f⌋) of them is removed, and every other keeps its k // (neurons left) best weights, all
    of them where it has no more. That is k weights, or fewer by what the division leaves or short rows lack.

    Parameters
    ----------
    min_salient : float in [0, 1]
        0 or little: a neuron stays while one salient weight is left.
    uneven : bool
        Keep just the salient weights of the neurons that stay, however many each has: for dynamic training, where
        `FanInGradient` then fills every neuron up to the same number, as SRigL does. If the neurons that stay had no
        room for all the layer's weights, the best of the others stay too, those with most salient weights first; one
        without any keeps its largest weight.

    Raises
    ------
    ValueError
        If min_salient is not in [0, 1].

    Notes
    -----
    Cost: O(nnz log nnz).
    Source: Lasby et al., Dynamic sparse training with structured sparsity (SRigL), 2023, sec. 3. Differences: salient
    are only stored weights, not also the missing ones with the largest gradients; f is made from k, the number after
    the drop, so that pruning from a dense layer works; a layer always has room for the weights that grow.
    """

    min_salient: float = 0.3
    uneven: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_salient <= 1.0:
            raise ValueError(
                f"ConstantFanIn expects min_salient in [0, 1]; got {self.min_salient!r}."
            )

    def keep(self, target: Target, scores: Array, k: int) -> Mask:
        """Return the mask (nnz,) of what stays; see `Unit`."""
        scores, k = checked("ConstantFanIn", target, scores, k)
        salient = largest(scores, k)
        if k == 0:
            return salient
        topology = target.topology
        rows = topology.rows()
        fan_in = k // int(np.count_nonzero(topology.row_counts()))
        enough = max(1, int(self.min_salient * fan_in))
        counts = np.bincount(rows[salient], minlength=topology.shape[0])
        stays = counts >= enough
        # The place of each weight in its row, 0 for the best; NaN is sorted last.
        place = np.empty(topology.nnz, np.int64)
        place[np.lexsort((-scores, rows))] = np.arange(topology.nnz) - topology.indptr[:-1][rows]
        if self.uneven:
            best = np.flatnonzero(place == 0)
            best = best[np.lexsort((-scores[best], -counts[rows[best]]))]  # one of each neuron
            missing = -(-topology.nnz // topology.shape[1]) - int(np.count_nonzero(stays))
            stays[rows[best[~stays[rows[best]]]][: max(0, missing)]] = True
            return np.asarray((salient | (place == 0)) & stays[rows])
        # Each neuron that stays has a salient weight, so there are k of them at most.
        return np.asarray((place < k // int(np.count_nonzero(stays))) & stays[rows])


@dataclass(frozen=True)
class FanInGradient:
    """Growth that evens out: every neuron gets the missing weights with the largest |∂L/∂W| of its own.

    The neurons that have weights are filled up from below: each is brought to the same fan-in, as near as k allows, so
    that in the end fan-ins differ by one at most, unless a neuron had more before. Neurons without weights stay
    without; only if there is no other do all count.

    Parameters
    ----------
    returning : bool
        Whether a weight that was just dropped may grow again; it keeps its value then. All others begin at 0.

    Notes
    -----
    Cost: that of the dense product d · xᵀ at most, in blocks that are not kept (`streaming.largest_per_row`): memory is
    O(k + n_out + n_in). Needs the context's taps (`Recipe.needs_taps`). Equal gradients go by position, NaN counts as
    the smallest.
    Source: Lasby et al., Dynamic sparse training with structured sparsity (SRigL), 2023, sec. 3, step 7.
    Difference: exactly k weights grow, so the first neurons get one more where k does not divide.
    """

    returning: bool = True

    def __call__(
        self, context: Context, index: int, kept: Topology, k: int
    ) -> tuple[Topology, ArrayLike]:
        """Return k positions that are not in `kept`, and their values in canonical order (see `Growth`).

        Raises
        ------
        ValueError
            If there are no taps, or the neurons have no room for k weights more.
        """
        target = context.targets[index]
        check_room(target, kept, k)
        if k == 0:
            return Topology.empty(kept.shape), 0.0
        taps = taps_of(context, index)
        taken = kept if self.returning else kept | alive_topology(target)
        added = fill_up(target.name, kept.row_counts(), taken.row_counts(), kept.shape[1], k)
        grown = largest_per_row(taps, taken, added)
        return grown, old_values(target, grown)


def fill_up(name: str, counts: Array, taken: Array, n_in: int, k: int) -> Array:
    """Return how many weights each row gets, (n_out,): k in all, the emptiest rows first.

    `counts` are the weights that each row has, `taken` the positions that are not free.
    """
    free = n_in - taken
    if counts.any():
        free = np.where(counts > 0, free, 0)
    if k > free.sum():
        raise ValueError(
            f"FanInGradient: the neurons of layer {name!r} that have weights have room for {free.sum()} more; got "
            f"k={k}. Ask for a higher sparsity, or a lower min_salient."
        )

    def filled(level: int) -> Array:
        return np.asarray(np.clip(level - counts, 0, free))

    low, high = 0, n_in + int(counts.max(initial=0))  # the highest level that takes k or fewer
    while low < high:
        middle = (low + high + 1) // 2
        if filled(middle).sum() <= k:
            low = middle
        else:
            high = middle - 1
    added = filled(low)
    one_more = np.flatnonzero(filled(low + 1) > added)[: k - added.sum()]
    added[one_more] += 1
    return added
