"""Shared by all benchmarks: interleaved timing, statistics, tables, JSON and command-line types.

What the machine is, and how threads are limited, is in `_machine`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# OpenBLAS, MKL and GNU OpenMP keep their threads spinning on the cores after a call, where they
# slow whoever comes next: after a torch product our step took 1.35 times as long for 10 ms, and
# as long as ever after 20 ms; OpenBLAS gives up after 2**26 clock ticks, 26 ms.
PAUSE = 0.05  # seconds of silence before each rival's block
# After a silence both of our threads often woke on one core, where they stayed until the scheduler
# looked again: steps took twice as long, or 8 ms more. Training runs on without a pause, so a block
# is timed after this many seconds of untimed steps.
WARM = 0.06
TOTAL = "total"


@dataclass(frozen=True)
class Timed:
    """One rival: named sections, called one after another, that make up one step.

    A section's result is kept until the end of the step, as a training step keeps it, and freed
    outside the timing.
    """

    name: str
    sections: Mapping[str, Callable[[], object]]

    def step(self) -> list[int]:
        """Run one step; return the clock in ns before it and after each section."""
        clock = time.perf_counter_ns
        results = []
        stamps = [clock()]
        for section in self.sections.values():
            results.append(section())
            stamps.append(clock())
        return stamps


def interleave(
    rivals: Sequence[Timed],
    repeats: int,
    *,
    calls: int = 3,
    pause: float = PAUSE,
    progress: Callable[[str], object] = lambda name: None,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Time rivals in turn, so that whatever drifts on the machine hits all of them alike.

    Each of `repeats` rounds starts with another rival. A rival's block is: silence; untimed steps
    (at least one, for a bit longer than the silence) that bring its threads and data back; then
    `calls` timed steps.

    Returns
    -------
    dict
        `[rival][section]`: seconds, (repeats · calls,); section "total" is the whole step.
    """
    stamps: dict[str, list[list[int]]] = {rival.name: [] for rival in rivals}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(repeats):
            first = turn % len(rivals)
            for rival in [*rivals[first:], *rivals[:first]]:
                progress(rival.name)
                time.sleep(pause)
                warm = time.perf_counter() + pause * WARM / PAUSE
                rival.step()
                while time.perf_counter() < warm:
                    rival.step()
                stamps[rival.name] += [rival.step() for _ in range(calls)]
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return {rival.name: _seconds(rival, stamps[rival.name]) for rival in rivals}


def _seconds(rival: Timed, stamps: list[list[int]]) -> dict[str, NDArray[np.float64]]:
    ticks = np.array(stamps, np.int64)
    clock: NDArray[Any] = (ticks - ticks[:, :1]) * 1e-9
    parts = np.diff(clock, axis=1)
    return {**{name: parts[:, i] for i, name in enumerate(rival.sections)}, TOTAL: clock[:, -1]}


def summary(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Return median, quartiles and extremes in milliseconds, and the number of samples."""
    low, q1, median, q3, high = np.quantile(seconds, (0, 0.25, 0.5, 0.75, 1)) * 1e3
    return {
        "median_ms": float(median),
        "q1_ms": float(q1),
        "q3_ms": float(q3),
        "min_ms": float(low),
        "max_ms": float(high),
        "samples": int(seconds.size),
    }


# ---------------------------------------------------------------- writing


def number(x: float) -> str:
    """Return x with three digits that count, without an exponent: 0.187, 1.43, 12.8, 537."""
    if x == 0 or not np.isfinite(x):
        return f"{x:g}"
    return f"{x:.{min(6, max(0, 2 - int(np.floor(np.log10(abs(x))))))}f}"


def spread(row: Mapping[str, float]) -> str:
    """Return "median ±p%", p being half the interquartile range over the median."""
    half = (row["q3_ms"] - row["q1_ms"]) / 2
    return f"{number(row['median_ms'])} ±{100 * half / max(row['median_ms'], 1e-12):.0f}%"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, padded so that it reads well as plain text too."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([first, *rest])} |"

    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, rows)])


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result; a file that was there stays whole until the new one is complete."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


# ---------------------------------------------------------------- command line


def at_least(low: int) -> Callable[[str], int]:
    """Return an argparse type: an integer from `low` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"expected an integer from {low} on; got {text!r}")
        return value

    return parse


def sparsity(text: str) -> float:
    """Parse a fraction of zeros, an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1:
        hint = " A percentage? Divide by 100." if value >= 1 else ""
        raise argparse.ArgumentTypeError(
            f"expected a fraction of zeros from 0 to below 1; got {text!r}.{hint}"
        )
    return value


def fraction(text: str) -> float:
    """Parse a number from 0 to below 1, an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1; got {text!r}")
    return value


def sparsities(text: str) -> tuple[float, ...]:
    """Parse a comma-separated list of fractions of zeros, an argparse type."""
    found = tuple(dict.fromkeys(sparsity(part) for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError("no sparsity given")
    return found


def names(known: Sequence[str], kind: str) -> Callable[[str], tuple[str, ...]]:
    """Return an argparse type: a comma-separated list of some of `known`."""

    def parse(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        unknown = [name for name in given if name not in known]
        if unknown or not given:
            got = f"unknown {kind} {', '.join(unknown)}" if unknown else f"no {kind} given"
            raise argparse.ArgumentTypeError(f"{got}; choose from {', '.join(known)}")
        return given

    return parse


def output_file(text: str) -> Path:
    """Parse the path of a file that can be written, an argparse type."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"{path.parent} is not a folder"
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {reason}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: no permission")
    return path
