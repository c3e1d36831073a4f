"""What the estimators' `recipe` may be, and what it means for a training: how to begin, and when it may end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nnsparse.sparsify.dynamic import granet, rigl, set_, snfs, srigl
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.recipes import agp, iterative, one_shot, snip, synflow

# Updates that a training has at least, if it is too short for the papers' 100 steps between two.
_UPDATES = 20

# Name -> the recipe for a sparsity and a number of steps between two updates, all else as in its paper.
RECIPES: Mapping[str, Callable[[float, int], Recipe]] = {
    "set": lambda sparsity, every: set_(sparsity, every=every),
    "rigl": lambda sparsity, every: rigl(sparsity, every=every),
    "snfs": lambda sparsity, every: snfs(sparsity, every=every),
    "srigl": lambda sparsity, every: srigl(sparsity, every=every),
    "granet": lambda sparsity, every: granet(sparsity, initial=min(0.5, sparsity / 2), every=every),
    "agp": lambda sparsity, every: agp(sparsity, every=every),
    "iterative": lambda sparsity, every: iterative(sparsity),
    "one_shot": lambda sparsity, every: one_shot(sparsity),
    "snip": lambda sparsity, every: snip(sparsity),
    "synflow": lambda sparsity, every: synflow(sparsity),
}


def recipe_of(given: Any, sparsity: float, total_steps: int) -> Recipe | None:
    """Return the recipe that an estimator was given by name, as a function of the sparsity, or itself.

    Parameters
    ----------
    given : str, callable, Recipe or None
        Of None, None.
    sparsity : float
        The estimator's; a ready recipe has its own.
    total_steps : int
        Of the training. By name, updates are 100 steps apart, in a short training fewer.

    Raises
    ------
    TypeError
        If the function returns no recipe.
    """
    if given is None or isinstance(given, Recipe):
        return given
    if isinstance(given, str):
        return RECIPES[given](sparsity, max(1, min(100, total_steps // _UPDATES)))
    recipe = given(sparsity)
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"recipe expects a function that returns a Recipe for a sparsity, such as sparsify.rigl; {given!r} "
            f"returned {type(recipe).__name__}."
        )
    return recipe


def first_sparsity(recipe: Recipe | None, sparsity: float) -> float:
    """Return with which sparsity a model is to be made for a recipe: 0 if it only prunes, else where it starts."""
    if recipe is None:
        return sparsity
    if recipe.growth is None:
        return 0.0
    start = recipe.start
    return sparsity if start is None or start.sparsity is None else start.sparsity(1.0)


def first_end(recipe: Recipe, total_steps: int) -> int:
    """Return after which step a training may end early: as soon as the recipe's last sparsity is reached.

    Recipes that do something at every step, or know no sparsity, are run to their end.
    """
    if recipe.effects:
        return total_steps
    due = recipe.when.steps(total_steps)
    if recipe.sparsity is None:
        return 0 if recipe.growth is not None else due[-1]
    last = recipe.sparsity(1.0)
    reached = (
        step for step in due if recipe.sparsity(recipe.when.progress(step, total_steps)) == last
    )
    first = next(reached, due[-1])
    return 0 if first == due[0] and recipe.start is not None else first
