"""The training loop that `fit` runs: where it stands, one step, one epoch.

Everything that a run has to remember between two steps is an attribute of `Loop`, so that it can be saved and put back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, final

import numpy as np

from nnsparse.autograd import no_grad
from nnsparse.data import DataLoader
from nnsparse.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from nnsparse.nn.module import Module
from nnsparse.optim.clipping import clip_grad_norm
from nnsparse.optim.optimizer import Optimizer
from nnsparse.train.evaluation import Data, LossFunction, evaluate
from nnsparse.train.health import check_finite, check_norm
from nnsparse.train.history import Epoch, History
from nnsparse.train.hooks import Hooks, TrainState
from nnsparse.train.interrupt import Interrupt
from nnsparse.train.progress import Progress, Seen

if TYPE_CHECKING:
    from nnsparse.train.checkpoint import Keeper


@final
class Loop:
    """The parts of a run, and how far it has come.

    Attributes
    ----------
    losses, weights, seconds : list of float
        Of each step: mean loss, total weight of its samples, duration.
    epochs : list of Epoch
        Whole ones.
    batches_done : int
        Mini-batches of the present epoch that were trained on; its number is `loader.epoch` − 1 as soon as it has
        begun.
    stopped : str
        Why a callback wants to end the run.
    ending : bool
        Whether the run ends now; of several processes, whether all have agreed on it.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: LossFunction,
        optimizer: Optimizer,
        loader: DataLoader,
        n_epochs: int,
        hooks: Hooks,
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
    ) -> None:
        self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer
        self.loader, self.n_epochs, self.hooks = loader, n_epochs, hooks
        self.accumulate, self.clip_norm = accumulate, clip_norm
        self.steps_per_epoch = -(-len(loader) // accumulate)
        self.losses: list[float] = []
        self.weights: list[float] = []
        self.seconds: list[float] = []
        self.epochs: list[Epoch] = []
        self.batches_done = 0
        self.stopped = ""
        self.ending = False

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.n_epochs * self.steps_per_epoch

    def run(
        self,
        validation: Data | None,
        progress: Progress,
        interrupt: Interrupt,
        keeper: Keeper | None = None,
    ) -> None:
        """Train until all epochs are done, or somebody wants to end it; begin where the attributes say."""
        self._keeper = keeper
        settings = {
            "epochs": self.n_epochs,
            "accumulate": self.accumulate,
            "clip_norm": self.clip_norm,
            "steps done": len(self.losses),
        }
        for reducer in self.hooks.reducers:
            reducer.begin(self.loss_fn, self.optimizer, self.loader, settings)
        whole = self.batches_done == len(self.loader)  # saved before the epoch's validation
        while len(self.epochs) < self.n_epochs and (whole or not self.ending):
            whole = False
            if self._epoch(validation, progress, interrupt):
                state = self.state()
                for callback in self.hooks.callbacks:
                    callback(state)
                if keeper is not None:
                    keeper.after_epoch()
            self.ending = self._wants_to_end(interrupt)
            for reducer in self.hooks.reducers:
                self.ending = reducer.agree(self.ending)
        finished = len(self.epochs) == self.n_epochs or bool(self.stopped)
        if keeper is not None and not finished:
            keeper.save()  # before callbacks go back to other weights
        if self.ending and not self._wants_to_end(interrupt):
            self._request_stop("another process asked for it")
        for ending in self.hooks.at_end:
            ending.at_end(self.state())
        if keeper is not None and finished:
            keeper.save(finished=True)

    def history(self, interrupted: bool = False) -> History:
        """Return the record so far."""
        return self._record(len(self.epochs), len(self.losses), interrupted)

    def state(self) -> TrainState:
        """Return what callbacks see."""
        return TrainState(
            self.model,
            self.optimizer,
            len(self.epochs),
            self.n_epochs,
            len(self.losses),
            self.total_steps,
            self.losses[-1] if self.losses else math.nan,
            self._record,
            self._request_stop,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return how far the run has come."""
        return {
            "history": self.history(),
            "weights": np.array(self.weights),
            "batches_done": self.batches_done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a `state_dict` was taken; on an error nothing has changed.

        Raises
        ------
        ValueError
            If its numbers contradict each other.
        """
        history, weights, batches = state["history"], state["weights"], state["batches_done"]
        steps = len(history.epochs) * self.steps_per_epoch + -(-batches // self.accumulate)
        lengths = history.step_loss.size, weights.size
        if lengths != (steps, steps) or not 0 <= batches <= len(self.loader):
            raise ValueError(
                f"{len(history.epochs)} epochs and {batches} mini-batches make {steps} steps; got {lengths}."
            )
        self.losses, self.seconds = history.step_loss.tolist(), history.step_seconds.tolist()
        self.weights, self.epochs = weights.tolist(), list(history.epochs)
        self.batches_done, self.stopped = batches, history.stopped
        self.ending = bool(self.stopped)  # saved between the wish to end and the end

    # ------------------------------------------------------------ the parts

    def _record(self, epochs: int, steps: int, interrupted: bool = False) -> History:
        return History(
            tuple(self.epochs[:epochs]),
            np.array(self.losses[:steps]),
            np.array(self.seconds[:steps]),
            interrupted,
            self.stopped,
        )

    def _wants_to_end(self, interrupt: Interrupt) -> bool:
        return interrupt.requested or bool(self.stopped)

    def _request_stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason

    def _epoch(self, validation: Data | None, progress: Progress, interrupt: Interrupt) -> bool:
        """Train to the end of an epoch, validate and record it; return whether it came to its end."""
        if self.batches_done == 0:
            self.loader.epoch += 1
        batches = self.loader.batches(self.loader.epoch - 1, self.batches_done)
        while group := list(islice(batches, self.accumulate)):
            shown = self._step(group, interrupt)
            self.batches_done += len(group)
            progress.after_step(self, shown)
            if self.hooks.after_step:
                state = self.state()
                for callback in self.hooks.after_step:
                    callback.after_step(state)
            if self._keeper is not None:
                self._keeper.after_step()
            if not self.hooks.reducers:
                self.ending = self._wants_to_end(interrupt)
            if self.ending:
                break
        if self.batches_done < len(self.loader):
            return False
        first = len(self.losses) - self.steps_per_epoch
        weights = self.weights[first:]
        loss = np.average(self.losses[first:], weights=weights) if any(weights) else np.nan
        found = (
            (np.nan, np.nan)
            if validation is None
            else evaluate(self.model, self.loss_fn, validation)
        )
        seconds = sum(self.seconds[first:])
        record = Epoch(self.steps_per_epoch, float(loss), *found, seconds, self.optimizer.lr)
        self.epochs.append(record)
        self.batches_done = 0
        progress.after_epoch(self)
        return True

    def _step(self, group: Sequence[tuple[Any, ...]], interrupt: Interrupt) -> Seen | None:
        """Train on one group of mini-batches; return the last one that has samples, with its outputs."""
        start = perf_counter()
        seen, loss, weight = self._gradients(group)
        for reducer in self.hooks.reducers:
            wish = self._wants_to_end(interrupt)
            loss, weight, self.ending = reducer.reduce(loss, weight, wish)
        for effect in self.hooks.effects:
            effect.before_step()
        if self.clip_norm is not None:
            norm = clip_grad_norm(self.optimizer.params, self.clip_norm)
            check_norm(norm, self.model, len(self.losses), self.optimizer)
        if not any(update.replaces_step for update in self.hooks.replacing):
            self.optimizer.step()
        for update in self.hooks.updates:
            update.step()
        self.losses.append(loss)
        self.weights.append(weight)
        self.seconds.append(perf_counter() - start)
        return seen

    def _gradients(self, group: Sequence[tuple[Any, ...]]) -> tuple[Seen | None, float, float]:
        """Set all gradients to those of the group's mean loss; return what was seen, mean loss and total weight."""
        weights = [_total_weight(self.loss_fn, *batch[1:]) for batch in group]
        total = sum(weights)
        seen, mean = None, 0.0
        self.optimizer.zero_grad()
        for batch, weight in zip(group, weights, strict=True):
            if not len(batch[1]):  # a process' empty part of a small mini-batch
                self._sit_out()
                continue
            outputs = self.model(batch[0])
            seen = outputs, batch
            loss = self.loss_fn(outputs, *batch[1:])
            value = check_finite(loss, self.model, len(self.losses), self.optimizer)
            if len(group) == 1:
                loss.backward()
                return seen, value, total
            share = weight / total if total else 0.0
            (loss * share).backward()
            mean += value * share
        return seen, mean, total

    def _sit_out(self) -> None:
        """Draw the random numbers of a forward pass, on any sample, as the processes that have samples do.

        So all generators stay equally far on, and a checkpoint, which holds those of one process, serves all.
        """
        with no_grad():
            self.model(self.loader.rows.part(slice(0, 1)))


def _total_weight(loss_fn: LossFunction, y: Any, weights: Any = None) -> float:
    """Return the weight of a mini-batch in a mean over several."""
    if isinstance(loss_fn, CrossEntropyLoss | MSELoss | BCEWithLogitsLoss):
        return loss_fn.total_weight(y, weights)
    return float(len(y) if weights is None else weights.sum())
