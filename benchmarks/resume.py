"""Kills a training with SIGKILL at random moments, starts it again, and compares every bit with a run left alone.

    python -m benchmarks.resume --json benchmarks/results/resume.json

LeNet-300-100 on MNIST with RigL, a learning-rate schedule and a checkpoint every few steps. Each run is killed once:
the moments are spread over all its steps, and come so long after a step is announced that many fall into a save. Then
it is started again until it is done. At the end come a run whose disk is full and one whose folder cannot be written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import nnsparse as ns
from benchmarks import _common, _program
from benchmarks._resume_report import PARTS, good, plot, report
from nnsparse import datasets

CHILD = Path(__file__).with_name("_resume_child.py")


@dataclass(frozen=True)
class Settings:
    """What to do; the defaults are those of the command line."""

    kills: int = 50
    epochs: int = 3
    samples: int = 6400
    batch: int = 64
    sparsity: float = 0.9
    update_every: int = 20
    save_every: int = 3
    threads: int = 1
    seed: int = 0


class ResumeError(Exception):
    """A run could not be started, or did not go on from its checkpoint."""


class Run:
    """A process that trains.

    Parameters
    ----------
    folder : path
        With the data.
    settings : mapping
    path : path, optional
        Of the checkpoint.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], path: Path | None = None) -> None:
        command = [sys.executable, str(CHILD), str(folder), json.dumps(settings)]
        if path is not None:
            command.append(str(path))
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(CHILD.parents[1])},
        )

    def kill_after(self, step: int, delay: float) -> int | None:
        """Kill it so long after a step is done; return its last step, None if it had come to its end."""
        assert self._process.stdout is not None
        last = 0
        for line in self._process.stdout:
            last = int(line) if line.strip().isdecimal() else last
            if last >= step:
                break
        time.sleep(delay)
        self._process.kill()
        rest, _ = self._process.communicate()
        steps = [int(word) for word in rest.split("\n")[:-1] if word.isdecimal()]
        return max([last, *steps]) if self._process.returncode == -signal.SIGKILL else None

    def end(self) -> dict[str, Any]:
        """Wait for its end; return what it says, "failed" if it could not save."""
        out, error = self._process.communicate()
        if self._process.returncode == 3:
            return {"failed": error.strip().splitlines()[-1]}
        if self._process.returncode:
            raise ResumeError(f"a run ended with {self._process.returncode}:\n{error.strip()}")
        said: dict[str, Any] = json.loads(out.splitlines()[-1])
        lines = out.split()
        return {**said, "first": int(lines[1]) - 1 if lines[1].isdecimal() else said["steps"]}


def digests(path: Path) -> dict[str, str]:
    """Return a digest of each part of a checkpoint, all bits but those of times."""
    state = ns.load(path)._state
    topology, weights = {}, {}
    for name, array in state["model"]["state"].items():
        (topology if name.endswith(("indptr", "indices")) else weights)[name] = array
    history = {k: v for k, v in state["history"].items() if "seconds" not in k}
    sparsifier = {k: v for k, v in state["updates"][0]["state"].items() if k != "history.seconds"}
    rest = {
        "model": {k: v for k, v in state["model"].items() if k != "state"},
        "schedule": state["updates"][1],
        "loader": state["loader"],
        "run": state["run"],
    }
    parts = weights, topology, state["optimizer"], sparsifier, history, rest
    return dict(zip(PARTS, (_digest(part) for part in parts), strict=True))


def _digest(value: Any) -> str:
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Mapping):
            for key in part:
                add(key)
                add(part[key])
        elif isinstance(part, list | tuple):
            for item in part:
                add(item)
        elif isinstance(part, np.ndarray):
            found.update(f"{part.dtype.str} {part.shape} ".encode() + part.tobytes())
        else:
            found.update(f"{part!r};".encode())

    add(value)
    return found.hexdigest()


def trial(
    folder: Path, s: Settings, index: int, whole: Mapping[str, Any], wanted: Mapping[str, str]
) -> dict[str, Any]:
    """Kill a run at its own random moment, start it again, and compare with the `whole` one.

    The moment is a step, and a delay of up to twice the time from one save to the next.
    """
    rng = np.random.default_rng([s.seed, index])
    path = folder / f"run-{index}"
    step = max(1, int((index + rng.random()) / s.kills * whole["steps"]))
    delay = 2 * s.save_every * whole["seconds"] / whole["steps"] * float(rng.random())
    tries = 0
    while (last := Run(folder, asdict(s), path).kill_after(step, delay)) is None:
        path.unlink(missing_ok=True)  # it was done before
        tries, step = tries + 1, max(1, step - s.save_every)
        if tries > 10:
            raise ResumeError("a run could not be killed ten times: it is too short")
    left = len(list(folder.glob(f".run-{index}.*")))
    before = ns.load(path)._state["run"] if path.exists() else None
    said = Run(folder, asdict(s), path).end()
    found = digests(path)
    leftovers = len(list(folder.glob(f".run-{index}.*")))
    path.unlink()
    return {
        "step": last,
        "delay": delay,
        "in_save": left > 0,
        "had_checkpoint": before is not None,
        "resumed_at": said["first"],
        "seconds": said["seconds"],
        "same": {part: found[part] == wanted[part] for part in PARTS},
        "leftovers": leftovers,
    }


def failing(folder: Path, s: Settings, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Fill the disk, and take the permission to write, in the middle of a run; then let it go on."""
    rows = []
    for name in ("disk full", "folder not writable"):
        place = folder / name.replace(" ", "-")
        place.mkdir()
        path = place / "run"
        Run(folder, asdict(s), path).kill_after(10, 0.05)
        before, files = path.read_bytes(), set(place.iterdir())
        settings = asdict(s)
        if name == "disk full":
            settings["limit"] = len(before) // 2
        else:
            settings["user"] = 65534
            place.chmod(0o555)
        said = Run(folder, settings, path).end()
        place.chmod(0o755)
        intact = path.read_bytes() == before and set(place.iterdir()) <= files
        Run(folder, asdict(s), path).end()
        same = digests(path) == wanted
        rows.append({"name": name, "message": said.get("failed"), "intact": intact, "same": same})
    return rows


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Kill all runs; return what `report` and `plot` take.

    Raises
    ------
    ValueError
        If there are fewer cores than threads, or no SIGKILL.
    ResumeError
        If a run fails.
    """
    s = settings
    if os.name == "nt":
        raise ValueError("resume needs SIGKILL, which Windows has not")

    def work(bar: Any) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="nnsparse-resume-") as name:
            folder = Path(name)
            try:
                (x, y), _ = datasets.mnist(download=False)
                data = "MNIST"
            except FileNotFoundError:
                (x, y), _ = datasets.digits(s.samples, 1)
                data = "drawn digits"
            np.save(folder / "x.npy", x[: s.samples])
            np.save(folder / "y.npy", y[: s.samples])
            alone = Run(folder, asdict(s)).end()
            whole = Run(folder, asdict(s), folder / "whole").end()
            if alone["weights"] != whole["weights"] or alone["loss"] != whole["loss"]:
                raise ResumeError("saving changed the run")
            wanted, size = digests(folder / "whole"), (folder / "whole").stat().st_size
            bar.update()
            trials = []
            for index in range(s.kills):
                trials.append(trial(folder, s, index, whole, wanted))
                bar.update()
                bar.set_postfix_str(f"{sum(map(good, trials))} of {len(trials)}")
            failures = failing(folder, s, wanted)
        seconds = {"alone": alone["seconds"], "saving": whole["seconds"]}
        counts = {"steps": whole["steps"], "updates": whole["updates"], "bytes": size}
        return {
            "data": data,
            **counts,
            "seconds_of": seconds,
            "trials": trials,
            "failures": failures,
        }

    return _program.measured(
        "resume", s, work, blocks=s.kills + 1, unit="run", control_size=control_size
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d, size = Settings(), _common.at_least(1)
    p = argparse.ArgumentParser(prog="resume", description=(__doc__ or "").split("\n")[0])
    for name in ("kills", "epochs", "samples", "batch", "update_every", "save_every", "threads"):
        option = "--" + name.replace("_", "-")
        p.add_argument(option, type=size, default=getattr(d, name), help="default %(default)s")
    p.add_argument("--sparsity", type=_common.sparsity, default=d.sparsity)
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed)
    _program.add_outputs(p)
    return p


PART = _program.Part("resume", measure, report, plot, (ResumeError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a run that failed."""
    return _program.run(PART, parser(), lambda given: Settings(**given), argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
