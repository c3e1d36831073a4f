"""Activation functions and dropout, for plain and tiled tensors, and sums over the samples.

Each function is one compiled pass forward and one backward. On a recorded backward its rule is
made of ops instead, so that derivatives of every order are right. Padded lanes stay zero, and a
NaN stays a NaN. The modules are in `nn.activations`; the loops in `kernels.pointwise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from nnsparse import tiles
from nnsparse.autograd import Array, Tensor, record, recording
from nnsparse.kernels import pointwise as kernels
from nnsparse.ops import arithmetic
from nnsparse.ops.arithmetic import add, broadcast_to, exp, multiply, power, subtract
from nnsparse.ops.layout import tile, untile

Gradients: TypeAlias = Sequence[Tensor | None]
Needs: TypeAlias = tuple[bool, ...]


# ---------------------------------------------------------------- sums over samples


def sum_samples(g: Tensor) -> Tensor:
    """Return the sum over the samples of (batch, n_features): plain, (n_features,)."""
    if g.batch is None:
        return arithmetic.sum(g, 0)
    out = tiles.empty((g.data.shape[1],), g.data.dtype)
    kernels.sum_samples_kernel(g.data, out)
    like = g.detach()
    return record(
        out,
        (g,),
        lambda gradient, out, needs: (spread(gradient, like),),
        push=lambda out, t: sum_samples(t),
    )


def spread(v: Tensor, like: Tensor) -> Tensor:
    """Return v (n_features,) for every sample, in the layout of `like` (batch, n_features)."""
    if like.batch is None:
        return broadcast_to(v, like.shape)
    out = tiles.empty(like.data.shape, v.data.dtype)
    kernels.spread_kernel(np.ascontiguousarray(v.data), like.batch, out)
    return record(
        out,
        (v,),
        lambda g, out, needs: (sum_samples(g),),
        like.batch,
        push=lambda out, t: spread(t, out),
    )


# ---------------------------------------------------------------- piecewise linear


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0) elementwise; the derivative at 0 is 0.

    >>> from nnsparse.autograd import tensor
    >>> print(relu(tensor([-1.0, 2.0])).numpy())
    [0. 2.]
    """
    data = _empty_like(x.data)
    kernels.relu_kernel(_flat(x.data), _flat(data))
    return record(data, (x,), lambda g, out, needs: (relu_gate(out, g),), x.batch, symmetric=True)


def straight_through(w: Tensor, mask: Array) -> Tensor:
    """Return w ⊙ mask, whose gradient goes to all of w as if there were no mask.

    Source: Bengio, Léonard & Courville, Estimating or propagating gradients through stochastic neurons, 2013.
    """
    return record(w.data * mask, (w,), lambda g, out, needs: (g,), symmetric=True)


def relu_gate(out: Tensor, g: Tensor) -> Tensor:
    """Return g where out > 0 (or NaN), else 0: the gradient of a ReLU with output `out`.

    Differentiable with respect to g; with respect to `out` the derivative is 0 almost everywhere.
    """
    return _gate(out.data, g)


def _gate(out: Array, g: Tensor) -> Tensor:
    data = _empty_like(g.data)
    kernels.relu_gate_kernel(_flat(out), _flat(g.data), _flat(data))
    return record(
        data, (g,), lambda gradient, _, needs: (_gate(out, gradient),), g.batch, symmetric=True
    )


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """Return x where x >= 0 and slope·x elsewhere; the derivative at 0 is `slope`."""
    slope = _number("leaky_relu", "slope", slope)
    data = _empty_like(x.data)
    kernels.leaky_relu_kernel(_flat(x.data), slope, _flat(data))
    values = x.data
    return record(
        data, (x,), lambda g, out, needs: (_leaky_gate(values, slope, g),), x.batch, symmetric=True
    )


def _leaky_gate(x: Array, slope: float, g: Tensor) -> Tensor:
    data = _empty_like(g.data)
    kernels.leaky_gate_kernel(_flat(x), slope, _flat(g.data), _flat(data))
    return record(
        data, (g,), lambda h, _, needs: (_leaky_gate(x, slope, h),), g.batch, symmetric=True
    )


def all_relu(x: Tensor, slope: float, layer: int) -> Tensor:
    """Return All-ReLU: x where x >= 0; elsewhere −slope·x in even layers and slope·x in odd ones.

    Parameters
    ----------
    x : Tensor
        Plain or tiled.
    slope : float
        α of the paper.
    layer : int
        Number of the hidden layer, the first one 0.

    Notes
    -----
    Source: Curci, Mocanu & Pechenizkiy, Truly Sparse Neural Networks at Scale, 2021, eq. 4. The
    paper does not say where it starts to count; here the first hidden layer gets −α.
    """
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise TypeError(f"all_relu expects layer as an integer; got {layer!r}.")
    return leaky_relu(x, -slope if layer % 2 == 0 else slope)


# ---------------------------------------------------------------- smooth


def tanh(x: Tensor) -> Tensor:
    """Return tanh(x) elementwise."""
    data = _empty_like(x.data)
    kernels.tanh_kernel(_flat(x.data), _flat(data))

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        if recording():
            return (subtract(g, multiply(g, multiply(out, out))),)
        return (_fused(kernels.tanh_backward, out, g),)

    return record(data, (x,), rule, x.batch, symmetric=True)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + e^−x) elementwise."""
    data = _empty_like(x.data)
    kernels.sigmoid_kernel(_flat(x.data), _flat(data))
    if x.batch is not None:
        _clear_padding(data, x.batch)  # sigmoid(0) is not 0

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        if recording():
            scaled = multiply(g, out)
            return (subtract(scaled, multiply(scaled, out)),)
        return (_fused(kernels.sigmoid_backward, out, g),)

    return record(data, (x,), rule, x.batch, symmetric=True)


def gelu(x: Tensor) -> Tensor:
    """Return x·Φ(x) elementwise, Φ the standard normal distribution function.

    Exact, by the error function, as `torch.nn.GELU()`; not the tanh approximation.

    Notes
    -----
    Source: Hendrycks & Gimpel, Gaussian Error Linear Units, 2016, eq. 1.
    """
    data = _empty_like(x.data)
    kernels.gelu_kernel(_flat(x.data), _flat(data))

    def rule(g: Tensor, out: Tensor, needs: Needs) -> Gradients:
        if not recording():
            return (_fused(kernels.gelu_backward, x, g),)
        z = untile(x)
        slope = add(_normal(z), multiply(z, _density(z)))
        return (_as(multiply(untile(g), slope), x),)

    return record(data, (x,), rule, x.batch, symmetric=True)


def _normal(x: Tensor) -> Tensor:
    """Return Φ(x) of a plain tensor."""
    data = _empty_like(x.data)
    kernels.normal_kernel(_flat(x.data), _flat(data))
    return record(data, (x,), lambda g, out, needs: (multiply(g, _density(x)),), symmetric=True)


def _density(x: Tensor) -> Tensor:
    """Return φ(x) = e^(−x²/2) / √(2π) of a plain tensor."""
    return multiply(exp(multiply(power(x, 2), -0.5)), 1 / math.sqrt(2 * math.pi))


# ---------------------------------------------------------------- dropout


def dropout(x: Tensor, p: float, rng: np.random.Generator | int | None = None) -> Tensor:
    """Return x with each element zeroed with probability p, the others divided by 1 − p.

    Parameters
    ----------
    x : Tensor
        Plain or tiled; the same mask either way, on any number of threads.
    p : float in [0, 1)
        Probability of dropping.
    rng : Generator, int or None
        Gives one 64-bit number; an element's fate is a hash of it and the element's position.
    """
    p = drop_probability(p)
    seed = np.random.default_rng(rng).integers(0, 1 << 64, dtype=np.uint64)
    return x if p == 0.0 else _drop(x, seed, np.uint64(p * 2.0**64), 1.0 / (1.0 - p))


def drop_probability(p: float) -> float:
    """Return p, or raise if it is not a number in [0, 1)."""
    p = _number("dropout", "p", p)
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout expects p in [0, 1), the fraction to drop; got {p:g}.")
    return p


def _drop(x: Tensor, seed: np.uint64, threshold: np.uint64, scale: float) -> Tensor:
    """Apply the mask that `seed` stands for: it is computed again for the gradient, not kept."""
    data = _empty_like(x.data)
    if x.batch is None:
        kernels.dropout_kernel(_flat(x.data), seed, threshold, scale, _flat(data))
    else:
        kernels.dropout_tiles_kernel(x.data, seed, threshold, scale, data)
    return record(
        data,
        (x,),
        lambda g, out, needs: (_drop(g, seed, threshold, scale),),
        x.batch,
        symmetric=True,
    )


# ---------------------------------------------------------------- helpers


def _fused(kernel: Any, saved: Tensor, g: Tensor) -> Tensor:
    """Return dx = kernel(saved, g) as a tensor in the layout of g, without history."""
    data = _empty_like(g.data)
    kernel(_flat(saved.data), _flat(g.data), _flat(data))
    return Tensor(data, batch=g.batch)


def _as(y: Tensor, like: Tensor) -> Tensor:
    """Return plain y in the layout of `like`."""
    return y if like.batch is None else tile(y, like.data.shape[2])


def _clear_padding(data: Array, batch: int) -> None:
    """Zero the padded lanes of a tiled array."""
    n_tiles, _, lanes = data.shape
    valid = batch - (n_tiles - 1) * lanes
    if n_tiles and valid < lanes:
        data[-1, :, valid:] = 0


def _flat(data: Array) -> Array:
    """Return a C-contiguous one-dimensional view (a copy only where `data` is strided)."""
    return data.reshape(-1)


def _empty_like(data: Array) -> Array:
    """Return an aligned, C-contiguous array in the shape and dtype of `data`."""
    return tiles.empty(data.shape, data.dtype)


def _number(function: str, name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{function} expects {name} as a number; got {value!r}.")
    return float(value)
