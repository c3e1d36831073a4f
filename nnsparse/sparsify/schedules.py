"""Schedules of sparsity: pure functions of progress in the pruning window, beside those of `nnsparse.schedule`.

Linear, cubic (gradual pruning), cosine and constant sparsities are `schedule.linear`, `cubic`, `cosine` and `constant`.
All raise ValueError for a value outside the range that they name, and when called with progress outside [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnsparse.schedule import Schedule, linear
from nnsparse.sparsify.when import check_count

_progress = linear(0.0, 1.0)  # the identity, which refuses what is no progress


def one_shot(end: float, start: float = 0.0, at: float = 0.0) -> Schedule:
    """Go from sparsity `start` to `end` all at once, at progress `at`.

    Examples
    --------
    >>> prune = one_shot(0.9, at=0.5)
    >>> [prune(p) for p in (0.0, 0.49, 0.5, 1.0)]
    [0.0, 0.0, 0.9, 0.9]
    """
    return _OneShot(_sparsity("end", end), _sparsity("start", start), _sparsity("at", at))


def staircase(end: float, start: float = 0.0, rounds: int = 3) -> Schedule:
    """Go from sparsity `start` to `end` in equal steps: s_i + (s_f − s_i)/n · ⌈n·p⌉.

    Source: Castellano, Fanelli & Pelillo, An iterative pruning algorithm, 1997; Han et al., Learning both weights and
    connections, 2015; as in FasterAI. Difference: n·p within 10⁻⁹ above an integer counts as that integer, so that
    rounding never takes a step too early.

    Parameters
    ----------
    end, start : float in [0, 1]
        Sparsity in the end, and at progress 0.
    rounds : int
        n, at least 1.

    Examples
    --------
    >>> prune = staircase(0.9, rounds=3)
    >>> [round(prune(p), 6) for p in (0.0, 0.1, 0.34, 0.7, 1.0)]
    [0.0, 0.3, 0.6, 0.9, 0.9]
    """
    check_count("the number of rounds", rounds)
    return _Staircase(_sparsity("end", end), _sparsity("start", start), rounds)


def one_cycle_pruning(
    end: float, start: float = 0.0, alpha: float = 14.0, beta: float = 6.0
) -> Schedule:
    """Go from sparsity `start` to `end` along a sigmoid: s_i + (s_f − s_i)(1 + e^(−α+β)) / (1 + e^(−αp+β)).

    At progress 0 it is a little above `start`: by 0.25 % of the way with the default α and β.

    Source: Hubens et al., One-cycle pruning, 2021, with the constants of the authors' code. Not to be mixed up with
    `schedule.one_cycle`, a learning rate.

    Parameters
    ----------
    end, start : float in [0, 1]
        Sparsity in the end, and before pruning.
    alpha : float
        Steepness, above 0.
    beta : float
        Offset: half of the way is done at p = β / α.

    Examples
    --------
    >>> prune = one_cycle_pruning(1.0)
    >>> [round(prune(p), 3) for p in (0.0, 0.2, 0.4, 0.5, 1.0)]
    [0.002, 0.039, 0.401, 0.731, 1.0]
    """
    if not (0.0 < alpha < 500.0 and math.isfinite(beta) and abs(beta) < 500.0):
        raise ValueError(
            f"one_cycle_pruning expects alpha in (0, 500) and |beta| < 500; got {alpha!r} and {beta!r}."
        )
    return _OneCyclePruning(_sparsity("end", end), _sparsity("start", start), alpha, beta)


def geometric(end: float, start: float = 0.0) -> Schedule:
    """Multiply the density by the same factor in every step: 1 − (1 − s_i)^(1−p) (1 − s_f)^p.

    Source: Tanaka et al., Pruning neural networks without any data (SynFlow), 2020, algorithm 1: density d^(k/n) in
    round k of n. With n rounds that keep 0.8 each it is the lottery ticket's (Frankle & Carbin, 2019): end 1 − 0.8ⁿ.

    Parameters
    ----------
    end, start : float in [0, 1)
        Sparsity in the end, and at progress 0.

    Examples
    --------
    >>> prune = geometric(0.99)
    >>> [round(prune(p), 6) for p in (0.0, 0.5, 1.0)]
    [0.0, 0.9, 0.99]
    """
    for name, value in (("end", end), ("start", start)):
        if _sparsity(name, value) == 1.0:
            raise ValueError(f"geometric expects {name} below 1: no factor leads to density 0.")
    return _Geometric(end, start)


@dataclass(frozen=True)
class _OneShot:
    end: float
    start: float
    at: float

    def __call__(self, progress: float) -> float:
        return self.end if _progress(progress) >= self.at else self.start


@dataclass(frozen=True)
class _Staircase:
    end: float
    start: float
    rounds: int

    def __call__(self, progress: float) -> float:
        done = math.ceil(self.rounds * _progress(progress) - 1e-9) / self.rounds
        return (1.0 - done) * self.start + done * self.end


@dataclass(frozen=True)
class _OneCyclePruning:
    end: float
    start: float
    alpha: float
    beta: float

    def __call__(self, progress: float) -> float:
        p = _progress(progress)
        way = (1.0 + math.exp(self.beta - self.alpha)) / (
            1.0 + math.exp(self.beta - self.alpha * p)
        )
        return (1.0 - way) * self.start + way * self.end


@dataclass(frozen=True)
class _Geometric:
    end: float
    start: float

    def __call__(self, progress: float) -> float:
        p = _progress(progress)
        if p == 1.0:
            return self.end
        return float(1.0 - (1.0 - self.start) ** (1.0 - p) * (1.0 - self.end) ** p)


def _sparsity(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"A schedule of sparsity expects {name} in [0, 1]; got {value!r}. In percent? Divide by 100."
        )
    return float(value)
