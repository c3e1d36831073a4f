"""Whole networks from and to SciPy: a list of weight matrices with their biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from nnsparse.nn.activations import ReLU
from nnsparse.nn.embedding import Lookup
from nnsparse.nn.linear import Affine, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.nn.sequential import Sequential

Matrix = Any  # SciPy's sparse matrices and arrays have no common typed base


def from_scipy(
    layers: Sequence[Matrix | tuple[Matrix, ArrayLike | None]],
    *,
    activation: Callable[[], Module] | None = ReLU,
) -> Sequential:
    """Return the network of these weights: `SparseLinear` layers with an activation between them.

    Parameters
    ----------
    layers : sequence of matrix, or of pairs (matrix, bias)
        SciPy sparse matrices or arrays (out_features, in_features), in order of application, each as
        `SparseLinear.from_scipy` takes it; biases (out_features,) or None.
    activation : function that makes a module, such as nn.ReLU or lambda: nn.LeakyReLU(0.1); or None
        Called for each place between two layers. None puts nothing there.

    Raises
    ------
    TypeError
        If an item is no sparse matrix, or float32 and float64 are mixed.
    ValueError
        If there is none, or sizes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from_scipy([sparse.eye(3, format="csr"), (sparse.csr_matrix([[0.0, 1, 0]]), np.ones(1))])
    Sequential(
      (0) SparseLinear(3 -> 3, no bias, nnz=3, sparsity=0.6667)
      (1) ReLU()
      (2) SparseLinear(3 -> 1, nnz=1, sparsity=0.6667)
    )
    """
    if sparse.issparse(layers) or isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(
            "from_scipy expects a list of sparse matrices or of pairs (matrix, bias); got "
            f"{type(layers).__name__}. One matrix? Use nn.SparseLinear.from_scipy."
        )
    if not layers:
        raise ValueError("from_scipy expects at least one matrix; got an empty list")
    modules: list[Module] = []
    before: SparseLinear | None = None
    for i, item in enumerate(layers):
        layer = _layer(i, item)
        if before is not None:
            _check_fit(i, before, layer)
            if activation is not None:
                modules.append(activation())
        modules.append(layer)
        before = layer
    return Sequential(*modules)


def _layer(i: int, item: Any) -> SparseLinear:
    matrix, bias = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
    try:
        return SparseLinear.from_scipy(matrix, bias)
    except (TypeError, ValueError) as error:
        raise type(error)(f"from_scipy, layer {i}: {error}") from error


def _check_fit(i: int, before: SparseLinear, layer: SparseLinear) -> None:
    """Refuse a layer that cannot take what the one before it gives."""
    if layer.in_features != before.out_features:
        raise ValueError(
            f"from_scipy: layer {i} takes {layer.in_features} features, but layer {i - 1} gives "
            f"{before.out_features}. Matrices are (out_features, in_features); transposed?"
        )
    if layer.dtype != before.dtype:
        raise TypeError(
            f"from_scipy: layer {i} is {layer.dtype}, layer {i - 1} {before.dtype}. "
            "Give all matrices the same dtype."
        )


def to_scipy(model: Module) -> list[tuple[sparse.csr_matrix[Any], NDArray[Any] | None]]:
    """Return the affine layers of a network as pairs (matrix, bias), copies, in order.

    Of a dense layer the matrix has the weights that are not zero. Activations are not in the list.

    Raises
    ------
    TypeError
        If `model` is no module, or has weights in a layer that is not affine: matrices cannot hold it.
    """
    if not isinstance(model, Module):
        raise TypeError(f"to_scipy expects a Module; got {type(model).__name__}")
    found: list[tuple[sparse.csr_matrix[Any], NDArray[Any] | None]] = []
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm1d | Lookup):
            raise TypeError(
                f"to_scipy cannot take layer {name} ({type(module).__name__}): expected affine layers and "
                "activations. Use state_dict, ns.to_torch or ns.to_onnx."
            )
        if isinstance(module, Affine):
            matrix = (
                module.to_scipy()
                if isinstance(module, SparseLinear)
                else sparse.csr_matrix(module.weight.data)
            )
            found.append((matrix, None if module.bias is None else module.bias.data.copy()))
    return found
