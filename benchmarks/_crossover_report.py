"""Tables and plot of `crossover`, from the result that it measured or wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._common import TOTAL, number, table

PRODUCTS = ("forward", TOTAL)
DENSE = ("numpy", "torch", "dense")
# Colour and width by rival, so that one looks the same in every panel; DENSE are dashed.
_COLOURS = {"nnsparse": "C0", "dense": "C9", "torch": "C1", "numpy": "0.35"}
_LOW = 0.55  # the left panel's last sparsity


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        "# From which sparsity on sparse is faster",
        _machine.sentence(result["machine"]) + f"\n{control}",
        _crossings(result),
        "Sparsity from which on nnsparse stays faster than a dense rival, interpolated between the "
        'measured points; step: forward, input gradient and weight gradient together. "always": '
        f"at {min(s['sparsity']):.4g} already, the lowest measured.",
        *(f"## {_name(entry)}\n\n{_ratios(entry)}" for entry in result["results"]),
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        f"Step: times faster than NumPy dense, and NumPy's milliseconds; medians of {s['repeats']} "
        f"× {s['calls']} steps, the rivals in turn.",
        *result["skipped"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _name(entry: Mapping[str, Any]) -> str:
    return f"{entry['n']} × {entry['n']}, batch {entry['batch']}, {_threads(entry)}"


def _threads(entry: Mapping[str, Any]) -> str:
    return f"{entry['threads']} thread{'s' if entry['threads'] > 1 else ''}"


def _percent(found: float | None, first: float) -> str:
    if found is None:
        return "never"
    return "always" if found <= first else f"{100 * found:.1f} %"


def _crossings(result: Mapping[str, Any]) -> str:
    first = min(result["settings"]["sparsity"])
    names = list(result["results"][0]["crossings"])
    header = ["layer", *(f"{section}, vs {name}" for name in names for section in ("fwd", "step"))]
    rows = [
        [
            _name(entry),
            *(
                _percent(entry["crossings"][name][section], first)
                for name in names
                for section in PRODUCTS
            ),
        ]
        for entry in result["results"]
    ]
    return table(header, rows)


def _ratios(entry: Mapping[str, Any]) -> str:
    points = entry["points"]
    rows = [
        [name, *(f"{number(_speedup(p, name))}×" for p in points)]
        for name in points[0]["rivals"]
        if name != "numpy"
    ]
    ms = [number(p["rivals"]["numpy"][TOTAL]) for p in points]
    header = ["sparsity", *(f"{100 * p['sparsity']:.4g} %" for p in points)]
    return table(header, [*rows, ["NumPy, ms", *ms]])


def _speedup(point: Mapping[str, Any], name: str) -> float:
    rivals = point["rivals"]
    return float(rivals["numpy"][TOTAL] / rivals[name][TOTAL])


# ---------------------------------------------------------------- plot


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw a row per layer and batch: where sparse begins to win on the left, the whole range on the right.

    Rivals have the most threads that were measured; nnsparse is drawn with the others too, against
    NumPy with as many.
    """
    from matplotlib.figure import Figure

    layers: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for entry in sorted(result["results"], key=lambda e: -e["threads"]):
        layers.setdefault((entry["n"], entry["batch"]), []).append(entry)
    figure = Figure(figsize=(11, 0.9 + 3.3 * len(layers)), layout="constrained")
    panels = figure.subplots(len(layers), 2, squeeze=False, width_ratios=(2, 3))
    for pair, key in zip(panels, sorted(layers), strict=True):
        _one_layer(*pair, *layers[key])
    for axes, scale in zip(panels[-1], ("linear", "logarithmic in density"), strict=True):
        axes.set_xlabel(f"sparsity, % ({scale})")
    handles, labels = panels[0][1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(7, len(labels)), fontsize=9
    )
    cpu = result["machine"]["cpu"]
    figure.suptitle(f"Layer step (forward and both gradients) over sparsity\n{cpu}", fontsize=10)
    figure.savefig(path, dpi=130)


def _one_layer(left: Any, right: Any, entry: Mapping[str, Any], *others: Mapping[str, Any]) -> None:
    points = entry["points"]
    low = [point for point in points if point["sparsity"] <= _LOW]
    _curves(left, low, [100 * p["sparsity"] for p in low])
    _curves(right, points, [1 - p["sparsity"] for p in points])
    for i, other in enumerate(others):
        ratios = [_speedup(p, "nnsparse") for p in other["points"]]
        label = f"nnsparse, {_threads(other)}"
        style = {"color": "C0", "lw": 1.3, "ls": ("-.", ":")[i % 2], "label": label}
        left.plot([100 * p["sparsity"] for p in low], ratios[: len(low)], **style)
        right.plot([1 - p["sparsity"] for p in points], ratios, **style)
    _mark(left, entry["crossings"]["numpy"][TOTAL])
    left.set_ylim(bottom=0.5)  # who is slower yet is on the right
    left.set_ylabel("times faster than NumPy dense")
    right.set_title(_name(entry), loc="right", fontsize=10)
    ticks = [p["sparsity"] for p in points if p["sparsity"] in _TICKS]
    right.set(xscale="log")
    right.set_xticks([1 - s for s in ticks], [f"{100 * s:.4g}" for s in ticks])
    right.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    right.invert_xaxis()


_TICKS = (0.0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def _curves(axes: Any, points: Any, x: Any) -> None:
    for i, name in enumerate(points[0]["rivals"] if points else ()):
        ratios = [_speedup(point, name) for point in points]
        axes.plot(
            x,
            ratios,
            "--" if name in DENSE else "-",
            color=_COLOURS.get(name, f"C{i + 1}"),
            lw=2.5 if name == "nnsparse" else 1.3,
            marker="" if name == "numpy" else "o",
            ms=3.5,
            label={"numpy": "NumPy dense"}.get(name, name),
            zorder=3 if name == "nnsparse" else 2,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}×")
    axes.yaxis.set_minor_formatter(lambda y, _: f"{y:g}×" if f"{y:g}"[-1] in "25" else "")
    axes.tick_params(axis="y", which="minor", labelsize=8)
    axes.grid(alpha=0.3)


def _mark(axes: Any, found: float | None) -> None:
    """Point at the crossing, if there is one inside the panel."""
    if found is None or not 0 < found <= _LOW:
        return
    axes.axvline(100 * found, color="C0", lw=0.8, ls=":")
    axes.annotate(
        f"faster from {100 * found:.1f} %",
        (100 * found, 1),
        xytext=(8, -16),
        textcoords="offset points",
        fontsize=9,
        color="C0",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )
