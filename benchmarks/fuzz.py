"""Feeds every reader of files with mutated ones: none may crash, hang, blow up, or fail with an error that is not ours.

    nice python -m benchmarks.fuzz --json benchmarks/results/fuzz.json

Files are mutated with their formats in mind and their checksums put right (`_fuzz_targets`), each a function of the
seed and its number. They are read in worker processes under a limit of time and memory (`_fuzz_worker`). A file is
accepted, and then used; refused with a ValueError or OSError that names it; or, in a cache, made anew. Anything else is
a failure; `--keep FOLDER` keeps such files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import _common, _machine, _program
from benchmarks._common import number, table
from benchmarks._fuzz_targets import TARGETS
from benchmarks._fuzz_worker import MEMORY, ROOM, content

REASONS = 8  # of refusals that the report names, for each reader
_WORKER = ("-m", "benchmarks._fuzz_worker")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings:
    """What to read; the defaults are those of the command line."""

    targets: tuple[str, ...] = tuple(TARGETS)
    files: int = 100_000
    workers: int = 2
    seconds: float = 30.0
    seed: int = 0
    keep: str = ""
    threads: int = 1


class WorkerError(Exception):
    """A worker cannot begin: a good file is refused, or a mutation itself fails."""


# ---------------------------------------------------------------- measuring


@dataclass
class _Worker:
    """One process at a time, started again behind the file that ended it."""

    name: str
    settings: Settings
    first: int
    folder: Path
    skipped: list[int] = field(default_factory=list)
    tallies: list[dict[str, Any]] = field(default_factory=list)
    process: Any = None

    def start(self) -> None:
        s = self.settings
        command = [sys.executable, *_WORKER, self.name, s.seed, self.first]
        command += [s.files, s.workers, s.seconds, ",".join(map(str, self.skipped)), self.folder]  # type: ignore[list-item]
        with (self.folder / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=_ROOT, stderr=errors
            )

    def done(self) -> bool:
        """Look after the process; return whether all files have been read."""
        code = self.process.poll()
        if code is None:
            return False
        errors = (self.folder / "stderr").read_text(errors="replace")[-2000:]
        if code == 3 or (code and not (self.folder / "case").exists()):
            raise WorkerError(f"{self.name}: {errors}")
        if tally := self.tally():
            (self.folder / "result.json").unlink()
            self.first = tally.pop("next")
            self.tallies.append(tally)
        if code:  # it crashed, or a file took too long
            case = int((self.folder / "case").read_text())
            self.skipped.append(case)
            what = f"the process ended with code {code}: {errors[-400:]}"
            self.tallies.append({"files": 1, "failures": [{"case": case, "what": what}]})
            self.start()
            return False
        return True

    def tally(self) -> dict[str, Any]:
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
            return found
        return {}

    def files(self) -> int:
        return sum(tally["files"] for tally in [*self.tallies, {"files": 0, **self.tally()}])


def measure(settings: Settings, control_size: int = 1024) -> dict[str, Any]:
    """Read the mutated files of all targets; return what `report` and `plot` take.

    Raises
    ------
    WorkerError
        If a good file is refused, or a mutation fails.
    """

    def work(bar: Any) -> dict[str, Any]:
        return {"results": [_target(name, settings, bar) for name in settings.targets]}

    total = len(settings.targets) * settings.files
    return _program.measured(
        "fuzz", settings, work, blocks=total, unit="file", control_size=control_size
    )


def _target(name: str, settings: Settings, bar: Any) -> dict[str, Any]:
    bar.set_postfix_str(name)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="nnsparse-fuzz-") as home:
        workers = []
        for first in range(min(settings.workers, settings.files)):
            folder = Path(home) / str(first)
            folder.mkdir()
            workers.append(_Worker(name, settings, first, folder))
        try:
            for worker in workers:
                worker.start()
            read = 0
            while sum(worker.done() for worker in workers) < len(workers):
                time.sleep(0.2)
                now = sum(worker.files() for worker in workers)
                bar.update(now - read)
                read = now
            bar.update(sum(worker.files() for worker in workers) - read)
        finally:
            for worker in workers:
                if worker.process is not None and worker.process.poll() is None:
                    worker.process.kill()
                    worker.process.wait()
    found = joined([tally for worker in workers for tally in worker.tallies])
    _keep(name, settings, found["failures"])
    return {"target": name, "seconds": time.perf_counter() - start, **found}


def joined(tallies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several workers' tallies as one."""
    refused: Counter[str] = Counter()
    for tally in tallies:
        refused.update(tally.get("refused", {}))
    found: dict[str, Any] = {
        key: sum(tally.get(key, 0) for tally in tallies) for key in ("files", "accepted", "remade")
    }
    found["refused"] = dict(refused.most_common())
    found["failures"] = [failure for tally in tallies for failure in tally.get("failures", ())]
    for most, case in (("slowest_ms", "slowest_case"), ("peak_bytes", "peak_case")):
        top = max(tallies, key=lambda tally: tally.get(most, 0))
        found[most], found[case] = top.get(most, 0), top.get(case, -1)
    return found


def _keep(name: str, settings: Settings, failures: Sequence[Mapping[str, Any]]) -> None:
    """Write the files of failures where the user wants them."""
    if settings.keep:
        folder = Path(settings.keep)
        folder.mkdir(parents=True, exist_ok=True)
        for failure in failures:
            suffix, mutated = content(name, settings.seed, failure["case"])
            (folder / f"{name}-{failure['case']}{suffix}").write_bytes(mutated)


# ---------------------------------------------------------------- printing


def report(result: Mapping[str, Any]) -> str:
    """Return the tables, the machine and what the columns mean, as Markdown."""
    s = result["settings"]
    control = _machine.control_sentence(result["control"]["before"], result["control"]["after"])
    rows, reasons, failures = [], [], []
    for entry in result["results"]:
        refused = sum(entry["refused"].values())
        rows.append(
            [
                TARGETS[entry["target"]].what,
                *(f"{entry[key]:,}" for key in ("files", "accepted")),
                *(f"{n:,}" for n in (refused, entry["remade"], len(entry["failures"]))),
                number(entry["slowest_ms"]),
                number(entry["peak_bytes"] / 2**20),
            ]
        )
        named = list(entry["refused"].items())[:REASONS]
        if rest := len(entry["refused"]) - len(named):
            named.append((f"{rest} others", refused - sum(n for _, n in named)))
        reasons += [[entry["target"], why.replace("|", "/"), f"{n:,}"] for why, n in named]
        failures += [
            f"- {entry['target']} {f['case']}: {f['what']}" for f in entry["failures"][:20]
        ]
    header = ["reader", "files", "accepted", "refused", "made anew", "failures", "slowest, CPU ms"]
    blocks = [
        "# Mutated files",
        _machine.sentence(result["machine"]) + f"\n{control}",
        table([*header, "largest peak, MiB"], rows),
        f"Seed {s['seed']}. A failure is a crash of the interpreter, more than {s['seconds']:g} s, more than "
        f"{MEMORY >> 20} MiB and {ROOM} times the file of memory, a warning, any other exception than a ValueError or "
        "OSError that names the file, or an accepted file that does not keep what the reader promises. Accepted files "
        "are used: a compiled model predicts. Damaged caches are made anew without an error. Python's allocations are "
        "traced, so times are longer than without.",
        *failures,
        "Why files were refused, the most frequent reasons:",
        table(["reader", "reason", "files"], reasons),
    ]
    return "\n\n".join(blocks) + "\n"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw what came of each reader's files."""
    from matplotlib.figure import Figure

    entries = result["results"]
    figure = Figure(figsize=(8, 1.4 + 0.45 * len(entries)), layout="constrained")
    axes = figure.add_subplot()
    labels = [TARGETS[entry["target"]].what for entry in entries]
    left = [0.0] * len(entries)
    kinds = {
        "accepted": [entry["accepted"] for entry in entries],
        "refused with a message": [sum(entry["refused"].values()) for entry in entries],
        "made anew": [entry["remade"] for entry in entries],
        "failures": [len(entry["failures"]) for entry in entries],
    }
    for kind, counts in kinds.items():
        width = [100 * n / entry["files"] for n, entry in zip(counts, entries, strict=True)]
        axes.barh(labels, width, left=left, label=f"{kind}: {sum(counts):,}")
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    total = sum(entry["files"] for entry in entries)
    axes.set(xlabel="% of files", xlim=(0, 100), title=f"{total:,} mutated files")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=150)


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    known = _common.names(tuple(TARGETS), "reader")
    p = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--targets", type=known, default=d.targets, metavar="A,B")
    p.add_argument("--files", type=size, default=d.files, help="for each reader, default 100 000")
    p.add_argument("--workers", type=size, default=d.workers, help="processes, default 2")
    p.add_argument("--seconds", type=float, default=d.seconds, help="a file may take, default 30")
    p.add_argument("--seed", type=_common.at_least(0), default=d.seed, help="default 0")
    p.add_argument("--keep", default=d.keep, metavar="FOLDER", help="put files of failures there")
    p.add_argument("--threads", type=size, default=d.threads, help="of kernels, default 1")
    _program.add_outputs(p)
    return p


PART = _program.Part("fuzz", measure, report, plot, (WorkerError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a worker that cannot begin."""
    return _program.run(PART, parser(), lambda given: Settings(**given), argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
