"""Tables and plot of `memory`, from the result that it measured or wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._common import number, table

KINDS = ("values", "gradient", "state", "indices", "maps", "pointers", "scratch")
BASELINES = ("torch", "dense", "numpy")
LARGEST = 4096  # bytes, of one block of a steady step
GOAL = 6  # times less than dense


def _mb(size: float) -> str:
    return number(size / 1e6)


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    net = "-".join(map(str, s["sizes"]))
    optimizer = f"SGD with momentum {s['momentum']:g}" if s["momentum"] else "SGD"
    blocks = [
        f"# Memory of training {net}, {s['sparsity']:.4g} sparse but for the last layer, {optimizer}",
        _machine.sentence(result["machine"]) + f"\n{control}",
        _measured(result),
        "MB (10⁶ bytes) of peak resident size, median of "
        f"{s['repeats']} fresh processes of {s['steps']} steps at batch {s['batch']}. Growth: above "
        "what was resident after training a small network of the same kind. Weights and state: "
        "growth less samples and activations. Goal: dense needs "
        f"{GOAL}× as much weights and state or more.",
        f"## Counted\n\n{_counted(result)}",
        "MB. Scratch: gathered values per thread. Activations: input and output of every layer, and "
        "the outputs' gradients. Rest: the growth that is none of these, temporaries and fragments.",
        _steady(result["results"]),
        *result["skipped"],
    ]
    if not all(row["exact"] for row in result["results"].values()):
        blocks.append("This system cannot reset the peak: the growth may be that of the libraries.")
    return "\n\n".join(block for block in blocks if block) + "\n"


def _measured(result: Mapping[str, Any]) -> str:
    rows = result["results"]
    baselines = [name for name in BASELINES if name in rows]
    cells = [
        [
            name,
            _mb(row["before"]),
            _mb(row["peak"]),
            f"{_mb(row['growth'])} ({_mb(row['growth_range'][0])} to {_mb(row['growth_range'][1])})",
            _mb(row["weights_and_state"]),
            *(_ratio(rows[base], row) for base in baselines),
        ]
        for name, row in rows.items()
    ]
    header = ["rival", "before", "peak", "growth (range)", "weights and state"]
    return table([*header, *(f"{base} needs" for base in baselines)], cells)


def _ratio(dense: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if row["weights_and_state"] <= 0:
        return ""
    return f"{number(dense['weights_and_state'] / row['weights_and_state'])}×"


def _parts(row: Mapping[str, Any], activations: int) -> dict[str, int]:
    """Return what the growth is made of."""
    parts = {kind: row[kind] for kind in KINDS}
    parts |= {"activations": activations, "samples": row["data"]}
    return {**parts, "rest": row["growth"] - sum(parts.values())}


def _counted(result: Mapping[str, Any]) -> str:
    rows = {name: _parts(row, result["activations"]) for name, row in result["results"].items()}
    kinds = list(next(iter(rows.values())))
    cells = [[name, *(_mb(size) for size in parts.values())] for name, parts in rows.items()]
    return table(["rival", *kinds], cells)


def _steady(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what steady steps allocate; nothing for results older than this."""
    cells = [
        [name, str(row["step_largest"]), row["step_where"], str(row["step_growth"])]
        for name, row in rows.items()
        if "step_largest" in row
    ]
    if not cells:
        return ""
    header = ["rival", "largest block, bytes", "seen at", "kept after 20 steps, bytes"]
    return (
        f"## Allocations of a steady step\n\n{table(header, cells)}\n\n"
        "Python's and NumPy's memory by `tracemalloc`, of steps within an epoch after warm-up, in the "
        "worst process. Largest block: most that was asked for between two calls of functions; 32 "
        "bytes or so of it are the array object's. An epoch begins by drawing its order, 8 bytes a "
        f"sample. Wanted: a largest block below {LARGEST} bytes in nnsparse, next to nothing kept."
    )


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw one bar per rival, the growth by kind."""
    from matplotlib.figure import Figure

    rows = {name: _parts(row, result["activations"]) for name, row in result["results"].items()}
    names, kinds = list(rows), list(next(iter(rows.values())))
    figure = Figure(figsize=(10, 1.7 + 0.55 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    left = [0.0] * len(names)
    for i, kind in enumerate(kinds):
        width = [max(0.0, rows[name][kind] / 1e6) for name in names]
        colour = "0.8" if kind == "rest" else f"C{i}"
        axes.barh(names, width, left=left, color=colour, label=kind)
        left = [a + b for a, b in zip(left, width, strict=True)]
    labels = [f"{_mb(row['growth'])} MB" for row in result["results"].values()]
    axes.bar_label(axes.containers[-1], labels, padding=4, fontsize=9)
    axes.set_xlim(0, 1.15 * max(left))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    s = result["settings"]
    net = "-".join(map(str, s["sizes"]))
    title = f"Growth of resident memory while training {net}, {100 * s['sparsity']:.4g} % sparse"
    axes.set(xlabel="MB", title=f"{title}, batch {s['batch']}, momentum {s['momentum']:g}")
    axes.title.set_fontsize(10)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=130)
