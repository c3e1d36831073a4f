"""Callbacks that write down how a run goes: `CSVLog`, `JSONLinesLog`, `SparsityLog`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from nnsparse.atomic import replaced
from nnsparse.parameter import SparseParameter
from nnsparse.sparsify.sparsifier import Sparsifier
from nnsparse.train.history import Epoch
from nnsparse.train.hooks import TrainState

_Path = str | os.PathLike[str]


@final
class CSVLog:
    """Write the epochs so far to a CSV file after each one, as `History.to_csv` does.

    Parameters
    ----------
    path : path
        Overwritten. Its folder has to exist.

    Raises
    ------
    OSError
        If the file cannot be written: when the log is made, not only after the first epoch.
    """

    def __init__(self, path: _Path) -> None:
        self._path = _writable(path)

    def __call__(self, state: TrainState) -> None:
        """Write the file anew; whoever reads it never sees half of it."""
        with replaced(self._path) as file:
            file.write(state.history.csv_text().encode())


@final
class _Lines:
    """A text file that grows line by line, and can be cut back to where a checkpoint was taken."""

    def __init__(self, path: _Path) -> None:
        self.path, self.size = _writable(path), 0

    def write(self, text: str) -> None:
        """Append a line; the first one of a run begins the file anew."""
        with self.path.open("r+b" if self.size else "wb") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(text.encode() + b"\n")
            self.size = file.tell()

    def restore(self, who: str, state: Mapping[str, Any]) -> None:
        """Go back to a size that was saved; what was written after it goes away with the next line."""
        if set(state) != {"size"} or int(state["size"]) < 0:
            raise ValueError(f"{who} expects a state with size, at least 0; got {dict(state)}")
        size = int(state["size"])
        if size and not self.path.exists():
            warnings.warn(
                f"{who}: {self.path} had {size} bytes when the checkpoint was taken, and is not there. It begins anew, "
                "where the run goes on.",
                stacklevel=4,
            )
            size = 0
        present = self.path.stat().st_size if size else 0
        if present < size:
            raise ValueError(
                f"{who}: the checkpoint was taken when {self.path} had {size} bytes; it has {present}. "
                "Restore that file, or resume with a log at another path."
            )
        self.size = size


@final
class JSONLinesLog:
    """Append a line of JSON to a file after each epoch and, if asked for, after every so many steps.

    Lines of epochs have "epoch", "step" and the fields of `Epoch`, those of steps "step" and "loss"; null stands for
    what is not finite. A run that is resumed from a checkpoint goes on where the checkpoint was taken.

    Parameters
    ----------
    path : path
        Begun anew with the first line. Its folder has to exist.
    every_steps : int, optional
        Steps from one line to the next.

    Raises
    ------
    OSError
        If the file cannot be written: when the log is made, not only at the first line.
    ValueError
        If `every_steps` is no integer from 1 on.
    """

    def __init__(self, path: _Path, every_steps: int | None = None) -> None:
        bad = isinstance(every_steps, bool) or not isinstance(every_steps, int | np.integer | None)
        if bad or (every_steps is not None and every_steps < 1):
            raise ValueError(
                f"JSONLinesLog expects every_steps as an integer >= 1; got {every_steps!r}"
            )
        self._every = every_steps
        self._lines = _Lines(path)

    def after_step(self, state: TrainState) -> None:
        """Write the step's line if one is due."""
        if self._every is not None and state.step % self._every == 0:
            self._write({"step": state.step, "loss": state.loss})

    def __call__(self, state: TrainState) -> None:
        """Write the epoch's line."""
        epoch = state.history.epochs[-1]
        values = {name: getattr(epoch, name) for name in Epoch.__dataclass_fields__}
        self._write({"epoch": state.epoch, "step": state.step, **values})

    def _write(self, values: Mapping[str, float]) -> None:
        plain = {name: v if math.isfinite(v) else None for name, v in values.items()}
        self._lines.write(json.dumps(plain))

    def state_dict(self) -> dict[str, int]:
        """Return how much has been written, for a checkpoint."""
        return {"size": self._lines.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the checkpoint was taken; a file that is gone begins anew, a shorter one is a ValueError."""
        self._lines.restore("JSONLinesLog", state)


@final
class SparsityLog:
    """Append a row for each sparse layer to a CSV file after each epoch: epoch, step, layer, size, nnz, density, ...

    Parameters
    ----------
    path : path
        Begun anew with the first row. Its folder has to exist.
    sparsifier : Sparsifier, optional
        Whose report to write, which adds dead neurons, overlap with the first mask and the exploration rate. By
        default the stored weights of the model's sparse parameters are counted.

    Raises
    ------
    OSError
        If the file cannot be written: when the log is made, not only at the first row.
    """

    def __init__(self, path: _Path, sparsifier: Sparsifier | None = None) -> None:
        if sparsifier is not None and not isinstance(sparsifier, Sparsifier):
            raise TypeError(f"SparsityLog expects a Sparsifier; got {type(sparsifier).__name__}")
        self._sparsifier = sparsifier
        self._lines = _Lines(path)

    def __call__(self, state: TrainState) -> None:
        """Write one row per layer."""
        extra = self._sparsifier is not None
        rows = _reported(self._sparsifier) if self._sparsifier is not None else _stored(state)
        if self._lines.size == 0:
            more = ("dead", "overlap", "explored") if extra else ()
            self._row(("epoch", "step", "layer", "size", "nnz", "density", *more))
        for row in rows:
            self._row((state.epoch, state.step, *row))

    def _row(self, cells: tuple[Any, ...]) -> None:
        row = io.StringIO(newline="")
        csv.writer(row, lineterminator="").writerow(cells)
        self._lines.write(row.getvalue())

    def state_dict(self) -> dict[str, int]:
        """Return how much has been written, for a checkpoint."""
        return {"size": self._lines.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the checkpoint was taken; a file that is gone begins anew, a shorter one is a ValueError."""
        self._lines.restore("SparsityLog", state)


def _reported(sparsifier: Sparsifier) -> list[tuple[Any, ...]]:
    return [
        (
            layer.name,
            layer.shape[0] * layer.shape[1],
            layer.nnz,
            layer.density,
            layer.dead,
            layer.overlap,
            layer.explored,
        )
        for layer in sparsifier.report().layers
    ]


def _stored(state: TrainState) -> list[tuple[Any, ...]]:
    return [
        (name, p.topology.shape[0] * p.topology.shape[1], p.topology.nnz, p.topology.density)
        for name, p in state.model.named_parameters()
        if isinstance(p, SparseParameter)
    ]


def _writable(path: _Path) -> Path:
    """Return a path that can be written, or raise OSError; nothing is created, nothing is changed."""
    found = Path(path)
    if found.is_dir():
        raise IsADirectoryError(f"expected a file to write to; {found} is a folder")
    if not found.parent.is_dir():
        raise FileNotFoundError(f"{found} cannot be written: there is no folder {found.parent}")
    target = found if found.exists() else found.parent
    if not os.access(target, os.W_OK):
        raise PermissionError(f"{found} cannot be written: no permission for {target}")
    return found
