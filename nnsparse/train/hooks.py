"""What may take part in a training loop: updates after each step, effects before it, callbacks after each epoch.

Protocols only: a learning-rate scheduler or a `sparsify.Sparsifier` fits without knowing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, final, runtime_checkable

from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer
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


@final
@dataclass(frozen=True)
class TrainState:
    """What a callback sees after an epoch.

    Attributes
    ----------
    model : Module
    optimizer : Optimizer
    epoch : int
        Epochs done, from 1.
    epochs : int
        Epochs asked for.
    step : int
        Training steps done.
    history : History
        The record so far, this epoch's validation included.
    """

    model: Module
    optimizer: Optimizer
    epoch: int
    epochs: int
    step: int
    history: History


Callback: TypeAlias = Callable[[TrainState], None]


@final
@dataclass(frozen=True)
class Hooks:
    """The updates of a run, sorted once by what they take part in.

    Attributes
    ----------
    updates, replacing, effects : tuples
        All of them; those that may replace the optimizer's step; those that work on gradients.
    """

    updates: tuple[Update, ...]
    replacing: tuple[ReplacingUpdate, ...]
    effects: tuple[EffectBeforeStep, ...]

    @classmethod
    def of(cls, updates: Iterable[Update]) -> Hooks:
        """Return the updates sorted.

        Raises
        ------
        TypeError
            If `updates` is no list or tuple, or holds something without `step()`, or an optimizer.
        """
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
        )
