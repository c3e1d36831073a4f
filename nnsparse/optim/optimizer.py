"""What all optimizers share: the list of parameters, the learning rate, and the state as arrays.

An optimizer sees a parameter as flat arrays: values, gradient, and buffers of the same shape that
live with the parameter (`param.buffers`), so that a sparse parameter can move to a new topology
without any optimizer going stale. The updates themselves are in `kernels.optimizer`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnsparse import trace
from nnsparse.parameter import Parameter
from nnsparse.row_gradient import RowGradient

State: TypeAlias = dict[str, float | int | bool | NDArray[Any]]

# From this many elements on, all threads are used: below, waking them costs what they save. SGD
# with momentum, fp32, 2 cores, one thread against two: 5.8 and 5.8 µs at 32 768 elements, 9.7 and
# 8.0 at 65 536, 22 and 14 at 160 000.
PARALLEL_FROM = 1 << 16


class Optimizer(ABC):
    """Updates parameters in place by their gradients; subclasses say how.

    Parameters whose gradient is None are left alone. Making an optimizer forgets what an earlier
    one kept with the same parameters, so let one optimizer at a time own a parameter.

    Parameters
    ----------
    params : iterable of Parameter
        As `model.parameters()` gives them.
    lr : float
        Learning rate, at least 0.
    settings : dataclass
        Frozen: all else that stays the same from step to step. Its `slots` names the arrays kept
        in `param.buffers`.

    Attributes
    ----------
    params : tuple of Parameter
        What is updated.

    Raises
    ------
    TypeError
        If `params` is not an iterable of parameters or `lr` not a number.
    ValueError
        If there are no parameters, if one occurs twice, or if `lr` is negative or not finite.
    """

    def __init__(self, params: Iterable[Parameter], lr: float, settings: Any) -> None:
        self.params = _checked_params(type(self).__name__, params)
        self.lr = lr
        self.settings = settings
        # Updates made so far, for each parameter.
        self._counts = [0] * len(self.params)
        for param in self.params:
            for slot in settings.slots:
                param.buffers.pop(slot, None)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = checked(type(self).__name__, "lr", value, 0.0, math.inf)

    def step(self) -> None:
        """Update every parameter that has a gradient, or none of them if one is refused.

        Raises
        ------
        ValueError
            If a gradient does not have its parameter's shape and dtype, or a parameter's data is
            read-only or not C-contiguous.
        TypeError
            If a gradient is no array.
        """
        for index, param in enumerate(self.params):
            grad, data = param.grad, param.data
            if grad is None:
                continue
            if not isinstance(grad, np.ndarray):
                if not isinstance(grad, RowGradient):
                    raise TypeError(
                        f"{type(self).__name__}: parameter {index} expects an array as grad; got {grad!r}"
                    )
                if not grad.fits(data):
                    raise self._mismatch(index, data, grad)
            if not (grad.shape == data.shape and grad.dtype == data.dtype and data.flags.carray):
                raise self._mismatch(index, data, grad)
        for index, param in enumerate(self.params):
            grad, data = param.grad, param.data
            if grad is None:
                continue
            self._counts[index] += 1
            if isinstance(grad, RowGradient):
                if self._update_rows(param, grad):
                    continue
                grad = np.asarray(grad)
            p, g, count = data.reshape(-1), grad.reshape(-1), self._counts[index]
            if trace.active is None:
                self._update(param, p, g, count)
            else:
                n_buffers = len(self.settings.slots)
                trace.update(self._update, param, n_buffers)(param, p, g, count)

    def zero_grad(self) -> None:
        """Set every gradient to None."""
        for param in self.params:
            param.grad = None

    def state_dict(self) -> State:
        """Return all that a later run needs to go on bit for bit, as numbers and arrays.

        Returns
        -------
        dict
            `lr`, the settings, and for parameter k, once updated, `k.count` (updates so far) and
            its buffers as `k.<name>`, copied, each with the shape of the parameter's data (of a
            sparse parameter in canonical order, which is the same on every machine).
        """
        state: State = {"lr": self.lr, **asdict(self.settings)}
        for index, (param, count) in enumerate(zip(self.params, self._counts, strict=True)):
            if count:
                state[f"{index}.count"] = count
                for slot in self.settings.slots:
                    state[f"{index}.{slot}"] = np.array(param.canonical(param.buffers[slot]))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; on an error nothing has changed.

        Load the parameters themselves first (`model.load_state_dict`).

        Parameters
        ----------
        state : mapping
            From the same kind of optimizer over parameters of the same shapes, in the same order.

        Raises
        ------
        ValueError
            If keys are missing or unknown, or a value or an array does not fit.
        """
        who = type(self).__name__
        names = [field.name for field in fields(self.settings)]
        missing = [name for name in ("lr", *names) if name not in state]
        if missing:
            raise ValueError(f"{who}: the state lacks {missing}. Is it from another optimizer?")
        unread = set(state) - {"lr", *names}
        settings = replace(self.settings, **{name: _scalar(state[name]) for name in names})
        lr = checked(who, "lr", _scalar(state["lr"]), 0.0, math.inf)
        counts: list[int] = []
        buffers: list[dict[str, NDArray[Any]]] = []
        for index, param in enumerate(self.params):
            count = int(state.get(f"{index}.count", 0))
            unread.discard(f"{index}.count")
            counts.append(count)
            buffers.append({})
            for slot in settings.slots if count else ():
                key = f"{index}.{slot}"
                checked_buffer = _checked_buffer(who, key, state.get(key), param.data)
                buffers[index][slot] = param.planned(checked_buffer)
                unread.discard(key)
        if unread:
            raise ValueError(
                f"{who} over {len(self.params)} parameters has no place for {sorted(unread)}. "
                "Is the state from another model or optimizer?"
            )
        self.lr, self.settings, self._counts = lr, settings, counts
        for param, own in zip(self.params, buffers, strict=True):
            for slot in settings.slots:
                param.buffers.pop(slot, None)
            param.buffers.update(own)

    def _remember(self) -> Callable[[], None]:
        """Return a function that gives back what is kept here now; the parameters' buffers are not."""
        lr, settings, counts = self._lr, self.settings, list(self._counts)

        def give_back() -> None:
            self._lr, self.settings, self._counts = lr, settings, list(counts)

        return give_back

    def _update_rows(self, param: Parameter, gradient: RowGradient) -> bool:
        """Update the rows that the gradient has and return True, if the others stay as they are; else do nothing."""
        return False

    @abstractmethod
    def _update(self, param: Parameter, p: NDArray[Any], g: NDArray[Any], count: int) -> None:
        """Update `p` (n,) in place by `g` (n,), for the `count`-th time, counted from 1."""

    def _mismatch(
        self, index: int, data: NDArray[Any], grad: NDArray[Any] | RowGradient
    ) -> ValueError:
        who = f"{type(self).__name__}: parameter {index}"
        if data.flags.carray:
            return ValueError(
                f"{who} expects a gradient of shape {data.shape} and dtype {data.dtype}; got "
                f"{grad.shape} and {grad.dtype}."
            )
        return ValueError(
            f"{who} expects writeable, C-contiguous data; got strides {data.strides} for shape "
            f"{data.shape}, writeable={data.flags.writeable}. Pass np.ascontiguousarray(data)."
        )


def buffer(param: Parameter, slot: str) -> tuple[NDArray[Any], bool]:
    """Return a parameter's buffer, flat, and whether it was made just now (as zeros)."""
    array = param.buffers.get(slot)
    if array is None:
        array = param.buffers[slot] = np.zeros(param.data.shape, param.data.dtype)
        return array.reshape(-1), True
    if array.shape != param.data.shape:
        raise ValueError(
            f"Buffer {slot!r} is expected to have its parameter's shape {param.data.shape}; got "
            f"{array.shape}. Change a topology by `move_to` only."
        )
    return array.reshape(-1), False


def checked(
    who: str, name: str, value: float, low: float, high: float, closed: bool = False
) -> float:
    """Return `value` as a float if it is in [low, high), or [low, high] if `closed`."""
    if not isinstance(value, Real):
        raise TypeError(f"{who} expects a number as {name}; got {value!r}.")
    number = float(value)
    if not (low <= number < high or (closed and number == high)):
        span = f"[{low:g}, {high:g}" + ("]" if closed else ")")
        raise ValueError(f"{who} expects {name} in {span}; got {value!r}.")
    return number


def _checked_params(who: str, params: Iterable[Parameter]) -> tuple[Parameter, ...]:
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


def _checked_buffer(who: str, key: str, value: Any, data: NDArray[Any]) -> NDArray[Any]:
    array = np.array(value)
    if array.shape != data.shape or array.dtype != data.dtype:
        raise ValueError(
            f"{who} expects {key} of shape {data.shape} and dtype {data.dtype}; got {array.shape} "
            f"and {array.dtype}. Load the model's state before the optimizer's."
        )
    return array


def _scalar(value: Any) -> Any:
    """Return a number as a Python number, as one read back from an npz file is an array."""
    return value.item() if isinstance(value, np.ndarray | np.generic) else value
