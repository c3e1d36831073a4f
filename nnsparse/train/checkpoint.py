"""`Checkpoint`: how often `fit` saves a run, and where; `Keeper` saves it and finds it again."""

from __future__ import annotations

import logging
import os
from os import PathLike
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, final

import numpy as np

from nnsparse.train.evaluation import Data
from nnsparse.train.history import History
from nnsparse.train.restoring import matched, put_back
from nnsparse.train.settings import differ, settings_of
from nnsparse.train.snapshot import Snapshot, collect, load, write

if TYPE_CHECKING:
    from nnsparse.train.loop import Loop

_log = logging.getLogger("nnsparse")


@final
class Checkpoint:
    """Where and how often `fit` saves a run, so that it can be continued bit for bit after whatever ends it.

    Saved is after a step, with its updates and callbacks, and always at the end and after Ctrl-C. If the file exists
    when `fit` is called, the run goes on where the file was written, in the middle of an epoch too; a run that was
    finished returns its History at once. Call the same program again, that is all.

    Parameters
    ----------
    path : path
        One file, replaced at each save: complete or not at all. `nnsparse.load` reads it.
    every_steps : int, optional
        Optimizer steps from one save to the next.
    every_minutes : float, optional
        Minutes from one save to the next; of both intervals the one that is over first counts. With neither, the run is
        saved after each epoch.
    resume : bool
        Whether to go on from a file that exists; else it is replaced at the first save.

    Raises
    ------
    TypeError, ValueError
        If an interval is not a number above 0.
    OSError
        If there is no such folder, it cannot be written to, or a folder stands at the path.

    Examples
    --------
    >>> Checkpoint("run.ckpt", every_steps=100)
    Checkpoint('run.ckpt', every_steps=100)
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        resume: bool = True,
    ) -> None:
        if not isinstance(path, str | PathLike):
            raise TypeError(f"Checkpoint expects a path; got {path!r}")
        if isinstance(every_steps, bool) or not isinstance(every_steps, int | np.integer | None):
            raise TypeError(f"Checkpoint expects every_steps as an integer; got {every_steps!r}")
        if isinstance(every_minutes, bool) or not isinstance(every_minutes, int | float | None):
            raise TypeError(f"Checkpoint expects every_minutes as a number; got {every_minutes!r}")
        for name, value, least in (
            ("every_steps", every_steps, 1),
            ("every_minutes", every_minutes, 0),
        ):
            if value is not None and not (value >= 1 if least else value > 0):
                raise ValueError(
                    f"Checkpoint expects {name} {'>= 1' if least else 'above 0'}; got {value!r}"
                )
        if not isinstance(resume, bool):
            raise TypeError(f"Checkpoint expects resume as True or False; got {resume!r}")
        self.path = Path(path)
        if self.path.is_dir():
            raise IsADirectoryError(f"Checkpoint expects a file; {self.path} is a folder")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"Checkpoint: there is no folder {self.path.parent}. Make it first."
            )
        if not os.access(self.path.parent, os.W_OK):
            raise PermissionError(f"Checkpoint: no permission to write into {self.path.parent}")
        self.every_steps = None if every_steps is None else int(every_steps)
        self.every_minutes = None if every_minutes is None else float(every_minutes)
        self.resume = resume

    def __repr__(self) -> str:
        given = [
            f"{n}={v!r}" for n, v in vars(self).items() if n.startswith("every") and v is not None
        ]
        parts = [repr(os.fspath(self.path)), *given, *([] if self.resume else ["resume=False"])]
        return f"Checkpoint({', '.join(parts)})"

    def found(self) -> Snapshot | None:
        """Return what the file holds, None if there is none to go on from.

        Raises
        ------
        ValueError
            If the file is damaged, or of something else than a run of `fit`.
        """
        if not self.resume or not self.path.exists():
            return None
        snapshot = load(self.path)
        if snapshot._state["run"] is None:
            raise ValueError(
                f"{self.path} was written by nnsparse.save, not by fit(checkpoint=...). Take another path; to begin "
                "with what it holds, nnsparse.load(path).restore(...)."
            )
        return snapshot


@final
class Keeper:
    """Saves a run when it is due, and brings it back.

    Parameters
    ----------
    checkpoint : Checkpoint
    loop : Loop
    validation : DataLoader, (X, y), (X, y, sample_weight) or None
        What the run is validated with.
    """

    def __init__(self, checkpoint: Checkpoint, loop: Loop, validation: Data | None) -> None:
        self._checkpoint, self._loop = checkpoint, loop
        self._settings = settings_of(loop, validation)
        self._step, self._time = len(loop.losses), monotonic()

    def resume(self, snapshot: Snapshot) -> bool:
        """Bring a run to where it was saved; return whether it was finished then.

        Raises
        ------
        ValueError
            If it was another run; nothing has changed then.
        """
        path, state, loop = snapshot.path, snapshot._state, self._loop
        own, theirs = dict(self._settings), state["run"]["settings"]
        if own["learning_rate"] == (state["optimizer"] or {"state": {}})["state"].get("lr"):
            own["learning_rate"] = theirs.get("learning_rate")  # this very run, in the same process
        if lines := differ(own, theirs):
            raise ValueError(
                f"{path} holds another run: "
                + "; ".join(lines)
                + ". To go on with it, use its settings; to begin anew, "
                "remove the file, take another path, or pass resume=False."
            )
        stateful = [
            *matched(path, "updates", loop.hooks.updates, state["updates"]),
            *matched(path, "callbacks", loop.hooks.stateful_callbacks, self._callbacks(state)),
            ("the loader", loop.loader, state["loader"]),
            ("the run", loop, {**state["run"], "history": snapshot.history}),
        ]
        put_back(path, state, loop.model, loop.optimizer, stateful)
        self._settings = theirs
        self._step = len(loop.losses)
        finished = state["run"].get("finished") is True
        _log.info(
            "%s: %s step %d of %d",
            path,
            "finished at" if finished else "resumed at",
            self._step,
            loop.total_steps,
        )
        return finished

    def _callbacks(self, state: dict[str, Any]) -> Any:
        """Return the states of callbacks; of several processes, on all but the first only of those that are there.

        The first one alone logs.
        """
        saved = state["callbacks"]
        if self._loop.loader.part[0] == 0 or not isinstance(saved, list):
            return saved
        own = {type(callback).__name__ for callback in self._loop.hooks.stateful_callbacks}
        return [entry for entry in saved if isinstance(entry, dict) and entry.get("class") in own]

    def after_step(self) -> None:
        """Save if an interval is over."""
        every, minutes = self._checkpoint.every_steps, self._checkpoint.every_minutes
        steps = len(self._loop.losses) - self._step
        if (every is not None and steps >= every) or (
            minutes is not None and monotonic() - self._time >= 60 * minutes
        ):
            self.save()

    def after_epoch(self) -> None:
        """Save if no interval was asked for."""
        if self._checkpoint.every_steps is None and self._checkpoint.every_minutes is None:
            self.save()

    def save(self, finished: bool = False) -> None:
        """Write the file, unless a weight is not finite: the last good one stays then.

        Raises
        ------
        OSError
            If that is impossible; the file before is as it was, and so is the run in memory.
        """
        loop = self._loop
        if loop.loader.part[0] != 0:  # of several processes, the first one saves
            return
        if not all(np.isfinite(p.data).all() for p in loop.model.parameters()):
            _log.warning(
                "%s: not written after step %d, some weights are not finite; the file of step %d stays",
                self._checkpoint.path, len(loop.losses), self._step,
            )  # fmt: skip
            return
        state = collect(
            loop.model,
            loop.optimizer,
            loop.hooks.updates,
            loop.loader,
            loop.hooks.stateful_callbacks,
        )
        run = {**loop.state_dict(), "settings": self._settings, "finished": finished}
        history: History = run.pop("history")
        write(self._checkpoint.path, {**state, "history": history.state_dict(), "run": run})
        self._step, self._time = len(loop.losses), monotonic()
