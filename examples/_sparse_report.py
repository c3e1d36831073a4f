"""What `pruning.py`, `dynamic_sparse.py` and `imdb.py` show of what `_sparse` trained: table, plot and JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from _common import Split, table
from _sparse import Trained, affine

import nnsparse as ns
from nnsparse import nn, schedule, sparsify
from nnsparse.sparsify import plots


def results_table(runs: Sequence[Trained]) -> str:
    """Return the summaries as a table; speed is that of the last epoch's steps, relative to the last run."""
    rows = [["network", "test", "sparsity", "nnz", "weights + state", "ms/step"]]
    rows[0] += ["speed", "training", "updates", "their time"]
    summaries = [run.summary() for run in runs]
    for s in summaries:
        rows.append(
            [s["network"], f"{s['test_accuracy']:.2%}", f"{s['sparsity']:.2%}", f"{s['nnz']:,}"]
            + [f"{s['bytes'] / 1e6:.3f} MB", f"{s['ms_per_step']:.3f}"]
            + [f"{summaries[-1]['ms_per_step'] / s['ms_per_step']:.2f}x", f"{s['seconds']:.2f} s"]
            + [str(s["updates"]), f"{s['update_seconds']:.3f} s"]
        )
    return table(rows)


def compacted(run: Trained, test: Split) -> str:
    """Return what is left when the neurons that cannot matter are taken out, in a line; empty if there are none."""
    small = sparsify.compact(run.model)
    before, after = (
        "-".join(
            str(n)
            for n in [
                affine(model)[0].in_features,
                *(layer.out_features for layer in affine(model)),
            ]
        )
        for model in (run.model, small)
    )
    if before == after:
        return ""
    accuracy = float((small.predict(test[0]).argmax(1) == test[1]).mean())
    size = ns.memory_report(small).weights_and_state / 1e6
    return f"{run.name}, compacted: {after}, {size:.3f} MB without optimizer, test {accuracy:.2%}"


def planned(sparsifier: sparsify.Sparsifier) -> schedule.Schedule:
    """Return the recipe's sparsity over the whole training's progress; if it plans none, what came of it."""
    recipe, total = sparsifier.recipe, sparsifier.total_steps
    if recipe.sparsity is None:
        return lambda progress: after_updates(sparsifier, progress)
    first = recipe.when.steps(total)[0]
    before = recipe.start.sparsity(1.0) if recipe.start else 0.0

    def sparsity(progress: float) -> float:
        step = round(progress * total)
        return before if step < first else recipe.sparsity(recipe.when.progress(step, total))

    return sparsity


def after_updates(sparsifier: sparsify.Sparsifier, progress: float) -> float:
    """Return the sparsity after the last update up to some progress."""
    size = sum(target.size for target in sparsifier.targets)
    done = [r for r in sparsifier.history if r.step <= progress * sparsifier.total_steps]
    return 1 - sum(done[-1].counts) / size if done else 0.0


def plot(runs: Sequence[Trained], title: str, path: Path) -> None:
    """Draw sparsity over training, planned and as it was (or the loss), test accuracy, densities and a layer's mask."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    led = [run for run in runs if run.sparsifier]
    if led:
        plots.plot_schedule({run.name: planned(run.sparsifier) for run in led}, axes[0, 0])
        axes[0, 0].set_title("sparsity: lines as planned, dots after each update")
    else:  # no sparsity moves
        for run in runs:
            axes[0, 0].plot(run.history["step_loss"], alpha=0.7)
        axes[0, 0].set(xlabel="step", ylabel="training loss", yscale="log")
    for i, run in enumerate(led):
        steps = [record.step / run.sparsifier.total_steps for record in run.sparsifier.history]
        percent = [100 * after_updates(run.sparsifier, step) for step in steps]
        axes[0, 0].plot(steps, percent, "o", color=f"C{i % 10}", markersize=3)
    for run in runs:
        axes[0, 1].plot(
            run.history["epoch"],
            100 * run.history["validation_accuracy"],
            "--." if run.sparsifier is None else "-o",
            label=run.name,
        )
    axes[0, 1].set(xlabel="epoch", ylabel="test accuracy (%)")
    axes[0, 1].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 1].grid(alpha=0.3)
    axes[0, 1].legend()
    plots.plot_densities({run.name: run.model for run in runs}, axes[1, 0])
    axes[1, 0].get_legend().remove()  # the colours are those of the panel above
    name, layer = next(
        (run.name, m) for run in [*led, *runs] for m in run.model if isinstance(m, nn.SparseLinear)
    )
    plots.plot_mask(layer.weight.topology, axes[1, 1])
    axes[1, 1].set_title(f"first sparse layer, {name}: {axes[1, 1].get_title()}")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def write_json(runs: Sequence[Trained], data: str, args: argparse.Namespace, path: Path) -> None:
    """Write options, summaries, histories and reports."""
    results = [
        {
            **run.summary(),
            "history": run.history.to_dict(),
            "updates": [asdict(record) for record in run.sparsifier.history]
            if run.sparsifier
            else [],
        }
        for run in runs
    ]
    options = {key: str(value) for key, value in vars(args).items()}
    path.write_text(json.dumps({"data": data, "options": options, "results": results}) + "\n")


def finish(runs: Sequence[Trained], about: str, args: argparse.Namespace, test: Split) -> None:
    """Print the table, write what was asked for, and see whether all have learned."""
    print("\n" + results_table(runs))
    for run in runs:
        if line := compacted(run, test):
            print(line)
    for run in runs:
        if run.sparsifier:
            print(f"\n{run.sparsifier.report()}")
    if args.json:
        write_json(runs, about, args, args.json)
    if args.plot:
        plot(runs, about, args.plot)
    poor = [run.name for run in runs if not run.summary()["test_accuracy"] > 0.5]
    if poor:
        raise SystemExit(
            f"Did not learn: {', '.join(poor)}. Try a lower --sparsity or another --lr."
        )
