"""Times the start of a program: the import, and the first training step with and without a cache.

    python -m benchmarks.startup --json benchmarks/results/startup.json

Each figure comes from processes of their own, one at a time (`_child`); the steps are those of the
thesis' network at batch 64, by itself and inside `examples/mnist.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import _common, _machine, _program
from benchmarks._common import number, spread, table

CHILD = Path(__file__).with_name("_child.py")
PROGRAMS = {"thesis": "the thesis' network, batch 64", "example": "the same in examples/mnist.py"}
EMPTY, WARM = "empty", "warm"
SECTIONS = ("import_numba", "import_nnsparse", "build", "first_step", "second_step")
ALL = "first_steps_of_all"


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    programs: tuple[str, ...] = tuple(PROGRAMS)
    repeats: int = 5
    empty: int = 3
    threads: int = min(2, os.cpu_count() or 1)


class ChildError(Exception):
    """A measured process failed, or did not do what its cache asks for."""


# ---------------------------------------------------------------- measuring


def child(kind: str, threads: int, cache: Path | None = None) -> dict[str, Any]:
    """Run `_child` once; return its seconds by name, "process" (all of it), and what it announced.

    Raises
    ------
    ChildError
        If it fails.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(cache)
    command = [sys.executable, str(CHILD), kind, str(threads)]
    start = time.perf_counter()
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if run.returncode:
        raise ChildError(f"{' '.join(command)} failed:\n{run.stderr.strip()}")
    seconds = json.loads(run.stdout.splitlines()[-1])
    return {**seconds, "process": wall, "announced": "compiling kernels" in run.stderr}


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time all starts; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads.
    ChildError
        If a process fails, an empty cache needs no compilation, or a warm one does.
    """

    def work(bar: Any) -> dict[str, Any]:
        child("import", settings.threads)  # brings the files into memory
        bar.update()
        results = [_imports(settings, bar)]
        results += [row for name in settings.programs for row in _steps(name, settings, bar)]
        return {"results": results}

    turns = 1 + settings.repeats + len(settings.programs) * (settings.empty + settings.repeats)
    return _program.measured(
        "startup", settings, work, blocks=turns, unit="process", control_size=control_size
    )


def _imports(settings: Settings, bar: Any) -> dict[str, Any]:
    runs = []
    for _ in range(settings.repeats):
        runs.append(child("import", settings.threads))
        bar.update()
    return {"program": "import", "cache": None, **_figures(runs)}


def _steps(name: str, settings: Settings, bar: Any) -> list[dict[str, Any]]:
    """Time a program with empty caches, and with the last of them once it is warm."""
    runs: dict[str, list[dict[str, Any]]] = {EMPTY: [], WARM: []}
    kinds = [EMPTY] * settings.empty + [WARM] * settings.repeats
    with tempfile.TemporaryDirectory(prefix="nnsparse-startup-") as folder:
        for i, kind in enumerate(kinds):
            bar.set_postfix_str(f"{name}, {kind} cache")
            cache = Path(folder) / str(min(i, settings.empty - 1))
            run = child(name, settings.threads, cache)
            if run["announced"] != (kind == EMPTY):
                said = "said" if run["announced"] else "did not say"
                raise ChildError(f"{name}: with a {kind} cache it {said} that it compiles")
            runs[kind].append(run)
            bar.update()
    return [{"program": name, "cache": kind, **_figures(runs[kind])} for kind in (EMPTY, WARM)]


def _figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in runs[0] if name != "announced"]
    return {
        "announced": runs[0]["announced"],
        "sections": {
            name: _common.summary(np.array([run[name] for run in runs])) for name in names
        },
    }


# ---------------------------------------------------------------- printing


def report(result: Mapping[str, Any]) -> str:
    """Return the table, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    rows = []
    for entry in result["results"]:
        parts = entry["sections"]
        rows.append(
            [
                PROGRAMS.get(entry["program"], entry["program"]),
                entry["cache"] or "",
                *(spread(parts[name]) if name in parts else "" for name in (*SECTIONS, ALL)),
                spread(parts["process"]),
                {True: "says so", False: ""}[entry["announced"]],
            ]
        )
    header = ["ms", "cache", *(name.replace("_", " ") for name in (*SECTIONS, ALL))]
    blocks = [
        f"# Start of a program, {s['threads']} threads",
        _machine.sentence(result["machine"]) + f"\n{control}",
        table([*header, "process", "compiles"], rows),
        f"Median ± half the interquartile range of {s['repeats']} processes, {s['empty']} with an "
        "empty cache. import nnsparse: after Numba's. build: layers and topologies. First steps of "
        "all: the four networks that the example trains side by side.",
    ]
    return "\n\n".join(blocks) + "\n"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw what each program waits for, from its start to the end of the first step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.9 + 0.5 * len(result["results"])), layout="constrained")
    axes = figure.add_subplot()
    labels = [
        f"{e['program']}, {e['cache']}" if e["cache"] else "import" for e in result["results"]
    ]
    left = np.zeros(len(labels))
    for name in SECTIONS[:-1]:
        rows = [entry["sections"].get(name, {"median_ms": 0.0}) for entry in result["results"]]
        width = np.array([row["median_ms"] * 1e-3 for row in rows])
        axes.barh(labels, width, left=left, label=name.replace("_", " "))
        left += width
    axes.bar_label(axes.containers[-1], [f"{number(s)} s" for s in left], padding=4, fontsize=9)
    axes.set_xlim(0, 1.15 * left.max())
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="seconds", title=f"Start of a program\n{result['machine']['cpu']}")
    figure.legend(loc="outside lower center", ncols=len(SECTIONS) - 1, fontsize=8)
    figure.savefig(path, dpi=150)


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    known = _common.names(tuple(PROGRAMS), "program")
    p = argparse.ArgumentParser(prog="startup", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--programs", type=known, default=d.programs, metavar="A,B")
    p.add_argument("--repeats", type=size, default=d.repeats, help="processes, default 5")
    p.add_argument("--empty", type=size, default=d.empty, help="with an empty cache, default 3")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    _program.add_outputs(p)
    return p


PART = _program.Part("startup", measure, report, plot, (ChildError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a process that failed."""
    return _program.run(PART, parser(), lambda given: Settings(**given), argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
