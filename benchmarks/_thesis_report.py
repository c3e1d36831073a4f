"""Tables and plot of `thesis`, beside the thesis' own figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _images, _machine
from benchmarks._common import number, table

# Seconds a pass on 8 cores of a Xeon 8272CL (REFERENCE_RESULTS.md): torch dense, LIBXSMM's two.
PUBLISHED: Mapping[int, tuple[float, float, float]] = {
    2048: (0.05687, 57.76, 0.5329),
    4096: (0.19420, 149.15, 1.9171),
    8192: (0.61506, 799.43, 7.6675),
}
PUBLISHED_NAMES = ("torch dense", "original", "improved")
PUBLISHED_DIFFERENCE = 0.0011  # largest, of the losses of 20 epochs
ORIGINAL = ("csr", "csc", "coo")
_LABELS = {
    "nnsparse": "improved: nnsparse",
    **{name: f"original: plain {name.upper()}" for name in ORIGINAL},
    "numpy": "NumPy dense",
    "torch": "torch dense",
}


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        f"# The thesis' tables, 95 % sparse, batch 256, float32, {s['threads']} threads",
        _machine.sentence(result["machine"]) + f"\n{control}",
        f"## Seconds per pass\n\n{_passes(result)}",
        f"Median of {s['repeats']} runs, the rivals in turn. A pass: forward, loss, backward and "
        "update of n-n-10, the square layer sparse. Published: 8 cores of a Xeon 8272CL, so only "
        "ratios compare; its improved code needs "
        + ", ".join(f"{p[2] / p[0]:.1f}×" for p in PUBLISHED.values())
        + " the time of torch dense.",
        f"## Sections of our pass, ms\n\n{_sections(result)}",
        "First: the first pass of a new network, its plan built; later: the median of the following "
        "ones. By `ns.profile`, whose own cost is in the times.",
        _losses(result["curves"]) if result["curves"] else "",
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        *dict.fromkeys([*result["skipped"], *(result["curves"] or {"skipped": []})["skipped"]]),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _passes(result: Mapping[str, Any]) -> str:
    entries = result["results"]
    rows = []
    for name in result["notes"]:
        seconds = [entry["rivals"][name]["median_ms"] * 1e-3 for entry in entries]
        rows.append([_LABELS.get(name, name), *(number(x) for x in seconds)])
    rows += [
        [f"nnsparse is faster than {base} by", *(_ratio(entry, base) for entry in entries)]
        for base in ("torch", "numpy", *ORIGINAL)
        if {base, "nnsparse"} <= set(result["notes"])
    ]
    for i, name in enumerate(PUBLISHED_NAMES):
        found = [PUBLISHED.get(entry["features"]) for entry in entries]
        rows.append([f"published: {name}", *(number(row[i]) if row else "" for row in found)])
    return table(["features", *(str(entry["features"]) for entry in entries)], rows)


def _ratio(entry: Mapping[str, Any], base: str) -> str:
    rivals = entry["rivals"]
    return f"{number(rivals[base]['median_ms'] / rivals['nnsparse']['median_ms'])}×"


def _sections(result: Mapping[str, Any]) -> str:
    columns = [
        (entry["features"], which, entry["sections"][which])
        for entry in result["results"]
        for which in ("first", "later")
    ]
    names = list(dict.fromkeys(name for *_, found in columns for name, ms in found.items() if ms))
    rows = [[name, *(number(found.get(name, 0.0)) for *_, found in columns)] for name in names]
    rows.append(["all sections", *(number(sum(found.values())) for *_, found in columns)])
    return table(["section", *(f"{n}, {which}" for n, which, _ in columns)], rows)


def _losses(curves: Mapping[str, Any]) -> str:
    losses = curves["losses"]
    names = list(losses)
    epochs = len(losses[names[0]])
    shown = sorted({1, 2, 5, 10, 15, epochs} & set(range(1, epochs + 1)))
    rows = [[str(e), *(f"{losses[name][e - 1]:.5f}" for name in names)] for e in shown]
    differences = ", ".join(
        f"{value:.2g} from {name}" for name, value in curves["difference"].items()
    )
    net = "-".join(map(str, curves["sizes"]))
    blocks = [
        f"## Loss, {net}, {curves['note']}",
        _images.warning(curves["data"]),
        table(["epoch", *names], rows),
        f"Mean training loss of an epoch, {curves['samples']} samples of {curves['data']}, batch "
        f"{curves['batch']}. Largest difference of the sparse network: {differences}; published: "
        f"{PUBLISHED_DIFFERENCE}. They differ where rounding puts an activation on the other side of "
        "ReLU's kink.",
    ]
    return "\n\n".join(block for block in blocks if block)


# ---------------------------------------------------------------- plot


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw seconds over features, sections, and, if there are any, the loss curves."""
    from matplotlib.figure import Figure

    lines = 2 if result["curves"] else 1
    figure = Figure(figsize=(13, 0.6 + 4.6 * lines), layout="constrained")
    panels = figure.subplots(lines, 2, squeeze=False)
    _draw_passes(panels[0][0], result)
    _draw_sections(panels[0][1], result)
    if result["curves"]:
        _draw_losses(panels[1][0], result["curves"])
        _draw_difference(panels[1][1], result["curves"])
    figure.suptitle(f"The thesis' tables and figures\n{result['machine']['cpu']}", fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_passes(axes: Any, result: Mapping[str, Any]) -> None:
    """Draw a group of bars per rival, one bar per number of features, published ones below."""
    entries = result["results"]
    names = [_LABELS[name] for name in result["notes"]]
    names += [f"published: {name}" for name in PUBLISHED_NAMES]
    height = 0.85 / len(entries)
    for i, entry in enumerate(entries):
        seconds = [entry["rivals"][name]["median_ms"] * 1e-3 for name in result["notes"]]
        seconds += PUBLISHED.get(entry["features"], (float("nan"),) * len(PUBLISHED_NAMES))
        middle = [y + (i - (len(entries) - 1) / 2) * height for y in range(len(names))]
        label = f"{entry['features']} features"
        bars = axes.barh(middle, seconds, 0.92 * height, color=f"C{i}", label=label)
        texts = [number(x) if x == x else "" for x in seconds]
        axes.bar_label(bars, texts, padding=3, fontsize=7)
    high = axes.dataLim.intervalx[1]
    axes.set(xscale="log", xlabel="seconds per pass (log)")
    axes.set_xlim(min(bar.get_width() for bar in axes.patches if bar.get_width() > 0) / 3, high * 5)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Training step, 95 % sparse, 256 samples", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))


def _draw_sections(axes: Any, result: Mapping[str, Any]) -> None:
    """Draw the sections' shares of a later pass, one bar per number of features."""
    from matplotlib import colormaps

    entries = result["results"]
    later = [entry["sections"]["later"] for entry in entries]
    names = list(dict.fromkeys(name for found in later for name, ms in found.items() if ms))
    colours = colormaps["tab20"].colors
    labels = [str(entry["features"]) for entry in entries]
    sums = [sum(found.values()) or 1.0 for found in later]
    left = [0.0] * len(entries)
    for i, name in enumerate(names):
        width = [
            100 * found.get(name, 0.0) / total for found, total in zip(later, sums, strict=True)
        ]
        axes.barh(labels, width, left=left, label=name, color=colours[i % 20])
        left = [a + b for a, b in zip(left, width, strict=True)]
    if names:
        ms = [f"{number(total)} ms" for total in sums]
        axes.bar_label(axes.containers[-1], ms, padding=4, fontsize=9)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    axes.set(xlim=(0, 120), xlabel="% of a later pass", ylabel="features")
    axes.set_xticks(range(0, 101, 20))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Sections of our pass", fontsize=10)


def _draw_losses(axes: Any, curves: Mapping[str, Any]) -> None:
    styles = {"nnsparse": ("-", 3.5), "masked": ("--", 1.6), "torch-masked": (":", 1.6)}
    labels = {"nnsparse": "sparse", "masked": "dense, masked", "torch-masked": "torch, masked"}
    for i, (name, losses) in enumerate(curves["losses"].items()):
        style, width = styles[name]
        epochs = range(1, len(losses) + 1)
        axes.plot(epochs, losses, style, lw=width, color=("C0", "k", "C1")[i], label=labels[name])
    axes.set(xlabel="epoch", ylabel="mean training loss (log)", yscale="log")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:g}"[-1] in "25" else "")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.set_title(f"Loss of the images' network, {curves['data']}", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))


def _draw_difference(axes: Any, curves: Mapping[str, Any]) -> None:
    ours = curves["losses"]["nnsparse"]
    for name, colour in (("masked", "k"), ("torch-masked", "C1")):
        if name in curves["losses"]:
            found = [abs(a - b) for a, b in zip(ours, curves["losses"][name], strict=True)]
            epochs = range(1, len(found) + 1)
            axes.plot(epochs, found, "o-", ms=4, color=colour, label=f"sparse and {name}")
    axes.axhline(PUBLISHED_DIFFERENCE, color="C3", lw=1, ls="--", label="published, largest")
    axes.set(xlabel="epoch", ylabel="difference of the losses (log)", yscale="log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.set_title("How far the losses are apart", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
