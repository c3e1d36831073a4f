"""One update of a recipe: from scores to what each layer keeps and grows. Pure: nothing is applied here.

`holding.apply` applies a `Change`; `sparsifier` decides when, and whether patterns are compressed then.
"""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import tiles
from nnsparse.allocation import apportion, exact_count
from nnsparse.parameter import storage
from nnsparse.sparsify.context import Context, Target
from nnsparse.sparsify.holding import Change, alive_count, alive_largest, alive_mask
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.units import Mask, Weight, subset

Array = NDArray[Any]

# Bytes of pooled arrays from which on free ones go back to the system before an update, which needs room of its own.
_IDLE = 2**30


class EmptyLayerWarning(UserWarning):
    """A recipe asked for a layer without weights; it keeps one."""


def total_count(context: Context, sparsity: float | None) -> int:
    """Return how many weights all targets together are to hold; by default as many as are alive."""
    if sparsity is None:
        return sum(alive_count(target) for target in context.targets)
    return exact_count(sum(target.size for target in context.targets), sparsity=sparsity)


def sparsities(recipe: Recipe, step: int, total_steps: int) -> list[float | None]:
    """Return the sparsity that each round of the update at `step` is to reach; None: as it is.

    The rounds divide the way from the update before (or from the beginning) in equal parts of progress.
    """
    if recipe.sparsity is None:
        return [None]
    end, begin, n = recipe.when.progress(step, total_steps), 0.0, recipe.rounds
    if n > 1:
        before = [t for t in recipe.when.steps(total_steps) if t < step]
        begin = recipe.when.progress(before[-1], total_steps) if before else 0.0
    ways = [begin + (end - begin) * i / n for i in range(1, n)]
    return [recipe.sparsity(way) for way in (*ways, end)]


def replaced_fraction(recipe: Recipe, step: int, total_steps: int) -> float:
    """Return which part of each layer an update after training step `step` replaces."""
    return 0.0 if recipe.drop_fraction is None else recipe.drop_fraction(step / total_steps)


def changes_nothing(context: Context, recipe: Recipe, total: int, fraction: float) -> bool:
    """Return whether an update to `total` weights is over before it begins.

    So it is if all weights are there, none is to be replaced and single weights are the unit; and if a method without
    growth has fewer already (its schedule has not come down to them yet).
    """
    present = total_count(context, None)
    if recipe.growth is None and total > present:
        return True
    if recipe.sparsity is None and recipe.drop_fraction is None:
        return False  # the parts themselves say how much
    return total == present and fraction == 0.0 and isinstance(recipe.unit, Weight)


def check_taps(context: Context, recipe: Recipe) -> None:
    """Refuse growth by gradients of which nobody took a note.

    Raises
    ------
    ValueError
        Naming the layer.
    """
    for target, taps in zip(context.targets, context.taps, strict=True):
        if not target.weight.requires_grad:
            raise ValueError(
                f"{recipe.name}: layer {target.name!r} has no gradient to grow by: its weight.requires_grad is False. "
                f"Leave it out: skip=[{target.name!r}]."
            )
        if not taps:
            raise ValueError(
                f"{recipe.name}: layer {target.name!r} had no backward pass in step {context.step}, and growth needs "
                "its gradient. Run forward and backward between two calls of step(), with a forward pass that begins "
                "after the Sparsifier was made."
            )


def propose(context: Context, recipe: Recipe, total: int, fraction: float = 0.0) -> list[Change]:
    """Return what an update to `total` weights changes, one `Change` for each target.

    Parameters
    ----------
    context : Context
    recipe : Recipe
    total : int
        Weights of all targets together after the update.
    fraction : float in [0, 1]
        Of each layer's count, to be dropped and grown again.

    Raises
    ------
    ValueError
        If the criterion, the allocation, the unit or the growth rule returns something that does not fit, there are
        fewer weights than layers, or weights would have to grow in a recipe without growth.

    Notes
    -----
    Layer l gets k_l of the total. It grows g_l = ⌊fraction · k_l⌋ of them anew (`regrowth` shares Σ g_l out in another
    way) and keeps its best k_l − g_l, or all it has where those are fewer; then more grow. Units that are no single
    weights may keep fewer than that, and growth makes up for it too.
    """
    if tiles.pool.nbytes() > _IDLE:  # activations of the step before
        tiles.pool.clear()
    # Who holds these keeps them from being worked out again for each score, value and move.
    orders = [
        None if target.topology.is_full else storage(target.topology) for target in context.targets
    ]
    alive = [alive_mask(target) for target in context.targets]
    scores = _scores(context, recipe)
    present = [s if a is None else s[a] for s, a in zip(scores, alive, strict=True)]
    counts = _counts(context, recipe, total, present)
    replaced = [math.floor(fraction * k + 1e-9) for k in counts]
    keep = [min(k - g, s.size) for k, g, s in zip(counts, replaced, present, strict=True)]
    kept = [
        _keep(recipe, target, s, a, k)
        for target, s, a, k in zip(context.targets, scores, alive, keep, strict=True)
    ]
    if recipe.growth is None:
        changes = [Change(mask) for mask in kept]
    else:
        changes = _grown(context, recipe, kept, counts, replaced)
    return [replace(change, order=order) for change, order in zip(changes, orders, strict=True)]


def _scores(context: Context, recipe: Recipe) -> list[Array]:
    scores = recipe.criterion(context)
    if len(scores) != len(context.targets):
        raise ValueError(
            f"{recipe.name}: the criterion is expected to score {len(context.targets)} layers; got {len(scores)}."
        )
    for target, s in zip(context.targets, scores, strict=True):
        if s.shape != (target.nnz,):
            raise ValueError(
                f"{recipe.name}: the criterion is expected to give one score per stored weight of {target.name!r}, "
                f"({target.nnz},); got {s.shape}."
            )
    return scores


def _counts(context: Context, recipe: Recipe, total: int, present: list[Array]) -> list[int]:
    """Return each layer's count; no layer that has weights ends without any."""
    counts = list(recipe.allocation(context, total, present))
    if len(counts) != len(context.targets):
        raise ValueError(
            f"{recipe.name}: the allocation is expected to return {len(context.targets)} counts; got {counts}."
        )
    for target, count, scores in zip(context.targets, counts, present, strict=True):
        most = scores.size if recipe.growth is None else target.size
        if not 0 <= count <= most:
            raise ValueError(
                f"{recipe.name}: layer {target.name!r} can hold 0 to {most} weights; the allocation gives it "
                f"{count}. A method without growth cannot add weights."
            )
    decides = recipe.sparsity is None and recipe.growth is None  # the parts say how much is left
    if sum(counts) != total and isinstance(recipe.unit, Weight) and not decides:
        raise ValueError(
            f"{recipe.name}: the allocation is expected to share out {total} weights; got {sum(counts)}, {counts}."
        )
    for index, target in enumerate(context.targets):
        if counts[index] == 0 and present[index].size:
            _spare_one(recipe, target.name, counts)
            counts[index] = 1
    return counts


def _spare_one(recipe: Recipe, name: str, counts: list[int]) -> None:
    """Take one weight from the layer that has most, for layer `name`, and warn."""
    richest = max(range(len(counts)), key=lambda i: counts[i])
    if counts[richest] < 2:
        raise ValueError(
            f"{recipe.name}: {sum(counts)} weights are too few for {len(counts)} layers. Ask for a lower sparsity."
        )
    counts[richest] -= 1
    warnings.warn(
        f"{recipe.name}: nothing would be left of layer {name!r}; it keeps its best weight. "
        f"{_advice(recipe)}",
        EmptyLayerWarning,
        stacklevel=_outside(),
    )


def _advice(recipe: Recipe) -> str:
    if recipe.sparsity is None:
        return "Lower what takes weights away, such as strength."
    return "Ask for a lower sparsity, or another allocation (erdos_renyi, uniform)."


def _outside() -> int:
    """Return, as the caller's stacklevel, the nearest frame that is not this library's."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("nnsparse."):
        frame, level = frame.f_back, level + 1
    return level


def _keep(recipe: Recipe, target: Target, scores: Array, alive: Mask | None, k: int) -> Mask:
    if alive is None:
        kept = recipe.unit.keep(target, scores, k)
    elif isinstance(recipe.unit, Weight):
        kept = alive_largest(target, scores.astype(np.result_type(scores, np.float32)), k)
    else:
        raise ValueError(f"{recipe.name}: {recipe.unit} needs compressed layers.")
    if kept.shape != (target.nnz,) or kept.dtype != np.bool_:
        raise ValueError(
            f"{recipe.name}: the unit is expected to return a mask ({target.nnz},) for layer {target.name!r}; got "
            f"{kept.dtype} {kept.shape}."
        )
    return kept


def _grown(
    context: Context, recipe: Recipe, kept: list[Mask], counts: list[int], replaced: list[int]
) -> list[Change]:
    """Return the changes with what grows: counts − kept in each layer, or shared out by `regrowth`."""
    assert recipe.growth is not None
    numbers = [k - int(np.count_nonzero(m)) for k, m in zip(counts, kept, strict=True)]
    if recipe.regrowth is not None:
        free = [
            t.size - int(np.count_nonzero(m)) for t, m in zip(context.targets, kept, strict=True)
        ]
        # What was not there to be dropped grows where it is missing; the rest is shared out.
        missing = [max(0, n - g) for n, g in zip(numbers, replaced, strict=True)]
        room = [f - n for f, n in zip(free, missing, strict=True)]
        shared = apportion(recipe.regrowth(context), room, sum(numbers) - sum(missing))
        numbers = [a + b for a, b in zip(missing, shared, strict=True)]
    changes: list[Change] = []
    for index, (target, mask, k) in enumerate(zip(context.targets, kept, numbers, strict=True)):
        if k == 0:
            changes.append(Change(mask))
            continue
        rest = subset(target.topology, mask)
        grown, values = recipe.growth(context, index, rest, k)
        if grown.nnz != k or grown.shape != target.topology.shape:
            raise ValueError(
                f"{recipe.name}: growth is expected to return {k} positions for layer {target.name!r}; got {grown}."
            )
        if overlap := int(np.count_nonzero(grown.positions_in(rest) >= 0)):
            raise ValueError(
                f"{recipe.name}: growth for layer {target.name!r} is expected where no weight is; {overlap} of {k} "
                "positions are kept already. Leave out those of its third argument."
            )
        changes.append(Change(mask, grown, values, rest))
    return changes
