"""The tiled weight gradient at the nonzeros, against its float64 twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.kernels.sddmm import part, sddmm
from nnsparse.plan import plan_of, positions
from nnsparse.testing import (
    odd_topologies,
    random_topology,
    roundoff,
    sparse_weight_gradient,
    to_tiles_reference,
)
from nnsparse.topology import Topology

ODD = dict(odd_topologies(np.random.default_rng(0)))


def arrays(topology, batch, dtype, seed=0):
    """Return d (batch, n_out) and x (batch, n_in)."""
    rng = np.random.default_rng(seed)
    n_out, n_in = topology.shape
    return (rng.standard_normal((batch, n)).astype(dtype) for n in (n_out, n_in))


def gradient(topology, d, x, lanes=16, width=None):
    """Return the kernel's result in canonical order, its buffer poisoned before."""
    s = plan_of(topology).forward
    out = np.full(topology.nnz, np.nan, x.dtype)
    sums = np.full(d.shape[1], np.nan, x.dtype)
    total = d.sum(axis=0)
    d, x = (tiles.aligned(to_tiles_reference(a, lanes)) for a in (d, x))
    sddmm(lanes, width or part(x.itemsize))(
        s.indices, s.pointers, s.outputs, s.panels, s.slab, d, x, sums, out
    )
    np.testing.assert_allclose(sums, total, rtol=0, atol=1e-4)
    return out[positions(topology)]


def check(topology, batch, dtype=np.float32, lanes=16, seed=0):
    d, x = arrays(topology, batch, dtype, seed)
    out = gradient(topology, d, x, lanes)
    assert out.dtype == dtype
    twin = sparse_weight_gradient(topology, d.T, x.T)
    np.testing.assert_allclose(out, twin, rtol=0, atol=roundoff(d.T, x, dtype=dtype))


@pytest.mark.parametrize("name", ODD)
def test_the_gradient_matches_its_twin_on_odd_topologies(name):
    for batch in (1, 16, 37) if max(ODD[name].shape) < 2000 else (3,):
        check(ODD[name], batch)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_the_gradient_is_the_same_for_any_width_of_the_registers(width):
    topology = Topology.random((40, 150), density=0.3, rng=0)
    d, x = arrays(topology, 37, np.float32)
    twin = sparse_weight_gradient(topology, d.T, x.T)
    out = gradient(topology, d, x, width=width)
    np.testing.assert_allclose(out, twin, rtol=0, atol=roundoff(d.T, x, dtype=np.float32))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_the_gradient_matches_its_twin_on_any_topology(seed, batch):
    check(random_topology(np.random.default_rng(seed), 200, 600), batch, seed=seed)


@pytest.mark.parametrize("lanes", tiles.LANES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_lane_width_and_dtype_matches_its_twin(lanes, dtype):
    topology = Topology.random((37, 300), density=0.5, rng=1)
    for batch in (1, lanes, 2 * lanes + 3):
        check(topology, batch, dtype, lanes)


@pytest.mark.parametrize("count", range(1, 10))
def test_runs_of_any_length_are_summed_in_full(count):
    # Four nonzeros at a time: lengths around multiples of four reach both loops.
    check(Topology.from_coo((3, 12), [1] * count, range(count)), 20)


def test_a_nan_reaches_only_the_nonzeros_that_touch_it():
    topology = Topology.random((12, 15), density=0.5, rng=0)
    d, x = arrays(topology, 20, np.float32)
    x[3, 7] = np.nan
    np.testing.assert_array_equal(np.isnan(gradient(topology, d, x)), topology.indices == 7)
    d[2, 5] = np.inf
    rows, columns = topology.coo()
    out = gradient(topology, d, x)
    np.testing.assert_array_equal(~np.isfinite(out), (columns == 7) | (rows == 5))


def test_one_and_two_threads_give_the_same_bits():
    topology = Topology.random((333, 444), density=0.3, rng=0)
    d, x = arrays(topology, 100, np.float32)
    before, results = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            results.append(gradient(topology, d, x))
    finally:
        jit.set_num_threads(before)
    np.testing.assert_array_equal(*results)
