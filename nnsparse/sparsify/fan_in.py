"""Constant fan-in: the same number of weights for every neuron, at the start and after each update of SRigL.

`units.ConstantFanIn` drops, `FanInGradient` grows. A layer of constant fan-in is an ELL matrix: no row pointers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.allocation import Shape, check_shape, draw
from nnsparse.ops.structures import Dense
from nnsparse.sparsify.context import Context
from nnsparse.topology import Seed, Topology

Array = NDArray[Any]

BLOCK = 2**21  # bytes of the weight gradient at a time


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
    Cost: the product d · xᵀ of a dense layer, some rows at a time, and a sort of each row: memory O(k) and 2 MB. Needs
    the context's taps (`Recipe.needs_taps`). Equal gradients go by position, NaN counts as the smallest.
    Source: Lasby et al., Dynamic sparse training with structured sparsity (SRigL), 2023, sec. 3, step 7.
    Difference: exactly k weights grow, so the first neurons get one more where k does not divide.
    """

    returning: bool = True

    def __call__(
        self, context: Context, index: int, kept: Topology, k: int
    ) -> tuple[Topology, Array]:
        """Return k positions that are not in `kept`, and their values (k,) in canonical order.

        Raises
        ------
        ValueError
            If there are no taps, or the neurons have no room for k weights more.
        """
        target = context.targets[index]
        taps = context.taps[index] if index < len(context.taps) else []
        if not taps:
            raise ValueError(
                f"FanInGradient needs the gradients of layer {target.name!r}: set layer.taps = [] before the forward "
                "pass and call backward, or let a recipe with needs_taps=True do so."
            )
        taken = kept if self.returning else kept | target.topology
        added = fill_up(target.name, kept.row_counts(), taken.row_counts(), kept.shape[1], k)
        grown = _largest_per_row(taps, taken, added)
        values = np.zeros(k, target.weight.dtype)
        origin = grown.positions_in(target.topology)
        values[origin >= 0] = target.canonical()[origin[origin >= 0]]
        return grown, values


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


def _largest_per_row(taps: list[tuple[Array, Array]], taken: Topology, added: Array) -> Topology:
    """Return the `added` (n_out,) largest |d · xᵀ| of each row among the positions that are not `taken`."""
    n_out, n_in = taken.shape
    step = max(1, BLOCK // max(1, n_in * taps[0][0].itemsize))
    indptr, columns = taken.csr()
    found = []
    for first in range(0, n_out, step):
        last = min(n_out, first + step)
        if not added[first:last].any():
            continue
        sizes = _gradient(taps, first, last)
        np.abs(sizes, out=sizes)
        sizes[np.isnan(sizes)] = -0.5
        here = slice(indptr[first], indptr[last])
        sizes[
            np.repeat(np.arange(last - first), np.diff(indptr[first : last + 1])), columns[here]
        ] = -1
        chosen = _best(sizes, added[first:last])
        found.append(np.flatnonzero(chosen) + first * n_in)
    keys = np.concatenate(found) if found else np.empty(0, np.int64)
    return Topology.from_coo(taken.shape, keys // n_in, keys % n_in)


def _gradient(taps: list[tuple[Array, Array]], first: int, last: int) -> Array:
    """Return rows first .. last − 1 of the weight gradient, (last − first, n_in)."""
    total: Array | None = None
    for d, x in taps:
        rows = np.ascontiguousarray(d[:, first:last])
        part = Dense(last - first, x.shape[1]).gradient(rows, x)
        total = part if total is None else np.add(total, part)
    assert total is not None
    return total


def _best(sizes: Array, added: Array) -> Array:
    """Return the mask of the `added` (n,) largest of each row of sizes (n, n_in), the first among equals."""
    ordered = np.sort(sizes, axis=1)
    place = np.clip(sizes.shape[1] - added, 0, sizes.shape[1] - 1)
    least = ordered[np.arange(added.size), place]  # the last one that gets in
    chosen = np.asarray(sizes >= least[:, None])
    chosen[added == 0] = False
    surplus = np.count_nonzero(chosen, axis=1) - added
    for row in np.flatnonzero(surplus):  # several equal the last one: the later ones stay out
        ties = np.flatnonzero(sizes[row] == least[row])
        chosen[row, ties[ties.size - surplus[row] :]] = False
    return chosen
