"""Where a layer's weights are stored, apart from which of them are alive: held at zero, compressed, or full.

A layer may store more than it uses: `buffers["held"]` (plan order, 1 = alive, 0 = held at zero) says what is alive, and
`hold` keeps the rest at zero. It computes what the compressed layer computes, and saves the building of a plan. Here
is also the move between a full topology, on the dense kernels, and a compressed one. What is alive, `update` decides.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse import tiles
from nnsparse.kernels import masks
from nnsparse.kernels.select import largest
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import PARALLEL_FROM
from nnsparse.parameter import FORWARD, HELD, SparseParameter, storage
from nnsparse.sparsify.context import Target
from nnsparse.sparsify.units import Mask, subset
from nnsparse.topology import Topology

Array = NDArray[Any]


@dataclass(frozen=True)
class Crossover:
    """The sparsity from which on a compressed layer is faster than a full one with zeros.

    Attributes
    ----------
    sparsity : float
        Where a whole training step costs the same: 0.12 for 1024 and 2048 neurons on two cores (forward, both
        gradients; benchmarks/results/crossover.json). `python -m benchmarks crossover` measures it.
    margin : float
        A layer is compressed above sparsity + margin and made full again below sparsity − margin only, so that one near
        the crossover does not go to and fro.
    """

    sparsity: float = 0.12
    margin: float = 0.03

    def __post_init__(self) -> None:
        if not (0.0 <= self.sparsity <= 1.0 and 0.0 <= self.margin < 1.0):
            raise ValueError(
                f"Crossover expects sparsity in [0, 1] and margin in [0, 1); got {self.sparsity!r}, {self.margin!r}."
            )

    def wants_full(self, sparsity: float, is_full: bool) -> bool:
        """Return whether a layer of this sparsity, full or not at present, should be full."""
        return sparsity < self.sparsity + (self.margin if is_full else -self.margin)


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to one layer in an update.

    Attributes
    ----------
    kept : (nnz,) bool
        Of its stored weights, in canonical order. They keep their values and buffers, bit for bit.
    grown : Topology or None
        Positions that are not kept and get a weight. One that is stored and gets the value that it has keeps its
        buffers too; all others begin with zeros there.
    values : number or (grown.nnz,) array
        Of the grown weights, in canonical order.
    rest : Topology or None
        Where the kept weights are, if somebody knows it already.
    order : (nnz,) integers or None
        `parameter.storage` of the stored weights: held here, it is not worked out again while the change is applied.
    """

    kept: Mask
    grown: Topology | None = None
    values: ArrayLike = 0.0
    rest: Topology | None = None
    order: Array | None = None

    @property
    def n_grown(self) -> int:
        """How many weights grow."""
        return 0 if self.grown is None else self.grown.nnz

    @property
    def nnz(self) -> int:
        """How many weights are alive afterwards."""
        return int(np.count_nonzero(self.kept)) + self.n_grown


def alive_mask(target: Target) -> Mask | None:
    """Return which stored weights are alive, (nnz,) in canonical order; None if all are."""
    held = target.weight.buffers.get(HELD)
    return None if held is None else target.canonical(held) != 0


def alive_count(target: Target) -> int:
    """Return the number of weights that are alive."""
    held = target.weight.buffers.get(HELD)
    return target.nnz if held is None else int(np.count_nonzero(held))


def alive_largest(target: Target, scores: Array, k: int) -> Mask:
    """Return the mask, (nnz,) in canonical order, of the k largest scores (nnz,) of weights that are alive.

    What is held at zero does not compete: a weight whose score is NaN is still better than one that is not there.
    """
    alive = alive_mask(target)
    if alive is None:
        return largest(scores, k)
    chosen: Mask = alive.copy()
    chosen[alive] = largest(scores[alive], k)
    return chosen


def alive_topology(target: Target) -> Topology:
    """Return where the weights that are alive are."""
    mask = alive_mask(target)
    return target.topology if mask is None else subset(target.topology, mask)


def hold(weight: SparseParameter, slots: Iterable[str] = ()) -> None:
    """Set what is held at zero to zero again, in the values and in the buffers named (the optimizer's slots).

    It becomes zero whatever was there: a gradient that is no number leaves nothing behind.

    Cost: one pass over what is stored; nothing for a weight without held values.

    Raises
    ------
    ValueError
        If somebody gave the weight an array of another shape.
    """
    held = weight.buffers.get(HELD)
    if held is None:
        return
    arrays = [weight.data, *(weight.buffers[slot] for slot in slots if slot in weight.buffers)]
    if any(array.shape != held.shape for array in arrays):
        raise ValueError(
            f"hold expects arrays of shape {held.shape}, as the mask of held weights; got "
            f"{[array.shape for array in arrays]}. To change values, write into weight.data[...] in place."
        )
    clear = masks.clear if held.size < PARALLEL_FROM else masks.clear_parallel
    for array in arrays:
        clear(array, held)


def set_alive(target: Target, mask: Mask, slots: Iterable[str] = ()) -> None:
    """Hold the stored weights at zero where `mask`, (nnz,) in canonical order, is false; the topology stays."""
    weight = target.weight
    if mask.all():
        weight.buffers.pop(HELD, None)
        return
    weight.buffers[HELD] = weight.planned(mask.astype(weight.dtype))
    hold(weight, slots)


def compress(target: Target) -> None:
    """Store only what is alive, with values, buffers and gradients."""
    held = target.weight.buffers.get(HELD)
    if held is not None:
        alive = alive_topology(target)
        target.weight.buffers.pop(HELD)
        target.weight.move_to(alive, keep_grad=True)


def expand(target: Target) -> None:
    """Store every position, those without a weight held at zero: the layer runs on the dense kernels.

    Gradients stay; those of the new positions are zero.
    """
    weight, stored = target.weight, target.topology
    if stored.is_full:
        return
    if HELD not in weight.buffers:
        weight.buffers[HELD] = np.ones(weight.data.shape, weight.dtype)
    weight.move_to(Topology.full(stored.shape), keep_grad=True)  # newcomers are zero everywhere


def masks_of(model: Module) -> dict[str, Array]:
    """Return the forward and held masks of a model, "kind.parameter" -> (nnz,) in canonical order, 0 where it hides."""
    return {
        f"{kind}.{name}": p.canonical(p.buffers[kind])
        for name, p in model.named_parameters()
        for kind in (FORWARD, HELD)
        if kind in p.buffers
    }


def give_masks(model: Module, saved: Mapping[str, Array], lasting: Container[str]) -> None:
    """Give a model with the weights of that moment back the masks that `masks_of` returned.

    What a mask hides whose name is not in `lasting` is dropped for good.
    """
    for name, p in model.named_parameters():
        names = {kind: f"{kind}.{name}" for kind in (FORWARD, HELD) if f"{kind}.{name}" in saved}
        for kind, key in names.items():
            p.buffers[kind] = tiles.aligned(p.planned(saved[key]))
        for kind, key in names.items():
            if key not in lasting and isinstance(p, SparseParameter):
                p.move_to(subset(p.topology, p.canonical(p.buffers.pop(kind)) != 0))


def apply(
    target: Target,
    change: Change,
    slots: Sequence[str],
    refresh: bool,
    crossover: Crossover | None = None,
) -> bool:
    """Apply an update to one layer; return whether its stored pattern moved.

    Parameters
    ----------
    target : Target
    change : Change
    slots : sequence of str
        Names of the optimizer's buffers, to be held at zero with the weights.
    refresh : bool
        Whether patterns are compressed now; otherwise what is dropped is held at zero, unless something grows where
        nothing is stored.
    crossover : Crossover, optional
        Where given, layers below it stay full, and compressed ones become full.
    """
    before = target.topology
    dense = crossover is not None and crossover.wants_full(
        1.0 - change.nnz / max(1, target.size), before.is_full
    )
    if before.is_full and (dense or not refresh):
        _place_full(target, change, slots)
    elif refresh or change.n_grown:
        _place(target, change)
        if dense:
            expand(target)
    else:
        set_alive(target, change.kept, slots)
    return target.topology is not before


def _place(target: Target, change: Change) -> None:
    """Compress a layer to what is kept and what is grown."""
    weight, stored, grown = target.weight, target.topology, change.grown
    if grown is None or grown.nnz == 0:
        weight.buffers.pop(HELD, None)
        if not change.kept.all():
            weight.move_to(subset(stored, change.kept))
        return
    origin = grown.positions_in(stored)
    returning = origin >= 0
    fill = np.broadcast_to(np.asarray(change.values, weight.dtype), (grown.nnz,))
    changed = np.zeros(grown.nnz, np.bool_)
    if returning.any():
        changed[returning] = weight.canonical()[origin[returning]] != fill[returning]
    weight.buffers.pop(HELD, None)
    rest = subset(stored, change.kept) if change.rest is None else change.rest
    weight.move_to(rest | grown, fill[~returning])
    if changed.any():
        _begin(weight, grown.positions_in(weight.topology)[changed], fill[changed])


def _place_full(target: Target, change: Change, slots: Sequence[str]) -> None:
    """Do the same within a full topology: all else is held at zero."""
    weight, alive = target.weight, change.kept
    if change.grown is not None and change.n_grown:
        origin = change.grown.positions_in(target.topology)
        fill = np.broadcast_to(np.asarray(change.values, weight.dtype), origin.shape)
        changed = weight.canonical()[origin] != fill
        _begin(weight, origin[changed], fill[changed])
        alive = alive.copy()
        alive[origin] = True
    set_alive(target, alive, slots)


def _begin(weight: SparseParameter, positions: Array, values: Array) -> None:
    """Give weights, by their canonical positions, new values, and zeros in all buffers."""
    where = positions if weight.topology.is_full else storage(weight.topology)[positions]
    weight.data[where] = values
    for name, buffer in weight.buffers.items():
        if name != HELD:
            buffer[where] = 0


def settle(target: Target, crossover: Crossover) -> bool:
    """Make a layer full or compressed, as its sparsity demands; return whether it moved."""
    before = target.topology
    sparsity = 1.0 - alive_count(target) / max(1, target.size)
    if crossover.wants_full(sparsity, before.is_full):
        expand(target)
    else:
        compress(target)
    return target.topology is not before
