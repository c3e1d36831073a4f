"""Weight gradient at the nonzeros only: g[k] = Σ_b d[row_k, b] · x[col_k, b] (sampled dense-dense product)."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import prange

from nnsparse import jit
from nnsparse.simd import add, fold, load, mul, store, total, totals


@cache
def sddmm(lanes: int) -> Any:
    """Return the kernel for tiles of `lanes` samples.

    It takes the arrays of `plan.Slabs`, d (n_tiles, n_out, lanes), x (n_tiles, n_in, lanes), and writes all of
    out (nnz,) in the order of the weights.
    """

    @jit.parallel
    def sddmm_kernel(indices, pointers, outputs, panels, slab, d, x, out):
        n_tiles, n_in, _ = x.shape
        n_out = d.shape[1]
        n_panels = panels.size - 1
        n_slabs = max(1, (n_in + slab - 1) // slab)
        for task in prange(n_slabs * n_panels):
            s = task % n_slabs
            first = panels[task // n_slabs]
            size = panels[task // n_slabs + 1] - first
            run = first * n_slabs + s * size
            for tile in range(n_tiles):
                source = (tile * n_in + s * slab) * lanes
                k = pointers[run]
                for j in range(run, run + size):
                    end = pointers[j + 1]
                    delta = load(d, (tile * n_out + outputs[j]) * lanes, lanes)
                    # Four at a time: their sums share the shuffles of one reduction.
                    while k + 4 <= end:
                        a = mul(delta, load(x, source + indices[k] * lanes, lanes))
                        b = mul(delta, load(x, source + indices[k + 1] * lanes, lanes))
                        c = mul(delta, load(x, source + indices[k + 2] * lanes, lanes))
                        e = mul(delta, load(x, source + indices[k + 3] * lanes, lanes))
                        sums = totals(fold(a, 16), fold(b, 16), fold(c, 16), fold(e, 16))
                        if tile > 0:
                            sums = add(sums, load(out, k, 4))
                        store(out, k, sums)
                        k += 4
                    while k < end:
                        at = source + indices[k] * lanes
                        value = total(mul(delta, load(x, at, lanes)))
                        out[k] = value + out[k] if tile > 0 else value
                        k += 1

    return sddmm_kernel
