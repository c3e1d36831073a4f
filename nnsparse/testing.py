"""Slow, obvious float64 twins of every kernel, and odd topologies: for tests, here and outside.

Nothing here is compiled, tiled or fused: one NumPy line per equation, whatever the inputs' dtype,
so that it can be read instead of trusted. No kernel and no op may import this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.topology import Topology

Array: TypeAlias = NDArray[Any]
Float64: TypeAlias = NDArray[np.float64]


def _float64(a: ArrayLike) -> Float64:
    return np.asarray(a, np.float64)


# ---------------------------------------------------------------- the three products


def dense_forward(W: ArrayLike, X: ArrayLike) -> Float64:
    """Return O = W X: W (n_out, n_in), X (n_in, batch), O (n_out, batch)."""
    return np.asarray(_float64(W) @ _float64(X))


def dense_input_gradient(W: ArrayLike, dO: ArrayLike) -> Float64:
    """Return dX = W^T dO: W (n_out, n_in), dO (n_out, batch), dX (n_in, batch)."""
    return np.asarray(_float64(W).T @ _float64(dO))


def dense_weight_gradient(dO: ArrayLike, X: ArrayLike) -> Float64:
    """Return dW = dO X^T: dO (n_out, batch), X (n_in, batch), dW (n_out, n_in)."""
    return np.asarray(_float64(dO) @ _float64(X).T)


def sparse_weight_gradient(topology: Topology, dO: ArrayLike, X: ArrayLike) -> Float64:
    """Return dW at the nonzeros only, (nnz,), in the canonical order of `topology`."""
    return dense_weight_gradient(dO, X)[topology.coo()]


def masked_forward(topology: Topology, values: ArrayLike, X: ArrayLike) -> Float64:
    """Return O = W X for the W that has `values`, (nnz,), at the positions of `topology`."""
    return dense_forward(topology.to_dense(values), X)


def masked_input_gradient(topology: Topology, values: ArrayLike, dO: ArrayLike) -> Float64:
    """Return dX = W^T dO for the W that has `values`, (nnz,), at the positions of `topology`."""
    return dense_input_gradient(topology.to_dense(values), dO)


def roundoff(*factors: ArrayLike, dtype: Any) -> float:
    """Return how far a product of the two `factors` summed in `dtype` may be from its twin.

    The sum of n products is off by at most about n eps |a| |b|; this is that bound, for the whole
    array, at its largest entry.

    Parameters
    ----------
    *factors : two arrays that can be multiplied with @
        As in `np.abs(a) @ np.abs(b)`.
    dtype : dtype
        In which the kernel computes.

    Returns
    -------
    float
        An absolute tolerance, at least the smallest normal number.
    """
    a, b = (np.abs(_float64(factor)) for factor in factors)
    largest = float(np.max(a @ b, initial=0.0))
    limits = np.finfo(dtype)
    return float((a.shape[-1] + 4) * limits.eps * largest + limits.tiny)


# ---------------------------------------------------------------- tiles


def to_tiles_reference(x: ArrayLike, lanes: int) -> Array:
    """Return `x`, (batch, n), as tiles (n_tiles, n, lanes) of the same dtype, padded with zeros."""
    x = np.asarray(x)
    batch, n = x.shape
    n_tiles = -(-batch // lanes)
    padded = np.zeros((n_tiles * lanes, n), x.dtype)
    padded[:batch] = x
    return np.ascontiguousarray(padded.reshape(n_tiles, lanes, n).transpose(0, 2, 1))


def from_tiles_reference(tiles: ArrayLike, batch: int) -> Array:
    """Return the first `batch` samples of `tiles`, (n_tiles, n, lanes), as (batch, n)."""
    tiles = np.asarray(tiles)
    n_tiles, n, lanes = tiles.shape
    return np.ascontiguousarray(tiles.transpose(0, 2, 1).reshape(n_tiles * lanes, n)[:batch])


def gather_tiles_reference(x: ArrayLike, index: ArrayLike, lanes: int) -> Array:
    """Return the rows `index`, (batch,), of `x`, (n_samples, n), as tiles (n_tiles, n, lanes)."""
    return to_tiles_reference(np.asarray(x)[np.asarray(index)], lanes)


# ---------------------------------------------------------------- pointwise and losses, (batch, n)


def bias_relu_reference(z: ArrayLike, bias: ArrayLike) -> Float64:
    """Return max(z + bias, 0): z (batch, n), bias (n,). NaN stays NaN."""
    return np.maximum(_float64(z) + _float64(bias), 0.0)


def bias_relu_backward_reference(dy: ArrayLike, y: ArrayLike) -> tuple[Float64, Float64]:
    """Return (dz, dbias) from dy and the output y of `bias_relu_reference`, both (batch, n)."""
    dz = np.where(_float64(y) > 0, _float64(dy), 0.0)
    return dz, dz.sum(axis=0)


def softmax_reference(z: ArrayLike) -> Float64:
    """Return the softmax of each row of z, (batch, n)."""
    shifted = _float64(z) - np.max(_float64(z), axis=1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def cross_entropy_reference(
    logits: ArrayLike, labels: ArrayLike, smoothing: float = 0.0
) -> tuple[float, Float64]:
    """Return the mean softmax cross-entropy and its gradient with respect to the logits.

    Parameters
    ----------
    logits : (batch, n) array
        batch >= 1.
    labels : (batch,) integers
        From 0 to n - 1.
    smoothing : float in [0, 1]
        The target is (1 - smoothing) * one-hot + smoothing / n.

    Returns
    -------
    loss : float
    gradient : (batch, n) float64
    """
    z = _float64(logits)
    batch, n = z.shape
    target = np.full((batch, n), smoothing / n)
    target[np.arange(batch), np.asarray(labels)] += 1.0 - smoothing
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-(target * log_p).sum() / batch), (np.exp(log_p) - target) / batch


# ---------------------------------------------------------------- optimizer


def sgd_reference(
    w: ArrayLike,
    gradient: ArrayLike,
    velocity: ArrayLike | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Float64, Float64]:
    """Return (weights, velocity) after one step of PyTorch's SGD; velocity None at the first.

    Parameters
    ----------
    w, gradient : arrays of one shape
        Weights and their gradient.
    velocity : array of that shape or None
        As returned by the step before.
    lr, momentum, dampening, weight_decay : float
        As in `optim.SGD`.
    nesterov : bool
        Step along gradient + momentum * velocity.

    Returns
    -------
    weights, velocity : float64 arrays
    """
    weights = _float64(w)
    step = _float64(gradient) + weight_decay * weights
    if velocity is None:
        moved = step.copy()
    else:
        moved = momentum * _float64(velocity) + (1.0 - dampening) * step
    if momentum:
        step = step + momentum * moved if nesterov else moved
    return weights - lr * step, moved


# ---------------------------------------------------------------- topologies


def random_topology(
    rng: np.random.Generator, max_out: int = 40, max_in: int = 40, density: float | None = None
) -> Topology:
    """Return a random topology of random shape, 1 x 1 to max_out x max_in, often an odd one.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    max_out, max_in : int >= 1
        Largest shape.
    density : float in [0, 1], optional
        Default: 0, 1 or anything between.

    Returns
    -------
    Topology
        Half of them with some rows and columns emptied, when no density is asked for.
    """
    shape = (int(rng.integers(1, max_out + 1)), int(rng.integers(1, max_in + 1)))
    if density is not None:
        return Topology.random(shape, density=density, rng=rng)
    topology = Topology.random(shape, density=float(np.clip(rng.uniform(-0.2, 1.2), 0, 1)), rng=rng)
    if rng.random() < 0.5:
        return topology
    mask = topology.to_dense()
    mask[rng.random(shape[0]) < 0.3] = False
    mask[:, rng.random(shape[1]) < 0.3] = False
    return Topology.from_dense(mask)


def odd_topologies(rng: np.random.Generator) -> Iterator[tuple[str, Topology]]:
    """Yield (name, topology) for the shapes and patterns that break kernels.

    Nothing in it, everything in it, a single row, column or position, rows and columns without
    nonzeros at either end, no outputs or no inputs at all, sizes that no block size divides, and
    more inputs than one byte can count.
    """
    yield "no outputs", Topology.empty((0, 5))
    yield "no inputs", Topology.empty((5, 0))
    yield "empty", Topology.empty((7, 11))
    yield "full", Topology.full((13, 9))
    yield "one position", Topology.full((1, 1))
    yield "1 x n", Topology.random((1, 67), density=0.5, rng=rng)
    yield "n x 1", Topology.random((67, 1), density=0.5, rng=rng)
    yield "1 x n full", Topology.full((1, 33))
    yield "n x 1 full", Topology.full((33, 1))
    mask = Topology.random((19, 23), density=0.6, rng=rng).to_dense()
    mask[[0, 7, 18]] = False
    mask[:, [0, 11, 22]] = False
    yield "empty rows and columns", Topology.from_dense(mask)
    mask = np.zeros((17, 29), np.bool_)
    mask[8] = True
    yield "one full row", Topology.from_dense(mask)
    yield "one full column", Topology.from_dense(mask.T)
    yield "wide", Topology.random((3, 1031), density=0.2, rng=rng)
    yield "tall", Topology.random((1031, 3), density=0.2, rng=rng)
    yield "last column of many", Topology.from_coo((2, 70_001), [0, 1], [70_000, 0])
