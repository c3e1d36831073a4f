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
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from tqdm import tqdm

from benchmarks import _common, _machine, _program, _rivals
from benchmarks._common import TOTAL, Timed
from benchmarks._networks import DENSE, RIVALS, SPARSE, Step
from benchmarks._task import NETS, Net, Task
from benchmarks._training_report import plot, report

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
    present, skipped = _rivals.available(settings.rivals, RIVALS)
    if not present:
        raise ValueError("none of the rivals is installed: " + "; ".join(skipped))
    with _machine.limit_threads(settings.threads) as told:
        machine = _machine.describe(settings.threads, told)
        before = _machine.control(control_size)
        blocks = len(present) * settings.repeats * len(settings.nets)
        with tqdm(total=blocks, desc="training", unit="block", disable=None) as bar:
            results = [one_net(settings, name, present, bar) for name in settings.nets]
        after = _machine.control(control_size)
    return {
        "benchmark": "training",
        "machine": machine,
        "settings": asdict(settings),
        "control": {"before": before, "after": after},
        "notes": {name: RIVALS[name].note for name in present},
        "skipped": skipped,
        "results": results,
    }


def one_net(settings: Settings, name: str, rivals: Sequence[str], bar: Any) -> dict[str, Any]:
    """Time the rivals' steps on one network, interleaved; return its entry of the results."""
    net = NETS[name]
    bar.set_postfix_str(f"{name}: setting up")
    task = Task.random(
        net, settings.rows, lr=settings.lr, momentum=settings.momentum, seed=settings.seed
    )
    steps = {rival: RIVALS[rival].make(task) for rival in rivals}
    losses = {rival: [step() for _ in range(CHECKED)] for rival, step in steps.items()}
    check(name, losses)

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
        names = list(group)
        for name in names[1:]:
            for i in range(last):
                mine, other = group[name][i], group[names[0]][i]
                if not abs(mine - other) <= MAX_DIFFERENCE * abs(other):
                    raise WrongLossError(
                        f"{net}: loss {i + 1} of {name} is {mine:.6g}, of {names[0]} "
                        f"{other:.6g}; the same weights should give the same loss"
                    )


# ---------------------------------------------------------------- command line


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1; got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    nets, rivals = _common.names(tuple(NETS), "net"), _common.names(tuple(RIVALS), "rival")
    p = argparse.ArgumentParser(prog="training", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--nets", type=nets, default=d.nets, metavar="A,B", help=", ".join(NETS))
    p.add_argument("--rivals", type=rivals, default=d.rivals, metavar="A,B", help=", ".join(RIVALS))
    p.add_argument("--momentum", type=_fraction, default=d.momentum, help="default %(default)s")
    p.add_argument("--lr", type=_fraction, default=d.lr, help="default %(default)s")
    p.add_argument("--rows", type=size, default=d.rows, help="samples, default %(default)s")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--repeats", type=_common.at_least(3), default=d.repeats, help="rounds, >= 3")
    p.add_argument("--calls", type=size, default=d.calls, help="timed steps per round, default 10")
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
