"""Models for pruning: `prunable` gives dense layers sparse storage with all weights, `swap` picks what is faster."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnsparse.nn.linear import Linear, NumpyLinear, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.nn.sequential import Sequential
from nnsparse.sparsify.context import check_names, targets
from nnsparse.sparsify.holding import Crossover, settle


def prunable(model: Sequential, skip: Sequence[str] = ()) -> Sequential:
    """Return a copy of a model in which every dense layer is a sparse one that stores all weights.

    Full layers compute on the dense kernels and cost what `Linear` does, until something is pruned. Nothing is shared
    with `model`: make the optimizer over the result.

    Parameters
    ----------
    model : Sequential
        May hold other Sequentials. `NumpyLinear` is converted too; sparse layers are copied.
    skip : sequence of str
        Names of layers to copy as they are, as `named_modules` gives them: "4".

    Returns
    -------
    Sequential

    Raises
    ------
    TypeError
        If `model` is no Sequential, or `skip` is a single name.
    ValueError
        If `skip` names something that is not in the model.

    Examples
    --------
    >>> from nnsparse import nn
    >>> prunable(nn.mlp([784, 300, 10], rng=0))
    Sequential(
      (0) SparseLinear(784 -> 300, nnz=235200, sparsity=0)
      (1) ReLU()
      (2) SparseLinear(300 -> 10, nnz=3000, sparsity=0)
    )
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"prunable expects a Sequential; got {type(model).__name__}.")
    check_names(skip)
    names = [name for name, _ in model.named_modules() if name]
    unknown = set(skip) - set(names)
    if unknown:
        raise ValueError(f"skip names {sorted(unknown)}, which this model lacks; it has {names}.")
    return _converted(model, "", frozenset(skip), {})


def _converted(
    model: Sequential, prefix: str, skip: frozenset[str], made: dict[int, Module]
) -> Sequential:
    """Return the copy of a part; `made` maps what was copied, so that a layer used twice stays one layer."""
    layers: list[Module] = []
    for key, module in model.children():
        name = f"{prefix}.{key}" if prefix else key
        if id(module) not in made:
            if name in skip:
                made[id(module)] = _fresh(module)
            elif isinstance(module, Sequential):
                made[id(module)] = _converted(module, name, skip, made)
            elif isinstance(module, Linear | NumpyLinear):
                layer = SparseLinear.from_dense(module, np.ones(module.weight.shape, np.bool_))
                made[id(module)] = layer.train(module._training)
            else:
                made[id(module)] = _fresh(module)
        layers.append(made[id(module)])
    result = Sequential(*layers)
    result._training = model._training
    return result


def _fresh(module: Module) -> Any:
    """Return a deep copy without gradients and without what an optimizer or a recipe kept."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        if isinstance(part, SparseLinear):  # what the forward pass multiplies with, masked or not
            part.weight.data[...] = part._weights().data
    for parameter in twin.parameters():
        parameter.zero_grad()
        parameter.buffers.clear()
    return twin


def swap(model: Module, crossover: Crossover | None = None, skip: Sequence[str] = ()) -> list[str]:
    """Store each sparse layer in the way that is faster: full, with zeros held, or compressed.

    No weight, gradient, optimizer state or parameter object changes; but a backward pass belongs to the form that its
    forward pass found, so do not swap between the two. A `Sparsifier` keeps held weights at zero; without one, call
    `hold(layer.weight, optimizer.settings.slots)` after every optimizer step.

    Parameters
    ----------
    model : Module
    crossover : Crossover, optional
        Default: the measured one.
    skip : sequence of str
        Names of layers to leave alone.

    Returns
    -------
    list of str
        Names of the layers that moved.

    Examples
    --------
    >>> from nnsparse import nn
    >>> model = nn.Sequential(nn.SparseLinear(100, 50, sparsity=0.05, rng=0))
    >>> swap(model), model[0].nnz
    (['0'], 5000)
    """
    rule = crossover or Crossover()
    return [target.name for target in targets(model, skip) if settle(target, rule)]
