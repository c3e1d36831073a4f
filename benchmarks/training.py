"""Times whole training steps (batch, forward, loss, backward, SGD), Python overhead and all.

    python -m benchmarks.training --json benchmarks/results/training.json
    python -m benchmarks.training --nets wide-256 --momentum 0.9 --plot out.png

The networks are in `_task`, how each rival computes a step in `_networks`, how steps are timed in
`_common`, what is printed in `_training_report`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import _common, _program, _rivals
from benchmarks._common import TOTAL, Timed
from benchmarks._networks import DENSE, RIVALS, SPARSE, Step
from benchmarks._task import NETS, Net, Task
from benchmarks._training_report import plot, report

OURS = "nnsparse"
BASELINES = ("torch", "dense", "numpy", "torch-masked", "sklearn")
MAX_DIFFERENCE = 1e-3  # relative, of losses that should be equal; 1e-6 is usual
CHECKED = 3  # steps after which losses of rivals that train the same weights have been compared


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    nets: tuple[str, ...] = ("thesis-64", "thesis-256", "lenet-100", "wide-256")
    momentum: float = 0.0
    lr: float = 0.01
    rows: int = 60000
    threads: int = min(2, os.cpu_count() or 1)
    repeats: int = 15
    calls: int = 10
    pause: float = _common.PAUSE
    rivals: tuple[str, ...] = ("nnsparse", "dense", "numpy", "torch")
    sparsities: tuple[float, ...] = ()
    features_from: str = ""
    seed: int = 0


class WrongLossError(Exception):
    """A rival's loss is not that of the others."""


# ---------------------------------------------------------------- measuring


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Time the rivals' steps on every network, interleaved; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If no rival is installed, there are fewer cores than threads, fewer rows than a batch has,
        or momentum or lr is out of range.
    WrongLossError
        If rivals with the same weights have losses that differ by more than `MAX_DIFFERENCE`, or a
        loss is not finite.
    """
    rivals, skipped = _rivals.installed(settings.rivals, RIVALS)
    variants = {labelled(OURS, s): f"its sparse layers at {s:.4g}" for s in _sparsities(settings)}

    def work(bar: Any) -> dict[str, Any]:
        about = _rivals.described(rivals, skipped)
        results = [one_net(settings, name, rivals, bar) for name in settings.nets]
        return {**about, "notes": {**about["notes"], **variants}, "results": results}

    blocks = (len(rivals) + len(variants)) * settings.repeats * len(settings.nets)
    return _program.measured("training", settings, work, blocks=blocks, control_size=control_size)


def labelled(rival: str, sparsity: float) -> str:
    """Return the name of a rival at a sparsity of its own."""
    return f"{rival} {100 * sparsity:.4g} %"


def _sparsities(settings: Settings) -> tuple[float, ...]:
    """Return at which sparsities else nnsparse is timed: at none if it is no rival."""
    return settings.sparsities if OURS in settings.rivals else ()


def one_net(
    settings: Settings, name: str, rivals: Mapping[str, _rivals.Rival], bar: Any
) -> dict[str, Any]:
    """Time the rivals' steps on one network, interleaved; return its entry of the results."""
    net = NETS[name]
    bar.set_postfix_str(f"{name}: setting up")
    task = Task.random(
        net,
        settings.rows,
        lr=settings.lr,
        momentum=settings.momentum,
        seed=settings.seed,
        features_from=settings.features_from,
    )
    steps: dict[str, Step] = {label: rival.make(task) for label, rival in rivals.items()}
    losses = {rival: [step() for _ in range(CHECKED)] for rival, step in steps.items()}
    check(name, losses)
    for sparsity in _sparsities(settings):
        label = labelled(OURS, sparsity)
        model = net.at(sparsity).model([settings.seed, 0])
        steps[label] = rivals[OURS].make(replace(task, model=model))
        losses[label] = [steps[label]()]

    def progress(rival: str) -> None:
        bar.set_postfix_str(f"{name}: {rival}", refresh=False)
        bar.update()

    timed = [Timed(rival, {"step": step}) for rival, step in steps.items()]
    seconds = _common.interleave(
        timed, settings.repeats, calls=settings.calls, pause=settings.pause, progress=progress
    )
    rows = {rival: _common.summary(parts[TOTAL]) for rival, parts in seconds.items()}
    return {"net": name, **_described(net, task), "rivals": _compared(rows, losses, steps, name)}


def _described(net: Net, task: Task) -> dict[str, Any]:
    stored = sum(p.size for name, p in task.model.named_parameters() if name.endswith("weight"))
    dense = sum(n_in * n_out for n_in, n_out in pairwise(net.sizes))
    return {**asdict(net), "weights": stored, "dense_weights": dense}


def _compared(
    rows: Mapping[str, dict[str, float]],
    losses: Mapping[str, Sequence[float]],
    steps: Mapping[str, Step],
    net: str,
) -> dict[str, dict[str, Any]]:
    """Add to each rival's figures how many times faster than the baselines it is, and its losses."""
    found: dict[str, dict[str, Any]] = {}
    for rival, row in rows.items():
        last = steps[rival]()
        if not np.isfinite(last):
            raise WrongLossError(f"{net}: the loss of {rival} ended as {last}; lower --lr")
        speedup = {
            name: rows[name]["median_ms"] / row["median_ms"] for name in BASELINES if name in rows
        }
        found[rival] = {
            **row,
            "speedup": speedup,
            "first_loss": losses[rival][0],
            "last_loss": last,
        }
    return found


def check(net: str, losses: Mapping[str, Sequence[float]]) -> None:
    """Compare the first loss of all rivals, and the next ones of those that train the same weights.

    Raises
    ------
    WrongLossError
        If one differs from that of the first rival by more than `MAX_DIFFERENCE`.
    """
    groups = [
        {name: values for name, values in losses.items() if name in alike}
        for alike in (DENSE, SPARSE)
    ]
    for group, last in ((losses, 1), *((group, CHECKED) for group in groups)):
        compare(net, group, last)


def compare(net: str, losses: Mapping[str, Sequence[float]], last: int) -> None:
    """Compare the first `last` losses of rivals that should have the same.

    Raises
    ------
    WrongLossError
        If one differs from that of the first rival by more than `MAX_DIFFERENCE`.
    """
    names = list(losses)
    for name in names[1:]:
        for i in range(last):
            mine, other = losses[name][i], losses[names[0]][i]
            if not abs(mine - other) <= MAX_DIFFERENCE * abs(other):
                raise WrongLossError(
                    f"{net}: loss {i + 1} of {name} is {mine:.6g}, of {names[0]} "
                    f"{other:.6g}; the same weights should give the same loss"
                )


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    nets, rivals = _common.names(tuple(NETS), "net"), _common.names(tuple(RIVALS), "rival")
    p = argparse.ArgumentParser(prog="training", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--nets", type=nets, default=d.nets, metavar="A,B", help=", ".join(NETS))
    p.add_argument("--rivals", type=rivals, default=d.rivals, metavar="A,B", help=", ".join(RIVALS))
    p.add_argument(
        "--momentum", type=_common.fraction, default=d.momentum, help="default %(default)s"
    )
    p.add_argument("--lr", type=_common.fraction, default=d.lr, help="default %(default)s")
    p.add_argument(
        "--sparsities",
        type=_common.sparsities,
        default=d.sparsities,
        metavar="S,S",
        help="of the sparse layers, at which nnsparse is timed besides the net's own",
    )
    p.add_argument("--rows", type=size, default=d.rows, help="samples, default %(default)s")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--calls", type=size, default=d.calls, help="timed steps per round, default 10")
    p.add_argument(
        "--features-from",
        default=d.features_from,
        metavar="FILE",
        help="samples of examples/imdb.py --features N, for square-N",
    )
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    _program.add_outputs(p)
    return p


PART = _program.Part("training", measure, report, plot, (WrongLossError,))


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong loss of a rival."""
    pin = _program.of_threads if program else None
    return _program.run(PART, parser(), lambda given: Settings(**given), argv, pin)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
