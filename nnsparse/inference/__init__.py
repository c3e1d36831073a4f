"""Trained models, frozen: `compile` makes one object whose whole forward pass is one compiled call.

How it works: `layers` turns modules into plain layers, `packing` those into five flat arrays, `kernels.forward` runs
them, `model` calls it, `files` and `checking` save and load; `filtered` drops dead samples between layers. Training
stays with `nn` and `train`.
"""

from __future__ import annotations

from itertools import pairwise
from os import PathLike
from typing import Literal, overload

import numpy as np
from numpy.typing import DTypeLike

from nnsparse.inference import files
from nnsparse.inference.filtered import FilteredModel
from nnsparse.inference.layers import Layer, layers_of
from nnsparse.inference.model import CompiledModel
from nnsparse.inference.packing import pack
from nnsparse.kernels.forward import RELU
from nnsparse.nn.module import Module

__all__ = ["CompiledModel", "FilteredModel", "compile", "load"]

_HALF = float(np.finfo(np.float16).max)


@overload
def compile(
    model: Module, *, dtype: DTypeLike | None = None, skip_dead: Literal[False] = False
) -> CompiledModel: ...
@overload
def compile(
    model: Module, *, dtype: DTypeLike | None = None, skip_dead: Literal[True]
) -> FilteredModel: ...
def compile(
    model: Module, *, dtype: DTypeLike | None = None, skip_dead: bool = False
) -> CompiledModel | FilteredModel:
    """Return a frozen copy of a trained model that predicts in one compiled call.

    Parameters
    ----------
    model : nn.Sequential (nested too) or one layer
        Of SparseLinear, Linear, NumpyLinear, ReLU, LeakyReLU, AllReLU, Tanh, Sigmoid, GELU, Dropout (left out) and
        BatchNorm1d (in evaluation mode; folded into an affine layer before it).
    dtype : float16 or None
        How to store the weights; None keeps theirs. Arithmetic, biases and the output stay in the model's dtype.
    skip_dead : bool
        Whether samples that are all zero leave behind the 1st, 2nd, 4th, 8th, ... ReLU: one call from each of these to
        the next, and no more work for them. It pays where many of them die. Such a model cannot be saved.

    Returns
    -------
    CompiledModel, or FilteredModel with `skip_dead`

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
    errors = [_storage_error(i, layer) if half else 0.0 for i, layer in enumerate(layers)]
    ends = [i + 1 for i, layer in enumerate(layers[:-1]) if layer.activation == RELU]
    # A look costs about what a sparse layer does, and most of those that die do so early: ReLU 1, 2, 4, 8, ...
    looks = [ends[2**k - 1] for k in range(len(ends).bit_length())] if skip_dead else []
    bounds = pairwise([0, *looks, len(layers)])
    stages = [
        CompiledModel(pack(layers[first:last], kind, half), max(errors[first:last]))
        for first, last in bounds
    ]
    return FilteredModel(stages) if skip_dead else stages[0]


def _storage_error(index: int, layer: Layer) -> float:
    """Return the largest change of a layer's weights by float16, after checking that they fit in it."""
    if layer.kind == "scale" or not layer.weights.size:
        return 0.0
    largest = float(np.abs(layer.weights).max())
    if not largest <= _HALF:
        raise ValueError(
            f"compile: affine layer {index} has a weight of magnitude {largest:g}; float16 "
            f"holds up to {_HALF:g}. Leave dtype out."
        )
    exact = layer.weights.astype(np.float64)
    return float(np.abs(exact.astype(np.float16) - exact).max())


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
