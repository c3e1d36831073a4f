"""What the kernels need for one topology: slabs forward and transposed, small indices, an index map.

A weight's values, gradient and optimizer state are stored in *plan order*, in which the forward product and the
weight gradient stream them; `Plan.positions` leads from the canonical order to it. A plan is built once per topology,
lazily, and kept with it (`plan_of`). The kernels are in `kernels.spmm` and `kernels.sddmm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.kernels import planning
from nnsparse.topology import Topology

Array = NDArray[Any]

PANELS = 8  # ranges of outputs that threads share out; fixed, so that the order does not depend on the machine
_built = 0


@dataclass(frozen=True, eq=False)
class Slabs:
    """The nonzeros of an (n_out, n_in) matrix, ordered by panel of outputs, slab of inputs, run length, input.

    Attributes
    ----------
    slab : int
        Inputs per slab, a power of two; their activations stay in cache while all outputs use them.
    indices : (nnz,) uint8, uint16 or uint32
        Input of each nonzero, counted from the start of its slab.
    pointers : (n_slabs · n_out + 1,) int32 or int64
        Where each run (the nonzeros of one output in one slab) starts.
    outputs : (n_slabs · n_out,) uint16 or uint32
        The output of each run. Within a panel and slab, runs are sorted by length.
    panels : (n_panels + 1,) int64
        The first output of each panel; panels hold about equally many nonzeros.
    """

    slab: int
    indices: Array
    pointers: Array
    outputs: Array
    panels: Array

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in (self.indices, self.pointers, self.outputs, self.panels))


@dataclass(frozen=True, eq=False)
class Plan:
    """Slabs of W and of Wᵀ, and the map between their orders of the nonzeros.

    Attributes
    ----------
    forward, transposed : Slabs
        Of the (n_out, n_in) matrix and of its transpose.
    source : (nnz,) uint32 or int64
        `transposed` values are `values[source]`.
    """

    forward: Slabs
    transposed: Slabs
    source: Array

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.forward.nbytes + self.transposed.nbytes + self.source.nbytes


def slab_size(n_out: int, n_in: int, nnz: int) -> int:
    """Return how many inputs a slab of an (n_out, n_in) matrix with `nnz` nonzeros takes.

    128 inputs × 64 lanes of float32 fill a first-level cache of 32 KB. Sparser matrices take longer slabs, or the runs
    get so short that their overhead costs more than the misses (figures: benchmarks/kernels.py --slab). At least two
    nonzeros a run on average also keep the pointers in O(nnz + n_out), however wide the matrix.
    """
    density = nnz / max(1, n_out * n_in)
    slab = 128
    while slab < n_in and slab * density < (12 if slab == 128 else 8 if slab < 1024 else 2):
        slab *= 2
    return slab


def panel_bounds(indptr: Array) -> NDArray[np.int64]:
    """Return the first output of each panel: one per 16 outputs at most, of about equal work (nonzeros + outputs)."""
    n_out = indptr.size - 1
    n_panels = max(1, min(PANELS, n_out // 16))
    work = indptr.astype(np.int64) + np.arange(n_out + 1, dtype=np.int64)
    shares = work[-1] * np.arange(1, n_panels, dtype=np.int64) // n_panels
    return np.concatenate(([0], np.searchsorted(work, shares), [n_out])).astype(np.int64)


def _index_dtype(largest: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest unsigned type that holds `largest`: 1, 2 or 4 bytes."""
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32


def _build_slabs(
    n_out: int, n_in: int, indptr: Array, columns: Array, slab: int | None
) -> tuple[Slabs, Array]:
    """Return the slabs of a CSR pattern and the plan position of each canonical nonzero."""
    nnz = columns.size
    slab = slab or slab_size(n_out, n_in, nnz)
    n_slabs = max(1, -(-n_in // slab))
    panels = panel_bounds(indptr)
    position_type = np.int32 if nnz < 2**31 else np.int64
    counts = np.zeros(n_slabs * n_out, position_type)
    planning.count_runs(indptr, columns, panels, slab, n_slabs, counts)
    pointers = np.empty(counts.size + 1, position_type)
    outputs = np.empty(counts.size, np.uint16 if n_out <= 2**16 else np.uint32)
    starts = np.empty(counts.size, position_type)
    histogram = np.empty(int(counts.max(initial=0)) + 2, np.int64)
    planning.order_runs(counts, panels, n_slabs, histogram, pointers, outputs, starts)
    indices = np.empty(nnz, _index_dtype(min(slab, max(n_in, 1)) - 1))
    positions = np.empty(nnz, np.uint32 if nnz < 2**32 else np.int64)
    planning.fill_slabs(indptr, columns, panels, slab, n_slabs, starts, indices, positions)
    return Slabs(slab, indices, pointers, outputs, panels), positions


def build(topology: Topology, slab: int | None = None) -> Plan:
    """Build the plan of a topology, O(nnz + n_out + n_in) time and memory.

    `slab` forces the inputs per slab, in both directions, to see what `slab_size` chose well.
    """
    global _built
    _built += 1
    n_out, n_in = topology.shape
    indptr, columns = topology._indptr, topology._columns
    forward, positions = _build_slabs(n_out, n_in, indptr, columns, slab)
    column_pointers = np.zeros(n_in + 1, indptr.dtype)
    rows = np.empty(columns.size, np.uint16 if n_out <= 2**16 else np.int32)
    permutation = np.empty(columns.size, positions.dtype)
    planning.transpose_csr(indptr, columns, column_pointers, rows, permutation)
    # Read-only, as a topology's arrays are: then both directions share their compiled builders.
    column_pointers.flags.writeable = rows.flags.writeable = False
    transposed, positions_t = _build_slabs(n_in, n_out, column_pointers, rows, slab)
    source = np.empty_like(positions)
    planning.join_maps(permutation, positions, positions_t, source)
    return Plan(forward, transposed, source)


def plan_of(topology: Topology) -> Plan:
    """Return the plan of a topology, built at the first call and kept with it."""
    derived = topology._derived
    plan = derived.get("plan")
    if plan is None:
        plan = derived.setdefault("plan", build(topology))
    assert isinstance(plan, Plan)
    return plan


def positions(topology: Topology, slab: int | None = None) -> Array:
    """Return, for each nonzero in canonical order, its position in plan order, (nnz,) integers.

    `values_in_plan_order[positions] == values_in_canonical_order`. Computed afresh in O(nnz): keeping it would cost
    4 bytes per nonzero for something that only export and topology updates use.
    """
    n_out, n_in = topology.shape
    return _build_slabs(n_out, n_in, topology._indptr, topology._columns, slab)[1]


def plans_built() -> int:
    """Return how many plans this process has built (tests assert that training builds one per topology)."""
    return _built
