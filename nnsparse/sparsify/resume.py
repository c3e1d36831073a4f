"""The state of a Sparsifier as numbers and arrays, in canonical order, and back.

Masks of held weights, forward masks and copies of weights lie in the parameters' buffers; they are saved here because
neither model nor optimizer knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import tiles
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import State
from nnsparse.parameter import FORWARD, HELD, Parameter
from nnsparse.sparsify.checks import seed_of
from nnsparse.sparsify.context import Target
from nnsparse.sparsify.copies import REWIND, START
from nnsparse.sparsify.report import Record
from nnsparse.topology import Topology

Array = NDArray[Any]

OWN = (HELD, FORWARD, START, REWIND)  # the buffers that recipes make


@dataclass(frozen=True)
class Loaded:
    """A checked state; `apply` writes the buffers.

    Attributes
    ----------
    steps, seed : int
    first, explored : list of Topology
    history : list of Record
    buffers : list of (parameter, name -> array in the parameter's own order)
    """

    steps: int
    seed: int
    first: list[Topology]
    explored: list[Topology]
    history: list[Record]
    buffers: list[tuple[Parameter, dict[str, Array]]]

    def apply(self) -> None:
        """Give every parameter the buffers that the state has, and no others of a recipe's."""
        for parameter, buffers in self.buffers:
            for name in OWN:
                parameter.buffers.pop(name, None)
            parameter.buffers.update(buffers)


def collect(
    numbers: Mapping[str, int],
    recipe: str,
    model: Module,
    first: Sequence[Topology],
    explored: Sequence[Topology],
    history: Sequence[Record],
) -> State:
    """Return the state, all copied: `numbers` ("steps", "total_steps", "seed"), name, topologies, buffers, history."""
    state: State = {**numbers, "recipe": np.array(recipe)}
    for kind, topologies in (("first", first), ("explored", explored)):
        for index, topology in enumerate(topologies):
            state[f"{kind}.{index}.indptr"] = np.array(topology.indptr)
            state[f"{kind}.{index}.indices"] = np.array(topology.indices)
    for name, parameter in model.named_parameters():
        for own in OWN:
            if own in parameter.buffers:
                state[f"{name}.{own}"] = np.array(parameter.canonical(parameter.buffers[own]))
    state["history.steps"] = np.array([(r.step, r.grown) for r in history], np.int64).reshape(-1, 2)
    state["history.counts"] = np.array([r.counts for r in history], np.int64).reshape(
        -1, len(first)
    )
    state["history.seconds"] = np.array(
        [(r.pruning, r.refreshing) for r in history], np.float64
    ).reshape(-1, 2)
    return state


def check(
    state: Mapping[str, Any],
    recipe: str,
    model: Module,
    targets: Sequence[Target],
    total_steps: int,
) -> Loaded:
    """Return what `collect` saved, after looking at all of it.

    Raises
    ------
    ValueError
        If something is missing, unknown, or does not fit this model, recipe or training.
    """
    unread = set(state)

    def take(key: str) -> Any:
        if key not in state:
            raise ValueError(f"Sparsifier: the state lacks {key!r}. Is it a Sparsifier's?")
        unread.discard(key)
        return state[key]

    if (name := str(take("recipe"))) != recipe:
        raise ValueError(
            f"Sparsifier: the state is from recipe {name!r}; this one runs {recipe!r}."
        )
    steps, total, seed = (_integer(key, take(key)) for key in ("steps", "total_steps", "seed"))
    seed_of(seed)
    if total != total_steps or not 0 <= steps <= total:
        raise ValueError(
            f"Sparsifier: the state is from step {steps} of {total}; this training has total_steps={total_steps}."
        )
    topologies: dict[str, list[Topology]] = {"first": [], "explored": []}
    for kind, found in topologies.items():
        for index, target in enumerate(targets):
            indptr, indices = (take(f"{kind}.{index}.{part}") for part in ("indptr", "indices"))
            try:
                found.append(Topology(target.topology.shape, indptr, indices))
            except (TypeError, ValueError) as error:
                raise ValueError(f"Sparsifier: {kind} of layer {target.name!r}: {error}") from error
    buffers: list[tuple[Parameter, dict[str, Array]]] = []
    for name, parameter in model.named_parameters():
        own: dict[str, Array] = {}
        for kind in OWN:
            if f"{name}.{kind}" in state:
                own[kind] = _fitting(f"{name}.{kind}", take(f"{name}.{kind}"), parameter)
        buffers.append((parameter, own))
    history = _history(
        take("history.steps"),
        take("history.counts"),
        take("history.seconds"),
        len(targets),
    )
    if unread:
        raise ValueError(
            f"Sparsifier has no place for {sorted(unread)}. Is the state from another model or recipe?"
        )
    return Loaded(steps, seed, topologies["first"], topologies["explored"], history, buffers)


def _integer(key: str, value: Any) -> int:
    """Return a saved number."""
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iu":
        raise ValueError(f"Sparsifier expects {key} in the state as an integer; got {value!r}.")
    return int(array)


def _fitting(key: str, value: Any, parameter: Parameter) -> Array:
    """Return a saved buffer in the parameter's own order."""
    array = np.asarray(value)
    if array.shape != parameter.data.shape or array.dtype != parameter.dtype:
        raise ValueError(
            f"Sparsifier expects {key} of shape {parameter.data.shape} and dtype {parameter.dtype}; got {array.shape} "
            f"and {array.dtype}. Load the model's state first."
        )
    return tiles.aligned(parameter.planned(array))


def _history(steps: Any, counts: Any, seconds: Any, n: int) -> list[Record]:
    rows = [np.asarray(array) for array in (steps, counts, seconds)]
    length = rows[0].shape[0] if rows[0].ndim else 0
    shapes = [(length, 2), (length, n), (length, 2)]
    if [row.shape for row in rows] != shapes or any(row.dtype.kind not in "iuf" for row in rows):
        raise ValueError(
            f"Sparsifier expects a history of shapes (n, 2), (n, {n}), (n, 2); got {[row.shape for row in rows]}."
        )
    return [
        Record(int(s), tuple(int(k) for k in c), int(g), float(p), float(r))
        for (s, g), c, (p, r) in zip(*rows, strict=True)
    ]
