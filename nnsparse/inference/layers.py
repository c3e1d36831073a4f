"""From a model's modules to a list of plain layers: one affine or per-feature map and one activation each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.kernels.forward import GELU, IDENTITY, LEAKY, RELU, SIGMOID, TANH
from nnsparse.nn import activations
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.linear import Affine, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.nn.sequential import Sequential

Array = NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """y = activation(W·x + bias), or, where `indptr` and `weights` say "per feature", activation(scale·x + bias).

    Attributes
    ----------
    kind : "sparse", "dense" or "scale"
    weights : (nnz,), (n_out, n_in) or (n_out,) array
        In canonical order, as a matrix, or the scale.
    indptr, indices : (n_out + 1,) and (nnz,) integers
        Of a sparse layer, else empty.
    bias : (n_out,) array
    activation, slope : int, float
        One of `kernels.forward`'s; the slope of the leaky ReLU left of zero.
    """

    kind: str
    n_in: int
    n_out: int
    weights: Array
    indptr: Array
    indices: Array
    bias: Array
    activation: int = IDENTITY
    slope: float = 0.0


_NONE = np.empty(0, np.int64)


def layers_of(model: Module, who: str = "compile") -> tuple[list[Layer], np.dtype[Any]]:
    """Return the plain layers of a model, batch normalisation folded where it can be, and their dtype.

    Messages begin with `who`.

    Raises
    ------
    TypeError
        If a layer is of another class, or the dtypes differ.
    ValueError
        If the sizes do not fit, or no layer tells the number of features.
    """
    found: list[Layer] = []
    early: list[tuple[int, float]] = []  # activations before the first layer that tells n_features
    dtype: np.dtype[Any] | None = None
    for name, module in _parts("", model):
        where = f"layer {name} ({type(module).__name__})" if name else type(module).__name__
        if isinstance(module, Affine | BatchNorm1d):
            new = (
                _affine(module)
                if isinstance(module, Affine)
                else _normalization(f"{who}: {where}", module)
            )
            _check_fit(f"{who}: {where}", new, found, dtype)
            dtype = new.bias.dtype
            for activation in early:
                found = found or [_identity(new.n_in, dtype)]
                _append_activation(found, activation)
            early = []
            _append(found, new)
        elif not isinstance(module, Dropout):
            activation = _activation(f"{who} cannot take {where}", module)
            if found:
                _append_activation(found, activation)
            else:
                early.append(activation)
    if dtype is None:
        raise ValueError(
            f"{who} expects at least one affine or BatchNorm1d layer, which tells the number of "
            f"features; got {model!r}"
        )
    return found, dtype


def _check_fit(where: str, new: Layer, found: list[Layer], dtype: np.dtype[Any] | None) -> None:
    """Refuse a layer whose dtype or number of features does not fit what comes before it."""
    if dtype is not None and new.bias.dtype != dtype:
        raise TypeError(
            f"{where} is {new.bias.dtype}, the layers before it {dtype}. "
            "Give all layers the same dtype."
        )
    if found and found[-1].n_out != new.n_in:
        raise ValueError(
            f"{where} expects {new.n_in} features; the layer before it gives {found[-1].n_out}"
        )


def _parts(name: str, module: Module) -> Iterator[tuple[str, Module]]:
    """Yield (dotted index, layer) of a network of nested `Sequential`, or ("", the layer itself)."""
    if not isinstance(module, Sequential):
        yield name, module
        return
    for index, child in module.children():
        yield from _parts(f"{name}.{index}" if name else index, child)


def _affine(module: Affine) -> Layer:
    n_out, n_in = module.out_features, module.in_features
    # `link` checks the arrays and applies a forward mask.
    weight = module.link((0, n_in), module.weight.data.dtype, False).weight
    zeros = np.zeros(n_out, module.weight.data.dtype)
    bias = zeros if module.bias is None else module.bias.data.copy()
    if isinstance(module, SparseLinear):
        values = module.weight.canonical(weight.data)
        if module.nnz < n_in * n_out:
            indptr, indices = module.weight.topology.csr()
            return Layer("sparse", n_in, n_out, values, indptr, indices, bias)
        return Layer("dense", n_in, n_out, values.reshape(n_out, n_in), _NONE, _NONE, bias)
    return Layer("dense", n_in, n_out, module.weight.data.copy(), _NONE, _NONE, bias)


def _normalization(where: str, module: BatchNorm1d) -> Layer:
    """Return evaluation-mode batch normalisation as scale·x + shift, computed in float64."""
    n, dtype = module.num_features, module.running_mean.dtype
    arrays = [module.running_mean, module.running_var]
    arrays += [p.data for p in (module.weight, module.bias) if p is not None]
    if any(a.shape != (n,) for a in arrays):
        raise ValueError(f"{where} expects parameters and statistics of shape ({n},)")
    scale = 1.0 / np.sqrt(module.running_var + module.eps, dtype=np.float64)
    if module.weight is not None:
        scale = scale * module.weight.data
    shift = -scale * module.running_mean
    if module.bias is not None:
        shift = shift + module.bias.data
    return Layer("scale", n, n, scale.astype(dtype), _NONE, _NONE, shift.astype(dtype))


def _append(found: list[Layer], new: Layer) -> None:
    """Append a layer; a scale behind a layer without activation is folded into that layer."""
    if new.kind == "scale" and found and found[-1].activation == IDENTITY:
        found[-1] = _folded(found[-1], new)
    else:
        found.append(new)


def _folded(layer: Layer, scale: Layer) -> Layer:
    """Return `scale` after `layer` as one layer, multiplied in float64 and rounded once."""
    factor = scale.weights.astype(np.float64)
    each = factor
    if layer.kind == "sparse":
        each = np.repeat(factor, np.diff(layer.indptr))
    elif layer.kind == "dense":
        each = factor[:, None]
    dtype = layer.weights.dtype
    return replace(
        layer,
        weights=(layer.weights * each).astype(dtype),
        bias=(layer.bias * factor + scale.bias).astype(dtype),
    )


def _identity(n: int, dtype: np.dtype[Any]) -> Layer:
    return Layer("scale", n, n, np.ones(n, dtype), _NONE, _NONE, np.zeros(n, dtype))


def _append_activation(found: list[Layer], activation: tuple[int, float]) -> None:
    """Give the activation to the last layer, or, if that has one, to an identity behind it."""
    if found[-1].activation != IDENTITY:
        found.append(_identity(found[-1].n_out, found[-1].bias.dtype))
    found[-1] = replace(found[-1], activation=activation[0], slope=activation[1])


def _activation(refusal: str, module: Module) -> tuple[int, float]:
    """Return (kernel code, slope) of an activation layer."""
    if isinstance(module, activations.LeakyReLU):
        return LEAKY, module.slope
    if isinstance(module, activations.AllReLU):
        return LEAKY, module.slope * (-1.0 if module.layer % 2 == 0 else 1.0)
    simple = {
        activations.ReLU: RELU,
        activations.Tanh: TANH,
        activations.Sigmoid: SIGMOID,
        activations.GELU: GELU,
    }
    for kind, code in simple.items():
        if type(module) is kind:
            return code, 0.0
    raise TypeError(
        f"{refusal}: expected Sequential, SparseLinear, Linear, NumpyLinear, "
        "ReLU, LeakyReLU, AllReLU, Tanh, Sigmoid, GELU, Dropout or BatchNorm1d. "
        "Take the parts before and after it."
    )
