"""Tables and plot of `learning`, from the result that it measured or wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _images, _machine
from benchmarks._common import number, table

_COLOURS = {"dense": "C9", "numpy": "0.35", "torch": "C1", "sklearn": "C3"}
_LOWEST = 0.1  # below the best accuracy: what is drawn


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    momentum = f", momentum {s['momentum']:g}" if s["momentum"] else ""
    blocks = [
        f"# Learning: {s['epochs']} epochs of SGD, lr {s['lr']:g}{momentum}, {s['threads']} threads",
        _images.warning(result["data"]),
        _machine.sentence(result["machine"]) + f"\n{control}",
        *(_one_net(entry, s) for entry in result["results"]),
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        f"{result['samples']} training and {result['test_samples']} test images of {result['data']}. "
        "s/epoch: median ± half the interquartile range of the epochs, the rivals in turn, epoch by "
        f"epoch; tests, {s['checks']} an epoch, are not in the time. s to a goal: training up to the "
        "first test that reaches it. One run of one seed each: differences of a few tenths of a "
        "percent mean nothing. Networks of the same sparsity start from the same weights; those "
        "without one are dense, all weights drawn and trained.",
        *result["skipped"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _one_net(entry: Mapping[str, Any], s: Mapping[str, Any]) -> str:
    rivals = entry["rivals"]
    checks = s["checks"]
    baselines = list(next(iter(rivals.values()))["speedup"])
    goals = list(next(iter(rivals.values()))["reached"])
    shown = sorted({1, 2, 5, s["epochs"]} & set(range(1, s["epochs"] + 1)))
    rows = [
        [
            name,
            _seconds(row),
            *(f"{number(row['speedup'][baseline])}×" for baseline in baselines),
            *(f"{row['accuracy'][checks * epoch - 1]:.2%}" for epoch in shown),
            f"{max(row['accuracy']):.2%}",
            *("never" if row["reached"][g] is None else number(row["reached"][g]) for g in goals),
        ]
        for name, row in rivals.items()
    ]
    header = [
        "rival",
        "s/epoch",
        *(f"vs {name}" for name in baselines),
        *(f"test after {epoch}" for epoch in shown),
        "best",
        *(f"s to {100 * float(goal):.4g} %" for goal in goals),
    ]
    shape = "-".join(map(str, entry["sizes"]))
    return f"## {entry['net']}: {shape}, batch {entry['batch']}\n\n{table(header, rows)}"


def _seconds(row: Mapping[str, float]) -> str:
    half = (row["q3_ms"] - row["q1_ms"]) / 2 / max(row["median_ms"], 1e-12)
    return f"{number(row['median_ms'] * 1e-3)} ±{100 * half:.0f}%"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw one panel per network: test accuracy over seconds of training."""
    from matplotlib.figure import Figure

    entries = result["results"]
    figure = Figure(figsize=(1.8 + 5.4 * len(entries), 5), layout="constrained")
    panels = figure.subplots(1, len(entries), squeeze=False)[0]
    for axes, entry in zip(panels, entries, strict=True):
        _curves(axes, entry, result["settings"]["goals"])
    panels[0].set_ylabel("test accuracy, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    s, cpu = result["settings"], result["machine"]["cpu"]
    heading = f"Learning {result['data']}: {s['epochs']} epochs, {s['threads']} threads\n{cpu}"
    figure.suptitle(heading, fontsize=10)
    figure.savefig(path, dpi=130)


def _curves(axes: Any, entry: Mapping[str, Any], goals: list[float]) -> None:
    ours = [name for name in entry["rivals"] if name.startswith("nnsparse")]
    best = max(max(row["accuracy"]) for row in entry["rivals"].values())
    for name, row in entry["rivals"].items():
        mine = name in ours
        # The sparser, the lighter: one colour for all of ours.
        alpha = 1 - 0.75 * ours.index(name) / len(ours) if mine else 1.0
        axes.plot(
            row["seconds"],
            [100 * a for a in row["accuracy"]],
            "-" if mine else "--",
            color="C0" if mine else _COLOURS.get(name, "C2"),
            alpha=alpha,
            lw=2 if mine else 1.3,
            marker="o",
            ms=2.5,
            label=name,
            zorder=3 if mine else 2,
        )
    for goal in goals:
        axes.axhline(100 * goal, color="0.6", lw=0.8, ls=":", zorder=1)
    axes.set(xscale="log", xlabel="seconds of training (logarithmic)")
    axes.set_ylim(100 * max(0.0, best - _LOWEST), min(100.5, 100 * best + 0.7))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.grid(alpha=0.3)
    shape = "-".join(map(str, entry["sizes"]))
    axes.set_title(f"{shape}, batch {entry['batch']}", fontsize=9)
