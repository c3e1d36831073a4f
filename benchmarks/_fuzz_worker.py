"""Reads mutated files in a process of its own, so that a crash, a hang or a blow-up is noticed from outside.

    python -m benchmarks._fuzz_worker TARGET SEED FIRST END STEP SECONDS SKIPPED FOLDER

Writes FOLDER/case before each file (its number), and FOLDER/result.json, the tally so far, now and then. SKIPPED are
numbers with commas between. File number i is a function of
target, seed and i only: `content` makes it again.
"""

from __future__ import annotations

import faulthandler
import json
import re
import sys
import time
import traceback
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._fuzz_targets import TARGETS, Target

MEMORY = 64 << 20  # bytes that reading may take beyond what was there, besides ROOM times the file
ROOM = 64
SAVED = 200  # files between two states on disk
ADDRESS_SPACE = 4 << 30  # bytes that a worker may map beyond what it has when it begins


def content(name: str, seed: int, case: int) -> tuple[str, bytes]:
    """Return suffix and content of a mutated file."""
    target = TARGETS[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), case])
    seeds = target.seeds()
    suffix, good = seeds[int(rng.integers(len(seeds)))]
    return suffix, target.mutate(suffix, good, rng)


@dataclass
class Tally:
    """What came of the files so far."""

    files: int = 0
    accepted: int = 0
    remade: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest_ms: float = 0.0
    slowest_case: int = -1
    peak_bytes: int = 0
    peak_case: int = -1

    def note(self, case: int, outcome: str, seconds: float, peak: int, size: int) -> None:
        """Count a file; `outcome` is "" for accepted, "remade", a reason, or "!" and what went wrong."""
        self.files += 1
        if peak > MEMORY + ROOM * size:
            outcome = f"!{peak} bytes of memory for a file of {size}"
        if outcome.startswith("!"):
            self.failures.append({"case": case, "what": outcome[1:]})
        elif outcome in ("", "remade"):
            self.accepted += not outcome
            self.remade += bool(outcome)
        else:
            self.refused[outcome] += 1
        if 1e3 * seconds > self.slowest_ms:
            self.slowest_ms, self.slowest_case = 1e3 * seconds, case
        if peak > self.peak_bytes:
            self.peak_bytes, self.peak_case = peak, case

    def result(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**vars(self), "refused": dict(self.refused)}


def read_once(target: Target, path: Path) -> str:
    """Read a file; return "", "remade", the reason why it is refused, or "!" and what went wrong."""
    try:
        return "" if target.read(path) else "remade"
    except (ValueError, OSError) as error:
        text = str(error)
        if type(error).__module__.startswith("zipfile") or str(path) not in text:
            return f"!{type(error).__name__} that does not name the file: {text[:200]}"
        return reason(text, path)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"!{type(error).__name__}: {str(error)[:200]}"


def reason(text: str, path: Path) -> str:
    """Return a message without what differs from file to file."""
    text = re.sub(rf"{re.escape(str(path))},? ?(line \d+: )?", "", text)
    text = re.sub(r"(is not a whole \.?gz(?:ip)? file).*", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"(?<!\w)b?'(?:[^'\\]|\\.)*'?|(?<!\w)b?\"[^\"]*\"?", "'…'", text)
    text = re.sub(r"-?\d[\d.]*(?:e[+-]?\d+)?", "#", text)
    text = re.sub(r"\((?:#,? ?)+\)", "(#)", text)
    return re.split(r"; got |; expected |\. |: truncated", text)[0][:90].strip()


def run(
    name: str, seed: int, cases: Sequence[int], seconds: float, folder: Path
) -> Iterator[tuple[int, Tally]]:
    """Read the mutated files with these numbers, each in `seconds` at most, or the process ends; yield the tally."""
    target, tally = TARGETS[name], Tally()
    for suffix, good in target.seeds():  # compiles, loads, and checks that good files are good
        path = target.place(folder, suffix)
        path.write_bytes(good)
        if not target.read(path):
            raise ValueError(f"{name}: a good file is refused")
        path.unlink()
    # Once, not for each file: before 3.13.2 Python may crash if another thread, here the one that watches the time,
    # frees memory while tracing begins or ends (python/cpython#128679).
    tracemalloc.start()
    try:
        with (folder / "case").open("w+b", buffering=0) as progress:
            for case in cases:
                suffix, mutated = content(name, seed, case)
                path = target.place(folder, suffix)
                path.write_bytes(mutated)
                progress.seek(0)
                progress.write(b"%-20d" % case)
                faulthandler.dump_traceback_later(seconds, exit=True)
                tracemalloc.clear_traces()
                start = time.process_time()
                outcome = read_once(target, path)
                taken = time.process_time() - start
                peak = tracemalloc.get_traced_memory()[1]
                faulthandler.cancel_dump_traceback_later()
                path.unlink()
                tally.note(case, outcome, taken, peak, len(mutated))
                yield case, tally
    finally:
        tracemalloc.stop()


def _limit_memory() -> None:
    """Let this process map so much more memory and no more: an absurd size is an error, not the machine's end."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    most = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main(argv: list[str]) -> int:
    """Run one worker; exit code 3 if it is not worth starting again."""
    name, seed, first, end, step, seconds, skipped, folder = argv
    warnings.simplefilter("error")
    _limit_memory()
    skip = {int(case) for case in skipped.split(",") if case}
    cases = [case for case in range(int(first), int(end), int(step)) if case not in skip]
    saved = Path(folder) / "result.json"
    try:
        for case, tally in run(name, int(seed), cases, float(seconds), Path(folder)):
            if case == cases[-1] or tally.files % SAVED == 0:
                text = json.dumps({"next": case + int(step), **tally.result()})
                saved.with_suffix(".part").write_text(text)
                saved.with_suffix(".part").replace(saved)
    except Exception:
        traceback.print_exc()
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
