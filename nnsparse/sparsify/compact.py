"""`compact`: a smaller network with the same function, after weights or neurons were pruned.

A hidden unit without incoming weights is a constant and becomes part of the next bias; one without outgoing weights
becomes nothing. `neurons` removes units on purpose; pruning alone leaves some behind too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.autograd import Tensor, no_grad
from nnsparse.nn.activations import GELU, AllReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.linear import Linear, NumpyLinear, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.nn.sequential import Sequential
from nnsparse.parameter import FORWARD, HELD
from nnsparse.topology import Topology

Array = NDArray[Any]
AnyLinear = Linear | NumpyLinear | SparseLinear

_AFFINE = (Linear, NumpyLinear, SparseLinear)
_POINTWISE = (ReLU, LeakyReLU, AllReLU, Tanh, Sigmoid, GELU)
_PER_UNIT = (*_POINTWISE, Dropout, BatchNorm1d)  # what may stand between a unit and its readers


def compact(model: Sequential) -> Sequential:
    """Return a network with the same function, without the hidden units that cannot matter.

    Units without incoming weights are folded into the next layer's bias, which is made if it is missing and needed;
    units without outgoing weights go. Both are repeated until no unit of either kind is left. Inputs and outputs of
    the whole network stay. Of a layer that loses all its units one remains, without weights.

    Parameters
    ----------
    model : Sequential
        Affine layers, and between them activations, Dropout and BatchNorm1d; before the first and behind the last
        affine layer there may be anything. It is not changed.

    Returns
    -------
    Sequential
        Sharing nothing with `model`; Sequentials inside it are laid flat. Values keep their bits, biases that take up
        constants are summed in float64. Make a new optimizer for it.

    Raises
    ------
    TypeError
        If `model` is not a Sequential, or a layer between two affine ones is none of those named.

    Notes
    -----
    The function is the one in evaluation mode: in training, Dropout acts on constants too, and BatchNorm1d takes a
    constant to its bias. Weights that `weight.buffers` mark as not seen ("forward") or held at zero ("held") are gone
    in the result; a stored zero is a weight and stays. All weights of a dense layer count as stored.
    Cost: O(nnz).

    Examples
    --------
    >>> from nnsparse import nn
    >>> first, last = nn.SparseLinear(3, 2, topology=Topology.from_coo((2, 3), [1], [0])), nn.Linear(2, 1)
    >>> compact(nn.Sequential(first, nn.ReLU(), last))[0]
    SparseLinear(3 -> 1, nnz=1, sparsity=0.6667)
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"compact expects a Sequential; got {type(model).__name__}")
    head, stages = _stages(model)
    # Folding adds no unit without outgoing weights to those that there are, and removing those makes no new constant
    # ones: once forwards, then once backwards is enough.
    for i in range(len(stages) - 1):
        _fold(stages[i], stages[i + 1])
    for i in reversed(range(len(stages) - 1)):
        stages[i].remove(stages[i + 1], stages[i + 1].column_counts() == 0)
    layers = [copy.deepcopy(module) for module in head]
    for stage in stages:
        layers += [stage.built(), *(stage.sliced(module) for module in stage.after)]
    result = Sequential(*layers)
    result.train(model.training)
    return result


@dataclass
class _Stage:
    """A working copy of an affine layer, with what stands between it and the next one."""

    layer: AnyLinear
    rows: Array  # of each weight, (nnz,), in canonical order
    columns: Array
    values: Array
    bias: Array  # (n_out,) float64
    units: Array  # which outputs of `layer` are left
    n_in: int
    after: list[Module] = field(default_factory=list)

    def column_counts(self) -> Array:
        """Return the weights per input, (n_in,)."""
        return np.bincount(self.columns, minlength=self.n_in)

    def select(self, mask: Array) -> None:
        """Keep only the weights where `mask` (nnz,) is true."""
        self.rows, self.columns = self.rows[mask], self.columns[mask]
        self.values = self.values[mask]

    def remove(self, reader: _Stage, gone: Array) -> None:
        """Take out the units where `gone` is true, all but the first if all are; `reader` has no weights from them."""
        self.select(~gone[self.rows])
        if gone.all():
            gone[0] = False
        renumbered = np.cumsum(~gone) - 1
        self.rows, reader.columns = renumbered[self.rows], renumbered[reader.columns]
        self.bias, self.units = self.bias[~gone], self.units[~gone]
        reader.n_in = self.units.size

    def built(self) -> Module:
        """Return the new layer."""
        old, shape = self.layer, (self.units.size, self.n_in)
        has_bias = old.bias is not None or bool(self.bias.any())
        new: AnyLinear
        if isinstance(old, SparseLinear):
            topology = Topology.from_coo(shape, self.rows, self.columns)
            new = SparseLinear(
                shape[1], shape[0], has_bias, topology=topology, dtype=old.dtype, rng=0
            )
            new.weight.set_canonical(self.values)
        else:
            new = type(old)(shape[1], shape[0], has_bias, dtype=old.dtype, rng=0)
            new.weight.data[...] = 0
            new.weight.data[self.rows, self.columns] = self.values
        if new.bias is not None:
            new.bias.data[...] = self.bias
        return new

    def sliced(self, module: Module) -> Module:
        """Return a copy of a module behind this layer for the units that are left."""
        if not isinstance(module, BatchNorm1d) or module.num_features == self.units.size:
            return copy.deepcopy(module)
        norm = BatchNorm1d(
            self.units.size,
            module.eps,
            module.momentum,
            module.weight is not None,
            dtype=module.running_mean.dtype,
        )
        norm.running_mean[...] = module.running_mean[self.units]
        norm.running_var[...] = module.running_var[self.units]
        for new, old in ((norm.weight, module.weight), (norm.bias, module.bias)):
            if new is not None and old is not None:
                new.data[...] = old.data[self.units]
        return norm


def _fold(stage: _Stage, reader: _Stage) -> None:
    """Move the constant units of `stage` into the bias of its reader."""
    constant = np.bincount(stage.rows, minlength=stage.units.size) == 0
    output = stage.bias
    for module in stage.after:
        output = _evaluated(module, output, stage.units)
    folded = constant[reader.columns]
    terms = reader.values[folded] * output[reader.columns[folded]]
    reader.bias += np.bincount(reader.rows[folded], weights=terms, minlength=reader.bias.size)
    reader.select(~folded)
    stage.remove(reader, constant)


def _evaluated(module: Module, x: Array, units: Array) -> Array:
    """Return what an activation or normalisation makes of `x`, (n,) float64, one number per unit, in evaluation."""
    if isinstance(module, Dropout):
        return x
    if isinstance(module, BatchNorm1d):
        y = (x - module.running_mean[units]) / np.sqrt(
            module.running_var[units].astype(np.float64) + module.eps
        )
        if module.weight is not None and module.bias is not None:
            y = y * module.weight.data[units] + module.bias.data[units]
        return np.asarray(y)
    with no_grad():
        return np.asarray(module.forward(Tensor(x[None])).numpy()[0])


def entries(layer: AnyLinear) -> tuple[Array, Array, Array]:
    """Return (rows, columns, values) of the weights that a layer computes with, (nnz,) each, in canonical order.

    All weights of a dense layer; of a sparse one those that its buffers do not mark as unseen or held at zero.
    """
    if not isinstance(layer, SparseLinear):
        rows, columns = np.indices(layer.weight.shape).reshape(2, -1)
        return rows, columns, layer.weight.data.reshape(-1)
    weight = layer.weight
    seen = np.ones(weight.topology.nnz, np.bool_)
    for name in (FORWARD, HELD):
        if name in weight.buffers:
            seen &= weight.canonical(weight.buffers[name]) != 0
    rows, columns = weight.topology.coo()
    return rows[seen], columns[seen], weight.canonical()[seen]


def _stages(model: Sequential) -> tuple[list[Module], list[_Stage]]:
    """Return the modules before the first affine layer, and a stage for each affine layer."""
    head: list[Module] = []
    stages: list[_Stage] = []
    odd: tuple[str, Module] | None = None  # the first that must not stand between two affine layers
    for name, module in _flat(model, ""):
        if isinstance(module, _AFFINE):
            if odd is not None:
                raise TypeError(
                    f"compact: layer {odd[0]!r}, {odd[1]!r}, stands between two affine layers and need not treat "
                    "each unit by itself (a LayerNorm mixes them), so no unit can be taken out. Only activations, "
                    "Dropout and BatchNorm1d can stand there."
                )
            stages.append(_stage(module))
            continue
        (stages[-1].after if stages else head).append(module)
        if stages and odd is None and not isinstance(module, _PER_UNIT):
            odd = name, module
    return head, stages


def _stage(layer: AnyLinear) -> _Stage:
    n_out, n_in = layer.out_features, layer.in_features
    bias = np.zeros(n_out) if layer.bias is None else layer.bias.data.astype(np.float64)
    return _Stage(layer, *entries(layer), bias, np.arange(n_out), n_in)


def _flat(model: Sequential, prefix: str) -> Iterator[tuple[str, Module]]:
    for name, module in model.children():
        if isinstance(module, Sequential):
            yield from _flat(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module
