"""Aligned, pooled arrays and the tile layout `(n_tiles, n_features, lanes)` of activations.

Each feature's `lanes` samples lie side by side on a 64-byte boundary, so that kernels read whole cache lines. Buffers
come from a pool and return to it when nobody refers to them: a steady training step asks the system for no memory.
The gather and scatter between user arrays and tiles is in `kernels.layout`.
"""

from __future__ import annotations

import os
import threading
from sys import getrefcount
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnsparse import trace

Array = NDArray[Any]

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register
LANES = (16, 32, 64, 128)
_KEEP = (
    1024  # a free buffer that was not taken during this many requests is given back to the system
)

# With NNSPARSE_POISON=1 every new buffer is filled with NaN: a kernel that fails to write its whole output shows.
_POISON = os.environ.get("NNSPARSE_POISON", "") not in ("", "0")


class _Buffer:
    """One pooled array, the bytes behind it, and the tick of its last use."""

    __slots__ = ("array", "owner", "tick")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], tick: int) -> None:
        count = 1
        for n in shape:
            count *= n
        nbytes = count * dtype.itemsize
        self.owner = np.empty(nbytes + ALIGNMENT, np.uint8)
        skip = -self.owner.ctypes.data % ALIGNMENT
        self.array: Array = self.owner[skip : skip + nbytes].view(dtype).reshape(shape)
        self.tick = tick


class Pool:
    """Recycles aligned arrays by (shape, dtype); a buffer is free when only the pool refers to it.

    Views of views refer to `owner` directly, so its count and that of `array` together see every user.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[tuple[int, ...], np.dtype[Any]], list[_Buffer]] = {}
        self._lock = threading.Lock()
        self._tick = 0
        probe = _Buffer((1,), np.dtype(np.float32), 0)
        # Measured, not assumed: what CPython counts for a buffer that nobody uses.
        self._idle = getrefcount(probe.owner), getrefcount(probe.array)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an aligned array with arbitrary content."""
        owners, arrays = self._idle
        with self._lock:
            self._tick += 1
            entries = self._buffers.get((shape, dtype))
            if entries is not None:
                for entry in entries:
                    if getrefcount(entry.owner) == owners and getrefcount(entry.array) == arrays:
                        entry.tick = self._tick
                        return entry.array
            self._trim(self._tick - _KEEP)
            entry = _Buffer(shape, dtype, self._tick)
            self._buffers.setdefault((shape, dtype), []).append(entry)
            return entry.array

    def clear(self) -> None:
        """Give every free buffer back to the system."""
        with self._lock:
            self._trim(self._tick + 1)

    def nbytes(self) -> int:
        """Return the bytes of all buffers, free and in use."""
        with self._lock:
            return sum(
                entry.owner.nbytes for entries in self._buffers.values() for entry in entries
            )

    def survive_forks(self) -> None:
        """See to it that no forked child begins with a lock that nobody will release."""
        if hasattr(os, "register_at_fork"):
            lock, release = self._lock.acquire, self._lock.release
            os.register_at_fork(before=lock, after_in_parent=release, after_in_child=release)

    def _trim(self, before: int) -> None:
        for key, entries in list(self._buffers.items()):
            kept = [
                e
                for e in entries
                if e.tick >= before or (getrefcount(e.owner), getrefcount(e.array)) != self._idle
            ]
            if kept:
                self._buffers[key] = kept
            else:
                del self._buffers[key]


pool = Pool()
pool.survive_forks()


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
    """Return a C-contiguous array of `shape` on a 64-byte boundary, its content arbitrary.

    Whoever asks must write every element before anybody reads it.
    """
    if trace.active is None:
        array = pool.take(shape, np.dtype(dtype))
    else:
        array = trace.section("allocation", pool.take)(shape, np.dtype(dtype))
    if _POISON:
        array.fill(np.nan if array.dtype.kind == "f" else -1 if array.dtype.kind == "i" else 255)
    return array


def zeros(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
    """Return an array of zeros of `shape`, C-contiguous, on a 64-byte boundary."""
    if trace.active is None:
        array = pool.take(shape, np.dtype(dtype))
    else:
        array = trace.section("allocation", pool.take)(shape, np.dtype(dtype))
    array.fill(0)
    return array


def aligned(array: Array) -> Array:
    """Return a C-contiguous, 64-byte aligned copy of `array`, outside the pool (for parameters)."""
    buffer = _Buffer(array.shape, array.dtype, 0).array
    buffer[...] = array
    return buffer


def n_tiles(batch: int, lanes: int) -> int:
    """Return how many tiles of `lanes` samples hold `batch` samples."""
    return -(-batch // lanes)


def pick_lanes(batch: int) -> int:
    """Return the number of samples side by side that suits a mini-batch of `batch` samples.

    Four 512-bit accumulators (64 float32 lanes) hide the latency of multiply-add; fewer only where most would be
    padding.
    """
    if batch > 32:
        return 64
    return 32 if batch > 16 else 16
