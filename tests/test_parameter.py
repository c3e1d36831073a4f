"""Parameters: values in plan order, and `move_to`, the only place where a support changes."""

import copy
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse.parameter import Parameter, SparseParameter, storage
from nnsparse.plan import plan_of, positions
from nnsparse.testing import random_topology
from nnsparse.topology import Topology


def sparse_parameter(topology, seed=0, dtype=np.float32):
    """Return a parameter with random values and two random buffers, all bits distinct."""
    rng = np.random.default_rng(seed)
    p = SparseParameter(topology, rng.standard_normal(topology.nnz).astype(dtype))
    for name in ("momentum", "scores"):
        p.buffers[name] = rng.standard_normal(topology.nnz).astype(dtype)
    return p


def dense(p, name=None):
    """Return the values or a buffer as a dense array, NaN where nothing is stored."""
    out = np.full(p.topology.shape, np.nan, p.dtype)
    out[p.topology.coo()] = p.canonical(None if name is None else p.buffers[name])
    return out


def pair(seed):
    rng = np.random.default_rng(seed)
    a = random_topology(rng, 30, 200)
    return a, Topology.random(a.shape, density=float(rng.uniform(0, 1)), rng=rng)


# ---------------------------------------------------------------- construction


def test_values_are_given_and_read_in_canonical_order():
    topology = Topology.random((50, 300), density=0.2, rng=0)
    values = np.arange(topology.nnz, dtype=np.float32)
    p = SparseParameter(topology, values)
    np.testing.assert_array_equal(p.canonical(), values)
    np.testing.assert_array_equal(p.to_dense(), topology.to_dense(values))
    assert (p.data != values).any()  # plan order is another one
    np.testing.assert_array_equal(p.data[positions(topology)], values)


def test_the_values_are_a_copy_on_a_cache_line():
    source = np.zeros(12)
    for p in (Parameter(source), SparseParameter(Topology.full((3, 4)), source)):
        source[...] = 1
        assert not p.data.any()
        assert p.data.ctypes.data % 64 == 0
        assert p.requires_grad
        assert p.grad is None
        assert p.buffers == {}
        source[...] = 0


def test_zeros_are_legal_values():
    p = SparseParameter(Topology.full((2, 3)), np.zeros(6))
    assert p.topology.nnz == 6
    assert p.to_scipy().nnz == 6


def test_set_canonical_overwrites_in_place():
    p = sparse_parameter(Topology.random((20, 40), density=0.3, rng=0))
    data, values = p.data, np.arange(p.size, dtype=np.float32)
    p.set_canonical(values)
    assert p.data is data
    np.testing.assert_array_equal(p.canonical(), values)


def test_canonical_brings_a_buffer_into_order_too():
    p = sparse_parameter(Topology.random((20, 40), density=0.3, rng=0))
    p.buffers["copy"] = p.data.copy()
    np.testing.assert_array_equal(p.canonical(p.buffers["copy"]), p.canonical())


@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.bool_, complex, ">f4"])
def test_only_float32_and_float64_are_parameters(dtype):
    with pytest.raises(TypeError, match="float32 or float64; got"):
        Parameter(np.zeros(3, dtype))
    assert Parameter(np.zeros(3, np.int64), np.float32).dtype == np.float32


def test_values_of_another_number_are_refused():
    topology = Topology.full((2, 3))
    with pytest.raises(ValueError, match=r"one value per position, \(6,\); got \(5,\)"):
        SparseParameter(topology, np.zeros(5))
    p = SparseParameter(topology, np.zeros(6))
    with pytest.raises(ValueError, match=r"expected \(6,\) values; got \(2, 3\)"):
        p.set_canonical(np.zeros((2, 3)))
    with pytest.raises(AttributeError):
        p.topology = topology


# ---------------------------------------------------------------- move_to


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_survivors_keep_value_and_buffers_bit_for_bit_and_newcomers_get_fill_and_zero(seed):
    before, after = pair(seed)
    p = sparse_parameter(before, seed)
    old = {name: dense(p, name) for name in (None, "momentum", "scores")}
    newcomers = after.to_dense() & ~before.to_dense()
    fill = np.random.default_rng(seed).standard_normal(int(newcomers.sum())).astype(np.float32)
    p.move_to(after, fill)
    assert p.topology == after
    for name, previous in old.items():
        expected = np.where(after.to_dense(), previous, np.float32(np.nan))
        expected[newcomers] = fill if name is None else 0
        now = dense(p, name)
        np.testing.assert_array_equal(
            now.view(np.uint32) * ~np.isnan(now), expected.view(np.uint32) * ~np.isnan(expected)
        )
        np.testing.assert_array_equal(np.isnan(now), np.isnan(expected))


def test_one_fill_value_serves_all_newcomers():
    p = SparseParameter(Topology.from_coo((2, 2), [0], [1]), [5.0])
    p.move_to(Topology.full((2, 2)), 0.5)
    np.testing.assert_array_equal(p.to_dense(), [[0.5, 5], [0.5, 0.5]])


def test_the_parameter_stays_the_same_object_and_loses_its_gradient():
    p = sparse_parameter(Topology.random((20, 30), density=0.4, rng=0))
    p.grad, identity, buffers = np.ones_like(p.data), id(p), set(p.buffers)
    p.move_to(Topology.random((20, 30), density=0.2, rng=1))
    assert id(p) == identity
    assert p.grad is None
    assert set(p.buffers) == buffers
    assert p.data.shape == p.buffers["momentum"].shape == (120,)
    assert p.data.ctypes.data % 64 == 0


def test_moving_to_an_equal_topology_changes_nothing():
    topology = Topology.random((20, 300), density=0.4, rng=0)
    p = sparse_parameter(topology)
    data, momentum = p.data.copy(), p.buffers["momentum"].copy()
    p.move_to(Topology(topology.shape, topology.indptr, topology.indices), fill=9)
    np.testing.assert_array_equal(p.data, data)
    np.testing.assert_array_equal(p.buffers["momentum"], momentum)


def test_moving_to_more_and_back_changes_nothing():
    small = Topology.random((20, 300), density=0.1, rng=0)
    large = small | small.random_free(500, rng=1)
    p = sparse_parameter(small)
    data, momentum = p.data.copy(), p.buffers["momentum"].copy()
    p.move_to(large, fill=3)
    p.move_to(small)
    np.testing.assert_array_equal(p.data, data)
    np.testing.assert_array_equal(p.buffers["momentum"], momentum)


def test_a_parameter_can_be_emptied_and_filled_again():
    p = sparse_parameter(Topology.random((5, 7), density=0.5, rng=0))
    p.move_to(Topology.empty((5, 7)))
    assert p.size == 0
    assert p.buffers["momentum"].shape == (0,)
    p.move_to(Topology.full((5, 7)), fill=2)
    np.testing.assert_array_equal(p.to_dense(), np.full((5, 7), 2))
    np.testing.assert_array_equal(p.buffers["momentum"], np.zeros(35))


def test_a_buffer_of_another_dtype_keeps_it():
    p = sparse_parameter(Topology.full((3, 3)))
    p.buffers["age"] = np.arange(9)
    p.move_to(Topology.from_coo((3, 3), [2, 0], [2, 1]))
    assert p.buffers["age"].dtype == np.int64
    np.testing.assert_array_equal(p.canonical(p.buffers["age"]), [1, 8])


def test_a_nan_moves_like_any_other_value():
    p = SparseParameter(Topology.full((1, 2)), [np.nan, -0.0])
    p.move_to(Topology.from_coo((1, 2), [0], [0]))
    assert np.isnan(p.data).all()


def test_a_bad_move_is_refused_and_changes_nothing():
    p = sparse_parameter(Topology.full((2, 3)))
    topology, data, buffers = p.topology, p.data, dict(p.buffers)
    with pytest.raises(ValueError, match=r"topology of shape \(2, 3\); got \(3, 2\)"):
        p.move_to(Topology.full((3, 2)))
    p.move_to(topology)
    empty = SparseParameter(Topology.empty((2, 3)), np.zeros(0))
    with pytest.raises(ValueError, match=r"one fill value or 6 of them, one per newcomer; got"):
        empty.move_to(topology, fill=np.zeros(5))
    assert empty.topology.nnz == 0
    np.testing.assert_array_equal(p.data, data)
    assert p.buffers.keys() == buffers.keys()


# ---------------------------------------------------------------- where values are stored


def test_the_order_of_the_values_is_shared_while_somebody_holds_it_and_freed_afterwards():
    for topology in (Topology.random((40, 300), density=0.1, rng=0), Topology.full((4, 5))):
        plan_of(topology)
        order = storage(topology)
        assert storage(topology) is order
        with pytest.raises(ValueError, match="read-only"):
            order[0] = 1
        alive = weakref.ref(order)
        del order
        assert alive() is None


def test_a_moved_parameter_keeps_its_order_until_the_plan_is_built_of_it():
    p = sparse_parameter(Topology.random((40, 300), density=0.1, rng=0))
    p.move_to(Topology.random((40, 300), density=0.1, rng=1))
    alive = weakref.ref(storage(p.topology))
    assert alive() is not None
    order, values = alive().copy(), p.canonical()
    plan_of(p.topology)
    assert alive() is None
    np.testing.assert_array_equal(positions(p.topology), order)
    np.testing.assert_array_equal(p.canonical(), values)


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_has_its_own_values_and_the_same_topology(duplicate):
    p = sparse_parameter(Topology.random((20, 30), density=0.4, rng=0))
    q = duplicate(p)
    assert isinstance(q, SparseParameter)
    assert q.topology == p.topology
    np.testing.assert_array_equal(q.data, p.data)
    np.testing.assert_array_equal(q.buffers["momentum"], p.buffers["momentum"])
    q.data[...] = 0
    q.buffers["momentum"][...] = 0
    assert p.data.all()
    assert p.buffers["momentum"].all()


def test_zero_grad_forgets_the_gradient():
    p = Parameter(np.zeros(3))
    p.grad = np.ones(3)
    p.zero_grad()
    assert p.grad is None
