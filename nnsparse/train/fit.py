"""`fit`: a plain training loop with progress, validation, updates of the pattern, and a record.

What may take part in it is in `hooks`, the loop itself in `loop`, the record in `history`. A hand-written loop needs
none of this: each line of `Loop._step` is one call of the public interface.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnsparse.data import DataLoader
from nnsparse.nn.module import Module
from nnsparse.optim.clipping import check_max_norm
from nnsparse.optim.optimizer import Optimizer
from nnsparse.sparsify.sparsifier import Sparsifier
from nnsparse.train.callbacks import EarlyStopping
from nnsparse.train.checkpoint import Checkpoint, Keeper
from nnsparse.train.evaluation import Data, LossFunction, rehearse
from nnsparse.train.history import History
from nnsparse.train.hooks import Callback, Hooks, Update
from nnsparse.train.interrupt import stop_on_interrupt
from nnsparse.train.loop import Loop
from nnsparse.train.progress import Progress


def fit(
    model: Module,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    train_data: DataLoader,
    *,
    epochs: int,
    validation: Data | float | None = None,
    updates: Sequence[Update] = (),
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    accumulate: int = 1,
    clip_norm: float | None = None,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train a model and return the record of it.

    Each step is: forward pass, loss and backward pass of one mini-batch or more, `before_step()` of the updates that
    have it, clipping, `optimizer.step()` unless an update replaces it, `step()` of all updates in their order.

    Parameters
    ----------
    model : Module
        Put into training mode if it is in evaluation mode, and back afterwards.
    loss_fn : callable
        (outputs, y) -> a single number, the mean over the mini-batch, such as `nn.CrossEntropyLoss()`; with sample
        weights (outputs, y, weights), the weighted mean.
    optimizer : Optimizer
        Over the model's parameters.
    train_data : DataLoader
        The batch size, the order of the samples and their weights are its business; each epoch is one pass over it.
    epochs : int
        At least 1.
    validation : DataLoader, (X, y), (X, y, sample_weight) or float in (0, 1), optional
        Evaluated after each epoch (`evaluate`). A fraction is taken out of `train_data`, as `train_data.split` does.
    updates : sequence of Update
        Called after each step: `optim.LRScheduler`, `sparsify.Sparsifier`.
    callbacks : sequence of callable
        Called with a `TrainState` after each epoch and its validation; those with a method `after_step` or `at_end`
        also then. Ready-made: `EarlyStopping`, `CSVLog`, `JSONLinesLog`, `SparsityLog`.
    progress : bool
        Whether to show a progress bar (on stderr): loss and accuracy of the last mini-batches, accuracy of the last
        validation, time per step, time left.
    accumulate : int
        Mini-batches for one step, whose gradient is that of all their samples together; at the end of an epoch fewer.
    clip_norm : float, optional
        Largest Euclidean norm of all gradients together (`optim.clip_grad_norm`).
    checkpoint : train.Checkpoint, optional
        Where and how often to save the run; if the file exists, the run goes on from it, bit for bit.

    Returns
    -------
    History
        After Ctrl-C, or when a callback asked for it: of what was done until then, the step under way included; a
        second Ctrl-C raises KeyboardInterrupt at once.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above; if the checkpoint's file is damaged or of another run.
    OSError
        If the checkpoint cannot be written; the file before it is as it was.
    NonFiniteLossError
        If a loss, or the norm that is to be clipped, is NaN or infinite: the weights are those of the step before.

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
    _check(model, loss_fn, optimizer, train_data, epochs, accumulate, checkpoint)
    if clip_norm is not None:
        clip_norm = check_max_norm("fit (clip_norm)", clip_norm)
    hooks = Hooks.of(updates, callbacks)
    saved = None if checkpoint is None else checkpoint.found()
    whole = train_data
    if isinstance(validation, float | np.floating):
        train_data, validation = train_data.split(
            float(validation), None if saved is None else saved.seed
        )
    elif validation is not None:
        rehearse("fit (validation)", model, loss_fn, validation)
    loop = Loop(
        model,
        loss_fn,
        optimizer,
        train_data,
        int(epochs),
        hooks,
        accumulate=int(accumulate),
        clip_norm=clip_norm,
    )
    for update in hooks.updates:
        if isinstance(update, Sparsifier):
            _check_sparsifier(update, model, loop.total_steps if saved is None else None)
    for callback in hooks.callbacks:
        if isinstance(callback, EarlyStopping):
            callback.begin(validation is not None)
    keeper = None if checkpoint is None else Keeper(checkpoint, loop, validation)
    resting = not model.training
    if resting:
        model.train()
    try:
        if keeper is not None and saved is not None and keeper.resume(saved):
            return loop.history()
        with (
            Progress(loop.total_steps, len(loop.losses), progress) as bar,
            stop_on_interrupt() as interrupt,
        ):
            loop.run(validation, bar, interrupt, keeper)
    finally:
        whole.epoch = train_data.epoch
        if resting:
            model.eval()
    return loop.history(interrupt.requested)


def _check_sparsifier(sparsifier: Sparsifier, model: Module, steps: int | None) -> None:
    """Refuse one of another model, or for a shorter training; warn if its training is longer."""
    if sparsifier.model is not model:
        raise ValueError(
            "fit expects updates for the model that it trains; got a Sparsifier of another one."
        )
    if steps is None:  # the run is resumed, and its settings are compared
        return
    left = sparsifier.total_steps - sparsifier.steps
    if left < steps:
        raise ValueError(
            f"fit makes {steps} steps, epochs × steps per epoch, but the Sparsifier has {left} left: "
            f"total_steps={sparsifier.total_steps}, {sparsifier.steps} done. Make it with total_steps="
            f"{sparsifier.steps + steps}."
        )
    if left > steps:
        warnings.warn(
            f"fit makes {steps} steps, and the Sparsifier has {left} left (total_steps={sparsifier.total_steps}): its "
            "recipe will not have come to its end. Call fit again, or pass total_steps=epochs × steps per epoch.",
            stacklevel=3,
        )


def _check(
    model: Any,
    loss_fn: Any,
    optimizer: Any,
    train_data: Any,
    epochs: Any,
    accumulate: Any,
    checkpoint: Any,
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
    own = {id(p) for p in model.parameters()}
    others = [p for p in optimizer.params if id(p) not in own]
    if len(others) == len(optimizer.params):
        raise ValueError(
            "fit expects an optimizer over the model's parameters; got one that has none of them. Make it from "
            "model.parameters(), after the last change of the model's layers."
        )
    if not isinstance(train_data, DataLoader):
        raise TypeError(
            f"fit expects train_data as a DataLoader; got {type(train_data).__name__}. "
            "Pass data.DataLoader((X, y), batch_size=...)."
        )
    for name, value in (("epochs", epochs), ("accumulate", accumulate)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"fit expects {name} as an integer >= 1; got {value!r}")
    if not isinstance(checkpoint, Checkpoint | None):
        raise TypeError(
            f"fit expects checkpoint as a train.Checkpoint; got {checkpoint!r}. Pass train.Checkpoint(path)."
        )
    if checkpoint is not None and others:
        raise ValueError(
            f"fit with a checkpoint expects an optimizer over the model's parameters only; {len(others)} of its "
            f"{len(optimizer.params)} are not the model's, and the file would not hold them. Add them to the model."
        )
