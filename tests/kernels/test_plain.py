"""The plain CSR, CSC and COO products against their float64 twins and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nnsparse import jit
from nnsparse.kernels import plain
from nnsparse.testing import (
    masked_forward,
    masked_input_gradient,
    odd_topologies,
    random_topology,
    roundoff,
    sparse_weight_gradient,
)
from nnsparse.topology import Topology

ODD = dict(odd_topologies(np.random.default_rng(0)))
FORMATS = ["csr", "csc", "coo"]
DTYPES = [np.float32, np.float64]


class Problem:
    """One topology with values, activations and gradients, and its layout in one format."""

    def __init__(self, kind, topology, batch, dtype, seed=0):
        rng = np.random.default_rng(seed)
        n_out, n_in = topology.shape
        self.kind, self.topology, self.shape = kind, topology, topology.shape
        self.values = rng.standard_normal(topology.nnz).astype(dtype)
        self.x = rng.standard_normal((n_in, batch)).astype(dtype)
        self.dout = rng.standard_normal((n_out, batch)).astype(dtype)
        self.order = np.arange(topology.nnz)
        if kind == "coo":
            self.layout = topology.coo()
        elif kind == "csr":
            self.layout = topology.csr()
        else:
            *self.layout, self.order = topology.csc()
        self.data = self.values[self.order]

    def call(self, name, *arrays, **options):
        product = getattr(plain, f"{self.kind}_{name}")
        return product(self.shape, *self.layout, *arrays, **options)

    def forward(self, **options):
        return self.call("forward", self.data, self.x, **options)

    def input_gradient(self, **options):
        return self.call("input_gradient", self.data, self.dout, **options)

    def weight_gradient(self, **options):
        return self.call("weight_gradient", self.dout, self.x, **options)

    def all(self):
        return self.forward(), self.input_gradient(), self.weight_gradient()

    def check(self):
        dtype = self.values.dtype
        w = self.topology.to_dense(self.values)
        near = lambda *factors: {"rtol": 0, "atol": roundoff(*factors, dtype=dtype)}  # noqa: E731
        out, dx, dw = self.all()
        assert out.dtype == dx.dtype == dw.dtype == dtype
        twin = masked_forward(self.topology, self.values, self.x)
        np.testing.assert_allclose(out, twin, **near(w, self.x))
        twin = masked_input_gradient(self.topology, self.values, self.dout)
        np.testing.assert_allclose(dx, twin, **near(w.T, self.dout))
        twin = sparse_weight_gradient(self.topology, self.dout, self.x)[self.order]
        np.testing.assert_allclose(dw, twin, **near(self.dout, self.x.T))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ODD)
def test_the_three_products_match_their_twins_on_odd_topologies(name, kind, dtype):
    # The twins are dense: one small batch is enough where they are large.
    for batch in (1, 7, 130) if max(ODD[name].shape) < 2000 else (3,):
        Problem(kind, ODD[name], batch, dtype).check()


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 200),
    st.sampled_from(FORMATS),
    st.sampled_from(DTYPES),
)
def test_the_three_products_match_their_twins_on_any_topology(seed, batch, kind, dtype):
    topology = random_topology(np.random.default_rng(seed))
    Problem(kind, topology, batch, dtype, seed).check()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_products_take_scipy_matrices_as_they_are(kind):
    matrix = sparse.random(37, 53, 0.2, kind, np.float32, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((53, 9)).astype(np.float32)
    layout = (matrix.row, matrix.col) if kind == "coo" else (matrix.indptr, matrix.indices)
    out = getattr(plain, f"{kind}_forward")(matrix.shape, *layout, matrix.data, x)
    np.testing.assert_allclose(out, matrix @ x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_poisoned_output_is_written_in_full(kind):
    for topology in ODD.values():
        problem = Problem(kind, topology, 70 if max(topology.shape) < 2000 else 3, np.float32)
        for product in (problem.forward, problem.input_gradient, problem.weight_gradient):
            expected = product()
            out = np.full_like(expected, np.nan)
            assert product(out=out) is out
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_one_and_two_threads_give_the_same_bits(kind):
    problem = Problem(kind, Topology.random((83, 91), density=0.3, rng=0), 333, np.float32)
    before = jit.get_num_threads()
    try:
        jit.set_num_threads(1)
        alone = problem.all()
        jit.set_num_threads(2)
        together = problem.all()
    finally:
        jit.set_num_threads(before)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", FORMATS)
def test_nan_and_infinity_go_where_the_mathematics_sends_them(kind):
    problem = Problem(kind, Topology.full((3, 4)), 5, np.float32)
    problem.x[1, 2] = np.nan
    problem.x[0, 4] = np.inf
    out = problem.forward()
    assert np.isnan(out[:, 2]).all()
    assert np.isinf(out[:, 4]).all()
    assert np.isfinite(out[:, [0, 1, 3]]).all()
    assert np.isnan(problem.weight_gradient().reshape(-1)).any()


def test_duplicates_and_unsorted_indices_count_as_in_scipy():
    data, indices = np.array([1.0, 2, 4, 8]), np.array([2, 0, 2, 1])
    indptr, x = np.array([0, 3, 4]), np.arange(6.0).reshape(3, 2)
    out = plain.csr_forward((2, 3), indptr, indices, data, x)
    np.testing.assert_array_equal(out, [[20, 27], [16, 24]])
    out = plain.coo_forward((2, 3), np.array([0, 0, 0, 1]), indices, data, x)
    np.testing.assert_array_equal(out, [[20, 27], [16, 24]])


@pytest.mark.parametrize("kind", FORMATS)
def test_strided_fortran_and_read_only_inputs_give_the_same(kind):
    problem = Problem(kind, Topology.random((9, 11), density=0.4, rng=0), 6, np.float64)
    expected = problem.all()
    problem.x = np.asfortranarray(problem.x)
    problem.dout = np.repeat(problem.dout, 2, axis=1)[:, ::2]
    problem.data = np.repeat(problem.data, 3)[::3]
    problem.layout = [array.astype(np.uint8) for array in problem.layout]
    problem.x.flags.writeable = False
    for a, b in zip(problem.all(), expected, strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- refused


@pytest.fixture(params=FORMATS)
def small(request):
    return Problem(request.param, Topology.full((2, 3)), 4, np.float32)


def test_activations_of_the_wrong_shape_or_dtype_are_refused(small):
    x, dout = small.x, small.dout
    with pytest.raises(ValueError, match=r"x of shape \(3, batch\); got \(4, 3\).*Pass .T"):
        small.call("forward", small.data, x.T)
    with pytest.raises(ValueError, match=r"dout of shape \(2, batch\); got \(3, 4\)"):
        small.call("input_gradient", small.data, x)
    with pytest.raises(ValueError, match=r"x of shape \(3, batch\); got \(3,\)"):
        small.call("forward", small.data, x[:, 0])
    with pytest.raises(ValueError, match="one batch"):
        small.call("weight_gradient", dout[:, :2], x)
    with pytest.raises(TypeError, match="x float32 or float64; got int64"):
        small.call("forward", small.data, np.ones((3, 4), np.int64))
    with pytest.raises(TypeError, match="one dtype; got dout float32, x float64"):
        small.call("weight_gradient", dout, x.astype(np.float64))


def test_values_of_the_wrong_length_or_dtype_are_refused(small):
    with pytest.raises(ValueError, match=r"data of shape \(6,\); got \(5,\)"):
        small.call("forward", small.data[:5], small.x)
    with pytest.raises(TypeError, match="data of dtype float32; got float64"):
        small.call("forward", small.data.astype(np.float64), small.x)


def test_indices_out_of_range_or_of_the_wrong_dtype_are_refused(small):
    first, last = small.layout
    for bad in (7, -1):
        small.layout = [first, np.where(np.arange(6) == 3, bad, last)]
        with pytest.raises(ValueError, match=f"got .*{bad}"):
            small.forward()
    small.layout = [first, last.astype(np.float32)]
    with pytest.raises(TypeError, match="of an integer dtype; got float32"):
        small.forward()
    small.layout = [first, last.reshape(2, 3)]
    with pytest.raises(ValueError, match=r"of shape \(nnz,\); got \(2, 3\)"):
        small.forward()


def test_inconsistent_pointers_are_refused():
    indices, data, x = np.arange(3), np.ones(3), np.ones((3, 2))
    for indptr in ([0, 3], [1, 2, 3], [0, 1, 2], [0, 0, 0, 3]):
        with pytest.raises(ValueError, match="indptr of length 3 from 0 to nnz = 3"):
            plain.csr_forward((2, 3), np.array(indptr), indices, data, x)
    with pytest.raises(ValueError, match="never to fall"):
        plain.csr_forward((3, 3), np.array([0, 2, 1, 3]), indices, data, x)
    with pytest.raises(ValueError, match="rows and cols of one length; got 2 and 3"):
        plain.coo_forward((3, 3), indices[:2], indices, data, x)
    with pytest.raises(ValueError, match="two integers >= 0"):
        plain.csr_forward((2, -3), np.array([0, 2, 3]), indices, data, x)


def test_an_output_that_cannot_be_written_is_refused(small):
    with pytest.raises(ValueError, match=r"of shape \(2, 4\); got shape \(4, 2\)"):
        small.forward(out=np.empty((4, 2), np.float32))
    with pytest.raises(ValueError, match="C-contiguous"):
        small.forward(out=np.empty((2, 4), np.float32, order="F"))
    with pytest.raises(TypeError, match="out of dtype float32; got float64"):
        small.forward(out=np.empty((2, 4)))
    locked = np.empty((2, 4), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="writeable=False"):
        small.forward(out=locked)
    with pytest.raises(ValueError, match="overlapping memory"):
        small.forward(out=small.x[:2])
