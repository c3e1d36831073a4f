"""From plain layers to the five arrays that the compiled forward pass takes; `kernels.forward` says what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.inference.layers import Layer
from nnsparse.kernels.forward import DENSE, NARROW, SCALE, WIDE
from nnsparse.machine import Choices

Array = NDArray[Any]

PANEL = 16384  # multiply-adds a panel at least: about 5 µs, what it costs to wake a thread
PANELS = 16  # of one layer at most
LARGEST = 2**16  # inputs of a slab, outputs of a panel: their indices take two bytes
# 256 inputs × 32 lanes of float32 fill a first-level cache of 32 KB, and their indices take one byte. Sparser matrices
# take longer slabs: the beginning and end of runs below 8 weights cost more than the misses do.
_CHOICES = Choices(256, (8 / 256, 8 / 512))


@dataclass(frozen=True)
class Packed:
    """A frozen network as arrays; `values` is uint16 where weights are stored as float16."""

    program: Array
    values: Array
    narrow: Array
    wide: Array
    constants: Array

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, in the order in which kernels take them."""
        return dict(vars(self))

    @property
    def half(self) -> bool:
        """Whether weights are stored as float16."""
        return bool(self.values.dtype == np.uint16)

    def sizes(self) -> tuple[int, ...]:
        """Return the features from input to output."""
        sizes, at = [int(self.program[4])], 2
        for _ in range(int(self.program[0])):
            sizes.append(int(self.program[at + 3]))
            at = int(self.program[at])
        return tuple(sizes)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in vars(self).values())


class _Parts:
    """What has been written so far, and how much of it."""

    def __init__(self) -> None:
        self.program: list[int] = []
        self.chunks: dict[str, list[Array]] = {
            n: [] for n in ("values", "narrow", "wide", "constants")
        }
        self.sizes = dict.fromkeys(self.chunks, 0)

    def add(self, name: str, array: Array) -> int:
        """Append to one of the arrays; return where it starts."""
        start = self.sizes[name]
        self.chunks[name].append(array.reshape(-1))
        self.sizes[name] = start + array.size
        return start


def pack(layers: list[Layer], dtype: np.dtype[Any], half: bool) -> Packed:
    """Return the arrays of a network that computes in `dtype`; with `half`, weights are stored as float16."""
    parts = _Parts()
    widest = max(max(layer.n_in, layer.n_out) for layer in layers)
    parts.program += [len(layers), widest]
    for layer in layers:
        start = len(parts.program)
        _pack_layer(layer, parts, dtype)
        parts.program[start] = len(parts.program)

    def join(name: str, kind: Any) -> Array:
        return np.concatenate([np.empty(0, kind), *parts.chunks[name]]).astype(kind)

    with np.errstate(over="ignore"):
        values = join("values", np.float16).view(np.uint16) if half else join("values", dtype)
    return Packed(
        np.array(parts.program, np.int64),
        values,
        join("narrow", np.uint8),
        join("wide", np.uint16),
        join("constants", dtype),
    )


def _pack_layer(layer: Layer, parts: _Parts, dtype: np.dtype[Any]) -> None:
    n_in, n_out = layer.n_in, layer.n_out
    slope = parts.add("constants", np.array([layer.slope], dtype))
    bias = parts.add("constants", layer.bias)
    scale, slab, bounds = 0, n_in, np.array([0, n_out])
    if layer.kind == "scale":
        kind, scale = SCALE, parts.add("constants", layer.weights)
    elif layer.kind == "dense":
        kind, bounds = DENSE, _bounds(np.arange(n_out + 1) * n_in)
    else:
        slab = _slab(n_out, n_in, layer.weights.size)
        kind, bounds = NARROW if slab <= 256 else WIDE, _bounds(layer.indptr)
    program = parts.program
    program += [0, kind, n_in, n_out, layer.activation, slope, bias, scale, slab, len(bounds) - 1]
    table = len(program)
    program += [0] * (len(bounds) - 1)
    if kind in (NARROW, WIDE):
        runs, counts = _runs(layer, slab)
    for panel, (first, last) in enumerate(
        zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ):
        program[table + panel] = len(program)
        if kind == SCALE:
            program += [first, last - first, 0, 0, 0, 0]
        elif kind == DENSE:
            values = parts.add("values", layer.weights[first:last])
            program += [first, last - first, 0, 0, values, 0]
        else:
            for s in range(counts.shape[1]):
                block = runs[first:last, s], counts[first:last, s]
                _pack_block(layer, parts, first, s * slab, kind == NARROW, *block)


def _slab(n_out: int, n_in: int, nnz: int) -> int:
    """Return how many inputs a slab takes: the rule of plans, for the activations of fewer samples."""
    return min(_CHOICES.slab(n_in, nnz / (n_out * n_in)), n_in, LARGEST)


def _bounds(work: Array) -> NDArray[np.int64]:
    """Return where panels of about equal work begin and end, given the cumulated work (n_out + 1,)."""
    n_out = work.size - 1
    steps = work.astype(np.int64) + np.arange(n_out + 1, dtype=np.int64)
    n_panels = max(1, min(PANELS, int(steps[-1]) // PANEL, n_out // 16), -(-2 * n_out // LARGEST))
    shares = steps[-1] * np.arange(1, n_panels, dtype=np.int64) // n_panels
    inner = np.searchsorted(steps, shares)
    # No panel is longer than its outputs' numbers reach.
    extra = np.arange(0, n_out, LARGEST, dtype=np.int64)
    return np.unique(np.concatenate((inner, extra, [0, n_out])))


def _runs(layer: Layer, slab: int) -> tuple[Array, Array]:
    """Return where the weights of each (output, slab) start, and how many there are, (n_out, n_slabs) each."""
    n_slabs = -(-layer.n_in // slab)
    rows = np.repeat(np.arange(layer.n_out, dtype=np.int64), np.diff(layer.indptr))
    counts = np.bincount(rows * n_slabs + layer.indices // slab, minlength=layer.n_out * n_slabs)
    starts = np.cumsum(counts) - counts
    return starts.reshape(-1, n_slabs), counts.reshape(-1, n_slabs)


def _pack_block(
    layer: Layer, parts: _Parts, first: int, base: int, narrow: bool, runs: Array, counts: Array
) -> None:
    """Write one block: outputs sorted by their number of weights, in fours where equally many have as many."""
    order = np.argsort(counts, kind="stable")
    lengths, sizes = np.unique(counts, return_counts=True)
    sources, done = [np.empty(0, np.int64)], 0
    for length, size in zip(lengths.tolist(), sizes.tolist(), strict=True):
        rows = order[done : done + size]
        take = runs[rows][:, None] + np.arange(length)
        fours = size // 4
        sources.append(take[: 4 * fours].reshape(fours, 4, length).transpose(0, 2, 1).reshape(-1))
        sources.append(take[4 * fours :].reshape(-1))
        done += size
    source = np.concatenate(sources)
    outputs = parts.add("wide", order.astype(np.uint16))
    inside = layer.indices[source] - base
    index = (
        parts.add("narrow", inside.astype(np.uint8))
        if narrow
        else parts.add("wide", inside.astype(np.uint16))
    )
    values = parts.add("values", layer.weights[source])
    parts.program += [first, order.size, outputs, index, values, lengths.size]
    parts.program += np.stack([lengths, sizes], axis=1).reshape(-1).tolist()
