"""`Sparsifier`: runs a recipe beside a training, one call of `step` after each `optimizer.step`.

What an update changes is worked out in `update` and carried out in `rounds`; how it is stored is in `holding`, what is
saved in `resume`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, final

import numpy as np

from nnsparse.nn._state import remember
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer, State
from nnsparse.sparsify import checks, resume
from nnsparse.sparsify.context import Batch, Context, LossFunction
from nnsparse.sparsify.copies import REWIND, START, forget_copy, keep_copy, return_to_copy
from nnsparse.sparsify.effects import Effect, harden
from nnsparse.sparsify.holding import Crossover, alive_count, alive_topology, compress, hold
from nnsparse.sparsify.ownership import Claim
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.report import Explored, Record, Report, Stopwatch, bare, make_report
from nnsparse.sparsify.rounds import carry_out
from nnsparse.sparsify.storage import Storage
from nnsparse.sparsify.update import replaced_fraction
from nnsparse.sparsify.when import check_count


@final
class Sparsifier:
    """Makes and moves the sparsity of a model while it is trained.

    Make it after the optimizer, and call `step()` once after each `optimizer.step()`, like a learning-rate scheduler.
    The parameters stay the same objects; survivors keep their values and the optimizer's state of them bit for bit.

    Parameters
    ----------
    model : Module
        With sparse layers: `nn.mlp(..., sparsity=...)`, or `prunable(model)` to begin with all weights.
    optimizer : Optimizer
        Over the model's parameters. It is never called; its state follows the weights.
    recipe : Recipe
        From `recipes` or `dynamic`, such as `agp(0.9)`.
    total_steps : int
        Steps of the whole training, epochs × batches per epoch.
    loss_fn, batches :
        For criteria that need data: (output, y) -> loss, and a list of (x, y).
    rng : int, numpy.random.Generator or None
        Seed of all that is drawn: an update's draws depend on it, the step and the layer only.
    refresh_every : int, optional
        R: compress patterns at multiples of R steps only (and after the last update). Until then what is dropped is
        held at zero, which computes the same and saves the building of a plan. Default: at each update, as growing
        methods, and units other than weights, do anyway.
    skip : sequence of str
        Names of sparse layers to leave alone.
    swap : bool or Crossover
        Keep layers full, on the dense kernels, while that is faster; after the last step all are compressed.

    Attributes
    ----------
    steps : int
        Training steps done.
    targets : tuple of Target
        The layers that the recipe works on.
    history : list of Record
        One for each update (two at step 0 if a recipe with a start has one there), and for each refresh of the patterns
        between updates.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    Notes
    -----
    Updates at step 0, and the way to a recipe's first sparsity, are made at once. A `Sparsifier` sets `layer.taps`
    for the steps whose gradients growth looks at. A layer belongs to the Sparsifier that was made for it last: an
    earlier one raises RuntimeError when it is called to go on (with `rewind`, all layers count).

    Examples
    --------
    >>> from nnsparse import nn, optim
    >>> from nnsparse.sparsify.recipes import magnitude
    >>> model = nn.Sequential(nn.SparseLinear(100, 50, density=1, rng=0))
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> sparsifier = Sparsifier(model, optimizer, magnitude(0.9), total_steps=1000)
    >>> model[0].nnz
    500
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        recipe: Recipe,
        total_steps: int,
        *,
        loss_fn: LossFunction | None = None,
        batches: Sequence[Batch] = (),
        rng: np.random.Generator | int | None = 0,
        refresh_every: int | None = None,
        skip: Sequence[str] = (),
        swap: bool | Crossover = False,
    ) -> None:
        checks.check_arguments(model, optimizer, recipe)
        total_steps = check_count("total_steps, epochs × batches per epoch,", total_steps)
        if refresh_every is not None:
            refresh_every = check_count("refresh_every", refresh_every)
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.total_steps, self.steps = total_steps, 0
        self.targets = checks.targets_of(model, optimizer, skip)
        checks.check_masks(recipe, self.targets)
        checks.check_momentum(recipe, optimizer)
        self.history: list[Record] = []
        self._loss_fn, self._batches = checks.check_data(loss_fn, batches)
        self._seed = checks.seed_of(rng)
        self._due = recipe.when.steps(total_steps)
        checks.check_totals(recipe, self._due, total_steps, self.targets)
        ends = self._due[-1], total_steps
        self._storage = Storage(refresh_every, ends, checks.crossover_of(swap))
        if recipe.needs_data:
            self._context(0).data(recipe.name)
        if recipe.remember:
            keep_copy((target.weight for target in self.targets), START)
        self._explored: list[Explored] = []
        if recipe.start is not None:
            checks.check_totals(recipe.start, (0,), total_steps, self.targets)
            self._update(recipe.start)
        self._after_step()
        # What begins here is the training; the way to its first pattern is no exploration.
        self._first = [bare(alive_topology(target)) for target in self.targets]
        self._explored = [Explored(topology) for topology in self._first]
        self._set_taps()
        own = [(target.name, target.layer) for target in self.targets]
        self._claim = Claim(own if recipe.rewind is None else model.named_modules())
        self._claim.compress_abandoned(model, self.targets)

    # ------------------------------------------------------------ the training loop's side

    @property
    def due(self) -> bool:
        """Whether the training step now being made, or about to be, ends with an update."""
        return self.steps + 1 in self._due

    @property
    def replaces_step(self) -> bool:
        """Whether that update is to take the place of `optimizer.step()`, as in RigL; the loop may follow or not."""
        recipe, step = self.recipe, self.steps + 1
        return (
            recipe.replaces_step
            and self.due
            and replaced_fraction(recipe, step, self.total_steps) > 0.0
        )

    def before_step(self) -> None:
        """Add what the recipe adds to gradients: after `backward`, before `optimizer.step`; most add nothing."""
        self._claim.check(self.recipe.name)
        for effect in self._effects(self.steps + 1):
            effect(self._context(self.steps + 1))

    def step(self) -> None:
        """Count a training step, keep held weights at zero, and make the update if one is due.

        On an error the step does not count, and what an update had done until then is undone: whoever mends the cause
        may call again.

        Raises
        ------
        ValueError
            After `total_steps` calls; if a part of the recipe lacks what it needs (data, momentum, gradients).
        RuntimeError
            If another Sparsifier was made for one of the layers.
        """
        self._claim.check(self.recipe.name)
        if self.steps >= self.total_steps:
            raise ValueError(
                f"Sparsifier expects at most total_steps={self.total_steps} calls of step(). Train for fewer steps, "
                "or pass epochs × batches per epoch."
            )
        for target in self.targets:
            hold(target.weight, self._slots)
        undo = self._way_back()
        self.steps += 1
        try:
            self._after_step()
        except BaseException:
            undo()
            raise
        self._set_taps()

    def report(self) -> Report:
        """Return the present state of the layers, and what the updates cost so far."""
        recipe, explored = self.recipe, [e.all() for e in self._explored]
        first, past = self._first, self.history
        return make_report(recipe, self.steps, self.targets, first, explored, past, self._due)

    def state_dict(self) -> State:
        """Return what a later run needs to go on bit for bit, beside the states of model and optimizer."""
        n = {"steps": self.steps, "total_steps": self.total_steps, "seed": self._seed}
        explored = [e.all() for e in self._explored]
        return resume.collect(n, self.recipe.name, self.model, self._first, explored, self.history)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; on an error nothing has changed.

        Load the states of model and optimizer first.

        Raises
        ------
        ValueError, RuntimeError
            If something is missing or does not fit; as `step`.
        """
        self._claim.check(self.recipe.name)
        loaded = resume.check(state, self.recipe.name, self.model, self.targets, self.total_steps)
        loaded.apply()
        self.steps, self._seed = loaded.steps, loaded.seed
        self._first, self.history = loaded.first, loaded.history
        self._explored = [Explored(topology) for topology in loaded.explored]
        self._set_taps()

    # ------------------------------------------------------------ what happens after a step

    def _way_back(self) -> Callable[[], None]:
        """Return what undoes the next `_after_step`: copies are kept where an update is made of parts that may fail."""
        recipe, steps, n_records = self.recipe, self.steps, len(self.history)
        explored = [copy(e) for e in self._explored]
        parts = recipe.rounds > 1 or recipe.rewind is not None or self._effects(steps + 1)
        undo = [remember(self.model), self.optimizer._remember()] if self.due and parts else []

        def give_back() -> None:
            self.steps, self._explored = steps, explored
            del self.history[n_records:]
            for part in undo:
                part()

        return give_back

    def _after_step(self) -> None:
        """Do all that follows training step `steps`: rewind copies, the effects, the update or the refresh."""
        recipe, step = self.recipe, self.steps
        if recipe.rewind is not None and step == round(recipe.rewind * self.total_steps):
            keep_copy(self.model.parameters(), REWIND)
        effects, context = self._effects(step), self._context(step)
        for effect in effects if step else ():
            effect.refresh(context, self.optimizer.lr)
        if step in self._due:
            self._update(recipe)
            if recipe.rewind is not None:
                return_to_copy(self.model.parameters(), REWIND, self.optimizer)
                for target in self.targets:
                    hold(target.weight)
                if step == self._due[-1]:
                    forget_copy(self.model.parameters(), REWIND)
        elif self._storage.refresh_every is not None and self._storage.refreshes(step):
            lap = Stopwatch()
            if self._storage.settle(self.targets, step):
                self._record(0, 0.0, lap())
        for effect in effects if step == 0 or step in self._due else ():
            effect.refresh(context, 0.0)  # masks of the new patterns
        if step == self.total_steps:
            for target in self.targets:
                compress(target)
                harden(target)

    def _update(self, recipe: Recipe) -> None:
        """Make one update of `recipe` at the present step, in as many rounds as it says."""
        how = self.total_steps, self._storage, self._slots, self._explored
        self._record(*carry_out(recipe, self._context(self.steps), *how))

    def _record(self, grown: int, choosing: float, moving: float) -> None:
        """Note what an update or a refresh did."""
        counts = tuple(alive_count(target) for target in self.targets)
        self.history.append(Record(self.steps, counts, grown, choosing, moving))

    def _effects(self, step: int) -> tuple[Effect, ...]:
        """Return what acts at training step `step`."""
        recipe = self.recipe
        return recipe.effects if step <= round(recipe.effects_until * self.total_steps) else ()

    def _context(self, step: int) -> Context:
        taps = tuple(target.layer.taps or [] for target in self.targets)
        data = self._loss_fn, self._batches
        return Context(self.model, self.targets, *data, self._seed, step, taps)

    @property
    def _slots(self) -> tuple[str, ...]:
        return tuple(self.optimizer.settings.slots)

    def _set_taps(self) -> None:
        """Let the layers note their gradients in the next step if growth will ask for them."""
        wanted = self.recipe.needs_taps and self.due
        for target in self.targets:
            target.layer.taps = [] if wanted else None
