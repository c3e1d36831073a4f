"""Trains, moves weights, evaluates, compiles, predicts and saves for minutes on end, and watches the memory.

    nice python -m benchmarks.soak --minutes 30 --json benchmarks/results/soak.json --plot benchmarks/results/soak.png

A round makes a network of one of several shapes, trains it with RigL's updates, evaluates it after each epoch, saves
and loads it, compiles it, saves and loads that too, and predicts with it from two Python threads at once. After each
round the resident size of the process is noted. What is reported is its slope behind the warm-up: a leak of one object
a step would show.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import nnsparse as ns
from benchmarks import _common, _machine, _program
from benchmarks._common import number, table
from nnsparse import data, datasets, nn, optim, sparsify, tiles, train

SHAPES = (
    ((300, 100), 0.95, 64),
    ((512, 256), 0.9, 128),
    ((1000,), 0.98, 50),
)  # hidden, sparsity, batch
KINDS = ("trainings", "steps", "updates", "evaluations", "checkpoints", "compiled", "predictions")


@dataclass(frozen=True)
class Settings:
    """What to do and for how long; the defaults are those of the command line."""

    minutes: float = 30.0
    warm_up: float = 5.0
    epochs: int = 3
    samples: int = 6000
    every: int = 20
    threads: int = min(2, os.cpu_count() or 1)
    seed: int = 0


class WrongOutputError(Exception):
    """What was saved, loaded or compiled computes something else, or nothing was learnt."""


def resident() -> int:
    """Return the bytes of this process that are in memory (Linux), else the most that ever were."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # fmt: skip


# ---------------------------------------------------------------- measuring


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Run rounds until the time is over; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If the warm-up is not shorter than the run.
    WrongOutputError
        If a network learns nothing, or a copy from a file computes something else.
    """
    if not 0 <= settings.warm_up < settings.minutes:
        raise ValueError(
            f"expected a warm-up shorter than the run of {settings.minutes:g} minutes; got {settings.warm_up:g}"
        )

    def work(bar: Any) -> dict[str, Any]:
        counts, samples = dict.fromkeys(KINDS, 0), []
        split, test = datasets.digits(settings.samples, 1000, seed=settings.seed)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="nnsparse-soak-") as folder:
            while True:
                turn(settings, split, test, Path(folder), counts)
                minutes = (time.perf_counter() - start) / 60
                samples.append(
                    {"minutes": minutes, "rss": resident(), "pool": tiles.pool.nbytes(), "steps": counts["steps"]}
                )  # fmt: skip
                bar.update(min(int(60 * minutes), bar.total) - bar.n)
                if minutes >= settings.minutes:
                    break
        return {"results": {"counts": counts, "samples": samples, **slope(samples, settings)}}

    seconds = int(60 * settings.minutes)
    return _program.measured(
        "soak", settings, work, blocks=seconds, unit="s", control_size=control_size
    )


def turn(settings: Settings, split: Any, test: Any, folder: Path, counts: dict[str, int]) -> None:
    """Do one round; add up what was done in `counts`."""
    i = counts["trainings"]
    hidden, sparsity, batch = SHAPES[i % len(SHAPES)]
    model = nn.mlp([split[0].shape[1], *hidden, 10], sparsity=sparsity, rng=settings.seed + i)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    loader = data.DataLoader(split, batch_size=batch, rng=settings.seed + i)
    steps = settings.epochs * len(loader)
    recipe = sparsify.rigl(every=settings.every)
    rigl = sparsify.Sparsifier(model, optimizer, recipe, total_steps=steps)
    loss = nn.CrossEntropyLoss()
    history = train.fit(
        model, loss, optimizer, loader, epochs=settings.epochs, validation=test, updates=[rigl], progress=False
    )  # fmt: skip
    if history["validation_accuracy"][-1] < 0.5:
        raise WrongOutputError(f"round {i} has learnt nothing: {history['validation_accuracy']}")
    x = test[0][:256]
    expected = model.predict(x)
    ns.save(folder / "run.ckpt", model, optimizer, updates=[rigl], loader=loader, history=history)
    fresh = nn.mlp([split[0].shape[1], *hidden, 10], sparsity=sparsity, rng=settings.seed + i + 1)
    again = optim.SGD(fresh.parameters(), lr=0.1, momentum=0.5)
    ns.load(folder / "run.ckpt").restore(fresh, again)
    if not np.array_equal(fresh.predict(x), expected) or again.lr != optimizer.lr:
        raise WrongOutputError("a restored network predicts something else")
    frozen = ns.compile(model)
    frozen.save(folder / "frozen")
    _concurrent(ns.inference.load(folder / "frozen"), x, expected)
    done = (1, steps, rigl.report().updates, settings.epochs, 1, 1, 2 * 20)
    for kind, n in zip(KINDS, done, strict=True):
        counts[kind] += n


def _concurrent(frozen: ns.inference.CompiledModel, x: Any, expected: Any) -> None:
    """Predict from two Python threads, in batches of several sizes, and compare."""
    wrong: list[int] = []

    def predict() -> None:
        for i in range(20):
            rows = 1 + 37 * i % len(x)
            if not np.allclose(frozen.predict(x[:rows]), expected[:rows], rtol=1e-3, atol=1e-3):
                wrong.append(i)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise WrongOutputError(f"the compiled model predicts something else in calls {wrong}")


def slope(samples: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, float]:
    """Return the least-squares slope of the resident size behind the warm-up, bytes per hour, and its error."""
    kept = [s for s in samples if s["minutes"] >= settings.warm_up]
    hours = np.array([s["minutes"] / 60 for s in kept])
    rss = np.array([s["rss"] for s in kept], np.float64)
    if len(kept) < 3:
        return {"slope": float("nan"), "slope_error": float("nan"), "rss": float(rss.mean())}
    h = hours - hours.mean()
    found = float(h @ rss / (h @ h))
    rest = rss - rss.mean() - found * h
    error = float(np.sqrt(rest @ rest / (len(kept) - 2) / (h @ h)))
    return {"slope": found, "slope_error": error, "rss": float(rss.mean())}


# ---------------------------------------------------------------- printing


def per_hour(found: Mapping[str, float]) -> str:
    """Return the slope and two standard errors as text."""
    return f"{found['slope'] / 2**20:+.2f} ± {2 * found['slope_error'] / 2**20:.2f} MiB per hour"


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what they mean, as Markdown."""
    s, found = result["settings"], result["results"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    samples = found["samples"]
    warm = [x for x in samples if x["minutes"] >= s["warm_up"]]
    sizes = [x["rss"] / 2**20 for x in warm]
    rows = [
        ["resident at the end of the warm-up", f"{number(sizes[0])} MiB"],
        ["resident at the end", f"{number(sizes[-1])} MiB"],
        ["lowest, highest in between", f"{number(min(sizes))}, {number(max(sizes))} MiB"],
        ["pool of buffers at the end", f"{number(samples[-1]['pool'] / 2**20)} MiB"],
        ["slope", per_hour(found)],
    ]
    counts = [[kind, f"{found['counts'][kind]:,}"] for kind in KINDS]
    blocks = [
        f"# Soak, {samples[-1]['minutes']:.1f} minutes, {s['threads']} threads",
        _machine.sentence(result["machine"]) + f"\n{control}",
        table(["memory", ""], rows),
        table(["what was done", "times"], counts),
        f"One process. Slope: least squares over the {len(warm)} rounds behind the first {s['warm_up']:g} minutes, "
        "± two standard errors.",
    ]
    return "\n\n".join(blocks) + "\n"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the resident size over time."""
    from matplotlib.figure import Figure

    s, found = result["settings"], result["results"]
    minutes = [x["minutes"] for x in found["samples"]]
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(minutes, [x["rss"] / 2**20 for x in found["samples"]], label="resident size")
    axes.plot(minutes, [x["pool"] / 2**20 for x in found["samples"]], label="pool of buffers")
    axes.axvspan(0, s["warm_up"], alpha=0.15, color="gray", label="warm-up")
    axes.set_ylim(0, None)
    axes.set_xlim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{found['counts']['steps']:,} steps, {found['counts']['updates']:,} RigL updates: "
    title += per_hour(found)
    axes.set(xlabel="minutes", ylabel="MiB", title=title)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    p = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--minutes", type=float, default=d.minutes, help="default 30")
    p.add_argument("--warm-up", type=float, default=d.warm_up, help="minutes, default 5")
    p.add_argument("--epochs", type=size, default=d.epochs, help="of a training, default 3")
    p.add_argument("--samples", type=size, default=d.samples, help="default 6000")
    p.add_argument("--every", type=size, default=d.every, help="steps between updates, default 20")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("soak", measure, report, plot, (WrongOutputError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong result."""
    return _program.run(PART, parser(), lambda given: Settings(**given), argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
