"""What layers with weights check: their sizes and dtype when they are made, their arrays before kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike


def check_size(name: str, what: str, n: Any) -> int:
    """Return a number of features, or raise if it is not an integer of at least 1."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"{name} expects {what} to be an integer >= 1; got {n!r}")
    return int(n)


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of weights, or raise."""
    found = np.dtype(dtype)
    if found not in (np.float32, np.float64):
        raise TypeError(f"weights are float32 or float64; got {found}")
    return found


def is_fit(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether kernels, which check no bounds, may take this array as a parameter."""
    return (
        isinstance(array, np.ndarray)
        and array.shape == shape
        and array.dtype == dtype
        and array.flags.c_contiguous
        and array.flags.aligned
    )


def check_parameter(name: str, array: Any) -> np.dtype[Any]:
    """Return the dtype of a parameter's array, or raise if it was replaced by what kernels cannot take."""
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array)
        raise ValueError(
            f"{name}.data is expected to be an array of float32 or float64 in this machine's byte order; got {got}. "
            "Somebody replaced it: write into it instead, data[...] = values."
        )
    dtype: np.dtype[Any] = array.dtype
    return dtype


def misfit(
    layer: str, name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> ValueError:
    """Return the error that says so."""
    got = type(array).__name__
    if isinstance(array, np.ndarray):
        got = f"{array.dtype} {array.shape}"
    return ValueError(
        f"{layer} expects {name}.data of shape {shape}, dtype {dtype}, "
        f"C-contiguous; got {got}. Write into it: {name}.data[...] = values."
    )
