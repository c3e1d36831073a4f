"""What the README shows of the figures: three short tables and one plot. All of them are in `readme.figures`."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import _accuracy_report, _machine
from benchmarks._common import TOTAL, number, table

DENSE = {"dense": "`nn.Linear`", "numpy": "NumPy", "torch": "torch"}
SHOWN = {"nnsparse": "**nnsparse**", "torch-sparse": "torch sparse CSR"}
METHODS = ("dense", "random", "rigl", "granet")
Result = Mapping[str, Any]


def summary(by_kind: Mapping[str, Sequence[Result]]) -> str:
    """Return the README's tables as Markdown; nothing for no results."""
    used = [r for kind in ("kernels", "training", "accuracy") for r in by_kind.get(kind, ())]
    blocks = [_kernels(by_kind["kernels"])] if by_kind.get("kernels") else []
    blocks += [_training(by_kind["training"])] if by_kind.get("training") else []
    blocks += [_accuracy(result) for result in by_kind.get("accuracy", ())]
    return "\n\n".join([*blocks, _machines(used)] if used else blocks)


def _kernels(results: Sequence[Result]) -> str:
    results = sorted(results, key=lambda r: r["settings"]["n_in"])
    columns = sorted({entry["sparsity"] for r in results for entry in r["results"]})
    rows = []
    for result in results:
        by_sparsity = {entry["sparsity"]: entry["rivals"] for entry in result["results"]}
        for name, label in SHOWN.items():
            found = [by_sparsity.get(column, {}).get(name) for column in columns]
            if any(found) and (name == "nnsparse" or result is results[0]):
                cells = [f"{number(row['speedup'])}×" if row else "" for row in found]
                rows.append(["{n_in} × {n_out}, ".format(**result["settings"]) + label, *cells])
    s = results[0]["settings"]
    intro = (
        "**One layer**, forward and both gradients: times faster than dense NumPy, by sparsity; "
        f"batch {s['batch']}, float32, {s['threads']} threads."
    )
    return _block(intro, table(["layer", *(f"{100 * c:.4g} %" for c in columns)], rows))


def _training(results: Sequence[Result]) -> str:
    results = sorted(results, key=lambda r: r["results"][0]["sizes"])
    names = [name for name in DENSE if all(name in result["notes"] for result in results)]
    rows = []
    for entry in [entry for result in results for entry in result["results"]]:
        ours = entry["rivals"]["nnsparse"]
        shape = network(entry["sizes"])
        ratios = [f"{number(ours['speedup'][name])}×" for name in names]
        rows.append([f"{shape}, {entry['note']}", str(entry["batch"]), number(ours["median_ms"])])
        rows[-1] += ratios
    intro = (
        "**One training step** (batch, forward, loss, backward, SGD): milliseconds here, and times faster than the "
        "same network dense on our own kernels, in NumPy, and in torch."
    )
    header = ["network", "batch", "ms", *(f"× {DENSE[name]}" for name in names)]
    return _block(intro, table(header, rows))


def network(sizes: Sequence[int]) -> str:
    """Return "784-4×256-10": more than two equal sizes in a row take one place."""
    runs = [(size, len(list(same))) for size, same in groupby(sizes)]
    return "-".join(f"{n}×{size}" if n > 2 else "-".join([str(size)] * n) for size, n in runs)


def _accuracy(result: Result) -> str:
    intro = (
        "**Test accuracy**, LeNet-300-100 on MNIST, percent by sparsity, mean ± standard deviation of "
        f"{result['settings']['seeds']} seeds: at random from the start, and with moving sparsity. Bold: no worse "
        "than the best published."
    )
    methods = {name: about for name, about in result["methods"].items() if name in METHODS}
    lines = _accuracy_report.accuracies({**result, "methods": methods}).splitlines()
    # Without the column of kinds and the rows of others, which the long table has.
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in lines
        if ", published" not in line
    ]
    kept = [[row[0], *row[2:]] for row in rows]
    return _block(intro, table(kept[0], kept[2:]))


def _machines(results: Sequence[Result]) -> str:
    """Return one sentence on each machine, and whether it was quiet."""
    found: dict[str, None] = {}
    loud = False
    for result in results:
        m, control = result["machine"], result["control"]
        versions = [
            f"{n} {m['versions'][n]}" for n in ("numpy", "numba", "torch") if n in m["versions"]
        ]
        found[
            f"{m['cpu']}, {m['cores']} cores, {m['simd_bits']}-bit SIMD; {', '.join(versions)}"
        ] = None
        timed = result["benchmark"] != "accuracy"
        noise = _machine.control_sentence(control["before"], control["after"]).splitlines()[1:]
        loud = loud or (timed and bool(noise))
    text = f"Measured on {' and on '.join(found)}."
    if loud:
        text += " **The machine was not quiet all the time**: which figures that concerns is in the long tables."
    return _wrap(text)


def _block(intro: str, rows: str) -> str:
    return f"{_wrap(intro)}\n\n{rows}"


def _wrap(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


# ---------------------------------------------------------------- plot


def digest(result: Result) -> str:
    """Return what identifies a result; the plot made of it carries it, so that a test sees a stale one."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def plot(result: Result, path: Path) -> None:
    """Draw how many times faster than NumPy dense a layer step is, over sparsity, from a crossover result."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    entries = [e for e in result["results"] if e["threads"] == max(result["settings"]["threads"])]
    for colour, entry in enumerate(entries):
        points = entry["points"]
        density = [1 - p["sparsity"] for p in points]
        speed = [p["rivals"]["numpy"][TOTAL] / p["rivals"]["nnsparse"][TOTAL] for p in points]
        crossing = entry["crossings"]["numpy"][TOTAL]
        label = f"{entry['n']} × {entry['n']}"
        if crossing is not None:
            label += f": faster from {100 * crossing:.2g} % sparsity on"
            axes.axvline(1 - crossing, color=f"C{colour}", linewidth=1, linestyle=":")
        axes.plot(density, speed, f"C{colour}o-", linewidth=2.5, markersize=4, label=label)
    axes.axhline(1, color="0.35", linestyle="--", label="dense NumPy")
    ticks = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001]
    axes.set(xscale="log", yscale="log", xlim=(1.1, min(ticks) / 1.1), xlabel="sparsity")
    axes.set_ylabel("times faster than dense NumPy")
    axes.set_xticks(ticks, [f"{100 - 100 * tick:.4g} %" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.grid(alpha=0.3)
    batch = entries[0]["batch"]
    axes.set_title(
        f"One layer, forward and both gradients, batch {batch}, {entries[0]['threads']} threads, "
        f"{result['machine']['cpu']}",
        fontsize="medium",
    )
    axes.legend(loc="upper left")
    figure.savefig(path, metadata={"Comment": digest(result), "Software": None})
