"""Where a layer's weights are, and the kernels that multiply with them: `Sparse`, `Full`, `Dense`, `Blas`, `Tapped`.

A structure validates nothing and is not differentiable; it allocates the result and launches a kernel. The gradient
rules in `products` are written once, for all; what takes sparse mini-batches is launched by `sparse_products`. Over
300 lines because one thing has several ways to be multiplied with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit, machine, tiles, trace
from nnsparse.autograd import Tensor, sweeps
from nnsparse.kernels import gemm as dense_kernels
from nnsparse.kernels import sddmm as sampled
from nnsparse.kernels.spmm import GATE, PLAIN, RELU, spmm_quads
from nnsparse.kernels.spmm import spmm as spmm_runs
from nnsparse.ops import sparse_products as csr
from nnsparse.ops.sparse_batch import SparseBatch
from nnsparse.plan import Quads, Slabs, plan_of
from nnsparse.topology import Topology

Array = NDArray[Any]


@lru_cache(maxsize=256)
def _valid(tail: int, lanes: int, dtype: np.dtype[Any]) -> Array:
    """Return (2·lanes,): ones for a full tile, then ones for the lanes that the last tile uses."""
    valid = tiles.aligned(np.ones(2 * lanes, dtype))
    valid[lanes + tail :] = 0 if tail else 1
    return valid


@lru_cache(maxsize=256)
def _no_bias(n_out: int, dtype: np.dtype[Any]) -> Array:
    return np.zeros(n_out, dtype)


class Structure(ABC):
    """Where the weights of an (n_out, n_in) matrix are, and the kernels that multiply with them."""

    n_out: int
    n_in: int

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights that the kernels take."""
        return self.n_out, self.n_in

    @abstractmethod
    def forward(self, w: Array, x: Array, batch: int, bias: Array | None, rectify: bool) -> Array:
        """Return W·x (+ bias, then ReLU): x (n_tiles, n_in, lanes) to (n_tiles, n_out, lanes)."""

    @abstractmethod
    def transposed(self, w: Array, d: Array, gate: Array | None = None) -> Array:
        """Return Wᵀ·d: d (n_tiles, n_out, lanes) to (n_tiles, n_in, lanes).

        With `gate`, the output of a ReLU (n_tiles, n_in, lanes), it is 0 where that is: the gradient before the ReLU.
        """

    @abstractmethod
    def gradient(self, d: Array, x: Array, sums: Array | None = None) -> Array:
        """Return Σ_samples d·xᵀ where the weights are, in the shape of the weights; write Σ_samples d into `sums`."""

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        """Return W·x (+ bias, then ReLU) for sparse rows, as tiles (n_tiles, n_out, lanes)."""
        raise TypeError(f"{type(self).__name__} cannot take a sparse mini-batch. Pass x.toarray().")

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        """Return Σ_samples d·xᵀ where the weights are, in the shape of the weights, for sparse rows."""
        raise TypeError(f"{type(self).__name__} cannot take a sparse mini-batch. Pass x.toarray().")


_IN_ORDER = np.empty(0, np.uint32)  # "the values are in this order already"
TILES = 4  # per task at most: what is gathered for a task serves so many tiles
BLOCK = machine.cache_sizes().get(2, 2**19)  # bytes that a task's output may have at most


def _multiply(
    order: Slabs | Quads,
    values: Array,
    source: Array,
    bias: Array,
    valid: Array,
    finish: int,
    gate: Array | None,
    x: Array,
) -> Array:
    """Return the product of the weights values[source] (or `values`), which are in `order`, and the tiles x."""
    n_tiles, _, lanes = x.shape
    out = tiles.empty((n_tiles, bias.size, lanes), x.dtype)
    group, pack, s = 1, values[:0], order
    if source.size:
        pack = tiles.empty((jit.MAX_THREADS * order.room,), values.dtype)
        # As many tiles as fit the second-level cache, but two tasks a thread or more.
        n_panels = max(1, s.panels.size - 1)
        fitting = BLOCK * n_panels // max(1, bias.size * lanes * x.itemsize)
        group = max(1, min(TILES, fitting, n_tiles * n_panels // (2 * jit.MAX_THREADS)))
    if isinstance(s, Quads):
        spmm_quads(lanes, dense_kernels.width(lanes, x.itemsize))(
            values, source, pack, s.room, s.indices, s.counts, s.starts, s.firsts, s.panels, s.slab, group,
            bias, valid, finish, x if gate is None else gate, x, out,
        )  # fmt: skip
    else:
        spmm_runs(lanes)(
            values, source, pack, s.room, s.indices, s.pointers, s.outputs, s.panels, s.slab, group,
            bias, valid, finish, x if gate is None else gate, x, out,
        )  # fmt: skip
    return out


@final
class Sparse(Structure):
    """Weights (nnz,) in plan order at the positions of a topology."""

    def __init__(self, topology: Topology) -> None:
        self.n_out, self.n_in = topology.shape
        self.topology = topology
        self.plan = trace.section("plan lookup", plan_of)(topology)
        forward, transposed = self.plan.forward, self.plan.transposed
        shape = int(forward.panels[-1]), int(transposed.panels[-1])
        counts = {forward.indices.size, self.plan.source.size}
        if shape != topology.shape or counts != {topology.nnz}:
            raise ValueError(f"somebody has put another plan in place of that of {topology}")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.plan.forward.indices.shape

    def __reduce__(self) -> tuple[type[Sparse], tuple[Topology]]:
        """Copy and pickle the topology only: the plan is kept with it, or built again."""
        return Sparse, (self.topology,)

    def forward(self, w: Array, x: Array, batch: int, bias: Array | None, rectify: bool) -> Array:
        if bias is None:
            bias = _no_bias(self.n_out, x.dtype)
        valid = _valid(batch % x.shape[2], x.shape[2], x.dtype)
        plan, finish = self.plan, RELU if rectify else PLAIN
        if plan.quads is None or plan.quads_source is None:
            return _multiply(plan.forward, w, _IN_ORDER, bias, valid, finish, None, x)
        return _multiply(plan.quads, w, plan.quads_source, bias, valid, finish, None, x)

    def transposed(self, w: Array, d: Array, gate: Array | None = None) -> Array:
        bias, valid = _no_bias(self.n_in, d.dtype), _valid(0, d.shape[2], d.dtype)
        finish = PLAIN if gate is None else GATE
        return _multiply(self.plan.transposed, w, self.plan.source, bias, valid, finish, gate, d)

    def gradient(self, d: Array, x: Array, sums: Array | None = None) -> Array:
        s = self.plan.forward
        out = (tiles.empty if len(x) else tiles.zeros)(s.indices.shape, x.dtype)
        sampled.sddmm(x.shape[2], sampled.part(x.itemsize))(
            s.indices, s.pointers, s.outputs, s.panels, s.slab,
            d, x, _no_bias(0, x.dtype) if sums is None else sums, out,
        )  # fmt: skip
        return out

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        if bias is None:
            bias = _no_bias(self.n_out, x.dtype)
        return csr.sparse_forward(self.topology, w, x, bias, rectify)

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        return csr.sparse_gradient(self.topology, d, x)


@final
class Dense(Structure):
    """Weights (n_out, n_in), multiplied on tiles by our own kernels."""

    def __init__(self, n_out: int, n_in: int) -> None:
        self.n_out, self.n_in = n_out, n_in

    @staticmethod
    def _splits(pieces: int, each: int) -> int:
        """Return into how many ranges to cut the outputs, so that every thread gets `each` tasks or more."""
        return max(1, -(-each * jit.MAX_THREADS // max(1, pieces)))

    def forward(self, w: Array, x: Array, batch: int, bias: Array | None, rectify: bool) -> Array:
        n_tiles, _, lanes = x.shape
        out = tiles.empty((n_tiles, self.n_out, lanes), x.dtype)
        if bias is None:
            bias = _no_bias(self.n_out, x.dtype)
        valid = _valid(batch % lanes, lanes, x.dtype)
        kernel = dense_kernels.gemm(lanes, dense_kernels.width(lanes, x.itemsize))
        kernel(w.reshape(-1), self._splits(n_tiles, 4), bias, valid, rectify, x, out)
        return out

    def transposed(self, w: Array, d: Array, gate: Array | None = None) -> Array:
        n_tiles, _, lanes = d.shape
        out = tiles.empty((n_tiles, self.n_in, lanes), d.dtype)
        kernel = dense_kernels.gemm_t(lanes, dense_kernels.width(lanes, d.itemsize))
        pack = tiles.empty((jit.MAX_THREADS * dense_kernels.ROWS * dense_kernels.DEPTH,), d.dtype)
        kernel(w.reshape(-1), pack, gate is not None, d if gate is None else gate, d, out)
        return out

    def gradient(self, d: Array, x: Array, sums: Array | None = None) -> Array:
        lanes = x.shape[2]
        out = (tiles.empty if len(x) else tiles.zeros)((self.n_out, self.n_in), x.dtype)
        kernel = dense_kernels.gemm_w(lanes, dense_kernels.width(dense_kernels.ROWS, x.itemsize))
        splits = self._splits(-(-self.n_in // dense_kernels.ROWS), 8)
        pack = tiles.empty((jit.MAX_THREADS * (lanes + 1) * dense_kernels.ROWS,), x.dtype)
        kernel(splits, pack, d, x, _no_bias(0, x.dtype) if sums is None else sums, out.reshape(-1))
        return out

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        if bias is None:
            bias = _no_bias(self.n_out, x.dtype)
        return csr.dense_forward(w.reshape(-1), x, bias, rectify)

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        return csr.dense_gradient(d, x).reshape(self.n_out, self.n_in)


@final
class Full(Structure):
    """Weights (n_out · n_in,) of a sparse layer that lacks none of them: `Dense`, given flat."""

    def __init__(self, topology: Topology) -> None:
        self.n_out, self.n_in = topology.shape
        self.topology = topology
        self._dense = Dense(self.n_out, self.n_in)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.n_out * self.n_in,)

    def forward(self, w: Array, x: Array, batch: int, bias: Array | None, rectify: bool) -> Array:
        return self._dense.forward(w, x, batch, bias, rectify)

    def transposed(self, w: Array, d: Array, gate: Array | None = None) -> Array:
        return self._dense.transposed(w, d, gate)

    def gradient(self, d: Array, x: Array, sums: Array | None = None) -> Array:
        return self._dense.gradient(d, x, sums).reshape(-1)

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        return self._dense.forward_csr(w, x, bias, rectify)

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        return csr.dense_gradient(d, x)


@final
class Tapped(Structure):
    """Another structure that also notes what a gradient of its weights is made of: pairs (d, x) of tiled arrays.

    As `weight.grad` does, the pairs add up over several backward passes, until `zero_grad` begins a new gradient. Of
    sparse rows it notes a dense copy: whoever grows weights looks at all inputs, and that is not at every step.
    """

    def __init__(
        self, structure: Structure, weight: Tensor, taps: list[tuple[Array, Array]]
    ) -> None:
        self.n_out, self.n_in = structure.n_out, structure.n_in
        self._structure, self._weight, self._taps = structure, weight, taps
        self._sweep = -1

    def serves(self, structure: Structure, taps: list[tuple[Array, Array]]) -> bool:
        """Return whether this is the one for a structure and a list."""
        return self._structure is structure and self._taps is taps

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self._structure.weight_shape

    def forward(self, w: Array, x: Array, batch: int, bias: Array | None, rectify: bool) -> Array:
        return self._structure.forward(w, x, batch, bias, rectify)

    def transposed(self, w: Array, d: Array, gate: Array | None = None) -> Array:
        return self._structure.transposed(w, d, gate)

    def gradient(self, d: Array, x: Array, sums: Array | None = None) -> Array:
        self._note(d, x)
        return self._structure.gradient(d, x, sums)

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        return self._structure.forward_csr(w, x, bias, rectify)

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        self._note(d, x.to_tiles())
        return self._structure.gradient_csr(d, x)

    def _note(self, d: Array, x: Array) -> None:
        if self._weight.grad is None and self._sweep != sweeps():
            self._taps.clear()
        self._sweep = sweeps()
        self._taps.append((d, x))


# Infinity and NaN go where the mathematics sends them, without a warning.
_quiet = np.errstate(over="ignore", invalid="ignore")


@final
class Blas(Structure):
    """Weights (n_out, n_in), multiplied by NumPy; with the batch in one tile each product is one BLAS call.

    For sparse rows NumPy has no product: there it is `Dense`.
    """

    def __init__(self, n_out: int, n_in: int) -> None:
        self.n_out, self.n_in = n_out, n_in
        self._dense = Dense(n_out, n_in)

    @_quiet
    def forward(self, w: Array, x: Array, batch: int, bias: Array | None, rectify: bool) -> Array:
        out = tiles.empty((x.shape[0], self.n_out, x.shape[2]), x.dtype)
        np.matmul(w, x, out=out)
        if bias is not None:
            out += bias[:, None]
        if rectify:
            np.maximum(out, 0, out=out)
        if batch < x.shape[0] * x.shape[2]:
            out[-1, :, batch - x.shape[0] * x.shape[2] :] = 0
        return out

    @_quiet
    def transposed(self, w: Array, d: Array, gate: Array | None = None) -> Array:
        out = tiles.empty((d.shape[0], self.n_in, d.shape[2]), d.dtype)
        np.matmul(w.T, d, out=out)
        if gate is not None:
            np.copyto(out, 0, where=gate <= 0)
        return out

    @_quiet
    def gradient(self, d: Array, x: Array, sums: Array | None = None) -> Array:
        out = tiles.empty((self.n_out, self.n_in), x.dtype)
        np.matmul(d[0], x[0].T, out=out)
        for tile in range(1, len(x)):
            out += d[tile] @ x[tile].T
        if sums is not None:
            np.sum(d, axis=(0, 2), out=sums)
        return out

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        return self._dense.forward_csr(w, x, bias, rectify)

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        return self._dense.gradient_csr(d, x)
