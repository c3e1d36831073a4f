"""Tables and plot of `accuracy`, from the result that it measured or wrote as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import _machine
from benchmarks._accuracy_targets import (
    PUBLISHED,
    ROUNDING,
    Goal,
    Result,
    Run,
    best_published,
    cells,
    deviation,
    goals,
    percent,
    shortened,
)
from benchmarks._common import number, spread, table

MISSED = "✗"
_STEPS = 54_000
_REFERENCES = ("random", "dense")  # drawn in every panel
_PANELS = {
    "static, before and while training": ("static", "before", "pruning"),
    "dynamic": ("dynamic",),
}
_HEIGHT = 4.5  # percent below the best that are drawn


def report(result: Result) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s, short = result["settings"], shortened(result)
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    blocks = [
        f"# Accuracy: LeNet-300-100, test accuracy by sparsity, {_seeds(s['seeds'])}",
        short and f"**Shortened: {short}. These figures compare with nobody's.**",
        _machine.sentence(result["machine"]) + f"\n{control}",
        accuracies(result),
        legend(result),
        "" if short else _goals(goals(result)),
        "## Seconds of a run",
        _seconds(result),
        _seconds_legend(result),
        _timing(result["timing"]) if result["timing"] else "",
        "## Methods",
        "\n".join(_method(name, about) for name, about in result["methods"].items()),
        "\n".join(_warnings(result)),
        *result["skipped"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


# ---------------------------------------------------------------- accuracies


def accuracies(result: Result) -> str:
    """Return the table of ours, and of what others have published."""
    found, short = cells(result), shortened(result)
    columns = sorted({sparsity for name, sparsity in found if name in result["methods"]})
    missed = set() if short else {(g.who, g.sparsity) for g in goals(result) if not g.met}

    def cell(name: str, sparsity: float) -> str:
        runs = found.get((name, sparsity))
        if not runs:
            return ""
        best = None if short else best_published(sparsity)
        accuracy, spread = percent(runs), deviation(runs)
        text = f"{accuracy:.2f}" + ("" if spread is None else f" ±{spread:.2f}")
        if best is not None and accuracy >= best - ROUNDING:
            text = f"**{text}**"
        return f"{text} {MISSED}" if (name, sparsity) in missed else text

    rows = [
        [name, about["kind"], *(cell(name, c) for c in columns)]
        for name, about in result["methods"].items()
    ]
    rows += [
        [f"{name}, published", "", *(f"{row[c]:.2f}" if c in row else "" for c in columns)]
        for name, row in PUBLISHED.items()
        if not short and any(c in row for c in columns)
    ]
    return table(["method", "kind", *map(_percent, columns)], rows)


def legend(result: Result) -> str:
    s = result["settings"]
    judged = (
        ""
        if shortened(result)
        else f"Bold: no worse than the best published. {MISSED}: a target is missed. Published: "
        "Dettmers & Zettlemoyer's table for this recipe, SNIP's own paper. "
    )
    several = ", mean ± standard deviation over the seeds" if s["seeds"] > 1 else ", one seed"
    return (
        f"Test accuracy in percent at the end of the training{several}; no epoch and no seed is picked, settings were "
        "chosen by validation accuracy. Sparsity is the fraction of zeros among the weights of all three layers; "
        f"each network has exactly that. {judged}dense and the N:M methods have a column of their own."
    )


def _goals(found: Sequence[Goal]) -> str:
    """Return the table of targets."""
    if not found:
        return ""
    rows = [
        [goal.what, _percent(goal.sparsity), f"{goal.wanted:.2f}", f"{goal.found:.2f}"]
        + ["yes" if goal.met else f"**no** {MISSED}"]
        for goal in found
    ]
    met = sum(goal.met for goal in found)
    text = table(["target", "sparsity", "wanted", "found", "met"], rows)
    return f"## Targets: {met} of {len(found)} met\n\n{text}"


# ---------------------------------------------------------------- seconds


def _seconds(result: Result) -> str:
    found = cells(result)
    columns = sorted({sparsity for _, sparsity in found})
    rows = []
    for name in result["methods"]:
        runs = [found.get((name, c), []) for c in columns]
        rows.append([name, *map(_whole, runs), _part(runs)])
    return table(["method", *map(_percent, columns), "of it updates"], rows)


def _whole(runs: Sequence[Run]) -> str:
    return number(mean(run["seconds"] for run in runs)) if runs else ""


def _part(by_sparsity: Sequence[Sequence[Run]]) -> str:
    runs = [run for runs in by_sparsity for run in runs]
    spent = sum(run["update_seconds"] for run in runs)
    return f"{spent / max(1e-9, sum(run['seconds'] for run in runs)):.1%}" if runs else ""


def _seconds_legend(result: Result) -> str:
    s = result["settings"]
    return (
        f"Training, updates of the pattern included and tests not: mean over the seeds, one thread, {s['jobs']} "
        "runs at a time, with whatever else the machine was doing: only their order of magnitude means something."
    )


def _timing(timing: Mapping[str, Any]) -> str:
    """Return the table of steps that were timed by themselves."""
    rivals = timing["rivals"]
    baselines = list(next(iter(rivals.values()))["speedup"])
    rows = [
        [
            {"dense": "`nn.Linear`", "torch": "torch dense"}.get(name, name),
            spread(row),
            number(row["median_ms"] * 1e-3 * _STEPS),
            *(f"{number(row['speedup'][baseline])}×" for baseline in baselines),
        ]
        for name, row in rivals.items()
    ]
    header = ["network", "ms/step", f"s for {_STEPS} steps", *(f"vs {b}" for b in baselines)]
    return (
        "## Training time, dense and sparse\n\n"
        + table(header, rows)
        + f"\n\nTimed by themselves and in turn, {timing['threads']} threads: median ± half the interquartile range of "
        f"{timing['repeats']} × {timing['calls']} steps of SGD with momentum {timing['momentum']:g}, batch included; "
        "patterns are static here."
    )


# ---------------------------------------------------------------- the rest of the text


def _method(name: str, about: Mapping[str, str]) -> str:
    why = f". {about['why']}" if about["why"] else ""
    return f"- {name}: `{about['settings']}`{why}"


def _warnings(result: Result) -> list[str]:
    """Return a line for what the recipes warned of, and one if the runs are of several commits."""
    said: dict[str, list[str]] = {}
    for run in result["runs"]:
        for text in run["warnings"]:
            said.setdefault(text, []).append(f"{run['method']} {_percent(run['sparsity'])}")
    lines = [f"- {', '.join(dict.fromkeys(who))}: {text}" for text, who in said.items()]
    commits = sorted({run["commit"] for run in result["runs"]})
    if len(commits) > 1:
        lines.append(f"- The runs are of several commits: {', '.join(commits)}.")
    return lines


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:.4g} %"


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


# ---------------------------------------------------------------- plot


def plot(result: Result, path: Path) -> None:
    """Draw test accuracy over sparsity: a panel for fixed patterns and pruning, one for dynamic methods; no N:M."""
    from matplotlib.figure import Figure

    short, found = shortened(result), cells(result)
    drawn = {name: kinds for name, kinds in _PANELS.items() if _names(result, kinds)}
    panels = drawn or {"": tuple({about["kind"] for about in result["methods"].values()})}
    figure = Figure(figsize=(1 + 6 * len(panels), 5.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    names = {name for kinds in panels.values() for name in _names(result, kinds)}
    columns = sorted({c for name, c in found if name in names})
    for ax, (title, kinds) in zip(axes, panels.items(), strict=True):
        _panel(ax, result, _names(result, kinds), columns)
        if not short:
            _published(ax, columns)
        ax.set_title(title, fontsize=10)
        ax.set_xticks(range(len(columns)), map(_percent, columns))
        ax.set_xlabel("sparsity (not to scale)")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7, loc="lower left", ncols=2)
    best = max(percent(runs) for runs in found.values())
    axes[0].set_ylim(max(0.0, best - (60 if short else _HEIGHT)), best + 0.4)
    axes[0].set_ylabel("test accuracy, %")
    said = f"SHORTENED: {short}" if short else f"MNIST, {_seeds(result['settings']['seeds'])}"
    figure.suptitle(f"LeNet-300-100 — {said}", fontsize=10)
    figure.savefig(path, dpi=130)


def _names(result: Result, kinds: Sequence[str]) -> list[str]:
    return [name for name, about in result["methods"].items() if about["kind"] in kinds]


def _panel(ax: Any, result: Result, names: Sequence[str], columns: Sequence[float]) -> None:
    found = cells(result)
    for index, name in enumerate([*names, *(n for n in _REFERENCES if n not in names)]):
        places = [i for i, c in enumerate(columns) if (name, c) in found]
        if name == "dense" and ("dense", 0.0) in found:
            ax.axhline(percent(found["dense", 0.0]), color="0.3", lw=1, label="dense")
        if not places:
            continue
        runs = [found[name, columns[i]] for i in places]
        means, spreads = [percent(r) for r in runs], [deviation(r) or 0.0 for r in runs]
        reference = name in _REFERENCES
        style = {"color": "0.5", "ls": ":"} if reference else {"color": f"C{index}"}
        marker = "osvD^"[index // 10 + index % 3]
        ax.errorbar(places, means, spreads, marker=marker, ms=4, lw=1.3, label=name, **style)


def _published(ax: Any, columns: Sequence[float]) -> None:
    markers = dict(zip(PUBLISHED, "_xP+1*", strict=True))
    for name, row in PUBLISHED.items():
        places = [i for i, c in enumerate(columns) if c in row]
        if places:
            values = [row[columns[i]] for i in places]
            label = f"{name}, published"
            ax.plot(places, values, markers[name], color="k", ms=6, alpha=0.6, label=label)
