"""From a torch module to parts: which of torch's layers have a counterpart here, and which settings of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnsparse.interchange.affine import Weight
from nnsparse.interchange.arrays import Array, as_dense, as_mask, loaded_torch, masked
from nnsparse.interchange.parts import Part, affine_part, normalization_part, plain_part, table_part
from nnsparse.nn import activations
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.embedding import Seed

TAKEN = (
    "Sequential, Linear, ReLU, LeakyReLU, Tanh, Sigmoid, GELU, Dropout, BatchNorm1d, Embedding, EmbeddingBag, "
    "Flatten and Identity"
)
_HINTS = {
    "Softmax": "Leave it out: CrossEntropyLoss takes the outputs before it.",
    "LogSoftmax": "Leave it out: CrossEntropyLoss takes the outputs before it.",
    "Conv1d": "A convolution has no counterpart; convert the layers behind the flattening.",
    "Conv2d": "A convolution has no counterpart; convert the layers behind the flattening.",
    "ModuleList": "It has no order of application: pass torch.nn.Sequential(*modules).",
    "LazyLinear": "Run one batch through the torch model first: the layer does not know its size yet.",
}


def parts_of_module(module: Any, rng: Seed) -> list[Part]:
    """Return the parts of a torch module: a `Sequential`, nested too, or a single layer.

    Raises
    ------
    TypeError, ValueError
        If a layer or one of its settings has no counterpart; the message names the layer.
    """
    random = np.random.default_rng(rng)
    known: dict[int, Part] = {}  # a layer that stands in two places is one layer here too
    owners: dict[int, str] = {}  # of parameters
    parts: list[Part] = []
    rows: str | None = None  # the Embedding whose output is not flat yet
    for name, layer in _leaves("", module):
        kind = _kind(layer)
        shown = type(layer).__name__
        where = f"layer {name!r} ({shown})" if name else shown
        if kind in ("Identity", "Flatten"):
            if kind == "Flatten":
                _check_flatten(where, layer)
                rows = None
            continue
        if id(layer) not in known:
            for parameter in layer.parameters():
                if (owner := owners.setdefault(id(parameter), where)) != where:
                    raise ValueError(
                        f"from_torch: {where} shares a parameter with {owner}, which has no counterpart. Use one layer "
                        "in both places, or give each its own copy."
                    )
            known[id(layer)] = _part(where, name, kind, layer, random)
        part = known[id(layer)]
        if rows is not None and part.n_in is not None:
            raise ValueError(
                f"from_torch: {where} acts on each token of {rows}, which has no counterpart. "
                "Put torch.nn.Flatten() between them if that is meant, or use EmbeddingBag."
            )
        rows = where if kind == "Embedding" else rows
        parts.append(part)
    if rows is not None:
        raise ValueError(f"from_torch: {rows} needs a torch.nn.Flatten() behind it")
    return parts


def _leaves(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, layer) of nested Sequentials, in order."""
    if _kind(module) != "Sequential":
        yield name, module
        return
    for child, layer in module._modules.items():
        yield from _leaves(f"{name}.{child}" if name else child, layer)


def _kind(module: Any) -> str:
    """Return the name of the torch.nn class whose forward method runs, "" where it is someone else's."""
    nn = loaded_torch().nn
    base = next(b for b in type(module).__mro__ if vars(nn).get(b.__name__) is b)
    return base.__name__ if type(module).forward is base.forward else ""


def _part(where: str, name: str, kind: str, layer: Any, random: np.random.Generator) -> Part:
    if kind == "Linear":
        weight, bias = _linear(where, layer)
        return affine_part(name, weight, bias)
    if kind == "BatchNorm1d":
        return _normalization(where, name, layer)
    if kind in ("Embedding", "EmbeddingBag"):
        return _table(where, name, kind, layer)
    if kind == "Dropout":
        if layer.p == 1:
            raise ValueError(f"from_torch: {where} has p = 1, which drops everything")
        return plain_part(name, lambda: Dropout(layer.p, random))
    return plain_part(name, _activation(where, kind, layer))


def _activation(where: str, kind: str, layer: Any) -> Callable[[], Any]:
    simple: dict[str, Callable[[], Any]] = {
        "ReLU": activations.ReLU,
        "Tanh": activations.Tanh,
        "Sigmoid": activations.Sigmoid,
        "GELU": activations.GELU,
        "LeakyReLU": lambda: activations.LeakyReLU(layer.negative_slope),
    }
    if kind not in simple:
        raise _untaken(where, kind, layer)
    if kind == "GELU" and layer.approximate != "none":
        raise ValueError(
            f"from_torch: {where} has approximate={layer.approximate!r}; ours is the exact GELU. "
            "Use torch.nn.GELU()."
        )
    return simple[kind]


def _untaken(where: str, kind: str, layer: Any) -> TypeError:
    """Return the error for a layer without counterpart, with the way out if there is one."""
    if kind:
        hint = _HINTS.get(kind, "Replace it, or convert the layers before and behind it.")
        return TypeError(f"from_torch cannot take {where}. {hint} Taken are {TAKEN}.")
    inner = [child for child, module in layer.named_children() if _kind(module) == "Sequential"]
    hint = f" If that is all that it runs, pass its part {inner[0]!r}." if inner else ""
    return TypeError(
        f"from_torch cannot see what the forward method of {where} does.{hint} "
        "Pass a torch.nn.Sequential of its layers, or its state_dict() with layers=[...]."
    )


def _check_flatten(where: str, layer: Any) -> None:
    if layer.start_dim != 1 or layer.end_dim != -1:
        raise ValueError(
            f"from_torch: {where} has start_dim={layer.start_dim}, end_dim={layer.end_dim}; "
            "expected 1 and -1, which keep the samples apart"
        )


def _linear(where: str, layer: Any) -> tuple[Weight, Array | None]:
    """Return weight and bias, pruned or parametrized or neither, as the layer multiplies with them."""
    arrays = {**layer._parameters, **layer._buffers}
    if "weight_g" in arrays:
        raise ValueError(
            f"from_torch: {where} has weight normalisation. "
            "Call torch.nn.utils.remove_weight_norm on it first."
        )
    if "weight_orig" in arrays and "weight_mask" not in arrays:
        raise ValueError(
            f"from_torch: {where} has weight_orig but no weight_mask (spectral normalisation?). "
            "Remove it first, torch.nn.utils.remove_spectral_norm does."
        )
    original, mask = arrays.get("weight_orig"), arrays.get("weight_mask")
    if "parametrizations" in layer._modules:
        original, mask = _faked(layer._modules["parametrizations"])
    weight = Weight.read(f"weight of {where}", layer.weight if original is None else original, mask)
    found = arrays.get("bias_orig", layer.bias)
    if found is None:
        return weight, None
    bias = as_dense(f"bias of {where}", found, weight.shape[:1])
    if "bias_mask" in arrays:
        bias = masked(bias, as_mask(f"bias of {where}", arrays["bias_mask"], bias.shape))
    return weight, bias


def _faked(parametrizations: Any) -> tuple[Any, Any]:
    """Return weight and mask of torch.ao.pruning's FakeSparsity; (None, None) for any other parametrization."""
    steps = list(parametrizations["weight"]) if "weight" in parametrizations else []
    if [type(step).__name__ for step in steps] != ["FakeSparsity"]:
        return None, None
    return parametrizations["weight"].original, steps[0].mask


def _normalization(where: str, name: str, layer: Any) -> Part:
    if layer.running_mean is None or layer.momentum is None:
        raise ValueError(
            f"from_torch: {where} expects track_running_stats=True and a momentum that is a number; "
            f"got {layer}"
        )
    statistics = as_dense(where, layer.running_mean), as_dense(where, layer.running_var)
    both = None
    if layer.affine:
        both = as_dense(where, layer.weight), as_dense(where, layer.bias)
    return normalization_part(name, statistics, both, layer.eps, layer.momentum)


def _table(where: str, name: str, kind: str, layer: Any) -> Part:
    for setting in ("max_norm", "scale_grad_by_freq"):
        if getattr(layer, setting):
            raise ValueError(f"from_torch: {where} has {setting}, which has no counterpart")
    mode = layer.mode if kind == "EmbeddingBag" else None
    if mode == "max":
        raise ValueError(f"from_torch: {where} has mode 'max'; expected 'mean' or 'sum'")
    table = as_dense(f"weight of {where}", layer.weight)
    padding = layer.padding_idx
    if mode is None and padding is not None and table[padding].any():
        raise ValueError(
            f"from_torch: {where} gives numbers other than zero for its padding_idx {padding}. "
            "Here padding is zero: set that row to zero, or padding_idx to None."
        )
    return table_part(name, table, padding, mode)
