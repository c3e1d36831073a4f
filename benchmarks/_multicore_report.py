"""Tables and plot of `multicore`, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._common import number, spread, table

# The paper's seconds for 100 passes on 2 × Xeon E5-2680 (REFERENCE_RESULTS.md); CSR and COO with 32 threads.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "3x2048": {"dense": 0.877, "dense full forward": 0.698, "CSR": 20.9, "COO": 15.1},
    "7x256": {"dense": 0.126, "dense full forward": 0.070, "CSR": 1.89, "COO": 1.30},
    "24x128": {"dense": 0.272, "dense full forward": 0.142, "CSR": 3.12, "COO": 2.05},
}
BASELINES = ("torch", "numpy", "dense")


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        f"# The multicore paper's networks, batch 1, {s['passes']} passes, float32",
        _machine.sentence(result["machine"]) + f"\n{control}",
        _sizes(result),
        *(
            f"## {entry['net']}, {threads} thread{'s' if threads != '1' else ''}\n\n{_one_table(rows)}"
            for entry in result["results"]
            for threads, rows in entry["threads"].items()
        ),
        _published(result),
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        f"Median ± half the interquartile range of {s['repeats']} times {s['passes']} passes, the "
        "rivals in turn; ms for all passes together. Inputs and outputs are NumPy arrays.",
        *result["skipped"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _sizes(result: Mapping[str, Any]) -> str:
    rows = [
        [
            entry["net"],
            f"{entry['weights']}",
            f"{entry['nnz']}",
            *(f"{entry['elements'][layout]}" for layout in ("coo", "csr")),
        ]
        for entry in result["results"]
    ]
    return (
        table(["hidden layers", "weights", "nonzeros", "COO", "CSR"], rows)
        + "\n\nCOO and CSR: elements of the arrays that hold the weights."
    )


def _one_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    baselines = [name for name in BASELINES if name in rows]
    cells = [
        [
            name,
            spread(row),
            number(row["min_ms"]),
            *(f"{number(rows[base]['median_ms'] / row['median_ms'])}×" for base in baselines),
        ]
        for name, row in rows.items()
    ]
    return table(["rival", "ms", "best", *(f"vs {base}" for base in baselines)], cells)


def _published(result: Mapping[str, Any]) -> str:
    nets = [entry["net"] for entry in result["results"]]
    header = ["published, seconds", *PUBLISHED[nets[0]]]
    rows = [[net, *(number(x) for x in PUBLISHED[net].values())] for net in nets]
    return (
        f"## Published\n\n{table(header, rows)}\n\n"
        "100 passes in PyTorch on 2 × Xeon E5-2680, CSR and COO with 32 threads: another machine, "
        "so only the ratios within a row compare."
    )


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw one panel per network: milliseconds of each rival by threads, logarithmic."""
    from matplotlib.figure import Figure

    entries, names = result["results"], list(result["notes"])
    figure = Figure(
        figsize=(1.2 + 3.6 * len(entries), 1.6 + 0.45 * len(names)), layout="constrained"
    )
    panels = figure.subplots(1, len(entries), squeeze=False, sharey=True)[0]
    for axes, entry in zip(panels, entries, strict=True):
        _bars(axes, entry, names)
    panels[0].invert_yaxis()
    s, cpu = result["settings"], result["machine"]["cpu"]
    sparsity = f"99.5 % pruned, batch 1, {s['passes']} passes"
    figure.suptitle(f"The multicore paper's networks, {sparsity}\n{cpu}", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.savefig(path, dpi=130)


def _bars(axes: Any, entry: Mapping[str, Any], names: list[str]) -> None:
    runs = list(entry["threads"].items())
    height = 0.8 / len(runs)
    for i, (threads, rows) in enumerate(runs):
        middle = [y + (i - (len(runs) - 1) / 2) * height for y in range(len(names))]
        medians = [rows[name]["median_ms"] for name in names]
        label = f"{threads} thread{'s' if threads != '1' else ''}"
        colour = f"C{i}"
        bars = axes.barh(middle, medians, 0.92 * height, color=colour, label=label)
        axes.bar_label(bars, [number(ms) for ms in medians], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set(xscale="log", xlabel="ms for all passes (logarithmic)")
    every = [rows[name]["median_ms"] for _, rows in runs for name in names]
    axes.set_xlim(min(every) / 3, max(every) * 5)  # bars to see and room for the numbers
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{entry['net']}: {entry['nnz']} of {entry['weights']} weights", fontsize=9)
