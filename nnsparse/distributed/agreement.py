"""Whether all ranks still have the same model: `compare`, and `Patterns`, a mark that costs nothing while none moves.

Two ways of asking: bit for bit on demand, and by a few numbers that ride along with every step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, final

import numpy as np

from nnsparse.data import DataLoader
from nnsparse.distributed.communicator import Communicator, gathered
from nnsparse.optim.optimizer import Optimizer
from nnsparse.parameter import HELD, Parameter, SparseParameter
from nnsparse.train.settings import data_of, described


class RanksDifferError(RuntimeError):
    """Ranks that train together no longer agree on what they train."""


def digest(*parts: bytes) -> bytes:
    """Return 8 bytes that stand for some others."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


def compare(comm: Communicator, what: str, items: Mapping[str, bytes], hint: str) -> None:
    """Raise on all ranks if an item is not the same everywhere. A collective call.

    Parameters
    ----------
    comm : Communicator
    what : str
        What the items are, for the message.
    items : mapping of str to bytes
        Names, and digests of 8 bytes.
    hint : str
        What to do about it.

    Raises
    ------
    RanksDifferError
        Naming the first item that differs, and the ranks on which it is not what rank 0 has.
    """
    names = digest(*(name.encode() for name in items))
    own = np.frombuffer(names, np.int64)
    if others := _differing(gathered(comm, own)):
        raise RanksDifferError(
            f"rank 0 has other {what}s than {_ranks(others)}: {len(items)} of them here. {hint}"
        )
    table = gathered(comm, np.frombuffer(b"".join(items.values()), np.int64))
    for index, name in enumerate(items):
        if others := _differing(table[:, index]):
            raise RanksDifferError(
                f"{what} {name} on {_ranks(others)} differs from rank 0's. {hint}"
            )


def model_items(params: Mapping[str, Parameter]) -> dict[str, bytes]:
    """Return a digest of each parameter: its pattern, dtype, and every bit of its values."""
    items = {}
    for name, p in params.items():
        pattern = p.topology.fingerprint if isinstance(p, SparseParameter) else ""
        about = f"{p.shape} {p.dtype} {pattern}".encode()
        items[name] = digest(about, np.ascontiguousarray(p.data).tobytes())
    return items


def compare_models(
    comm: Communicator, params: Mapping[str, Parameter], steps: int | None = None
) -> None:
    """Raise on all ranks if their patterns or weights are not the same, bit for bit. A collective call; O(parameters).

    `steps` is how many they have made together since they were, None if they may never have been.

    Raises
    ------
    RanksDifferError
        Naming the first parameter that differs, and where.
    """
    if steps is None:
        what = "parameter"
        hint = (
            "Make the model, and all that draws numbers for it (Sparsifier, criteria's batches), with the same seed "
            "and data on all ranks, and change it on all of them alike."
        )
    else:
        what = f"after {steps} steps, parameter"
        hint = (
            "They began alike and had the same gradients: whatever sets the learning rate, or changes optimizer or "
            "weights, has to do so on all ranks alike, updates and callbacks too."
        )
    compare(comm, what, model_items(params), hint)


def compare_loaders(comm: Communicator, loader: DataLoader) -> None:
    """Raise on all ranks if their mini-batches would not be the same. A collective call.

    Parts of one loader are to be the same but for the rank. Of the samples all targets and weights are looked at, and
    some rows of X.

    Raises
    ------
    RanksDifferError
        Naming what differs.
    """
    said = {
        **data_of(loader),
        "seed": loader.seed,
        "epoch": loader.epoch,
        "parts": loader.part[1],
    }
    hint = (
        "All ranks are to load the same data, with the same rng=..., and to take their part of it."
    )
    compare(comm, "DataLoader:", _digests(said), hint)


def compare_settings(comm: Communicator, settings: Mapping[str, Any] | None) -> None:
    """Raise on all ranks if their loops would not make the same steps. A collective call, unless there are none.

    Raises
    ------
    RanksDifferError
        Naming the setting.
    """
    hint = (
        "Pass the same to fit on all ranks, and let all of them go on from the same checkpoint: a rank that makes "
        "fewer steps would let the others wait."
    )
    if not settings:
        return
    compare(comm, "fit:", _digests(settings), hint)


def compare_optimizers(comm: Communicator, optimizer: Optimizer) -> None:
    """Raise on all ranks if a step of theirs would not be the same for the same gradient. A collective call.

    Raises
    ------
    RanksDifferError
        Naming the class, the setting or the learning rate.
    """
    hint = (
        "Make it alike on all ranks: each makes the whole step, and their weights would come apart."
    )
    compare(comm, "optimizer:", _digests({"class": type(optimizer).__qualname__}), hint)
    own = optimizer.settings
    said = {
        "parameters": [p.shape for p in optimizer.params],
        "lr": optimizer.lr,
        **{field.name: described(getattr(own, field.name)) for field in fields(own)},
    }
    compare(comm, "optimizer:", _digests(said), hint)


@final
class Patterns:
    """A digest of all sparsity patterns of a model, worked out anew only when one has moved."""

    def __init__(self, params: Sequence[Parameter]) -> None:
        self._weights = [p for p in params if isinstance(p, SparseParameter)]
        self._seen: list[Any] = []
        self._digest = digest()

    def mark(self) -> bytes:
        """Return the digest of where weights are and which of them are held at zero, 8 bytes."""
        present = [part for w in self._weights for part in (w.topology, w.buffers.get(HELD))]
        if len(present) != len(self._seen) or any(
            a is not b for a, b in zip(present, self._seen, strict=True)
        ):
            self._digest = digest(
                *(w.topology.fingerprint.encode() for w in self._weights),
                *(w.buffers[HELD].tobytes() for w in self._weights if HELD in w.buffers),
            )
            self._seen = present
        return self._digest


def _digests(said: Mapping[str, Any]) -> dict[str, bytes]:
    """Return a digest of each of some plain values."""
    return {name: digest(repr(value).encode()) for name, value in said.items()}


def _differing(column: Any) -> list[int]:
    """Return the ranks whose number is not that of rank 0."""
    flat = np.reshape(column, (len(column), -1))
    found: list[int] = np.flatnonzero((flat != flat[0]).any(axis=1)).tolist()
    return found


def _ranks(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"rank{'s'[: len(numbers) > 1]} {text}"
