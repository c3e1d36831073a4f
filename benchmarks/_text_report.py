"""Table and plot of `text`, beside the published figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._common import number, table

GOALS = {"words": 0.881, "bigrams": 0.900}  # test accuracy
PUBLISHED = {"words": 0.8813, "bigrams": 0.9056}  # the Keras example, REFERENCE_RESULTS.md
GAP = 0.003  # that the sparse network may lose against the dense one
LIMITS = {"first": 60.0, "cached": 2.0, "epoch": 15.0}  # seconds


def last(entry: Mapping[str, Any]) -> Any:
    """Return the test accuracies at the end, one for each seed."""
    return np.array([run["accuracy"][-1] for run in entry["runs"]])


def goal(entry: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return what a network has to reach, and whether it does; "" if nothing is asked of it."""
    if result["data"] != "IMDb" or result["settings"]["validation"]:
        return ""
    wanted = GOALS.get(entry["net"])
    hidden = [other for other in result["results"] if other["net"] == "hidden"]
    if entry["net"] == "sparse" and hidden:
        wanted = float(last(hidden[0]).mean()) - GAP
    if wanted is None:
        return ""
    return f"{100 * wanted:.2f} {'✓' if last(entry).mean() >= wanted else '✗'}"


def accuracies(result: Mapping[str, Any]) -> str:
    """Return the table of accuracies and of seconds per epoch."""
    rows = []
    for entry in result["results"]:
        accuracy = 100 * last(entry)
        seconds = np.median([t for run in entry["runs"] for t in run["seconds"]])
        published = PUBLISHED.get(entry["net"])
        rows.append(
            [
                entry["note"],
                f"{entry['vocabulary']:,}",
                "-".join(map(str, (entry["dim"], *entry["hidden"], 2))),
                f"{accuracy.mean():.2f} ±{accuracy.std():.2f}",
                goal(entry, result),
                f"{100 * published:.2f}" if published else "",
                number(float(seconds)),
            ]
        )
    header = ["network", "vocabulary", "features", "accuracy, %", "wanted", "published", "s/epoch"]
    return table(header, rows)


def legend(result: Mapping[str, Any]) -> str:
    """Return what the columns mean."""
    s = result["settings"]
    part = "held-out training" if s["validation"] else "test"
    return (
        f"Accuracy on the {part} reviews at the end of the training, mean ± standard deviation of {s['seeds']} seeds. "
        "Published: the Keras example with embedding, average pooling and output, 5 epochs. Wanted of the sparse "
        f"network: at most {100 * GAP:g} points below the dense one. s/epoch: median of all epochs, of "
        f"{result['results'][0]['reviews']:,} training reviews."
    )


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        f"# Film reviews: {result['data']}, batch {s['batch']}, float32",
        _machine.sentence(result["machine"]) + f"\n{control}",
        accuracies(result),
        legend(result),
    ]
    if result["loading"]:
        times = [
            [
                "words" if n == "1" else "words and bigrams",
                number(t["first"]),
                number(t["cached"]),
            ]
            for n, t in result["loading"].items()
        ]
        blocks += [
            table(["seconds", "first time", "from the cache"], times),
            "Reading, tokenising and encoding the 50 000 reviews of the archive, and the same from the cache that the "
            f"first time filled. Wanted: {LIMITS['first']:g} and {LIMITS['cached']:g} s, and an epoch in "
            f"{LIMITS['epoch']:g} s.",
        ]
    return "\n\n".join(blocks) + "\n"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the test accuracy of every network and seed over the seconds of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for i, entry in enumerate(result["results"]):
        for k, run in enumerate(entry["runs"]):
            axes.plot(
                np.cumsum(run["seconds"]),
                100 * np.array(run["accuracy"]),
                marker="o",
                color=f"C{i}",
                alpha=0.8,
                label=entry["note"] if k == 0 else None,
            )
        wanted = PUBLISHED.get(entry["net"])
        if wanted and result["data"] == "IMDb":
            axes.axhline(100 * wanted, color=f"C{i}", linestyle=":", linewidth=1)
    axes.set(xlabel="seconds of training", ylabel="test accuracy, %")
    axes.set_title(f"Film reviews ({result['data']}): one line a seed; dotted: published")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
