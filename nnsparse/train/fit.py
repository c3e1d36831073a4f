"""`fit`: a plain training loop with progress, validation, updates of the pattern, and a record.

What may take part in it is in `hooks`, the record in `history`. A hand-written loop needs none of this: each line of
`_Loop.step` is one call of the public interface.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from time import perf_counter
from typing import Any, final

import numpy as np
from tqdm import tqdm

from nnsparse.data import DataLoader
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer
from nnsparse.sparsify.sparsifier import Sparsifier
from nnsparse.train.evaluation import Data, LossFunction, accuracy, arrays, evaluate
from nnsparse.train.health import check_finite
from nnsparse.train.history import Epoch, History
from nnsparse.train.hooks import Callback, Hooks, TrainState, Update
from nnsparse.train.interrupt import Interrupt, stop_on_interrupt

_REFRESH = 0.2  # seconds between two looks at the progress bar's text


def fit(
    model: Module,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    train_data: DataLoader,
    *,
    epochs: int,
    validation: Data | None = None,
    updates: Sequence[Update] = (),
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> History:
    """Train a model and return the record of it.

    Each step is: forward pass, loss, backward pass, `before_step()` of the updates that have it, `optimizer.step()`
    unless an update replaces it, `step()` of all updates in their order.

    Parameters
    ----------
    model : Module
        Put into training mode if it is in evaluation mode, and back afterwards.
    loss_fn : callable
        (outputs, y) -> a single number, the mean over the mini-batch, such as `nn.CrossEntropyLoss()`.
    optimizer : Optimizer
        Over the model's parameters.
    train_data : DataLoader
        The batch size and the order of the samples are its business; each epoch is one pass over it.
    epochs : int
        At least 1.
    validation : DataLoader or (X, y), optional
        Evaluated after each epoch (`evaluate`).
    updates : sequence of Update
        Called after each step: `optim.LRScheduler`, `sparsify.Sparsifier`.
    callbacks : sequence of callable
        Called with a `TrainState` after each epoch and its validation.
    progress : bool
        Whether to show a progress bar (on stderr): loss and accuracy of the last mini-batches, accuracy of the last
        validation, time per step.

    Returns
    -------
    History
        After Ctrl-C: of what was done until then, the step under way included; a second Ctrl-C raises
        KeyboardInterrupt at once.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.
    NonFiniteLossError
        If a loss is NaN or infinite: before the backward pass, so that the weights are those of the step before.

    Examples
    --------
    >>> from nnsparse import data, nn, optim
    >>> X = np.random.default_rng(0).standard_normal((64, 8), np.float32)
    >>> y = (X[:, 0] > 0).astype(int)
    >>> model = nn.mlp([8, 16, 2], sparsity=0.5, rng=0)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    >>> loader = data.DataLoader((X, y), batch_size=16, rng=0)
    >>> history = fit(
    ...     model, nn.CrossEntropyLoss(), optimizer, loader, epochs=10, validation=(X, y), progress=False
    ... )
    >>> bool(history["validation_accuracy"][-1] > 0.9)
    True
    """
    _check(model, loss_fn, optimizer, train_data, epochs, callbacks)
    if validation is not None:
        arrays("fit (validation)", validation)
    hooks, total = Hooks.of(updates), epochs * len(train_data)
    for update in hooks.updates:
        if isinstance(update, Sparsifier):
            _check_sparsifier(update, model, total)
    loop = _Loop(model, loss_fn, optimizer, train_data, epochs, hooks)
    resting = not model.training
    if resting:
        model.train()
    try:
        with (
            tqdm(total=total, unit="step", mininterval=_REFRESH, disable=not progress) as bar,
            stop_on_interrupt() as interrupt,
        ):
            for epoch in range(1, epochs + 1):
                loop.epoch(validation, bar, interrupt)
                if len(loop.epochs) == epoch:
                    for callback in callbacks:
                        callback(loop.state(interrupt))
                if interrupt.requested:
                    break
    finally:
        if resting:
            model.eval()
    return loop.history(interrupt)


@final
class _Loop:
    """The parts of a run and what it has recorded so far."""

    def __init__(
        self,
        model: Module,
        loss_fn: LossFunction,
        optimizer: Optimizer,
        loader: DataLoader,
        n_epochs: int,
        hooks: Hooks,
    ) -> None:
        self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer
        self.loader, self.n_epochs, self.hooks = loader, n_epochs, hooks
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.epochs: list[Epoch] = []

    def history(self, interrupt: Interrupt) -> History:
        """Return the record so far."""
        return History(
            tuple(self.epochs), np.array(self.losses), np.array(self.seconds), interrupt.requested
        )

    def state(self, interrupt: Interrupt) -> TrainState:
        """Return what callbacks see."""
        return TrainState(
            self.model,
            self.optimizer,
            len(self.epochs),
            self.n_epochs,
            len(self.losses),
            self.history(interrupt),
        )

    def epoch(self, validation: Data | None, bar: Any, interrupt: Interrupt) -> None:
        """Train for one epoch and validate; record it by epoch only if it came to its end."""
        first, samples = len(self.losses), []
        start = shown = perf_counter()
        for x, y in self.loader:
            outputs = self.step(x, y)
            samples.append(len(y))
            bar.update()
            if not bar.disable and perf_counter() - shown > _REFRESH:
                bar.set_postfix_str(self._text(outputs, y), refresh=False)
                shown = perf_counter()
            if interrupt.requested:
                break
        seconds = perf_counter() - start
        if len(samples) < len(self.loader):
            return
        loss = float(np.average(self.losses[first:], weights=samples))
        found = (
            (np.nan, np.nan)
            if validation is None
            else evaluate(self.model, self.loss_fn, validation)
        )
        self.epochs.append(Epoch(len(samples), loss, *found, seconds, self.optimizer.lr))
        bar.set_postfix_str(self._text(outputs, y))

    def step(self, x: Any, y: Any) -> Any:
        """Train on one mini-batch; return the outputs."""
        start = perf_counter()
        outputs = self.model(x)
        loss = self.loss_fn(outputs, y)
        self.losses.append(check_finite(loss, self.model, len(self.losses), self.optimizer))
        self.optimizer.zero_grad()
        loss.backward()
        for effect in self.hooks.effects:
            effect.before_step()
        if not any(update.replaces_step for update in self.hooks.replacing):
            self.optimizer.step()
        for update in self.hooks.updates:
            update.step()
        self.seconds.append(perf_counter() - start)
        return outputs

    def _text(self, outputs: Any, y: Any) -> str:
        """Return what the progress bar says beside the count of steps."""
        recent = slice(-20, None)
        parts = [f"epoch {min(len(self.epochs) + 1, self.n_epochs)}/{self.n_epochs}"]
        parts.append(f"loss {np.mean(self.losses[recent]):.3f}")
        batch = accuracy(outputs.numpy(), np.asarray(y), self.loss_fn)
        if np.isfinite(batch):
            parts.append(f"batch acc {batch:.1%}")
        if self.epochs and np.isfinite(self.epochs[-1].validation_accuracy):
            parts.append(f"val acc {self.epochs[-1].validation_accuracy:.2%}")
        return ", ".join([*parts, f"{1e3 * np.median(self.seconds[recent]):.2f} ms/step"])


def _check_sparsifier(sparsifier: Sparsifier, model: Module, steps: int) -> None:
    """Refuse one of another model, or for a shorter training; warn if its training is longer."""
    if sparsifier.model is not model:
        raise ValueError(
            "fit expects updates for the model that it trains; got a Sparsifier of another one."
        )
    left = sparsifier.total_steps - sparsifier.steps
    if left < steps:
        raise ValueError(
            f"fit makes {steps} steps, epochs × batches per epoch, but the Sparsifier has {left} left: "
            f"total_steps={sparsifier.total_steps}, {sparsifier.steps} done. Make it with total_steps="
            f"{sparsifier.steps + steps}."
        )
    if left > steps:
        warnings.warn(
            f"fit makes {steps} steps, and the Sparsifier has {left} left (total_steps={sparsifier.total_steps}): its "
            "recipe will not have come to its end. Call fit again, or pass total_steps=epochs × len(loader).",
            stacklevel=3,
        )


def _check(
    model: Any, loss_fn: Any, optimizer: Any, train_data: Any, epochs: Any, callbacks: Any
) -> None:
    """Refuse arguments that would fail only later, or differently."""
    if not isinstance(model, Module):
        raise TypeError(f"fit expects a model (nn.Module); got {type(model).__name__}")
    if not callable(loss_fn):
        raise TypeError(
            f"fit expects loss_fn to be callable, as nn.CrossEntropyLoss(); got {loss_fn!r}"
        )
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit expects an optimizer; got {type(optimizer).__name__}")
    if not isinstance(train_data, DataLoader):
        raise TypeError(
            f"fit expects train_data as a DataLoader; got {type(train_data).__name__}. "
            "Pass data.DataLoader((X, y), batch_size=...)."
        )
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 1:
        raise ValueError(f"fit expects epochs as an integer >= 1; got {epochs!r}")
    if not isinstance(callbacks, list | tuple) or not all(map(callable, callbacks)):
        raise TypeError(f"fit expects callbacks as a list of callables; got {callbacks!r}")
