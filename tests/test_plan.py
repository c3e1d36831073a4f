"""Plans: an order of the nonzeros that loses none of them, in memory that follows their number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import plan as plans
from nnsparse.machine import Choices
from nnsparse.plan import PANELS, Quads, begin, build, panel_bounds, plan_of, plans_built, positions
from nnsparse.testing import odd_topologies, random_topology
from nnsparse.topology import Topology

ODD = dict(odd_topologies(np.random.default_rng(0)))


def recovered(slabs, n_out, n_in):
    """Return (row, column) of each nonzero in plan order, read off the slabs in plain Python."""
    rows, columns = [], []
    n_slabs = max(1, -(-n_in // slabs.slab))
    for first, last in zip(slabs.panels[:-1], slabs.panels[1:], strict=True):
        for s in range(n_slabs):
            start = first * n_slabs + s * (last - first)
            held = slabs.pointers[start + last - first] - slabs.pointers[start]
            assert held <= slabs.room
            for run in range(start, start + last - first):
                assert first <= slabs.outputs[run] < last
                for k in range(slabs.pointers[run], slabs.pointers[run + 1]):
                    rows.append(int(slabs.outputs[run]))
                    columns.append(s * slabs.slab + int(slabs.indices[k]))
    return np.array(rows, np.int64), np.array(columns, np.int64)


def recovered_from_quads(quads, n_out, n_in):
    """Return (row, column) of each nonzero in the order of the quads, read off them in plain Python."""
    rows, columns, block = [], [], 0
    for first, last in zip(quads.panels[:-1], quads.panels[1:], strict=True):
        for s in range(max(1, -(-n_in // quads.slab))):
            largest = len(rows)
            for top in range(first, last, 4):
                assert quads.starts[block] == len(rows)
                i = quads.firsts[block]
                for mask in range(1, 16):
                    inputs = quads.indices[i : i + quads.counts[block, mask - 1]]
                    assert (np.diff(inputs.astype(int)) > 0).all()
                    for index in inputs:
                        users = [top + r for r in range(4) if mask >> r & 1]
                        assert max(users) < last
                        rows += users
                        columns += [s * quads.slab + int(index)] * len(users)
                    i += len(inputs)
                assert quads.firsts[block + 1] == i
                block += 1
            assert len(rows) - largest <= quads.room
    assert quads.starts[block] == len(rows)
    assert (quads.panels[:-1] % 4 == 0).all()
    return np.array(rows, np.int64), np.array(columns, np.int64)


def check_quads(topology):
    n_out, n_in = topology.shape
    plan = build(topology, quads=True)
    found = recovered(plan.forward, n_out, n_in)
    rows, columns = recovered_from_quads(plan.quads, n_out, n_in)
    np.testing.assert_array_equal(np.sort(plan.quads_source), np.arange(topology.nnz))
    np.testing.assert_array_equal(found[0][plan.quads_source], rows)
    np.testing.assert_array_equal(found[1][plan.quads_source], columns)
    columns, rows = recovered_from_quads(plan.transposed, n_in, n_out)
    np.testing.assert_array_equal(np.sort(plan.source), np.arange(topology.nnz))
    np.testing.assert_array_equal(found[0][plan.source], rows)
    np.testing.assert_array_equal(found[1][plan.source], columns)


def check(topology):
    check_quads(topology)
    n_out, n_in = topology.shape
    plan, order = build(topology, quads=False), positions(topology)
    assert plan.quads is plan.quads_source is None
    rows, columns = topology.coo()
    np.testing.assert_array_equal(np.sort(order), np.arange(topology.nnz))
    found = recovered(plan.forward, n_out, n_in)
    np.testing.assert_array_equal(found[0][order], rows)
    np.testing.assert_array_equal(found[1][order], columns)
    # The transposed slabs hold the same nonzeros, and `source` says which is which.
    columns_t, rows_t = recovered(plan.transposed, n_in, n_out)
    np.testing.assert_array_equal(found[0][plan.source], rows_t)
    np.testing.assert_array_equal(found[1][plan.source], columns_t)
    np.testing.assert_array_equal(np.sort(plan.source), np.arange(topology.nnz))


@pytest.mark.parametrize("name", ODD)
def test_every_nonzero_is_recovered_from_the_plan_of_an_odd_topology(name):
    check(ODD[name])


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_every_nonzero_is_recovered_from_the_plan_of_any_topology(seed):
    check(random_topology(np.random.default_rng(seed), 150, 400))


def test_one_row_with_almost_all_nonzeros_is_planned_like_any_other():
    mask = np.zeros((200, 300), np.bool_)
    mask[57] = True
    mask[::17, 3] = True
    check(Topology.from_dense(mask))
    check(Topology.from_dense(mask.T))


@pytest.mark.parametrize("name", ODD)
def test_panels_cover_all_outputs_in_order(name):
    topology = ODD[name]
    bounds = panel_bounds(topology.indptr)
    assert bounds[0] == 0
    assert bounds[-1] == topology.shape[0]
    assert (np.diff(bounds) >= 0).all()
    assert len(bounds) - 1 <= PANELS


def test_panels_hold_about_equally_many_nonzeros():
    topology = Topology.random((1000, 500), density=0.2, rng=0)
    work = np.diff(topology.indptr[panel_bounds(topology.indptr)])
    assert len(work) == PANELS
    assert work.max() < 1.1 * work.mean()


def test_four_outputs_at_a_time_are_planned_where_the_machine_asks_for_it(monkeypatch):
    kinds = {}
    for name, chosen in {"wide": Choices(), "narrow": Choices(quads=2, quads_gathered=2)}.items():
        monkeypatch.setattr(plans, "choices", lambda chosen=chosen: chosen)
        for density in (0.5, 0.3, 0.1):
            plan = build(Topology.random((50, 60), density=density, rng=0))
            kinds[name, density] = plan.quads is not None, isinstance(plan.transposed, Quads)
    assert kinds["wide", 0.5] == (True, True)
    assert kinds["wide", 0.3] == (False, True)
    assert kinds["wide", 0.1] == (False, False)
    assert all(kinds["narrow", density] == (False, False) for density in (0.5, 0.3, 0.1))


def test_a_topology_keeps_its_order_when_the_choices_change(monkeypatch):
    topology = Topology.random((50, 600), density=0.3, rng=0)
    before = positions(topology)
    monkeypatch.setattr(plans, "choices", lambda: Choices(base=16, dense_enough=()))
    np.testing.assert_array_equal(positions(topology), before)
    assert plan_of(topology).forward.slab == build(topology).forward.slab == 128
    fresh = Topology(topology.shape, topology.indptr, topology.indices)
    assert plan_of(fresh).forward.slab == 16


def test_runs_are_sorted_by_length_within_a_panel_and_slab():
    s = plan_of(Topology.random((300, 700), density=0.2, rng=0)).forward
    lengths = np.diff(s.pointers)
    n_slabs = -(-700 // s.slab)
    assert n_slabs > 1
    for first, last in zip(s.panels[:-1], s.panels[1:], strict=True):
        block = lengths[first * n_slabs : last * n_slabs].reshape(n_slabs, last - first)
        assert (np.diff(block, axis=1) >= 0).all()


@pytest.mark.parametrize(
    ("n_in", "density", "width"),
    [
        (200, 0.5, 1),
        (256, 0.01, 1),
        (257, 0.02, 2),
        (5000, 0.5, 1),
        (65_536, 1e-4, 2),
        (70_000, 1e-5, 4),
    ],
)
def test_indices_take_one_two_or_four_bytes_by_the_size_of_a_slab(n_in, density, width):
    topology = Topology.random((20, n_in), density=density, rng=0)
    assert plan_of(topology).forward.indices.itemsize == width
    if n_in < 1000:
        check(topology)


def test_outputs_take_two_bytes_up_to_65536_of_them():
    assert plan_of(Topology.empty((65_536, 1))).forward.outputs.dtype == np.uint16
    assert plan_of(Topology.empty((65_537, 1))).forward.outputs.dtype == np.uint32
    topology = Topology.from_coo((65_537, 2), [65_536, 0], [1, 0])
    check(topology)


@pytest.mark.parametrize(
    ("shape", "nnz"),
    [((10**6, 10**6), 10**6), ((10, 10**6), 1000), ((10**6, 10), 1000), ((3, 2 * 10**6), 6)],
)
def test_a_very_wide_and_sparse_plan_takes_memory_in_the_number_of_nonzeros(shape, nnz):
    topology = Topology.random(shape, nnz=nnz, rng=0)
    plan = plan_of(topology)
    assert plan.nbytes <= 20 * (nnz + sum(shape))
    rows, columns = topology.coo()
    source = plan.source
    # Position by position would be slow in Python: compare sums that an error would change.
    order = positions(topology)
    assert np.array_equal(np.sort(order), np.arange(nnz))
    assert np.array_equal(np.sort(source), np.arange(nnz))
    runs = np.repeat(plan.forward.outputs.astype(np.int64), np.diff(plan.forward.pointers))
    np.testing.assert_array_equal(runs[order], rows)
    runs = np.repeat(plan.transposed.outputs.astype(np.int64), np.diff(plan.transposed.pointers))
    by_transposed = np.empty(nnz, np.int64)
    by_transposed[source] = runs
    np.testing.assert_array_equal(by_transposed[order], columns)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_plan_that_was_begun_is_the_one_that_is_built_at_once(seed):
    topology = random_topology(np.random.default_rng(seed), 150, 400)
    whole = build(topology)
    np.testing.assert_array_equal(begin(topology), positions(topology))
    finished = build(topology)
    for name in ("indices", "pointers", "outputs", "panels", "slab", "room"):
        np.testing.assert_array_equal(getattr(finished.forward, name), getattr(whole.forward, name))
    np.testing.assert_array_equal(finished.source, whole.source)


@pytest.mark.parametrize("slab", [3, 100, -4])
def test_a_forced_slab_that_is_no_power_of_two_is_refused(slab):
    topology = Topology.random((30, 40), density=0.1, rng=0)
    with pytest.raises(ValueError, match=f"slab: expected a power of two; got {slab}"):
        build(topology, slab)


def test_a_plan_is_built_once_for_a_topology_and_kept_with_it():
    topology = Topology.random((30, 40), density=0.1, rng=0)
    before = plans_built()
    plan = plan_of(topology)
    assert plan_of(topology) is plan
    assert plans_built() == before + 1


def test_making_a_topology_builds_no_plan():
    before = plans_built()
    topology = Topology.random((30, 40), density=0.1, rng=0)
    topology.transpose(), positions(topology)
    assert plans_built() == before
