"""Cost of training against width, from 10⁵ to 10⁷ neurons: time and memory per neuron should stay the same.

    python -m benchmarks.wide --json wide.json --plot wide.png

Each width is trained in a process of its own (`_wide_child`): three hidden layers with ten random inputs a neuron, on
sparse rows. Measured are the construction (with the plans), a training step and its parts, one update of SET and of
RigL, and the peak resident size above what a small network of the same kind takes.
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
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import _common, _machine, _program
from benchmarks._common import number, table
from nnsparse import roofline

ROOT = Path(__file__).resolve().parents[1]
UPDATES = ("set", "rigl")
GOAL = 2.0  # times that the cost of a neuron may differ


@dataclass(frozen=True)
class Settings:
    """What to train; the defaults are those of the command line."""

    neurons: tuple[int, ...] = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    hidden: int = 3
    inputs: int = 10
    batch: int = 32
    warm: int = 2
    steps: int = 5
    updates: tuple[str, ...] = UPDATES
    threads: int = min(2, os.cpu_count() or 1)
    seed: int = 0


class ChildError(Exception):
    """A measured process failed."""


# ---------------------------------------------------------------- measuring


def child(neurons: int, settings: Settings) -> dict[str, Any]:
    """Run `_wide_child` once; return what it found.

    Raises
    ------
    ChildError
        If it fails.
    """
    command = [sys.executable, "-m", "benchmarks._wide_child", json.dumps(asdict(settings))]
    run = subprocess.run(
        [*command, str(neurons)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise ChildError(f"the process of {neurons} neurons failed:\n{run.stderr.strip()}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Train all widths, one process at a time; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads.
    ChildError
        If a process fails.
    """

    def work(bar: Any) -> dict[str, Any]:
        results = []
        for neurons in sorted(settings.neurons):
            bar.set_postfix_str(f"{neurons:,} neurons")
            results.append(child(neurons, settings))
            bar.update()
        return {"stream_gbps": roofline.roof().gbps, "results": results}

    return _program.measured(
        "wide",
        settings,
        work,
        blocks=len(settings.neurons),
        unit="width",
        control_size=control_size,
    )


def costs(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what a neuron costs: µs of a step, of the construction and of each update, bytes at the peak."""
    micro = 1e6 / row["neurons"]
    return {
        "step, µs": float(np.median(row["steps"])) * micro,
        "construction, µs": row["build"] * micro,
        **{f"{name} update, µs": seconds * micro for name, seconds in row["updates"].items()},
        "training, bytes": (row["peak_training"] - row["before"]) / row["neurons"],
        "with updates, bytes": (row["peak"] - row["before"]) / row["neurons"],
    }


# ---------------------------------------------------------------- showing


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s, rows = result["settings"], result["results"]
    found = [costs(row) for row in rows]
    totals = [
        [
            f"{row['neurons']:,}",
            f"{row['weights']:,}",
            *(number(row[key] / 1e9) for key in ("model_bytes", "peak_training", "peak")),
            number(row["build"]),
            number(float(np.median(row["steps"]))),
            *(number(seconds) for seconds in row["updates"].values()),
            number(row["gather_gbps"]),
        ]
        for row in rows
    ]
    header = ["neurons", "weights", "model GB", "peak GB", "with updates", "build s", "step s"]
    each = [
        [f"{row['neurons']:,}", *map(number, cost.values())]
        for row, cost in zip(rows, found, strict=True)
    ]
    apart = ["most / least", *(f"{number(_apart(found, name))}×" for name in found[0])]
    sections = list(rows[0]["sections"])
    shares = [
        [
            f"{row['neurons']:,}",
            *(number(1e6 * row["sections"][name] / row["neurons"]) for name in sections),
        ]
        for row in rows
    ]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        f"# Width: {s['hidden']} hidden layers, {s['inputs']} inputs a neuron, batch {s['batch']}",
        _machine.sentence(result["machine"]) + f"\n{control}",
        table([*header, *(f"{name} s" for name in rows[0]["updates"]), "gather GB/s"], totals),
        "GB are 10⁹ bytes; peaks are resident sizes of fresh processes, libraries included. Steps: median of "
        f"{s['steps']} after {s['warm']}. Construction and updates include the plans. Gather: what the forward "
        "product of the second layer reads of its input, each row anywhere in it; a copy of long arrays moves "
        f"{number(result['stream_gbps'])} GB/s here.",
        f"## A neuron's cost\n\n{table(['neurons', *found[0]], [*each, apart])}",
        f"Goal: the cost of a step and of memory within {number(GOAL)}×. Bytes are above what was resident "
        "after training a small network.",
        f"## A neuron's step by part, µs\n\n{table(['neurons', *sections], shares)}",
    ]
    return "\n\n".join(blocks) + "\n"


def _apart(found: Sequence[Mapping[str, float]], name: str) -> float:
    values = [cost[name] for cost in found]
    return max(values) / max(min(values), 1e-12)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw time and memory against width, beside lines through the widest network and the origin."""
    from matplotlib.figure import Figure

    rows = result["results"]
    x = np.array([row["neurons"] for row in rows], float)
    curves = [
        {"training step": [float(np.median(row["steps"])) for row in rows]}
        | {"construction": [row["build"] for row in rows]}
        | {f"{name} update": [row["updates"][name] for row in rows] for name in rows[0]["updates"]},
        {
            "peak above a small network's": [
                (r["peak_training"] - r["before"]) / 1e9 for r in rows
            ],
            "weights, state, plans": [r["model_bytes"] / 1e9 for r in rows],
        },
    ]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, found, label in zip(figure.subplots(1, 2), curves, ("seconds", "GB"), strict=True):
        for i, (name, values) in enumerate(found.items()):
            y = np.array(values)
            axes.plot(x, y[-1] * x / x[-1], "--", color=f"C{i}", alpha=0.5)
            axes.plot(x, y, "o-", color=f"C{i}", label=name)
        axes.set(xscale="log", yscale="log", xlabel="neurons", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8)
    s = result["settings"]
    figure.suptitle(
        f"Cost against width: {s['hidden']} hidden layers, {s['inputs']} inputs a neuron, batch {s['batch']} "
        "(dashed: in proportion)",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d, size = Settings(), _common.at_least(1)
    p = argparse.ArgumentParser(prog="wide", description=(__doc__ or "").split("\n")[0])
    p.add_argument(
        "--neurons", type=_common.at_least(1000), nargs="+", default=d.neurons, metavar="N"
    )
    p.add_argument("--hidden", type=size, default=d.hidden, help="layers, default %(default)s")
    p.add_argument("--inputs", type=size, default=d.inputs, help="a neuron, default %(default)s")
    p.add_argument("--batch", type=size, default=d.batch, help="default %(default)s")
    p.add_argument("--warm", type=size, default=d.warm, help="untimed steps, default %(default)s")
    p.add_argument("--steps", type=size, default=d.steps, help="default %(default)s")
    updates = _common.names(UPDATES, "recipe")
    p.add_argument("--updates", type=updates, default=d.updates, metavar="A,B", help="set, rigl")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("wide", measure, report, plot, (ChildError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a process that failed."""

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, "neurons": tuple(given["neurons"])})

    return _program.run(PART, parser(), settings, argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
