"""Crossing the border between plain arrays (batch, n_features) and tiles, differentiably."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnsparse import tiles, trace
from nnsparse.autograd import Tensor, record
from nnsparse.kernels.layout import gather_rows, scatter_rows
from nnsparse.rows import Rows

Array = NDArray[Any]


def to_tiles(rows: Rows, lanes: int, dtype: DTypeLike) -> Array:
    """Return rows as tiles (n_tiles, n_features, lanes), converted to `dtype`, padded lanes zero."""
    batch, n_features = rows.shape
    out = tiles.empty((tiles.n_tiles(batch, lanes), n_features, lanes), dtype)
    array, index = rows.array, rows.index
    if array.dtype != out.dtype or not array.flags.c_contiguous:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, as in NumPy
            array, index = np.ascontiguousarray(array[index], dtype=out.dtype), np.arange(batch)
    gather_rows(array, index, out)
    return out


@trace.timed("write-back")
def from_tiles(data: Array, batch: int, out: Array | None = None) -> Array:
    """Return tiles as an array (batch, n_features), or write them to C-contiguous `out` of that shape."""
    if out is None:
        out = np.empty((batch, data.shape[1]), data.dtype)
    scatter_rows(data, out)
    return out


def tile(x: Tensor, lanes: int) -> Tensor:
    """Return a plain tensor (batch, n_features) as a tiled activation."""
    if x.batch is not None:
        return x
    convert = to_tiles if trace.active is None else trace.section("layout", to_tiles)
    data = convert(Rows(x.data), lanes, x.dtype)
    return record(
        data,
        (x,),
        lambda g, out, needs: (untile(g),),
        batch=x.shape[0],
        push=lambda out, t: tile(t, lanes),
    )


def untile(x: Tensor) -> Tensor:
    """Return a tiled activation as a plain tensor (batch, n_features)."""
    if x.batch is None:
        return x
    lanes = x.data.shape[2]
    return record(
        from_tiles(x.data, x.batch),
        (x,),
        lambda g, out, needs: (tile(g, lanes),),
        push=lambda out, t: untile(t),
    )
