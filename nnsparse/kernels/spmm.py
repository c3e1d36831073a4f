"""Sparse weights times tiles of activations: out = W·x (+ bias, ReLU).

The forward product and, on the transposed slabs, the input gradient. Weights come in the order of `plan.Slabs`: panel
of outputs, slab of inputs, output by length of its run; inputs are counted from the start of the slab.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import prange

from nnsparse import jit
from nnsparse.simd import load, madd, mul, relu, splat, store


@cache
def spmm(lanes: int) -> Any:
    """Return the kernel for tiles of `lanes` samples.

    It takes values (nnz,), the arrays of `plan.Slabs`, bias (n_out,), valid (2·lanes,) with ones for the lanes of a
    full tile and of the last one, x (n_tiles, n_in, lanes), and writes all of out (n_tiles, n_out, lanes).
    """

    @jit.parallel
    def spmm_kernel(values, indices, pointers, outputs, panels, slab, bias, valid, rectify, x, out):
        n_tiles, n_in, _ = x.shape
        n_out = out.shape[1]
        n_panels = panels.size - 1
        n_slabs = max(1, (n_in + slab - 1) // slab)
        for task in prange(n_tiles * n_panels):
            tile = task // n_panels
            first = panels[task % n_panels]
            size = panels[task % n_panels + 1] - first
            row = lanes if tile == n_tiles - 1 else 0
            for s in range(n_slabs):
                source = (tile * n_in + s * slab) * lanes
                run = first * n_slabs + s * size
                k = pointers[run]
                for j in range(run, run + size):
                    o = outputs[j]
                    target = (tile * n_out + o) * lanes
                    if s == 0:
                        acc = mul(splat(bias[o], lanes), load(valid, row, lanes))
                    else:
                        acc = load(out, target, lanes)
                    end = pointers[j + 1]
                    while k < end:
                        at = source + indices[k] * lanes
                        acc = madd(splat(values[k], lanes), load(x, at, lanes), acc)
                        k += 1
                    if rectify and s == n_slabs - 1:
                        acc = relu(acc)
                    store(out, target, acc)

    return spmm_kernel
