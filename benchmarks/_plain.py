"""The documents' own way to be sparse: plain loops over CSR, CSC or COO in place of our tiles.

`Plain` multiplies with `nnsparse.kernels` on the whole batch at once, checks of the arguments
included; `PlainLinear` is the layer made of it, which trains on the same tape as every other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nnsparse import kernels, nn, tiles
from nnsparse.nn.linear import Affine
from nnsparse.ops.structures import Structure
from nnsparse.parameter import Parameter
from nnsparse.topology import Topology

Array = NDArray[Any]
_KERNELS: Mapping[str, tuple[Callable[..., Array], ...]] = {
    "csr": (kernels.csr_forward, kernels.csr_input_gradient, kernels.csr_weight_gradient),
    "csc": (kernels.csc_forward, kernels.csc_input_gradient, kernels.csc_weight_gradient),
    "coo": (kernels.coo_forward, kernels.coo_input_gradient, kernels.coo_weight_gradient),
}
LAYOUTS = tuple(_KERNELS)


@final
class Plain(Structure):
    """Weights (nnz,) in the order of a layout; activations are one tile, (1, features, batch).

    Attributes
    ----------
    order : (nnz,) integers
        From the order of the layout to canonical order: values = canonical[order].
    """

    def __init__(self, topology: Topology, layout: str) -> None:
        self.n_out, self.n_in = topology.shape
        self.order: Array = np.arange(topology.nnz)
        if layout == "csc":
            pointers, rows, self.order = topology.csc()
            indices = (pointers, rows)
        else:
            indices = topology.csr() if layout == "csr" else topology.coo()
        self._w = (topology.shape, *indices)
        self._forward, self._transposed, self._gradient = _KERNELS[layout]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.order.shape

    def canonical(self, values: Array) -> Array:
        """Return values of this layout in canonical order."""
        out = np.empty_like(values)
        out[self.order] = values
        return out

    def forward(self, w: Array, x: Array, batch: int, bias: Array | None, rectify: bool) -> Array:
        """Return W·x (+ bias, then ReLU)."""
        out = tiles.empty((1, self.n_out, x.shape[2]), x.dtype)
        self._forward(*self._w, w, x[0], out[0])
        if bias is not None:
            out += bias[:, None]
        if rectify:
            np.maximum(out, 0, out=out)
        return out

    def transposed(self, w: Array, d: Array, gate: Array | None = None) -> Array:
        """Return Wᵀ·d, 0 where `gate` is."""
        out = tiles.empty((1, self.n_in, d.shape[2]), d.dtype)
        self._transposed(*self._w, w, d[0], out[0])
        if gate is not None:
            np.copyto(out, 0, where=gate <= 0)
        return out

    def gradient(self, d: Array, x: Array, sums: Array | None = None) -> Array:
        """Return d·xᵀ where the weights are; write the sums of d over the samples into `sums`."""
        if sums is not None:
            np.sum(d, axis=(0, 2), out=sums)
        return self._gradient(*self._w, d[0], x[0])


@final
class PlainLinear(Affine):
    """A copy of an affine layer that multiplies in a plain layout; a dense layer keeps its nonzeros."""

    _tiled = False

    def __init__(self, layer: nn.SparseLinear | nn.Linear, layout: str) -> None:
        super().__init__()
        sparse = layer if isinstance(layer, nn.SparseLinear) else nn.SparseLinear.from_dense(layer)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._structure = Plain(sparse.weight.topology, layout)
        self.weight = Parameter(sparse.weight.canonical()[self._structure.order])
        self.bias = None if layer.bias is None else Parameter(layer.bias.data.copy())

    @property
    def structure(self) -> Plain:
        """The weights' positions and kernels."""
        return self._structure
