"""What a model costs in bytes, everything counted: `memory_report`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

from nnsparse import jit
from nnsparse.nn.module import Module
from nnsparse.ops.sparse_products import known_column_view
from nnsparse.parameter import Parameter, SparseParameter
from nnsparse.plan import plan_of
from nnsparse.row_gradient import RowGradient


@final
@dataclass(frozen=True)
class LayerMemory:
    """Bytes of one parameter.

    Attributes
    ----------
    per_weight : int
        One weight with its gradient and optimizer state.
    values, gradient : int
        The weights themselves and their gradient; of an embedding, the rows of the gradient that it holds.
    state : int
        Optimizer buffers (momentum, ...).
    scratch : int
        Values gathered by each thread for one panel and slab (a pooled buffer; counted for each layer all the same).
    indices : int
        Positions: canonical columns, and inputs within slabs, forward and transposed.
    maps : int
        From the orders of the products to the order of the weights.
    pointers : int
        Row pointers, run pointers, outputs of runs, counts of quads, panels.
    """

    name: str
    shape: tuple[int, ...]
    nnz: int
    per_weight: int
    values: int
    gradient: int
    state: int
    scratch: int
    indices: int
    maps: int
    pointers: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.without_pointers + self.pointers

    @property
    def without_pointers(self) -> int:
        """Everything that grows with the nonzeros."""
        return self.values + self.gradient + self.state + self.scratch + self.indices + self.maps

    @property
    def dense_total(self) -> int:
        """What a dense weight of this shape takes: values, gradient, and as many state buffers."""
        size = 1
        for n in self.shape:
            size *= n
        return self.per_weight * size


@final
@dataclass(frozen=True)
class MemoryReport:
    """Bytes by parameter; `str()` gives a table."""

    layers: tuple[LayerMemory, ...]

    @property
    def total(self) -> int:
        """Bytes of the whole model."""
        return sum(layer.total for layer in self.layers)

    @property
    def weights_and_state(self) -> int:
        """Bytes held between two steps: all but the gradients and the scratch memory."""
        return sum(m.total - m.gradient - m.scratch for m in self.layers)

    def __str__(self) -> str:
        kinds = [f.name for f in fields(LayerMemory)][4:]
        header = ["parameter", "shape", "nnz", *kinds, "total", "bytes/nnz", "vs dense"]
        rows = [header]
        for m in self.layers:
            per = m.without_pointers / m.nnz if m.nnz else 0.0
            against = m.total / m.dense_total if m.dense_total else 0.0
            shape = "x".join(map(str, m.shape))
            numbers = [f"{getattr(m, kind):,}" for kind in kinds]
            rows.append(
                [
                    m.name,
                    shape,
                    f"{m.nnz:,}",
                    *numbers,
                    f"{m.total:,}",
                    f"{per:.1f}",
                    f"{against:.3f}",
                ]
            )
        sums = [f"{sum(getattr(m, kind) for m in self.layers):,}" for kind in kinds]
        nnz = sum(m.nnz for m in self.layers)
        dense = sum(m.dense_total for m in self.layers)
        against = self.total / dense if dense else 0.0
        rows.append(["all", "", f"{nnz:,}", *sums, f"{self.total:,}", "", f"{against:.3f}"])
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = []
        for row in rows:
            cells = [
                c.ljust(w) if i < 2 else c.rjust(w)
                for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        note = "bytes; bytes/nnz leaves out the pointers, which grow with the neurons"
        return "\n".join([*lines, note])


def memory_report(model: Module) -> MemoryReport:
    """Return the bytes of every parameter of a model: values, gradient, optimizer state, indices, maps, pointers.

    The gradient is counted whether or not one is held at the moment, that of an embedding as it is; state is what the
    optimizer has created so far.

    Raises
    ------
    TypeError
        If `model` is not a Module.
    """
    if not isinstance(model, Module):
        raise TypeError(f"memory_report expects a Module; got {type(model).__name__}")
    return MemoryReport(tuple(_measure(name, p) for name, p in model.named_parameters()))


def _measure(name: str, p: Parameter) -> LayerMemory:
    values = p.data.nbytes
    state = sum(buffer.nbytes for buffer in p.buffers.values())
    per_weight = 2 * p.data.itemsize + sum(buffer.itemsize for buffer in p.buffers.values())
    if not isinstance(p, SparseParameter):
        gradient = p.grad.nbytes if isinstance(p.grad, RowGradient) else values
        return LayerMemory(name, p.shape, p.size, per_weight, values, gradient, state, 0, 0, 0, 0)
    topology = p.topology
    if topology.is_full:  # multiplied by the dense kernels, which need no plan
        indices, pointers = topology.nbytes - topology.indptr.nbytes, topology.indptr.nbytes
        return LayerMemory(
            name, topology.shape, topology.nnz, per_weight, values, values, state, 0, indices, 0, pointers
        )  # fmt: skip
    plan = plan_of(topology)
    small = plan.indices_nbytes
    pointers = plan.nbytes - small - plan.maps_nbytes + topology.indptr.nbytes
    maps = plan.maps_nbytes
    view = known_column_view(topology)  # what sparse mini-batches are multiplied with
    if view is not None:
        small, maps, pointers = (
            small + view.rows.nbytes,
            maps + view.source.nbytes,
            pointers + view.pointers.nbytes,
        )
    gathering = (plan.transposed,) if plan.quads is None else (plan.quads, plan.transposed)
    return LayerMemory(
        name,
        topology.shape,
        topology.nnz,
        per_weight,
        values,
        values,
        state,
        scratch=jit.MAX_THREADS * max(order.room for order in gathering) * p.data.itemsize,
        indices=small + topology.nbytes - topology.indptr.nbytes,
        maps=maps,
        pointers=pointers,
    )
