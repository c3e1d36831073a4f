"""The tiled sparse product, forward and transposed, against its float64 twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.kernels.layout import take
from nnsparse.kernels.spmm import spmm
from nnsparse.plan import plan_of, positions
from nnsparse.testing import (
    from_tiles_reference,
    masked_forward,
    masked_input_gradient,
    odd_topologies,
    random_topology,
    roundoff,
    to_tiles_reference,
)
from nnsparse.topology import Topology

ODD = dict(odd_topologies(np.random.default_rng(0)))


def poisoned(shape, dtype):
    out = tiles.aligned(np.empty(shape, dtype))
    out.fill(np.nan)
    return out


def launch(slabs, values, x, lanes, bias=None, rectify=False, n_out=None):
    """Return the kernel's tiles for x (batch, n_in) and values in the order of `slabs`."""
    batch = len(x)
    tiled = tiles.aligned(to_tiles_reference(x, lanes))
    valid = np.ones(2 * lanes, x.dtype)
    if batch % lanes:
        valid[lanes + batch % lanes :] = 0
    if bias is None:
        bias = np.zeros(n_out, x.dtype)
    out = poisoned((len(tiled), n_out, lanes), x.dtype)
    s = slabs
    spmm(lanes)(
        values, s.indices, s.pointers, s.outputs, s.panels, s.slab, bias, valid, rectify, tiled, out
    )
    return out


class Problem:
    """One topology with values in both orders, activations and gradients."""

    def __init__(self, topology, batch, dtype=np.float32, lanes=16, seed=0):
        rng = np.random.default_rng(seed)
        n_out, n_in = topology.shape
        self.topology, self.lanes, self.dtype = topology, lanes, dtype
        self.plan = plan_of(topology)
        self.values = rng.standard_normal(topology.nnz).astype(dtype)  # canonical order
        self.planned = np.empty_like(self.values)
        self.planned[positions(topology)] = self.values
        self.x = rng.standard_normal((batch, n_in)).astype(dtype)
        self.d = rng.standard_normal((batch, n_out)).astype(dtype)
        self.bias = rng.standard_normal(n_out).astype(dtype)

    def forward(self, bias=None, rectify=False):
        n_out = self.topology.shape[0]
        return launch(self.plan.forward, self.planned, self.x, self.lanes, bias, rectify, n_out)

    def transposed(self):
        values = np.full_like(self.planned, np.nan)
        take(self.planned, self.plan.source, values)
        n_in = self.topology.shape[1]
        return launch(self.plan.transposed, values, self.d, self.lanes, n_out=n_in)

    def check(self):
        w = self.topology.to_dense(self.values)
        batch = len(self.x)
        out = from_tiles_reference(self.forward(), batch)
        twin = masked_forward(self.topology, self.values, self.x.T).T
        atol = roundoff(self.x, w.T, dtype=self.dtype)
        np.testing.assert_allclose(out, twin, rtol=0, atol=atol)
        out = from_tiles_reference(self.transposed(), batch)
        twin = masked_input_gradient(self.topology, self.values, self.d.T).T
        atol = roundoff(self.d, w, dtype=self.dtype)
        np.testing.assert_allclose(out, twin, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ODD)
def test_both_products_match_their_twins_on_odd_topologies(name):
    for batch in (1, 16, 37) if max(ODD[name].shape) < 2000 else (3,):
        Problem(ODD[name], batch).check()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_both_products_match_their_twins_on_any_topology(seed, batch):
    # Up to 200 outputs and 600 inputs: several panels, and several slabs where they are dense.
    topology = random_topology(np.random.default_rng(seed), 200, 600)
    Problem(topology, batch, seed=seed).check()


@pytest.mark.parametrize("lanes", tiles.LANES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_lane_width_and_dtype_matches_its_twin(lanes, dtype):
    topology = Topology.random((37, 300), density=0.5, rng=1)
    assert len(plan_of(topology).forward.pointers) > 2 * 37  # more than one slab
    for batch in (1, lanes, 2 * lanes + 3):
        Problem(topology, batch, dtype, lanes).check()


def test_padded_lanes_are_exactly_zero_also_with_a_bias():
    problem = Problem(Topology.random((20, 30), density=0.3, rng=0), 21)
    for rectify in (False, True):
        out = problem.forward(problem.bias, rectify)
        np.testing.assert_array_equal(out[1, :, 21 - 16 :], 0)
    np.testing.assert_array_equal(problem.transposed()[1, :, 21 - 16 :], 0)


def test_bias_and_relu_are_added_in_the_same_pass():
    problem = Problem(Topology.random((40, 300), density=0.6, rng=0), 33)
    twin = masked_forward(problem.topology, problem.values, problem.x.T).T + problem.bias
    plain = from_tiles_reference(problem.forward(problem.bias), 33)
    np.testing.assert_allclose(plain, twin, rtol=0, atol=1e-4)
    fused = from_tiles_reference(problem.forward(problem.bias, rectify=True), 33)
    np.testing.assert_array_equal(fused, np.maximum(plain, 0))


def test_an_output_without_nonzeros_is_its_bias():
    problem = Problem(Topology.empty((9, 5)), 3)
    out = from_tiles_reference(problem.forward(problem.bias), 3)
    np.testing.assert_array_equal(out, np.broadcast_to(problem.bias, (3, 9)))


@pytest.mark.parametrize("where", ["x", "w", "bias"])
def test_a_nan_stays_a_nan_through_relu(where):
    problem = Problem(Topology.full((4, 5)), 3)
    {"x": problem.x, "w": problem.planned, "bias": problem.bias}[where].fill(np.nan)
    out = from_tiles_reference(problem.forward(problem.bias, rectify=True), 3)
    assert np.isnan(out).all()


@pytest.mark.parametrize("rectify", [False, True])
def test_one_and_two_threads_give_the_same_bits(rectify):
    problem = Problem(Topology.random((333, 444), density=0.3, rng=0), 100)
    before, results = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            results.append((problem.forward(problem.bias, rectify), problem.transposed()))
    finally:
        jit.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
