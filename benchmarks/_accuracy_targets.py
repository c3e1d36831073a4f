"""What others have published for LeNet-300-100 on MNIST, what is wanted of ours, and whether it is so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from benchmarks import _images
from benchmarks._accuracy_run import EPOCHS

Result = Mapping[str, Any]
Run = Mapping[str, Any]
Cell = tuple[str, float]  # method, sparsity

# Test accuracy in percent by sparsity. Dettmers & Zettlemoyer 2019, their result files; SNIP: Lee et al. 2019.
PUBLISHED: Mapping[str, Mapping[float, float]] = {
    "dense": {0.0: 98.69},
    "SNFS": {0.9: 98.67, 0.95: 98.53, 0.98: 98.20, 0.99: 97.53},
    "DSR": {0.9: 98.44, 0.95: 98.32, 0.98: 98.14, 0.99: 97.54},
    "SET": {0.9: 98.39, 0.95: 98.14, 0.98: 97.74, 0.99: 95.80},
    "DeepR": {0.9: 98.19, 0.95: 98.06, 0.98: 98.21, 0.99: 94.00},
    "SNIP": {0.95: 98.4, 0.98: 97.6},
}
# What is wanted of methods by name; "dynamic" is the best dynamic one.
WANTED: Mapping[str, Mapping[float, float]] = {
    "dense": {0.0: 98.5},
    "dynamic": {0.9: 98.6, 0.95: 98.5, 0.98: 98.2, 0.99: 97.5},
    "set": PUBLISHED["SET"],
    "snip": PUBLISHED["SNIP"],
}
BEATS_RANDOM = (0.98, 0.99)  # where dynamic methods are to reach static random sparsity
ROUNDING = 1e-9


@dataclass(frozen=True)
class Goal:
    """Something wanted, and what was found.

    Attributes
    ----------
    who : str
        Method, as the table has it.
    wanted, found : float
        Mean test accuracies in percent.
    """

    who: str
    what: str
    sparsity: float
    wanted: float
    found: float

    @property
    def met(self) -> bool:
        """Whether what was found is no less than what is wanted, not rounded."""
        return self.found >= self.wanted - ROUNDING


def shortened(result: Result) -> str:
    """Return why the figures compare with nobody's, "" if the whole recipe was run."""
    s, reasons = result["settings"], []
    if result["data"] != _images.MNIST:
        reasons.append(f"on the {result['data']}, not on MNIST")
    if s["epochs"] != EPOCHS:
        reasons.append(f"{s['epochs']} of {EPOCHS} epochs")
    if s["samples"] < 60_000 or s["test_samples"] < 10_000:
        reasons.append(f"{s['samples']} training and {s['test_samples']} test images at most")
    return "; ".join(reasons)


def cells(result: Result) -> dict[Cell, list[Run]]:
    """Return the runs by method and sparsity, in their order."""
    found: dict[Cell, list[Run]] = {}
    for run in result["runs"]:
        found.setdefault((run["method"], run["sparsity"]), []).append(run)
    return found


def percent(runs: Sequence[Run], what: str = "accuracy") -> float:
    """Return the mean of an accuracy over the seeds, in percent."""
    return 100 * mean(run[what] for run in runs)


def deviation(runs: Sequence[Run]) -> float | None:
    """Return the standard deviation (n − 1) of the test accuracy over the seeds, in percent; None for one."""
    return 100 * stdev(run["accuracy"] for run in runs) if len(runs) > 1 else None


def best_published(sparsity: float) -> float | None:
    """Return the best published accuracy at a sparsity."""
    return max((row[sparsity] for row in PUBLISHED.values() if sparsity in row), default=None)


def dynamic(result: Result, sparsity: float) -> list[str]:
    """Return the dynamic methods that ran at a sparsity, the best by validation accuracy first."""
    found = cells(result)
    names = [
        name
        for name, about in result["methods"].items()
        if about["kind"] == "dynamic" and (name, sparsity) in found
    ]
    return sorted(names, key=lambda name: -percent(found[name, sparsity], "validation"))


def goals(result: Result) -> list[Goal]:
    """Return what is wanted of the methods that ran, and what was found."""
    found, results = cells(result), []
    for name, row in WANTED.items():
        for sparsity, wanted in row.items():
            who = [name] if name != "dynamic" else dynamic(result, sparsity)[:1]
            if who and (who[0], sparsity) in found:
                best = ", best dynamic by validation" if name == "dynamic" else ""
                accuracy = percent(found[who[0], sparsity])
                results.append(Goal(who[0], f"{who[0]}{best}", sparsity, wanted, accuracy))
    for sparsity in BEATS_RANDOM:
        if ("random", sparsity) in found:
            wanted = percent(found["random", sparsity])
            results += [
                Goal(
                    name, f"{name} against random", sparsity, wanted, percent(found[name, sparsity])
                )
                for name in dynamic(result, sparsity)
            ]
    return results
