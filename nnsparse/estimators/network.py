"""The estimators' networks: affine layers, most of them sparse, with one activation between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnsparse import nn
from nnsparse.allocation import Shape, apportion, exact_count
from nnsparse.nn.linear import Affine
from nnsparse.topology import Topology

Array = NDArray[Any]

# Name -> the layer, and by what He's initial weights, made for ReLU, are multiplied for it: variance 1 / fan-in.
_LINEAR_GAIN = 0.5**0.5
_ACTIVATIONS: Mapping[str, tuple[Callable[[], nn.Module] | None, float]] = {
    "relu": (nn.ReLU, 1.0),
    "tanh": (nn.Tanh, _LINEAR_GAIN),
    "logistic": (nn.Sigmoid, _LINEAR_GAIN),
    "identity": (None, _LINEAR_GAIN),
}
_LEAST_FAN_IN = 1  # weights of a neuron, on average, below which fewer neurons share them


def network(
    sizes: Sequence[int],
    activation: str,
    *,
    sparsity: float,
    distribution: str,
    dtype: np.dtype[Any],
    seed: int,
) -> nn.Sequential:
    """Return a network with random weights at random places, as `nn.mlp` makes it; full layers are dense ones.

    Biases are uniform in ±1 / √fan-in: those of zero would bend all neurons at the origin, and few features need them
    elsewhere. Of a small network high sparsity leaves so few weights that, at random, most lead to neurons from which
    none goes on. Then some neurons of the hidden layers get none and the others share them (`used_sizes`).

    Parameters
    ----------
    sizes : sequence of int
        Features, neurons of the hidden layers, outputs.
    activation : "relu", "tanh", "logistic" or "identity"
        Between two affine layers.
    sparsity : float
        Of all weights together, exactly, but at least one per layer is left.
    distribution : "erk" or "uniform"
    """
    make, gain = _ACTIVATIONS[activation]
    rng = np.random.default_rng(seed)
    used, counts = used_sizes(sizes, sparsity, distribution)
    layers: list[nn.Module] = []
    for shape, part, nnz in zip(_shapes(sizes), _shapes(used), counts, strict=True):
        n_out, n_in = shape
        layer: Affine
        if nnz == n_out * n_in:
            layer = nn.Linear(n_in, n_out, dtype=dtype, rng=rng)
        else:
            topology = _padded(Topology.random(part, nnz=nnz, rng=rng), shape)
            layer = nn.SparseLinear(n_in, n_out, topology=topology, dtype=dtype, rng=rng)
        layer.weight.data *= layer.dtype.type(gain)
        if layer.bias is not None:
            layer.bias.data[:] = rng.uniform(-1.0, 1.0, n_out) / np.sqrt(
                np.maximum(1, _fan_in(layer))
            )
        layers += [make(), layer] if layers and make is not None else [layer]
    return nn.Sequential(*layers)


def used_sizes(
    sizes: Sequence[int], sparsity: float, distribution: str
) -> tuple[list[int], list[int]]:
    """Return how many neurons of each layer get weights, and how many weights each affine layer gets.

    All, if that leaves one weight or more to the mean neuron of each layer. Else the largest part, in percent, of all
    hidden layers alike for which it is so.

    Examples
    --------
    >>> used_sizes([784, 1000, 10], 0.95, "erk")
    ([784, 1000, 10], [29700, 10000])
    >>> used_sizes([4, 100, 3], 0.9, "erk")
    ([4, 35, 3], [35, 35])
    """
    total = max(
        len(sizes) - 1, exact_count(sum(a * b for a, b in pairwise(sizes)), sparsity=sparsity)
    )
    found: tuple[list[int], list[int]] | None = None
    for percent in range(100, 0, -1):
        used = [sizes[0], *[-(-n * percent // 100) for n in sizes[1:-1]], sizes[-1]]
        caps = [n_out * n_in for n_out, n_in in _shapes(used)]
        if found is not None and sum(caps) < total:
            break
        shares = caps if distribution == "uniform" else [a + b for a, b in pairwise(used)]
        counts = apportion(shares, caps, total)
        found = used, counts
        if all(nnz >= _LEAST_FAN_IN * n for nnz, n in zip(counts, used[1:], strict=True)):
            break
    assert found is not None
    return found


def affine(model: nn.Sequential) -> list[Affine]:
    """Return the layers with weights, in order."""
    return [layer for layer in model if isinstance(layer, Affine)]


def coefficients(layer: Affine) -> sparse.csr_matrix[Any]:
    """Return a layer's weights as scikit-learn lays them out, a CSR matrix (n_in, n_out), a copy."""
    if isinstance(layer, nn.SparseLinear):
        return sparse.csr_matrix(layer.to_scipy().T)
    return sparse.csr_matrix(layer.weight.data.T)


def weight_sparsity(model: nn.Sequential) -> float:
    """Return the fraction of all weights (biases apart) that are not stored."""
    layers = affine(model)
    size = sum(layer.in_features * layer.out_features for layer in layers)
    return 1.0 - sum(layer.weight.data.size for layer in layers) / size


def _shapes(sizes: Sequence[int]) -> list[Shape]:
    """Return the shapes (n_out, n_in) of the affine layers."""
    return [(n_out, n_in) for n_in, n_out in pairwise(sizes)]


def _fan_in(layer: Affine) -> Array | int:
    """Return how many weights each neuron has, (n_out,) or one number for all."""
    if isinstance(layer, nn.SparseLinear):
        return layer.weight.topology.row_counts()
    return layer.in_features


def _padded(topology: Topology, shape: Shape) -> Topology:
    """Return the same positions in a larger matrix."""
    if topology.shape == shape:
        return topology
    indptr, indices = topology.csr()
    rest = np.full(shape[0] - topology.shape[0], indptr[-1], indptr.dtype)
    return Topology(shape, np.concatenate([indptr, rest]), indices)
