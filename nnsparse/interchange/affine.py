"""One affine layer from the arrays of another library: dense or sparse, its mask honoured, no value changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnsparse.interchange.arrays import as_floats, as_mask, masked
from nnsparse.nn.linear import Linear, SparseLinear
from nnsparse.topology import Topology

Array = NDArray[Any]


@dataclass(frozen=True)
class Choice:
    """Which affine layers become sparse.

    Attributes
    ----------
    sparse : None, bool or frozenset of str
        All (True), none (False), those named, or (None) those with a mask, with sparse storage, or with at most
        `max_density` nonzeros.
    max_density : float in [0, 1]
    """

    sparse: bool | frozenset[str] | None
    max_density: float

    @classmethod
    def of(cls, sparse: bool | Collection[str] | None, max_density: float) -> Choice:
        """Return the choice that a user's arguments stand for, checked."""
        if isinstance(max_density, bool) or not isinstance(max_density, int | float | np.number):
            raise TypeError(f"from_torch expects max_density as a number; got {max_density!r}")
        if not 0 <= max_density <= 1:
            raise ValueError(f"from_torch expects max_density in [0, 1]; got {max_density!r}")
        if sparse is None or isinstance(sparse, bool):
            return cls(sparse, float(max_density))
        if isinstance(sparse, str) or not isinstance(sparse, Collection):
            raise TypeError(
                f"from_torch expects sparse as True, False, None or names of layers; got {sparse!r}"
            )
        return cls(frozenset(sparse), float(max_density))

    def check_names(self, names: Collection[str]) -> None:
        """Refuse the name of a layer that is not among these, the affine ones."""
        if isinstance(self.sparse, frozenset) and (unknown := self.sparse - set(names)):
            raise ValueError(
                f"from_torch: sparse names {sorted(unknown)}; the affine layers are {list(names)}"
            )

    def wants(self, name: str, density: float, marked: bool) -> bool:
        """Whether the layer of this name and density becomes sparse; `marked`: by a mask or by its storage."""
        if self.sparse is None:
            return marked or density <= self.max_density
        return self.sparse if isinstance(self.sparse, bool) else name in self.sparse


@dataclass(frozen=True)
class Weight:
    """A weight (n_out, n_in) as it came.

    Attributes
    ----------
    values : (n_out, n_in) array or csr_matrix
    mask : (n_out, n_in) array or None
        What `values` were multiplied with: where it is not zero, there is a weight, be it zero itself.
    """

    values: Array | sparse.csr_matrix[Any]
    mask: Array | None = None

    @classmethod
    def read(cls, where: str, value: Any, mask: Any = None) -> Weight:
        """Return a weight from whatever holds it, times its mask, checked."""
        values = as_floats(where, value)
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(
                f"{where}: expected a matrix (out_features, in_features); got shape {values.shape}. "
                "Convolutions and lookup tables have no counterpart here."
            )
        if mask is None:
            return cls(values)
        if not isinstance(values, np.ndarray):
            raise TypeError(f"{where}: a sparse matrix with a mask; multiply them first")
        keep = as_mask(where, mask, values.shape)
        return cls(masked(values, keep), keep)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        n_out, n_in = self.values.shape
        return n_out, n_in

    @property
    def marked(self) -> bool:
        """Whether positions without a weight are known, and not only zeros."""
        return self.mask is not None or not isinstance(self.values, np.ndarray)

    def nnz(self) -> int:
        """Return the number of positions that a sparse layer would store."""
        if not isinstance(self.values, np.ndarray):
            return int(self.values.nnz)
        return int(np.count_nonzero(self.values if self.mask is None else self.mask))

    def matrix(self) -> sparse.csr_matrix[Any]:
        """Return what a sparse layer stores, zeros that are weights included."""
        if not isinstance(self.values, np.ndarray):
            return self.values
        keep = self.values != 0 if self.mask is None else self.mask != 0
        return Topology.from_dense(keep).to_scipy(self.values[keep])

    def dense(self) -> Array:
        """Return all of it, (n_out, n_in)."""
        return self.values if isinstance(self.values, np.ndarray) else self.values.toarray()


def affine(
    name: str, weight: Weight, bias: Array | None, choice: Choice, dtype: np.dtype[Any]
) -> SparseLinear | Linear:
    """Return the layer with this weight and bias (n_out,), sparse if the choice says so."""
    n_out, n_in = weight.shape
    if choice.wants(name, weight.nnz() / (n_out * n_in), weight.marked):
        return SparseLinear.from_scipy(weight.matrix().astype(dtype), bias)
    layer = Linear(n_in, n_out, bias is not None, dtype=dtype, rng=0)
    layer.weight.data[...] = weight.dense()
    if layer.bias is not None:
        layer.bias.data[...] = bias
    return layer
