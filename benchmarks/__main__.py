"""Runs the benchmarks and puts what they found together in one report.

    python -m benchmarks --quick                 # all parts, small, three minutes on two cores
    python -m benchmarks --only kernels,thesis   # some parts, whole
    python -m benchmarks --list

Writes RESULTS/NAME.json, NAME.png (with matplotlib) and REPORT.md, which is made from all the
results in the folder, those of earlier runs too. What the parts measure is in `_suite`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import _common, _machine, _program
from benchmarks._suite import PARTS, Job, jobs, known_rivals
from benchmarks._suite_report import joined, load

RESULTS = Path(__file__).with_name("results")
REPORT = "REPORT.md"


def folder(text: str) -> Path:
    """Parse a folder that can be written, made if it is missing; an argparse type."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"cannot write results into {text!r}: {error.strerror or error}"
        ) from None
    return path


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    only = _common.names(tuple(PARTS), "benchmark")
    default = tuple(name for name, entry in PARTS.items() if entry.always)
    rivals = _common.names(known_rivals(), "rival")
    threads = min(2, os.cpu_count() or 1)
    p = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0]
    )
    p.add_argument("--quick", action="store_true", help="small: three minutes on two cores")
    p.add_argument(
        "--only", type=only, default=default, metavar="A,B", help=f"of {', '.join(PARTS)}"
    )
    p.add_argument("--list", action="store_true", help="say what there is, run nothing")
    p.add_argument(
        "--threads", type=_common.at_least(1), default=threads, help="default %(default)s"
    )
    p.add_argument("--repeats", type=_common.at_least(3), help="rounds of every part that has some")
    p.add_argument("--rivals", type=rivals, metavar="A,B", help=f"of {', '.join(known_rivals())}")
    # Checked behind --list, which must not make a folder.
    p.add_argument("--results", default=str(RESULTS), metavar="DIR", help="default %(default)s")
    return p


def listing() -> str:
    """Return the parts, what each shows and where its results go."""
    rows = [
        [name, entry.what, ", ".join(f"{stem}.json" for stem in entry.full)]
        for name, entry in PARTS.items()
    ]
    width = max(len(name) for name in PARTS)
    return "\n".join(
        f"{name:{width}}  {what}\n{'':{width}}  -> {files}" for name, what, files in rows
    )


def main(argv: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 if a part failed."""
    p = parser()
    args = p.parse_args(argv)
    if args.list:
        print(listing())
        return 0
    try:
        results = folder(args.results)
        with _machine.limit_threads(args.threads):
            pass
        found, left_out = jobs(args.only, args.quick, args.threads, args.repeats, args.rivals)
    except (argparse.ArgumentTypeError, ValueError) as error:
        p.error(str(error))
    if not found:
        p.error("nothing to run: " + "; ".join(left_out))
    if program:
        _machine.pin(args.threads)
    failed = run(found, left_out, results)
    return 1 if failed else 0


def run(found: Mapping[str, Job], left_out: Sequence[str], results: Path) -> list[str]:
    """Run the jobs one after the other, write their files and the report; return what failed."""
    failed = []
    for line in left_out:
        _say(line)
    if not _program.can_plot():
        _say("no plots: matplotlib is not installed; to have it: pip install 'nnsparse[plot]'")
    with tqdm(total=len(found), desc="benchmarks", unit="part", disable=None) as bar:
        for stem, job in found.items():
            bar.set_postfix_str(stem)
            try:
                _one(stem, job, results)
            except (*job.part.failures, ValueError) as error:
                failed.append(stem)
                _say(f"{stem} failed: {error}")
            bar.update()
    text, unread = joined(load(results))
    for line in unread:
        _say(line)
    (results / REPORT).write_text(text, encoding="utf-8")
    _say(f"report: {results / REPORT}")
    return failed


def _one(stem: str, job: Job, results: Path) -> None:
    start = time.perf_counter()
    result: dict[str, Any] = dict(job.part.measure(job.settings))
    result["seconds"] = round(time.perf_counter() - start, 1)
    result["quick"] = job.quick
    for line in result.get("skipped", ()):
        _say(f"{stem}: {line}")
    tqdm.write(job.part.report(result))
    _common.write_json(results / f"{stem}.json", result)
    picture = results / f"{stem}.png"
    reason = job.part.no_plot(job.settings)
    if reason or job.part.plot is None or not _program.can_plot():
        picture.unlink(missing_ok=True)  # an older one would show other figures
        if reason:
            _say(f"{stem}: no plot, which {reason}")
    else:
        job.part.plot(result, picture)


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(program=True))
    sys.exit(130)
