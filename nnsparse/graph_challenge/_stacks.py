"""Layers for the kernels: checked, put together and prepared. `_supply` decides which ones together, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit
from nnsparse.kernels import challenge_plan as plan
from nnsparse.kernels import planning
from nnsparse.simd_quads import MASKS

from .networks import Layer

Array = NDArray[Any]
_BITS = np.array([mask.bit_count() for mask in range(1, MASKS + 1)])
_FAULTS = {
    plan.RANGE: "has an input outside 0 ... {last}. Does the layer belong to this network?",
    plan.ORDER: "has inputs that do not increase: sort them, and add up duplicates (SciPy: matrix.sum_duplicates())",
    plan.FINITE: "has a weight that is not a finite float32 number. Remove or repair it.",
}


class Joined(NamedTuple):
    """Checked layers, one after the other: indptr (n_layers, n + 1), indices, values, bases (n_layers + 1,)."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    bases: NDArray[np.int64]


# ---------------------------------------------------------------- checks


def joined(layers: Sequence[Layer], n: int, first: int = 0) -> Joined:
    """Return layers, of which the first one has this number, checked and put together.

    Raises
    ------
    TypeError
        If indices are not integers, or values not real numbers.
    ValueError
        If a shape or pointer is wrong, an input is out of range or not larger than the one before it, or a value is
        not finite.
    """
    parts = [_arrays(layer, n, first + k) for k, layer in enumerate(layers)]
    indptr = np.stack([part[0] for part in parts])
    wrong = np.flatnonzero((np.diff(indptr, axis=1) < 0).any(axis=1))
    if wrong.size:
        raise ValueError(f"layer {first + wrong[0] + 1}: expected an indptr that never decreases.")
    bases = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(indptr[:, -1], out=bases[1:])
    indices, values = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    faults = np.empty((len(parts), n), np.uint8)
    plan.find_faults(indptr, indices, values, bases, faults)
    if faults.any():
        layer, output = (int(i) for i in np.argwhere(faults)[0])
        text = _FAULTS[int(faults[layer, output])].format(last=n - 1)
        raise ValueError(f"layer {first + layer + 1}: output neuron {output} {text}")
    return Joined(indptr, indices, values, bases)


def _arrays(layer: Layer, n: int, number: int) -> tuple[Array, Array, Array]:
    """Return a layer's arrays as int64, int32 and float32; what the kernels cannot check has been checked."""
    indptr, indices, values = (np.asarray(array) for array in layer)
    name = f"layer {number + 1}"
    if indptr.dtype.kind not in "iu" or (indices.dtype.kind not in "iu" and indices.size):
        raise TypeError(
            f"{name}: expected integer indptr and indices; got {indptr.dtype}, {indices.dtype}."
        )
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real values; got {values.dtype}. Pass float32.")
    if indptr.shape != (n + 1,):
        raise ValueError(
            f"{name}: expected indptr of shape ({n + 1},) for {n} neurons; got {indptr.shape}."
        )
    if indices.ndim != 1 or values.shape != indices.shape:
        raise ValueError(
            f"{name}: expected flat indices and values of equal length; got {indices.shape} and {values.shape}."
        )
    if indptr[0] != 0 or indptr[-1] != indices.size:
        raise ValueError(
            f"{name}: expected indptr from 0 to {indices.size}, the indices; it goes from {indptr[0]} to {indptr[-1]}."
        )
    if indices.dtype != np.int32:
        indices = np.clip(indices, -1, n).astype(np.int32)  # out of range stays so
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found
        values = values.astype(np.float32, copy=False)
    return indptr.astype(np.int64, copy=False), indices, values


# ---------------------------------------------------------------- prepared layers


@dataclass(frozen=True, eq=False)
class Quads:
    """Layers in the order of the kernels on tiles: weights, inputs, counts, starts, firsts, outputs."""

    n_layers: int
    arrays: tuple[Array, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)


def quads(layers: Joined, reorder: bool = False) -> Quads:
    """Return layers in the order of the kernels on tiles, O(nnz + n·log n) time and O(nnz) memory.

    `reorder`: compute outputs that have inputs in common side by side, else in the order in which they are numbered.
    """
    indptr, indices, values, bases = layers
    n_layers, n = len(indptr), indptr.shape[1] - 1
    n_quads = n_layers * -(-n // 4)
    longest = int(np.diff(indptr, axis=1).max(initial=0))
    counts = np.zeros((n_quads, MASKS), np.uint16 if 4 * longest < 2**16 else np.uint32)
    if reorder:
        keys = np.empty((n_layers, n), np.int64)
        plan.sharing_keys(indptr, indices, bases, keys)
        order = np.argsort(keys, axis=1)
    else:
        order = np.tile(np.arange(n), (n_layers, 1))
    plan.count_masks(indptr, indices, bases, order, counts)
    starts, firsts = np.empty(n_quads + 1, np.int64), np.empty(n_quads + 1, np.int64)
    planning.point_quads(counts, _BITS, starts, firsts)
    inputs = np.empty(firsts[-1], np.uint16 if n <= 2**16 else np.uint32)
    weights = np.empty(values.size, values.dtype)
    cursors = np.empty((jit.get_num_threads(), 2, MASKS), np.int64)
    plan.order_masks(
        indptr,
        indices,
        values,
        bases,
        order,
        counts,
        _BITS,
        starts,
        firsts,
        cursors,
        inputs,
        weights,
    )
    outputs = order.ravel().astype(inputs.dtype)
    return Quads(n_layers, (weights, inputs, counts, starts, firsts, outputs))


@dataclass(frozen=True, eq=False)
class ByInput:
    """Layers by input neuron: pointers (n + 1,), outputs (nnz,) and weights (nnz,) of each."""

    layers: tuple[tuple[Array, Array, Array], ...]

    @property
    def n_layers(self) -> int:
        """How many they are."""
        return len(self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for layer in self.layers for array in layer)


def by_input(layers: Joined) -> ByInput:
    """Return layers by input neuron, O(nnz) time and memory."""
    n = layers.indptr.shape[1] - 1
    found = []
    for k, indptr in enumerate(layers.indptr):
        here = slice(layers.bases[k], layers.bases[k + 1])
        pointers = np.zeros(n + 1, np.int64)
        outputs = np.empty(indptr[-1], np.uint16 if n <= 2**16 else np.int32)
        order = np.empty(indptr[-1], np.int64)
        planning.transpose_csr(indptr, layers.indices[here], pointers, outputs, order)
        found.append((pointers, outputs, layers.values[here][order]))
    return ByInput(tuple(found))
