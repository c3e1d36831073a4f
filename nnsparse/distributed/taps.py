"""What the weight gradients of the whole mini-batch are made of, on every rank: `gather_taps`.

A growth rule looks at the gradient of weights that do not exist, Σ d·xᵀ over the samples. Only at steps that end with
such an update, the ranks exchange d and x of their samples; then each streams the same sum in the same order, and all
find the same positions. That is O(batch · (n_out + n_in)) numbers a layer instead of n_out · n_in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import tiles
from nnsparse.distributed.communicator import Communicator, gathered
from nnsparse.nn.linear import SparseLinear
from nnsparse.sparsify.stream import stacked

Array = NDArray[Any]


def gather_taps(comm: Communicator, layers: Sequence[SparseLinear], factor: float) -> int:
    """Replace each layer's taps by those of all ranks, in their order; return the bytes received. A collective call.

    Parameters
    ----------
    comm : Communicator
    layers : sequence of SparseLinear
        With `taps`, which are empty on ranks without samples.
    factor : float
        By which this rank's d are multiplied: its part of the whole mini-batch's weight.

    Notes
    -----
    A layer that no rank has used keeps an empty list.
    """
    pairs = [stacked(layer.taps) if layer.taps else None for layer in layers]
    sizes = [(0, 0) if pair is None else (len(pair[0]), pair[0].shape[2]) for pair in pairs]
    everyone = gathered(comm, np.array(sizes, np.int64).reshape(-1, 2))  # (size, layers, 2)
    received = everyone.nbytes
    for index, (layer, pair) in enumerate(zip(layers, pairs, strict=True)):
        counts = everyone[:, index, 0]
        n_tiles, lanes = everyone[:, index].max(axis=0).tolist()
        assert layer.taps is not None
        if n_tiles == 0:
            continue
        n_out, n_in = layer.weight.topology.shape
        found: list[Array] = []
        for which, n in enumerate((n_out, n_in)):
            own = tiles.zeros((n_tiles, n, lanes), layer.weight.dtype)
            if pair is not None:
                part = pair[which]
                target = own[: len(part), :, : part.shape[2]]
                np.multiply(part, factor, out=target) if which == 0 else np.copyto(target, part)
            whole = gathered(comm, own)
            received += whole.nbytes
            kept = [array[:count] for array, count in zip(whole, counts, strict=True)]
            found.append(np.concatenate(kept))
        layer.taps[:] = [(found[0], found[1])]
    return received
