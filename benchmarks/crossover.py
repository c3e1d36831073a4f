"""From which sparsity on sparse is faster: the layer step over sizes × batches × threads × sparsity.

    python -m benchmarks.crossover --sizes 1024 2048 --batches 64 256 --threads 1 2 --plot out.png

The step, the rivals and the check of their results are those of `kernels`; what is printed and
drawn is in `_crossover_report`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import _common, _machine, _program, _rivals, kernels
from benchmarks._crossover_report import DENSE, PRODUCTS, plot, report
from benchmarks._rivals import RIVALS

NEEDED = ("nnsparse", kernels.BASELINE)


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    sizes: tuple[int, ...] = (1024, 2048)
    batches: tuple[int, ...] = (256,)
    threads: tuple[int, ...] = tuple(sorted({1, min(2, os.cpu_count() or 1)}))
    sparsity: tuple[float, ...] = (
        *(0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
        *(0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999),
    )
    repeats: int = 5
    calls: int = 3
    pause: float = _common.PAUSE
    rivals: tuple[str, ...] = (*NEEDED, "dense", "torch", "torch-sparse", "mkl")
    seed: int = 0


# ---------------------------------------------------------------- measuring


def configurations(settings: Settings) -> Iterator[kernels.Settings]:
    """Yield the settings of `kernels` for every size, batch and number of threads."""
    for n, batch, threads in product(settings.sizes, settings.batches, settings.threads):
        yield kernels.Settings(
            n_in=n,
            n_out=n,
            batch=batch,
            sparsity=tuple(sorted(settings.sparsity)),
            threads=threads,
            repeats=settings.repeats,
            calls=settings.calls,
            pause=settings.pause,
            rivals=settings.rivals,
            seed=settings.seed,
        )


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time all configurations; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If nnsparse or NumPy is no rival, there are fewer cores than threads, fewer than two
        sparsities, or no nonzero is left.
    kernels.WrongResultError
        If a result differs from float64's.
    """
    missing = [name for name in NEEDED if name not in settings.rivals]
    if missing:
        raise ValueError(f"the crossover needs the rivals {', '.join(missing)}: add to --rivals")
    if len(set(settings.sparsity)) < 2:
        raise ValueError(f"a curve needs two sparsities or more; got {settings.sparsity}")
    runs = list(configurations(settings))
    rivals, skipped = kernels.contestants(runs[0])

    def work(bar: Any) -> dict[str, Any]:
        results = [_one_curve(run, rivals, bar) for run in runs]
        return {**_rivals.described(rivals, skipped), "results": results}

    blocks = len(rivals) * settings.repeats * len(settings.sparsity) * len(runs)
    return _program.measured("crossover", settings, work, blocks=blocks, control_size=control_size)


def _one_curve(run: kernels.Settings, rivals: Mapping[str, Any], bar: Any) -> dict[str, Any]:
    with _machine.limit_threads(run.threads):
        points = [
            _compact(kernels.one_sparsity(run, rivals, sparsity, [run.seed, i], bar))
            for i, sparsity in enumerate(run.sparsity)
        ]
    found = {}
    for name in (name for name in DENSE if name in rivals):
        found[name] = {}
        for section in PRODUCTS:
            ours, theirs = (
                np.array([point["rivals"][rival][section] for point in points])
                for rival in ("nnsparse", name)
            )
            found[name][section] = crossing(run.sparsity, theirs / ours)
    return {
        "n": run.n_in,
        "batch": run.batch,
        "threads": run.threads,
        "points": points,
        "crossings": found,
    }


def _compact(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one sparsity's medians in ms: a curve shows no more, and there are many points."""
    rows = {
        name: {section: round(row["sections"][section]["median_ms"], 5) for section in PRODUCTS}
        for name, row in entry["rivals"].items()
    }
    return {"sparsity": entry["sparsity"], "nnz": entry["nnz"], "rivals": rows}


def crossing(sparsity: Sequence[float], ratio: Any) -> float | None:
    """Return the sparsity from which on `ratio` (times faster) stays above 1.

    Interpolated between the last point below and the next one, linear in the logarithm of the
    ratio; the first sparsity if no point is below, None if the last one is.
    """
    below = np.flatnonzero(np.asarray(ratio) < 1)
    if not below.size:
        return float(sparsity[0])
    i = int(below[-1])
    if i == len(sparsity) - 1:
        return None
    low, high = np.log(ratio[i]), np.log(ratio[i + 1])
    return float(sparsity[i] + (sparsity[i + 1] - sparsity[i]) * -low / (high - low))


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    p = argparse.ArgumentParser(prog="crossover", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--sizes", type=size, nargs="+", default=d.sizes, metavar="N", help="n -> n")
    p.add_argument("--batches", type=size, nargs="+", default=d.batches, metavar="N")
    p.add_argument("--threads", type=size, nargs="+", default=d.threads, metavar="N")
    p.add_argument("--sparsity", type=_common.sparsity, nargs="+", default=d.sparsity, metavar="S")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--calls", type=size, default=d.calls, help="timed steps per round, default 3")
    p.add_argument(
        "--rivals",
        type=_common.names(tuple(RIVALS), "rival"),
        default=d.rivals,
        metavar="A,B",
        help=f"of {', '.join(RIVALS)}; {' and '.join(NEEDED)} are needed",
    )
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("crossover", measure, report, plot, (kernels.WrongResultError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong result of a rival."""
    several = ("sizes", "batches", "threads", "sparsity")

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, **{name: tuple(given[name]) for name in several}})

    pin = _program.of_threads if program else None
    return _program.run(PART, parser(), settings, argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
