"""What optimizers refuse: settings, parameters, buffers, and what a saved state may hold."""

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.parameter import Parameter


def checked(
    who: str, name: str, value: float, low: float, high: float, closed: bool = False
) -> float:
    """Return `value` as a float if it is in [low, high), or [low, high] if `closed`."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{who} expects a number as {name}; got {value!r}.")
    number = float(value)
    if not (low <= number < high or (closed and number == high)):
        span = f"[{low:g}, {high:g}" + ("]" if closed else ")")
        raise ValueError(f"{who} expects {name} in {span}; got {value!r}.")
    return number


def checked_params(who: str, params: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Return the parameters of a new optimizer: at least one, each once."""
    if isinstance(params, Parameter) or not isinstance(params, Iterable):
        raise TypeError(
            f"{who} expects an iterable of parameters; got {type(params).__name__}. "
            "Pass model.parameters()."
        )
    given = tuple(params)
    for index, param in enumerate(given):
        if not isinstance(param, Parameter):
            raise TypeError(
                f"{who} expects parameters; got {type(param).__name__} at position {index}. "
                "Pass model.parameters()."
            )
    if not given:
        raise ValueError(
            f"{who} expects at least one parameter; got none. A generator that was used before "
            "is empty: call model.parameters() again."
        )
    if len({id(param) for param in given}) != len(given):
        raise ValueError(f"{who} expects each parameter once; got one of them twice.")
    return given


def check_buffer(param: Parameter, slot: str) -> None:
    """Refuse a buffer that somebody has replaced by what compiled loops cannot take."""
    array = param.buffers.get(slot)
    if array is None:
        return
    if not (
        isinstance(array, np.ndarray)
        and array.shape == param.data.shape
        and array.dtype == param.data.dtype
        and array.flags.carray
    ):
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array)
        raise ValueError(
            f"Buffer {slot!r} is expected to have its parameter's shape {param.data.shape} and dtype "
            f"{param.data.dtype}, writeable and C-contiguous; got {got}. Change a topology by `move_to` only."
        )


def checked_buffer(who: str, key: str, value: Any, data: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of a saved buffer, of the shape and dtype of its parameter's data."""
    array = np.array(value)
    if array.shape != data.shape or array.dtype != data.dtype:
        raise ValueError(
            f"{who} expects {key} of shape {data.shape} and dtype {data.dtype}; got {array.shape} "
            f"and {array.dtype}. Load the model's state before the optimizer's."
        )
    return array


def checked_count(who: str, key: str, value: Any) -> int:
    """Return a saved number of updates."""
    number = scalar(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        raise ValueError(
            f"{who} expects {key}, updates so far, to be an integer >= 0; got {value!r}."
        )
    return number


def scalar(value: Any) -> Any:
    """Return a number as a Python number, as one read back from an npz file is an array without dimensions."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and not value.ndim else value
