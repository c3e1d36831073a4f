"""Trainable arrays: `Parameter` (dense) and `SparseParameter` (flat values plus a topology).

Optimizers, checkpoints and all-reduces see only flat arrays and never learn what CSR is. A parameter's identity never
changes, so an optimizer never goes stale; `SparseParameter.move_to` is the only place where a support changes.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import sparse

from nnsparse import tiles
from nnsparse.autograd import Tensor
from nnsparse.kernels import planning
from nnsparse.plan import begin
from nnsparse.topology import Topology

Array = NDArray[Any]

# Buffers of zeros and ones: what the forward pass multiplies the weights with; what is not held at zero.
FORWARD, HELD = "forward", "held"


class Parameter(Tensor):
    """A trainable leaf of the tape.

    Attributes
    ----------
    data : array
        The values; updated in place.
    grad : array of data's shape, or None
        Filled by `backward`.
    buffers : dict of str to array of data's shape
        What belongs to each value: momentum, scores, a rewind copy. Optimizers keep their state here.
    """

    __slots__ = ("buffers",)

    def __init__(self, data: ArrayLike, dtype: DTypeLike | None = None) -> None:
        array = np.asarray(data, dtype=dtype)
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"a parameter is float32 or float64; got {array.dtype}")
        super().__init__(tiles.aligned(array), requires_grad=True)
        self.buffers: dict[str, Array] = {}

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def canonical(self, array: Array | None = None) -> Array:
        """Return `array` (default: the values) in the order in which it is saved: as it is."""
        return self.data if array is None else array

    def planned(self, array: Array) -> Array:
        """Return an array in the order in which it is saved, in that of the values: the inverse of `canonical`."""
        return array

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: all arrays in canonical order, which is the same on every machine."""
        dense = isinstance(self.grad, np.ndarray)
        return {
            "data": self.canonical(),
            "grad": self.canonical(self.grad) if dense else self.grad,
            "buffers": {name: self.canonical(buffer) for name, buffer in self.buffers.items()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__(tiles.aligned(self.planned(state["data"])), requires_grad=True)
        grad = state["grad"]
        self.grad = self.planned(grad) if isinstance(grad, np.ndarray) else grad
        # What is loaded may be a read-only view of a file (joblib's mmap_mode): `aligned` copies.
        self.buffers = {
            name: tiles.aligned(self.planned(buffer)) for name, buffer in state["buffers"].items()
        }


def storage(topology: Topology) -> Array:
    """Return, for each nonzero in canonical order, where a parameter keeps its value, (nnz,): `plan.positions`.

    The values of a full topology lie as they are, row by row: dense kernels multiply with them.

    The array is read-only and shared: whoever asks while somebody holds it gets the same one, and it is freed when
    nobody does, or when the plan is built of which it is the first half.
    """
    known = topology._derived.get("storage")
    order: Array | None = None if known is None else known()
    if order is None:
        if topology.is_full:
            order = np.arange(topology.nnz, dtype=np.uint32 if topology.nnz < 2**32 else np.int64)
            order.flags.writeable = False
        else:
            order = begin(topology)
        topology._derived["storage"] = weakref.ref(order)
    return order


class SparseParameter(Parameter):
    """The trainable values of a sparse matrix, (nnz,), in the order of its plan.

    Parameters
    ----------
    topology : Topology
        Where the values are, (n_out, n_in).
    values : (nnz,) array
        In the topology's canonical order (by row, then column). Zeros are legal values.
    dtype : float32 or float64

    Notes
    -----
    `data`, `grad` and `buffers` are in plan order, in which the kernels stream them; `canonical` brings any of them
    into canonical order.
    """

    __slots__ = ("_topology",)

    def __init__(
        self, topology: Topology, values: ArrayLike, dtype: DTypeLike | None = None
    ) -> None:
        topology.sound()
        array = np.asarray(values, dtype=dtype)
        if array.shape != (topology.nnz,):
            raise ValueError(
                f"SparseParameter expects one value per position, ({topology.nnz},); "
                f"got {array.shape}"
            )
        super().__init__(array)
        self._topology = topology
        self.data[storage(topology)] = array

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "topology": self._topology}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._topology = state["topology"]
        super().__setstate__(state)

    @property
    def topology(self) -> Topology:
        """Where the values are; changed by `move_to` only."""
        return self._topology

    def canonical(self, array: Array | None = None) -> Array:
        """Return `array` (default: the values), which is in plan order, in canonical CSR order, (nnz,)."""
        source = self._fitting("data" if array is None else "array", array)
        if self._topology.is_full:
            return np.array(source)
        return source.take(storage(self._topology))

    def planned(self, array: Array) -> Array:
        """Return `array` (nnz,), which is in canonical CSR order, in plan order."""
        array = self._fitting("array", array)
        if self._topology.is_full:
            return np.array(array)
        out = np.empty_like(array)
        out[storage(self._topology)] = array
        return out

    def _fitting(self, name: str, array: Any = None) -> Array:
        """Return an array (default: the values), after a look at whether it has one element per position."""
        found = self.data if array is None else array
        if not isinstance(found, np.ndarray) or found.shape != (self._topology.nnz,):
            got = found.shape if isinstance(found, np.ndarray) else type(found).__name__
            raise ValueError(
                f"SparseParameter expects {name} of shape ({self._topology.nnz},), one per position; got {got}. "
                "To change values write into data[...], to change positions call move_to."
            )
        return found

    def set_canonical(self, values: ArrayLike) -> None:
        """Overwrite the values in place with `values` (nnz,) in canonical CSR order."""
        array = np.asarray(values, dtype=self.dtype)
        if array.shape != self._fitting("data").shape:
            raise ValueError(f"expected {self.data.shape} values; got {array.shape}")
        where = slice(None) if self._topology.is_full else storage(self._topology)
        self.data[where] = array

    def move_to(
        self, topology: Topology, fill: ArrayLike = 0.0, *, keep_grad: bool = False
    ) -> None:
        """Give the parameter another support; the only place where that happens.

        Survivors keep their value and their buffers; newcomers get `fill` and zero buffers. The gradient is dropped,
        as nobody computed it for the newcomers, or kept where they get none in any case.

        Parameters
        ----------
        topology : Topology
            Of the same shape.
        fill : float or (n_newcomers,) array
            Values of the newcomers, in canonical order.
        keep_grad : bool
            Keep the gradient of the survivors, if it has one element for each of them; that of newcomers is zero.

        Raises
        ------
        TypeError
            If `topology` is none.
        ValueError
            If the shape differs, `fill` has the wrong length, or somebody replaced the values or a buffer by an array
            of another shape.
        """
        if not isinstance(topology, Topology):
            raise TypeError(f"move_to expects a Topology; got {type(topology).__name__}")
        if topology.shape != self._topology.shape:
            raise ValueError(
                f"move_to expects a topology of shape {self._topology.shape}; got {topology.shape}"
            )
        self._fitting("data")
        for name, buffer in self.buffers.items():
            self._fitting(f"buffers[{name!r}]", buffer)
        before, after = storage(self._topology), storage(topology)
        origin = topology.positions_in(self._topology)
        source, newcomers = np.empty(after.size, np.int64), np.empty(after.size, np.int64)
        n = planning.join_moves(origin, before if before.size else after, after, source, newcomers)
        newcomers = newcomers[:n]
        fill_array = np.asarray(fill, dtype=self.dtype)
        if fill_array.ndim and fill_array.shape != newcomers.shape:
            raise ValueError(
                f"move_to expects one fill value or {newcomers.size} of them, one per "
                f"newcomer; got {fill_array.shape}"
            )

        def moved(array: Array, value: Array | float) -> Array:
            out = tiles.aligned(np.broadcast_to(array.dtype.type(0), source.shape))
            if array.size:
                array.take(source, out=out, mode="clip")  # no position is out of range
            out[newcomers] = value
            return out

        data = moved(self.data, fill_array)
        buffers = {name: moved(buffer, 0.0) for name, buffer in self.buffers.items()}
        grad = self.grad if keep_grad and isinstance(self.grad, np.ndarray) else None
        if grad is not None:
            grad = moved(grad, 0.0) if grad.shape == self.data.shape else None
        self.data, self.buffers, self._topology, self.grad = data, buffers, topology, grad

    def to_scipy(self) -> sparse.csr_matrix:
        """Return a copy as a SciPy CSR matrix (n_out, n_in)."""
        return self._topology.to_scipy(self.canonical())

    def to_dense(self) -> Array:
        """Return a copy as a dense array (n_out, n_in)."""
        return np.asarray(self.to_scipy().toarray())
