"""Trained models, frozen: `compile` makes one object whose whole forward pass is one compiled call.

How it works: `layers` turns modules into plain layers, `packing` those into five flat arrays, `kernels.forward` runs
them, `model` calls it, `files` and `checking` save and load. Training stays with `nn` and `train`.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import DTypeLike

from nnsparse.inference import files
from nnsparse.inference.layers import layers_of
from nnsparse.inference.model import CompiledModel
from nnsparse.inference.packing import pack
from nnsparse.nn.module import Module

__all__ = ["CompiledModel", "compile", "load"]

_HALF = float(np.finfo(np.float16).max)


def compile(model: Module, *, dtype: DTypeLike | None = None) -> CompiledModel:
    """Return a frozen copy of a trained model that predicts in one compiled call.

    Parameters
    ----------
    model : nn.Sequential (nested too) or one layer
        Of SparseLinear, Linear, NumpyLinear, ReLU, LeakyReLU, AllReLU, Tanh, Sigmoid, GELU, Dropout (left out) and
        BatchNorm1d (in evaluation mode; folded into an affine layer before it).
    dtype : float16 or None
        How to store the weights; None keeps theirs. Arithmetic, biases and the output stay in the model's dtype.

    Returns
    -------
    CompiledModel

    Raises
    ------
    TypeError
        If a layer is of another class (its index and class are named), or the dtypes of layers differ.
    ValueError
        If sizes do not fit, dtype is not float16, or a weight cannot be stored in it.

    Notes
    -----
    float16 rounds a weight w by at most max(2⁻¹¹·|w|, 2⁻²⁵), so one layer's output changes by at most
    2⁻¹¹·Σ|w·x| + 2⁻²⁵·Σ|x|, before its activation; the largest change of a weight is `CompiledModel.storage_error`.
    Each index takes one byte where a slab of inputs has at most 256, else two.

    Examples
    --------
    >>> from nnsparse import nn
    >>> frozen = compile(nn.mlp([784, 300, 100, 10], sparsity=0.95, rng=0), dtype=np.float16)
    >>> frozen
    CompiledModel(784 -> 300 -> 100 -> 10, 13,310 weights, float32 stored as float16, ... bytes)
    >>> frozen.predict(np.zeros((1, 784))).shape
    (1, 10)
    """
    if not isinstance(model, Module):
        raise TypeError(f"compile expects a Module; got {type(model).__name__}")
    half = dtype is not None
    if half and np.dtype(dtype) != np.float16:
        raise ValueError(
            f"compile expects dtype float16 or None (as the model's); got {np.dtype(dtype)}"
        )
    layers, kind = layers_of(model)
    error = 0.0
    for index, layer in enumerate(layers):
        if half and layer.kind != "scale" and layer.weights.size:
            largest = float(np.abs(layer.weights).max())
            if not largest <= _HALF:
                raise ValueError(
                    f"compile: affine layer {index} has a weight of magnitude {largest:g}; float16 "
                    f"holds up to {_HALF:g}. Leave dtype out."
                )
            exact = layer.weights.astype(np.float64)
            error = max(error, float(np.abs(exact.astype(np.float16) - exact).max()))
    return CompiledModel(pack(layers, kind, half), error)


def load(path: str | PathLike[str]) -> CompiledModel:
    """Return the model that `CompiledModel.save` wrote, everything in the file checked.

    Raises
    ------
    ValueError
        If the file is damaged or not of this kind: hashes, sizes, dtypes, pointers and index ranges are checked.
    OSError
        If it cannot be read.
    """
    return CompiledModel(*files.read(path))
