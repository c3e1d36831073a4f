"""`to_torch`: a network of ours becomes a `torch.nn.Sequential`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from nnsparse.nn import activations
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.embedding import EmbeddingBag, Lookup
from nnsparse.nn.linear import Affine, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.nn.sequence import Embedding, GlobalAveragePooling1D
from nnsparse.nn.sequential import Sequential

_STORED = ("dense", "pruned", "csr")


def to_torch(model: Module, *, weights: str = "dense") -> Any:
    """Return a network as a `torch.nn.Sequential` with the same weights, bit for bit.

    Parameters
    ----------
    model : Sequential (nested too) or one layer
        Of the layers of `nnsparse.nn`.
    weights : "dense", "pruned" or "csr"
        What a `SparseLinear` becomes. "dense": a plain Linear with zeros, for whatever works with torch; trained there,
        the zeros fill up. "pruned": one with `torch.nn.utils.prune`'s mask, under which they stay zero. "csr": one
        whose weight is a sparse CSR tensor, for inference; n_out · n_in numbers are never stored.

    Returns
    -------
    torch.nn.Sequential
        On the CPU, sharing no memory with `model`, in its dtype and mode. `from_torch` gives back the same topologies
        from "pruned" and "csr"; from "dense" without the stored zeros.

    Raises
    ------
    ImportError
        If torch is not installed: pip install 'nnsparse[torch]'.
    TypeError
        If `model` is no module, or has one of another class.
    ValueError
        If `weights` is none of the three, or layers do not follow each other as torch can take them.

    Notes
    -----
    AllReLU becomes the LeakyReLU that it is in its layer; an Embedding is followed by a Flatten, and together with
    GlobalAveragePooling1D it becomes an EmbeddingBag. Weights that `weight.buffers["forward"]` hides are zero. torch
    gives a CSR weight a dense gradient.

    Examples
    --------
    >>> from nnsparse import nn
    >>> to_torch(nn.mlp([4, 3, 2], sparsity=0.5, rng=0))  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    if not isinstance(model, Module):
        raise TypeError(f"to_torch expects a Module; got {type(model).__name__}")
    if weights not in _STORED:
        raise ValueError(f"to_torch expects weights as one of {_STORED}; got {weights!r}")
    try:
        import torch
    except ImportError as error:
        raise ImportError("to_torch needs torch: pip install 'nnsparse[torch]'") from error
    flat = list(_leaves("", model))
    for before, (_, layer) in zip([None, *flat], flat, strict=False):
        is_behind = before is not None and isinstance(before[1], Embedding)
        if isinstance(layer, GlobalAveragePooling1D) and not is_behind:
            raise ValueError("to_torch expects GlobalAveragePooling1D directly behind an Embedding")
    known: dict[int, Any] = {}  # a layer that stands in two places is one layer there too
    found: list[Any] = []
    for i, (name, layer) in enumerate(flat):
        pooled = i + 1 < len(flat) and isinstance(flat[i + 1][1], GlobalAveragePooling1D)
        if isinstance(layer, GlobalAveragePooling1D):
            continue
        if id(layer) not in known:
            known[id(layer)] = _converted(torch, name, layer, weights, pooled)
        found.append(known[id(layer)])
        if isinstance(layer, Embedding) and not pooled:
            found.append(torch.nn.Flatten())
    return torch.nn.Sequential(*found).train(model._training)


def _leaves(name: str, module: Module) -> Iterator[tuple[str, Module]]:
    """Yield (dotted index, layer) of nested Sequentials, in order."""
    if not isinstance(module, Sequential):
        yield name, module
        return
    for child, layer in module.children():
        yield from _leaves(f"{name}.{child}" if name else child, layer)


def _converted(torch: Any, name: str, layer: Module, weights: str, pooled: bool) -> Any:
    if isinstance(layer, Affine):
        return _linear(torch, layer, weights)
    if isinstance(layer, BatchNorm1d):
        return _normalization(torch, layer)
    if isinstance(layer, Lookup):
        return _table(torch, layer, pooled)
    if isinstance(layer, Dropout):
        return torch.nn.Dropout(layer.p)
    if isinstance(layer, activations.LeakyReLU):
        return torch.nn.LeakyReLU(layer.slope)
    if isinstance(layer, activations.AllReLU):
        return torch.nn.LeakyReLU(layer.slope * (-1.0 if layer.layer % 2 == 0 else 1.0))
    for kind in (activations.ReLU, activations.Tanh, activations.Sigmoid, activations.GELU):
        if type(layer) is kind:
            return getattr(torch.nn, kind.__name__)()
    where = f"layer {name} " if name else ""
    raise TypeError(
        f"to_torch cannot take {where}({type(layer).__name__}): expected layers of nnsparse.nn. "
        "Convert the parts before and behind it."
    )


def _filled(torch: Any, target: Any, array: Any) -> None:
    """Copy an array into a parameter or buffer of torch's."""
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _linear(torch: Any, layer: Affine, weights: str) -> Any:
    kind = torch.float64 if layer.weight.dtype == np.float64 else torch.float32
    arguments = layer.in_features, layer.out_features, layer.bias is not None
    if isinstance(layer, SparseLinear) and weights == "csr":
        made = torch.nn.Linear(*arguments, dtype=kind, device="meta")
        made.weight = torch.nn.Parameter(_csr(torch, layer))
        if layer.bias is not None:
            made.bias = torch.nn.Parameter(torch.empty(layer.out_features, dtype=kind))
    else:
        made = torch.nn.utils.skip_init(torch.nn.Linear, *arguments, dtype=kind)
        dense = layer.weight.data
        if isinstance(layer, SparseLinear):
            dense = layer.to_scipy().toarray()
        _filled(torch, made.weight, dense)
    if layer.bias is not None:
        _filled(torch, made.bias, layer.bias.data)
    if isinstance(layer, SparseLinear) and weights == "pruned":
        from torch.nn.utils import prune

        mask = torch.from_numpy(layer.weight.topology.to_dense())
        prune.custom_from_mask(made, "weight", mask.to(kind))
    return made


def _csr(torch: Any, layer: SparseLinear) -> Any:
    """Return the weight as torch's sparse CSR tensor, stored zeros included."""
    matrix = layer.to_scipy()
    parts = (torch.from_numpy(a.copy()) for a in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=True)


def _normalization(torch: Any, layer: BatchNorm1d) -> Any:
    kind = torch.float64 if layer.running_mean.dtype == np.float64 else torch.float32
    affine = layer.weight is not None
    made = torch.nn.BatchNorm1d(layer.num_features, layer.eps, layer.momentum, affine, dtype=kind)
    _filled(torch, made.running_mean, layer.running_mean)
    _filled(torch, made.running_var, layer.running_var)
    if layer.weight is not None and layer.bias is not None:
        _filled(torch, made.weight, layer.weight.data)
        _filled(torch, made.bias, layer.bias.data)
    return made


def _table(torch: Any, layer: Lookup, pooled: bool) -> Any:
    table = torch.from_numpy(layer.weight.data.copy())
    arguments: dict[str, Any] = {"freeze": False, "padding_idx": layer.padding_idx}
    if isinstance(layer, EmbeddingBag) or pooled:
        mode = layer.mode if isinstance(layer, EmbeddingBag) else "mean"
        return torch.nn.EmbeddingBag.from_pretrained(table, mode=mode, **arguments)
    if layer.padding_idx is not None:
        table[layer.padding_idx] = 0  # what ours gives for it, whatever stands there
    return torch.nn.Embedding.from_pretrained(table, **arguments)
