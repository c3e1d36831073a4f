"""One update carried out, in as many rounds as its recipe says: weights chosen (`update`), then moved (`holding`)."""

from __future__ import annotations

from collections.abc import Sequence

from nnsparse.sparsify.context import Context
from nnsparse.sparsify.holding import apply, compress
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.report import Explored, Stopwatch
from nnsparse.sparsify.storage import Storage
from nnsparse.sparsify.units import Weight
from nnsparse.sparsify.update import (
    changes_nothing,
    check_taps,
    propose,
    replaced_fraction,
    sparsities,
    total_count,
)


def carry_out(
    recipe: Recipe,
    context: Context,
    total_steps: int,
    storage: Storage,
    slots: Sequence[str],
    explored: Sequence[Explored],
) -> tuple[int, float, float]:
    """Make the update of `recipe` that is due at `context.step`, and store the layers in the form they should have.

    Parameters
    ----------
    recipe : Recipe
    context : Context
        Of the present step, with its taps.
    total_steps : int
    storage : Storage
    slots : sequence of str
        Names of the optimizer's buffers.
    explored : sequence of Explored
        One for each target, which gets what grows; or none.

    Returns
    -------
    (int, float, float)
        Weights grown; seconds spent on choosing weights, and on moving them and planning new patterns.
    """
    lap, seconds, grown = Stopwatch(), [0.0, 0.0], 0  # of choosing weights, of moving patterns
    whole = not isinstance(recipe.unit, Weight)  # such units see stored weights only
    for target in context.targets if whole else ():
        compress(target)
    seconds[True] += lap()
    fraction = replaced_fraction(recipe, context.step, total_steps)
    wanted = sparsities(recipe, context.step, total_steps)
    for number, sparsity in enumerate(wanted, 1):
        total = total_count(context, sparsity)
        if changes_nothing(context, recipe, total, fraction):
            continue
        if recipe.needs_taps:
            check_taps(context, recipe)
        changes = propose(context, recipe, total, fraction)
        seconds[False] += lap()
        compressing = whole or (number == len(wanted) and storage.refreshes(context.step))
        for target, change in zip(context.targets, changes, strict=True):
            moved = apply(target, change, slots, compressing, storage.crossover)
            seconds[moved] += lap()
        grown += sum(change.n_grown for change in changes)
        for seen, change in zip(explored, changes, strict=False):
            seen.add(change.grown)
    storage.settle(context.targets, context.step)
    return grown, seconds[False], seconds[True] + lap()
