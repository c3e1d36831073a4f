"""The tiled sparse product, forward and transposed, against its float64 twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.kernels import gemm
from nnsparse.kernels.spmm import GATE, PLAIN, RELU, spmm, spmm_quads
from nnsparse.plan import Quads, build, positions
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


IN_ORDER = np.empty(0, np.uint32)


def launch(
    order, values, source, x, lanes, bias=None, rectify=False, n_out=None, group=2, gate=None
):  # fmt: skip
    """Return the kernel's tiles for x (batch, n_in) and the weights values[source]."""
    batch = len(x)
    tiled = tiles.aligned(to_tiles_reference(x, lanes))
    valid = np.ones(2 * lanes, x.dtype)
    if batch % lanes:
        valid[lanes + batch % lanes :] = 0
    if bias is None:
        bias = np.zeros(n_out, x.dtype)
    out = poisoned((len(tiled), n_out, lanes), x.dtype)
    pack = poisoned((jit.MAX_THREADS * order.room if source.size else 0,), x.dtype)
    finish = RELU if rectify else PLAIN if gate is None else GATE
    gate = tiled if gate is None else tiles.aligned(to_tiles_reference(gate, lanes))
    s = order
    if isinstance(order, Quads):
        spmm_quads(lanes, gemm.width(lanes, x.itemsize))(
            values, source, pack, s.room, s.indices, s.counts, s.starts, s.firsts, s.panels, s.slab, group,
            bias, valid, finish, gate, tiled, out,
        )  # fmt: skip
    else:
        spmm(lanes)(
            values, source, pack, s.room, s.indices, s.pointers, s.outputs, s.panels, s.slab, group,
            bias, valid, finish, gate, tiled, out,
        )  # fmt: skip
    return out


class Problem:
    """One topology with values in both orders, activations and gradients."""

    def __init__(self, topology, batch, dtype=np.float32, lanes=16, seed=0, quads=False):
        rng = np.random.default_rng(seed)
        n_out, n_in = topology.shape
        self.topology, self.lanes, self.dtype = topology, lanes, dtype
        self.plan = build(topology, quads=quads)
        self.values = rng.standard_normal(topology.nnz).astype(dtype)  # canonical order
        self.planned = np.empty_like(self.values)
        self.planned[positions(topology)] = self.values
        self.x = rng.standard_normal((batch, n_in)).astype(dtype)
        self.d = rng.standard_normal((batch, n_out)).astype(dtype)
        self.bias = rng.standard_normal(n_out).astype(dtype)

    def forward(self, bias=None, rectify=False, group=2):
        order, source = self.plan.forward, IN_ORDER
        if self.plan.quads is not None:
            order, source = self.plan.quads, self.plan.quads_source
        n_out = self.topology.shape[0]
        return launch(order, self.planned, source, self.x, self.lanes, bias, rectify, n_out, group)

    def transposed(self, group=2, gate=None):
        plan, n_in = self.plan, self.topology.shape[1]
        return launch(
            plan.transposed, self.planned, plan.source, self.d, self.lanes,
            n_out=n_in, group=group, gate=gate,
        )  # fmt: skip

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


both = pytest.mark.parametrize("quads", [False, True], ids=["runs", "quads"])


@both
@pytest.mark.parametrize("name", ODD)
def test_both_products_match_their_twins_on_odd_topologies(name, quads):
    for batch in (1, 16, 37) if max(ODD[name].shape) < 2000 else (3,):
        Problem(ODD[name], batch, quads=quads).check()


@both
@pytest.mark.parametrize("name", ODD)
def test_the_gradient_of_a_relu_is_taken_in_the_same_pass(name, quads):
    batch = 37 if max(ODD[name].shape) < 2000 else 3
    problem = Problem(ODD[name], batch, quads=quads)
    gate = np.maximum(problem.x - 0.3, 0)
    expected = from_tiles_reference(problem.transposed(), batch) * (gate > 0)
    got = from_tiles_reference(problem.transposed(gate=gate), batch)
    np.testing.assert_array_equal(got, expected)


@both
@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_both_products_match_their_twins_on_any_topology(quads, seed, batch):
    # Up to 200 outputs and 600 inputs: several panels, and several slabs where they are dense.
    topology = random_topology(np.random.default_rng(seed), 200, 600)
    Problem(topology, batch, seed=seed, quads=quads).check()


@both
@pytest.mark.parametrize("lanes", tiles.LANES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_lane_width_and_dtype_matches_its_twin(lanes, dtype, quads):
    topology = Topology.random((37, 300), density=0.5, rng=1)
    assert len(build(topology).forward.pointers) > 2 * 37  # more than one slab
    for batch in (1, lanes, 2 * lanes + 3):
        Problem(topology, batch, dtype, lanes, quads=quads).check()


@both
def test_any_number_of_tiles_per_task_gives_the_same_bits(quads):
    problem = Problem(Topology.random((70, 300), density=0.5, rng=1), 100, quads=quads)
    wanted = problem.forward(group=1), problem.transposed(group=1)
    for group in (2, 3, 7, 100):
        np.testing.assert_array_equal(problem.forward(group=group), wanted[0])
        np.testing.assert_array_equal(problem.transposed(group=group), wanted[1])


@both
def test_padded_lanes_are_exactly_zero_also_with_a_bias(quads):
    problem = Problem(Topology.random((21, 30), density=0.3, rng=0), 21, quads=quads)
    for rectify in (False, True):
        out = problem.forward(problem.bias, rectify)
        np.testing.assert_array_equal(out[1, :, 21 - 16 :], 0)
    np.testing.assert_array_equal(problem.transposed()[1, :, 21 - 16 :], 0)


@both
def test_bias_and_relu_are_added_in_the_same_pass(quads):
    problem = Problem(Topology.random((41, 300), density=0.6, rng=0), 33, quads=quads)
    twin = masked_forward(problem.topology, problem.values, problem.x.T).T + problem.bias
    plain = from_tiles_reference(problem.forward(problem.bias), 33)
    np.testing.assert_allclose(plain, twin, rtol=0, atol=1e-4)
    fused = from_tiles_reference(problem.forward(problem.bias, rectify=True), 33)
    np.testing.assert_array_equal(fused, np.maximum(plain, 0))


@both
def test_an_output_without_nonzeros_is_its_bias(quads):
    problem = Problem(Topology.empty((9, 5)), 3, quads=quads)
    out = from_tiles_reference(problem.forward(problem.bias), 3)
    np.testing.assert_array_equal(out, np.broadcast_to(problem.bias, (3, 9)))


@both
@pytest.mark.parametrize("where", ["x", "w", "bias"])
def test_a_nan_stays_a_nan_through_relu(where, quads):
    problem = Problem(Topology.full((5, 5)), 3, quads=quads)
    {"x": problem.x, "w": problem.planned, "bias": problem.bias}[where].fill(np.nan)
    out = from_tiles_reference(problem.forward(problem.bias, rectify=True), 3)
    assert np.isnan(out).all()


@both
@pytest.mark.parametrize("rectify", [False, True])
def test_one_and_two_threads_give_the_same_bits(rectify, quads):
    problem = Problem(Topology.random((333, 444), density=0.3, rng=0), 100, quads=quads)
    before, results = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            results.append((problem.forward(problem.bias, rectify), problem.transposed()))
    finally:
        jit.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
