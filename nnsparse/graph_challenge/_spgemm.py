"""Inference as sparse times sparse: activations in CSR, weights in CSR by input (`kernels.challenge_sparse`)."""

from __future__ import annotations

import numpy as np

from nnsparse import jit
from nnsparse.kernels import challenge_sparse

from ._job import PIECE, STACK, Array, Ints, Job
from ._stacks import ByInput, by_input
from ._supply import Supply

Rows = tuple[Ints, Array, Array]  # counts (n_rows,), places and values (n_rows, n)


def spgemm(job: Job) -> Supply[ByInput]:
    """Lead all images through all layers, batch by batch; return where the layers came from."""
    n = job.network.n_neurons
    keep = job.memory // 4
    supply = Supply(job.network, job.watch, by_input, head=0, size=STACK, keep=keep)
    most = job.limit()
    unit = 2 * n * (4 + (2 if n <= 2**16 else 4))
    rows = min(most, job.capacity(unit, 1, keep, "weights and activations"))
    size = min(PIECE, rows)
    rows -= rows % size
    here, there = _slots(rows, n), _slots(rows, n)
    filled = 0
    for piece in job.pieces(size):
        with job.watch.measure("inference"):
            part = (array[filled : filled + piece.rows] for array in here)
            challenge_sparse.enter_rows(*piece[:4], *part)
        filled += piece.rows
        if filled == rows:
            _batch(job, supply, here, there, filled)
            filled = 0
    if filled:
        _batch(job, supply, here, there, filled)
    return supply


def _slots(rows: int, n: int) -> Rows:
    """Return memory for so many rows, its content arbitrary."""
    places = np.empty((rows, n), np.uint16 if n <= 2**16 else np.int32)
    return np.empty(rows, np.int64), places, np.empty((rows, n), np.float32)


def _batch(job: Job, supply: Supply[ByInput], here: Rows, there: Rows, count: int) -> None:
    """Lead the first `count` rows through all layers."""
    x, y = (tuple(array[:count] for array in rows) for rows in (here, there))
    first = job.n_images - count
    sums = np.zeros((jit.get_num_threads(), job.network.n_neurons), np.float32)
    work = np.zeros(count, np.int64)
    number = 0
    with job.bar(f"images {first} to {job.n_images}", "layer", job.network.n_layers) as bar:
        for stack in supply.stacks():
            for layer in stack.layers:
                with job.watch.measure("inference"):
                    challenge_sparse.multiply_sparse(*layer, *job.scalars, *x, *y, sums, work)
                    x, y = y, x
                job.rows[number] += np.count_nonzero(x[0])
                number += 1
            job.saw(2 * sum(array.nbytes for array in x) + supply.nbytes)
            bar.update(stack.n_layers)
    job.work += int(work.sum())
    job.categories.append(first + np.flatnonzero(x[0]))
