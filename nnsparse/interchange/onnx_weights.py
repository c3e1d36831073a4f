"""A weight matrix in an ONNX graph: as it is, or as its nonzeros and the gaps between them, whichever is smaller.

Gaps are made of ordinary operators on constants, which a runtime computes once, when it loads the model. ONNX has
`sparse_initializer` too: onnxruntime reads it, but it takes 8 bytes an index, and the full check of `onnx.checker`
refuses to multiply with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.inference.layers import Layer

Array = NDArray[Any]

PREFIX = "nnsparse/"  # of all names in a file but those of input and output
_OVERHEAD = 512  # bytes of the nodes that unpack a matrix, about


class Graph:
    """The nodes and constants of an ONNX graph, in order."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, array: Array) -> str:
        """Add an array; return its name."""
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(
        self, op: str, inputs: list[str], output: str, attributes: dict[str, Any] | None = None
    ) -> str:
        """Add a node with one output; return that."""
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [output], **(attributes or {})))
        return output


@dataclass(frozen=True)
class Nonzeros:
    """The numbers of a matrix that are not zero, row by row.

    Attributes
    ----------
    shape : (n_out, n_in)
    values : (nnz,) array
    gaps : (nnz,) unsigned integers, or int64
        From the place row · n_in + column of the one before (the first: from 0), in the smallest type that holds them.
    dense : (n_out, n_in) array or None
        The matrix, where it came like that.
    """

    shape: tuple[int, int]
    values: Array
    gaps: Array
    dense: Array | None

    @classmethod
    def of(cls, layer: Layer) -> Nonzeros:
        """Return those of an affine layer."""
        dense = None
        if layer.kind == "dense":
            dense = layer.weights
            places = np.flatnonzero(dense)
            values = dense.reshape(-1)[places]
        else:
            rows = np.repeat(np.arange(layer.n_out, dtype=np.int64), np.diff(layer.indptr))
            kept = layer.weights != 0
            places = (rows * layer.n_in + layer.indices)[kept]
            values = layer.weights[kept]
        gaps = np.diff(places, prepend=0)
        largest = int(gaps.max(initial=0))
        kind = next((t for t in (np.uint8, np.uint16) if largest <= np.iinfo(t).max), np.int64)
        return cls((layer.n_out, layer.n_in), values, gaps.astype(kind), dense)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the whole matrix."""
        return self.shape[0] * self.shape[1] * self.values.itemsize

    @property
    def packed_bytes(self) -> int:
        """Bytes of values and gaps, and about what the nodes take."""
        return self.values.nbytes + self.gaps.nbytes + _OVERHEAD

    def matrix(self) -> Array:
        """Return the whole matrix, (n_out, n_in)."""
        if self.dense is not None:
            return self.dense
        flat = np.zeros(self.shape[0] * self.shape[1], self.values.dtype)
        flat[np.cumsum(self.gaps, dtype=np.int64)] = self.values
        return flat.reshape(self.shape)

    def add_to(self, graph: Graph, name: str, compact: bool) -> str:
        """Add the matrix to a graph, packed if that is allowed and smaller; return its name there."""
        if not compact or self.packed_bytes >= self.dense_bytes:
            return graph.constant(name, self.matrix())
        zero = graph.onnx.numpy_helper.from_array(np.zeros(1, self.values.dtype))
        size = np.array([self.shape[0] * self.shape[1]], np.int64)
        places = graph.constant(f"{name}/gaps", self.gaps)
        int64 = {"to": graph.onnx.TensorProto.INT64}
        places = graph.node("Cast", [places], f"{name}/wide", int64)
        axis = graph.constant(f"{name}/axis", np.array(0, np.int64))
        places = graph.node("CumSum", [places, axis], f"{name}/places")
        zeros = graph.constant(f"{name}/size", size)
        zeros = graph.node("ConstantOfShape", [zeros], f"{name}/zeros", {"value": zero})
        values = graph.constant(f"{name}/values", self.values)
        flat = graph.node("ScatterElements", [zeros, places, values], f"{name}/flat")
        shape = graph.constant(f"{name}/shape", np.array(self.shape, np.int64))
        return graph.node("Reshape", [flat, shape], name)
