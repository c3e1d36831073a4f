"""What a benchmark ran on: processor, versions, threads, and control figures of the machine itself.

The control (a BLAS product, a memory copy) tells a slow machine from slow code: it is measured
before and after every benchmark and printed beside the results.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks._common import PAUSE, number
from nnsparse import jit
from nnsparse.kernels.layout import gather_rows

_BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
DRIFT = 0.15  # of a control; more tells of other work on the machine
OTHERS = 0.05  # of all cores' time used by others; more and medians mean little


# ---------------------------------------------------------------- threads


def pin(threads: int) -> None:
    """Start this program anew with NumPy's BLAS told its number of threads, unless it has been.

    BLAS reads the environment once, when NumPy is imported, and that is before any argument has
    been parsed. Only for programs, and where exec exists: elsewhere `limit_threads` must do.
    """
    wanted = dict.fromkeys(_BLAS_VARIABLES, str(threads))
    told = all(os.environ.get(name) == value for name, value in wanted.items())
    if os.name == "posix" and not told:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **wanted})


@contextmanager
def limit_threads(threads: int) -> Iterator[str]:
    """Give our kernels, NumPy's BLAS and torch (once imported) this many threads each.

    Yields
    ------
    str
        How BLAS was told: "threadpoolctl", "environment", or "not told".

    Raises
    ------
    ValueError
        If there are fewer cores than `threads`.
    """
    before = jit.get_num_threads()
    jit.set_num_threads(threads)
    told = os.environ.get("OPENBLAS_NUM_THREADS") == str(threads)
    how = "environment" if told else "not told"
    torch: Any = sys.modules.get("torch")
    before_torch = torch.get_num_threads() if torch else 0
    with ExitStack() as stack:
        if find_spec("threadpoolctl"):
            pools = import_module("threadpoolctl")
            stack.enter_context(pools.threadpool_limits(threads, user_api="blas"))
            how = "threadpoolctl"
        if torch:
            torch.set_num_threads(threads)
        try:
            yield how
        finally:
            jit.set_num_threads(before)
            if torch:
                torch.set_num_threads(before_torch)


# ---------------------------------------------------------------- description


def describe(threads: int, blas_told: str) -> dict[str, Any]:
    """Return the machine, the versions and the threads, ready for JSON."""
    one = np.zeros(1, np.float32)
    gather_rows(
        one[:, None], np.zeros(1, np.int64), np.empty((1, 1, 16), one.dtype)
    )  # starts the threads, so that their layer shows
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "caches": _caches(),
        "simd_bits": jit.vector_bits(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
        "blas": _blas(),
        "threads": threads,
        "blas_threads_set_by": blas_told,
        "threading_layer": numba.threading_layer(),
        "load_before": load,
        "commit": _commit(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    """Return {"L1": "32K", …} of the first core, data caches only; empty where Linux is not."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with suppress(OSError):
            if (index / "type").read_text().strip() != "Instruction":
                level = (index / "level").read_text().strip()
                found[f"L{level}"] = (index / "size").read_text().strip()
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in ("nnsparse", "numpy", "scipy", "numba", "llvmlite", "torch"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _blas() -> str:
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    name = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    if find_spec("threadpoolctl"):
        info = import_module("threadpoolctl").threadpool_info()
        pools = [pool for pool in info if pool["user_api"] == "blas"]
        pools.sort(key=lambda pool: "numpy" not in pool["filepath"])
        if pools:
            pool = pools[0]
            name += f" ({pool.get('architecture', '?')} kernels, {pool['num_threads']} threads)"
    return name


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with suppress(OSError):
        run = subprocess.run(git, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return run.stdout.strip()
    return "unknown"


def sentence(machine: Mapping[str, Any]) -> str:
    """Return the description in a few lines of Markdown."""
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load_before"]
    busy = "" if load is None else f", load {load:.1f}"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {caches or 'caches unknown'}, "
        f"{machine['simd_bits']}-bit SIMD; {machine['threads']} threads "
        f"(Numba layer {machine['threading_layer']}; BLAS by {machine['blas_threads_set_by']})"
        f"{busy}\n{versions}; BLAS {machine['blas']}; Python {machine['python']}; "
        f"commit {machine['commit']}; {machine['time']}"
    )


# ---------------------------------------------------------------- control


def control(size: int = 1024, copy_mib: int = 128) -> dict[str, float]:
    """Measure NumPy's float32 product of `size`² matrices and a copy too large for any cache.

    Returns
    -------
    dict
        "gemm_gflops" and "copy_gbs" (bytes read + bytes written, one thread), each the median;
        "others", the share of all cores' time that went to somebody else, 0 where unknown.
    """
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    c = np.empty_like(a)
    source = np.ones(copy_mib * 2**18, np.float32)
    target = np.zeros_like(source)
    others = _others()
    time.sleep(PAUSE)
    product = _median(lambda: np.matmul(a, a, out=c), 9)
    time.sleep(PAUSE)
    copy = _median(lambda: np.copyto(target, source), 5)
    return {
        "gemm_gflops": 2 * size**3 / product * 1e-9,
        "copy_gbs": 2 * source.nbytes / copy * 1e-9,
        "others": others,
    }


def control_sentence(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Return both control measurements as one line."""
    gemm = f"{number(before['gemm_gflops'])} -> {number(after['gemm_gflops'])} GFLOP/s"
    copy = f"{number(before['copy_gbs'])} -> {number(after['copy_gbs'])} GB/s"
    line = f"control, before -> after: BLAS gemm {gemm}; memory copy, 1 thread, {copy}"
    drift = max(abs(after[name] / before[name] - 1) for name in ("gemm_gflops", "copy_gbs"))
    others = max(before["others"], after["others"])
    if drift > DRIFT or others > OTHERS:
        line += (
            f"\n**The machine was not quiet: the control drifted by {drift:.0%}, others used "
            f"{others:.0%} of all cores. Run again.**"
        )
    return line


def _others(seconds: float = 0.4) -> float:
    """Return the share of all cores' time that others take while this program sleeps (Linux)."""

    def ticks() -> tuple[int, int]:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        counts = [int(field) for field in fields]
        return counts[3] + counts[4], sum(counts)  # idle and waiting for a disk, all

    with suppress(OSError, ValueError, IndexError):
        time.sleep(2 * PAUSE)  # our own threads have stopped spinning
        idle, total = ticks()
        time.sleep(seconds)
        idle_after, total_after = ticks()
        return 1 - (idle_after - idle) / max(1, total_after - total)
    return 0.0


def _median(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
