"""The names and arrays of a model's state, their checked replacement (see `Module.state_dict`), and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.parameter import FORWARD, HELD, Parameter, SparseParameter
from nnsparse.topology import Topology

if TYPE_CHECKING:
    from nnsparse.nn.module import Module

Array = NDArray[Any]


@dataclass(frozen=True)
class Entry:
    """One named array of a state: how to read it, and whether its shape may change on loading."""

    get: Callable[[], Array]
    fixed_shape: bool = True


def entries_of(model: Module) -> dict[str, Entry]:
    """Return name → entry for every parameter and buffer of a model."""
    entries: dict[str, Entry] = {}
    for name, p in model.named_parameters():
        if isinstance(p, SparseParameter):
            entries[name] = Entry(p.canonical, fixed_shape=False)
            entries[f"{name}.indptr"] = Entry(lambda p=p: p.topology.indptr)  # type: ignore[misc]
            entries[f"{name}.indices"] = Entry(
                lambda p=p: p.topology.indices,  # type: ignore[misc]
                fixed_shape=False,
            )
        else:
            entries[name] = Entry(lambda p=p: p.data)  # type: ignore[misc]
    for prefix, module in model.named_modules():
        for buffer in module._buffers:
            name = f"{prefix}.{buffer}" if prefix else buffer
            entries[name] = Entry(lambda m=module, b=buffer: getattr(m, b))  # type: ignore[misc]
    return entries


def check_state(model: Module, state: Mapping[str, ArrayLike]) -> list[Callable[[], None]]:
    """Return the changes that loading `state` makes, after checking all of it."""
    if not isinstance(state, Mapping):
        raise TypeError(f"load_state_dict expects arrays by name; got {type(state).__name__}")
    entries = entries_of(model)
    missing, unknown = sorted(entries.keys() - state.keys()), sorted(state.keys() - entries.keys())
    if missing or unknown:
        raise KeyError(
            f"load_state_dict: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}"
        )
    arrays = {name: np.asarray(value) for name, value in state.items()}
    for name, entry in entries.items():
        expected = entry.get()
        got = arrays[name]
        if got.dtype.kind not in "fiub":
            raise ValueError(f"load_state_dict: {name} has dtype {got.dtype}; expected numbers")
        if entry.fixed_shape and got.shape != expected.shape:
            raise ValueError(
                f"load_state_dict: {name} expects shape {expected.shape}; got {got.shape}"
            )
    changes: list[Callable[[], None]] = []
    for name, p in model.named_parameters():
        if isinstance(p, SparseParameter):
            changes.append(_replace_sparse(name, p, arrays))
        else:
            changes.append(_replace_dense(name, p.data, arrays[name]))
    for prefix, module in model.named_modules():
        for buffer in module._buffers:
            name = f"{prefix}.{buffer}" if prefix else buffer
            changes.append(_replace_dense(name, getattr(module, buffer), arrays[name]))
    return changes


def generators_of(model: Module) -> dict[str, np.random.Generator]:
    """Return dotted name → generator for all that the parts of a model draw random numbers from."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, np.random.Generator)
    }


def remember(model: Module) -> Callable[[], None]:
    """Return a function that gives a model back all that it has now, bit for bit, as often as it is called.

    Parameters with their topologies, gradients and buffers, arrays of modules, modes, and states of generators.
    """
    undo: list[Callable[[], None]] = [_remembered(p) for p in model.parameters()]
    for module in model.modules():
        undo.append(partial(setattr, module, "_training", module._training))
        for name in module._buffers:
            array = getattr(module, name)
            undo.append(partial(np.copyto, array, array.copy()))
    for generator in generators_of(model).values():
        bits = generator.bit_generator
        undo.append(partial(setattr, bits, "state", deepcopy(bits.state)))

    def give_back() -> None:
        for change in undo:
            change()

    return give_back


def _remembered(p: Parameter) -> Callable[[], None]:
    data, grad, values = p.data, p.grad, p.data.copy()
    topology = p.topology if isinstance(p, SparseParameter) else None
    buffers = {name: (array, array.copy()) for name, array in p.buffers.items()}

    def give_back() -> None:
        p.data, p.grad = data, grad
        np.copyto(data, values)
        if isinstance(p, SparseParameter) and topology is not None:
            p._topology = topology
        p.buffers.clear()
        for name, (array, copy) in buffers.items():
            np.copyto(array, copy)
            p.buffers[name] = array

    return give_back


def _replace_dense(name: str, target: Array, array: Array) -> Callable[[], None]:
    if not np.can_cast(array.dtype, target.dtype, "same_kind"):
        raise ValueError(f"load_state_dict: {name} expects dtype {target.dtype}; got {array.dtype}")
    return lambda: np.copyto(target, array)


def _replace_sparse(
    name: str, p: SparseParameter, arrays: Mapping[str, Array]
) -> Callable[[], None]:
    values = arrays[name]
    try:
        topology = Topology(p.topology.shape, arrays[f"{name}.indptr"], arrays[f"{name}.indices"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"load_state_dict: topology of {name}: {error}") from error
    if values.shape != (topology.nnz,):
        raise ValueError(
            f"load_state_dict: {name} expects ({topology.nnz},) values; got {values.shape}"
        )

    def change() -> None:
        for mask in (FORWARD, HELD):  # of the weights before; all that is loaded is alive
            p.buffers.pop(mask, None)
        if topology != p.topology:
            p.move_to(topology)
        p.set_canonical(values)

    return change
