"""Callbacks that steer a run: `EarlyStopping`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nnsparse.sparsify.holding import give_masks, masks_of
from nnsparse.train.hooks import TrainState

_MONITORS = {  # what may be watched -> whether more is better
    "train_loss": False,
    "validation_loss": False,
    "validation_accuracy": True,
}
_WEIGHTS, _MASKS = "weights.", "masks."


@final
class EarlyStopping:
    """End the training when a figure has stopped improving, and go back to the best weights.

    Parameters
    ----------
    monitor : "validation_loss", "validation_accuracy" or "train_loss"
        A name of `History`: a loss is to fall, the accuracy to rise.
    patience : int
        Epochs without an improvement after which the training ends, at least 1.
    min_delta : float
        By how much at least the figure has to be better than the best so far.
    restore_best : bool
        Whether the model ends with the weights, topologies, buffers and masks of its best epoch, unless the training
        ends by an error. (The optimizer's state follows the weights that stay.) What a recipe masks is dropped for good
        if the recipe has come to its end in the meantime.

    Attributes
    ----------
    best : float
        Best figure so far, NaN before the first epoch.
    best_epoch : int
        Its epoch, counted from 1.

    Raises
    ------
    ValueError, TypeError
        If a setting is not as said above; of `fit`, if the run has no such figure.

    Notes
    -----
    Source: Prechelt, Early stopping, but when?, 1998 (criterion UP with strips of one epoch, by the best figure).

    Examples
    --------
    >>> from nnsparse import data, nn, optim, train
    >>> X = np.random.default_rng(0).standard_normal((64, 8), np.float32)
    >>> y = np.random.default_rng(1).integers(0, 2, 64)  # nothing to learn
    >>> model = nn.mlp([8, 64, 2], rng=0)
    >>> stopping = EarlyStopping(patience=3)
    >>> history = train.fit(
    ...     model,
    ...     nn.CrossEntropyLoss(),
    ...     optim.Adam(model.parameters(), lr=0.01),
    ...     data.DataLoader((X, y), batch_size=8, rng=0),
    ...     epochs=100,
    ...     validation=0.25,
    ...     callbacks=[stopping],
    ...     progress=False,
    ... )
    >>> len(history.epochs) == stopping.best_epoch + 3 < 100
    True
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        if not isinstance(monitor, str) or monitor not in _MONITORS:
            raise ValueError(
                f"EarlyStopping expects monitor as one of {sorted(_MONITORS)}; got {monitor!r}"
            )
        whole = isinstance(patience, int | np.integer) and not isinstance(patience, bool)
        if not whole or patience < 1:
            raise ValueError(f"EarlyStopping expects patience as an integer >= 1; got {patience!r}")
        number = isinstance(min_delta, int | float | np.number)
        if not number or not 0.0 <= min_delta < math.inf:
            raise ValueError(
                f"EarlyStopping expects min_delta as a number from 0 on; got {min_delta!r}"
            )
        if not isinstance(restore_best, bool):
            raise ValueError(
                f"EarlyStopping expects restore_best as True or False; got {restore_best!r}"
            )
        self.monitor, self.patience, self.min_delta = monitor, int(patience), float(min_delta)
        self.restore_best = restore_best
        self.best, self.best_epoch = math.nan, 0
        self._weights: dict[str, NDArray[Any]] = {}
        self._masks: dict[str, NDArray[Any]] = {}

    def begin(self, validated: bool) -> None:
        """Forget an earlier run, before the first step of one with validation or without.

        Raises
        ------
        ValueError
            If this run cannot have the figure.
        """
        if not validated and self.monitor != "train_loss":
            raise ValueError(
                f"EarlyStopping watches {self.monitor}, which this run does not measure. Pass validation=... to fit, "
                'or monitor="train_loss".'
            )
        self.best, self.best_epoch = math.nan, 0
        self._weights, self._masks = {}, {}

    def __call__(self, state: TrainState) -> None:
        """Compare this epoch's figure with the best one."""
        value = getattr(state.history.epochs[-1], self.monitor)
        if math.isnan(value):
            reason = (
                "accuracy means nothing for this loss and these targets; see train.evaluate"
                if self.monitor == "validation_accuracy"
                else "look at the validation data, or whether the training diverges"
            )
            raise ValueError(
                f"EarlyStopping watches {self.monitor}, which is NaN after epoch {state.epoch}: {reason}."
            )
        sign = 1.0 if _MONITORS[self.monitor] else -1.0
        if math.isnan(self.best) or sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch = value, state.epoch
            if self.restore_best:
                self._weights, self._masks = state.model.state_dict(), masks_of(state.model)
        elif state.epoch - self.best_epoch >= self.patience:
            name = self.monitor.replace("_", " ")
            state.request_stop(
                f"{name} has not improved on {self.best:.4g} of epoch {self.best_epoch} for "
                f"{self.patience} epochs"
            )

    def at_end(self, state: TrainState) -> None:
        """Give the model its best weights back."""
        if self._weights:
            present = masks_of(state.model)  # none once the recipe has come to its end
            state.model.load_state_dict(self._weights)
            give_masks(state.model, self._masks, present)
            self._weights, self._masks = {}, {}

    @property
    def settings(self) -> dict[str, Any]:
        """What decides where a run ends and with which weights."""
        names = "monitor", "patience", "min_delta", "restore_best"
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Return best figure, its epoch and its weights, for a checkpoint."""
        weights = {_WEIGHTS + name: array for name, array in self._weights.items()}
        masks = {_MASKS + name: array for name, array in self._masks.items()}
        return {"best": self.best, "best_epoch": self.best_epoch, **weights, **masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises
        ------
        ValueError
            If something is missing or unknown.
        """
        others = {key for key in state if not key.startswith((_WEIGHTS, _MASKS))}
        if others != {"best", "best_epoch"}:
            raise ValueError(
                f"EarlyStopping expects a state with best, best_epoch and weights; got {sorted(others)}"
            )
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])
        self._weights, self._masks = (
            {key.removeprefix(p): np.array(state[key]) for key in state if key.startswith(p)}
            for p in (_WEIGHTS, _MASKS)
        )
