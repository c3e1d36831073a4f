"""What has to be the same for a run to be continued: `settings_of` a run, and where two of them `differ`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from nnsparse.data import DataLoader
from nnsparse.nn.module import Module
from nnsparse.optim.lr import LRScheduler
from nnsparse.parameter import SparseParameter
from nnsparse.rows import Rows, rows_of
from nnsparse.sparsify.sparsifier import Sparsifier
from nnsparse.train.callbacks import EarlyStopping
from nnsparse.train.evaluation import Array, Data, arrays
from nnsparse.train.restoring import shape_of

if TYPE_CHECKING:
    from nnsparse.train.loop import Loop

_ROWS = 64  # of X that are looked at, spread over all


def settings_of(loop: Loop, validation: Data | None) -> dict[str, Any]:
    """Return the settings of a run, as plain as JSON, before its first step.

    The learning rate is among them unless a schedule sets it, whose own settings are.
    """
    scheduled = any(isinstance(update, LRScheduler) for update in loop.hooks.updates)
    return {
        "epochs": loop.n_epochs,
        "accumulate": loop.accumulate,
        "clip_norm": loop.clip_norm,
        "loss": described(loop.loss_fn),
        "optimizer": [type(loop.optimizer).__name__, described(loop.optimizer.settings)],
        "learning_rate": None if scheduled else loop.optimizer.lr,
        "updates": [_update(update) for update in loop.hooks.updates],
        "layers": {
            name: type(module).__name__ if _is_sparse(module) else repr(module)
            for name, module in loop.model.named_modules()
            if not any(True for _ in module.children())
        },
        "parameters": {name: shape_of(p) for name, p in loop.model.named_parameters()},
        "callbacks": [
            [type(callback).__name__, callback.settings]
            for callback in loop.hooks.callbacks
            if isinstance(callback, EarlyStopping)
        ],
        "data": data_of(loop.loader),
        "validation": None if validation is None else content_of(*arrays("fit", validation)),
    }


def differ(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting that is not the same."""
    lines = []
    for name in dict.fromkeys((*own, *theirs)):
        here, there = own.get(name), theirs.get(name)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            lines += [f"{name}: {line}" for line in differ(here, there)]
        elif here != there:
            lines.append(f"{name} is {_short(there)} in the file, {_short(here)} here")
    return lines


def described(thing: Any, depth: int = 8) -> Any:
    """Return what a setting is, as plain as JSON: dataclasses by their fields, functions by name and closure.

    Of what it does not know, or finds below `depth` levels, it tells the class only.
    """

    def inside(part: Any) -> Any:
        return described(part, depth - 1)

    if depth == 0:
        return type(thing).__name__
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, Enum):
        return thing.name
    if isinstance(thing, tuple | list):
        return [inside(item) for item in thing]
    if isinstance(thing, partial):
        return [inside(part) for part in (thing.func, thing.args, sorted(thing.keywords.items()))]
    if isinstance(thing, FunctionType):
        return [thing.__qualname__, *inside([c.cell_contents for c in thing.__closure__ or ()])]
    if isinstance(thing, BuiltinFunctionType | type):
        return thing.__qualname__
    if is_dataclass(thing):
        content = {f.name: inside(getattr(thing, f.name)) for f in fields(thing)}
        return {"class": type(thing).__name__, **content}
    return type(thing).__name__


def data_of(loader: DataLoader) -> dict[str, Any]:
    """Return sizes, order and a checksum of a data set."""
    return {
        "samples": len(loader.rows),
        "features": loader.rows.shape[1],
        "targets": [loader.y.dtype.str, *loader.y.shape[1:]],
        "weighted": loader.sample_weight is not None,
        "batch_size": loader.batch_size,
        "shuffle": bool(loader.shuffle),
        "drop_last": bool(loader.drop_last),
        "content": content_of(loader.rows, loader.y, loader.sample_weight),
    }


def content_of(x: Any, y: Array, weights: Array | None = None) -> str:
    """Return a checksum of all targets (n,) or (n, n_targets), of all weights (n,), and of some rows of X (n, n_in)."""
    rows, n = rows_of(x), len(y)
    some = np.unique(np.linspace(0, n - 1, min(n, _ROWS)).astype(np.int64))
    digest = hashlib.sha256(np.ascontiguousarray(y).tobytes())
    if weights is not None:
        digest.update(weights.tobytes())
    if isinstance(rows, Rows):
        digest.update(np.ascontiguousarray(rows.array[rows.index[some]]).tobytes())
    else:
        part = rows.matrix[rows.index[some]]
        digest.update(part.indices.astype(np.int64).tobytes() + part.data.tobytes())
    return digest.hexdigest()[:16]


def _update(update: object) -> Any:
    """Return the class of an update and, of those that we know, its settings."""
    name = type(update).__name__
    if isinstance(update, Sparsifier):
        skip = [target.name for target in update.targets]
        return [
            name,
            described(update.recipe),
            update.total_steps,
            skip,
            described(update._storage),
        ]
    if isinstance(update, LRScheduler):
        return [name, described(update.schedule), update.total_steps, update.base_lr]
    return [name]


def _is_sparse(module: Module) -> bool:
    """Whether the text of a module would tell its number of weights, which may change."""
    return isinstance(vars(module).get("weight"), SparseParameter)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:160]}... ({len(text)} characters)"
