"""How fast a network learns: whole epochs on MNIST, the test accuracy on the way, seconds to reach a goal.

    python -m benchmarks.learning --epochs 5 --sparsities 0.9,0.98 --plot out.png

nnsparse trains every network at several sparsities, the dense rivals train it dense, and those with
masks at one sparsity, all on the same batches. The clock runs while they train, not while they are
tested. The networks are in `_task`, how each rival trains in `_networks`, what is printed in
`_learning_report`.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import _common, _images, _program, _rivals, training
from benchmarks._learning_report import plot, report
from benchmarks._networks import DENSE, RIVALS, Loop
from benchmarks._task import NETS, Array, Net, Task

BASELINES = ("torch", "dense", "numpy", "sklearn")
PIXELS = 784


@dataclass(frozen=True)
class Settings:
    """What to train; the defaults are those of the command line."""

    nets: tuple[str, ...] = ("thesis-64", "lenet-100")
    sparsities: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98)
    masked: float = 0.95
    goals: tuple[float, ...] = (0.95, 0.97)
    epochs: int = 10
    checks: int = 4
    samples: int = 60000
    test_samples: int = 10000
    lr: float = 0.05
    momentum: float = 0.9
    threads: int = min(2, os.cpu_count() or 1)
    pause: float = _common.PAUSE
    rivals: tuple[str, ...] = ("nnsparse", "dense", "numpy", "torch", "torch-masked", "sklearn")
    seed: int = 0


# ---------------------------------------------------------------- one network of one rival


class Learner:
    """A network in training and its records: seconds, accuracy and loss at every check.

    `twin` trains the same from the same start: its steps bring threads and code back before the
    clock runs, which those of the network itself cannot do.
    """

    def __init__(self, rival: str, sparsity: float | None, loops: Sequence[Loop], n: int) -> None:
        self.label = rival if sparsity is None else training.labelled(rival, sparsity)
        self.sparsity = sparsity
        self.loop, self.twin = loops
        self.n_steps = n
        self.first = [self.twin() for _ in range(training.CHECKED)]
        self.epochs: list[float] = []
        self.seconds: list[float] = []
        self.accuracy: list[float] = []
        self.loss: list[float] = []

    def epoch(self, checks: int, pause: float, test: tuple[Array, Array]) -> None:
        """Train for an epoch, tested `checks` times on the way with the clock stopped."""
        time.sleep(pause)
        warm = time.perf_counter() + pause * _common.WARM / _common.PAUSE
        while time.perf_counter() < warm:
            self.twin()
        bounds = np.linspace(0, self.n_steps, checks + 1).round().astype(int)
        before = sum(self.epochs)
        passed = 0.0
        for n in np.diff(bounds).tolist():
            start = time.perf_counter()
            losses = [self.loop() for _ in range(n)]
            passed += time.perf_counter() - start
            self.seconds.append(before + passed)
            self.loss.append(float(np.mean(losses)))
            self.accuracy.append(float((self.loop.predict(test[0]).argmax(1) == test[1]).mean()))
        self.epochs.append(passed)

    def reached(self, goal: float) -> float | None:
        """Return the seconds up to the first check with this accuracy, None if there is none."""
        there = (s for s, found in zip(self.seconds, self.accuracy, strict=True) if found >= goal)
        return next(there, None)


def learners(
    settings: Settings, net: Net, rivals: Mapping[str, _rivals.Rival], data: tuple[Array, Array]
) -> list[Learner]:
    """Return the networks in training; those of one sparsity (None: dense) start from the same weights."""

    @lru_cache
    def task(sparsity: float | None) -> Task:
        model = net.at(sparsity).model([settings.seed, 0])
        return Task(model, *data, net.batch, settings.lr, settings.momentum, settings.seed)

    found = []
    for name, rival in rivals.items():
        own = (None,) if name in DENSE else (settings.masked,)
        for sparsity in settings.sparsities if name == training.OURS else own:
            loops = [rival.make(task(sparsity)) for _ in range(2)]
            found.append(Learner(name, sparsity, loops, len(task(sparsity).loader)))
    return found


# ---------------------------------------------------------------- measuring


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Train all networks, the rivals in turn, epoch by epoch; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If no rival is installed, there are fewer cores than threads, or fewer samples than make
        `checks` batches of every network.
    training.WrongLossError
        If rivals with the same weights have losses that differ, or one is not finite.
    """
    rivals, skipped = _rivals.installed(settings.rivals, RIVALS)
    for net in (NETS[name] for name in settings.nets):
        if settings.samples < settings.checks * net.batch:
            raise ValueError(
                f"{settings.samples} samples give no {settings.checks} batches of {net.batch} to "
                "test between: take more samples or fewer checks"
            )
    name, data, test = _images.images(settings.samples, settings.test_samples)

    def work(bar: Any) -> dict[str, Any]:
        results = [_one_net(settings, net, rivals, data, test, bar) for net in settings.nets]
        about = {"data": name, "samples": len(data[0]), "test_samples": len(test[0])}
        return {**_rivals.described(rivals, skipped), **about, "results": results}

    each = len(rivals) + (len(settings.sparsities) - 1) * (training.OURS in rivals)
    blocks = each * settings.epochs * len(settings.nets)
    return _program.measured(
        "learning", settings, work, blocks=blocks, unit="epoch", control_size=control_size
    )


def _one_net(
    settings: Settings,
    name: str,
    rivals: Mapping[str, _rivals.Rival],
    data: tuple[Array, Array],
    test: tuple[Array, Array],
    bar: Any,
) -> dict[str, Any]:
    """Train one network with every rival; return its entry of the results."""
    net = NETS[name]
    bar.set_postfix_str(f"{name}: setting up")
    runs = learners(settings, net, rivals, data)
    for sparsity in {run.sparsity for run in runs}:
        same = {run.label: run.first for run in runs if run.sparsity == sparsity}
        training.compare(name, same, training.CHECKED)
    _train(settings, name, runs, test, bar)
    about = {"net": name, "sizes": list(net.sizes), "batch": net.batch, "note": net.note}
    return {**about, "rivals": _compared({run.label: _row(run, settings.goals) for run in runs})}


def _train(
    settings: Settings, net: str, runs: Sequence[Learner], test: tuple[Array, Array], bar: Any
) -> None:
    """Train for all epochs, the networks in turn, each epoch beginning with another one."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        for epoch in range(settings.epochs):
            turn = epoch % len(runs)
            for run in [*runs[turn:], *runs[:turn]]:
                bar.set_postfix_str(f"{net}: {run.label}", refresh=False)
                run.epoch(settings.checks, settings.pause, test)
                if not np.isfinite(run.loss[-1]):
                    raise training.WrongLossError(
                        f"{net}: {run.label} lost {run.loss[-1]} in epoch {epoch + 1}; lower --lr"
                    )
                bar.update()
            gc.collect()
    finally:
        if collecting:
            gc.enable()


def _row(run: Learner, goals: Sequence[float]) -> dict[str, Any]:
    """Return a network's records, rounded: there are many."""
    return {
        "sparsity": run.sparsity,
        **_common.summary(np.array(run.epochs)),
        "seconds": [round(s, 4) for s in run.seconds],
        "accuracy": [round(a, 5) for a in run.accuracy],
        "loss": [round(x, 5) for x in run.loss],
        "reached": {f"{goal:.4g}": run.reached(goal) for goal in goals},
    }


def _compared(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add how many times shorter an epoch is than those of the baselines."""
    for row in rows.values():
        row["speedup"] = {
            name: rows[name]["median_ms"] / row["median_ms"] for name in BASELINES if name in rows
        }
    return rows


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size, fraction = _common.at_least(1), _common.fraction
    known = tuple(name for name, net in NETS.items() if net.sizes[0] == PIXELS)
    nets, rivals = _common.names(known, "net"), _common.names(tuple(RIVALS), "rival")
    p = argparse.ArgumentParser(prog="learning", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--nets", type=nets, default=d.nets, metavar="A,B", help=", ".join(known))
    p.add_argument("--rivals", type=rivals, default=d.rivals, metavar="A,B", help=", ".join(RIVALS))
    p.add_argument(
        "--sparsities",
        type=_common.sparsities,
        default=d.sparsities,
        metavar="S,S",
        help="of the sparse layers of nnsparse",
    )
    p.add_argument("--masked", type=_common.sparsity, default=d.masked, help="of rivals with masks")
    p.add_argument("--goals", type=fraction, nargs="+", default=d.goals, help="test accuracies")
    p.add_argument("--epochs", type=size, default=d.epochs, help="default %(default)s")
    p.add_argument("--checks", type=size, default=d.checks, help="tests an epoch, default 4")
    p.add_argument("--samples", type=size, default=d.samples, help="default %(default)s")
    p.add_argument("--test-samples", type=size, default=d.test_samples, help="default %(default)s")
    p.add_argument("--lr", type=fraction, default=d.lr, help="default %(default)s")
    p.add_argument("--momentum", type=fraction, default=d.momentum, help="default %(default)s")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("learning", measure, report, plot, (training.WrongLossError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong loss of a rival."""
    pin = _program.of_threads if program else None

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, "goals": tuple(given["goals"])})

    return _program.run(PART, parser(), settings, argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
