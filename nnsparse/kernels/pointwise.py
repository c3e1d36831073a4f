"""Functions applied to each element, and sums over the samples of a tile.

Elementwise kernels take flat arrays of one float dtype; a tiled activation is handed over as one,
its padded lanes included. What looks at features takes tiles (n_tiles, n_features, lanes) of any
number of lanes. The results are the same bits on any number of threads: each element, or each
feature, is computed by one of them.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import math

import numpy as np
from numba import prange

from nnsparse import jit
from nnsparse.simd import add, load, zero
from nnsparse.simd_sums import total

BLOCK = 16  # features per task: a contiguous 4 KB of each tile at 64 lanes of float32


@jit.parallel
def sum_samples_kernel(g, out):
    """Write the sum of g (n_tiles, n_features, lanes), padded lanes zero, over the samples into out (n_features,)."""
    n_tiles, n_features, lanes = g.shape
    whole = lanes - lanes % 16
    for block in prange((n_features + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        stop = min(n_features, start + BLOCK)
        for f in range(start, stop):
            out[f] = 0
        for tile in range(n_tiles):
            for f in range(start, stop):
                at = (tile * n_features + f) * lanes
                acc = zero(g, 16)
                for lane in range(0, whole, 16):
                    acc = add(acc, load(g, at + lane, 16))
                rest = total(acc)
                for lane in range(whole, lanes):
                    rest += g[tile, f, lane]
                out[f] += rest


@jit.parallel
def spread_kernel(v, batch, out):
    """Write v (n_features,) into each of the `batch` samples of out (n_tiles, n_features, lanes).

    Padded lanes become zero.
    """
    n_tiles, n_features, lanes = out.shape
    for block in prange((n_features + BLOCK - 1) // BLOCK):
        for f in range(block * BLOCK, min(n_features, block * BLOCK + BLOCK)):
            for tile in range(n_tiles):
                valid = min(lanes, batch - tile * lanes)
                for lane in range(valid):
                    out[tile, f, lane] = v[f]
                for lane in range(valid, lanes):
                    out[tile, f, lane] = 0


# Elements per task of an elementwise kernel. A task works on slices (`x_` of `x`), whose indices
# LLVM knows not to be negative: only so are the loops vectorised (relu: 4×).
PIECE = 1 << 12


@jit.parallel
def relu_kernel(x, out):
    """Write out = max(x, 0), NaN for NaN."""
    zero = x.dtype.type(0)
    for piece in prange((x.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(x.size, start + PIECE)
        x_, out_ = x[start:stop], out[start:stop]
        for i in range(out_.size):
            out_[i] = zero if x_[i] < 0 else x_[i]


@jit.parallel
def relu_gate_kernel(out, g, gated):
    """Write gated = g where out > 0 or NaN, else 0."""
    zero = g.dtype.type(0)
    for piece in prange((g.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(g.size, start + PIECE)
        out_, g_, gated_ = out[start:stop], g[start:stop], gated[start:stop]
        for i in range(gated_.size):
            gated_[i] = zero if out_[i] <= 0 else g_[i]


@jit.parallel
def leaky_relu_kernel(x, slope, out):
    """Write out = x where x >= 0 or NaN, else slope·x."""
    factor = x.dtype.type(slope)
    for piece in prange((x.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(x.size, start + PIECE)
        x_, out_ = x[start:stop], out[start:stop]
        for i in range(out_.size):
            out_[i] = factor * x_[i] if x_[i] < 0 else x_[i]


@jit.parallel
def leaky_gate_kernel(x, slope, g, gated):
    """Write gated = g where x > 0 or NaN, else slope·g."""
    factor = g.dtype.type(slope)
    for piece in prange((g.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(g.size, start + PIECE)
        x_, g_, gated_ = x[start:stop], g[start:stop], gated[start:stop]
        for i in range(gated_.size):
            gated_[i] = factor * g_[i] if x_[i] <= 0 else g_[i]


@jit.parallel
def tanh_kernel(x, out):
    """Write out = tanh(x)."""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(x.size, start + PIECE)
        x_, out_ = x[start:stop], out[start:stop]
        for i in range(out_.size):
            out_[i] = math.tanh(x_[i])


@jit.parallel
def tanh_backward(out, g, dx):
    """Write dx = g·(1 − out²)."""
    one = g.dtype.type(1)
    for piece in prange((g.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(g.size, start + PIECE)
        out_, g_, dx_ = out[start:stop], g[start:stop], dx[start:stop]
        for i in range(dx_.size):
            dx_[i] = g_[i] * (one - out_[i] * out_[i])


@jit.parallel
def sigmoid_kernel(x, out):
    """Write out = 1 / (1 + e^−x)."""
    one = x.dtype.type(1)
    for piece in prange((x.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(x.size, start + PIECE)
        x_, out_ = x[start:stop], out[start:stop]
        for i in range(out_.size):
            out_[i] = one / (one + math.exp(-x_[i]))


@jit.parallel
def sigmoid_backward(out, g, dx):
    """Write dx = g·out·(1 − out)."""
    one = g.dtype.type(1)
    for piece in prange((g.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(g.size, start + PIECE)
        out_, g_, dx_ = out[start:stop], g[start:stop], dx[start:stop]
        for i in range(dx_.size):
            dx_[i] = g_[i] * out_[i] * (one - out_[i])


@jit.parallel
def normal_kernel(x, out):
    """Write out = Φ(x), the standard normal distribution function, with all its digits far left."""
    half, root = x.dtype.type(0.5), x.dtype.type(-math.sqrt(0.5))
    for piece in prange((x.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(x.size, start + PIECE)
        x_, out_ = x[start:stop], out[start:stop]
        for i in range(out_.size):
            out_[i] = half * math.erfc(root * x_[i])


@jit.parallel
def gelu_kernel(x, out):
    """Write out = x·Φ(x); 0 at −inf."""
    half, root = x.dtype.type(0.5), x.dtype.type(-math.sqrt(0.5))
    for piece in prange((x.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(x.size, start + PIECE)
        x_, out_ = x[start:stop], out[start:stop]
        for i in range(out_.size):
            cdf = half * math.erfc(root * x_[i])
            out_[i] = x_[i] * cdf if cdf != 0 else x.dtype.type(0)


@jit.parallel
def gelu_backward(x, g, dx):
    """Write dx = g·(Φ(x) + x·φ(x)), φ the standard normal density."""
    half, root = x.dtype.type(0.5), x.dtype.type(-math.sqrt(0.5))
    scale = x.dtype.type(1 / math.sqrt(2 * math.pi))
    for piece in prange((g.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(g.size, start + PIECE)
        x_, g_, dx_ = x[start:stop], g[start:stop], dx[start:stop]
        for i in range(dx_.size):
            density = scale * math.exp(-half * x_[i] * x_[i])
            step = x_[i] * density if density != 0 else x.dtype.type(0)
            dx_[i] = g_[i] * (half * math.erfc(root * x_[i]) + step)


@jit.inline
def _bits(seed, counter):
    """Return 64 random bits for one element: SplitMix64 (Steele et al., 2014) at a counter."""
    z = seed + np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit.parallel
def dropout_kernel(x, seed, threshold, scale, out):
    """Write out = scale·x, or 0·x where the bits of an element's position are below `threshold`."""
    keep, drop = x.dtype.type(scale), x.dtype.type(0)
    for piece in prange((x.size + PIECE - 1) // PIECE):
        start = piece * PIECE
        stop = min(x.size, start + PIECE)
        x_, out_ = x[start:stop], out[start:stop]
        for i in range(out_.size):
            out_[i] = x_[i] * (drop if _bits(seed, start + i) < threshold else keep)


@jit.parallel
def dropout_tiles_kernel(x, seed, threshold, scale, out):
    """Do what `dropout_kernel` does to the plain (batch, n_features) array, on its tiles."""
    n_tiles, n_features, lanes = x.shape
    keep, drop = x.dtype.type(scale), x.dtype.type(0)
    for task in prange(n_tiles * n_features):
        tile = task // n_features
        f = task % n_features
        for lane in range(lanes):
            bits = _bits(seed, (tile * lanes + lane) * n_features + f)
            out[tile, f, lane] = x[tile, f, lane] * (drop if bits < threshold else keep)
