"""Giving a saved state back to everything that takes part in a training, or to nothing: `put_back`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np

from nnsparse import tiles
from nnsparse.nn._state import generators_of, remember
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer
from nnsparse.parameter import FORWARD, Parameter, SparseParameter
from nnsparse.train.hooks import Stateful


def put_back(
    path: str,
    state: Mapping[str, Any],
    model: Module,
    optimizer: Optimizer | None = None,
    stateful: Sequence[tuple[str, Stateful, Any]] = (),
) -> None:
    """Give the model, the optimizer and all the others their states.

    Parameters
    ----------
    path : str
        For messages.
    state : mapping
        With "model" and "optimizer" as `snapshot.collect` returns them.
    model, optimizer :
        What gets them.
    stateful : sequence of (str, Stateful, state)
        The others in their order, and what to call them in a message.

    Raises
    ------
    ValueError
        If something does not fit; then everything has the bits that it had before.

    Notes
    -----
    What optimizer and updates check depends on the model's new topologies, so the model comes first, and whoever
    refuses sends all of them back. Cost: a copy of all weights and buffers while it lasts.
    """
    undo_model = remember(model)
    undo: list[Callable[[], None]] = []
    undo_optimizer = undo_model if optimizer is None else optimizer._remember()
    where = "the model"
    try:
        _give_model(model, state["model"])
        if optimizer is not None:
            where = "the optimizer"
            own = saved_state(optimizer, state["optimizer"])
            optimizer.load_state_dict(own)
        for name, thing, value in stateful:
            where = name
            undo.append(_undone(thing))
            thing.load_state_dict(value)
        if optimizer is not None:
            optimizer.lr = own["lr"]  # schedules have set what they think it is
        model.zero_grad()
    except BaseException as error:
        undo_model()
        for change in reversed(undo):
            with suppress(Exception):  # who refuses even what it had has not taken the new state
                change()
        undo_optimizer()
        undo_model()  # of what updates keep with the weights, the very arrays
        if not isinstance(error, Exception):
            raise
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ValueError(f"{path} does not fit {where}: {reason} Nothing was changed.") from error


def matched(path: str, name: str, things: Sequence[Any], saved: Any) -> list[tuple[str, Any, Any]]:
    """Return the stateful ones of some updates or callbacks with their saved states, as `put_back` takes them.

    Raises
    ------
    ValueError
        If there are more or fewer, of other classes or in another order than in the file.
    """
    classes = [type(thing).__name__ for thing in things]
    theirs = [_class_of(entry) for entry in saved] if isinstance(saved, list) else None
    if classes != theirs:
        raise ValueError(
            f"{path} was saved with {name}={theirs}; got {classes}. Pass as many, of the same classes, in this order."
        )
    return [
        (f"{name}[{i}] ({entry['class']})", thing, saved_state(thing, entry))
        for i, (thing, entry) in enumerate(zip(things, saved, strict=True))
        if isinstance(thing, Stateful)
    ]


def saved_state(thing: object, entry: Mapping[str, Any] | None) -> Any:
    """Return the state of an entry, if it is of the class of `thing`."""
    own, theirs = type(thing).__name__, _class_of(entry)
    if entry is None or theirs != own or entry.get("state") is None:
        found = "none" if theirs in (None, own) else f"one of {theirs}"
        raise ValueError(f"expected the state of a {own} in the file; it has {found}.")
    return entry["state"]


def _class_of(entry: Any) -> str | None:
    return entry.get("class") if isinstance(entry, dict) else None


def shape_of(parameter: Parameter) -> list[Any]:
    """Return dtype and shape of a parameter, of a sparse one that of the matrix."""
    sparse = isinstance(parameter, SparseParameter)
    shape = parameter.topology.shape if sparse else parameter.data.shape  # type: ignore[attr-defined]
    return [parameter.dtype.name, *shape]


def _undone(thing: Stateful) -> Callable[[], None]:
    before = deepcopy(thing.state_dict())
    return lambda: thing.load_state_dict(before)


def _give_model(model: Module, state: Mapping[str, Any]) -> None:
    """Give a model weights, topologies, masks, arrays, modes and random states."""
    modules = dict(model.named_modules())
    generators = generators_of(model)
    _same("parts", {n: type(m).__name__ for n, m in modules.items()}, state["classes"])
    _same("parameters", {n: shape_of(p) for n, p in model.named_parameters()}, state["shapes"])
    kinds = {n: type(g.bit_generator).__name__ for n, g in generators.items()}
    theirs = {n: s["bit_generator"] for n, s in state["generators"].items()}
    _same("random generators", kinds, theirs)
    model.load_state_dict(state["state"])
    for name, p in model.named_parameters():
        p.buffers.pop(FORWARD, None)
        if name in state["masks"]:
            mask = np.asarray(state["masks"][name])
            if mask.shape != p.data.shape or mask.dtype != p.dtype:
                raise ValueError(f"the forward mask of {name} has {mask.dtype} {mask.shape}.")
            p.buffers[FORWARD] = tiles.aligned(p.planned(mask))
    for name, module in modules.items():
        module._training = bool(state["training"][name])
    for name, generator in generators.items():
        generator.bit_generator.state = state["generators"][name]


def _same(what: str, own: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Say where two descriptions of a model differ first."""
    for name in [*own, *theirs]:
        if own.get(name) != theirs.get(name):
            here, there = (x.get(name, "missing") for x in (own, theirs))
            raise ValueError(
                f"its {what} differ: {name or 'the model'} is {there} in the file, {here} here."
            )
