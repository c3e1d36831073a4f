"""Computed arrays kept on disk between runs: compressed .npz files without pickle.

A cache may be missing, unwritable, or hold anything; then the arrays are computed, never an error.
The data home may be read-only, so the files lie in the user's cache directory.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import npz

from ._home import _cache_home, _part_of

__all__ = ["cached", "keep"]

_MOST_PACKED = 1032  # bytes that deflate can make of one


def cached(name: str, key: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that were kept under a key, or None.

    Parameters
    ----------
    name : str
        First part of the file's name.
    key : str
        All that the arrays depend on.

    Returns
    -------
    dict or None
        None if there are none, or their file is damaged, or they have another key.
    """
    try:
        path = _path(name, key)
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for info in archive.infolist():
                if info.file_size > _MOST_PACKED * min(info.compress_size, size):
                    return None  # it cannot be that long
                size -= info.compress_size
                arrays[info.filename.removesuffix(".npy")] = npz.read_member(archive, info)[0]
        if arrays.pop("key").tobytes() != key.encode():
            return None
    except Exception:  # whatever may be wrong with a file, the cure is to make it anew
        return None
    return arrays


def keep(name: str, key: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Keep arrays under a key; they appear whole or not at all. A failure is a warning."""
    named: dict[str, Any] = {"key": np.frombuffer(key.encode(), np.uint8), **arrays}
    path = None
    try:
        path = _path(name, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(path) as part:
            with part.open("xb") as file:
                # The keyword `allow_pickle` is of NumPy 2.2; arrays of numbers need none.
                np.savez_compressed(file, **named)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home directory
        warnings.warn(
            f"the encoded {name} data could not be kept in {path or 'a cache'} ({error}), so it "
            "will be encoded again next time. Set XDG_CACHE_HOME to a folder of yours, or pass "
            "cache=False.",
            stacklevel=4,
        )


def _path(name: str, key: str) -> Path:
    """Return where the arrays of a key lie."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return _cache_home() / "nnsparse" / "encoded" / f"{name}-{digest}.npz"
