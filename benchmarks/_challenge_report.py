"""Tables and plot of `challenge`, beside published figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _images, _machine
from benchmarks._common import spread, table

# Nominal edges per second by neurons and layers (GRAPH_CHALLENGE.md): other machines, official inputs.
PUBLISHED: Mapping[str, Mapping[tuple[int, int], float]] = {
    "V100, cuSPARSE, filter": {
        (1024, 120): 8.56e10,
        (1024, 480): 8.92e10,
        (1024, 1920): 9.06e10,
        (4096, 120): 6.7e10,
        (16384, 120): 3.9e10,
    },
    "GraphBLAS, Xeon E5-2698 v4, 2 threads": {
        (1024, 120): 18.6e9,
        (1024, 480): 21.7e9,
        (1024, 1920): 22.7e9,
        (4096, 120): 18.5e9,
        (4096, 480): 20.8e9,
        (4096, 1920): 21.4e9,
    },
    "A6000, SNICIT": {(1024, 120): 17.6e12},
}


LEGEND = (
    "Edges/s: images times weights of all layers, by seconds of inference, from images in CSR and prepared layers to "
    "categories."
)


def rate(x: float | None) -> str:
    """Return edges per second as 1.23e10."""
    return "" if x is None else f"{x:.2e}".replace("e+", "e")


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        f"# Sparse DNN Graph Challenge, {result['data']}, float32, {s['threads']} threads",
        _images.warning(result["data"]),
        _machine.sentence(result["machine"]) + f"\n{control}",
        *(_one_case(entry) for entry in result["results"]),
        _published(result),
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        f"{LEGEND} Work/s: only multiplications that the variant needs: of images that live, or of activations "
        "that are not 0. With all: by the seconds of making and ordering the layers too, which the challenge does "
        "not count. Slow rivals get the first images only: rates are per edge, so they compare; that of the filter "
        "grows with the images. Inputs are near the official ones (`graph_challenge.images`), the network is exact.",
        f"Median ± half the interquartile range of {s['repeats']} runs, the rivals in turn. All categories agree.",
        *result["skipped"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _one_case(entry: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['images']}",
            spread(row),
            rate(row["rate"]),
            rate(row["best_rate"]),
            rate(row["work_rate"]),
            rate(row["total_rate"]),
            "" if row["nbytes"] is None else f"{row['nbytes'] / 1e6:.0f}",
            f"{row['categories']}",
        ]
        for name, row in entry["rivals"].items()
    ]
    header = ["rival", "images", "ms", "edges/s", "best", "work/s", "with all", "MB", "live images"]
    title = f"## {entry['neurons']} neurons, {entry['layers']} layers, {entry['nnz']} weights"
    return f"{title}\n\n{table(header, rows)}"


def _published(result: Mapping[str, Any]) -> str:
    return f"## Published\n\n{rates(result)}\n\nOther machines, and the official inputs."


def rates(result: Mapping[str, Any]) -> str:
    """Return edges per second by network, of the rivals here and as published for other machines."""
    cases = [(entry["neurons"], entry["layers"]) for entry in result["results"]]
    mine = {
        name: {
            (entry["neurons"], entry["layers"]): entry["rivals"][name]["rate"]
            for entry in result["results"]
            if name in entry["rivals"]
        }
        for name in result["notes"]
    }
    sources: Mapping[str, Mapping[tuple[int, int], float]] = {**mine, **PUBLISHED}
    rows = [
        [f"{name}, here" if name in mine else name, *(rate(figures.get(case)) for case in cases)]
        for name, figures in sources.items()
    ]
    header = ["edges/s", *(f"{n}×{layers}" for n, layers in cases)]
    return table(header, rows)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw edges per second of each rival, case by case, logarithmic, with published figures as lines."""
    from matplotlib.figure import Figure

    entries, names = result["results"], list(result["notes"])
    figure = Figure(figsize=(max(6.5, 1 + 1.6 * len(entries)), 5.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        found = [
            (i, e["rivals"][name]["rate"]) for i, e in enumerate(entries) if name in e["rivals"]
        ]
        places = [i + (k - (len(names) - 1) / 2) * width for i, _ in found]
        axes.bar(places, [value for _, value in found], width, label=name)
    for k, (name, figures) in enumerate(PUBLISHED.items()):
        found = [
            (i, figures[case])
            for i, e in enumerate(entries)
            if (case := (e["neurons"], e["layers"])) in figures
        ]
        for n, (i, value) in enumerate(found):
            label = f"published: {name}" if n == 0 else None
            axes.plot([i - 0.45, i + 0.45], [value] * 2, ("k-", "k--", "k:")[k], lw=1, label=label)
    axes.set_xticks(range(len(entries)), [f"{e['neurons']}×{e['layers']}" for e in entries])
    axes.set(yscale="log", ylabel="edges per second", xlabel="neurons × layers")
    axes.set_title(f"Graph Challenge inference, {result['settings']['threads']} threads")
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)
