"""Times whole trainings with recipes against the dense one: what sparsity that moves or grows costs and saves.

    python -m benchmarks.pruning --sizes 784 1000 1000 1000 10 --steps 2000

Rounds of all rivals, each a whole training of so many steps; the figures are medians of rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import _common, _images, _machine, _program
from benchmarks._common import number, table
from nnsparse import nn, optim, sparsify
from nnsparse.data import DataLoader


@dataclass(frozen=True)
class Settings:
    """What to train; the defaults are those of the command line."""

    sizes: tuple[int, ...] = (784, 1000, 1000, 1000, 10)
    sparsity: float = 0.95
    batch: int = 100
    steps: int = 2000
    every: int = 100
    refresh: int = 500
    threads: int = 2
    repeats: int = 3


@dataclass(frozen=True)
class Rival:
    """A training: what it is, its recipe (None: none), whether it begins sparse, and how patterns are stored."""

    note: str
    recipe: str | None = None
    sparse: bool = False
    refresh: bool = False
    swap: bool = False


RIVALS: Mapping[str, Rival] = {
    "dense": Rival("nn.Linear from beginning to end"),
    "static": Rival("random sparse layers from beginning to end", sparse=True),
    "rigl": Rival("weights move to the largest gradients", "rigl", sparse=True),
    "set": Rival("weights move at random", "set_", sparse=True),
    "agp": Rival("from all weights, compressed at each update", "agp"),
    "agp-refresh": Rival(
        "the same, compressed less often, held at zero between", "agp", refresh=True
    ),
    "agp-swap": Rival("the same, on the dense kernels while those are faster", "agp", swap=True),
    "one_cycle": Rival("from all weights, compressed at each update", "one_cycle"),
    "one_cycle-refresh": Rival("the same, compressed less often", "one_cycle", refresh=True),
    "one_cycle-swap": Rival("the same, dense while that is faster", "one_cycle", swap=True),
}


def train(rival: Rival, s: Settings, data: Any) -> dict[str, float]:
    """Train once; return seconds in all, of choosing weights and of moving patterns, and the updates."""
    model = nn.mlp(s.sizes, sparsity=s.sparsity if rival.sparse else None, rng=0)
    if rival.recipe and not rival.sparse:
        model = sparsify.prunable(model)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss_fn, sparsifier = nn.CrossEntropyLoss(), None
    loader = DataLoader(data, batch_size=s.batch, rng=0)
    left = s.steps
    start = perf_counter()
    if rival.recipe:
        recipe = getattr(sparsify, rival.recipe)(s.sparsity, every=s.every)
        sparsifier = sparsify.Sparsifier(
            model,
            optimizer,
            recipe,
            s.steps,
            refresh_every=s.refresh if rival.refresh else None,
            swap=rival.swap,
        )
    while left:
        for x, y in loader:
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            if sparsifier is None or not sparsifier.replaces_step:
                optimizer.step()
            if sparsifier is not None:
                sparsifier.step()
            left -= 1
            if not left:
                break
    seconds = perf_counter() - start
    history = sparsifier.history if sparsifier else []
    return {
        "seconds": seconds,
        "choosing": sum(record.pruning for record in history),
        "moving": sum(record.refreshing for record in history),
        "updates": len(history),
    }


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Train all rivals in turn; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads, or too few steps for updates.
    """
    name, split, _ = _images.images(60_000, 100)
    short = Settings(**{**vars(settings), "steps": 3 * settings.every})

    def work(bar: Any) -> dict[str, Any]:
        runs: dict[str, list[dict[str, float]]] = {rival: [] for rival in RIVALS}
        for rival in RIVALS.values():
            train(rival, short, split)  # compiles
        for _ in range(settings.repeats):
            for rival, chosen in RIVALS.items():
                bar.set_postfix_str(rival)
                runs[rival].append(train(chosen, settings, split))
                bar.update()
        results = {
            rival: {key: median(run[key] for run in found) for key in found[0]}
            for rival, found in runs.items()
        }
        ratios = {
            rival: median(
                run["seconds"] / dense["seconds"]
                for run, dense in zip(found, runs["dense"], strict=True)
            )
            for rival, found in runs.items()
        }
        notes = {rival: chosen.note for rival, chosen in RIVALS.items()}
        return {"data": name, "results": results, "ratios": ratios, "notes": notes}

    blocks = settings.repeats * len(RIVALS)
    return _program.measured(
        "pruning", settings, work, blocks=blocks, unit="training", control_size=control_size
    )


def report(result: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    s = result["settings"]
    rows = []
    for rival, row in result["results"].items():
        cost = row["choosing"] + row["moving"]
        rows.append(
            [
                rival,
                number(row["seconds"]),
                f"{result['ratios'][rival]:.2f}",
                f"{row['updates']:.0f}",
                number(1e3 * row["choosing"]),
                number(1e3 * row["moving"]),
                f"{100 * cost / row['seconds']:.1f} %",
            ]
        )
    header = [
        "training", "s", "× dense", "updates", "choosing weights, ms", "moving patterns, ms", "share"
    ]  # fmt: skip
    sizes = "-".join(map(str, s["sizes"]))
    about = (
        f"**Whole trainings** of {sizes} to {s['sparsity']:.0%} sparsity on {result['data']}: {s['steps']} steps, "
        f"batch {s['batch']}, updates every {s['every']} steps, patterns refreshed every {s['refresh']} where said so; "
        f"{s['threads']} threads, medians of {s['repeats']} rounds. The share is that of updates in the training."
    )
    warning = _images.warning(result["data"])
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    parts = [
        "# Whole trainings with recipes",
        about,
        table(header, rows),
        "\n".join(f"- {name}: {note}" for name, note in result["notes"].items()),
        _machine.sentence(result["machine"]) + f"\n{control}",
    ]
    return "\n\n".join([*parts, *([warning] if warning else [])])


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the seconds of each training."""
    from matplotlib.figure import Figure

    names = list(result["results"])
    seconds = [result["results"][name]["seconds"] for name in names]
    figure = Figure(figsize=(8, 0.4 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    colors = ["C7" if name.startswith("dense") else "C0" for name in names]
    bars = axes.barh(names, seconds, color=colors)
    axes.bar_label(bars, labels=[f"{result['ratios'][name]:.2f}×" for name in names], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set(xlabel="seconds of the whole training; labels: times the dense one")
    figure.savefig(path, dpi=120)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    count = _common.at_least(1)
    p = argparse.ArgumentParser(prog="pruning", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--sizes", type=count, nargs="+", default=d.sizes, metavar="N")
    p.add_argument("--sparsity", type=_common.sparsity, default=d.sparsity, help="default 0.95")
    p.add_argument("--batch", type=count, default=d.batch, help="default %(default)s")
    p.add_argument("--steps", type=count, default=d.steps, help="default %(default)s")
    p.add_argument(
        "--every", type=count, default=d.every, help="steps between updates, default 100"
    )
    p.add_argument("--refresh", type=count, default=d.refresh, help="default %(default)s")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--threads", type=count, default=d.threads, help="default %(default)s")
    _program.add_outputs(p)
    return p


PART = _program.Part("pruning", measure, report, plot)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument."""

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, "sizes": tuple(given["sizes"])})

    return _program.run(PART, parser(), settings, argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
