"""Tables and plot of `choices`, from the result that it measured or wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._common import number, table

GOAL = 0.05  # what a choice may lose


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    source = "as `ns.autotune` measured" if result["autotuned"] else "by the model of the caches"
    lost = [entry for entry in result["results"] if entry["loss"] > GOAL]
    worst = max(result["results"], key=lambda entry: entry["loss"])
    blocks = [
        f"# What the automatic choices lose, batch {s['batch']}, float32, {s['threads']} threads",
        _machine.sentence(result["machine"]) + f"\n{control}",
        _losses(result),
        "% that a layer's step (forward and both gradients) takes longer as the library plans it than "
        f"with the best forced setting; below zero the choice is the best. Wanted: {GOAL:.0%} at most; "
        f"above it: {len(lost)} of {len(result['results'])}; worst: {_place(worst)}, "
        f"{100 * worst['loss']:+.1f} %.",
        f"## Settings\n\n{_settings(result)}",
        f"Choices {source}: {_choices(result['choices'])}. Chosen: runs, or quads (four outputs at a "
        "time), and the inputs per slab. Tried: slabs from half the chosen ones to four times as "
        "long, each with runs and, at densities of 8 % or more, quads; other lanes; other numbers of "
        "tiles a task. The fastest three of them then met the choice, which ran twice; noise is how "
        f"far it was from itself. Medians of {s['repeats']} × {s['calls']} steps, in turn.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _place(entry: Mapping[str, Any]) -> str:
    return f"{entry['n']} × {entry['n']} at {100 * entry['sparsity']:.4g} %"


def _choices(choices: Mapping[str, Any]) -> str:
    dense_enough = ", ".join(f"{density:.3g}" for density in choices["dense_enough"])
    return (
        f"smallest slab {choices['base']}, longer ones below densities {dense_enough}, quads from "
        f"{choices['quads']:.3g} on, {choices['quads_gathered']:.3g} where weights are gathered"
    )


def _grid(result: Mapping[str, Any]) -> dict[int, dict[float, Mapping[str, Any]]]:
    """Return the entries by size and sparsity."""
    found: dict[int, dict[float, Mapping[str, Any]]] = {}
    for entry in result["results"]:
        found.setdefault(entry["n"], {})[entry["sparsity"]] = entry
    return found


def _losses(result: Mapping[str, Any]) -> str:
    columns = sorted({entry["sparsity"] for entry in result["results"]})
    rows = []
    for n, entries in sorted(_grid(result).items()):
        cells = []
        for sparsity in columns:
            loss = entries[sparsity]["loss"]
            cells.append(f"**{100 * loss:+.1f}**" if loss > GOAL else f"{100 * loss:+.1f}")
        rows.append([f"{n} × {n}", *cells])
    return table(["loss, %", *(f"{100 * column:.4g} %" for column in columns)], rows)


def _settings(result: Mapping[str, Any]) -> str:
    rows = [
        [
            _place(entry),
            entry["plan"],
            number(entry["ms"]["chosen"]),
            entry["best"],
            number(entry["ms"][entry["best"]]),
            f"{100 * entry['loss']:+.1f}",
            f"{100 * entry['noise']:.1f}",
        ]
        for entry in result["results"]
    ]
    return table(["layer", "chosen", "ms", "best forced", "ms", "loss, %", "noise, %"], rows)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the loss over sparsity, one line per size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    ticks = sorted({entry["sparsity"] for entry in result["results"]})
    for i, (n, entries) in enumerate(sorted(_grid(result).items())):
        found = [entries[s] for s in sorted(entries)]
        axes.errorbar(
            [ticks.index(entry["sparsity"]) + 0.06 * i for entry in found],
            [100 * entry["loss"] for entry in found],
            yerr=[100 * entry["noise"] for entry in found],
            fmt="o-",
            ms=4,
            lw=1.3,
            capsize=3,
            color=f"C{i}",
            label=f"{n} × {n}",
        )
    axes.axhline(0, color="0.6", lw=0.8)
    axes.axhline(100 * GOAL, color="C3", lw=1, ls="--", label=f"{GOAL:.0%}")
    axes.set_xticks(range(len(ticks)), [f"{100 * s:.4g}" for s in ticks])
    axes.set(xlabel="sparsity, %", ylabel="slower than the best forced setting, % (bars: noise)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    s, cpu = result["settings"], result["machine"]["cpu"]
    size = f"batch {s['batch']}, {s['threads']} threads"
    axes.set_title(f"What the automatic choices lose, layer step, {size}\n{cpu}", fontsize=10)
    figure.savefig(path, dpi=130)
