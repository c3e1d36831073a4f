"""Recipes that drop and grow: dynamic sparse training, each a few lines of parts with a paper's settings.

All bring the model to its first sparsity when the `Sparsifier` is made, at random with Erdős–Rényi shares; a model that
holds the right number of weights already stays as it is, and `sparsity=None` takes any model as it is. `every` counts
steps: pass len(loader) where the paper speaks of epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.nn import init
from nnsparse.schedule import Schedule, chain, constant, cosine, cubic
from nnsparse.sparsify import criteria
from nnsparse.sparsify.arguments import below_one, fraction, held, non_negative, rising
from nnsparse.sparsify.context import Context
from nnsparse.sparsify.effects import SrSte, TopKast
from nnsparse.sparsify.fan_in import ConstantFanIn, FanInGradient, fill_up
from nnsparse.sparsify.growth import Gradient, Growth, Random
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.shares import Allocation, erdos_renyi, global_rank, momentum_share
from nnsparse.sparsify.units import NofM, Unit, Weight
from nnsparse.sparsify.when import At, Every
from nnsparse.topology import Topology

Array = NDArray[Any]


def set_(
    sparsity: float | None = None, *, every: int = 100, drop: float = 0.3, std: float = 0.1
) -> Recipe:
    """Sparse evolutionary training: drop the fraction `drop` of weights nearest to zero of each sign, grow at random.

    Grown weights are drawn from N(0, `std`²).

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity, 2018,
    algorithm 1: after each epoch but the last, ζ = 0.3. Difference: exact counts (`criteria.signed_rank`).
    """
    return Recipe(
        "set",
        criteria.signed_rank,
        _held(sparsity),
        Every(every, inside=True),
        growth=Random(0.0, std),
        drop_fraction=constant(below_one("drop", drop)),
        start=_start(sparsity),
    )


def rigl(
    sparsity: float | None = None,
    *,
    every: int = 100,
    drop: float = 0.3,
    end: float = 0.75,
    returning: bool = True,
) -> Recipe:
    """Drop the smallest weights, grow where the gradient is largest, at zero; each layer keeps its count.

    The fraction f(t) = α/2 (1 + cos(πt/T_end)) of each layer is replaced, α = `drop`, until T_end = `end`. An update
    takes the place of a gradient step (`Sparsifier.replaces_step`). A weight that grows where one was just dropped
    keeps its value and momentum if `returning`; else it begins at zero, as all others.

    Source: Evci et al., Rigging the lottery, 2020, algorithm 1: ΔT = 100, α = 0.3, T_end = ¾ of the training.
    Difference: the dense gradient is never held, it is streamed (`growth.Gradient`).
    """
    return Recipe(
        "rigl",
        criteria.magnitude,
        _held(sparsity),
        Every(every, end=end, inside=True),
        growth=Gradient(returning),
        drop_fraction=annealed(drop, end),
        needs_taps=True,
        replaces_step=True,
        start=_start(sparsity),
    )


def snfs(
    sparsity: float | None = None,
    *,
    every: int = 100,
    drop: float = 0.5,
    final_drop: float = 0.005,
    growth: Growth | None = None,
) -> Recipe:
    """Sparse networks from scratch: layers with much momentum gain weights, others lose them.

    Each layer drops the fraction p of its smallest weights, p from `drop` to `final_drop` along half a cosine; all
    that was dropped grows again, shared out by each layer's mean |momentum| of its weights. The optimizer needs
    momentum.

    Source: Dettmers & Zettlemoyer, Sparse networks from scratch, 2019: once per epoch, p from 0.5. Difference: within a
    layer weights grow where the present gradient is largest. The paper takes the momentum of missing weights, a dense
    array; `growth=` takes a rule that keeps one.
    """
    return Recipe(
        "snfs",
        criteria.magnitude,
        _held(sparsity),
        Every(every, inside=True),
        growth=growth or Gradient(),
        drop_fraction=cosine(below_one("drop", drop), below_one("final_drop", final_drop)),
        regrowth=momentum_share,
        needs_taps=True,
        start=_start(sparsity),
    )


def granet(
    sparsity: float,
    *,
    initial: float = 0.5,
    every: int = 100,
    drop: float = 0.5,
    begin: float = 0.0,
    end: float = 0.75,
    allocation: Allocation = global_rank,
) -> Recipe:
    """Gradual pruning with zero-cost neuroregeneration: prune as `agp`, and drop and grow as `rigl` at each update.

    From sparsity `initial` (0: from all weights) the cubic schedule leads to `sparsity` at `end`; a fraction of each
    layer, from `drop` down to 0 along half a cosine, is replaced by weights of the largest gradients.

    Source: Liu et al., Sparse training via boosting pruning plasticity with neuroregeneration (GraNet), 2021:
    regeneration ratio 0.5, all layers ranked together.
    """
    rising(initial, sparsity)
    return Recipe(
        "granet",
        criteria.magnitude,
        cubic(initial, sparsity),
        Every(every, begin, end, inside=True),
        allocation,
        growth=Gradient(),
        drop_fraction=annealed(drop, end),
        needs_taps=True,
        start=_start(initial),
    )


def top_kast(
    sparsity: float,
    *,
    backward_sparsity: float | None = None,
    every: int = 100,
    decay: float = 1e-4,
    explore: float = 0.1,
) -> Recipe:
    """Top-KAST: the forward pass uses the largest weights A, gradients reach a larger stored set B.

    `sparsity` is that of A, `backward_sparsity` that of B (by default B is twice as large). Every `every` steps A is
    chosen anew within B, and the fraction `explore` of B, its smallest weights, moves to random places. After the last
    step only A is left.

    Source: Jayakumar et al., Top-KAST: top-K always sparse training, 2020. Difference: the paper keeps values for all
    positions and takes B as the largest of them; here only B exists, so what leaves it is forgotten, and newcomers are
    drawn and begin at zero.
    """
    sparsity = fraction("sparsity", sparsity)
    if backward_sparsity is None:
        backward_sparsity = max(0.0, 1.0 - 2.0 * (1.0 - sparsity))
    if not fraction("backward_sparsity", backward_sparsity) <= sparsity < 1.0:
        raise ValueError(
            "top_kast expects 0 <= backward_sparsity <= sparsity < 1; got "
            f"backward_sparsity={backward_sparsity!r}, sparsity={sparsity!r}."
        )
    share = (1.0 - sparsity) / (1.0 - backward_sparsity)
    return Recipe(
        "top_kast",
        criteria.magnitude,
        constant(backward_sparsity),
        Every(every, inside=True),
        growth=Random(),
        drop_fraction=constant(below_one("explore", explore)),
        start=_start(backward_sparsity),
        effects=(TopKast(share, non_negative("decay", decay), every, sparsity),),
    )


def srigl(
    sparsity: float | None = None,
    *,
    every: int = 100,
    drop: float = 0.3,
    end: float = 0.75,
    min_salient: float = 0.3,
) -> Recipe:
    """RigL with a constant fan-in: a layer's neurons have equally many weights; those with too few good ones go.

    Source: Lasby et al., Dynamic sparse training with structured sparsity (SRigL), 2023: γ_sal = `min_salient` = 0.3.
    Differences: see `fan_in.ConstantFanIn` and `fan_in.FanInGradient`; exact totals, so fan-ins differ by one where
    they have to.
    """
    unit = ConstantFanIn(min_salient, uneven=True)
    start = _start(sparsity, ConstantFanIn(0.0), FanInFresh())
    return Recipe(
        "srigl",
        criteria.magnitude,
        _held(sparsity),
        Every(every, end=end, inside=True),
        unit=unit,
        growth=FanInGradient(),
        drop_fraction=annealed(drop, end),
        needs_taps=True,
        replaces_step=True,
        start=start,
    )


def sr_ste(n: int = 2, m: int = 4, *, decay: float = 2e-4) -> Recipe:
    """Learn n of every m weights: the forward pass uses the n largest, all are trained, and the others decay.

    For layers that store all weights (`prunable`). After the last step only the n of m are left.

    Source: Zhou et al., Learning N:M fine-grained structured sparse neural networks from scratch, 2021 (SR-STE), eq. 7.
    """
    return Recipe(
        "sr_ste", criteria.magnitude, None, At((1.0,)), effects=(SrSte(NofM(n, m), decay),)
    )


# ---------------------------------------------------------------- their common parts


def annealed(drop: float, end: float) -> Schedule:
    """Return the drop fraction α/2 (1 + cos(πp/end)) up to progress `end`, 0 from there on."""
    falling = cosine(below_one("drop", drop), 0.0)
    return falling if end == 1.0 else chain([falling, constant(0.0)], [end])


def _held(sparsity: float | None) -> Schedule | None:
    return None if sparsity is None else held(sparsity)


def _start(
    sparsity: float | None, unit: Unit | None = None, growth: Growth | None = None
) -> Recipe | None:
    """Return what brings a model to its first sparsity: random pruning, and fresh weights where there are too few."""
    if sparsity is None:
        return None
    return Recipe(
        "start",
        criteria.random,
        held(sparsity),
        allocation=erdos_renyi,
        unit=unit or Weight(),
        growth=growth or Fresh(),
    )


@dataclass(frozen=True)
class Fresh:
    """Growth at random positions, with initial values as in a new layer (`init.sparse_kaiming_uniform`)."""

    def __call__(
        self, context: Context, index: int, kept: Topology, k: int
    ) -> tuple[Topology, Array]:
        """Return k positions that are not in `kept`, and their values (k,)."""
        rng = context.rng(index)
        return _with_values(context, index, kept, kept.random_free(k, rng), rng)


@dataclass(frozen=True)
class FanInFresh:
    """Growth at random positions that fills the neurons up to the same fan-in, with initial values."""

    def __call__(
        self, context: Context, index: int, kept: Topology, k: int
    ) -> tuple[Topology, Array]:
        """Return k positions that are not in `kept`, and their values (k,)."""
        rng = context.rng(index)
        counts, n_in = kept.row_counts(), kept.shape[1]
        added = fill_up(context.targets[index].name, counts, counts, n_in, k)
        indptr, columns = kept.csr()
        rows = [
            Topology((1, n_in), [0, c], columns[a : a + c]).random_free(int(n), rng).indices
            for a, c, n in zip(indptr, counts, added, strict=False)
        ]
        grown = Topology(kept.shape, np.cumsum([0, *added]), np.concatenate(rows))
        return _with_values(context, index, kept, grown, rng)


def _with_values(
    context: Context, index: int, kept: Topology, grown: Topology, rng: np.random.Generator
) -> tuple[Topology, Array]:
    together = kept | grown
    values = init.sparse_kaiming_uniform(together, rng, context.targets[index].weight.dtype)
    return grown, values[grown.positions_in(together)]
