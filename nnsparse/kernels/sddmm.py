"""Weight gradient at the nonzeros only: g[k] = Σ_b d[row_k, b] · x[col_k, b] (sampled dense-dense product).

And the bias gradient Σ_b d[:, b], whose summands it has in registers anyway.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import prange

from nnsparse import jit
from nnsparse.simd import add, item, load, load_head, put, store, store_head
from nnsparse.simd_sums import dot, total, totals


def part(itemsize: int) -> int:
    """Return how many numbers one SIMD register of this CPU holds, at least four.

    Half or twice as many are 1.2-2x slower with AVX-512, 1.3-1.5x with AVX2.
    """
    return max(4, jit.vector_bits() // (8 * itemsize))


@cache
def sddmm(lanes: int, width: int) -> Any:
    """Return the kernel for tiles of `lanes` samples, which sums up in vectors of `width` numbers (see `part`).

    It takes the arrays of `plan.Slabs`, d (n_tiles, n_out, lanes), x (n_tiles, n_in, lanes), and writes all of
    out (nnz,) in the order of the weights, and all of sums (n_out,), the bias gradient, unless that is (0,).
    """

    @jit.parallel
    def sddmm_kernel(indices, pointers, outputs, panels, slab, d, x, sums, out):
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
                k = item(pointers, run)
                for j in range(run, run + size):
                    end = item(pointers, j + 1)
                    o = item(outputs, j)
                    delta = load(d, (tile * n_out + o) * lanes, lanes)
                    if s == 0 and sums.size > 0:
                        put(sums, o, total(delta) if tile == 0 else item(sums, o) + total(delta))
                    # Four at a time: their sums share the shuffles of one reduction.
                    while k + 4 <= end:
                        x0 = load(x, source + item(indices, k) * lanes, lanes)
                        x1 = load(x, source + item(indices, k + 1) * lanes, lanes)
                        x2 = load(x, source + item(indices, k + 2) * lanes, lanes)
                        x3 = load(x, source + item(indices, k + 3) * lanes, lanes)
                        a, b = dot(delta, x0, width), dot(delta, x1, width)
                        four = totals(a, b, dot(delta, x2, width), dot(delta, x3, width))
                        if tile > 0:
                            four = add(four, load(out, k, 4))
                        store(out, k, four)
                        k += 4
                    # The last one to three likewise, an input twice where there is none left.
                    if k < end:
                        x0 = load(x, source + item(indices, k) * lanes, lanes)
                        x1 = load(x, source + item(indices, min(k + 1, end - 1)) * lanes, lanes)
                        x2 = load(x, source + item(indices, end - 1) * lanes, lanes)
                        c = dot(delta, x2, width)
                        four = totals(dot(delta, x0, width), dot(delta, x1, width), c, c)
                        if tile > 0:
                            four = add(four, load_head(out, k, 4, end - k))
                        store_head(out, k, four, end - k)
                        k = end

    return sddmm_kernel
