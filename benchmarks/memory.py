"""Memory of training a wide network: bytes by kind, and peak resident size in a fresh process.

    python -m benchmarks.memory --json out.json --plot out.png

Each figure comes from a process of its own (`_memory_child`) that has trained a small network
before: the growth is the peak above what code and libraries take. Counted are values, gradients,
optimizer state, indices, maps and pointers (`ns.memory_report`), the samples, and the activations
that a step must hold: input and output of every layer, and as many gradients but for the input's.
What steady steps of ours allocate, block by block, is watched in the same processes (`_allocations`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import _common, _program, _rivals
from benchmarks._memory_report import plot, report
from benchmarks._networks import RIVALS

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ("nnsparse", "dense", "numpy", "torch")


@dataclass(frozen=True)
class Settings:
    """What to train; the defaults are those of the command line."""

    sizes: tuple[int, ...] = (4096, 4096, 4096, 10)
    sparsity: float = 0.95
    batch: int = 256
    rows: int = 512
    steps: int = 3
    momentum: float = 0.9
    repeats: int = 3
    threads: int = min(2, os.cpu_count() or 1)
    rivals: tuple[str, ...] = KNOWN
    seed: int = 0


class ChildError(Exception):
    """A measured process failed."""


# ---------------------------------------------------------------- measuring


def child(rival: str, settings: Settings) -> dict[str, Any]:
    """Run `_memory_child` once; return its bytes by name.

    Raises
    ------
    ChildError
        If it fails.
    """
    command = [sys.executable, "-m", "benchmarks._memory_child", rival]
    run = subprocess.run(
        [*command, json.dumps(asdict(settings))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise ChildError(f"{' '.join(command)} failed:\n{run.stderr.strip()}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def activations(settings: Settings) -> int:
    """Return the bytes of a batch in and out of every layer, and of the outputs' gradients."""
    first, *others = settings.sizes
    return 4 * settings.batch * (first + 2 * sum(others))


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Train in fresh processes, one at a time; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If no rival is installed, rows are fewer than a batch, or there are fewer cores than threads.
    ChildError
        If a process fails.
    """
    rivals, skipped = _rivals.installed(settings.rivals, RIVALS)
    if settings.rows < settings.batch:
        raise ValueError(f"{settings.rows} rows give no batch of {settings.batch}: take more rows")
    held = activations(settings)

    def work(bar: Any) -> dict[str, Any]:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in rivals}
        for _ in range(settings.repeats):
            for name in rivals:
                bar.set_postfix_str(name)
                runs[name].append(child(name, settings))
                bar.update()
        results = {name: _figures(runs[name], held) for name in rivals}
        return {**_rivals.described(rivals, skipped), "activations": held, "results": results}

    blocks = settings.repeats * len(rivals)
    return _program.measured(
        "memory", settings, work, blocks=blocks, unit="process", control_size=control_size
    )


def _figures(runs: Sequence[Mapping[str, Any]], activations: int) -> dict[str, Any]:
    """Return the medians of a rival's processes, of steady steps the worst.

    "growth" is the peak above what was resident before; "weights_and_state" is growth less samples
    and activations.
    """
    names = [name for name in runs[0] if name != "exact" and not name.startswith("step_")]
    row: dict[str, Any] = {name: int(median(run[name] for run in runs)) for name in names}
    row["exact"] = all(run["exact"] for run in runs)
    if "step_largest" in runs[0]:
        worst = max(runs, key=lambda run: run["step_largest"])
        row |= {name: worst[name] for name in ("step_largest", "step_where")}
        row["step_growth"] = max(run["step_growth"] for run in runs)
    growth = [run["peak"] - run["before"] for run in runs]
    row["growth"] = int(median(growth))
    row["growth_range"] = [min(growth), max(growth)]
    row["weights_and_state"] = row["growth"] - row["data"] - activations
    return row


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    p = argparse.ArgumentParser(prog="memory", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--sizes", type=size, nargs="+", default=d.sizes, metavar="N")
    p.add_argument("--sparsity", type=_common.sparsity, default=d.sparsity, help="0.95; last dense")
    p.add_argument("--batch", type=size, default=d.batch, help="default %(default)s")
    p.add_argument("--rows", type=size, default=d.rows, help="samples, default %(default)s")
    p.add_argument("--steps", type=size, default=d.steps, help="default %(default)s")
    p.add_argument("--momentum", type=_common.sparsity, default=d.momentum, help="default 0.9")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="processes, >= 3")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    rivals = _common.names(KNOWN, "rival")
    p.add_argument("--rivals", type=rivals, default=d.rivals, metavar="A,B", help=", ".join(KNOWN))
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("memory", measure, report, plot, (ChildError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a process that failed."""
    p = parser()

    def settings(given: dict[str, Any]) -> Settings:
        if len(given["sizes"]) < 3:
            p.error(f"--sizes expects three numbers or more, input to output; got {given['sizes']}")
        return Settings(**{**given, "sizes": tuple(given["sizes"])})

    return _program.run(PART, p, settings, argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
