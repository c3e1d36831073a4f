"""One layer's training step: the problem that every rival gets, and the calls that solve it.

The rivals are in `_rivals`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.topology import Topology

Array = NDArray[Any]
SECTIONS = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True, eq=False)
class Problem:
    """A float32 layer, its input and the gradient of its output.

    Attributes
    ----------
    topology : Topology
        Where the weights are, (n_out, n_in).
    values : (nnz,) float32
        The weights, in canonical order.
    x, d : (n_in, batch) and (n_out, batch) float32
        Input, and gradient of the output.
    """

    topology: Topology
    values: Array
    x: Array
    d: Array

    @classmethod
    def random(cls, n_out: int, n_in: int, batch: int, sparsity: float, seed: object) -> Problem:
        """Draw positions and standard normal values from default_rng(seed)."""
        rng = np.random.default_rng(seed)  # type: ignore[arg-type]
        topology = Topology.random((n_out, n_in), sparsity=sparsity, rng=rng)
        shapes = ((topology.nnz,), (n_in, batch), (n_out, batch))
        return cls(topology, *(rng.standard_normal(shape, np.float32) for shape in shapes))

    @property
    def dense(self) -> Array:
        """The weights with their zeros, (n_out, n_in)."""
        w: Array = self.topology.to_dense(self.values)
        return w

    def reference(self) -> tuple[Array, Array, Array]:
        """Return W·x, Wᵀ·d and d·xᵀ at the nonzeros, computed in float64."""
        w, x, d = (a.astype(np.float64) for a in (self.dense, self.x, self.d))
        return w @ x, w.T @ d, (d @ x.T)[self.topology.coo()]


def _itself(result: Array) -> Array:
    return result


@dataclass(frozen=True, eq=False)
class LayerStep:
    """Three calls without arguments, and how their results are read.

    `activations` turns the first two results into (features, batch), `weights` the third into
    (nnz,) in canonical order; both are outside the timing.
    """

    forward: Callable[[], Any]
    input_gradient: Callable[[], Any]
    weight_gradient: Callable[[], Any]
    activations: Callable[[Any], Array] = _itself
    weights: Callable[[Any], Array] = _itself

    @property
    def sections(self) -> dict[str, Callable[[], Any]]:
        """The calls by name, in the order of a step."""
        return dict(
            zip(SECTIONS, (self.forward, self.input_gradient, self.weight_gradient), strict=True)
        )

    def errors(self, reference: tuple[Array, Array, Array]) -> dict[str, float]:
        """Run each call once; return |result − reference| / |reference| (2-norms) by section."""
        read = (self.activations, self.activations, self.weights)
        found = {}
        for (name, call), to_plain, wanted in zip(
            self.sections.items(), read, reference, strict=True
        ):
            got = np.asarray(to_plain(call()), np.float64)
            if got.shape != wanted.shape:
                raise ValueError(f"{name}: expected shape {wanted.shape}, got {got.shape}")
            found[name] = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
        return found
