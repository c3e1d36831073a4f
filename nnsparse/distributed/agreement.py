"""Whether all ranks still have the same model: `compare`, and `Patterns`, a mark that costs nothing while none moves.

Two ways of asking: bit for bit on demand, and by a few numbers that ride along with every step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from nnsparse.data import DataLoader
from nnsparse.distributed.communicator import Communicator, gathered
from nnsparse.parameter import HELD, Parameter, SparseParameter


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


def compare_loaders(
    comm: Communicator, loader: DataLoader, settings: Mapping[str, Any] | None = None
) -> None:
    """Raise on all ranks if they would not make the same steps on the same mini-batches. A collective call.

    Parts of one loader are to be the same but for the rank; `settings` are those of the loop.

    Raises
    ------
    RanksDifferError
        Naming what differs.
    """
    said = {
        "samples": len(loader.rows),
        "batch_size": loader.batch_size,
        "shuffle": loader.shuffle,
        "drop_last": loader.drop_last,
        "seed": loader.seed,
        "epoch": loader.epoch,
        "parts": loader.part[1],
    }
    items = {name: digest(repr(value).encode()) for name, value in said.items()}
    hint = (
        "All ranks are to load the same data, with the same rng=..., and to take their part of it."
    )
    compare(comm, "DataLoader:", items, hint)
    if not settings:
        return
    items = {name: digest(repr(value).encode()) for name, value in settings.items()}
    hint = (
        "Pass the same to fit on all ranks, and let all of them go on from the same checkpoint: a rank that makes "
        "fewer steps would let the others wait."
    )
    compare(comm, "fit:", items, hint)


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


def _differing(column: Any) -> list[int]:
    """Return the ranks whose number is not that of rank 0."""
    flat = np.reshape(column, (len(column), -1))
    found: list[int] = np.flatnonzero((flat != flat[0]).any(axis=1)).tolist()
    return found


def _ranks(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"rank{'s'[: len(numbers) > 1]} {text}"
