"""When a recipe is due: at which of a training's steps, and which part of it is the window of its schedule.

Training step t is the t-th, from 1; an update at step t comes after it. Step 0 is before training. Windows are given as
fractions of the whole training, so that a recipe does not know how long that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np


class When(Protocol):
    """Which steps are updates; frozen."""

    def steps(self, total: int) -> Sequence[int]:
        """Return the steps of updates, rising, within 0 ... total, for a training of `total` steps."""

    def progress(self, step: int, total: int) -> float:
        """Return how far the schedule is at `step`: 0 before its window, 1 at the last update and after."""


@dataclass(frozen=True)
class At:
    """At certain fractions of the training; 0 is before it.

    Parameters
    ----------
    fractions : tuple of float
        Rising, in [0, 1].

    Raises
    ------
    ValueError
        If there are none, or they do not rise within [0, 1].

    Examples
    --------
    >>> At((0.25, 0.5)).steps(1000)
    (250, 500)
    """

    fractions: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        given = self.fractions
        rising = all(a < b for a, b in pairwise(given))
        if not (given and rising and all(0.0 <= f <= 1.0 for f in given)):
            raise ValueError(
                f"At expects fractions of the training, rising within [0, 1]; got {given!r}. "
                "Steps? Divide by the total number of steps."
            )

    def steps(self, total: int) -> tuple[int, ...]:
        """Return the steps nearest to the fractions, each once."""
        return tuple(sorted({round(f * total) for f in self.fractions}))

    def progress(self, step: int, total: int) -> float:
        """Return the way from the first of them to the last; a single one is 1 at once."""
        steps = self.steps(total)
        return _between(steps[0], steps[-1], step)


@dataclass(frozen=True)
class Every:
    """Every so many steps from `begin` to `end`.

    Parameters
    ----------
    interval : int
        Δt, at least 1.
    begin, end : float in [0, 1]
        Where the window starts and ends, as fractions of the training; begin <= end.
    inside : bool
        Leave out the beginning of the window and the last step of training: for methods that grow weights, which need
        gradients before and training afterwards.

    Raises
    ------
    ValueError
        If the interval is below 1 or the window is reversed or not within [0, 1]; from `steps`, if no step is due, or
        one only where a schedule is to be followed.

    Notes
    -----
    The steps are t₀, t₀ + Δt, t₀ + 2Δt, ... with t₀ = begin · total, up to end · total. The last of them is where the
    schedule ends, so that it is reached exactly.

    Examples
    --------
    >>> list(Every(100, 0.1, 0.45).steps(1000))
    [100, 200, 300, 400]
    >>> list(Every(250, inside=True).steps(1000))
    [250, 500, 750]
    """

    interval: int
    begin: float = 0.0
    end: float = 1.0
    inside: bool = False

    def __post_init__(self) -> None:
        check_count("the interval between updates (every)", self.interval)
        check_window(self.begin, self.end)

    def steps(self, total: int) -> range:
        """Return the steps of updates."""
        begin, end = round(self.begin * total), round(self.end * total)
        first = begin + self.interval if self.inside else begin
        last = min(end, total - 1) if self.inside else end
        due = range(first, last + 1, self.interval)
        if not due or (len(due) == 1 and end > begin and not self.inside):
            raise ValueError(
                f"{'no update' if not due else 'one update only'} is due: every={self.interval} steps between "
                f"{self.begin:g} and {self.end:g} of {total} steps. Make every smaller, the window longer, or train "
                "longer."
            )
        return due

    def progress(self, step: int, total: int) -> float:
        """Return the way from the beginning of the window to the last update."""
        return _between(round(self.begin * total), self.steps(total)[-1], step)


@dataclass(frozen=True)
class Rounds:
    """At the ends of n equal parts of a window: train, update, train, update, ...

    Parameters
    ----------
    n : int
        At least 1.
    begin, end : float in [0, 1]
        The window, as fractions of the training; begin < end.

    Raises
    ------
    ValueError
        If n is below 1 or the window is empty, reversed or not within [0, 1]; from `steps`, if two rounds would fall on
        one step.

    Examples
    --------
    >>> Rounds(3, 0.2, 0.8).steps(1000)
    (400, 600, 800)
    """

    n: int
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_count("the number of rounds", self.n)
        check_window(self.begin, self.end)
        if self.begin == self.end:
            raise ValueError(f"Rounds expects begin < end; got {self.begin:g} for both.")

    def steps(self, total: int) -> tuple[int, ...]:
        """Return the steps of updates."""
        begin, end = round(self.begin * total), round(self.end * total)
        if end - begin < self.n:
            raise ValueError(
                f"{self.n} rounds do not fit into {end - begin} steps. Take fewer rounds, a longer window, or train "
                "longer."
            )
        return tuple(begin + (end - begin) * j // self.n for j in range(1, self.n + 1))

    def progress(self, step: int, total: int) -> float:
        """Return j / n from the j-th update on."""
        return sum(t <= step for t in self.steps(total)) / self.n


def _between(begin: int, end: int, step: int) -> float:
    """Return the way from `begin` to `end`; a window of a single step is over at once."""
    if end <= begin:
        return 1.0 if step >= begin else 0.0
    return min(1.0, max(0.0, (step - begin) / (end - begin)))


def check_count(what: str, number: int) -> int:
    """Return a count as a Python integer; refuse what is no integer from 1 on.

    Raises
    ------
    ValueError
        In terms of `what`.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(f"expected {what} as an integer >= 1; got {number!r}.")
    return int(number)


def check_window(begin: float, end: float) -> None:
    """Refuse a window that is reversed or not within [0, 1].

    Raises
    ------
    ValueError
        If so.
    """
    if not (math.isfinite(begin) and math.isfinite(end) and begin >= 0.0 and end <= 1.0):
        raise ValueError(
            f"expected a window within [0, 1], as fractions of the training; got begin={begin!r}, end={end!r}. "
            "Steps? Divide by the total number of steps."
        )
    if begin > end:
        raise ValueError(f"expected begin <= end; got {begin!r} and {end!r}. Swap them.")
