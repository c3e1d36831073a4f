"""Initial weights, scaled by the actual fan-in of each neuron: in a sparse layer that is its number of nonzeros."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnsparse.space import check_room
from nnsparse.topology import Topology

Array = NDArray[Any]


def generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """Return `rng` itself, or a new generator with that seed (None: seeded by the system)."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def kaiming_uniform(
    shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike = np.float32
) -> Array:
    """Return a dense weight (n_out, n_in), uniform in ±sqrt(6 / n_in): variance 2 / n_in.

    Source: He et al. 2015, eq. 10, for layers followed by ReLU. Raises ValueError if there is no room for it.
    """
    dense = f"a dense weight {shape[0]} x {shape[1]}"
    check_room(dense, 12 * shape[0] * shape[1], "SparseLinear stores its nonzeros only.")
    bound = np.sqrt(6.0 / max(1, shape[1]))
    return rng.uniform(-bound, bound, shape).astype(dtype)


def sparse_kaiming_uniform(
    topology: Topology, rng: np.random.Generator, dtype: DTypeLike = np.float32
) -> Array:
    """Return values (nnz,) in canonical order, uniform in ±sqrt(6 / k) where k nonzeros feed the neuron.

    Source: He et al. 2015, eq. 10, with the fan-in of the sparse neuron (Evci et al. 2019, "Gradient flow in sparse
    neural networks"), so that activations keep their variance at any sparsity.
    """
    fan_in = np.repeat(topology.row_counts(), topology.row_counts())
    values: Array = rng.uniform(-1.0, 1.0, topology.nnz) * np.sqrt(6.0 / np.maximum(1, fan_in))
    return values.astype(dtype)
