"""What a Sparsifier did: a record of each update, and a table of the layers at present."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnsparse.sparsify.context import Target
from nnsparse.sparsify.holding import alive_topology
from nnsparse.sparsify.recipe import Recipe
from nnsparse.topology import Topology


class Stopwatch:
    """Returns the seconds since it was last called, or made."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> float:
        """Return the seconds since the last call."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def bare(topology: Topology) -> Topology:
    """Return a topology without the plan and whatever else is kept with it: to be remembered for long."""
    return Topology(topology.shape, *topology.csr())


class Explored:
    """All positions of a layer that were ever alive.

    What was added lately is kept apart and merged when it has grown, so that adding k positions costs O(k) amortised
    over many additions, not O(all).
    """

    def __init__(self, first: Topology) -> None:
        self._merged, self._recent = first, Topology.empty(first.shape)

    def add(self, grown: Topology | None) -> None:
        """Add positions, if there are any."""
        if grown is None:
            return
        self._recent = self._recent | grown
        if self._recent.nnz > self._merged.nnz:
            self._merge()

    def all(self) -> Topology:
        """Return all positions."""
        if self._recent.nnz:
            self._merge()
        return self._merged

    def _merge(self) -> None:
        self._merged = self._merged | self._recent
        self._recent = Topology.empty(self._merged.shape)


@dataclass(frozen=True)
class Record:
    """One update, the way to the first sparsity, or one refresh of the patterns.

    Attributes
    ----------
    step : int
        After which training step; 0 is before the first.
    counts : tuple of int
        Weights alive in each layer afterwards.
    grown : int
        How many of them are new.
    pruning, refreshing : float
        Seconds spent on choosing weights, and on moving them to new patterns and planning those.
    """

    step: int
    counts: tuple[int, ...]
    grown: int
    pruning: float
    refreshing: float


@dataclass(frozen=True)
class LayerReport:
    """One layer at present.

    Attributes
    ----------
    name : str
    shape : (n_out, n_in)
    nnz : int
        Weights alive.
    stored : int
        Weights stored, those held at zero included.
    dead : int
        Neurons without an incoming weight.
    overlap : float
        Fraction of the first mask that is still alive.
    explored : float
        Positions that were ever alive, over all positions: the in-time over-parameterisation rate R (Liu et al. 2021).
    """

    name: str
    shape: tuple[int, int]
    nnz: int
    stored: int
    dead: int
    overlap: float
    explored: float

    @property
    def density(self) -> float:
        """Weights alive over positions."""
        return self.nnz / max(1, self.shape[0] * self.shape[1])


@dataclass(frozen=True)
class Report:
    """All layers that a recipe works on, and what its updates cost.

    Attributes
    ----------
    recipe : str
    step : int
    layers : tuple of LayerReport
    updates : int
        How many there were; neither the way to the first sparsity nor a refresh of the patterns alone is one.
    pruning, refreshing : float
        Seconds spent so far on choosing weights, and on moving them and planning new patterns.
    """

    recipe: str
    step: int
    layers: tuple[LayerReport, ...]
    updates: int
    pruning: float
    refreshing: float

    @property
    def nnz(self) -> int:
        """Weights alive in all layers together."""
        return sum(layer.nnz for layer in self.layers)

    @property
    def size(self) -> int:
        """Positions of all layers together."""
        return sum(layer.shape[0] * layer.shape[1] for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over the positions of all layers together."""
        return 1.0 - self.nnz / max(1, self.size)

    @property
    def explored(self) -> float:
        """Positions that were ever alive, over all positions (ITOP)."""
        parts = (layer.explored * layer.shape[0] * layer.shape[1] for layer in self.layers)
        return sum(parts) / max(1, self.size)

    def __str__(self) -> str:
        width = max(5, *(len(layer.name) for layer in self.layers))
        lines = [
            f"{self.recipe} after step {self.step}: {self.nnz} of {self.size} weights, "
            f"sparsity {self.sparsity:.4f}, explored {self.explored:.4f}; {self.updates} updates, "
            f"{self.pruning:.3f} s choosing, {self.refreshing:.3f} s refreshing patterns",
            f"{'layer':{width}}  {'shape':>13} {'nnz':>10} {'stored':>10} {'density':>8} {'dead':>6} "
            f"{'overlap':>8} {'explored':>8}",
        ]
        for layer in self.layers:
            shape = f"{layer.shape[0]} x {layer.shape[1]}"
            lines.append(
                f"{layer.name:{width}}  {shape:>13} {layer.nnz:>10} {layer.stored:>10} {layer.density:>8.4f} "
                f"{layer.dead:>6} {layer.overlap:>8.4f} {layer.explored:>8.4f}"
            )
        return "\n".join(lines)


def layer_report(target: Target, first: Topology, explored: Topology) -> LayerReport:
    """Return the row of one layer; `first` is its first mask, `explored` all that was ever alive."""
    alive = alive_topology(target)
    return LayerReport(
        name=target.name,
        shape=alive.shape,
        nnz=alive.nnz,
        stored=target.nnz,
        dead=int(np.count_nonzero(alive.row_counts() == 0)),
        overlap=(alive & first).nnz / max(1, first.nnz),
        explored=explored.nnz / max(1, target.size),
    )


def make_report(
    recipe: Recipe,
    step: int,
    targets: Sequence[Target],
    first: Sequence[Topology],
    explored: Sequence[Topology],
    history: Sequence[Record],
    due: Sequence[int],
) -> Report:
    """Return the report of a Sparsifier's present state; `due` are the steps of updates."""
    updates = sum(record.step in due for record in history)
    if recipe.start is not None and 0 in due:
        updates -= 1  # the way to the first sparsity is recorded at step 0 too
    layers = tuple(layer_report(t, f, e) for t, f, e in zip(targets, first, explored, strict=True))
    return Report(
        recipe.name,
        step,
        layers,
        updates,
        sum(record.pruning for record in history),
        sum(record.refreshing for record in history),
    )
