"""Stopping a run that has gone wrong, with a message that tells where."""

from __future__ import annotations

import math

import numpy as np

from nnsparse.autograd import Tensor
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer


class NonFiniteLossError(ArithmeticError):
    """The loss, or the norm of the gradients, became NaN or infinite."""


def check_finite(
    loss: Tensor, model: Module, step: int, optimizer: Optimizer | None = None
) -> float:
    """Return the loss as a number; if it is NaN or infinite, say at which step and in which layers.

    Parameters
    ----------
    loss : Tensor
        A single number.
    model : Module
        Its weights are looked at only when the loss is not finite.
    step : int
        For the message.
    optimizer : Optimizer, optional
        For the learning rate in the message.

    Raises
    ------
    NonFiniteLossError
        With step, learning rate, and for each parameter the norm and the number of values that are not finite.
    """
    value = loss.item()
    if math.isfinite(value):
        return value
    raise _error(f"the loss is {value}", model, step, optimizer)


def check_norm(norm: float, model: Module, step: int, optimizer: Optimizer) -> None:
    """Raise NonFiniteLossError if the norm of all gradients is not finite: no clipping can help then."""
    if not math.isfinite(norm):
        raise _error(f"the norm of the gradients is {norm}", model, step, optimizer)


def _error(what: str, model: Module, step: int, optimizer: Optimizer | None) -> NonFiniteLossError:
    """Return the error that tells step, learning rate and the parameters' state."""
    rate = f", learning rate {optimizer.lr:g}" if optimizer is not None else ""
    lines = [f"{what} at step {step}{rate}"]
    first = ""
    for name, p in model.named_parameters():
        bad = int(p.data.size - np.isfinite(p.data).sum())
        if bad and not first:
            first = name
        norm = float(np.linalg.norm(p.data.astype(np.float64).ravel()))
        lines.append(f"  {name}: norm {norm:.4g}, {bad} of {p.data.size} values not finite")
    if first:
        lines.append(
            f"the first parameter that is not finite is {first}: an earlier step diverged. "
            "Lower the learning rate, or clip the gradients."
        )
    else:
        first = next((name for name, _ in model.named_parameters()), "the model")
        lines.append(
            f"all weights are finite, so look at the data that enters {first}: NaN or infinity in "
            "the input, or values so large that the products overflow."
        )
    return NonFiniteLossError("\n".join(lines))
