"""Optimizer updates: one pass over parameter, gradient and state, all flat and in place.

A step of training is bound by memory here, so each kernel reads and writes every array once. The
settings come as Python floats (float64) and are cast to the arrays' dtype once, so that float32
arithmetic stays float32. The `_parallel` twins cut the same loops into pieces of fixed length:
the bits do not depend on the number of threads. What the settings mean is in `nnsparse.optim`.
"""

import math
from typing import Any

import numba

from nnsparse import jit

# Elements that one thread updates at a time; 4096, 8192 and 16384 measure alike.
PIECE = 1 << 12


@jit.inline
def _sgd(
    p: Any,
    g: Any,
    m: Any,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    real = p.dtype.type
    rate = real(lr)
    mu = real(momentum)
    gain = real(1.0 - dampening)
    decay = real(weight_decay)
    # One branch-free loop per case, which LLVM vectorises; without decay p must not enter the
    # sum, or an infinite weight would turn its gradient into NaN.
    decays = weight_decay != 0.0
    if momentum == 0.0:
        for i in range(p.size):
            d = g[i] + decay * p[i] if decays else g[i]
            p[i] -= rate * d
    elif first:
        follow = real(1.0 + momentum) if nesterov else real(1.0)
        for i in range(p.size):
            d = g[i] + decay * p[i] if decays else g[i]
            m[i] = d
            p[i] -= rate * (follow * d)
    elif nesterov:
        for i in range(p.size):
            d = g[i] + decay * p[i] if decays else g[i]
            v = mu * m[i] + gain * d
            m[i] = v
            p[i] -= rate * (d + mu * v)
    else:
        for i in range(p.size):
            d = g[i] + decay * p[i] if decays else g[i]
            v = mu * m[i] + gain * d
            m[i] = v
            p[i] -= rate * v


@jit.serial
def sgd(
    p: Any,
    g: Any,
    m: Any,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    """Update `p` and its momentum `m` by gradient `g`: m ← μm + (1 − τ)(g + λp), p ← p − ηm.

    Parameters
    ----------
    p, g, m : ndarray, shape (n,), one float dtype
        Parameter, gradient, momentum. Without momentum, `m` is not touched and may be any array.
    lr, momentum, dampening, weight_decay : float
        η, μ, τ, λ.
    nesterov : bool
        Step along g + λp + μm instead of m.
    first : bool
        `m` holds nothing yet: it becomes g + λp.
    """
    _sgd(p, g, m, lr, momentum, dampening, weight_decay, nesterov, first)


@jit.parallel
def sgd_parallel(
    p: Any,
    g: Any,
    m: Any,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    """Do what `sgd` does, on all threads."""
    n = p.size
    for piece in numba.prange((n + PIECE - 1) // PIECE):
        lo = piece * PIECE
        hi = min(n, lo + PIECE)
        _sgd(
            p[lo:hi],
            g[lo:hi],
            m[lo:hi],
            lr,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            first,
        )


@jit.inline
def _adam(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    real = p.dtype.type
    rate = real(lr / (1.0 - beta1**step))
    root = real(1.0 / math.sqrt(1.0 - beta2**step))
    keep1, gain1 = real(beta1), real(1.0 - beta1)
    keep2, gain2 = real(beta2), real(1.0 - beta2)
    floor = real(eps)
    decay = real(weight_decay)
    decays = weight_decay != 0.0
    for i in range(p.size):
        d = g[i] + decay * p[i] if decays else g[i]
        mean = keep1 * m[i] + gain1 * d
        square = keep2 * v[i] + gain2 * (d * d)
        m[i] = mean
        v[i] = square
        p[i] -= rate * (mean / (math.sqrt(square) * root + floor))


@jit.serial
def adam(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """Update `p` and its moments `m`, `v` by gradient `g`, with d = g + λp.

    m ← β₁m + (1 − β₁)d, v ← β₂v + (1 − β₂)d², p ← p − η·m̂ / (√v̂ + ε), where m̂ and v̂ are m and v
    divided by 1 − βᵗ.

    Parameters
    ----------
    p, g, m, v : ndarray, shape (n,), one float dtype
        Parameter, gradient, first and second moment.
    lr, beta1, beta2, eps, weight_decay : float
        η, β₁, β₂, ε, λ.
    step : int
        t, counted from 1.
    """
    _adam(p, g, m, v, lr, beta1, beta2, eps, weight_decay, step)


@jit.parallel
def adam_parallel(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """Do what `adam` does, on all threads."""
    n = p.size
    for piece in numba.prange((n + PIECE - 1) // PIECE):
        lo = piece * PIECE
        hi = min(n, lo + PIECE)
        _adam(
            p[lo:hi],
            g[lo:hi],
            m[lo:hi],
            v[lo:hi],
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            step,
        )
