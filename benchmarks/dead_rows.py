"""When it pays to drop dead samples between layers: `compile(model, skip_dead=True)` against the whole model.

    python -m benchmarks.dead_rows --json out.json --plot out.png

A sample is dead when it is zero in every feature behind a ReLU. Here a chosen share of them dies in the first layer,
the others live on to the end, in networks of square sparse layers. Both models are frozen, so the arithmetic is the
same but for what the filter leaves out. What the filter costs shows where nobody dies.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import nnsparse as ns
from benchmarks import _common, _machine, _program
from benchmarks._common import TOTAL, Timed, number, spread, table
from nnsparse import nn

THRESHOLD = 0.01  # each layer's bias is minus this
RIVALS = {"whole": "compile(model)", "filtered": "compile(model, skip_dead=True)"}


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    neurons: tuple[int, ...] = (256, 1024)
    depths: tuple[int, ...] = (2, 4, 16)
    dead: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
    sparsity: float = 0.95
    batch: int = 2048
    threads: int = min(2, os.cpu_count() or 1)
    repeats: int = 5
    calls: int = 2
    pause: float = _common.PAUSE
    seed: int = 0


class WrongOutputError(Exception):
    """The two models differ."""


def network(n: int, depth: int, sparsity: float, seed: int) -> nn.Sequential:
    """Return `depth` square layers with ReLU, which keep a sample's mean but for the threshold, and an output."""
    modules: list[nn.Module] = []
    for i in range(depth):
        layer = nn.SparseLinear(n, n, sparsity=sparsity, rng=seed + i)
        layer.weight.data[:] = n / layer.nnz
        assert layer.bias is not None
        layer.bias.data[:] = -THRESHOLD
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(n, 1, rng=seed))


def samples(n: int, batch: int, dead: float, seed: int) -> Any:
    """Return samples (batch, n), of which this share is too weak for the first threshold, in random places."""
    rng = np.random.default_rng([seed, n])
    x = 0.5 + rng.random((batch, n), np.float32)
    x[rng.permutation(batch)[: round(dead * batch)]] *= THRESHOLD / 10
    return x


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time both models on every network and share; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads.
    WrongOutputError
        If the outputs differ.
    """

    def work(bar: Any) -> dict[str, Any]:
        nets = [(n, depth) for n in settings.neurons for depth in settings.depths]
        return {"results": [_one_net(settings, n, depth, bar) for n, depth in nets]}

    blocks = len(settings.neurons) * len(settings.depths) * len(settings.dead)
    blocks *= settings.repeats * len(RIVALS)
    return _program.measured("dead_rows", settings, work, blocks=blocks, control_size=control_size)


def _one_net(s: Settings, n: int, depth: int, bar: Any) -> dict[str, Any]:
    model = network(n, depth, s.sparsity, s.seed)
    whole, filtered = ns.compile(model), ns.compile(model, skip_dead=True)
    rows = []
    for dead in s.dead:
        x = samples(n, s.batch, dead, s.seed)
        live = filtered.count_live(x)
        if live != [s.batch, *[s.batch - round(dead * s.batch)] * (len(live) - 1)]:
            raise WrongOutputError(f"{n}, {depth} layers, {dead:.0%} dead: alive are {live}")
        if not np.allclose(whole.predict(x), filtered.predict(x), rtol=1e-4, atol=1e-5):
            raise WrongOutputError(f"{n}, {depth} layers, {dead:.0%} dead: the outputs differ")
        timed = [
            Timed("whole", {"predict": partial(whole.predict, x)}),
            Timed("filtered", {"predict": partial(filtered.predict, x)}),
        ]
        seconds = _common.interleave(
            timed, s.repeats, calls=s.calls, pause=s.pause, progress=lambda name: bar.update()
        )
        row = {name: _common.summary(parts[TOTAL]) for name, parts in seconds.items()}
        rows.append({"dead": dead, **row})
    return {"neurons": n, "depth": depth, "rows": rows}


def gain(row: Mapping[str, Any]) -> float:
    """Return how many times faster the filter makes it."""
    return float(row["whole"]["median_ms"] / row["filtered"]["median_ms"])


def pays_from(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of dead samples from which on the filter gains, between two measured ones; None: nowhere."""
    for before, after in zip((None, *rows), rows, strict=False):
        if gain(after) >= 1:
            if before is None:
                return float(after["dead"])
            low, high = np.log(gain(before)), np.log(gain(after))
            return float(before["dead"] + (after["dead"] - before["dead"]) * -low / (high - low))
    return None


def report(result: Mapping[str, Any]) -> str:
    """Return the table, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    header = [
        "hidden layers",
        *(f"{dead:.0%} dead" for dead in s["dead"]),
        "whole, ms",
        "pays from",
    ]
    rows = []
    for net in result["results"]:
        share = pays_from(net["rows"])
        rows.append(
            [
                f"{net['depth']} × {net['neurons']}",
                *(f"{number(gain(row))}×" for row in net["rows"]),
                spread(net["rows"][0]["whole"]),
                "never" if share is None else f"{share:.0%}",
            ]
        )
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    return "\n\n".join(
        [
            f"# Dropping dead samples: layers {100 * s['sparsity']:g} % sparse, batch {s['batch']}, float32",
            _machine.sentence(result["machine"]) + f"\n{control}",
            table(header, rows),
            "How many times faster `compile(model, skip_dead=True)` is than `compile(model)`, medians of "
            f"{s['repeats'] * s['calls']}, the two in turn. Dead: the share of samples that are all zero behind the "
            "first layer, here in random places; the others reach the end. Pays from: the share at which both take the "
            "same time, between the measured ones.",
        ]
    ) + "\n"  # fmt: skip


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw how many times faster the filter is by the share of dead samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for net in result["results"]:
        label = f"{net['depth']} × {net['neurons']}"
        shares = [100 * row["dead"] for row in net["rows"]]
        axes.plot(shares, [gain(row) for row in net["rows"]], marker="o", label=label)
    axes.axhline(1, color="0.6", linewidth=1)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}×")
    axes.set(xlabel="samples that die in the first layer, %", ylabel="times faster with the filter")
    axes.set_title("When it pays to drop dead samples between layers")
    axes.legend(title="hidden layers", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d, size = Settings(), _common.at_least(1)
    p = argparse.ArgumentParser(prog="dead_rows", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--neurons", type=size, nargs="+", default=d.neurons, metavar="N")
    p.add_argument("--depths", type=size, nargs="+", default=d.depths, metavar="L")
    p.add_argument("--dead", type=_common.fraction, nargs="+", default=d.dead, metavar="SHARE")
    p.add_argument("--sparsity", type=_common.sparsity, default=d.sparsity)
    p.add_argument("--batch", type=size, default=d.batch)
    p.add_argument("--threads", type=size, default=d.threads)
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed)
    _program.add_outputs(p)
    return p


PART = _program.Part("dead_rows", measure, report, plot, (WrongOutputError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong output."""

    def settings(given: dict[str, Any]) -> Settings:
        lists = {name: tuple(given[name]) for name in ("neurons", "depths", "dead")}
        return Settings(**{**given, **lists})

    return _program.run(PART, parser(), settings, argv, _program.of_threads if program else None)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
