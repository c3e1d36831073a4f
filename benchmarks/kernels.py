"""Times one layer's step (forward, input gradient, weight gradient) against the rivals.

    python benchmarks/kernels.py --n-in 2048 --sparsity 0.8 0.95 --json out.json --plot out.png
    python benchmarks/kernels.py --slab        # what forced slab sizes cost, for machine.Choices

How each rival computes the step is in `_rivals`, how it is timed in `_common`, what is printed in
`_kernels_report`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import _common, _program, _rivals
from benchmarks._common import TOTAL, Timed
from benchmarks._kernels_report import plot, report
from benchmarks._layer import LayerStep, Problem
from benchmarks._rivals import RIVALS, Rival
from nnsparse.plan import plan_of

BASELINE = "numpy"
MAX_ERROR = 1e-5  # relative, of float32 against float64; 1e-7 to 1e-6 is usual
SLABS = (64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    n_in: int = 1024
    n_out: int = 1024
    batch: int = 256
    sparsity: tuple[float, ...] = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    threads: int = min(2, os.cpu_count() or 1)
    repeats: int = 15
    calls: int = 3
    pause: float = _common.PAUSE
    rivals: tuple[str, ...] = tuple(RIVALS)
    slab: bool = False
    seed: int = 0


class WrongResultError(Exception):
    """A rival's result is not that of float64."""


# ---------------------------------------------------------------- measuring


def contestants(settings: Settings) -> tuple[dict[str, Rival], list[str]]:
    """Return the rivals of a run by name, and a line for each that is not installed.

    Raises
    ------
    ValueError
        If none is.
    """
    if not settings.slab:
        return _rivals.installed(settings.rivals, RIVALS)
    widest = 2 * max(settings.n_in, settings.n_out)  # from there on a slab is the whole matrix
    forced = {
        f"slab {slab}": Rival(partial(_rivals.sparse_tiles, slab=slab), "forced slab size")
        for slab in SLABS
        if slab < widest or slab == SLABS[0]
    }
    return {BASELINE: RIVALS[BASELINE], "nnsparse": RIVALS["nnsparse"], **forced}, []


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time all rivals at all sparsities, interleaved; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If no rival is installed, there are fewer cores than threads, or no nonzero is left.
    WrongResultError
        If a result differs from float64's by more than `MAX_ERROR`.
    """
    rivals, skipped = contestants(settings)

    def work(bar: Any) -> dict[str, Any]:
        results = [
            one_sparsity(settings, rivals, sparsity, [settings.seed, i], bar)
            for i, sparsity in enumerate(settings.sparsity)
        ]
        return {**_rivals.described(rivals, skipped), "results": results}

    blocks = len(rivals) * settings.repeats * len(settings.sparsity)
    return _program.measured("kernels", settings, work, blocks=blocks, control_size=control_size)


def one_sparsity(
    settings: Settings, rivals: Mapping[str, Rival], sparsity: float, seed: object, bar: Any
) -> dict[str, Any]:
    """Check and time the rivals at one sparsity, interleaved; return its entry of the results."""
    shape = (settings.n_out, settings.n_in)
    p = Problem.random(*shape, settings.batch, sparsity, seed)
    if not p.topology.nnz:
        raise ValueError(f"no nonzero is left of {shape} at sparsity {sparsity}: take it lower")
    bar.set_postfix_str(f"{sparsity:.1%} sparse: setting up")
    reference = p.reference()
    rows: dict[str, dict[str, Any]] = {}
    timed = []
    for name, rival in rivals.items():
        step, rows[name] = _set_up(name, rival, p, reference)
        timed.append(Timed(name, step.sections))

    def progress(name: str) -> None:
        bar.set_postfix_str(f"{sparsity:.1%} sparse: {name}", refresh=False)
        bar.update()

    seconds = _common.interleave(
        timed, settings.repeats, calls=settings.calls, pause=settings.pause, progress=progress
    )
    work = 2 * p.topology.nnz * settings.batch
    for name, parts in seconds.items():
        rows[name]["sections"] = {
            section: _figures(times, work * (3 if section == TOTAL else 1))
            for section, times in parts.items()
        }
    if BASELINE in rows:
        baseline = rows[BASELINE]["sections"][TOTAL]["median_ms"]
        for row in rows.values():
            row["speedup"] = baseline / row["sections"][TOTAL]["median_ms"]
    entry: dict[str, Any] = {"sparsity": sparsity, "nnz": p.topology.nnz, "rivals": rows}
    if "nnsparse" in rows:
        plan = plan_of(p.topology)
        entry["slabs"] = [plan.forward.slab, plan.transposed.slab]
    return entry


def _set_up(
    name: str, rival: Rival, p: Problem, reference: tuple[Any, Any, Any]
) -> tuple[LayerStep, dict[str, Any]]:
    """Build a rival's data, call each product for the first time and check it; time both apart."""
    start = time.perf_counter()
    step = rival.make(p)
    built = time.perf_counter()
    results = [call() for call in step.sections.values()]
    first = time.perf_counter()
    del results
    errors = step.errors(reference)
    for section, error in errors.items():
        if not error <= MAX_ERROR:
            raise WrongResultError(
                f"{name}: {section} is off by {error:.1e} of float64's, more than {MAX_ERROR:.0e}"
            )
    times = {"setup_ms": (built - start) * 1e3, "first_step_ms": (first - built) * 1e3}
    return step, {**times, "errors": errors}


def _figures(seconds: Any, work: int) -> dict[str, float]:
    row = _common.summary(seconds)
    return {**row, "gflops": work / row["median_ms"] * 1e-6}


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    known = _common.names(tuple(RIVALS), "rival")
    size = _common.at_least(1)
    p = argparse.ArgumentParser(prog="kernels", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--n-in", type=size, default=d.n_in, help="default %(default)s")
    p.add_argument("--n-out", type=size, help="default: as --n-in")
    p.add_argument("--batch", type=size, default=d.batch, help="default %(default)s")
    p.add_argument("--sparsity", type=_common.sparsity, nargs="+", default=d.sparsity, metavar="S")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--calls", type=size, default=d.calls, help="timed steps per round, default 3")
    p.add_argument(
        "--rivals", type=known, default=d.rivals, metavar="A,B", help=f"of {', '.join(RIVALS)}"
    )
    p.add_argument("--slab", action="store_true", help="time forced slab sizes, not the rivals")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


def _no_plot(settings: Settings) -> str:
    """Why the result of these settings cannot be drawn."""
    if settings.slab or BASELINE in settings.rivals:
        return ""
    return f"draws ratios to {BASELINE}: add it to --rivals"


PART = _program.Part("kernels", measure, report, plot, (WrongResultError,), _no_plot)


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong result of a rival."""

    def settings(given: dict[str, Any]) -> Settings:
        given["n_out"] = given["n_out"] or given["n_in"]
        return Settings(**{**given, "sparsity": tuple(given["sparsity"])})

    pin = _program.of_threads if program else None
    return _program.run(PART, parser(), settings, argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
