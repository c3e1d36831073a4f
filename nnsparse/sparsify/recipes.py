"""Recipes that prune: each a few lines of parts with a paper's settings. Those that also grow are in `dynamic`.

`sparsity` is the fraction of zeros over the positions of all sparse layers together. Windows are fractions of the
training. Any part can be exchanged: `dataclasses.replace(agp(0.9), criterion=...)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.allocation import apportion
from nnsparse.schedule import cubic
from nnsparse.sparsify import criteria, flow, saliency, schedules
from nnsparse.sparsify.arguments import ends, fraction, held
from nnsparse.sparsify.context import Context
from nnsparse.sparsify.group_lasso import GroupLasso, Groups, by_row
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.shares import Allocation, erdos_renyi, global_rank, uniform
from nnsparse.sparsify.units import Neuron, NofM
from nnsparse.sparsify.when import At, Every, Rounds

Array = NDArray[Any]


def one_shot(
    sparsity: float,
    *,
    at: float = 0.5,
    criterion: criteria.Criterion = criteria.magnitude,
    allocation: Allocation = global_rank,
) -> Recipe:
    """Prune once, at the fraction `at` of the training, and train on.

    Source: Li et al., Pruning filters for efficient ConvNets, 2017, for weights; LeCun et al. 1990.
    """
    return Recipe("one_shot", criterion, held(sparsity), At((at,)), allocation)


def iterative(
    sparsity: float,
    *,
    rounds: int = 3,
    begin: float = 0.2,
    end: float = 0.8,
    initial: float = 0.0,
    rewind: float | None = None,
    criterion: criteria.Criterion = criteria.magnitude,
    allocation: Allocation = global_rank,
) -> Recipe:
    """Train, prune, train, prune: `rounds` equal steps of sparsity, each at the end of its part of the window.

    With `rewind`, a fraction of the training before the first round, every parameter returns after each round to what
    it was then, and the optimizer begins anew.

    Source: Castellano et al. 1997; Han et al. 2015, n = 3 as in FasterAI.
    """
    first, last = ends(initial, sparsity)
    sparsities = schedules.staircase(last, first, rounds)
    when = Rounds(rounds, begin, end)
    return Recipe("iterative", criterion, sparsities, when, allocation, rewind=rewind)


def lottery_ticket(
    sparsity: float,
    *,
    rounds: int = 10,
    rewind: float = 0.0,
    end: float = 0.9,
    criterion: criteria.Criterion = criteria.magnitude,
    allocation: Allocation = uniform,
) -> Recipe:
    """Find a winning ticket: train, prune by a constant factor, return to early weights, again and again.

    `rounds` prunings share out the training up to `end`; the rest trains the ticket. With sparsity 1 − 0.8ⁿ and n
    rounds each keeps the paper's 0.8. `rewind` = 0 returns to the first weights, a little more to early ones.

    Source: Frankle & Carbin, The lottery ticket hypothesis, 2019; Frankle et al., Stabilizing the lottery ticket
    hypothesis, 2020 (rewinding). Differences: the paper gives each round a whole training and prunes the output layer
    at half the rate. A learning-rate schedule is not rewound.
    """
    sparsities = schedules.geometric(fraction("sparsity", sparsity))
    when = Rounds(rounds, 0.0, end)
    return Recipe("lottery_ticket", criterion, sparsities, when, allocation, rewind=rewind)


def agp(
    sparsity: float,
    *,
    initial: float = 0.0,
    every: int = 100,
    begin: float = 0.0,
    end: float = 0.75,
    criterion: criteria.Criterion = criteria.magnitude,
    allocation: Allocation = uniform,
) -> Recipe:
    """Automated gradual pruning: fast at first, slowly in the end: s_t = s_f + (s_i − s_f)(1 − (t − t₀)/(nΔt))³.

    Source: Zhu & Gupta, To prune, or not to prune, 2017, eq. 1: Δt = `every` = 100 steps, all layers alike. Difference:
    what was pruned does not come back; the paper's masks let it, as the dense weights go on training under them.
    """
    when = Every(every, begin, end)
    return Recipe("agp", criterion, cubic(*ends(initial, sparsity)), when, allocation)


def one_cycle(
    sparsity: float,
    *,
    initial: float = 0.0,
    every: int = 100,
    begin: float = 0.0,
    end: float = 1.0,
    alpha: float = 14.0,
    beta: float = 6.0,
    criterion: criteria.Criterion = criteria.magnitude,
    allocation: Allocation = global_rank,
) -> Recipe:
    """One-cycle pruning: along a sigmoid over the whole training (`schedules.one_cycle_pruning`).

    Source: Hubens et al., One-cycle pruning, 2021, α = 14 and β = 6 as in the authors' code. Difference: they prune
    after every step; that is every=1, and refresh_every=100 or so for the `Sparsifier`.
    """
    first, last = ends(initial, sparsity)
    sparsities = schedules.one_cycle_pruning(last, first, alpha, beta)
    return Recipe("one_cycle", criterion, sparsities, Every(every, begin, end), allocation)


# ---------------------------------------------------------------- before training


def random(sparsity: float, *, allocation: Allocation = erdos_renyi) -> Recipe:
    """Prune at random before training, wide layers more (Erdős–Rényi): what every other recipe has to beat.

    Source: Mocanu et al. 2018 and Evci et al. 2020 for the shares; Liu et al., The unreasonable effectiveness of random
    pruning, 2022.
    """
    return Recipe("random", criteria.random, held(sparsity), allocation=allocation)


def magnitude(sparsity: float, *, allocation: Allocation = global_rank) -> Recipe:
    """Prune the smallest weights of all layers before training (or of a trained model, before fine-tuning).

    Source: Han et al. 2015, with one threshold for all layers.
    """
    return Recipe("magnitude", criteria.magnitude, held(sparsity), allocation=allocation)


def snip(sparsity: float, *, allocation: Allocation = global_rank) -> Recipe:
    """Prune before training what changes the loss least, |w · ∂L/∂w| on the batches given, over all layers.

    Source: Lee, Ajanthan & Torr, SNIP: Single-shot network pruning based on connection sensitivity, 2019, algorithm 1.
    """
    return Recipe("snip", saliency.snip, held(sparsity), allocation=allocation, needs_data=True)


def grasp(
    sparsity: float, *, temperature: float = 200.0, allocation: Allocation = global_rank
) -> Recipe:
    """Prune before training what the gradient's flow misses least (`saliency.Grasp`), over all layers.

    Source: Wang, Zhang & Grosse, Picking winning tickets before training by preserving gradient flow, 2020.
    """
    criterion = saliency.Grasp(temperature)
    return Recipe("grasp", criterion, held(sparsity), allocation=allocation, needs_data=True)


def synflow(sparsity: float, *, rounds: int = 100, allocation: Allocation = global_rank) -> Recipe:
    """Prune before training, without data, in rounds that multiply the density by the same factor, scored anew each.

    Source: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, 2020,
    algorithm 1, n = 100.
    """
    sparsities = schedules.geometric(fraction("sparsity", sparsity))
    return Recipe("synflow", flow.synflow, sparsities, allocation=allocation, rounds=rounds)


# ---------------------------------------------------------------- of trained models, and of structures


def obd(sparsity: float, *, at: float = 0.5, allocation: Allocation = global_rank) -> Recipe:
    """Optimal brain damage: prune once, at the fraction `at` of the training, what has the least ½·h·w².

    Source: LeCun, Denker & Solla, Optimal brain damage, 1990. Difference: h is the Fisher diagonal on the batches
    given (Theis et al. 2018), not that of the Hessian.
    """
    return Recipe("obd", saliency.fisher, held(sparsity), At((at,)), allocation, needs_data=True)


def n_m(n: int = 2, m: int = 4, *, at: float = 0.5) -> Recipe:
    """Keep the n largest of every m consecutive inputs of a neuron, once, at the fraction `at` of the training.

    Source: Mishra et al., Accelerating sparse deep neural networks, 2021 (2:4: train, prune, train again).
    """
    unit = NofM(n, m)
    return Recipe("n_m", criteria.magnitude, None, At((at,)), InGroups(unit), unit)


def neurons(
    sparsity: float,
    *,
    rounds: int = 1,
    begin: float = 0.0,
    end: float = 0.5,
    criterion: criteria.Criterion = criteria.magnitude,
) -> Recipe:
    """Prune whole neurons, those of the smallest Σ|w| of each hidden layer, in `rounds` equal steps of sparsity.

    Layers get the same density; the last of them, the outputs, keeps all its weights, so the others bear its part of
    the sparsity. Whole neurons hardly ever have exactly the number of weights wanted: it is the most that is not above
    it. `compact(model)` afterwards makes the layers smaller.

    Source: Li et al., Pruning filters for efficient ConvNets, 2017, for neurons.
    """
    sparsities = schedules.staircase(fraction("sparsity", sparsity), rounds=rounds)
    when = Rounds(rounds, begin, end)
    return Recipe("neurons", criterion, sparsities, when, all_but_last, Neuron())


def group_lasso(strength: float, *, groups: Groups = by_row, until: float = 0.5) -> Recipe:
    """Let a group lasso take whole groups of weights to zero up to the fraction `until`, drop them, and fine-tune.

    `strength` is λ of λ Σ √|g| ‖W_g‖, `groups` `by_row` (neurons), `by_column` (inputs) or `Block(r, c).groups`. How
    sparse the model gets depends on λ.

    Source: Yuan & Lin 2006; the Graph Challenge's structured training (FSSL) gives no formula, this is the usual one.
    """
    penalty = GroupLasso(strength, groups)
    return Recipe(
        "group_lasso",
        Survivors(penalty),
        when=At((until,)),
        allocation=positive,
        effects=(penalty,),
        effects_until=until,
    )


@dataclass(frozen=True)
class InGroups:
    """Allocation of N:M: what the unit keeps of each layer, whatever the total."""

    unit: NofM

    def __call__(self, context: Context, total: int, scores: list[Array]) -> list[int]:
        """Return the unit's count for each target."""
        return [self.unit.count(target.topology) for target in context.targets]


@dataclass(frozen=True)
class Survivors:
    """Criterion: 1 for the weights of groups that the group lasso has left, 0 for the others."""

    penalty: GroupLasso

    def __call__(self, context: Context) -> list[Array]:
        """Return one array (nnz,) for each target."""
        return [self.penalty.survivors(target).astype(np.float64) for target in context.targets]


def positive(context: Context, total: int, scores: list[Array]) -> list[int]:
    """Return, as an allocation, how many scores of each layer are above zero, whatever the total.

    Raises
    ------
    ValueError
        If they are fewer than layers.
    """
    counts = [int(np.count_nonzero(s > 0)) for s in scores]
    if sum(counts) < len([s for s in scores if s.size]):
        raise ValueError(
            f"group_lasso: the penalty has left {sum(counts)} weights for {len(counts)} layers. Lower strength."
        )
    return counts


def all_but_last(context: Context, total: int, scores: list[Array]) -> list[int]:
    """Return, as an allocation, the same density for all layers but the last, which keeps all its weights.

    Raises
    ------
    ValueError
        If there is no other layer, or the last one alone has more than `total`.
    """
    *hidden, last = [s.size for s in scores]
    sizes = [target.size for target in context.targets[:-1]]
    rest = total - last
    if not hidden:
        raise ValueError(
            f"neurons prunes hidden layers, and {context.targets[-1].name!r} is the only layer: its neurons are the "
            "outputs. Prune its weights (magnitude), or its inputs (group_lasso with groups=by_column)."
        )
    if rest < len(hidden):
        raise ValueError(
            f"{total} weights are to be left, but the last layer, {context.targets[-1].name!r}, keeps all its {last} "
            f"and {len(hidden)} others need some. Ask for a lower sparsity."
        )
    return [*apportion(sizes, hidden, rest), last]
