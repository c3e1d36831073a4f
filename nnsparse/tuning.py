"""`autotune`: measure on this machine what `machine.model` guesses, and remember it.

The guess is fitted to one CPU; another one may like longer slabs, or register tiling from another density on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
from tqdm import tqdm

from nnsparse import machine, tiles
from nnsparse.machine import Choices
from nnsparse.ops.structures import Sparse
from nnsparse.plan import build
from nnsparse.topology import Topology

_SLAB_DENSITIES = (0.3, 0.15, 0.1, 0.07, 0.05, 0.035, 0.025, 0.017, 0.012)
_QUAD_DENSITIES = (0.9, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1)
_NEVER = 2.0  # no pattern is so dense
Calls = tuple[Callable[[], object], ...]


def autotune(
    *, n: int = 1024, batch: int = 256, rounds: int = 7, save: bool = True, progress: bool = True
) -> Choices:
    """Measure which slabs and which kernels are fastest on this machine, with the threads in use, and use them.

    Topologies that were planned before keep their order; new ones follow the new choices.

    Parameters
    ----------
    n : int
        Inputs and outputs of the layers that are timed.
    batch : int
        Their samples.
    rounds : int
        How often everything is timed in turn; the fastest time counts.
    save : bool
        Remember the choices for later processes (`machine.path()`); else for this one only.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Choices
        What will be used from now on.

    Raises
    ------
    ValueError, TypeError
        If n or batch is below 64, rounds below 1, or one of them is no integer.

    Notes
    -----
    Takes a few seconds. Results computed with other choices agree to rounding, not bit for bit.
    """
    for name, value in (("n", n), ("batch", batch), ("rounds", rounds)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"autotune expects {name} as an int; got {value!r}")
    if n < 64 or batch < 64 or rounds < 1:
        raise ValueError(
            f"autotune expects n and batch of at least 64 and rounds of at least 1; got n={n}, "
            f"batch={batch}, rounds={rounds}"
        )
    with tqdm(
        total=len(_SLAB_DENSITIES) + len(_QUAD_DENSITIES),
        desc="autotune",
        disable=None if progress else True,
    ) as bar:
        base, dense_enough = _slabs(n, batch, rounds, bar)
        quads, gathered = _quads(n, batch, rounds, base, bar)
    found = Choices(base, dense_enough, quads, gathered)
    if save:
        machine.remember(found)
    machine.use(found)
    return found


def _slabs(n: int, batch: int, rounds: int, bar: Any) -> tuple[int, tuple[float, ...]]:
    """Return the smallest slab, and the densities from which on it and its doubles suffice."""
    guess = machine.model().base
    sizes = [s for s in (guess // 2, guess, 2 * guess, 4 * guess, 8 * guess) if s <= n] or [guess]
    seconds = np.empty((len(_SLAB_DENSITIES), len(sizes)))
    for i, density in enumerate(_SLAB_DENSITIES):
        topology = Topology.random((n, n), density=density, rng=0)
        steps = [
            (run.forward, run.transposed, run.gradient)
            for run in (_Run(topology, batch, slab, False) for slab in sizes)
        ]
        seconds[i] = _best(steps, rounds).sum(axis=1)
        bar.update()
    # The first two densities decide the smallest slab; sparser patterns take longer ones.
    start = int(np.argmin(seconds[:2].sum(axis=0)))
    start = min(start, max(0, len(sizes) - 2))
    cuts: list[float] = []
    for k in range(start, min(start + 3, len(sizes) - 1)):
        cut = _cut(_SLAB_DENSITIES, seconds[:, k], seconds[:, k + 1])
        previous = cuts[-1] if cuts else 1.0
        cuts.append(max(min(cut, previous), 2 / sizes[k]))
    return sizes[start], tuple(cuts)


def _quads(n: int, batch: int, rounds: int, base: int, bar: Any) -> tuple[float, float]:
    """Return the densities from which on register tiling pays, forward and transposed."""
    seconds = np.empty((len(_QUAD_DENSITIES), 2, 2))
    for i, density in enumerate(_QUAD_DENSITIES):
        topology = Topology.random((n, n), density=density, rng=0)
        steps = [
            (run.forward, run.transposed)
            for run in (_Run(topology, batch, base, quads) for quads in (True, False))
        ]
        seconds[i] = _best(steps, rounds)
        bar.update()
    forward, transposed = (
        _cut(_QUAD_DENSITIES, seconds[:, 0, k], seconds[:, 1, k], never=_NEVER) for k in (0, 1)
    )
    return forward, transposed


class _Run:
    """One layer's products with a forced plan."""

    def __init__(self, topology: Topology, batch: int, slab: int, quads: bool) -> None:
        structure = Sparse(topology)
        structure.plan = build(topology, slab, quads)
        rng = np.random.default_rng(0)
        lanes = tiles.pick_lanes(batch)
        shape = (tiles.n_tiles(batch, lanes), topology.shape[0], lanes)
        x = tiles.aligned(rng.standard_normal(shape, np.float32))
        w = tiles.aligned(rng.standard_normal(topology.nnz, np.float32))
        self.forward = partial(structure.forward, w, x, batch, None, False)
        self.transposed = partial(structure.transposed, w, x)
        self.gradient = partial(structure.gradient, x, x)


def _best(steps: Sequence[Calls], rounds: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the fastest time of each call, (n_steps, n_calls) seconds, the steps timed in turn."""
    seconds = np.full((len(steps), len(steps[0])), np.inf)
    for turn in range(rounds + 1):  # the first one compiles
        for i, calls in enumerate(steps):
            for k, call in enumerate(calls):
                start = time.perf_counter()
                call()
                if turn:
                    seconds[i, k] = min(seconds[i, k], time.perf_counter() - start)
    return seconds


def _cut(
    densities: Sequence[float],
    above: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    below: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    never: float = 1.0,
) -> float:
    """Return the density from which on to prefer `above`: where the sum of relative times is least.

    `densities` fall; the cut lies between two of them, or is `never`, or the last one.
    """
    best = np.minimum(above, below)
    up, down = above / best, below / best
    costs = [up[:c].sum() + down[c:].sum() for c in range(len(densities) + 1)]
    c = int(np.argmin(costs))
    if c == 0:
        return never
    if c == len(densities):
        return densities[-1]
    return sqrt(densities[c - 1] * densities[c])
