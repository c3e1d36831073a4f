"""Times a sparse layer's step as compiled for narrower SIMD registers, in processes that take turns.

    python -m benchmarks.registers --n 1024 --sparsity 0.5 0.8 0.9 0.95 0.99

Each process compiles for one instruction set (`NUMBA_CPU_NAME`, `NUMBA_CPU_FEATURES`), checks its
results against float64 and reports the best time of each product; the processes alternate, so that
whatever drifts on the machine hits all of them alike. It asks how much of the speed is left on a
CPU with AVX2 only, and whether the code is right on any x86-64.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from benchmarks import _common, _machine, _rivals
from benchmarks._common import table
from benchmarks._layer import SECTIONS, Problem

ROOT = Path(__file__).resolve().parents[1]
MAX_ERROR = 1e-5  # relative, 2-norm
HOST = "host"


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    n: int = 1024
    batch: int = 256
    sparsity: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 0.99)
    threads: int = 1
    rounds: int = 3
    calls: int = 30


class ChildError(Exception):
    """A measured process failed or computed something wrong."""


def instruction_sets() -> dict[str, dict[str, str]]:
    """Return the environment variables that make Numba compile for each instruction set.

    The name of a CPU alone changes nothing while the features are those of the host.
    """
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    kept = [name for name, on in features.items() if on and "avx512" not in name]
    avx2 = ",".join([f"+{name}" for name in kept if not name.startswith("avx10")])
    return {
        HOST: {},
        "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": avx2},
        "generic": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    }


def one(settings: Settings) -> dict[str, Any]:
    """Time this process' own code; return vector bits and, per sparsity, best seconds by section."""
    from nnsparse import jit

    found: dict[str, Any] = {"bits": jit.vector_bits(), "rows": []}
    with _machine.limit_threads(settings.threads):
        for sparsity in settings.sparsity:
            p = Problem.random(settings.n, settings.n, settings.batch, sparsity, 0)
            step = _rivals.sparse_tiles(p)
            error = max(step.errors(p.reference()).values())
            best = dict.fromkeys(SECTIONS, float("inf"))
            for _ in range(settings.calls):
                for name, call in step.sections.items():
                    start = time.perf_counter()
                    call()
                    best[name] = min(best[name], time.perf_counter() - start)
            found["rows"].append(
                {"error": error, "flops": 2 * p.topology.nnz * p.x.shape[1], **best}
            )
    return found


def measure(settings: Settings, sets: Sequence[str]) -> dict[str, Any]:
    """Let the processes take turns; return the best seconds of each.

    Raises
    ------
    ChildError
        If a process fails or its error exceeds `MAX_ERROR`.
    """
    environments = instruction_sets()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sets}
    with _machine.limit_threads(settings.threads) as told:
        machine = _machine.describe(settings.threads, told)
    with tqdm(total=settings.rounds * len(sets), desc="registers", disable=None) as bar:
        for _ in range(settings.rounds):
            for name in sets:
                bar.set_postfix_str(name)
                runs[name].append(_child(settings, environments[name]))
                bar.update()
    return {
        "benchmark": "registers",
        "machine": machine,
        "settings": asdict(settings),
        "results": {name: _best(name, found) for name, found in runs.items()},
    }


def _child(settings: Settings, environment: Mapping[str, str]) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.registers",
        "--child",
        json.dumps(asdict(settings)),
    ]
    run = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    if run.returncode:
        raise ChildError(f"{' '.join(command)} failed:\n{run.stderr.strip()}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _best(name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for same in zip(*(run["rows"] for run in runs), strict=True):
        error = max(row["error"] for row in same)
        if not error <= MAX_ERROR:
            raise ChildError(f"{name}: relative error {error:.1e}, expected {MAX_ERROR} at most")
        best = {section: min(row[section] for row in same) for section in SECTIONS}
        rows.append({"error": error, "flops": same[0]["flops"], **best})
    return {"bits": runs[0]["bits"], "rows": rows}


def report(result: Mapping[str, Any]) -> str:
    """Return a table of GFLOP/s and shares of the host's rates."""
    s, results = result["settings"], result["results"]
    first = next(iter(results))
    rows = []
    for name, found in results.items():
        for i, sparsity in enumerate(s["sparsity"]):
            row, base = found["rows"][i], results[first]["rows"][i]
            rates = [row["flops"] / row[section] / 1e9 for section in SECTIONS]
            total = sum(base[section] for section in SECTIONS) / sum(row[x] for x in SECTIONS)
            shares = [base[section] / row[section] for section in SECTIONS]
            cells = [f"{rate:.0f} ({share:.0%})" for rate, share in zip(rates, shares, strict=True)]
            rows.append([f"{name} ({found['bits']} bits)", f"{sparsity:g}", *cells, f"{total:.0%}"])
    header = ["GFLOP/s (share of the first)", "sparsity", *SECTIONS, "whole step"]
    note = (
        f"Best of {s['rounds']} processes × {s['calls']} calls each, taking turns; {s['n']}×{s['n']}, "
        f"batch {s['batch']}, float32, {s['threads']} threads. Results agree with float64."
    )
    blocks = [
        "# Narrower registers",
        _machine.sentence(result["machine"]),
        table(header, rows),
        note,
    ]
    return "\n\n".join(blocks) + "\n"


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    known = _common.names(tuple(instruction_sets()), "instruction set")
    p = argparse.ArgumentParser(prog="registers", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--sets", type=known, default=tuple(instruction_sets()), metavar="A,B")
    p.add_argument("--n", type=size, default=d.n, help="inputs and outputs, default %(default)s")
    p.add_argument("--batch", type=size, default=d.batch, help="default %(default)s")
    p.add_argument("--sparsity", type=_common.sparsity, nargs="+", default=d.sparsity)
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--rounds", type=size, default=d.rounds, help="processes of each, default 3")
    p.add_argument("--calls", type=size, default=d.calls, help="per process, default 30")
    p.add_argument("--json", type=_common.output_file, metavar="PATH", help="write the result")
    p.add_argument("--child", help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a process that failed."""
    p = parser()
    given = vars(p.parse_args(argv))
    json_path, sets, child = given.pop("json"), given.pop("sets"), given.pop("child")
    if child:
        print(json.dumps(one(Settings(**json.loads(child)))))
        return 0
    given["sparsity"] = tuple(given["sparsity"])
    try:
        result = measure(Settings(**given), sets)
    except ChildError as error:
        print(f"registers: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        p.error(str(error))
    print(report(result))
    if json_path:
        _common.write_json(json_path, result)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
