"""What a training run leaves behind: `History`, an immutable record by epoch and by step."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_MOST_ROWS = 20  # of epochs in the summary
_HEADER = "epoch", "train loss", "val loss", "val accuracy", "seconds", "ms/step", "learning rate"


@final
@dataclass(frozen=True)
class Epoch:
    """One whole epoch; NaN stands for what was not measured.

    Attributes
    ----------
    steps : int
        Mini-batches.
    train_loss : float
        Mean over the samples of the epoch, each with the weights of its own step.
    validation_loss, validation_accuracy : float
        After the epoch; the accuracy is a fraction in [0, 1].
    seconds : float
        The epoch's training, with its updates, without validation and callbacks.
    learning_rate : float
        After the epoch.
    """

    steps: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    learning_rate: float


@final
@dataclass(frozen=True, eq=False)
class History:
    """The record of a run: arrays by name, a table as `str`, JSON and CSV.

    Attributes
    ----------
    epochs : tuple of Epoch
        Whole epochs only: one that was interrupted is in the record by step alone.
    step_loss : (steps,) float64, read-only
        Loss of each mini-batch, before its step.
    step_seconds : (steps,) float64, read-only
        Forward pass, loss, backward pass, optimizer and updates.
    interrupted : bool
        Whether Ctrl-C ended the run.
    stopped : str
        Why a callback ended the run, empty if none did.

    Examples
    --------
    >>> history = History((Epoch(2, 0.5, 0.4, 0.875, 0.004, 0.1),), [0.6, 0.4], [0.002, 0.002])
    >>> history["validation_accuracy"]
    array([0.875])
    >>> print(history)
    epoch  train loss  val loss  val accuracy  seconds  ms/step  learning rate
        1      0.5000    0.4000        87.50%     0.00     2.00            0.1
    2 steps, 2.00 ms/step (median); best validation accuracy 87.50% after epoch 1
    """

    epochs: tuple[Epoch, ...] = ()
    step_loss: Array = field(default_factory=lambda: np.empty(0))
    step_seconds: Array = field(default_factory=lambda: np.empty(0))
    interrupted: bool = False
    stopped: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", tuple(self.epochs))
        for name in _BY_STEP:
            array = np.array(getattr(self, name), np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.step_loss.ndim != 1 or self.step_loss.shape != self.step_seconds.shape:
            raise ValueError(
                "History expects one loss and one time per step; got shapes "
                f"{self.step_loss.shape} and {self.step_seconds.shape}"
            )

    def keys(self) -> tuple[str, ...]:
        """Return the names of the arrays: first those with one entry per epoch, then those per step."""
        return (*_BY_EPOCH, *_BY_STEP)

    def __getitem__(self, name: str) -> Array:
        """Return an array by its name, one entry per epoch or, for `step_...`, per step.

        Raises
        ------
        KeyError
            If there is none of that name.
        """
        if name == "epoch":
            return np.arange(1, len(self.epochs) + 1)
        if name in _BY_EPOCH:
            kind = np.int64 if name == "steps" else np.float64
            return np.array([getattr(epoch, name) for epoch in self.epochs], kind)
        if name in _BY_STEP:
            array: Array = getattr(self, name)
            return array
        raise KeyError(f"History has no {name!r}; it has {', '.join(self.keys())}")

    def to_dict(self) -> dict[str, Any]:
        """Return all arrays as lists, `interrupted` and `stopped`; None stands for what is not finite."""
        lists: dict[str, Any] = {
            name: [_plain(value) for value in self[name].tolist()] for name in self.keys()
        }
        return {**lists, "interrupted": self.interrupted, "stopped": self.stopped}

    def state_dict(self) -> dict[str, Any]:
        """Return all that it holds, arrays as they are, for `of_state`."""
        arrays = {name: self[name] for name in (*_FIELDS, *_BY_STEP)}
        return {**arrays, "interrupted": self.interrupted, "stopped": self.stopped}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> History:
        """Return the history whose `state_dict` this is.

        Raises
        ------
        ValueError, TypeError, KeyError
            If something is missing, or has another length.
        """
        columns = [np.asarray(state[name]).tolist() for name in _FIELDS]
        epochs = tuple(Epoch(*row) for row in zip(*columns, strict=True))
        loss, seconds = (state[name] for name in _BY_STEP)
        return cls(epochs, loss, seconds, bool(state["interrupted"]), str(state["stopped"]))

    def to_json(self, path: str | Path) -> None:
        """Write everything as a JSON object of arrays; null stands for what is not finite."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")

    def to_csv(self, path: str | Path) -> None:
        """Write `csv_text` to a file."""
        Path(path).write_bytes(self.csv_text().encode())

    def csv_text(self) -> str:
        """Return the epochs as CSV, one row each, under a header; empty is what is not finite."""
        columns = [[_plain(value) for value in self[name].tolist()] for name in _BY_EPOCH]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_BY_EPOCH)
        writer.writerows(zip(*columns, strict=True))
        return text.getvalue()

    def __str__(self) -> str:
        n = len(self.epochs)
        shown = np.unique(np.linspace(0, n - 1, min(n, _MOST_ROWS)).round().astype(int))
        rows = [list(_HEADER)] + [_row(i, self.epochs[i]) for i in shown]
        used = [i for i in range(len(_HEADER)) if any(row[i] for row in rows[1:])]
        widths = {i: max(len(row[i]) for row in rows) for i in used}
        lines = ["  ".join(row[i].rjust(widths[i]) for i in used) for row in rows]
        return "\n".join([*(lines if n else []), self._last_line()])

    def _last_line(self) -> str:
        parts = [f"{self.step_loss.size:,} steps"]
        if self.step_seconds.size:
            parts[0] += f", {1e3 * np.median(self.step_seconds):.2f} ms/step (median)"
        accuracy = self["validation_accuracy"]
        if np.isfinite(accuracy).any():
            best = int(np.nanargmax(accuracy))
            parts.append(f"best validation accuracy {accuracy[best]:.2%} after epoch {best + 1}")
        if self.interrupted:
            parts.append("interrupted")
        if self.stopped:
            parts.append(f"stopped: {self.stopped}")
        return "; ".join(parts)


_FIELDS = tuple(f.name for f in fields(Epoch))
_BY_EPOCH = ("epoch", *_FIELDS)
_BY_STEP = ("step_loss", "step_seconds")


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(index: int, epoch: Epoch) -> list[str]:
    """Return an epoch's cells, empty where nothing was measured."""
    loss, accuracy = epoch.validation_loss, epoch.validation_accuracy
    return [
        str(index + 1),
        f"{epoch.train_loss:.4f}",
        "" if math.isnan(loss) else f"{loss:.4f}",
        "" if math.isnan(accuracy) else f"{accuracy:.2%}",
        f"{epoch.seconds:.2f}",
        f"{1e3 * epoch.seconds / epoch.steps:.2f}",
        f"{epoch.learning_rate:.4g}",
    ]
