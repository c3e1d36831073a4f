"""All gradients of a model as one flat array, for one all-reduce, and back into the parameters.

The array holds the gradients one after the other, the nonzeros of a sparse weight in the order in which it keeps its
values, then a trailer: for each parameter 1 if it has a gradient, then loss · weight, weight, stop, and marks. Summed
over the ranks it is all that a step needs. Read `parallel` for what is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import tiles
from nnsparse.distributed.communicator import Communicator
from nnsparse.distributed.threads import StoppedError
from nnsparse.parameter import Parameter
from nnsparse.row_gradient import RowGradient

Array = NDArray[Any]

_NUMBERS = 3  # loss · weight, weight, stop


@dataclass(frozen=True)
class Trailer:
    """What travels behind the gradients.

    Attributes
    ----------
    loss : float
        Mean over what `weight` counts.
    weight : float
        Σ w_i of the samples.
    stop : float
        How many ranks want to stop.
    marks : tuple of int
        Numbers that are the same on all ranks if nothing has gone wrong; summed, size times that.
    """

    loss: float
    weight: float
    stop: float
    marks: tuple[int, ...]


def dtype_of(params: Mapping[str, Parameter]) -> np.dtype[Any]:
    """Return the dtype in which gradients travel: the parameters' own, the widest where they differ."""
    return np.result_type(*(p.dtype for p in params.values()))


def trailer_size(params: Mapping[str, Parameter], n_marks: int) -> int:
    """Return how many numbers travel behind the gradients."""
    return len(params) + _NUMBERS + n_marks


def pack(params: Mapping[str, Parameter], trailer: Trailer) -> Array:
    """Return the gradients times `trailer.weight` and the trailer as one array, on a 64-byte boundary.

    A parameter without a gradient gives zeros, as all do where the weight is 0: no gradient there counts, whatever it
    holds. A `RowGradient` is written as the whole table that it stands for.

    Raises
    ------
    ValueError
        If a gradient does not have its parameter's shape.
    """
    size = sum(p.size for p in params.values()) + trailer_size(params, len(trailer.marks))
    flat = tiles.empty((size,), dtype_of(params))
    weight, present, start = trailer.weight, [], 0
    for name, p in params.items():
        part, grad = flat[start : start + p.size], p.grad
        start += p.size
        present.append(grad is not None)
        if grad is None or weight == 0:
            part.fill(0)
            continue
        if grad.shape != p.shape:
            raise ValueError(
                f"parameter {name!r} expects a gradient of shape {p.shape}; got {grad.shape}. Has its pattern moved "
                "between the backward pass and reduce?"
            )
        if isinstance(grad, RowGradient):
            part.fill(0)
            part.reshape(p.shape)[grad.rows] = grad.values * weight
        else:
            np.multiply(grad.reshape(-1), weight, out=part, casting="same_kind")
    weighed = trailer.loss * weight if weight else 0.0
    flat[start:] = (*present, weighed, weight, trailer.stop, *trailer.marks)
    return flat


def summed(comm: Communicator, sent: Array, step: int) -> Array:
    """Return the sum of what all ranks send, (n,). A collective call.

    Raises
    ------
    RuntimeError
        If that fails, naming rank and step.
    """
    received: Array = tiles.empty(sent.shape, sent.dtype)
    try:
        comm.Allreduce(sent, received)
    except StoppedError:
        raise
    except Exception as error:  # MPI's own, whose class is known to mpi4py only
        raise RuntimeError(
            f"rank {comm.Get_rank()}: the all-reduce of {sent.size} numbers of step {step} failed ({error}). Do all "
            "ranks have as many weights, and the same recipe?"
        ) from error
    return received


def unpack(params: Mapping[str, Parameter], flat: Array, n_marks: int) -> Trailer:
    """Give the parameters the sum that `flat` holds, divided by its weight; return its trailer.

    A parameter that has no gradient on any rank stays without. Gradients are views of `flat`, which belongs to them
    from here on.
    """
    start = flat.size - trailer_size(params, n_marks)
    present, rest = np.split(flat[start:], [len(params)])
    weighed, weight, stop, *marks = rest.tolist()
    gradients = flat[:start]
    if weight > 0:
        np.divide(gradients, weight, out=gradients)
    start = 0
    for p, n in zip(params.values(), present, strict=True):
        part = gradients[start : start + p.size]
        start += p.size
        p.grad = part.reshape(p.shape).astype(p.dtype, copy=False) if n > 0 else None
    loss = weighed / weight if weight > 0 else 0.0
    return Trailer(loss, weight, stop, tuple(round(mark) for mark in marks))


def words(digest: bytes, size: int) -> tuple[int, ...]:
    """Return a digest as small integers, whose sum over `size` ranks is exact in float32.

    Examples
    --------
    >>> words(bytes([1, 2, 3, 4]), size=2)
    (513, 1027)
    """
    bits = max(1, min(16, 24 - size.bit_length()))
    found: Sequence[int] = np.frombuffer(digest, "<u2").tolist()
    return tuple(word & (2**bits - 1) for word in found)
