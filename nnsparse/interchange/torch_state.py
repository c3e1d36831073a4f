"""From a state dict of torch to parts: names and arrays, from which order and activations have to be told or guessed.

A state dict has no functions without weights. The guess is the one of a `Sequential` of Linear and ReLU; where names
and numbers speak against it, there is an error that says how to tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from nnsparse.interchange.affine import Weight
from nnsparse.interchange.arrays import Array, as_dense, as_mask, masked
from nnsparse.interchange.parts import Part, affine_part, normalization_part, plain_part
from nnsparse.nn.activations import ReLU
from nnsparse.nn.module import Module

_FAKED = "parametrizations.weight.original", "parametrizations.weight.0.mask"
_AFFINE = ("weight", "bias", "weight_orig", "weight_mask", "bias_orig", "bias_mask", *_FAKED)
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_KNOWN = (*_AFFINE, *_STATISTICS)
_NORMED = ("weight_g", "weight_v", "weight_u", "original0", "original1")

Layers = Sequence[str | Module | type[Module]]
Entries = dict[str, Any]


def parts_of_state(state: Mapping[str, Any], layers: Layers | None) -> list[Part]:
    """Return the parts of a state dict; `layers` names them in order, with the activations between them.

    Raises
    ------
    TypeError, ValueError
        If an entry belongs to no layer that is known here, or order or activations cannot be told.
    """
    found = _by_layer(state)
    parts = {name: _part(name, entries) for name, entries in found.items()}
    if layers is not None:
        return _told(parts, layers)
    return _guessed(_ordered(found), parts)


# ---------------------------------------------------------------- which arrays belong together


def _by_layer(state: Mapping[str, Any]) -> dict[str, Entries]:
    """Return, by name of the layer, its entries by what they are."""
    found: dict[str, Entries] = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise TypeError(f"from_torch expects names as the keys of a state dict; got {key!r}")
        if isinstance(value, Mapping):
            raise TypeError(
                f"from_torch: {key!r} is itself a mapping: a checkpoint? Pass checkpoint[{key!r}]."
            )
        name, what = _split(key)
        if what not in _KNOWN:
            normed = what.rsplit(".", 1)[-1] in _NORMED
            hint = (
                "Remove the normalisation of weights before state_dict() is called."
                if normed
                else "Leave it out if the network works without it."
            )
            raise ValueError(
                f"from_torch cannot use {key!r}: expected weight, bias, their masks or running "
                f"statistics of a Linear or BatchNorm1d. {hint}"
            )
        found.setdefault(name, {})[what] = value
    if not found:
        raise ValueError("from_torch expects at least one layer with weights; got none")
    return found


def _split(key: str) -> tuple[str, str]:
    """Return (layer, what) of a key such as "net.0.weight"."""
    dotted = f".{key}"
    at = dotted.find(".parametrizations.")
    at = dotted.rindex(".") if at < 0 else at
    return dotted[1:at], dotted[at + 1 :]


def _part(name: str, entries: Entries) -> Part:
    where = f"layer {name!r}" if name else "the layer"
    if any(what in entries for what in _STATISTICS):
        return _normalization(where, name, entries)
    names = [n for n in ("weight", "weight_orig", _FAKED[0]) if n in entries]
    masks = [n for n in ("weight_mask", _FAKED[1]) if n in entries]
    pairs: dict[tuple[str, ...], list[str]] = {
        ("weight",): [],
        ("weight_orig",): ["weight_mask"],
        (_FAKED[0],): [_FAKED[1]],
    }
    if tuple(names) not in pairs or pairs[tuple(names)] != masks:
        raise ValueError(
            f"from_torch: {where} expects weight, or weight_orig with weight_mask; got {sorted(entries)}"
        )
    mask = entries[masks[0]] if masks else None
    weight = Weight.read(f"weight of {where}", entries[names[0]], mask)
    bias = None
    if (given := entries.get("bias", entries.get("bias_orig"))) is not None:
        bias = as_dense(f"bias of {where}", given, weight.shape[:1])
    if "bias_mask" in entries:
        if bias is None or "bias" in entries:
            raise ValueError(f"from_torch: {where} expects bias_orig with bias_mask")
        bias = masked(bias, as_mask(f"bias of {where}", entries["bias_mask"], bias.shape))
    return affine_part(name, weight, bias)


def _normalization(where: str, name: str, entries: Entries) -> Part:
    given = set(entries) - {"num_batches_tracked"}
    both = {"running_mean", "running_var"}
    if given not in (both, both | {"weight", "bias"}):
        raise ValueError(
            f"from_torch: {where} expects running_mean and running_var, and both or none of weight "
            f"and bias; got {sorted(entries)}"
        )
    mean = as_dense(f"running_mean of {where}", entries["running_mean"])
    if mean.ndim != 1 or not mean.size:
        raise ValueError(f"running_mean of {where}: expected shape (n,); got {mean.shape}")
    arrays: list[Array] = [
        as_dense(f"{what} of {where}", entries[what], mean.shape)
        for what in ("running_var", "weight", "bias")
        if what in entries
    ]
    return normalization_part(
        name, (mean, arrays[0]), (arrays[1], arrays[2]) if arrays[1:] else None
    )


# ---------------------------------------------------------------- in which order


def _ordered(found: Mapping[str, Entries]) -> list[str]:
    """Return the names in order: by their numbers where these tell it, else as they come."""
    names = list(found)
    tails = _without_common(names)
    patterns = {re.sub(r"\d+", "#", tail) for tail in tails}
    paths = all(re.fullmatch(r"\d+(\.\d+)*", tail) for tail in tails)
    if len(names) > 1 and (len(patterns) == 1 or paths):
        numbers = {
            name: [int(n) for n in re.findall(r"\d+", tail)]
            for name, tail in zip(names, tails, strict=True)
        }
        return sorted(names, key=lambda name: numbers[name])
    for name, entries in found.items():
        kinds = list(entries)
        if len(names) > 1 and "bias" in kinds and "weight" in kinds[kinds.index("bias") :]:
            raise ValueError(
                "from_torch cannot tell the order of the layers: the names seem to have been sorted "
                f"(bias stands before weight in {name!r}). {_tell(names)}"
            )
    return names


def _without_common(names: Sequence[str]) -> list[str]:
    """Return the names without the dotted beginning that all of them share."""
    split = [name.split(".") for name in names]
    common = 0
    while all(len(s) > common + 1 and s[common] == split[0][common] for s in split):
        common += 1
    return [".".join(s[common:]) for s in split]


# ---------------------------------------------------------------- what stands between


def _guessed(names: Sequence[str], parts: Mapping[str, Part]) -> list[Part]:
    """Return the parts with a ReLU between every two affine layers, where names leave exactly one place for it."""
    after: set[str] = set()  # the layers behind which a ReLU stands
    run: list[str] = []  # what has come since the last affine layer, that one first
    for name in names:
        run.append(name)
        if not parts[name].is_affine:
            continue
        if parts[run[0]].is_affine and len(run) > 1:
            after.add(_place(run, names))
        elif any(_room(a, b) is not False for a, b in pairwise(run)):
            raise ValueError(_untold(run, names))
        run = [name]
    if any(_room(a, b) is not False for a, b in pairwise(run)):
        raise ValueError(_untold(run, names))
    result: list[Part] = []
    for name in names:
        result.append(parts[name])
        if name in after:
            result.append(plain_part("", ReLU))
    return result


def _place(run: Sequence[str], names: Sequence[str]) -> str:
    """Return the layer behind which a ReLU stands, of two affine ones and the normalisations between them."""
    rooms = [_room(a, b) for a, b in pairwise(run)]
    if rooms == [None]:
        return run[0]
    if rooms.count(True) == 1 and None not in rooms:
        return run[rooms.index(True)]
    raise ValueError(_untold(run, names))


def _room(before: str, after: str) -> bool | None:
    """Whether the numbers of two layers leave room between them; None where they have none in one list."""
    heads, numbers = zip(*(name.rpartition(".")[::2] for name in (before, after)), strict=True)
    if heads[0] != heads[1] or not all(number.isdigit() for number in numbers):
        return None
    return int(numbers[1]) > int(numbers[0]) + 1


def _untold(run: Sequence[str], names: Sequence[str]) -> str:
    return (
        f"from_torch cannot tell which activation stands where between {', '.join(map(repr, run))}: "
        f"a state dict does not say. {_tell(names)}"
    )


def _tell(names: Sequence[str]) -> str:
    shown = ", nn.ReLU(), ".join(f'"{name}"' for name in names)
    return f"Pass layers=[{shown}], in the order and with the activations that the network has."


def _told(parts: Mapping[str, Part], layers: Layers) -> list[Part]:
    """Return the parts that `layers` lists."""
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(
            f"from_torch expects layers as a list of names and activations; got {layers!r}"
        )
    result: list[Part] = []
    for item in layers:
        if isinstance(item, str):
            if item not in parts:
                raise ValueError(
                    f"from_torch: layers names {item!r}; the state dict has {list(parts)}"
                )
            result.append(parts[item])
            continue
        module = item() if isinstance(item, type) and issubclass(item, Module) else item
        if not isinstance(module, Module) or any(True for _ in module.parameters()):
            raise TypeError(
                "from_torch expects layers to hold names and nnsparse modules without parameters, such as nn.ReLU(); "
                f"got {item!r}"
            )
        result.append(plain_part("", lambda module=module: module))  # type: ignore[misc]
    if unused := [name for name in parts if name not in layers]:
        raise ValueError(f"from_torch: layers leaves out {unused}. Take them out of the mapping.")
    return result
