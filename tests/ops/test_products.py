"""The differentiable products of all three structures, against float64 twins and differences."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.autograd import Tensor, no_grad
from nnsparse.gradcheck import check_gradients
from nnsparse.ops.layout import tile, untile
from nnsparse.ops.products import sddmm, spmm, spmm_t
from nnsparse.ops.structures import Blas, Dense, Sparse
from nnsparse.plan import positions
from nnsparse.testing import (
    masked_forward,
    masked_input_gradient,
    odd_topologies,
    random_topology,
    roundoff,
    sparse_weight_gradient,
    to_tiles_reference,
)
from nnsparse.topology import Topology

ODD = dict(odd_topologies(np.random.default_rng(0)))
KINDS = ["sparse", "dense", "blas"]


@pytest.fixture(autouse=True)
def _poisoned_buffers(monkeypatch):
    """Fill every new buffer with NaN, so that whatever a kernel forgets to write shows."""
    monkeypatch.setattr(tiles, "_POISON", True)


class Problem:
    """The weights of one topology in one structure's own layout, with activations and gradients."""

    def __init__(self, kind, topology, batch, dtype=np.float32, lanes=16, seed=0):
        rng = np.random.default_rng(seed)
        n_out, n_in = topology.shape
        self.kind, self.topology, self.lanes, self.dtype = kind, topology, lanes, dtype
        self.values = rng.standard_normal(topology.nnz).astype(dtype)
        self.x, self.d = (rng.standard_normal((batch, n)).astype(dtype) for n in (n_in, n_out))
        self.bias = rng.standard_normal(n_out).astype(dtype)
        if kind == "sparse":
            self.structure, self.w = Sparse(topology), np.empty_like(self.values)
            self.w[positions(topology)] = self.values
        else:
            self.structure = (Dense if kind == "dense" else Blas)(n_out, n_in)
            self.w = topology.to_dense(self.values)

    def tiled(self, rows):
        data = tiles.aligned(to_tiles_reference(rows, self.lanes))
        return Tensor(data, requires_grad=True, batch=len(rows))

    def forward(self, bias=False, rectify=False, x=None):
        b = Tensor(self.bias) if bias else None
        x = self.tiled(self.x if x is None else x)
        return spmm(Tensor(self.w), x, self.structure, b, rectify)

    def transposed(self):
        return spmm_t(Tensor(self.w), self.tiled(self.d), self.structure)

    def gradient(self):
        """Return the weight gradient in canonical order, (nnz,)."""
        out = sddmm(self.tiled(self.d), self.tiled(self.x), self.structure).data
        if self.kind == "sparse":
            return out[positions(self.topology)]
        return out[self.topology.coo()]

    def check(self):
        w = self.topology.to_dense(self.values)

        def close(out, twin, a, b):
            assert out.dtype == self.dtype
            atol = roundoff(a, b, dtype=self.dtype)
            np.testing.assert_allclose(out, twin, rtol=0, atol=atol)

        twin = masked_forward(self.topology, self.values, self.x.T).T
        out = self.forward()
        assert out.shape == self.d.shape
        close(out.numpy(), twin, self.x, w.T)
        assert not padding(out).any()
        out = self.forward(bias=True)
        close(out.numpy(), twin + self.bias, np.c_[self.x, self.bias_column()], self.with_bias(w))
        assert not padding(out).any()
        np.testing.assert_array_equal(
            self.forward(bias=True, rectify=True).data, np.maximum(out.data, 0)
        )
        out = self.transposed()
        twin = masked_input_gradient(self.topology, self.values, self.d.T).T
        assert out.shape == self.x.shape
        close(out.numpy(), twin, self.d, w)
        assert not padding(out).any()
        twin = sparse_weight_gradient(self.topology, self.d.T, self.x.T)
        close(self.gradient(), twin, self.d.T, self.x)

    def bias_column(self):
        return np.ones(len(self.x))

    def with_bias(self, w):
        return np.r_[w.T, self.bias[None]]


def padding(t):
    """Return the padded lanes of a tiled tensor, (n_padded, n_features)."""
    n_tiles, n_features, lanes = t.data.shape
    return t.data.transpose(0, 2, 1).reshape(n_tiles * lanes, n_features)[t.batch :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [n for n in ODD if 0 not in ODD[n].shape])
def test_the_products_match_their_twins_on_odd_topologies(name, kind):
    for batch in (1, 3, 64, 100, 257) if max(ODD[name].shape) < 2000 else (3,):
        Problem(kind, ODD[name], batch).check()


@pytest.mark.parametrize("name", ["no outputs", "no inputs"])
def test_a_sparse_product_without_outputs_or_inputs_is_zero(name):
    for batch in (1, 100):
        Problem("sparse", ODD[name], batch).check()


@pytest.mark.parametrize("lanes", tiles.LANES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_products_match_their_twins_in_every_lane_width_and_dtype(kind, dtype, lanes):
    for batch in (1, 3, 64, 100, 257):
        Problem(kind, Topology.random((37, 150), density=0.4, rng=1), batch, dtype, lanes).check()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 100), st.sampled_from(KINDS))
def test_the_products_match_their_twins_on_any_topology(seed, batch, kind):
    topology = random_topology(np.random.default_rng(seed), 150, 300)
    Problem(kind, topology, batch, seed=seed).check()


@pytest.mark.parametrize("lanes", [1, 3, 100, 257])
def test_numpy_products_take_any_number_of_lanes(lanes):
    for batch in (lanes, lanes + 5):
        Problem("blas", ODD["full"], batch, lanes=lanes).check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_or_infinity_in_one_sample_does_not_reach_the_others(kind):
    problem = Problem(kind, Topology.random((30, 50), density=0.3, rng=0), 40)
    clean = problem.forward(bias=True).numpy()
    x = problem.x.copy()
    x[[7, 39], [11, 12]] = np.nan, np.inf
    out = problem.forward(bias=True, x=x).numpy()
    others = np.delete(np.arange(40), [7, 39])
    np.testing.assert_array_equal(out[others], clean[others])
    for sample, column in ((7, 11), (39, 12)):
        touched = problem.topology.to_dense()[:, column]
        assert not np.isfinite(out[sample, touched]).any()
        if kind == "sparse":  # a weight that does not exist does not multiply
            np.testing.assert_array_equal(out[sample, ~touched], clean[sample, ~touched])
    rectified = problem.forward(bias=True, rectify=True, x=x).numpy()
    np.testing.assert_array_equal(np.isnan(rectified), np.isnan(out))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rectify", [False, True])
def test_a_nan_in_one_sample_does_not_reach_the_gradients_of_the_others(kind, rectify):
    problem = Problem(kind, Topology.random((30, 50), density=0.3, rng=0), 40)

    def input_gradient(d):
        x = problem.tiled(problem.x)
        bias = Tensor(problem.bias)
        out = spmm(Tensor(problem.w), x, problem.structure, bias, rectify)
        out.backward(d)
        return Tensor(x.grad, batch=40).numpy()

    clean = input_gradient(problem.d)
    d = problem.d.copy()
    d[9] = np.nan
    dirty = input_gradient(d)
    assert np.isnan(dirty[9]).any()
    np.testing.assert_array_equal(np.delete(dirty, 9, 0), np.delete(clean, 9, 0))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_one_and_two_threads_give_the_same_bits(kind):
    problem = Problem(kind, Topology.random((333, 444), density=0.3, rng=0), 100)
    before, results = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            results.append(
                (
                    problem.forward(bias=True, rectify=True).data,
                    problem.transposed().data,
                    problem.gradient(),
                )
            )
    finally:
        jit.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward_give_the_same_bits_at_every_lane_width(kind):
    # The sum over inputs has one order, whatever the tile. (BLAS chooses by size.)
    topology = Topology.random((37, 150), density=0.4, rng=1)
    a, b = (Problem(kind, topology, 50, lanes=lanes) for lanes in (16, 64))
    compare = np.testing.assert_array_equal if kind != "blas" else np.testing.assert_allclose
    options = {} if kind != "blas" else {"atol": 1e-4}
    compare(a.forward(True).numpy(), b.forward(True).numpy(), **options)
    compare(a.transposed().numpy(), b.transposed().numpy(), **options)


# ---------------------------------------------------------------- derivatives


def operators(kind, topology, lanes=16):
    """Return a function for each product, of plain tensors, and random arrays to try it on."""
    problem = Problem(kind, topology, 5, np.float64, lanes)
    s = problem.structure

    def product(w, x, bias=None, rectify=False):
        return untile(spmm(w, tile(x, lanes), s, bias, rectify))

    return problem, {
        "forward": (product, problem.w, problem.x),
        "with bias": (product, problem.w, problem.x, problem.bias),
        "with bias and relu": (
            lambda w, x, b: product(w, x, b, rectify=True),
            problem.w,
            problem.x,
            problem.bias,
        ),
        "transposed": (lambda w, d: untile(spmm_t(w, tile(d, lanes), s)), problem.w, problem.d),
        "gradient": (
            lambda d, x: sddmm(tile(d, lanes), tile(x, lanes), s),
            problem.d,
            problem.x,
        ),
    }


NAMES = ["forward", "with bias", "with bias and relu", "transposed", "gradient"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_first_and_second_order_agree_with_differences(kind, name):
    mask = Topology.random((4, 6), density=0.6, rng=3).to_dense()
    mask[2] = False  # an output that only its bias feeds
    mask[:, 1] = False
    _, cases = operators(kind, Topology.from_dense(mask))
    function, *arrays = cases[name]
    check_gradients(function, *arrays, order=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_layer_is_differentiated_when_one_input_feeds_it_twice(kind):
    problem, _ = operators(kind, Topology.random((4, 4), density=0.7, rng=0))

    def twice(w, x):
        y = spmm(w, tile(x, 16), problem.structure, rectify=True)
        return untile(spmm(w, y, problem.structure))

    check_gradients(twice, problem.w, problem.x, order=2)


def adjoint_pairs(problem):
    """Return <d, W x>, <W^T d, x> and <g, w>: one number by three products."""
    w = Tensor(problem.w)
    x, d = problem.tiled(problem.x), problem.tiled(problem.d)
    s = problem.structure
    return (
        np.vdot(spmm(w, x, s).data, d.data),
        np.vdot(spmm_t(w, d, s).data, x.data),
        np.vdot(sddmm(d, x, s).data, problem.w),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 17, 257])
def test_the_three_products_are_each_others_adjoints(kind, batch):
    topology = Topology.random((130, 270), density=0.2, rng=4)
    a, b, c = adjoint_pairs(Problem(kind, topology, batch, np.float64))
    np.testing.assert_allclose([b, c], a, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_is_computed_for_what_does_not_need_one(kind):
    problem = Problem(kind, ODD["full"], 5)
    w = Tensor(problem.w, requires_grad=True)
    x = Tensor(problem.tiled(problem.x).data, batch=5)
    bias = Tensor(problem.bias)
    out = spmm(w, x, problem.structure, bias)
    gradients = out.node.rule(problem.tiled(problem.d), out, (True, False, False))
    assert [g is not None for g in gradients] == [True, False, False]


def test_nothing_is_kept_without_recording_and_nothing_is_left_after_backward():
    problem = Problem("sparse", ODD["full"], 5)
    with no_grad():
        assert problem.forward().node is None
    w, x = Tensor(problem.w, requires_grad=True), problem.tiled(problem.x)
    kept = weakref.ref(x)
    gc.disable()
    try:
        out = spmm(w, x, problem.structure, rectify=True)
        del x
        assert kept() is not None
        out.backward(problem.d)
        assert kept() is None  # freed at once: there is no reference cycle
    finally:
        gc.enable()
