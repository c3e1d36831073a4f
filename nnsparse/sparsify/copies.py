"""Copies of parameters kept in their buffers, where they follow the weights: for rewinding, and to compare with."""

from __future__ import annotations

from collections.abc import Iterable

from nnsparse import tiles
from nnsparse.optim.optimizer import Optimizer
from nnsparse.parameter import Parameter

START, REWIND = "start", "rewind"


def keep_copy(parameters: Iterable[Parameter], name: str) -> None:
    """Copy the values of each parameter into `buffers[name]`."""
    for parameter in parameters:
        parameter.buffers[name] = tiles.aligned(parameter.data)


def return_to_copy(parameters: Iterable[Parameter], name: str, optimizer: Optimizer) -> None:
    """Write the copies back, and let the optimizer begin anew: no momentum, no counts; its settings stay.

    Source: Frankle & Carbin, The lottery ticket hypothesis, 2019. Layers' running statistics are left alone.
    """
    for parameter in parameters:
        copy = parameter.buffers.get(name)
        if copy is not None:
            parameter.data[...] = copy
    state = optimizer.state_dict()
    optimizer.load_state_dict({key: value for key, value in state.items() if "." not in key})


def forget_copy(parameters: Iterable[Parameter], name: str) -> None:
    """Drop the copies."""
    for parameter in parameters:
        parameter.buffers.pop(name, None)
