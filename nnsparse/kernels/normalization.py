"""Batch normalisation on tiles (n_tiles, n_features, lanes): statistics of the valid samples.

One thread computes a feature from end to end, so the number of threads does not show in any bit.
Padded lanes are written as zeros.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import math

from numba import prange

from nnsparse import jit
from nnsparse.simd import add, load, madd, mul, splat, zero
from nnsparse.simd_sums import total


@jit.inline
def _squares(x, f, batch, center):
    """Return Σ (x_b − center)² of feature f over the samples, in float64 from tile to tile."""
    n_tiles, n_features, lanes = x.shape
    shift = x.dtype.type(-center)
    result = 0.0
    for tile in range(n_tiles):
        valid = min(lanes, batch - tile * lanes)
        whole = valid - valid % 16
        at = (tile * n_features + f) * lanes
        acc = zero(x, 16)
        for lane in range(0, whole, 16):
            v = add(load(x, at + lane, 16), splat(shift, 16))
            acc = madd(v, v, acc)
        result += total(acc)
        for lane in range(whole, valid):
            v = x[tile, f, lane] + shift
            result += v * v
    return result


@jit.inline
def _sums(x, y, f, batch):
    """Return Σ x_b and Σ x_b·y_b of feature f over the samples."""
    n_tiles, n_features, lanes = x.shape
    plain, product = 0.0, 0.0
    for tile in range(n_tiles):
        valid = min(lanes, batch - tile * lanes)
        whole = valid - valid % 16
        at = (tile * n_features + f) * lanes
        a, b = zero(x, 16), zero(x, 16)
        for lane in range(0, whole, 16):
            v = load(x, at + lane, 16)
            a = add(a, v)
            b = add(b, mul(v, load(y, at + lane, 16)))
        plain += total(a)
        product += total(b)
        for lane in range(whole, valid):
            plain += x[tile, f, lane]
            product += x[tile, f, lane] * y[tile, f, lane]
    return plain, product


@jit.parallel
def batch_norm(x, batch, weight, bias, eps, mean, variance, normed, out):
    """Write out = weight·normed + bias with normed = (x − mean) / √(variance + eps).

    Parameters
    ----------
    x : (n_tiles, n_features, lanes)
        Activation of `batch` samples.
    weight, bias : (n_features,)
        Scale and shift.
    mean, variance : (n_features,) float64
        Written; variance is Σ (x − mean)² / batch.
    normed, out : (n_tiles, n_features, lanes)
        Written.
    """
    n_tiles, n_features, lanes = x.shape
    real = x.dtype.type
    for f in prange(n_features):
        center = _sums(x, x, f, batch)[0] / batch
        spread = _squares(x, f, batch, center) / batch
        mean[f], variance[f] = center, spread
        middle, factor = real(center), real(1 / math.sqrt(spread + eps))
        scale, shift = weight[f], bias[f]
        for tile in range(n_tiles):
            valid = min(lanes, batch - tile * lanes)
            for lane in range(valid):
                v = (x[tile, f, lane] - middle) * factor
                normed[tile, f, lane] = v
                out[tile, f, lane] = v * scale + shift
            for lane in range(valid, lanes):
                normed[tile, f, lane] = 0
                out[tile, f, lane] = 0


@jit.parallel
def batch_norm_backward(g, normed, batch, weight, variance, eps, dx, dweight, dbias):
    """Write the gradients: with h = weight / √(variance + eps), all sums and means over samples.

    dbias = Σ g, dweight = Σ g·normed, dx = h·(g − dbias/batch − normed·dweight/batch).
    """
    n_tiles, n_features, lanes = g.shape
    real = g.dtype.type
    for f in prange(n_features):
        plain, product = _sums(g, normed, f, batch)
        dbias[f], dweight[f] = plain, product
        a, b = real(plain / batch), real(product / batch)
        factor = real(weight[f] / math.sqrt(variance[f] + eps))
        for tile in range(n_tiles):
            valid = min(lanes, batch - tile * lanes)
            for lane in range(valid):
                v = g[tile, f, lane] - a - normed[tile, f, lane] * b
                dx[tile, f, lane] = factor * v
            for lane in range(valid, lanes):
                dx[tile, f, lane] = 0
