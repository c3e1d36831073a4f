"""Inference of all images through all layers, on tiles: in a workspace made once, or a new one for every layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nnsparse import jit
from nnsparse.kernels import challenge

from ._job import (
    LANES,
    PIECE,
    STACK,
    Array,
    Ints,
    Job,
    allocate,
    chosen,
    first_lanes,
    used_lanes,
    width,
)
from ._stacks import Quads, quads
from ._supply import Supply


def plain(job: Job, fresh: bool) -> Supply[Quads]:
    """Lead all images through all layers, batch by batch; return where the layers came from.

    With a workspace, tiles are made once and each passes a stack of layers while it is in cache. `fresh`: every layer
    of a batch gets new memory for what comes out.
    """
    n = job.network.n_neurons
    keep = job.memory // 4
    prepare = partial(quads, reorder=job.reorder)
    supply = Supply(job.network, job.watch, prepare, head=0, size=STACK, keep=keep)
    spare = 0 if fresh else jit.get_num_threads()
    most = job.limit()
    unit = job.tile_bytes * (2 if fresh else 1)
    room = job.capacity(unit, 1, spare * job.tile_bytes + keep, "weights and tiles")
    rows = min(most, room * LANES)
    size = min(PIECE, rows)
    rows -= rows % size
    x: Array | None = None
    filled = 0
    for piece in job.pieces(size):
        with job.watch.measure("inference"):
            if x is None:
                x = allocate((-(-rows // LANES) + spare, n, LANES))
            challenge.fill(LANES)(*piece, x, filled)
        filled += piece.rows
        if filled == rows:
            x = _batch(job, supply, x, filled, fresh)
            filled = 0
    if x is not None and filled:
        _batch(job, supply, x, filled, fresh)
    return supply


def _batch(job: Job, supply: Supply[Quads], x: Array, count: int, fresh: bool) -> Array | None:
    """Lead `count` images in tiles through all layers; return the tiles if they can be used again."""
    used = used_lanes(count)
    alive = first_lanes(used)
    first = job.n_images - count
    with job.bar(f"images {first} to {job.n_images}", "layer", job.network.n_layers) as bar:
        if fresh:
            _without_workspace(job, supply, x[: used.size], used, alive, bar)
        else:
            _with_workspace(job, supply, x, used, alive, bar)
    with job.watch.measure("inference"):
        tile, lane = np.nonzero(chosen(alive))
        job.categories.append(first + tile * LANES + lane)
    return None if fresh else x


def _with_workspace(
    job: Job, supply: Supply[Quads], x: Array, used: Ints, alive: Ints, bar: Any
) -> None:
    advance = challenge.advance(LANES, width())
    place, spare = np.arange(used.size), np.arange(len(x) - jit.get_num_threads(), len(x))
    number = 0
    for stack in supply.stacks():
        rows = np.zeros((stack.n_layers, used.size), np.int64)
        with job.watch.measure("inference"):
            advance(
                *stack.arrays, 0, stack.n_layers, *job.scalars, x, place, spare, used, alive, False, rows
            )  # fmt: skip
        job.rows[number : number + stack.n_layers] += rows.sum(axis=1)
        number += stack.n_layers
        job.saw(x.nbytes + supply.nbytes)
        bar.update(stack.n_layers)


def _without_workspace(
    job: Job, supply: Supply[Quads], x: Array, used: Ints, alive: Ints, bar: Any
) -> None:
    step = challenge.step(LANES, width())
    number = 0
    for stack in supply.stacks():
        for layer in range(stack.n_layers):
            with job.watch.measure("inference"):
                out = allocate(x.shape)
                step(*stack.arrays, layer, *job.scalars, x, out, used, alive)
                x = out
            job.rows[number] += chosen(alive).sum()
            number += 1
        job.saw(2 * x.nbytes + supply.nbytes)
        bar.update(stack.n_layers)
