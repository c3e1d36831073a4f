"""The progress bar of `fit`: loss, accuracies, time per step, and the time that is left."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
from tqdm import tqdm

from nnsparse.train.evaluation import accuracy

if TYPE_CHECKING:
    from nnsparse.train.loop import Loop

Seen: TypeAlias = tuple[Any, tuple[Any, ...]]  # outputs, and the mini-batch that they are for

_REFRESH = 0.2  # seconds between two looks at the text
_RECENT = slice(-20, None)  # the steps that it is about


@final
class Progress:
    """A bar on stderr, or nothing.

    Parameters
    ----------
    total, done : int
        Steps of the run, and of those how many an earlier part of it made.
    shown : bool
    """

    def __init__(self, total: int, done: int, shown: bool) -> None:
        self._bar: Any = tqdm(
            total=total, initial=done, unit="step", mininterval=_REFRESH, disable=not shown
        )
        if done:
            self._bar.set_description_str(f"resumed at step {done}")
        self._last = perf_counter()
        self._batch = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def after_step(self, loop: Loop, seen: Seen | None) -> None:
        """Count a step, and renew the text if it is old; `seen` is None if this process had no samples."""
        if self._bar.disable:
            return
        self._bar.update()
        done = len(loop.losses) % loop.steps_per_epoch == 0
        if not done and perf_counter() - self._last < _REFRESH:
            return
        self._last = perf_counter()
        if seen is not None:
            outputs, batch = seen
            share = accuracy(outputs.numpy(), np.asarray(batch[1]), loop.loss_fn, *batch[2:])
            self._batch = f"batch acc {share:.1%}" if np.isfinite(share) else ""
        self._bar.set_postfix_str(self._text(loop), refresh=False)

    def after_epoch(self, loop: Loop) -> None:
        """Show what validation found."""
        if not self._bar.disable:
            self._bar.set_postfix_str(self._text(loop))

    def _text(self, loop: Loop) -> str:
        epochs = loop.epochs
        parts = [f"epoch {min(len(epochs) + 1, loop.n_epochs)}/{loop.n_epochs}"]
        parts.append(f"loss {np.mean(loop.losses[_RECENT]):.3f}")
        if self._batch:
            parts.append(self._batch)
        if epochs and np.isfinite(epochs[-1].validation_accuracy):
            parts.append(f"val acc {epochs[-1].validation_accuracy:.2%}")
        return ", ".join([*parts, f"{1e3 * np.median(loop.seconds[_RECENT]):.2f} ms/step"])
