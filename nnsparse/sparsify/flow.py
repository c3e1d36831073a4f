"""SynFlow: how much of what flows from inputs to outputs goes through each weight; a criterion without data."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from nnsparse.nn.activations import GELU, AllReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.linear import Affine, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.nn.sequential import Sequential
from nnsparse.sparsify.context import Array, Context


def synflow(context: Context) -> list[Array]:
    """Return each weight's share of the synaptic flow R = 1ᵀ·(Π|W_l|)·1; needs no data.

    With u_l = |W_l|·u_{l−1} and v_{l−1} = |W_l|ᵀ·v_l, from ones at both ends, |w·dR/dw| of weight (i, j) is
    v_i·|w_ij|·u_j. It adds up to R in every layer, so the shares of a layer add up to 1: a layer with fewer weights
    has larger scores, and pruning in rounds, scored again each time, empties no layer.

    Returns
    -------
    list of (nnz,) float64 arrays
        One per target, canonical order. All zero where R = 0: no path leads from the inputs to the outputs.

    Raises
    ------
    TypeError
        If the model is not made of affine layers, pointwise activations, Dropout and Sequential alone.

    Notes
    -----
    Source: Tanaka, Kunin, Yamins & Ganguli, Pruning neural networks without any data by iteratively conserving
    synaptic flow, 2020, algorithm 1. Differences: divided by R, layer by layer, so that nothing overflows in deep
    networks; biases and activations are left out as in the paper's R, although its code would apply a tanh. In float64
    whatever the weights are. Cost: O(nnz + sizes); a dense Linear in between counts all its weights.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from nnsparse import nn
    >>> from nnsparse.sparsify.context import targets
    >>> model = nn.Sequential(
    ...     nn.SparseLinear.from_scipy(csr_array([[1.0, -2.0], [0.0, 1.0]])),
    ...     nn.SparseLinear.from_scipy(csr_array([[1.0, 1.0]])),
    ... )
    >>> synflow(Context(model, targets(model)))
    [array([0.25, 0.5 , 0.25]), array([0.75, 0.25])]
    """
    chain = _affine_chain(context.model, "")
    matrices = [_absolute(layer) for layer in chain]
    forward = [np.ones(chain[0].in_features)]  # u before each layer
    for matrix in matrices[:-1]:
        forward.append(_normalised(np.asarray(matrix @ forward[-1])))
    shares = {id(target.layer): np.zeros(target.nnz) for target in context.targets}
    v = np.ones(chain[-1].out_features)
    for layer, matrix, u in zip(chain[::-1], matrices[::-1], forward[::-1], strict=True):
        if id(layer) in shares and isinstance(layer, SparseLinear):
            rows, columns = layer.weight.topology.coo()
            shares[id(layer)] += _normalised(v[rows] * matrix.data * u[columns])
        v = _normalised(np.asarray(matrix.T @ v))
    return [shares[id(target.layer)] for target in context.targets]


def _normalised(flow: Array) -> Array:
    """Return numbers >= 0 divided by their sum, unless that is 0."""
    total = flow.sum()
    return flow if total == 0 else np.asarray(flow / total)


def _absolute(layer: Affine) -> sparse.csr_array[np.float64, tuple[int, int]]:
    """Return |W| (n_out, n_in) in float64, its data in canonical order."""
    if not isinstance(layer, SparseLinear):
        return sparse.csr_array(np.abs(layer.weight.data.astype(np.float64)))
    indptr, indices = layer.weight.topology.csr()
    values = np.abs(layer.weight.canonical().astype(np.float64))
    return sparse.csr_array((values, indices, indptr), shape=layer.weight.topology.shape)


def _affine_chain(module: Module, name: str) -> list[Affine]:
    """Return the affine layers that a model applies one after the other."""
    if isinstance(module, Affine):
        return [module]
    if isinstance(module, ReLU | LeakyReLU | AllReLU | Tanh | Sigmoid | GELU | Dropout):
        return []
    if isinstance(module, Sequential):
        parts = module.children()
        return [a for key, m in parts for a in _affine_chain(m, f"{name}.{key}" if name else key)]
    raise TypeError(
        f"synflow expects a Sequential of affine layers and activations; layer {name!r} is {module!r}, "
        "through which no flow is defined. Score by sparsify's magnitude or snip instead."
    )
