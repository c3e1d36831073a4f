"""Batch normalisation: `batch_norm` with the statistics of the batch, `affine` with given ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nnsparse import tiles
from nnsparse.autograd import Array, Tensor, record, recording
from nnsparse.kernels import normalization as kernels
from nnsparse.ops.arithmetic import add, multiply, power, subtract
from nnsparse.ops.layout import tile, untile
from nnsparse.ops.pointwise import spread, sum_samples
from nnsparse.ops.tangents import total


class Statistics(NamedTuple):
    """Per-feature mean and (biased) variance of one batch, (n_features,) float64."""

    mean: Array
    variance: Array


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Statistics]:
    """Return weight·(x − mean) / √(variance + eps) + bias, and mean and variance over the samples.

    Parameters
    ----------
    x : Tensor (batch, n_features)
        Plain or tiled, at least two samples.
    weight, bias : Tensor (n_features,)
        Scale and shift.
    eps : float
        Added to the variance, Σ (x − mean)² / batch.

    Raises
    ------
    ValueError
        If x is not (batch, n_features) with batch >= 2, for the n_features of weight and bias.

    Notes
    -----
    Source: Ioffe & Szegedy, Batch Normalization, 2015, algorithm 1.
    """
    _check(x, weight, bias)
    if len(x) < 2:
        raise ValueError(
            f"batch_norm expects at least two samples in training; got shape {x.shape}. "
            "One sample has no variance: use model.eval(), or drop_last=True in the DataLoader."
        )
    if x.batch is None:
        y, statistics = batch_norm(tile(x, tiles.pick_lanes(len(x))), weight, bias, eps)
        return untile(y), statistics
    batch = x.batch
    n_features = x.data.shape[1]
    mean, variance = np.empty(n_features), np.empty(n_features)
    normed, data = tiles.empty(x.data.shape, x.dtype), tiles.empty(x.data.shape, x.dtype)
    kernels.batch_norm(x.data, batch, weight.data, bias.data, eps, mean, variance, normed, data)

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> Sequence[Tensor | None]:
        if recording():
            return _composed_rule(g, x, weight, eps)
        dx = tiles.empty(g.data.shape, g.dtype)
        dweight, dbias = np.empty(n_features, g.dtype), np.empty(n_features, g.dtype)
        kernels.batch_norm_backward(
            g.data, normed, batch, weight.data, variance, eps, dx, dweight, dbias
        )
        return Tensor(dx, batch=batch), Tensor(dweight), Tensor(dbias)

    def push(out: Tensor, dx: Tensor | None, dw: Tensor | None, db: Tensor | None) -> Tensor:
        parts = [None if db is None else spread(db, out)]
        if dw is not None:
            parts.append(multiply(Tensor(normed, batch=batch), spread(dw, out)))
        if dx is not None:  # normed's Jacobian is symmetric, so the gradient's kernel serves
            part, unused = tiles.empty(data.shape, dx.dtype), np.empty((2, n_features), dx.dtype)
            arrays = dx.data, normed, batch, weight.data, variance, eps, part, *unused
            kernels.batch_norm_backward(*arrays)
            parts.append(Tensor(part, batch=batch))
        return total(out, *parts)

    inputs = (x, weight, bias)
    return record(data, inputs, rule, batch, push), Statistics(mean, variance)


def _composed_rule(
    g: Tensor, x: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients for x, weight and bias, made of ops; `kernels` has the equation."""
    share = 1.0 / len(x)
    centered = subtract(x, spread(multiply(sum_samples(x), share), x))
    variance = multiply(sum_samples(multiply(centered, centered)), share)
    factor = power(add(variance, eps), -0.5)
    normed = multiply(centered, spread(factor, x))
    dbias, dweight = sum_samples(g), sum_samples(multiply(g, normed))
    along = multiply(normed, spread(multiply(dweight, share), x))
    inner = subtract(subtract(g, spread(multiply(dbias, share), x)), along)
    return multiply(inner, spread(multiply(weight, factor), x)), dweight, dbias


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return x·scale + shift per feature: x (batch, n_features), the others (n_features,)."""
    _check(x, scale, shift)
    return add(multiply(x, spread(scale, x)), spread(shift, x))


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    n = weight.shape[0]
    if not weight.dtype == bias.dtype == x.dtype:
        raise TypeError(
            f"batch norm expects x, weight and bias of one dtype; got {x.dtype}, {weight.dtype} and "
            f"{bias.dtype}"
        )
    if x.ndim != 2 or x.shape[1] != n or bias.shape != (n,):
        hint = " Features first? Pass x.T." if x.shape[0] == n else ""
        raise ValueError(f"batch norm expects x of shape (batch, {n}); got {x.shape}.{hint}")
