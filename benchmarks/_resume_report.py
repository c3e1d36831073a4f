"""Table and plot of `resume`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._common import number, table

PARTS = ("weights", "topology", "optimizer", "sparsifier", "losses", "the rest")


def good(row: Mapping[str, Any]) -> bool:
    """Return whether a killed run ended with the same bits, and nothing lies about."""
    return all(row["same"].values()) and row["leftovers"] == 0


def report(result: Mapping[str, Any]) -> str:
    """Return how many runs went on, and what else was tried, as Markdown."""
    s, trials = result["settings"], result["trials"]
    right = sum(map(good, trials))
    kinds = {
        "before the first save": [
            t for t in trials if not t["had_checkpoint"] and not t["in_save"]
        ],
        "while a file was written": [t for t in trials if t["in_save"]],
        "between saves": [t for t in trials if t["had_checkpoint"] and not t["in_save"]],
    }
    rows = [
        [kind, str(len(found)), *(str(sum(t["same"][part] for t in found)) for part in PARTS)]
        for kind, found in kinds.items()
    ]
    lost = [t["step"] - t["resumed_at"] for t in trials]
    others = [
        [
            f["name"],
            f["message"] or "no error",
            *("yes" if f[k] else "NO" for k in ("intact", "same")),
        ]
        for f in result["failures"]
    ]
    alone, saving = result["seconds_of"]["alone"], result["seconds_of"]["saving"]
    saves = result["steps"] // s["save_every"] + 1
    blocks = [
        f"# SIGKILL at {len(trials)} random moments: {right} of {len(trials)} ended with the same bits",
        _machine.sentence(result["machine"]),
        table(["killed", "runs", *(f"{part} equal" for part in PARTS)], rows),
        f"LeNet-300-100 on {result['data']}, RigL at sparsity {s['sparsity']:g}: {result['steps']} steps, "
        f"{result['updates']} updates of the pattern, a checkpoint of {number(result['bytes'] / 1e6)} MB every "
        f"{s['save_every']} steps. Each run was killed once and started again; it went on {min(lost)} to {max(lost)} "
        f"steps back (median {np.median(lost):g}). Compared are all bits of the last file but times. The "
        f"run alone took {number(alone)} s, with its {saves} saves {number(saving)} s: "
        f"{number(1e3 * (saving - alone) / saves)} ms a save.",
        table(["what failed", "message", "old file intact", "then the same bits"], others),
    ]
    return "\n\n".join(blocks) + "\n"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw where each run was killed and where it went on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for kind, marker in ((False, "o"), (True, "x")):
        some = [t for t in result["trials"] if t["in_save"] is kind]
        label = "while a file was written" if kind else "between saves"
        axes.plot([t["step"] for t in some], [t["resumed_at"] for t in some], marker, label=label)
    axes.axline((0, 0), slope=1, color="0.7", linewidth=1)
    axes.set(xlabel="killed after step", ylabel="went on from step", title="Killed and resumed")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
