"""The multicore paper's three MLPs: one sample through 128 features, ReLU layers, one output.

    python -m benchmarks.multicore --threads 1 2 --json out.json --plot out.png

99.5 % of all weights of a network are pruned together, biases apart: of W weights in L matrices
0.005·W remain, rounded, and fall on the layers in proportion to their sizes; here at random
positions. That and nothing else gives the paper's sizes in elements of the stored arrays, biases
not counted:

- COO keeps row, column and value of each nonzero, 3·nnz elements;
- CSR keeps column and value of each, and rows + 1 pointers of each matrix, 2·nnz + Σ(n_out + 1).

| network | weights | nnz | rows | matrices | COO | CSR |
| 128-2048-2048-2048-1 | 8 652 800 | 43 264 | 6145 | 4 | 129 792 | 92 677 |
| 128-256×7-1 | 426 240 | 2131 | 1793 | 8 | 6393 | 6063 |
| 128-128×24-1 | 393 344 | 1967 | 3073 | 25 | 5901 | 7032 |

CSR is the smaller one unless there are more rows than nonzeros, as in the last network. What is
timed are 100 forward passes at batch 1, one call a pass, results checked against float64.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import _common, _machine, _program, _rivals
from benchmarks._common import TOTAL, Timed
from benchmarks._multicore import NETS, RIVALS, Array, Predict, elements, network, reference
from benchmarks._multicore_report import plot, report
from nnsparse import nn

MAX_ERROR = 1e-5  # relative, of float32 against float64


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    nets: tuple[str, ...] = tuple(NETS)
    threads: tuple[int, ...] = tuple(sorted({1, min(2, os.cpu_count() or 1)}))
    passes: int = 100
    repeats: int = 9
    pause: float = _common.PAUSE
    rivals: tuple[str, ...] = ("nnsparse", "predict", "numpy", "torch", "dense", "csr", "coo")
    seed: int = 0


class WrongOutputError(Exception):
    """A rival's output is not that of float64."""


# ---------------------------------------------------------------- measuring


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time the rivals on every network and number of threads; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If no rival is installed, or there are fewer cores than threads.
    WrongOutputError
        If an output differs from float64's by more than `MAX_ERROR`.
    """
    rivals, skipped = _rivals.installed(settings.rivals, RIVALS)

    def work(bar: Any) -> dict[str, Any]:
        results = [_one_net(settings, name, tuple(rivals), bar) for name in settings.nets]
        return {**_rivals.described(rivals, skipped), "results": results}

    blocks = len(rivals) * settings.repeats * len(settings.nets) * len(settings.threads)
    return _program.measured("multicore", settings, work, blocks=blocks, control_size=control_size)


def _one_net(settings: Settings, name: str, rivals: Sequence[str], bar: Any) -> dict[str, Any]:
    sizes = NETS[name]
    model = network(sizes, settings.seed)
    x = np.random.default_rng([settings.seed, 1]).random((1, sizes[0]), np.float32)
    by_threads = {}
    for threads in settings.threads:
        with _machine.limit_threads(threads):
            by_threads[str(threads)] = _timed(settings, name, model, x, rivals, bar)
    return {
        "net": name,
        "sizes": list(sizes),
        "weights": sum(n_in * n_out for n_in, n_out in pairwise(sizes)),
        "nnz": elements(model)["coo"] // 3,
        "elements": elements(model),
        "threads": by_threads,
    }


def _timed(
    settings: Settings, net: str, model: nn.Sequential, x: Array, rivals: Sequence[str], bar: Any
) -> dict[str, dict[str, float]]:
    """Return each rival's milliseconds for all passes with the threads of the moment."""
    wanted = reference(model, x)
    timed = []
    for name in rivals:
        bar.set_postfix_str(f"{net}: setting up {name}")
        predict = RIVALS[name].make(model)
        _check(net, name, predict(x), wanted)
        timed.append(Timed(name, {"passes": partial(_repeat, predict, x, settings.passes)}))

    def progress(name: str) -> None:
        bar.set_postfix_str(f"{net}: {name}", refresh=False)
        bar.update()

    seconds = _common.interleave(
        timed, settings.repeats, calls=1, pause=settings.pause, progress=progress
    )
    return {name: _common.summary(parts[TOTAL]) for name, parts in seconds.items()}


def _repeat(predict: Predict, x: Array, passes: int) -> None:
    for _ in range(passes):
        predict(x)


def _check(net: str, name: str, got: Array, wanted: Array) -> None:
    if got.shape != wanted.shape:
        raise WrongOutputError(f"{net}: {name} gives {got.shape}, expected {wanted.shape}")
    error = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    if not error <= MAX_ERROR:
        raise WrongOutputError(
            f"{net}: the output of {name} is off by {error:.1e} of float64's, more than "
            f"{MAX_ERROR:.0e}"
        )


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    nets, rivals = _common.names(tuple(NETS), "net"), _common.names(tuple(RIVALS), "rival")
    p = argparse.ArgumentParser(prog="multicore", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--nets", type=nets, default=d.nets, metavar="A,B", help=", ".join(NETS))
    p.add_argument("--rivals", type=rivals, default=d.rivals, metavar="A,B", help=", ".join(RIVALS))
    p.add_argument("--threads", type=size, nargs="+", default=d.threads, metavar="N")
    p.add_argument("--passes", type=size, default=d.passes, help="timed together, default 100")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("multicore", measure, report, plot, (WrongOutputError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong output of a rival."""
    pin = _program.of_threads if program else None

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, "threads": tuple(given["threads"])})

    return _program.run(PART, parser(), settings, argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
