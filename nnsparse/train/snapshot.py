"""`save` and `load`: all of a training in one file, and back with the same bits, or not at all.

What a file holds is collected here and given back in `restoring`; `nnsparse.npz` writes and reads it,
`train.checkpoint` does both for `fit`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, final

from numpy.typing import NDArray

from nnsparse import npz
from nnsparse.data import DataLoader
from nnsparse.nn._state import generators_of
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer
from nnsparse.parameter import FORWARD
from nnsparse.train.history import History
from nnsparse.train.hooks import Stateful, Update
from nnsparse.train.plain import from_plain, to_plain
from nnsparse.train.restoring import matched, put_back, shape_of

Array = NDArray[Any]

FORMAT, VERSION = "nnsparse checkpoint", 1
_ADVICE = "It is no undamaged checkpoint; compiled models are read by nnsparse.inference.load."
_PARTS = ("model", "optimizer", "updates", "callbacks", "loader", "history", "run", "extra")


def save(
    path: str | PathLike[str],
    model: Module,
    optimizer: Optimizer | None = None,
    *,
    updates: Sequence[Any] = (),
    loader: DataLoader | None = None,
    history: History | None = None,
    extra: Any = None,
) -> None:
    """Write a training to one file, from which `load` goes on bit for bit.

    Parameters
    ----------
    path : path
        The file appears under this name complete or not at all, and replaces an older one.
    model : Module
        Weights, topologies, arrays such as running means, training or evaluation mode, states of random generators.
    optimizer : Optimizer, optional
    updates : sequence
        Schedules, a `Sparsifier`, whatever else has `state_dict` and `load_state_dict`; of others the class is noted.
    loader : DataLoader, optional
        Seed and epoch of its order. In the middle of an epoch, `extra` is the place for how far it has come.
    history : History, optional
    extra : optional
        Anything of numbers, strings, None, lists, tuples, dicts and arrays.

    Raises
    ------
    TypeError
        If an argument is not as said above, or a state holds what a file of arrays and JSON cannot.
    ValueError
        If a state contains itself.
    OSError
        If the file cannot be written; what was there before is as it was.

    Notes
    -----
    The file is an uncompressed .npz of plain arrays with a JSON manifest: `numpy.load` reads it, nothing is pickled.
    Gradients are not saved: call it between two steps.

    Examples
    --------
    >>> import tempfile
    >>> from nnsparse import nn, optim
    >>> def parts():
    ...     model = nn.mlp([8, 16, 2], sparsity=0.5)
    ...     return model, optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    >>> model, optimizer = parts()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder + "/run.ckpt", model, optimizer, extra={"epoch": 3})
    ...     saved = load(folder + "/run.ckpt")
    >>> again, its_optimizer = parts()
    >>> saved.restore(again, its_optimizer)
    >>> saved.extra["epoch"], bool((again[0].weight.data == model[0].weight.data).all())
    (3, True)
    """
    if not isinstance(path, str | PathLike):
        raise TypeError(f"save expects a path; got {path!r}")
    _check("save", model, optimizer, updates, loader)
    if history is not None and not isinstance(history, History):
        raise TypeError(f"save expects history as a History; got {type(history).__name__}")
    write(
        path,
        {
            **collect(model, optimizer, updates, loader),
            "history": None if history is None else history.state_dict(),
            "extra": extra,
        },
    )


def load(path: str | PathLike[str]) -> Snapshot:
    """Return what `save`, or a `train.Checkpoint`, has written; everything in the file is checked.

    Raises
    ------
    ValueError
        If the file is damaged, of another kind or of a newer format: sizes, dtypes and hashes are checked.
    TypeError
        If `path` is none.
    OSError
        If it cannot be read.
    """
    if not isinstance(path, str | PathLike):  # open() takes the number of a file, and closes it
        raise TypeError(f"load expects a path; got {path!r}")
    with npz.explained(path, _ADVICE):
        arrays, manifest = npz.read(path, FORMAT, VERSION)
        state = from_plain(manifest.get("state"), arrays)
        if not isinstance(state, dict) or set(state) != set(_PARTS) or arrays:
            raise ValueError("its state is incomplete")
        _check_parts(state)
        found = state["history"]
        history = None if found is None else History.of_state(found)
    return Snapshot(os.fspath(path), history, state["extra"], state)


@final
@dataclass(frozen=True, eq=False)
class Snapshot:
    """A training as a file held it.

    Attributes
    ----------
    path : str
    history : History or None
    extra :
        What was given to `save` under this name.
    """

    path: str
    history: History | None
    extra: Any
    _state: dict[str, Any] = field(repr=False)

    @property
    def weights(self) -> dict[str, Array]:
        """The model's `state_dict`, for a model whose classes have other names, or to look at."""
        return dict(self._state["model"]["state"])

    @property
    def seed(self) -> int | None:
        """Seed of the order of the samples, None if no loader was saved."""
        loader = self._state["loader"]
        return None if loader is None else int(loader["seed"])

    def restore(
        self,
        model: Module,
        optimizer: Optimizer | None = None,
        *,
        updates: Sequence[Any] | None = None,
        loader: DataLoader | None = None,
    ) -> None:
        """Give each of these the state that it had when the file was written; what is left out stays as it is.

        Parameters
        ----------
        model : Module
            Of the same parts and shapes; its topologies may be others. Gradients are forgotten.
        optimizer : Optimizer, optional
            Of the same class, over this model's parameters. Settings and learning rate become those of the file.
        updates : sequence, optional
            As many as were saved, of the same classes, in the same order.
        loader : DataLoader, optional
            Of as many samples and the same mini-batches.

        Raises
        ------
        TypeError
            If an argument is of another kind.
        ValueError
            If something does not fit, or the file does not have it; then nothing has changed.
        """
        _check("restore", model, optimizer, () if updates is None else updates, loader)
        state = self._state
        stateful = (
            matched(self.path, "updates", updates or (), state["updates"])
            if updates is not None
            else []
        )
        if loader is not None:
            if state["loader"] is None:
                raise ValueError(f"{self.path} was saved without a loader. Leave loader out.")
            stateful.append(("the loader", loader, state["loader"]))
        put_back(self.path, state, model, optimizer, stateful)


# ---------------------------------------------------------------- for `train.checkpoint`


def collect(
    model: Module,
    optimizer: Optimizer | None,
    updates: Sequence[Any],
    loader: DataLoader | None,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Return the whole state, each part of which `write` takes and `put_back` gives back."""
    modules = dict(model.named_modules())
    return {
        "model": {
            "classes": {name: type(module).__name__ for name, module in modules.items()},
            "shapes": {name: shape_of(p) for name, p in model.named_parameters()},
            "state": model.state_dict(),
            "masks": {
                name: p.canonical(p.buffers[FORWARD])
                for name, p in model.named_parameters()
                if FORWARD in p.buffers
            },
            "training": {name: module._training for name, module in modules.items()},
            "generators": {n: g.bit_generator.state for n, g in generators_of(model).items()},
        },
        "optimizer": None if optimizer is None else _named(optimizer),
        "updates": [_named(update) for update in updates],
        "callbacks": [_named(callback) for callback in callbacks],
        "loader": None if loader is None else loader.state_dict(),
        "history": None,
        "run": None,
        "extra": None,
    }


def write(path: str | PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a collected state."""
    arrays: dict[str, Array] = {}
    try:
        plain = {part: to_plain(value, part, arrays) for part, value in state.items()}
    except RecursionError:
        raise ValueError(
            "a checkpoint cannot hold what contains itself, or is nested hundreds of levels deep; expected lists, "
            "tuples and dicts of a few levels in extra and in what state_dict returns."
        ) from None
    npz.write(path, FORMAT, VERSION, arrays, {"state": plain})


def _check_parts(state: Mapping[str, Any]) -> None:
    """Refuse a state whose parts are of other kinds; what is in them, those who take them over look at."""

    def entry(part: Any) -> bool:
        return isinstance(part, dict) and isinstance(part.get("class"), str) and "state" in part

    def entries(part: Any) -> bool:
        return isinstance(part, list) and all(map(entry, part))

    optimizer, loader, run = state["optimizer"], state["loader"], state["run"]
    good = {
        "model": isinstance(state["model"], dict),
        "optimizer": optimizer is None
        or (entry(optimizer) and isinstance(optimizer["state"], dict)),
        "updates": entries(state["updates"]),
        "callbacks": entries(state["callbacks"]),
        "loader": loader is None or (isinstance(loader, dict) and type(loader.get("seed")) is int),
        "run": run is None or (isinstance(run, dict) and isinstance(run.get("settings"), dict)),
    }
    if wrong := [name for name, fine in good.items() if not fine]:
        raise ValueError(f"{', '.join(wrong)} is not as in a checkpoint")


def _named(thing: Any) -> dict[str, Any]:
    """Return class and state of something; None for one without."""
    state = thing.state_dict() if isinstance(thing, Stateful) else None
    return {"class": type(thing).__name__, "state": state}


def _check(who: str, model: Any, optimizer: Any, updates: Any, loader: Any) -> None:
    """Refuse arguments of the wrong kind."""
    if not isinstance(model, Module):
        raise TypeError(f"{who} expects a model (nn.Module); got {type(model).__name__}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"{who} expects an optimizer or None; got {type(optimizer).__name__}")
    if optimizer is not None:
        own = {id(p) for p in model.parameters()}
        if any(id(p) not in own for p in optimizer.params):
            raise ValueError(
                f"{who} expects an optimizer over the model's parameters; got one with others. Make it from "
                "model.parameters()."
            )
    if not isinstance(updates, list | tuple) or not all(isinstance(u, Update) for u in updates):
        raise TypeError(f"{who} expects updates as a list of objects with step(); got {updates!r}")
    if loader is not None and not isinstance(loader, DataLoader):
        raise TypeError(
            f"{who} expects loader as a DataLoader or None; got {type(loader).__name__}"
        )
