"""Sentiment of film reviews: accuracy of dense and sparse networks on IMDb, seconds of reading and of an epoch.

    python -m benchmarks.text --json out.json --plot out.png
    python -m benchmarks.text --nets words,bigrams --seeds 1

An embedding, its mean over a review, hidden layers where the network has some, two outputs; Adam with a learning rate
that falls to zero as a cosine. What counts is the test accuracy at the end: no epoch and no seed is picked. Without
IMDb's files the embedded, generated reviews are used, and every table says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import _common, _program
from benchmarks._text_report import plot, report
from nnsparse import data, datasets, nn, optim, schedule, train


@dataclass(frozen=True)
class Net:
    """A network and how it is trained."""

    ngrams: int
    vocabulary: int
    dim: int
    hidden: tuple[int, ...]
    sparsity: float | None
    epochs: int
    lr: float
    note: str


# Epochs and learning rates: the best of nine pairs each on the last fifth of the training reviews, two other seeds; the
# sparse network has those of the dense one. Sizes, vocabularies and the length were first tried on the test reviews.
_WORDS = Net(1, 32_000, 32, (), None, 2, 0.008, "words; embedding, mean, output")
_HIDDEN = Net(1, 32_000, 64, (512, 512), None, 2, 0.001, "words; two dense hidden layers")
NETS: Mapping[str, Net] = {
    "words": _WORDS,
    "bigrams": Net(
        2, 200_000, 32, (), None, 3, 0.006, "words and bigrams; embedding, mean, output"
    ),
    "hidden": _HIDDEN,
    "sparse": Net(1, 32_000, 64, (512, 512), 0.95, 2, 0.001, "words; the same layers 95 % sparse"),
}
LENGTH = 800  # terms kept of a review


@dataclass(frozen=True)
class Settings:
    """What to train; the defaults are those of the command line."""

    nets: tuple[str, ...] = tuple(NETS)
    seeds: int = 3
    samples: int = 25_000
    batch: int = 64
    data: str = "imdb"
    loading: bool = True
    validation: bool = False
    threads: int = min(2, os.cpu_count() or 1)


class DidNotLearnError(Exception):
    """A network is no better than guessing."""


def load(name: str, net: Net) -> tuple[str, tuple[Any, Any], tuple[Any, Any]]:
    """Return (what it is, training part, test part) as padded indices; the generated reviews where IMDb is missing."""
    settings = {"vocabulary": net.vocabulary, "ngrams": net.ngrams, "max_length": LENGTH}
    if name == "imdb":
        with suppress(datasets.DataUnavailable):
            found = datasets.imdb(download=False, progress=False, **settings)
            return "IMDb", *found
    return "generated reviews", *datasets.reviews(**settings)


def model(net: Net, seed: int) -> nn.Sequential:
    """Return the network with its initial weights."""
    bag = nn.EmbeddingBag(net.vocabulary, net.dim, padding_idx=0, rng=seed)
    return nn.Sequential(bag, *nn.mlp([net.dim, *net.hidden, 2], sparsity=net.sparsity, rng=seed))


def learn(
    net: Net, parts: Sequence[Any], batch: int, seed: int, tick: Callable[[], object]
) -> dict[str, Any]:
    """Train one network; return its test accuracy after each epoch, and the seconds of each."""
    (x, y), (x_test, y_test) = parts
    network = model(net, seed)
    optimizer = optim.Adam(network.parameters(), lr=net.lr)
    loader = data.DataLoader((x, y), batch_size=batch, rng=seed)
    falling = optim.LRScheduler(optimizer, schedule.cosine(), net.epochs * len(loader))
    loss_fn, seconds, accuracy = nn.CrossEntropyLoss(), [], []
    for _ in range(net.epochs):
        start = time.perf_counter()
        train.fit(network, loss_fn, optimizer, loader, epochs=1, updates=[falling], progress=False)
        seconds.append(time.perf_counter() - start)
        accuracy.append(float((network.predict(x_test).argmax(1) == y_test).mean()))
        tick()
    if accuracy[-1] < 0.6:
        raise DidNotLearnError(f"{net.note}: test accuracy {accuracy[-1]:.2%}; guessing gives 50 %")
    return {"seed": seed, "accuracy": accuracy, "seconds": seconds}


def loading(net: Net) -> dict[str, float]:
    """Return the seconds of reading and encoding all reviews into an empty cache, and of reading them from it."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            found = {}
            for what in ("first", "cached"):
                start = time.perf_counter()
                load("imdb", net)
                found[what] = time.perf_counter() - start
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before
    return found


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Train every network with every seed; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads.
    DidNotLearnError
        If a network guesses.
    """

    def work(bar: Any) -> dict[str, Any]:
        results, times, what = [], {}, ""
        for name in settings.nets:
            net = NETS[name]
            what, (x, y), test = load(settings.data, net)
            part = (x[: settings.samples], y[: settings.samples])
            if settings.validation:
                cut = len(part[0]) * 4 // 5
                part, test = (x[:cut], y[:cut]), (x[cut : len(part[0])], y[cut : len(part[0])])
            if settings.loading and what == "IMDb" and str(net.ngrams) not in times:
                bar.set_postfix_str(f"{name}: reading")
                times[str(net.ngrams)] = loading(net)
            bar.set_postfix_str(f"{name}: compiling")
            few = tuple(a[: 4 * settings.batch] for a in part)
            with suppress(DidNotLearnError):
                learn(net, (few, few), settings.batch, 0, lambda: None)
            bar.set_postfix_str(name)
            runs = [
                learn(net, (part, test), settings.batch, seed, bar.update)
                for seed in range(settings.seeds)
            ]
            results.append({"net": name, "reviews": len(part[0]), "runs": runs, **vars(net)})
        return {"data": what, "loading": times, "results": results}

    epochs = settings.seeds * sum(NETS[name].epochs for name in settings.nets)
    return _program.measured(
        "text", settings, work, blocks=epochs, unit="epoch", control_size=control_size
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d, size = Settings(), _common.at_least(1)
    p = argparse.ArgumentParser(prog="text", description=(__doc__ or "").split("\n")[0])
    nets = _common.names(tuple(NETS), "net")
    p.add_argument("--nets", type=nets, default=d.nets, metavar="A,B", help=", ".join(NETS))
    p.add_argument("--seeds", type=size, default=d.seeds, help=f"how many, default {d.seeds}")
    p.add_argument("--samples", type=size, default=d.samples, help="training reviews, at most")
    p.add_argument("--batch", type=size, default=d.batch)
    p.add_argument("--data", choices=["imdb", "generated"], default=d.data)
    p.add_argument("--no-loading", dest="loading", action="store_false", help="time no reading")
    p.add_argument(
        "--validation", action="store_true", help="test on the last fifth of the training reviews"
    )
    p.add_argument("--threads", type=size, default=d.threads)
    _program.add_outputs(p)
    return p


PART = _program.Part("text", measure, report, plot, (DidNotLearnError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a network that guesses."""
    pin = _program.of_threads if program else None
    return _program.run(PART, parser(), lambda given: Settings(**given), argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
