"""Passes through a model that leave no trace: losses of the batches, their gradients, and what these are made of.

The criteria of `saliency` run the model while it trains. Here is what keeps them from disturbing it: no `.grad` is
touched, and running statistics, dropout's generators and `layer.taps` are afterwards what they were before. The model
runs in the mode it is in; nothing here scores anything.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from nnsparse.autograd import Tensor, grad, no_grad
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.linear import SparseLinear
from nnsparse.nn.module import Module
from nnsparse.ops.arithmetic import divide
from nnsparse.ops.structures import Structure
from nnsparse.parameter import HELD
from nnsparse.sparsify.context import Array, Context, LossFunction

_SAME = 1e-3  # relative difference below which two losses are the same


class Pass(NamedTuple):
    """A forward pass of one mini-batch."""

    output: Tensor  # (batch, n_outputs)
    y: Any
    loss: Tensor  # ()


class Uses(NamedTuple):
    """What the weight gradient of one target was made of, on one mini-batch."""

    structure: Structure
    batch: int
    taps: list[tuple[Array, Array]]  # (d, x) for each use, tiled, d that of the summed loss


@contextmanager
def untraced(model: Module) -> Iterator[None]:
    """Put back, at the end and after errors, all that a pass changes in a model: buffers, generators, taps.

    Until then no layer has taps. Each such block starts from the same generators: a second one gets the same dropout.
    """
    modules = list(model.modules())
    buffers = [
        (getattr(m, name), np.array(getattr(m, name))) for m in modules for name in m._buffers
    ]
    sources = [m.rng.bit_generator for m in modules if isinstance(m, Dropout)]
    states = [source.state for source in sources]
    layers = [m for m in modules if isinstance(m, SparseLinear)]
    taps = [layer.taps for layer in layers]
    try:
        for layer in layers:
            layer.taps = None
        yield
    finally:
        for array, before in buffers:
            array[...] = before
        for source, state in zip(sources, states, strict=True):
            source.state = state
        for layer, list_ in zip(layers, taps, strict=True):
            layer.taps = list_


def passes(context: Context, who: str, temperature: float = 1.0) -> Iterator[Pass]:
    """Yield the forward pass of each mini-batch, its outputs divided by `temperature` before the loss.

    Raises
    ------
    ValueError
        If there is no data, a batch is no pair, or a loss is not finite.
    TypeError
        If the loss is not a Tensor with a single number.
    """
    loss_fn, batches = context.data(who)
    for i, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(
                f"{who} expects batches=[(x, y), ...]; batch {i} is a {type(batch).__name__}, not a pair. "
                "A single batch? Pass batches=[(x, y)]."
            )
        x, y = batch
        output = context.model(x)
        loss = loss_fn(output if temperature == 1.0 else divide(output, temperature), y)
        if not isinstance(loss, Tensor) or loss.size != 1:
            got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(
                f"{who} expects loss_fn(output, y) to return a Tensor with one number; got {got}. "
                "Take its mean over the samples."
            )
        if not np.isfinite(loss.item()):
            raise ValueError(
                f"{who}: the loss of batch {i} is {loss.item()}; no weight can be scored by it. Look for "
                "non-finite weights or inputs, or a learning rate that is too high."
            )
        yield Pass(output, y, loss)


def gradients(context: Context, loss: Tensor) -> list[Array]:
    """Return d loss / d weight of each target, (nnz,) in plan order."""
    return grad(loss, [target.weight for target in context.targets])


def mean_gradients(context: Context, who: str, temperature: float = 1.0) -> list[Array]:
    """Return d loss / d weight of each target, (nnz,) float64 in plan order: mean over all samples of all batches.

    It is zero where a weight is held at zero: what is not there has no gradient.
    """
    totals, samples = [np.zeros(target.nnz) for target in context.targets], 0
    with untraced(context.model):
        for output, _, loss in passes(context, who, temperature):
            samples += len(output)
            for total, gradient in zip(totals, gradients(context, loss), strict=True):
                total += len(output) * gradient.astype(np.float64)
    for target, total in zip(context.targets, totals, strict=True):
        if HELD in target.weight.buffers:
            total[target.weight.buffers[HELD] == 0] = 0
    return [total / samples for total in totals]


def sample_uses(context: Context, who: str) -> Generator[list[Uses], None, None]:
    """Yield, for each mini-batch, how each target was used, with the gradients of the sum of the samples' losses.

    Close the iterator, or use it up, to have the model's taps back: `contextlib.closing`.

    Raises
    ------
    ValueError
        As `passes`, or if the loss is neither a mean nor a sum over samples.
    """
    loss_fn, _ = context.data(who)
    with untraced(context.model):
        structures = [target.layer.structure for target in context.targets]
        layers = {id(target.layer): target.layer for target in context.targets}
        noted: dict[int, list[tuple[Array, Array]]] = {key: [] for key in layers}
        for key, layer in layers.items():
            layer.taps = noted[key]
        for output, y, loss in passes(context, who):
            scale = _samples_per_loss(who, loss_fn, output, y, loss.item())
            grad(loss, [target.weight for target in context.targets], scale)
            yield [
                Uses(structure, len(output), list(noted[id(target.layer)]))
                for target, structure in zip(context.targets, structures, strict=True)
            ]
            for taps in noted.values():
                taps.clear()


def _samples_per_loss(
    who: str, loss_fn: LossFunction, output: Tensor, y: Any, loss: float
) -> float:
    """Return by what to multiply a loss to get the sum of the samples' losses: batch for a mean, 1 for a sum.

    With every sample twice a mean stays what it is, and a sum doubles.
    """
    rows, targets = output.numpy(), np.asarray(y)
    if targets.ndim == 0 or len(targets) != len(rows):
        raise ValueError(
            f"{who} needs the loss of each sample, so one target per sample: expected {len(rows)} targets; "
            f"got y of shape {targets.shape}."
        )
    with no_grad():
        twice = loss_fn(Tensor(np.concatenate([rows, rows])), np.concatenate([targets, targets]))
    if abs(twice.item() - loss) <= _SAME * abs(loss):
        return float(len(rows))
    if abs(twice.item() - 2 * loss) <= _SAME * abs(loss):
        return 1.0
    raise ValueError(
        f"{who} needs the loss of each sample: expected a loss that is the mean or the sum over samples, "
        f"but with every sample twice it goes from {loss:g} to {twice.item():g}. Pass such a loss_fn."
    )
