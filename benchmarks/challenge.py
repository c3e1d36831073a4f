"""Inference of the Sparse DNN Graph Challenge, our variants against SciPy and SuiteSparse:GraphBLAS.

    python -m benchmarks.challenge --cases 1024x120 4096x120 --json out.json --plot out.png

How each rival computes it is in `_challenge`, what is printed in `_challenge_report`. All get the same network and the
same images, slow ones the first of them only; the categories must agree. The clock runs from images in CSR and
prepared layers to categories, as the challenge counts it; making and ordering the layers is timed apart.
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
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import _common, _images, _program, _rivals
from benchmarks._challenge import EDGES, RIVALS, Call, Once, Problem
from benchmarks._challenge_report import plot, report
from benchmarks._rivals import Rival
from nnsparse.graph_challenge import BIAS, network

Case = tuple[int, int]
FEWEST = 64  # images of a rival, however slow
ODD = 1e-3  # of the images; more categories must not differ: in float32 an image may hang on the order of a sum


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    cases: tuple[Case, ...] = (
        *((1024, layers) for layers in (120, 480, 1920)),
        *((4096, layers) for layers in (120, 480, 1920)),
        (16384, 120),
    )
    images: int = 60_000
    threads: int = min(2, os.cpu_count() or 1)
    repeats: int = 3
    pause: float = _common.PAUSE
    rivals: tuple[str, ...] = tuple(RIVALS)


class WrongCategoriesError(Exception):
    """Two rivals found different categories."""


# ---------------------------------------------------------------- measuring


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time all rivals on all networks; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If no rival is installed, or there are fewer cores than threads.
    WrongCategoriesError
        If the categories of two rivals differ for more than one image in a thousand.
    """
    rivals, skipped = _rivals.installed(settings.rivals, RIVALS)
    data, (pictures, _), _ = _images.images(settings.images, 1)

    def work(bar: Any) -> dict[str, Any]:
        results = [_one_case(settings, rivals, case, pictures, bar) for case in settings.cases]
        return {"data": data, **_rivals.described(rivals, skipped), "results": results}

    blocks = len(rivals) * settings.repeats * len(settings.cases)
    return _program.measured("challenge", settings, work, blocks=blocks, control_size=control_size)


def _one_case(
    settings: Settings, rivals: Mapping[str, Rival], case: Case, pictures: Any, bar: Any
) -> dict[str, Any]:
    """Time the rivals on one network, in turn."""
    neurons, layers = case
    problem = Problem(network(neurons, layers), pictures)
    nnz, title = problem.network.nnz, f"{neurons}x{layers}"
    counts = {name: int(min(len(pictures), max(FEWEST, EDGES[name] / nnz))) for name in rivals}
    calls: dict[str, Call] = {}
    for name, rival in rivals.items():
        bar.set_postfix_str(f"{title}: setting up {name}")
        calls[name] = rival.make(problem.part(counts[name]))
    found: dict[str, list[Once]] = {name: [] for name in rivals}
    names = list(rivals)
    for turn in range(settings.repeats):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            bar.set_postfix_str(f"{title}: {name}")
            time.sleep(settings.pause)
            found[name].append(calls[name]())
            bar.update()
    _check(title, found, counts)
    rows = {name: _figures(found[name], counts[name], nnz) for name in names}
    return {"neurons": neurons, "layers": layers, "nnz": nnz, "rivals": rows}


def _check(title: str, found: Mapping[str, Sequence[Once]], counts: Mapping[str, int]) -> None:
    reference = max(found, key=lambda name: counts[name])
    wanted = found[reference][0].categories
    for name, runs in found.items():
        expected = wanted[wanted < counts[name]]
        for run in runs:
            odd = np.setxor1d(run.categories, expected)
            if odd.size > ODD * counts[name]:
                raise WrongCategoriesError(
                    f"{title}: {name} and {reference} differ for {odd.size} of {counts[name]} "
                    f"images, such as {odd[0]}"
                )


def _figures(runs: Sequence[Once], images: int, nnz: int) -> dict[str, Any]:
    """Return times and rates of one rival's runs."""
    times = _common.summary(np.array([run.seconds for run in runs]))
    every = float(np.median([run.seconds + run.prepare + run.read for run in runs]))
    seconds, last = times["median_ms"] * 1e-3, runs[-1]
    return {
        **times,
        "images": images,
        "prepare_ms": 1e3 * float(np.median([run.prepare for run in runs])),
        "read_ms": 1e3 * float(np.median([run.read for run in runs])),
        "rate": images * nnz / seconds,
        "best_rate": images * nnz / times["min_ms"] * 1e3,
        "work_rate": None if last.work is None else last.work / seconds,
        "total_rate": images * nnz / every,
        "nbytes": last.nbytes,
        "categories": int(last.categories.size),
    }


# ---------------------------------------------------------------- command line


def case(text: str) -> Case:
    """Parse "1024x120", an argparse type."""
    try:
        neurons, layers = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        neurons, layers = 0, 0
    if neurons not in BIAS or layers < 1:
        raise argparse.ArgumentTypeError(
            f"expected neurons x layers, as 1024x120, of {', '.join(map(str, BIAS))} neurons; got {text!r}"
        )
    return neurons, layers


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    p = argparse.ArgumentParser(prog="challenge", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--cases", type=case, nargs="+", default=d.cases, metavar="NxL", help="1024x120")
    p.add_argument("--quick", action="store_true", help="1024x120 and few images")
    p.add_argument("--images", type=size, default=d.images, help="default %(default)s")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--repeats", type=_common.at_least(1), default=d.repeats, help="rounds")
    rivals = _common.names(tuple(RIVALS), "rival")
    p.add_argument("--rivals", type=rivals, default=d.rivals, metavar="A,B", help=", ".join(RIVALS))
    _program.add_outputs(p)
    return p


QUICK = Settings(cases=((1024, 120),), images=2000, repeats=3)
PART = _program.Part("challenge", measure, report, plot, (WrongCategoriesError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for wrong categories of a rival."""

    def settings(given: dict[str, Any]) -> Settings:
        if given.pop("quick"):
            given["cases"], given["images"] = QUICK.cases, min(QUICK.images, given["images"])
        return Settings(**{**given, "cases": tuple(given["cases"])})

    pin = _program.of_threads if program else None
    return _program.run(PART, parser(), settings, argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
