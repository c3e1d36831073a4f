"""The whole forward pass of a frozen network in one call: the loop over layers is in here.

Every kernel takes the same five arrays. `program` (int64) is [n_layers, widest layer] and then, layer by layer, a
header of `HEAD` numbers, the offset of each panel, and the panels' blocks:

    layer   next layer, kind, n_in, n_out, activation, slope, bias, scale, inputs per slab, n_panels
    block   first output, n_outputs, outputs, indices, weights, n_segments, then (weights per output, outputs) ...

Slope, bias and scale are offsets in `constants`; outputs in `wide`, indices in `narrow` or `wide`, weights in `values`.
A panel is a range of outputs with about the same work as the others, a block its part in one slab of inputs. Within a
block the outputs are sorted by their number of weights, so that loop ends are predicted and four outputs with equally
many go side by side, their weights and indices interleaved. Dense layers have one block a panel, row-major.

`samples` and `samples_split` take one sample after the other; `forward_tiles` leads a tile of samples through all
layers while it is in cache. `inference.packing` writes programs, `inference.checking` checks them.
"""

from __future__ import annotations

import math

from numba import prange

from nnsparse import jit
from nnsparse.kernels.stored import collect, four, spread, weight, weights
from nnsparse.simd import add, item, load, madd, put, relu, store, zero
from nnsparse.simd_sums import total

SCALE, DENSE, NARROW, WIDE = range(
    4
)  # kinds of layers: y = scale·x + bias; weights; 1 or 2 bytes an index
IDENTITY, RELU, LEAKY, TANH, SIGMOID, GELU = range(6)  # activations
HEAD, BLOCK = 10, 6


@jit.inline
def activate(kind, slope, y, begin, end):
    """Apply an activation to y[begin:end], in place."""
    one = y.dtype.type(1)
    if kind == RELU:
        whole = begin + (end - begin) // 16 * 16
        for i in range(begin, whole, 16):
            store(y, i, relu(load(y, i, 16)))
        for i in range(whole, end):
            v = item(y, i)
            put(y, i, y.dtype.type(0) if v < 0 else v)
    elif kind == LEAKY:
        for i in range(begin, end):
            v = item(y, i)
            put(y, i, slope * v if v < 0 else v)
    elif kind == TANH:
        for i in range(begin, end):
            put(y, i, math.tanh(item(y, i)))
    elif kind == SIGMOID:
        for i in range(begin, end):
            put(y, i, one / (one + math.exp(-item(y, i))))
    elif kind == GELU:
        half, root = y.dtype.type(0.5), y.dtype.type(-math.sqrt(0.5))
        for i in range(begin, end):
            v = item(y, i)
            cdf = half * math.erfc(root * v)
            put(y, i, v * cdf if cdf != 0 else y.dtype.type(0))


# ---------------------------------------------------------------- one sample


@jit.inline
def _sparse_rows(program, block, values, indices, wide, base, x, s, y, t):
    """Add one block of a sparse layer: y[t + o] = base[o] + Σ w·x[s + i]; `base` is the bias, or y itself."""
    first, j = item(program, block), item(program, block + 2)
    i, k = item(program, block + 3), item(program, block + 4)
    t += first
    bias, b = base
    b += first
    for g in range(item(program, block + 5)):
        count = item(program, block + BLOCK + 2 * g)
        rows = item(program, block + BLOCK + 2 * g + 1)
        for _ in range(rows // 4):
            # Two sums in turn: one alone would wait for the latency of multiply-add.
            even, odd = zero(x, 4), zero(x, 4)
            for _ in range(count // 2):
                even = madd(weights(values, k, x, 4), collect(x, s, four(indices, i)), even)
                odd = madd(weights(values, k + 4, x, 4), collect(x, s, four(indices, i + 4)), odd)
                k += 8
                i += 8
            if count % 2:
                even = madd(weights(values, k, x, 4), collect(x, s, four(indices, i)), even)
                k += 4
                i += 4
            sums, o = spread(add(even, odd)), four(wide, j)
            put(y, t + o[0], sums[0] + item(bias, b + o[0]))
            put(y, t + o[1], sums[1] + item(bias, b + o[1]))
            put(y, t + o[2], sums[2] + item(bias, b + o[2]))
            put(y, t + o[3], sums[3] + item(bias, b + o[3]))
            j += 4
        for _ in range(rows % 4):
            o1 = item(wide, j)
            acc = item(bias, b + o1)
            for _ in range(count):
                acc += weight(values, k, x) * item(x, s + item(indices, i))
                k += 1
                i += 1
            put(y, t + o1, acc)
            j += 1


@jit.inline
def _dense_rows(program, block, n_in, values, constants, b, x, s, y, t):
    """Write one block of a dense layer: y[t + o] = b[o] + Σ w·x[s + i]."""
    first, k = item(program, block), item(program, block + 4)
    whole = n_in // 16 * 16
    for o in range(first, first + item(program, block + 1)):
        even, odd = zero(x, 16), zero(x, 16)
        for i in range(0, whole - 16, 32):
            even = madd(weights(values, k + i, x, 16), load(x, s + i, 16), even)
            odd = madd(weights(values, k + i + 16, x, 16), load(x, s + i + 16, 16), odd)
        if whole % 32:
            even = madd(weights(values, k + whole - 16, x, 16), load(x, s + whole - 16, 16), even)
        acc = item(constants, b + o) + total(add(even, odd))
        for i in range(whole, n_in):
            acc += weight(values, k + i, x) * item(x, s + i)
        put(y, t + o, acc)
        k += n_in


@jit.inline
def _panel(program, layer, panel, values, narrow, wide, constants, x, s, t):
    """Compute one panel of a layer for one sample, from x[s ...] to x[t ...]."""
    kind, n_in = item(program, layer + 1), item(program, layer + 2)
    b, slab = item(program, layer + 6), item(program, layer + 8)
    block = item(program, layer + HEAD + panel)
    begin = t + item(program, block)
    end = begin + item(program, block + 1)
    if kind == SCALE:
        a = item(program, layer + 7)
        for i in range(n_in):
            put(x, t + i, item(constants, a + i) * item(x, s + i) + item(constants, b + i))
    elif kind == DENSE:
        _dense_rows(program, block, n_in, values, constants, b, x, s, x, t)
    else:
        for c in range(0, n_in, slab):
            base = (constants, b) if c == 0 else (x, t)
            if kind == NARROW:
                _sparse_rows(program, block, values, narrow, wide, base, x, s + c, x, t)
            else:
                _sparse_rows(program, block, values, wide, wide, base, x, s + c, x, t)
            block += BLOCK + 2 * item(program, block + 5)
    slope = item(constants, item(program, layer + 5))
    activate(item(program, layer + 4), slope, x, begin, end)


@jit.serial
def samples(program, values, narrow, wide, constants, x, scratch, out):
    """Write out (batch, n_out) for x (batch, n_in), one sample after the other; scratch is (2 · widest layer,)."""
    n_in, n_out, width = x.shape[1], out.shape[1], item(program, 1)
    for row in range(x.shape[0]):
        for i in range(n_in):
            put(scratch, i, item(x, row * n_in + i))
        s, t = 0, width
        layer = 2
        for _ in range(item(program, 0)):
            for panel in range(item(program, layer + 9)):
                _panel(program, layer, panel, values, narrow, wide, constants, scratch, s, t)
            s, t = t, s
            layer = item(program, layer)
        for i in range(n_out):
            put(out, row * n_out + i, item(scratch, s + i))


@jit.parallel
def samples_split(program, values, narrow, wide, constants, x, scratch, out):
    """Do what `samples` does, the panels of each layer on all threads."""
    n_in, n_out, width = x.shape[1], out.shape[1], program[1]
    for row in range(x.shape[0]):
        for i in range(n_in):
            put(scratch, i, item(x, row * n_in + i))
        layer, s = 2, 0
        for _ in range(program[0]):
            for panel in prange(program[layer + 9]):
                _panel(
                    program, layer, panel, values, narrow, wide, constants, scratch, s, width - s
                )
            s = width - s
            layer = program[layer]
        for i in range(n_out):
            put(out, row * n_out + i, item(scratch, s + i))
