"""Tables and plot of `kernels`, from the result that it measured or wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._common import TOTAL, number, spread, table
from benchmarks._layer import SECTIONS


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    shape = f"{s['n_in']} -> {s['n_out']}, batch {s['batch']}, float32, {s['threads']} threads"
    blocks = [
        f"# Layer step {shape}",
        _machine.sentence(result["machine"]) + f"\n{control}",
        *(_one_table(entry) for entry in result["results"]),
        "## Total of the step, ms (× faster than NumPy dense)\n\n" + _overview(result),
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        f"Median ± half the interquartile range of {s['repeats']} × {s['calls']} steps, the rivals "
        "in turn; best: the smallest total. GFLOP/s count useful work only, 2 · nonzeros · batch a "
        "product, for dense rivals too. Error: the largest of the three, relative to float64, "
        "2-norm. Setup (plans, transposes, copies) and first step (compilation or loading from the "
        "cache) are no part of the times.",
        *result["skipped"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _one_table(entry: Mapping[str, Any]) -> str:
    header = ["ms", *SECTIONS, TOTAL, "best", "GFLOP/s fwd", "dX", "dW", TOTAL]
    rows = []
    for name, row in entry["rivals"].items():
        parts = [row["sections"][section] for section in (*SECTIONS, TOTAL)]
        rows.append(
            [
                name,
                *(spread(part) for part in parts),
                number(parts[-1]["min_ms"]),
                *(number(part["gflops"]) for part in parts),
                f"{number(row['speedup'])}×" if "speedup" in row else "",
                f"{max(row['errors'].values()):.0e}",
                number(row["setup_ms"]),
                number(row["first_step_ms"]),
            ]
        )
    title = f"## {entry['sparsity']:.4g} sparse, {entry['nnz']} nonzeros"
    if "slabs" in entry:
        title += ", plan's slabs {} inputs, transposed {}".format(*entry["slabs"])
    return f"{title}\n\n" + table([*header, "vs NumPy", "error", "setup", "first step"], rows)


def _overview(result: Mapping[str, Any]) -> str:
    entries = result["results"]

    def cell(row: Mapping[str, Any]) -> str:
        total = number(row["sections"][TOTAL]["median_ms"])
        return f"{total} ({number(row['speedup'])}×)" if "speedup" in row else total

    rows = [[name, *(cell(e["rivals"][name]) for e in entries)] for name in result["notes"]]
    return table(["sparsity", *(f"{e['sparsity']:.4g}" for e in entries)], rows)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw how many times faster than NumPy dense each rival is, over sparsity."""
    from matplotlib.figure import Figure

    entries = sorted(result["results"], key=lambda e: e["sparsity"])
    density = [1 - e["sparsity"] for e in entries]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(result["notes"]):
        ratios = [e["rivals"][name]["speedup"] for e in entries]
        width = 2.5 if name == "nnsparse" else 1.2
        axes.plot(density, ratios, marker="osv^Dx+*p<"[i % 10], ms=5, lw=width, label=name)
    axes.axhline(1, color="0.6", lw=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", ylabel="times faster than NumPy dense", xlabel="sparsity")
    axes.set_xticks(density, [f"{e['sparsity']:.4g}" for e in entries])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}×")
    axes.yaxis.set_minor_formatter(lambda y, _: f"{y:g}×" if f"{y:g}"[-1] in "25" else "")
    axes.tick_params(axis="y", which="minor", labelsize=8)
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    s, cpu = result["settings"], result["machine"]["cpu"]
    size = f"{s['n_in']} -> {s['n_out']}, batch {s['batch']}, {s['threads']} threads"
    axes.set_title(f"Layer step (forward and both gradients), {size}\n{cpu}", fontsize=10)
    figure.legend(loc="outside right upper", fontsize=9)
    figure.savefig(path, dpi=150)
