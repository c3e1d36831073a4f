"""Between user arrays (samples, features) and tiles (n_tiles, n_features, lanes): gather and scatter, transposed.

Blocks of 16×16 are transposed in registers; what is left over at the edges goes element by element. Padded lanes are
written as zeros.
"""

from __future__ import annotations

from numba import prange

from nnsparse import jit
from nnsparse.simd_block import load_rows, load_rows_at, store_rows, transpose

BLOCK = 64  # features per task of the scatter: 64 features × 64 lanes of float32 are 16 KB
STRETCH = 256  # features per task of the gather: sixteen rows, each read on for 1 KB of float32


@jit.parallel
def gather_rows(source, index, out):
    """Write rows `index` (batch,) of source (n, n_features) into tiles out (n_tiles, n_features, lanes)."""
    n_tiles, n_features, lanes = out.shape
    batch = index.size
    n_groups = (lanes + 15) // 16
    n_blocks = (n_features + STRETCH - 1) // STRETCH
    for task in prange(n_tiles * n_groups * n_blocks):
        tile = task // n_blocks // n_groups
        lane = task // n_blocks % n_groups * 16
        start = task % n_blocks * STRETCH
        stop = min(n_features, start + STRETCH)
        first = tile * lanes + lane
        width = min(16, lanes - lane)
        rows = min(width, max(0, batch - first))
        whole = start
        if rows > 0 and width == 16:
            whole = start + (stop - start) // 16 * 16
            for f in range(start, whole, 16):
                block = transpose(load_rows_at(source, index, first, rows, n_features, f))
                store_rows(out, (tile * n_features + f) * lanes + lane, lanes, block)
        for f in range(whole, stop):
            for i in range(rows):
                out[tile, f, lane + i] = source[index[first + i], f]
            for i in range(rows, width):
                out[tile, f, lane + i] = 0


@jit.parallel
def scatter_rows(tiles, out):
    """Write tiles (n_tiles, n_features, lanes) into the rows of out (batch, n_features)."""
    n_tiles, n_features, lanes = tiles.shape
    batch = out.shape[0]
    n_blocks = (n_features + BLOCK - 1) // BLOCK
    for task in prange(n_tiles * n_blocks):
        tile = task // n_blocks
        start = (task % n_blocks) * BLOCK
        stop = min(n_features, start + BLOCK)
        for lane in range(0, lanes, 16):
            first = tile * lanes + lane
            rows = min(16, lanes - lane, max(0, batch - first))
            whole = start
            if rows == 16:
                whole = start + (stop - start) // 16 * 16
                for f in range(start, whole, 16):
                    block = load_rows(tiles, (tile * n_features + f) * lanes + lane, lanes)
                    store_rows(out, first * n_features + f, n_features, transpose(block))
            for i in range(rows):
                for f in range(whole, stop):
                    out[first + i, f] = tiles[tile, f, lane + i]
