"""Losses and their gradients in one pass, on tiles.

All take logits z (n_tiles, n, lanes), of which only the first `batch` samples count, and write all
of d, the gradient of the loss with respect to z; its padded lanes become zero. A plain array
(batch, n) is handed over as the strided view (1, n, batch). Weights (batch,) float64 are 1/batch for
the mean over samples. The loss of each sample is kept in float64 and added up in the order of the
samples, so that threads do not show in any bit.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import math

from numba import prange

from nnsparse import jit

CHUNK = 16  # samples per task


@jit.serial
def first_outside(labels, n):
    """Return the first i with labels[i] outside 0 .. n − 1, or −1."""
    for i in range(labels.size):
        if labels[i] < 0 or labels[i] >= n:
            return i
    return -1


@jit.inline
def _softmax(z, tile, first, last, peaks, sums, d):
    """Write d = e^(z − peak) and, per lane, peak and sum: class by class, lanes abreast."""
    start = tile * z.shape[2]
    for lane in range(first, last):
        peaks[start + lane] = z[tile, 0, lane]
        sums[start + lane] = 0
    for c in range(1, z.shape[1]):
        for lane in range(first, last):
            if z[tile, c, lane] > peaks[start + lane]:
                peaks[start + lane] = z[tile, c, lane]
    for c in range(z.shape[1]):
        for lane in range(first, last):
            e = math.exp(z[tile, c, lane] - peaks[start + lane])
            d[tile, c, lane] = e
            sums[start + lane] += e


@jit.parallel
def cross_entropy(z, labels, smoothing, weights, peaks, sums, losses, d):
    """Return −Σ_b w_b Σ_c q_bc log softmax(z_b)_c and write its gradient w_b·(softmax − q).

    Parameters
    ----------
    z, d : (n_tiles, n, lanes)
        Logits; gradient, written.
    labels : (batch,) integers
        From 0 to n − 1. q is 1 − smoothing at the label plus smoothing/n everywhere.
    smoothing : float
    weights : (batch,) float64
        w.
    peaks : (n_tiles·lanes,), dtype of z
        Scratch.
    sums, losses : (n_tiles·lanes,) float64
        Scratch; loss of each sample.
    """
    n_tiles, n, lanes = z.shape
    batch = labels.size
    n_chunks = (lanes + CHUNK - 1) // CHUNK
    uniform = smoothing / n
    for task in prange(n_tiles * n_chunks):
        tile = task // n_chunks
        first = (task % n_chunks) * CHUNK
        end = min(lanes, first + CHUNK)
        start = tile * lanes
        last = max(first, min(end, batch - start))
        _softmax(z, tile, first, last, peaks, sums, d)
        for lane in range(first, last):
            b = start + lane
            losses[b] = math.log(sums[b]) - (1 - smoothing) * (z[tile, labels[b], lane] - peaks[b])
            sums[b] = weights[b] / sums[b]
        for c in range(n):
            if smoothing > 0:
                for lane in range(first, last):
                    losses[start + lane] -= uniform * (z[tile, c, lane] - peaks[start + lane])
            for lane in range(first, last):
                b = start + lane
                d[tile, c, lane] = d[tile, c, lane] * sums[b] - weights[b] * uniform
            for lane in range(last, end):
                d[tile, c, lane] = 0
        for lane in range(first, last):
            d[tile, labels[start + lane], lane] -= weights[start + lane] * (1 - smoothing)
    total = 0.0
    for b in range(batch):
        total += losses[b] * weights[b]
    return total


@jit.parallel
def squared_error(z, targets, weights, losses, d):
    """Return Σ_b w_b Σ (z − t)² and write its gradient 2·w_b·(z − t); targets (batch, n)."""
    n_tiles, n, lanes = z.shape
    batch = targets.shape[0]
    n_chunks = (lanes + CHUNK - 1) // CHUNK
    for task in prange(n_tiles * n_chunks):
        tile = task // n_chunks
        first = (task % n_chunks) * CHUNK
        end = min(lanes, first + CHUNK)
        start = tile * lanes
        last = max(first, min(end, batch - start))
        for lane in range(first, last):
            losses[start + lane] = 0
        for c in range(n):
            for lane in range(first, last):
                error = z[tile, c, lane] - targets[start + lane, c]
                losses[start + lane] += float(error) * error
                d[tile, c, lane] = 2 * weights[start + lane] * error
            for lane in range(last, end):
                d[tile, c, lane] = 0
    total = 0.0
    for b in range(batch):
        total += losses[b] * weights[b]
    return total


@jit.parallel
def logistic(z, targets, weights, losses, d):
    """Return Σ_b w_b Σ log(1 + e^z) − t·z and write its gradient w_b·(sigmoid(z) − t).

    Targets (batch, n) from 0 to 1. Written with e^−|z|, which cannot overflow.
    """
    n_tiles, n, lanes = z.shape
    batch = targets.shape[0]
    n_chunks = (lanes + CHUNK - 1) // CHUNK
    for task in prange(n_tiles * n_chunks):
        tile = task // n_chunks
        first = (task % n_chunks) * CHUNK
        end = min(lanes, first + CHUNK)
        start = tile * lanes
        last = max(first, min(end, batch - start))
        for lane in range(first, last):
            losses[start + lane] = 0
        for c in range(n):
            for lane in range(first, last):
                x = float(z[tile, c, lane])
                t = float(targets[start + lane, c])
                small = math.exp(-abs(x))
                losses[start + lane] += max(x, 0.0) - t * x + math.log1p(small)
                p = 1 / (1 + small) if x >= 0 else small / (1 + small)
                d[tile, c, lane] = weights[start + lane] * (p - t)
            for lane in range(last, end):
                d[tile, c, lane] = 0
    total = 0.0
    for b in range(batch):
        total += losses[b] * weights[b]
    return total
