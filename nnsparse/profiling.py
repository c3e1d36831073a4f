"""`profile`: where the time of training or prediction goes, by layer and section, against the machine's limits.

What is recorded is in `recorder`, the hooks in `trace`, the limits in `roofline`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias, final

from nnsparse import trace
from nnsparse.nn.module import Module
from nnsparse.recorder import PYTHON, Entry, Recorder
from nnsparse.roofline import Roof, product_cost, roof

Row: TypeAlias = dict[str, Any]

# In this order; other kernels, under their own names, stand before write-back.
SECTIONS = (
    "allocation",
    "layout",
    "plan lookup",
    "plan build",
    "forward",
    "input gradient",
    "weight gradient",
    "write-back",
    "compilation",
    PYTHON,
)
_KERNELS = SECTIONS.index("write-back")
COLUMNS = ("layer", "section", "calls", "seconds", "flops", "bytes", "gflops", "gbps")


@final
class Profile:
    """What `profile` recorded. Use it as a context manager, several times if you like: the records add up.

    Attributes
    ----------
    seconds : float
        That passed inside its `with` blocks.
    overhead : float
        Of these, what recording took. The sections add up to `seconds - overhead`.
    """

    def __init__(self, model: Module | None = None) -> None:
        if model is not None and not isinstance(model, Module):
            raise TypeError(f"profile expects a Module or nothing; got {type(model).__name__}")
        self.seconds = 0.0
        self._recorder = Recorder(product_cost)
        if model is not None:
            self._recorder.add(model)
        self._running = False
        self._start = 0.0

    def __enter__(self) -> Profile:
        """Begin to record this Python thread.

        Raises
        ------
        RuntimeError
            If this thread, or this profile, is being recorded already.
        """
        if trace.current() is not None:
            raise RuntimeError(
                "profile: this thread is being profiled already, and its time can be charged to one "
                "profile only. Leave the outer `with` block first, or read the layers from its rows()."
            )
        if self._running:
            raise RuntimeError(
                "profile: this profile is recording another thread. Make one per thread."
            )
        self._running = True
        self._start = self._recorder.resume()
        trace.install(self._recorder)
        return self

    def __exit__(self, *exception: object) -> None:
        trace.install(None)
        self.seconds += self._recorder.pause() - self._start
        self._running = False

    @property
    def overhead(self) -> float:
        """Seconds that recording itself took."""
        return self._recorder.overhead

    # ------------------------------------------------------------ records

    def rows(self) -> list[Row]:
        """Return one row per layer and section, layers in the order of the model.

        Returns
        -------
        list of dict
            layer : dotted name as in `model.named_modules()`; "" is what belongs to none of its parts: input,
            loss, your own code. A second model's names begin with its type and a number. A compiled model is one
            layer, "CompiledModel(784 -> 10)", whatever it consists of.
            section : one of `sections()`. calls : int. seconds : float. flops : int, of the three products
            (2·nnz·batch). bytes : int, the least that has to be moved, each array once. gflops, gbps : float,
            10⁹ per second, 0 where nothing was counted.
        """
        return [
            {
                "layer": layer,
                "section": section,
                "calls": entry.calls,
                "seconds": entry.seconds,
                "flops": entry.flops,
                "bytes": entry.nbytes,
                "gflops": _rate(entry.flops, entry.seconds),
                "gbps": _rate(entry.nbytes, entry.seconds),
            }
            for layer, section, entry in _ordered(self._recorder)
        ]

    def sections(self) -> dict[str, float]:
        """Return the seconds of each section, all layers together.

        "allocation", "layout" (user arrays to tiles), "plan lookup", "plan build", the products "forward", "input
        gradient" and "weight gradient", other kernels by name, "write-back" (optimizer, results that leave),
        "compilation" (also from the cache), and "python": all else.
        """
        found = _totals(_ordered(self._recorder))
        names = sorted({*SECTIONS, *found}, key=lambda name: (_rank(name), name))
        return {name: found[name].seconds if name in found else 0.0 for name in names}

    # ------------------------------------------------------------ for people and files

    def table(self) -> str:
        """Return the rows as a text table, with their share of the time and of what the machine can do.

        The roof of a row is the lower one of the multiply-add peak and what the memory can feed; "cache" where the
        bytes came faster than memory gives them. The first call in a process measures the machine (0.5 s).
        """
        limits = roof()
        rows = _ordered(self._recorder)
        total = sum(entry.seconds for _, _, entry in rows)
        lines: list[Sequence[str]] = [
            ("layer", "section", "calls", "ms", "share", "GFLOP/s", "GB/s", "of roof")
        ]
        before = None
        for layer, section, entry in rows:
            shown = "" if layer == before else layer or "(model)"
            before = layer
            lines.append((shown, section, *_cells(entry, total, limits)))
        lines.append(("",) * 8)
        for i, (section, entry) in enumerate(_totals(rows).items()):
            lines.append(("" if i else "all", section, *_cells(entry, total, limits)))
        head = (
            f"{1e3 * self.seconds:.3f} ms, of which {1e3 * self.overhead:.3f} ms for recording. "
            f"Roof on {limits.threads} threads: {limits.gflops:.0f} GFLOP/s float32, "
            f"{limits.gbps:.1f} GB/s memory copy."
        )
        return f"{head}\n{_aligned(lines)}"

    def __str__(self) -> str:
        return self.table()

    def to_json(self, path: str | Path | None = None) -> str:
        """Return seconds, overhead, the machine's limits, sections and rows as JSON; write it to `path` if given."""
        content = {
            "seconds": self.seconds,
            "overhead": self.overhead,
            "roof": asdict(roof()),
            "sections": self.sections(),
            "rows": self.rows(),
        }
        return _written(json.dumps(content, indent=1) + "\n", path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as comma-separated values with a header; write them to `path` if given."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return _written(buffer.getvalue(), path)


def profile(model: Module | None = None) -> Profile:
    """Return a context manager that records where this Python thread's time goes, by layer and section.

    Only the thread that enters the `with` block is recorded. Profiles do not nest. Recording takes about 2 µs per
    event and is not charged to any section; while nobody records, all hooks of a training step take less than 1 µs.

    Parameters
    ----------
    model : Module, optional
        Whose names to use; by default those of the first model that is called. Give it if the block calls layers one
        by one.

    Raises
    ------
    RuntimeError
        At `with`, if the thread is being profiled already.

    Examples
    --------
    >>> import numpy as np
    >>> from nnsparse import nn
    >>> model = nn.mlp([64, 32, 10], sparsity=0.5, rng=0)
    >>> with profile() as p:
    ...     y = model(np.ones((8, 64)))
    >>> [(row["layer"], row["flops"]) for row in p.rows() if row["section"] == "forward"]
    [('0', 13824), ('2', 5120)]
    """
    return Profile(model)


# ---------------------------------------------------------------- presentation


def _rate(amount: int, seconds: float) -> float:
    return 1e-9 * amount / seconds if seconds > 0 else 0.0


def _ordered(recorder: Recorder) -> list[tuple[str, str, Entry]]:
    """Return what was recorded: parts of the model first, then what belongs to none; sections in their order."""
    layers = [*(name for name in recorder.layers() if name), ""]
    found = [
        (layer, section, entry)
        for (layer, section), entry in recorder.entries.items()
        if entry.calls or entry.seconds
    ]
    return sorted(found, key=lambda row: (layers.index(row[0]), _rank(row[1])))


def _rank(section: str) -> float:
    return SECTIONS.index(section) if section in SECTIONS else _KERNELS - 0.5


def _totals(rows: Sequence[tuple[str, str, Entry]]) -> dict[str, Entry]:
    """Return the entries of all layers together, by section."""
    totals: dict[str, Entry] = {}
    for _, section, entry in sorted(rows, key=lambda row: _rank(row[1])):
        totals.setdefault(section, Entry()).add(entry)
    return totals


def _cells(entry: Entry, total: float, limits: Roof) -> tuple[str, ...]:
    gflops, gbps = _rate(entry.flops, entry.seconds), _rate(entry.nbytes, entry.seconds)
    return (
        str(entry.calls) if entry.calls else "",
        f"{1e3 * entry.seconds:.3f}",
        f"{100 * entry.seconds / total:.1f} %" if total else "",
        f"{gflops:.1f}" if entry.flops else "",
        f"{gbps:.1f}" if entry.nbytes else "",
        _of_roof(entry, gbps, limits),
    )


def _of_roof(entry: Entry, gbps: float, limits: Roof) -> str:
    """Return the share of the attainable rate, min(peak, intensity · bandwidth), in percent."""
    compute, memory = _rate(entry.work, entry.seconds) / limits.gflops, gbps / limits.gbps
    if memory > 1:  # the memory was not what limited it
        return f"{100 * compute:.0f} %" if entry.flops else "cache"
    return f"{100 * max(compute, memory):.0f} %" if entry.nbytes else ""


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as columns, the first two to the left, with a rule below the header."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        pairs = zip(cells, widths, strict=True)
        text = (c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(pairs))
        return "  ".join(text).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(lines[0]), rule, *map(line, lines[1:])])


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8", newline="")
    return text
