"""`SparseMLPClassifier` against scikit-learn's `MLPClassifier` on MNIST: test accuracy and seconds of `fit`.

    python -m benchmarks.estimators --json benchmarks/results/estimators.json

Both get the same data (float32), hidden layers, solver, rate, batch size and stopping rule. Ours is
fitted before and after theirs, so that a machine that drifts shows in its two times; the weights
are the same bits. Several minutes, nearly all of them theirs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import _common, _images, _machine, _program
from benchmarks._common import number, table

OURS, THEIRS = "SparseMLPClassifier", "MLPClassifier"
GOAL = 5.0  # times faster, at no less accuracy


@dataclass(frozen=True)
class Settings:
    """What to fit; the defaults are those of the command line."""

    hidden: tuple[int, ...] = (1000, 1000)
    sparsity: float = 0.95
    recipe: str = "rigl"
    epochs: int = 30
    learning_rate: float = 0.001
    samples: int = 60000
    test_samples: int = 10000
    seed: int = 0
    threads: int = min(2, os.cpu_count() or 1)


# ---------------------------------------------------------------- measuring


def estimator(name: str, settings: Settings) -> Any:
    """Return one of the two, not yet fitted."""
    from sklearn.neural_network import MLPClassifier

    from nnsparse.estimators import SparseMLPClassifier

    shared: dict[str, Any] = {
        "hidden_layer_sizes": settings.hidden,
        "learning_rate_init": settings.learning_rate,
        "max_iter": settings.epochs,
        "early_stopping": True,
        "random_state": settings.seed,
    }
    if name == THEIRS:
        return MLPClassifier(**shared)
    recipe = None if settings.recipe == "none" else settings.recipe
    return SparseMLPClassifier(sparsity=settings.sparsity, recipe=recipe, **shared)


def fitted(name: str, settings: Settings, train: Any, test: Any) -> dict[str, Any]:
    """Fit one and return what the report needs."""
    model = estimator(name, settings)
    time.sleep(_common.PAUSE)
    with warnings.catch_warnings():  # that all epochs were needed is in the report
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        model.fit(*train)
        seconds = time.perf_counter() - start
    weights = sum(w.nnz if name == OURS else w.size for w in model.coefs_)
    return {
        "rival": name,
        "seconds": seconds,
        "epochs": model.n_iter_,
        "accuracy": float(model.score(*test)),
        "validation": [float(score) for score in model.validation_scores_],
        "weights": int(weights),
    }


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Fit ours, theirs, ours again; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If scikit-learn is missing, or there are fewer cores than threads.
    """
    if find_spec("sklearn") is None:
        raise ValueError("scikit-learn is not installed: pip install 'nnsparse[sklearn]'")
    data, train, test = _images.images(settings.samples, settings.test_samples)
    x, x_test = (images.astype("float32", copy=False) for images in (train[0], test[0]))
    train, test = (x, train[1]), (x_test, test[1])

    def work(bar: Any) -> dict[str, Any]:
        few = Settings(**{**vars(settings), "epochs": 4})
        fitted(OURS, few, (x[:2000], train[1][:2000]), test)  # compiles
        results = []
        for name in (OURS, THEIRS, OURS):
            bar.set_postfix_str(name)
            results.append(fitted(name, settings, train, test))
            bar.update()
        return {"data": data, "results": results}

    return _program.measured(
        "estimators", settings, work, blocks=3, unit="fit", control_size=control_size
    )


def gain(result: Mapping[str, Any]) -> tuple[float, float]:
    """Return how many times faster ours is, by the slower of its two fits, and its accuracy less theirs."""
    ours = [row for row in result["results"] if row["rival"] == OURS]
    theirs = next(row for row in result["results"] if row["rival"] == THEIRS)
    slower = max(row["seconds"] for row in ours)
    return theirs["seconds"] / slower, ours[0]["accuracy"] - theirs["accuracy"]


# ---------------------------------------------------------------- printing


def report(result: Mapping[str, Any]) -> str:
    """Return the table, the goal, the machine, as Markdown."""
    s = result["settings"]
    rows = [
        [
            row["rival"],
            f"{row['weights']:,}",
            f"{row['accuracy']:.2%}",
            number(row["seconds"]),
            str(row["epochs"]),
            number(row["seconds"] / row["epochs"]),
        ]
        for row in result["results"]
    ]
    faster, better = gain(result)
    met = "✓" if faster >= GOAL and better >= 0 else "✗"
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        f"# Estimators on {result['data']}, {s['threads']} threads",
        _images.warning(result["data"]),
        _machine.sentence(result["machine"]) + f"\n{control}",
        table(["", "weights", "test accuracy", "fit, s", "epochs", "s/epoch"], rows),
        f"Ours is {number(faster)} times faster (by the slower of its two fits), at {100 * better:+.2f} points of "
        f"accuracy; the goal is {GOAL:g} times at no less {met}.",
        f"Hidden layers {s['hidden']}, {s['samples']:,} samples in float32, Adam with rate {s['learning_rate']:g}, "
        f"mini-batches of 200, early_stopping=True, at most {s['epochs']} epochs, random_state={s['seed']}; ours with "
        f"sparsity={s['sparsity']:g}, recipe={s['recipe']!r}.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw validation accuracy over the seconds of each fit, epochs evenly spaced."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for row in result["results"][:2]:
        n, scores = row["epochs"], row["validation"]
        seconds = [row["seconds"] * (i + 1) / n for i in range(n)]
        axes.plot(seconds, scores, marker=".", label=f"{row['rival']}: {row['accuracy']:.2%} test")
    axes.set(xscale="log", xlabel="seconds of fit", ylabel="validation accuracy")
    axes.set_title(f"{result['data']}\n{result['machine']['cpu']}", fontsize=9)
    axes.legend()
    figure.savefig(path, dpi=150)


# ---------------------------------------------------------------- command line


def sizes(text: str) -> tuple[int, ...]:
    """Parse comma-separated numbers of neurons, an argparse type."""
    return tuple(_common.at_least(1)(part) for part in text.split(","))


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    from nnsparse.estimators.methods import RECIPES

    d = Settings()
    count = _common.at_least(1)
    p = argparse.ArgumentParser(prog="estimators", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--hidden", type=sizes, default=d.hidden, metavar="N,N")
    p.add_argument("--sparsity", type=_common.sparsity, default=d.sparsity)
    p.add_argument("--recipe", choices=(*RECIPES, "none"), default=d.recipe)
    p.add_argument("--epochs", type=count, default=d.epochs, help="at most, default %(default)s")
    p.add_argument("--learning-rate", type=float, default=d.learning_rate)
    p.add_argument("--samples", type=count, default=d.samples)
    p.add_argument("--test-samples", type=count, default=d.test_samples)
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed)
    p.add_argument("--threads", type=count, default=d.threads, help="default %(default)s")
    _program.add_outputs(p)
    return p


PART = _program.Part("estimators", measure, report, plot)


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument."""
    pin = _program.of_threads if program else None
    return _program.run(PART, parser(), lambda given: Settings(**given), argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
