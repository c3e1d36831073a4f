"""What all variants of inference share: the job, what it finds out, memory, bits of lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnsparse import jit, tiles

from ._reading import Piece, count_of, pieces
from ._supply import Stopwatch
from .networks import Network

Array = NDArray[Any]
Ints = NDArray[np.int64]

LANES = 64  # images per tile; four outputs of as many fill half of AVX-512's registers
TOP = 32.0  # the challenge's largest activation
STACK = 16 << 20  # bytes of layers that are prepared and computed together
PIECE = 1024  # images that are put into tiles at a time


@dataclass
class Job:
    """One run: what to compute, within which limits, and what has been found so far.

    Attributes
    ----------
    reorder : bool
        See `_stacks.quads`.
    batch : int or None
        The most images at a time.
    memory : int
        Bytes that weights and activations may take.
    rows : (n_layers,) int64
        How many images live after each layer.
    categories : list of (n,) int64
        Images that have lived to the end.
    n_images, work : int
        Images read, multiplications done; work stays 0 where it follows from `rows`.
    nbytes : int
        Most bytes of weights and activations at a time.
    """

    network: Network
    images: Any
    batch: int | None = None
    memory: int = 4 << 30
    progress: bool = False
    reorder: bool = False
    watch: Stopwatch = field(default_factory=Stopwatch)
    rows: Ints = field(init=False)
    categories: list[Ints] = field(default_factory=list)
    n_images: int = 0
    work: int = 0
    nbytes: int = 0

    def __post_init__(self) -> None:
        self.rows = np.zeros(self.network.n_layers, np.int64)

    @property
    def scalars(self) -> tuple[np.float32, np.float32]:
        """Bias and largest activation, as kernels take them."""
        return np.float32(self.network.bias), np.float32(TOP)

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile of activations."""
        return 4 * LANES * self.network.n_neurons

    def pieces(self, rows: int) -> Iterator[Piece]:
        """Yield the images, `rows` at a time; `n_images` counts them, the ones yielded last included."""
        found = pieces(self.images, self.network.n_neurons, rows)
        while True:
            with self.watch.measure("read"):
                piece = next(found, None)
            if piece is None:
                return
            self.n_images += piece.rows
            yield piece

    def capacity(self, unit: int, least: int, fixed: int, what: str) -> int:
        """Return for how many units of so many bytes there is memory beside some `fixed` bytes.

        Raises
        ------
        ValueError
            If for fewer than `least`.
        """
        units = (self.memory - fixed) // unit
        if units < least:
            raise ValueError(
                f"memory={self.memory}: {what} for {self.network.n_neurons} neurons take at least "
                f"{fixed + least * unit} bytes. Pass more."
            )
        return units

    def limit(self) -> int:
        """Return the most images at a time that `batch` and their number leave, without regard to memory."""
        known = count_of(self.images)
        return max(1, min(2**40 if limit is None else limit for limit in (known, self.batch)))

    def bar(self, what: str, unit: str, total: int | None) -> Any:
        """Return a progress bar; none where nobody looks."""
        return tqdm(
            total=total, desc=what, unit=unit, disable=None if self.progress else True, leave=False
        )

    def saw(self, nbytes: int) -> None:
        """Note how many bytes are in use."""
        self.nbytes = max(self.nbytes, nbytes)


def width() -> int:
    """Return the lanes of which four outputs and an input fit this CPU's registers."""
    return {512: 64, 256: 16}.get(jit.vector_bits(), 16)


def allocate(shape: tuple[int, ...]) -> Array:
    """Return a float32 array on a 64-byte boundary, its content arbitrary, that goes back to the system when freed.

    Not from the pool of `tiles`: gigabytes must not wait there for someone who wants the same shape.
    """
    nbytes = 4 * int(np.prod(shape))
    memory = np.empty(nbytes + tiles.ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % tiles.ALIGNMENT
    return memory[skip : skip + nbytes].view(np.float32).reshape(shape)


def used_lanes(count: int) -> Ints:
    """Return how many lanes of each tile hold one of `count` images that lie side by side."""
    starts = np.arange(0, count, LANES, dtype=np.int64)
    return np.minimum(LANES, count - starts)


def first_lanes(used: Ints) -> Ints:
    """Return the bits of the first lanes of each tile."""
    bits: Ints = ((np.uint64(2) << (used - 1).astype(np.uint64)) - np.uint64(1)).view(np.int64)
    return bits


def chosen(bits: Ints) -> NDArray[np.bool_]:
    """Return bits of lanes (n_tiles,) as (n_tiles, 64) bool."""
    octets = bits.astype("<i8").view(np.uint8).reshape(len(bits), 8)
    return np.unpackbits(octets, axis=1, bitorder="little").astype(np.bool_)
