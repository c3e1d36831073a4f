"""What suits this machine: a small model from its caches and registers, or what `ns.autotune` measured here.

`plan` asks for the inputs per slab and for the densities from which on register tiling pays. The model is fitted to the
figures in benchmarks/NOTES.md; measured choices lie in the user's cache directory, one entry per kind of CPU.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from nnsparse import jit

_log = logging.getLogger("nnsparse")
_ROW = 64 * 4  # bytes of one input's activations: 64 lanes of float32
# Inputs of the largest slab, 32 MB of activations. What is sparser gains nothing from any cache and takes all inputs as
# one slab: at 10^6 inputs, 10 a neuron, 8 slabs take 1.5 times as long as one and 4 slabs 1.2 times.
LARGEST = 2**17


@dataclass(frozen=True)
class Choices:
    """Parameters of the plans, by the density of a pattern.

    Attributes
    ----------
    base : int
        Inputs of the smallest slab, a power of two.
    dense_enough : tuple of float
        Densities from which on slabs of base, 2·base, 4·base inputs suffice; below the last one they double until a
        run holds two nonzeros on average, and beyond `LARGEST` until one slab holds all inputs.
    quads, quads_gathered : float
        Densities from which on four outputs at a time are faster than one, for weights that lie in the order of the
        other kernel and for weights that have to be gathered anyway; above 1 means never.
    """

    base: int = 128
    dense_enough: tuple[float, ...] = (12 / 128, 8 / 256, 8 / 512)
    quads: float = 0.35
    quads_gathered: float = 0.2

    def __post_init__(self) -> None:
        slab = self.base
        if not (isinstance(slab, int) and slab >= 16 and slab & (slab - 1) == 0):
            raise ValueError(f"base: expected a power of two from 16 on; got {slab!r}")
        for density in self.dense_enough:
            # Below two nonzeros a run the pointers would outgrow the weights.
            if not density >= 2 / slab:
                raise ValueError(
                    f"dense_enough: expected at least {2 / slab} for {slab}; got {density!r}"
                )
            slab *= 2
        if not (self.quads > 0 and self.quads_gathered > 0):
            raise ValueError("quads: expected positive densities")

    def slab(self, n_in: int, density: float) -> int:
        """Return how many inputs a slab takes, a power of two."""
        slab = self.base
        for enough in self.dense_enough:
            if slab >= n_in or density >= enough:
                return slab
            slab *= 2
        while slab < n_in and (slab * density < 2 or slab > LARGEST):
            slab *= 2
        return slab


def model() -> Choices:
    """Return the choices for this machine's caches and registers, nothing measured.

    The activations of the smallest slab fill the first-level data cache. Four sums and an input need 20 of AVX-512's
    32 registers; with the 16 of older CPUs one output at a time is faster.
    """
    base = 64
    while 2 * base * _ROW <= cache_sizes().get(1, 32 * 1024):
        base *= 2
    ratio = 128 / base
    dense_enough = tuple(max(d * ratio, 2 / base) for d in Choices().dense_enough)
    if jit.vector_bits() == 512:
        return Choices(base, dense_enough)
    return Choices(base, dense_enough, quads=2.0, quads_gathered=2.0)


@lru_cache(maxsize=1)
def cache_sizes() -> dict[int, int]:
    """Return bytes of the data caches by level, as far as Linux tells; else nothing."""
    found = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = (
                (index / name).read_text().strip() for name in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K") and size[:-1].isdigit():
            found[int(level)] = int(size[:-1]) * 1024
    return found


# ---------------------------------------------------------------- remembered


def path() -> Path:
    """Return the file that remembers measured choices."""
    return jit.user_cache() / "choices.json"


def key() -> str:
    """Return what tells machines apart: CPU, register width, caches, threads."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    caches = "/".join(f"{size // 1024}K" for _, size in sorted(cache_sizes().items()))
    return f"{name}, {jit.vector_bits()} bits, {caches}, {jit.MAX_THREADS} threads"


def _entries() -> dict[str, Any]:
    try:
        entries = json.loads(path().read_text(encoding="utf-8"))
        return entries if isinstance(entries, dict) else {}
    except (OSError, ValueError):
        return {}


def remember(choices: Choices) -> None:
    """Keep measured choices for later processes on this kind of machine."""
    entries = {**_entries(), key(): asdict(choices)}
    path().parent.mkdir(parents=True, exist_ok=True)
    part = path().with_name(f"{path().name}.{os.getpid()}.part")
    part.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    part.replace(path())


def remembered() -> Choices | None:
    """Return what was measured on this kind of machine, or None; a damaged entry counts as none."""
    entry = _entries().get(key())
    if entry is None:
        return None
    try:
        values = {f.name: entry[f.name] for f in fields(Choices)}
        values["dense_enough"] = tuple(map(float, values["dense_enough"]))
        return Choices(**values)
    except (KeyError, TypeError, ValueError) as error:
        _log.info("nnsparse: %s: ignoring a damaged entry: %s", path(), error)
        return None


_in_use: Choices | None = None


def choices() -> Choices:
    """Return the choices of this process: remembered ones, else the model's."""
    global _in_use
    if _in_use is None:
        _in_use = remembered() or model()
    return _in_use


def use(new: Choices | None) -> None:
    """Plan topologies with these choices from now on; None: ask the memory and the model again."""
    global _in_use
    _in_use = new
