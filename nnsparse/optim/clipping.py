"""Gradient clipping: `clip_grad_norm`, between the backward pass and the optimizer's step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.parameter import HELD, Parameter
from nnsparse.row_gradient import RowGradient

_PIECE = 1 << 14  # elements squared at a time: their squares stay in the first-level cache


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Multiply all gradients by one factor, so that their joint Euclidean norm is at most `max_norm`.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient are left out.
    max_norm : float
        Above 0; infinity: nothing is changed.

    Returns
    -------
    float
        The norm before. If it is NaN or infinite, no gradient was changed.

    Raises
    ------
    ValueError, TypeError
        If `max_norm` is no number above 0.

    Notes
    -----
    Source: Pascanu et al., On the difficulty of training recurrent neural networks, 2013, algorithm 1. Gradients of
    sparse weights have no entries for the missing ones, so these do not count; nor do those of weights that sparse
    training holds at zero (`buffers["held"]`), which are missing as well.

    Examples
    --------
    >>> weight = Parameter(np.zeros(2))
    >>> weight.grad = np.array([3.0, 4.0])
    >>> clip_grad_norm([weight], 1.0)
    5.0
    >>> weight.grad
    array([0.6, 0.8])
    """
    limit = check_max_norm("clip_grad_norm", max_norm)
    owners = [parameter for parameter in parameters if parameter.grad is not None]
    norm = math.sqrt(sum(_squares(parameter) for parameter in owners))
    if math.isfinite(norm) and norm > limit:
        for parameter in owners:
            grad = parameter.grad
            if isinstance(grad, RowGradient):
                parameter.grad = grad * (limit / norm)
            else:
                np.multiply(grad, limit / norm, out=grad)
    return norm


def check_max_norm(who: str, max_norm: Any) -> float:
    """Return the largest norm allowed as a float."""
    if isinstance(max_norm, bool) or not isinstance(max_norm, int | float | np.number):
        raise TypeError(f"{who} expects the largest norm as a number; got {max_norm!r}")
    if not float(max_norm) > 0.0:
        raise ValueError(f"{who} expects a largest norm above 0; got {max_norm!r}")
    return float(max_norm)


def _squares(parameter: Parameter) -> float:
    """Return the gradient's sum of squares in float64, without BLAS, whose threads would stay in the way."""
    grad: Any = parameter.grad
    flat: NDArray[Any] = (grad.values if isinstance(grad, RowGradient) else grad).reshape(-1)
    held, total = parameter.buffers.get(HELD), 0.0
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        if held is not None:
            piece[held[start : start + _PIECE] == 0] = 0  # whatever is there: it may be NaN
        total += float(np.add.reduce(np.multiply(piece, piece, out=piece)))
    return total
