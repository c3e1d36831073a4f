"""The thesis' tables and figures: one sparse square layer and an output layer, and loss curves.

    python -m benchmarks.thesis --features 2048 4096 --json out.json --plot out.png

Tables 1 to 3: 2048, 4096 or 8192 features, 95 % sparse, 256 of 1024 samples at a time, five runs.
A pass is a whole training step (forward, loss, backward, update) as `training` times it. The plain
loops over CSR, CSC and COO play the thesis' "original", nnsparse its "improved", NumPy and torch
dense the baseline. `ns.profile` splits our pass into the thesis' sections.

Figures 1 and 2: the loss of 784-256-256-256-256-10, the middle layers 80 % pruned at random, trained
sparse and dense with masks, from the same weights on the same batches.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import nnsparse as ns
from benchmarks import _common, _images, _networks, _program, _rivals, training
from benchmarks._networks import RIVALS
from benchmarks._task import NETS, Task
from benchmarks._thesis_report import plot, report

KNOWN = ("nnsparse", "csr", "csc", "coo", "numpy", "torch")
CURVES = ("nnsparse", "masked", "torch-masked")
LAYER = "square-"  # the networks' names, before the features
IMAGES = "thesis-64"


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    features: tuple[int, ...] = (2048, 4096, 8192)
    epochs: int = 20
    samples: int = 60000
    threads: int = min(2, os.cpu_count() or 1)
    repeats: int = 5
    pause: float = _common.PAUSE
    rivals: tuple[str, ...] = KNOWN
    lr: float = 0.01
    features_from: str = ""
    seed: int = 0


# ---------------------------------------------------------------- measuring


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time the passes, split ours, train the loss curves; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If no rival is installed, there are fewer cores than threads, or fewer samples than a batch.
    training.WrongLossError
        If rivals with the same weights have losses that differ, or one is not finite.
    """
    rivals, skipped = _rivals.installed(settings.rivals, RIVALS)
    if settings.samples < NETS[IMAGES].batch:
        raise ValueError(f"{settings.samples} samples give no batch of {NETS[IMAGES].batch}")

    def work(bar: Any) -> dict[str, Any]:
        results = [_passes(settings, n, rivals, bar) for n in settings.features]
        curves = _curves(settings, bar) if settings.epochs else None
        return {**_rivals.described(rivals, skipped), "results": results, "curves": curves}

    blocks = len(rivals) * settings.repeats * len(settings.features) + settings.epochs
    return _program.measured("thesis", settings, work, blocks=blocks, control_size=control_size)


def _passes(
    settings: Settings, n: int, rivals: Mapping[str, _rivals.Rival], bar: Any
) -> dict[str, Any]:
    name = f"{LAYER}{n}"
    of_training = training.Settings(
        threads=settings.threads,
        repeats=settings.repeats,
        calls=1,
        pause=settings.pause,
        lr=settings.lr,
        seed=settings.seed,
        features_from=settings.features_from,
    )
    entry = training.one_net(of_training, name, rivals, bar)
    bar.set_postfix_str(f"{name}: sections")
    return {"features": n, **entry, "sections": sections(settings, name)}


def sections(settings: Settings, net: str) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each section, of the first pass of a new network and of a later one.

    A plan is built in the first pass and found again in the others, of which the medians are taken.
    """
    task = Task.random(
        NETS[net], 1024, lr=settings.lr, seed=settings.seed, features_from=settings.features_from
    )
    with ns.profile() as first:
        step = _networks.sparse(task)
        step()
    time.sleep(settings.pause)  # see `_common`: the threads of those before us spin on
    warm = time.perf_counter() + _common.WARM
    while time.perf_counter() < warm:
        step()
    later = []
    for _ in range(settings.repeats):
        with ns.profile() as p:
            step()
        later.append(p.sections())
    return {
        "first": {name: 1e3 * s for name, s in first.sections().items()},
        "later": {name: 1e3 * median(found[name] for found in later) for name in later[0]},
    }


def _curves(settings: Settings, bar: Any) -> dict[str, Any]:
    """Train the images' network sparse and masked; return the mean loss of every epoch."""
    data, (x, y), _ = _images.images(settings.samples, 1)
    net = NETS[IMAGES]
    task = Task(net.model([settings.seed, 0]), x, y, net.batch, settings.lr, 0.0, settings.seed)
    names, skipped = _rivals.available(CURVES, RIVALS)
    steps = {name: RIVALS[name].make(task) for name in names}
    losses: dict[str, list[float]] = {name: [] for name in names}
    for epoch in range(settings.epochs):
        bar.set_postfix_str(f"losses: epoch {epoch + 1}")
        for name, step in steps.items():
            mean = float(np.mean([step() for _ in range(len(task.loader))]))
            if not np.isfinite(mean):
                raise training.WrongLossError(f"{IMAGES}: {name} lost {mean} in epoch {epoch + 1}")
            losses[name].append(mean)
        bar.update()
    ours = np.array(losses["nnsparse"])
    difference = {
        name: float(np.abs(ours - values).max())
        for name, values in losses.items()
        if name != "nnsparse"
    }
    return {
        "data": data,
        "samples": len(x),
        "batch": net.batch,
        "sizes": list(net.sizes),
        "note": net.note,
        "losses": losses,
        "difference": difference,
        "skipped": skipped,
    }


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    sizes = [int(name.removeprefix(LAYER)) for name in NETS if name.startswith(LAYER)]
    p = argparse.ArgumentParser(prog="thesis", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--features", type=int, nargs="+", choices=sizes, default=d.features)
    p.add_argument(
        "--epochs", type=_common.at_least(0), default=d.epochs, help="of the loss curves, 20"
    )
    p.add_argument("--samples", type=size, default=d.samples, help="of the loss curves")
    p.add_argument(
        "--features-from",
        default=d.features_from,
        metavar="FILE",
        help="reviews of examples/imdb.py --features N; name the same N as --features",
    )
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="runs, >= 3")
    rivals = _common.names(KNOWN, "rival")
    p.add_argument("--rivals", type=rivals, default=d.rivals, metavar="A,B", help=", ".join(KNOWN))
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("thesis", measure, report, plot, (training.WrongLossError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong loss of a rival."""
    pin = _program.of_threads if program else None

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, "features": tuple(given["features"])})

    return _program.run(PART, parser(), settings, argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
