"""What all optimizers share: the list of parameters, the learning rate, and the state as arrays.

An optimizer sees a parameter as flat arrays: values, gradient, and buffers of the same shape that
live with the parameter (`param.buffers`), so that a sparse parameter can move to a new topology
without any optimizer going stale. The updates themselves are in `kernels.optimizer`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnsparse import trace
from nnsparse.optim._checks import (
    check_buffer,
    checked,
    checked_buffer,
    checked_count,
    checked_params,
    scalar,
)
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
        self.params = checked_params(type(self).__name__, params)
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
            if param.grad is not None:
                self._check(index, param, param.grad, param.data)
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

    def _check(self, index: int, param: Parameter, grad: Any, data: Any) -> None:
        """Refuse arrays that compiled loops cannot take."""
        if not isinstance(data, np.ndarray) or data.dtype not in (np.float32, np.float64):
            got = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
            raise ValueError(
                f"{type(self).__name__}: parameter {index} expects data of float32 or float64; got {got}. Write into "
                "data[...] in place."
            )
        if not isinstance(grad, np.ndarray | RowGradient):
            raise TypeError(
                f"{type(self).__name__}: parameter {index} expects an array as grad; got {grad!r}"
            )
        fits = grad.fits(data) if isinstance(grad, RowGradient) else True
        if not (
            fits and grad.shape == data.shape and grad.dtype == data.dtype and data.flags.carray
        ):
            raise self._mismatch(index, data, grad)
        for slot in self.settings.slots:
            check_buffer(param, slot)

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
        settings = replace(self.settings, **{name: scalar(state[name]) for name in names})
        lr = checked(who, "lr", scalar(state["lr"]), 0.0, math.inf)
        counts: list[int] = []
        buffers: list[dict[str, NDArray[Any]]] = []
        for index, param in enumerate(self.params):
            count = checked_count(who, f"{index}.count", state.get(f"{index}.count", 0))
            unread.discard(f"{index}.count")
            counts.append(count)
            buffers.append({})
            for slot in settings.slots if count else ():
                key = f"{index}.{slot}"
                given = checked_buffer(who, key, state.get(key), param.data)
                buffers[index][slot] = param.planned(given)
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
    return array.reshape(-1), False
