"""How accurate sparse networks get: LeNet-300-100 on MNIST, every method at every sparsity, beside published figures.

    python -m benchmarks --only accuracy                          # into benchmarks/results
    python -m benchmarks.accuracy --jobs 2 --json accuracy.json --plot accuracy.png
    python -m benchmarks.accuracy --methods set,rigl --sparsities 0.98 --seeds 1
    python -m benchmarks.accuracy --list

The recipe is that of Dettmers & Zettlemoyer's table: SGD with Nesterov momentum 0.9, learning rate 0.1 and a tenth of
it after every 25 000 steps, weight decay 5e-4, mini-batches of 100, 100 epochs of 54 000 images, the last 6000 of the
60 000 for validation. What counts is the test accuracy at the end; no epoch is picked. Sparsity is that of all three
layers together, and exact.

A run has one thread, `--jobs` of them go on at a time. Each is kept in --state when it is over: a second call goes on
where the first was interrupted. The methods are in `_accuracy_methods`, a run in `_accuracy_run`, their processes in
`_accuracy_jobs`, what is printed in `_accuracy_report`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from benchmarks import _common, _images, _machine, _program, _rivals, training
from benchmarks._accuracy_jobs import run_all
from benchmarks._accuracy_methods import BATCH, METHODS
from benchmarks._accuracy_report import plot, report
from benchmarks._accuracy_run import EPOCHS, MOMENTUM, RunError, Task
from benchmarks._networks import RIVALS
from nnsparse import datasets

STATE = Path(__file__).resolve().parents[1] / "runs" / "accuracy"
NET, TIMED = "lenet-100", ("nnsparse", "dense", "torch")
FEWEST = 2 * BATCH  # samples


@dataclass(frozen=True)
class Settings:
    """What to train; the defaults are those of the command line.

    Attributes
    ----------
    methods : "dense" and the N:M methods have sparsities of their own, once.
    seeds : how many, from 0 on
    data : "mnist" (the embedded digits where it is missing) or "digits"
    samples, test_samples : images, at most
    threads : of the timed steps; runs have one
    state : the folder of finished runs; "" keeps none
    """

    methods: tuple[str, ...] = tuple(METHODS)
    sparsities: tuple[float, ...] = (0.9, 0.95, 0.98, 0.99)
    seeds: int = 3
    epochs: int = EPOCHS
    data: str = "mnist"
    samples: int = 60_000
    test_samples: int = 10_000
    jobs: int = min(2, os.cpu_count() or 1)
    timing: bool = True
    threads: int = min(2, os.cpu_count() or 1)
    repeats: int = 9
    pause: float = _common.PAUSE
    state: str = str(STATE)


QUICK = Settings(
    methods=("random", "rigl"),
    sparsities=(0.9,),
    seeds=1,
    epochs=2,
    data="digits",
    samples=2000,
    test_samples=1000,
    timing=False,
    state="",
)


# ---------------------------------------------------------------- measuring


def tasks(settings: Settings, data: str) -> list[Task]:
    """Return all runs, the first seed of everything first."""
    s = settings
    return [
        Task(
            name,
            METHODS[name].settings(),
            sparsity,
            seed,
            s.epochs,
            data,
            s.samples,
            s.test_samples,
        )
        for seed in range(s.seeds)
        for name in s.methods
        for sparsity in METHODS[name].sparsities(s.sparsities)
    ]


def source(data: str) -> str:
    """Return what the images are: MNIST if they are to be and are there, else the digits."""
    if data == "mnist":
        with suppress(datasets.DataUnavailable):
            datasets.mnist(download=False)
            return _images.MNIST
        return _images.DIGITS
    return "embedded digits"


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Train all networks that are not kept yet, time steps; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads, too few samples, or the state cannot be kept.
    RunError
        If a run failed; the others are kept.
    training.WrongLossError
        If networks that are timed have losses that differ.
    """
    if settings.samples < FEWEST:
        raise ValueError(f"{settings.samples} samples are too few: pass {FEWEST} or more")
    data = source(settings.data)
    wanted = tasks(settings, data)
    rivals, skipped = _rivals.installed(TIMED, RIVALS) if settings.timing else ({}, [])

    def work(bar: Any) -> dict[str, Any]:
        def progress(name: str) -> None:
            bar.set_postfix_str(f"{name} done", refresh=False)
            bar.update()

        commit = _machine.describe(1, "")["commit"]
        with ExitStack() as stack:
            state = settings.state or stack.enter_context(tempfile.TemporaryDirectory())
            records = run_all(wanted, _folder(state), settings.jobs, commit, progress)
        return {
            "data": data,
            "methods": {name: METHODS[name].about() for name in settings.methods},
            "runs": [condensed(record) for record in records],
            "timing": timed(settings, rivals) if settings.timing else None,
            "skipped": skipped,
        }

    found = _program.measured(
        "accuracy", settings, work, blocks=len(wanted), unit="run", control_size=control_size
    )
    del found["settings"]["state"]
    return found


def _folder(state: str) -> Path:
    path = Path(state)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot keep runs in {state!r}: {error.strerror or error}") from None
    return path


def condensed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result says of a run: a record without what all runs share."""
    task = record["task"]
    return {
        "method": task["method"],
        "sparsity": task["sparsity"],
        "seed": task["seed"],
        **{name: value for name, value in record.items() if name not in ("task", "validation")},
        "validation": record["validation"][-1][1],
        "checks": [accuracy for _, accuracy in record["validation"]],
    }


def timed(settings: Settings, rivals: Mapping[str, _rivals.Rival]) -> dict[str, Any]:
    """Return milliseconds per step of our sparse and dense networks and of torch's dense one, in turn."""
    chosen = training.Settings(
        nets=(NET,),
        momentum=MOMENTUM,
        rows=settings.samples,
        threads=settings.threads,
        repeats=settings.repeats,
        rivals=TIMED,
        sparsities=settings.sparsities,
        pause=settings.pause,
    )
    blocks = (len(rivals) + len(settings.sparsities)) * settings.repeats
    with tqdm(total=blocks, desc="timing", unit="block", leave=False, disable=None) as bar:
        found = training.one_net(chosen, NET, rivals, bar)
    rows = {name: row for name, row in found["rivals"].items() if name != training.OURS}
    about = {"momentum": MOMENTUM, "threads": chosen.threads}
    return {**about, "repeats": chosen.repeats, "calls": chosen.calls, "rivals": rows}


# ---------------------------------------------------------------- command line


def listing() -> str:
    """Return the methods, their settings and the reasons."""
    width = max(map(len, METHODS))
    return "\n".join(
        f"{name:{width}}  {method.kind}: {method.settings()}"
        + (f"\n{'':{width}}  {method.why}" if method.why else "")
        for name, method in METHODS.items()
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; what is not given is None."""
    d = Settings()
    size = _common.at_least(1)
    methods = _common.names(tuple(METHODS), "method")
    p = argparse.ArgumentParser(prog="accuracy", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--methods", type=methods, metavar="A,B", help=", ".join(METHODS))
    p.add_argument(
        "--sparsities", type=_common.sparsities, metavar="S,S", help="default 0.9 to 0.99"
    )
    p.add_argument("--seeds", type=size, help=f"how many, default {d.seeds}")
    p.add_argument("--epochs", type=size, help=f"default {d.epochs}; fewer are said so everywhere")
    p.add_argument("--jobs", type=size, help=f"runs at a time, default {d.jobs}")
    p.add_argument("--state", metavar="DIR", help=f"finished runs, default {d.state}")
    p.add_argument("--no-timing", dest="timing", action="store_false", default=None)
    p.add_argument("--threads", type=size, help=f"of the timed steps, default {d.threads}")
    p.add_argument("--quick", action="store_true", help="two methods on the embedded digits")
    p.add_argument("--list", action="store_true", help="say what there is, run nothing")
    _program.add_outputs(p)
    return p


def settings(given: dict[str, Any]) -> Settings:
    """Return the settings that parsed arguments stand for."""
    base = QUICK if given["quick"] else Settings()
    known = {field.name for field in fields(Settings)}
    changes = {k: v for k, v in given.items() if k in known and v is not None}
    return replace(base, **changes)


PART = _program.Part("accuracy", measure, report, plot, (RunError, training.WrongLossError))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a run that failed."""
    p = parser()
    if p.parse_args(argv).list:
        print(listing())
        return 0
    return _program.run(PART, p, settings, argv, _program.of_threads if program else None)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
