"""What may take part in a training loop: updates after each step, effects before it, callbacks that look on.

Protocols only: a learning-rate scheduler or a `sparsify.Sparsifier` fits without knowing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

from nnsparse.data import DataLoader
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer
from nnsparse.train.evaluation import LossFunction
from nnsparse.train.history import History


@runtime_checkable
class Update(Protocol):
    """Something that happens after each optimizer step: a schedule, a change of the pattern."""

    def step(self) -> None:
        """Do what is due after this training step."""


@runtime_checkable
class ReplacingUpdate(Protocol):
    """An update that at some steps takes the place of the optimizer's (RigL, Evci et al. 2020, algorithm 1)."""

    @property
    def replaces_step(self) -> bool:
        """Whether the optimizer sits out the present step; asked after the backward pass."""

    def step(self) -> None:
        """Do what is due after this training step."""


@runtime_checkable
class EffectBeforeStep(Protocol):
    """An update that also works on the gradients: decay, penalties."""

    def before_step(self) -> None:
        """Change gradients in place, between the backward pass and the optimizer's step."""


@runtime_checkable
class GradientReducer(Protocol):
    """An update that joins the gradients of several processes (`nnsparse.distributed`).

    All processes run the same loop, and none may end it alone: the others would wait for its gradients.
    """

    def begin(
        self,
        loss_fn: LossFunction,
        optimizer: Optimizer,
        loader: DataLoader,
        settings: Mapping[str, Any],
        /,
    ) -> None:
        """See what is trained on, and settings that all processes have to share, before the first step."""

    def reduce(self, loss: float, weight: float, stop: bool, /) -> tuple[float, float, bool]:
        """Make the gradients those of all processes' samples; return their joint mean loss and total weight.

        Called right after the backward pass, before gradients are clipped or changed by effects. The gradients are
        those of `loss`, the mean over this process' samples, whose weights add up to `weight`; without samples all
        gradients are None and both are 0. `stop` is whether this process wants to end the training; returned is
        whether any does: then all end it after this step.
        """

    def agree(self, stop: bool, /) -> bool:
        """Return whether any process wants to end the training; after each epoch."""

    def step(self) -> None:
        """Do what is due after this training step."""


@final
@dataclass(frozen=True)
class TrainState:
    """What a callback sees after an epoch, or after a step.

    Attributes
    ----------
    model : Module
    optimizer : Optimizer
    epoch : int
        Epochs done.
    epochs : int
        Epochs asked for.
    step : int
        Training steps done.
    steps : int
        Training steps that all the epochs make.
    loss : float
        Of the last step's samples.
    """

    model: Module
    optimizer: Optimizer
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    _record: Callable[[int, int], History] = field(repr=False)
    _stop: Callable[[str], None] = field(repr=False)

    @property
    def history(self) -> History:
        """The record up to here; after an epoch, this epoch's validation included."""
        return self._record(self.epoch, self.step)

    def request_stop(self, reason: str) -> None:
        """End the training after this step or epoch; `History.stopped` tells why."""
        self._stop(reason)


Callback: TypeAlias = Callable[[TrainState], None]  # after each epoch and its validation


@runtime_checkable
class StepCallback(Protocol):
    """A callback that is also called after each step."""

    def after_step(self, state: TrainState) -> None:
        """See the state after a training step, updates included."""

    def __call__(self, state: TrainState) -> None:
        """See the state after an epoch."""


@runtime_checkable
class EndCallback(Protocol):
    """A callback that is also called when the training ends, however it ends, except by an error."""

    def at_end(self, state: TrainState) -> None:
        """See the state at the end."""

    def __call__(self, state: TrainState) -> None:
        """See the state after an epoch."""


@runtime_checkable
class Stateful(Protocol):
    """An update or a callback that has a state, which checkpoints hold."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state: numbers, strings, None, lists, tuples, dicts and arrays of numbers."""

    def load_state_dict(self, state: Any) -> None:
        """Take over what `state_dict` returned."""


@final
@dataclass(frozen=True)
class Hooks:
    """The updates and callbacks of a run, sorted once by what they take part in.

    Attributes
    ----------
    updates, replacing, effects, reducers : tuples
        All of them; those that may replace the optimizer's step; that work on gradients; that join them.
    callbacks, after_step, at_end : tuples
        All of them; those that are also called after each step; at the end.
    """

    updates: tuple[Update, ...]
    replacing: tuple[ReplacingUpdate, ...]
    effects: tuple[EffectBeforeStep, ...]
    reducers: tuple[GradientReducer, ...]
    callbacks: tuple[Callback, ...]
    after_step: tuple[StepCallback, ...]
    at_end: tuple[EndCallback, ...]

    @property
    def stateful_callbacks(self) -> tuple[Callback, ...]:
        """Those whose state is a part of checkpoints."""
        return tuple(callback for callback in self.callbacks if isinstance(callback, Stateful))

    @classmethod
    def of(cls, updates: Iterable[Update], callbacks: Iterable[Callback]) -> Hooks:
        """Return the updates and callbacks sorted.

        Raises
        ------
        TypeError
            If `updates` is no list or tuple, or holds something without `step()`, or an optimizer; if `callbacks` is
            no list or tuple of callables.
        """
        if not isinstance(callbacks, list | tuple) or not all(map(callable, callbacks)):
            raise TypeError(f"fit expects callbacks as a list of callables; got {callbacks!r}")
        for part in (*callbacks, *(updates if isinstance(updates, list | tuple) else ())):
            if isinstance(part, type):
                raise TypeError(
                    f"fit expects objects as updates and callbacks; got the class {part.__name__}. Pass "
                    f"{part.__name__}(...)."
                )
        if not isinstance(updates, list | tuple):
            raise TypeError(
                f"fit expects updates as a list; got {type(updates).__name__}. Pass updates=[...]."
            )
        for update in updates:
            if isinstance(update, Optimizer):
                raise TypeError(
                    f"fit calls the optimizer's step itself; got {type(update).__name__} among the updates. "
                    "Leave it out there."
                )
            if not isinstance(update, Update):
                raise TypeError(
                    f"fit expects updates with a method step(); got {type(update).__name__}. "
                    "Called once per epoch? Pass it among the callbacks."
                )
        return cls(
            tuple(updates),
            tuple(update for update in updates if isinstance(update, ReplacingUpdate)),
            tuple(update for update in updates if isinstance(update, EffectBeforeStep)),
            tuple(update for update in updates if isinstance(update, GradientReducer)),
            tuple(callbacks),
            tuple(callback for callback in callbacks if isinstance(callback, StepCallback)),
            tuple(callback for callback in callbacks if isinstance(callback, EndCallback)),
        )
