"""The limits of this machine, measured, and the least that a product has to do: for `profiling`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from time import perf_counter
from typing import final

import numpy as np

from nnsparse import jit
from nnsparse.kernels import probe
from nnsparse.ops.structures import Sparse, Structure

_SECONDS = 0.1  # to look for the best run, which nothing disturbed
_COPY_NBYTES = 1 << 26  # of each of two arrays, more than most last-level caches


@final
@dataclass(frozen=True)
class Roof:
    """What no kernel exceeds on this machine, with `threads` threads.

    Attributes
    ----------
    gflops : float
        10⁹ float32 operations per second, all of them multiply-adds on registers.
    gbps : float
        10⁹ bytes per second, read and written, of a memory copy.
    """

    threads: int
    gflops: float
    gbps: float


def roof() -> Roof:
    """Return the limits for the present number of threads; the first call in a process measures them (0.5 s).

    Source: Williams, Waterman & Patterson, Roofline: an insightful visual performance model, 2009.
    """
    return _measured(jit.get_num_threads())


@lru_cache(maxsize=64)
def _measured(threads: int) -> Roof:
    x = np.ones(_COPY_NBYTES // 4, np.float32)
    y = np.ones_like(x)
    bandwidth, peak = 2e-9 * x.nbytes / _best(np.copyto, y, x), 0.0
    try:
        # One thread alone is the better measure where another process holds a core.
        for n in sorted({1, threads}):
            jit.set_num_threads(n)
            bandwidth = max(bandwidth, 2e-9 * x.nbytes / _best(probe.copy_numbers, x, y))
            peak = max(peak, _peak(n))
    finally:
        jit.set_num_threads(threads)
    return Roof(threads, peak, bandwidth)


def _peak(threads: int) -> float:
    width, n_rounds = jit.vector_bits() // 32, 50_000
    out = np.ones((threads, width), np.float32)
    constants = np.full(2, 0.5, np.float32)
    seconds = _best(probe.multiply_add(width), constants, n_rounds, out)
    return 2e-9 * threads * width * probe.CHAINS * n_rounds / seconds


def _best(kernel: Callable[..., None], *args: object) -> float:
    """Return the seconds of the fastest of many calls."""
    kernel(*args)  # compiles, and touches the memory
    best, until = inf, perf_counter() + _SECONDS
    start = 0.0
    while start < until:
        start = perf_counter()
        kernel(*args)
        best = min(best, perf_counter() - start)
    return best


def product_cost(structure: Structure, product: str, batch: int, itemsize: int) -> tuple[int, int]:
    """Return the operations of a product, 2·nnz·batch, and the bytes that it has to move at least.

    Values, indices (with pointers and the map between orders), and the activations of the true samples, each once.

    Parameters
    ----------
    structure : Structure
        Where the weights are.
    product : "forward", "transposed" or "gradient"
        Name of its method.
    batch : int
        True number of samples.
    itemsize : int
        Bytes of a number.
    """
    nnz = int(np.prod(structure.weight_shape, dtype=np.int64))
    nbytes = (nnz + batch * (structure.n_in + structure.n_out)) * itemsize
    if isinstance(structure, Sparse):
        plan = structure.plan
        if product == "transposed":
            nbytes += plan.transposed.nbytes + plan.source.nbytes
        elif product == "forward" and plan.quads is not None and plan.quads_source is not None:
            nbytes += plan.quads.nbytes + plan.quads_source.nbytes
        else:
            nbytes += plan.forward.nbytes
    return 2 * nnz * batch, nbytes
