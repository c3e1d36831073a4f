"""Tables and plot of `training`, from the result that it measured or wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._common import number, spread, table


def title(entry: Mapping[str, Any]) -> str:
    """Return "thesis-64: 784-256-10, batch 64, middle layers 80 %, …"."""
    shape = "-".join(str(size) for size in entry["sizes"])
    kept = entry["weights"] / entry["dense_weights"]
    return (
        f"{entry['net']}: {shape}, batch {entry['batch']}, {entry['note']} "
        f"({kept:.1%} of {entry['dense_weights']} weights)"
    )


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    optimizer = f"SGD with momentum {s['momentum']:g}" if s["momentum"] else "SGD"
    blocks = [
        f"# Training step, {optimizer}, float32, {s['threads']} threads",
        _machine.sentence(result["machine"]) + f"\n{control}",
        *(f"## {title(entry)}\n\n{_one_table(entry)}" for entry in result["results"]),
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        f"Median ± half the interquartile range of {s['repeats']} × {s['calls']} steps, the rivals "
        "in turn. A step draws a batch from the rows of an array, runs forward, loss, backward and "
        "update, and reads the loss. All rivals start from the weights of the sparse network, "
        "zeros included, and have the same first loss; dense rivals without masks then train every "
        "weight. nnsparse at a sparsity of its own is another network of the same sizes.",
        *result["skipped"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _one_table(entry: Mapping[str, Any]) -> str:
    rivals = entry["rivals"]
    baselines = list(next(iter(rivals.values()))["speedup"])
    rows = [
        [
            name,
            spread(row),
            number(row["min_ms"]),
            *(f"{number(row['speedup'][baseline])}×" for baseline in baselines),
            f"{row['first_loss']:.5f}",
        ]
        for name, row in rivals.items()
    ]
    compared = [f"vs {name}" for name in baselines]
    return table(["rival", "ms/step", "best", *compared, "first loss"], rows)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw one panel of bars per network: milliseconds per step of each rival."""
    from matplotlib.figure import Figure

    entries = result["results"]
    names = list(result["notes"])
    columns = min(2, len(entries))
    lines = -(-len(entries) // columns)
    figure = Figure(figsize=(5 * columns, 0.9 + (1.0 + 0.4 * len(names)) * lines))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, entry in zip(panels, entries, strict=False):
        _bars(axes, entry, names)
    for axes in panels[len(entries) :]:
        axes.set_axis_off()
    s, cpu = result["settings"], result["machine"]["cpu"]
    heading = f"Training step, momentum {s['momentum']:g}, {s['threads']} threads, ms\n{cpu}"
    figure.suptitle(heading, fontsize=10)
    figure.savefig(path, dpi=150)


def _bars(axes: Any, entry: Mapping[str, Any], names: list[str]) -> None:
    rows = [entry["rivals"][name] for name in names]
    medians = [row["median_ms"] for row in rows]
    errors = [
        [row["median_ms"] - row["q1_ms"] for row in rows],
        [row["q3_ms"] - row["median_ms"] for row in rows],
    ]
    colours = ["C0" if name.startswith("nnsparse") else "0.7" for name in names]
    bars = axes.barh(names, medians, color=colours, xerr=errors, ecolor="0.3")
    axes.bar_label(bars, [number(ms) for ms in medians], padding=6, fontsize=9)
    axes.set_xlim(0, 1.2 * max(row["q3_ms"] for row in rows))
    axes.set_xlabel("ms per step")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{entry['net']}, batch {entry['batch']}, {entry['note']}", fontsize=9)
