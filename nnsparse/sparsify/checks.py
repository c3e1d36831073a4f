"""What a Sparsifier refuses before it begins: each message names the argument and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized

import numpy as np

from nnsparse.allocation import exact_count
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer
from nnsparse.parameter import FORWARD
from nnsparse.sparsify.context import Batch, LossFunction, Target, targets
from nnsparse.sparsify.holding import Crossover, alive_count
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.shares import MOMENTA, momentum_share

_SAMPLES = 1000  # updates whose sparsity is looked at in advance


def check_arguments(model: Module, optimizer: Optimizer, recipe: Recipe) -> None:
    """Refuse arguments of another kind.

    Raises
    ------
    TypeError
        If one is.
    """
    if not isinstance(model, Module):
        raise TypeError(f"Sparsifier expects a model (nn.Module); got {type(model).__name__}.")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"Sparsifier expects an optimizer, such as optim.SGD(model.parameters(), lr=0.1); got {optimizer!r}."
        )
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"Sparsifier expects a recipe, such as sparsify.agp(0.9); got {recipe!r}. Call it with a sparsity."
        )


def check_data(
    loss_fn: LossFunction | None, batches: Sequence[Batch]
) -> tuple[LossFunction | None, Sequence[Batch]]:
    """Return both, which may be missing.

    Raises
    ------
    TypeError
        If the loss is no function, or the batches can be gone through once only.
    """
    if loss_fn is not None and not callable(loss_fn):
        raise TypeError(
            f"Sparsifier expects loss_fn as a function of (output, y), such as nn.CrossEntropyLoss(); got {loss_fn!r}."
        )
    if not (isinstance(batches, Sized) and isinstance(batches, Iterable)) or isinstance(
        batches, str
    ):
        raise TypeError(
            f"Sparsifier expects batches as a list of (x, y), gone through at each update; got {batches!r}. "
            "Say batches=list(...)."
        )
    return loss_fn, batches


def crossover_of(swap: bool | Crossover) -> Crossover | None:
    """Return where layers change their form; None: never.

    Raises
    ------
    TypeError
        If `swap` is neither a bool nor a Crossover.
    """
    if isinstance(swap, Crossover):
        return swap
    if not isinstance(swap, bool):
        raise TypeError(f"Sparsifier expects swap as True, False or a Crossover; got {swap!r}.")
    return Crossover() if swap else None


def targets_of(model: Module, optimizer: Optimizer, skip: Sequence[str]) -> tuple[Target, ...]:
    """Return the sparse layers, each once, after checking that the optimizer trains them.

    Raises
    ------
    ValueError
        If it does not, or there are none.
    """
    found = targets(model, skip)
    trained = {id(parameter) for parameter in optimizer.params}
    for target in found:
        if id(target.weight) not in trained:
            raise ValueError(
                f"the optimizer does not train the weights of layer {target.name!r}. Is it over another model? "
                "sparsify.prunable makes a new one: make the optimizer afterwards."
            )
    return found


def check_masks(recipe: Recipe, found: Sequence[Target]) -> None:
    """Refuse layers that compute with a mask which none of the recipe's effects renews.

    Raises
    ------
    ValueError
        Naming the layer.
    """
    for target in found:
        if FORWARD in target.weight.buffers and not any(e.sets_forward for e in recipe.effects):
            raise ValueError(
                f"{recipe.name}: layer {target.name!r} still has the forward mask of another method, such as top_kast "
                "or sr_ste before its last step. sparsify.harden(target), for target in sparsify.targets(model), "
                "drops the weights that it hides; layer.weight.buffers.pop('forward') takes them all back."
            )


def check_momentum(recipe: Recipe, optimizer: Optimizer) -> None:
    """Refuse an optimizer without momentum where a recipe shares out growth by it.

    Raises
    ------
    ValueError
        If so.
    """
    if recipe.regrowth is momentum_share and not set(MOMENTA) & set(optimizer.settings.slots):
        raise ValueError(
            f"{recipe.name} shares out what grows by the optimizer's momentum, and {type(optimizer).__name__} keeps "
            "none here. Make it as SGD(..., momentum=0.9) or Adam."
        )


def seed_of(rng: np.random.Generator | int | None) -> int:
    """Return the seed: a given number, or one drawn from a generator (None: from the system's).

    Raises
    ------
    ValueError
        If it is negative or no integer.
    """
    if rng is None or isinstance(rng, np.random.Generator):
        return int(np.random.default_rng(rng).integers(2**62))
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer) or not 0 <= rng < 2**64:
        raise ValueError(
            f"Sparsifier expects rng as a seed from 0 to 2**64 - 1 or a Generator; got {rng!r}."
        )
    return int(rng)


def check_totals(
    recipe: Recipe, due: Sequence[int], total_steps: int, found: Sequence[Target]
) -> None:
    """Refuse a schedule that a recipe cannot follow from where the model is.

    Raises
    ------
    ValueError
        If updates are due after the end, there would be fewer weights than layers, weights would have to grow in a
        recipe without growth, or it rewinds to a step after its first update.
    """
    if not due or due[0] < 0 or due[-1] > total_steps:
        raise ValueError(
            f"{recipe.name}: updates are expected at steps from 0 to {total_steps}; got {list(due)[-3:] or 'none'}."
        )
    if recipe.rewind is not None and round(recipe.rewind * total_steps) >= max(1, due[0]):
        raise ValueError(
            f"{recipe.name}: rewind={recipe.rewind:g} is not before the first update, at step {due[0]} of "
            f"{total_steps}."
        )
    if recipe.sparsity is None:
        return
    size = sum(target.size for target in found)
    looked_at = sorted({*due[:: max(1, len(due) // _SAMPLES)], due[-1]})
    wanted = [recipe.sparsity(recipe.when.progress(step, total_steps)) for step in looked_at]
    counts = [exact_count(size, sparsity=sparsity) for sparsity in wanted]
    if min(counts) < len(found):
        raise ValueError(
            f"{recipe.name}: sparsity {max(wanted):g} leaves {min(counts)} of {size} weights for {len(found)} layers. "
            "Ask for a lower sparsity."
        )
    if recipe.growth is None:
        _check_falling(recipe, wanted, counts, sum(alive_count(target) for target in found), size)


def _check_falling(
    recipe: Recipe, wanted: list[float], counts: list[int], present: int, size: int
) -> None:
    for before, after in zip(range(len(counts)), range(1, len(counts)), strict=False):
        if counts[after] > counts[before]:
            raise ValueError(
                f"{recipe.name}: the schedule of sparsity falls from {wanted[before]:g} to {wanted[after]:g}, and a "
                "method without growth cannot add weights. Let it rise, or take a recipe with growth (rigl, set_)."
            )
    if counts[-1] > present:
        raise ValueError(
            f"{recipe.name}: the sparse layers hold {present} of {size} weights, sparsity {1 - present / size:.4g}, "
            f"and a method without growth cannot bring them to {wanted[-1]:g}. Begin with a denser model "
            "(sparsify.prunable keeps all weights), or ask for a higher sparsity."
        )
