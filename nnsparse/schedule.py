"""Schedules: pure functions of progress, for learning rates, sparsities and drop fractions alike.

A schedule is any callable that takes progress (0 at the start of training, 1 at its end) and
returns a number. The functions here return frozen dataclasses, which can be compared, printed and
pickled into a checkpoint. What the number means is the caller's business: `optim.LRScheduler`
multiplies the learning rate by it, a pruning recipe takes it as the sparsity to reach. All of
them raise ValueError for a value that is not finite or outside the range its docstring names, and
when called with progress outside [0, 1].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Schedule: TypeAlias = Callable[[float], float]


def constant(value: float = 1.0) -> Schedule:
    """Stay at `value`.

    Examples
    --------
    >>> constant(0.9)(0.3)
    0.9
    """
    return _Steps((), (value,))


def linear(start: float = 1.0, end: float = 0.0) -> Schedule:
    """Go from `start` to `end` in a straight line: start + (end − start)·p.

    Examples
    --------
    >>> linear(1.0, 0.0)(0.25)
    0.75
    """
    return _Ramp(start, end, _linear)


def cosine(start: float = 1.0, end: float = 0.0) -> Schedule:
    """Go from `start` to `end` along half a cosine: end + (start − end)·(1 + cos πp) / 2.

    Source: Loshchilov & Hutter, SGDR, 2017, eq. 5, without restarts. With `end` = 0 it is also
    the annealing of the drop fraction in Dettmers & Zettlemoyer, 2019, and RigL, 2020.

    Examples
    --------
    >>> cosine(0.3, 0.0)(0.5)
    0.15
    """
    return _Ramp(start, end, _cosine)


def cubic(start: float = 0.0, end: float = 1.0) -> Schedule:
    """Go from `start` to `end`, fast at first: end + (start − end)·(1 − p)³.

    Source: Zhu & Gupta, To prune, or not to prune, 2017, eq. 1, with p = (t − t₀) / (n Δt).

    Examples
    --------
    >>> cubic(0.0, 0.8)(0.5)
    0.7000000000000001
    """
    return _Ramp(start, end, _cubic)


def exponential(start: float = 1.0, end: float = 0.01) -> Schedule:
    """Go from `start` to `end` by equal ratios: start·(end / start)ᵖ.

    Both ends must be positive.

    Examples
    --------
    >>> round(exponential(1.0, 0.01)(0.5), 12)
    0.1
    """
    return _Exponential(start, end)


def step(milestones: Sequence[float], factor: float = 10.0, start: float = 1.0) -> Schedule:
    """Divide by `factor` at each milestone: start / factor^(milestones ≤ p).

    Parameters
    ----------
    milestones : sequence of float
        Progress, rising, in (0, 1].
    factor : float
        What is divided by, positive.
    start : float
        The value before the first milestone.

    Raises
    ------
    ValueError
        If the milestones do not rise within (0, 1] or `factor` is not positive.

    Examples
    --------
    >>> drops = step([0.5, 0.75])
    >>> [drops(p) for p in (0.0, 0.5, 0.75, 1.0)]
    [1.0, 0.1, 0.01, 0.01]
    """
    if not 0.0 < factor < math.inf:
        raise ValueError(f"step expects a positive factor to divide by; got {factor!r}.")
    return _Steps(tuple(milestones), tuple(start / factor**k for k in range(len(milestones) + 1)))


def chain(schedules: Sequence[Schedule], milestones: Sequence[float]) -> Schedule:
    """Run one schedule after the other, each over its own part of the whole.

    Schedule k gets its own progress, 0 at milestone k − 1 and 1 at milestone k. At a milestone the
    later schedule holds already.

    Parameters
    ----------
    schedules : sequence of Schedule
        At least one.
    milestones : sequence of float
        Progress where the next schedule takes over, rising, in (0, 1); one fewer than `schedules`.

    Raises
    ------
    ValueError
        If the numbers do not fit or the milestones do not rise within (0, 1).

    Examples
    --------
    >>> tent = chain([linear(0.0, 1.0), linear(1.0, 0.0)], [0.25])
    >>> [tent(p) for p in (0.0, 0.125, 0.25, 0.625, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return _Chain(tuple(schedules), tuple(milestones))


def warmup(schedule: Schedule, fraction: float = 0.05, start: float = 0.0) -> Schedule:
    """Rise in a straight line to where `schedule` starts, then follow it over the rest.

    Parameters
    ----------
    schedule : Schedule
        What follows; it gets the whole of its own progress, 0 to 1.
    fraction : float
        The part of the whole that the rise takes, in (0, 1).
    start : float
        Where the rise starts, as a value (not as a share of `schedule(0)`).

    Examples
    --------
    >>> warm = warmup(linear(), 0.5)
    >>> [warm(p) for p in (0.0, 0.25, 0.5, 0.75)]
    [0.0, 0.5, 1.0, 0.5]
    """
    return chain([linear(start, schedule(0.0)), schedule], [fraction])


def one_cycle(
    peak: float = 1.0, fraction: float = 0.3, divide: float = 25.0, final_divide: float = 1e4
) -> Schedule:
    """Rise to `peak` along half a cosine, then fall far below the start along another.

    Source: Smith & Topin, Super-convergence, 2018, as in PyTorch's `OneCycleLR` with its defaults
    (cosine, two phases); the momentum is not cycled.

    Parameters
    ----------
    peak : float
        The highest value.
    fraction : float
        The part of the whole that the rise takes, in (0, 1).
    divide : float
        peak / divide is where the rise starts.
    final_divide : float
        peak / divide / final_divide is where the fall ends.

    Examples
    --------
    >>> cycle = one_cycle(peak=1.0, fraction=0.5)
    >>> [round(cycle(p), 6) for p in (0.0, 0.25, 0.5, 1.0)]
    [0.04, 0.52, 1.0, 4e-06]
    """
    for name, value in (("peak", peak), ("divide", divide), ("final_divide", final_divide)):
        if not 0.0 < value < math.inf:
            raise ValueError(f"one_cycle expects a positive {name}; got {value!r}.")
    low = peak / divide
    return chain([cosine(low, peak), cosine(peak, low / final_divide)], [fraction])


def _linear(progress: float) -> float:
    return progress


def _cosine(progress: float) -> float:
    return (1.0 - math.cos(math.pi * progress)) / 2.0


def _cubic(progress: float) -> float:
    return 1.0 - (1.0 - progress) ** 3


@dataclass(frozen=True)
class _Ramp:
    """From `start` to `end`, both reached exactly, along a curve that goes from 0 to 1."""

    start: float
    end: float
    curve: Callable[[float], float]

    def __post_init__(self) -> None:
        _check_finite(self.start, self.end)

    def __call__(self, progress: float) -> float:
        way = self.curve(_checked(progress))
        if self.start == self.end:
            return self.start  # exactly: the two parts of a sum would be rounded
        return (1.0 - way) * self.start + way * self.end

    def __repr__(self) -> str:
        return f"{self.curve.__name__[1:]}({self.start!r}, {self.end!r})"


@dataclass(frozen=True)
class _Exponential:
    start: float
    end: float

    def __post_init__(self) -> None:
        if not (0.0 < self.start < math.inf and 0.0 < self.end < math.inf):
            raise ValueError(
                f"exponential expects positive ends; got {self.start!r} and {self.end!r}. "
                "To reach 0, use cosine or linear."
            )

    def __call__(self, progress: float) -> float:
        progress = _checked(progress)
        return float(self.start ** (1.0 - progress) * self.end**progress)


@dataclass(frozen=True)
class _Steps:
    """`values[k]` once k milestones are reached."""

    milestones: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_finite(*self.values)
        _check_rising(self.milestones)

    def __call__(self, progress: float) -> float:
        progress = _checked(progress)
        return self.values[sum(milestone <= progress for milestone in self.milestones)]


@dataclass(frozen=True)
class _Chain:
    schedules: tuple[Schedule, ...]
    milestones: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.schedules) != len(self.milestones) + 1:
            raise ValueError(
                "chain expects one milestone fewer than schedules; got "
                f"{len(self.schedules)} schedules and {len(self.milestones)} milestones."
            )
        _check_rising((*self.milestones, 1.0))

    def __call__(self, progress: float) -> float:
        progress = _checked(progress)
        part = sum(milestone <= progress for milestone in self.milestones)
        begin, end = (0.0, *self.milestones)[part], (*self.milestones, 1.0)[part]
        return self.schedules[part]((progress - begin) / (end - begin))


def _checked(progress: float) -> float:
    if not 0.0 <= progress <= 1.0:
        raise ValueError(
            f"A schedule expects progress in [0, 1]; got {progress!r}. "
            "Divide the step by the total number of steps."
        )
    return progress


def _check_finite(*values: float) -> None:
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"A schedule expects finite values; got {values!r}.")


def _check_rising(milestones: tuple[float, ...]) -> None:
    # Pairs with 0 in front: the first must lie above 0, NaN fails every comparison.
    rising = all(a < b for a, b in zip((0.0, *milestones), milestones, strict=False))
    if not (rising and all(milestone <= 1.0 for milestone in milestones)):
        raise ValueError(
            f"Milestones are expected to rise within (0, 1]; got {milestones!r}. "
            "They are progress, not epochs: divide by the total."
        )
