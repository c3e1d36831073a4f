"""What the automatic choices lose: a layer's step as the library plans it, against every forced setting.

    python -m benchmarks.choices --sizes 1024 --sparsity 0.5 0.95 --plot out.png

`machine.Choices` decides the inputs per slab and from which density on four outputs are computed at
a time (quads), `tiles.pick_lanes` the samples side by side, `ops.structures` the tiles of a task.
First every setting is tried, one change at a time but for slabs and quads, which are tried in all
combinations; then the fastest few meet the library's own choice, which runs twice: how far it is
from itself is the noise. The step and the check of its results are those of `kernels`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import _common, _program, _rivals, kernels
from benchmarks._choices_report import plot, report
from benchmarks._common import TOTAL
from benchmarks._layer import LayerStep, Problem
from benchmarks._rivals import Rival
from nnsparse import machine, tiles
from nnsparse.ops import structures

CHOSEN, AGAIN = "chosen", "chosen, again"
SCREENING = 3  # rounds of one call that choose the finalists
FINALISTS = 3
# Below these densities nobody would take quads; trying them takes longer than all the rest.
QUADS_FROM = 0.08


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    sizes: tuple[int, ...] = (1024, 2048, 4096)
    batch: int = 256
    sparsity: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
    lanes: tuple[int, ...] = (32, 128)
    tiles: tuple[int, ...] = (1, 2, 4, 8)
    threads: int = min(2, os.cpu_count() or 1)
    repeats: int = 7
    calls: int = 3
    pause: float = 0.0  # nobody else's threads spin here
    seed: int = 0


# ---------------------------------------------------------------- forced settings


@dataclass(frozen=True)
class Forced:
    """What is forced, None where the library decides: inputs of a slab and quads, lanes, tiles of a task."""

    slab: int | None = None
    quads: bool | None = None
    lanes: int | None = None
    tiles: int | None = None

    def __str__(self) -> str:
        if self.slab is not None:
            return f"{'quads' if self.quads else 'runs'}, slabs of {self.slab}"
        if self.lanes is not None:
            return f"{self.lanes} lanes"
        return f"{self.tiles} tile{'s' if self.tiles != 1 else ''} a task"

    def step(self, p: Problem) -> LayerStep:
        """Return the layer's step with these settings."""
        step = _rivals.sparse_tiles(p, self.slab, self.quads, self.lanes)
        if self.tiles is None:
            return step
        forward, input_gradient = (
            partial(_with_tiles, self.tiles, call) for call in (step.forward, step.input_gradient)
        )
        return replace(step, forward=forward, input_gradient=input_gradient)


def _with_tiles(n: int, call: Any) -> Any:
    with _tiles_a_task(n):
        return call()


@contextmanager
def _tiles_a_task(n: int) -> Iterator[None]:
    """Let `ops.structures` take n tiles a task, but as few as give every thread two tasks."""
    before = structures.TILES, structures.BLOCK
    structures.TILES, structures.BLOCK = n, 2**62
    try:
        yield
    finally:
        structures.TILES, structures.BLOCK = before


def candidates(settings: Settings, n: int, sparsity: float) -> list[Forced]:
    """Return what is tried for a layer: slabs from half the chosen ones on, with quads or without; lanes; tiles."""
    density = 1 - sparsity
    guess = machine.choices().slab(n, density)
    slabs = sorted({s for s in (guess // 2, guess, 2 * guess, 4 * guess) if s < 2 * n})
    found = [Forced(slab, False) for slab in slabs]
    if density >= QUADS_FROM:
        found += [Forced(slab, True) for slab in slabs]
    usual = tiles.pick_lanes(settings.batch)
    found += [Forced(lanes=lanes) for lanes in settings.lanes if lanes != usual]
    return found + [Forced(tiles=n_tiles) for n_tiles in settings.tiles]


# ---------------------------------------------------------------- measuring


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time the choices and the forced settings; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads, or no nonzero is left.
    kernels.WrongResultError
        If a result differs from float64's.
    """
    points = [(n, s) for n in settings.sizes for s in settings.sparsity]

    def work(bar: Any) -> dict[str, Any]:
        results = []
        for i, (n, sparsity) in enumerate(points):
            results.append(_one_point(settings, n, sparsity, [settings.seed, i], bar))
        measured = machine.remembered() is not None
        return {"choices": asdict(machine.choices()), "autotuned": measured, "results": results}

    rounds = sum(
        SCREENING * (1 + len(candidates(settings, n, s))) + settings.repeats * (2 + FINALISTS)
        for n, s in points
    )
    return _program.measured("choices", settings, work, blocks=rounds, control_size=control_size)


def _one_point(
    settings: Settings, n: int, sparsity: float, seed: object, bar: Any
) -> dict[str, Any]:
    """Time one layer: all settings a little, then the fastest of them and the choice with care."""
    run = kernels.Settings(
        n_in=n,
        n_out=n,
        batch=settings.batch,
        threads=settings.threads,
        repeats=settings.repeats,
        calls=settings.calls,
        pause=settings.pause,
    )
    chosen = Rival(_rivals.sparse_tiles, "")
    tried = {str(forced): Rival(forced.step, "") for forced in candidates(settings, n, sparsity)}
    screening = replace(run, repeats=SCREENING, calls=1)
    found = kernels.one_sparsity(screening, {CHOSEN: chosen, **tried}, sparsity, seed, bar)
    best = {name: row["sections"][TOTAL]["min_ms"] for name, row in found["rivals"].items()}
    finalists = sorted(tried, key=lambda name: best[name])[:FINALISTS]
    rivals = {CHOSEN: chosen, **{name: tried[name] for name in finalists}, AGAIN: chosen}
    last = kernels.one_sparsity(run, rivals, sparsity, seed, bar)
    return {
        "n": n,
        "sparsity": sparsity,
        "nnz": last["nnz"],
        "plan": chosen_plan(n, sparsity),
        **_loss({name: row["sections"][TOTAL] for name, row in last["rivals"].items()}),
        "tried": {name: round(ms, 4) for name, ms in best.items()},
    }


def chosen_plan(n: int, sparsity: float) -> str:
    """Return in words what the library chooses for an (n, n) layer."""
    chosen, density = machine.choices(), 1 - sparsity
    kinds = [density >= limit for limit in (chosen.quads, chosen.quads_gathered)]
    words = [
        f"quads, {chosen.base}" if quads else f"runs, {chosen.slab(n, density)}" for quads in kinds
    ]
    return words[0] if words[0] == words[1] else f"{words[0]}; transposed {words[1]}"


def _loss(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the medians in ms, what the choice loses against the best, and how far it is from itself.

    The choice's time is the mean of its two runs; a loss below zero is a choice that is the best.
    """
    ms = {name: row["median_ms"] for name, row in rows.items()}
    own = (ms[CHOSEN] + ms[AGAIN]) / 2
    best = min((name for name in ms if name not in (CHOSEN, AGAIN)), key=lambda name: ms[name])
    return {
        "best": best,
        "loss": own / ms[best] - 1,
        "noise": abs(ms[CHOSEN] - ms[AGAIN]) / own,
        "ms": {name: round(value, 5) for name, value in ms.items()},
    }


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    p = argparse.ArgumentParser(prog="choices", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--sizes", type=size, nargs="+", default=d.sizes, metavar="N", help="n -> n")
    p.add_argument("--batch", type=size, default=d.batch, help="default %(default)s")
    p.add_argument("--sparsity", type=_common.sparsity, nargs="+", default=d.sparsity, metavar="S")
    p.add_argument("--lanes", type=int, nargs="*", choices=tiles.LANES, default=d.lanes)
    p.add_argument("--tiles", type=size, nargs="*", default=d.tiles, metavar="N", help="of a task")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--calls", type=size, default=d.calls, help="timed steps per round, default 3")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("choices", measure, report, plot, (kernels.WrongResultError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong result."""
    several = ("sizes", "sparsity", "lanes", "tiles")

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, **{name: tuple(given[name]) for name in several}})

    pin = _program.of_threads if program else None
    return _program.run(PART, parser(), settings, argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
