"""Compiled models on disk: `npz` files whose arrays are those that the compiled forward pass takes."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import npz
from nnsparse.inference.checking import check
from nnsparse.inference.packing import Packed

Array = NDArray[Any]

FORMAT, VERSION = "nnsparse compiled model", 1
_KINDS: dict[str, tuple[type[np.generic], ...]] = {
    "program": (np.int64,),
    "values": (np.uint16, np.float32, np.float64),
    "narrow": (np.uint8,),
    "wide": (np.uint16,),
    "constants": (np.float32, np.float64),
}
_ADVICE = (
    "Write it again with CompiledModel.save; checkpoints of training are read by nnsparse.load."
)


def write(path: str | PathLike[str], packed: Packed, storage_error: float) -> None:
    """Write arrays and manifest, all or nothing."""
    npz.write(path, FORMAT, VERSION, packed.arrays(), {"storage_error": storage_error})


def read(path: str | PathLike[str]) -> tuple[Packed, float]:
    """Return the checked arrays and the storage error of a file that `write` wrote.

    Raises
    ------
    ValueError
        If anything in it is wrong.
    OSError
        If it cannot be read.
    """
    if not isinstance(path, str | PathLike):  # open() takes the number of a file, and closes it
        raise TypeError(f"load expects a path; got {path!r}")
    with npz.explained(path, _ADVICE):
        found, manifest = npz.read(path, FORMAT, VERSION)
        error = manifest.get("storage_error")
        if not isinstance(error, float) or not 0.0 <= error < math.inf:
            raise ValueError(f"storage_error is {error!r}; expected a number from 0 on")
        arrays = {name: _fitting(name, found) for name in _KINDS}
        if found:
            raise ValueError(f"unknown arrays {sorted(found)}")
        packed = Packed(**arrays)
        if not packed.half and packed.values.dtype != packed.constants.dtype:
            raise ValueError(f"weights are {packed.values.dtype}, biases {packed.constants.dtype}")
        check(packed)
    return packed, error


def _fitting(name: str, found: dict[str, Array]) -> Array:
    """Take an array out of what was found, after looking at its dtype and shape."""
    if name not in found:
        raise ValueError(f"array {name!r} is missing")
    array = found.pop(name)
    if array.dtype not in [np.dtype(kind) for kind in _KINDS[name]] or array.ndim != 1:
        raise ValueError(f"array {name!r} has dtype {array.dtype} and shape {array.shape}")
    return array
