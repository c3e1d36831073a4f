"""What the kernels need for one topology: the order of the nonzeros for each product, small indices, index maps.

A weight's values, gradient and optimizer state are stored in *plan order*, in which the weight gradient streams them
(and the forward product, unless the pattern is so dense that `Quads` are faster); `positions` leads from the canonical
order to it. A plan is built once per topology, lazily, and kept with it (`plan_of`). The kernels are in `kernels.spmm`
and `kernels.sddmm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import trace
from nnsparse.kernels import planning
from nnsparse.machine import Choices, choices
from nnsparse.simd_quads import MASKS
from nnsparse.space import check_room
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
    room : int
        The most nonzeros of one panel and slab, what a thread gathers at a time, rounded up to whole cache lines.
    """

    slab: int
    indices: Array
    pointers: Array
    outputs: Array
    panels: Array
    room: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in (self.indices, self.pointers, self.outputs, self.panels))


@dataclass(frozen=True, eq=False)
class Quads:
    """The same nonzeros for register tiling, ordered by panel, slab, quad of outputs, mask, input, output.

    The mask of an input tells which of the quad's four outputs use it. A block is one quad in one slab.
    Source: Wilkinson, Cheshmi & Mehri Dehnavi, Register Tiling for Unstructured Sparsity, PLDI 2023; here the groups
    are four neighbouring outputs and all fifteen masks are loops of one kernel.

    Attributes
    ----------
    slab : int
        Inputs per slab.
    indices : (n_entries,) uint8, uint16 or uint32
        Each input of each block, once for all outputs that use it, counted from the start of its slab.
    counts : (n_blocks, 15) uint8, uint16 or uint32
        How many inputs of a block have mask 1 ... 15.
    starts, firsts : (n_blocks + 1,) int32 or int64
        Where the values and where the inputs of each block start.
    panels : (n_panels + 1,) int64
        The first output of each panel, a multiple of four.
    room : int
        The most nonzeros of one panel and slab, what a thread gathers at a time, rounded up to whole cache lines.
    """

    slab: int
    indices: Array
    counts: Array
    starts: Array
    firsts: Array
    panels: Array
    room: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.indices, self.counts, self.starts, self.firsts, self.panels)
        return sum(a.nbytes for a in arrays)


@dataclass(frozen=True, eq=False)
class Plan:
    """The orders of the nonzeros of W and of Wᵀ, and the maps between them.

    Attributes
    ----------
    forward : Slabs
        Of the (n_out, n_in) matrix; its order is that of the values.
    quads, quads_source : Quads and (nnz,) uint32 or int64, or None and None
        Where register tiling pays, of the same matrix; the values it takes are `values[quads_source]`.
    transposed, source : Slabs or Quads, and (nnz,) uint32 or int64
        Of the transpose; the values it takes are `values[source]`.
    """

    forward: Slabs
    quads: Quads | None
    quads_source: Array | None
    transposed: Slabs | Quads
    source: Array

    @property
    def maps_nbytes(self) -> int:
        """Bytes of the maps between orders."""
        return self.source.nbytes + (0 if self.quads_source is None else self.quads_source.nbytes)

    @property
    def indices_nbytes(self) -> int:
        """Bytes of the indices of inputs."""
        quads = 0 if self.quads is None else self.quads.indices.nbytes
        return self.forward.indices.nbytes + self.transposed.indices.nbytes + quads

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        quads = 0 if self.quads is None else self.quads.nbytes
        return self.forward.nbytes + self.transposed.nbytes + quads + self.maps_nbytes


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


def _shift(slab: int) -> int:
    """Return the logarithm of the inputs per slab."""
    if slab < 1 or slab & (slab - 1):
        raise ValueError(f"slab: expected a power of two; got {slab}")
    return slab.bit_length() - 1


def _room(pointers: Array, units: Array, n_slabs: int) -> int:
    """Return the most nonzeros of one panel and slab, rounded up; panel p has rows units[p] to units[p + 1] of each."""
    steps = np.diff(units)
    bounds = np.repeat(units[:-1], n_slabs) * n_slabs
    bounds += np.tile(np.arange(n_slabs), steps.size) * np.repeat(steps, n_slabs)
    most = int(np.diff(pointers[np.append(bounds, -1)]).max(initial=0))
    return -(-most // 16) * 16


def _build_slabs(
    n_out: int, n_in: int, indptr: Array, columns: Array, slab: int
) -> tuple[Slabs, Array]:
    """Return the slabs of a CSR pattern and the plan position of each canonical nonzero, read-only."""
    nnz, shift = columns.size, _shift(slab)
    n_slabs = max(1, -(-n_in // slab))
    panels = panel_bounds(indptr)
    position_type = np.int32 if nnz < 2**31 else np.int64
    counts = np.zeros(n_slabs * n_out, position_type)
    planning.count_runs(indptr, columns, panels, shift, n_slabs, counts)
    pointers = np.empty(counts.size + 1, position_type)
    outputs = np.empty(counts.size, np.uint16 if n_out <= 2**16 else np.uint32)
    starts = np.empty(counts.size, position_type)
    histogram = np.empty(int(counts.max(initial=0)) + 2, np.int64)
    most = planning.order_runs(counts, panels, n_slabs, histogram, pointers, outputs, starts)
    indices = np.empty(nnz, _index_dtype(min(slab, max(n_in, 1)) - 1))
    positions = np.empty(nnz, np.uint32 if nnz < 2**32 else np.int64)
    planning.fill_slabs(indptr, columns, panels, shift, n_slabs, counts, starts, indices, positions)
    positions.flags.writeable = False
    return Slabs(slab, indices, pointers, outputs, panels, -(-most // 16) * 16), positions


_BITS = np.array([mask.bit_count() for mask in range(1, MASKS + 1)])


def _build_quads(
    n_out: int, n_in: int, indptr: Array, columns: Array, slab: int
) -> tuple[Quads, Array]:
    """Return the quads of a CSR pattern and the position of each canonical nonzero in their order, read-only."""
    nnz, shift = columns.size, _shift(slab)
    n_slabs = max(1, -(-n_in // slab))
    panels = panel_bounds(indptr)
    panels[1:-1] = panels[1:-1] // 4 * 4
    position_type = np.int32 if nnz < 2**31 else np.int64
    n_blocks = n_slabs * -(-n_out // 4)
    masks = np.zeros(n_in, np.uint8)
    counts = np.zeros((n_blocks, MASKS), _index_dtype(min(slab, n_in)))
    planning.count_quads(indptr, columns, panels, shift, n_slabs, masks, counts)
    starts, firsts = (np.empty(n_blocks + 1, position_type) for _ in range(2))
    planning.point_quads(counts, _BITS, starts, firsts)
    indices = np.empty(int(counts.sum(dtype=np.int64)), _index_dtype(min(slab, max(n_in, 1)) - 1))
    positions = np.empty(nnz, np.uint32 if nnz < 2**32 else np.int64)
    slots, cursors = np.empty(n_in, np.int64), np.empty((n_slabs, MASKS, 2), np.int64)
    planning.fill_quads(
        indptr, columns, panels, shift, n_slabs, counts, _BITS, starts, firsts, masks, slots,
        cursors, indices, positions,
    )  # fmt: skip
    positions.flags.writeable = False
    room = _room(starts, -(-panels // 4), n_slabs)
    return Quads(slab, indices, counts, starts, firsts, panels, room), positions


def _chosen(topology: Topology) -> Choices:
    """Return the choices by which a topology was first planned: its order must not change when the machine's do."""
    derived = topology._derived
    chosen = derived.get("choices") or derived.setdefault("choices", choices())
    assert isinstance(chosen, Choices)
    return chosen


def build(topology: Topology, slab: int | None = None, quads: bool | None = None) -> Plan:
    """Build the plan of a topology, O(nnz + n_out + n_in) time and memory (ValueError if there is no room for it).

    `slab` forces inputs per slab, `quads` whether to use `Quads`, in both directions; else `machine.choices` decides.
    """
    global _built
    n_out, n_in = topology.shape
    check_room(f"the plan of {topology}", 12 * (topology.nnz + n_in), "Take fewer features.")
    _built += 1
    (indptr, columns), density = topology.sound(), topology.density
    chosen = _chosen(topology)
    begun = None if slab else topology._derived.pop("begun", None)  # by `begin`
    size = slab or chosen.slab(n_in, density)
    forward, positions = begun or _build_slabs(n_out, n_in, indptr, columns, size)
    tiled = tiled_source = None
    if density >= chosen.quads if quads is None else quads:
        tiled, moved = _build_quads(n_out, n_in, indptr, columns, slab or chosen.base)
        tiled_source = np.empty_like(positions)
        tiled_source[moved] = positions
    column_pointers, permutation = np.zeros(n_in + 1, indptr.dtype), np.empty_like(positions)
    rows = np.empty(columns.size, np.uint16 if n_out <= 2**16 else np.int32)
    planning.transpose_csr(indptr, columns, column_pointers, rows, permutation)
    # Read-only, as a topology's arrays are: then both directions share their compiled builders.
    column_pointers.flags.writeable = rows.flags.writeable = False
    transposed: Slabs | Quads
    if density >= chosen.quads_gathered if quads is None else quads:
        transposed, moved = _build_quads(n_in, n_out, column_pointers, rows, slab or chosen.base)
    else:
        size = slab or chosen.slab(n_out, density)
        transposed, moved = _build_slabs(n_in, n_out, column_pointers, rows, size)
    source = np.empty_like(positions)
    planning.join_maps(permutation, positions, moved, source)
    return Plan(forward, tiled, tiled_source, transposed, source)


def plan_of(topology: Topology) -> Plan:
    """Return the plan of a topology, built at the first call and kept with it."""
    derived = topology._derived
    plan = derived.get("plan")
    if plan is None:
        plan = derived.setdefault("plan", trace.section("plan build", build)(topology))
    assert isinstance(plan, Plan)
    return plan


def positions(topology: Topology, slab: int | None = None) -> Array:
    """Return, for each nonzero in canonical order, its position in plan order, (nnz,) integers.

    `values_in_plan_order[positions] == values_in_canonical_order`. Read-only; made in O(nnz) at each call, not kept.
    """
    n_out, n_in = topology.shape
    slab = slab or _chosen(topology).slab(n_in, topology.density)
    return _build_slabs(n_out, n_in, *topology.sound(), slab)[1]


def begin(topology: Topology) -> Array:
    """Return `positions` of a topology; without a plan yet, as the first half of one, kept until `plan_of` needs it."""
    derived = topology._derived
    if "plan" in derived:
        return positions(topology)
    begun: tuple[Slabs, Array] | None = derived.get("begun")
    if begun is None:
        slab = _chosen(topology).slab(topology.shape[1], topology.density)
        begun = _build_slabs(*topology.shape, *topology.sound(), slab)
        derived["begun"] = begun
    return begun[1]


def plans_built() -> int:
    """Return how many plans this process has built (tests assert that training builds one per topology)."""
    return _built
