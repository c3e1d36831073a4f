"""The affine layers: three ways to the same function, and what they refuse."""

import copy
import pickle

import numpy as np
import pytest
from scipy import sparse

from nnsparse import nn
from nnsparse.autograd import Tensor, tensor
from nnsparse.data import Rows
from nnsparse.plan import plans_built
from nnsparse.testing import odd_topologies
from nnsparse.topology import Topology

RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, 30)).astype(np.float32)
ODD = {n: t for n, t in odd_topologies(np.random.default_rng(0)) if 0 not in t.shape}


def weight_of(layer):
    weight = layer.weight
    return weight.to_dense() if isinstance(layer, nn.SparseLinear) else weight.data


def affine(layer, x):
    bias = 0 if layer.bias is None else layer.bias.data.astype(np.float64)
    return np.asarray(x, np.float64) @ weight_of(layer).T.astype(np.float64) + bias


MAKERS = {
    "sparse": lambda *a, **k: nn.SparseLinear(*a, sparsity=0.7, **k),
    "dense": nn.Linear,
    "numpy": nn.NumpyLinear,
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_layer_computes_x_times_its_weight_plus_bias(kind, bias):
    layer = MAKERS[kind](30, 20, bias, rng=0)
    if bias:
        layer.bias.data[:] = np.arange(20)
    out = layer(X)
    assert out.shape == (10, 20)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.numpy(), affine(layer, X), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", MAKERS)
def test_backward_fills_the_gradients_of_weight_and_bias(kind):
    layer = MAKERS[kind](30, 20, rng=0)
    d = RNG.standard_normal((10, 20)).astype(np.float32)
    layer(X).backward(d)
    expected = d.T.astype(np.float64) @ X
    gradient = layer.weight.grad
    if kind == "sparse":
        gradient = layer.weight.canonical(gradient)
        expected = expected[layer.weight.topology.coo()]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(layer.bias.grad, d.sum(axis=0), rtol=0, atol=1e-4)
    layer.zero_grad()
    assert layer.weight.grad is None
    assert layer.bias.grad is None


@pytest.mark.parametrize("kind", MAKERS)
def test_the_seed_decides_the_weights(kind):
    a, b, c = (MAKERS[kind](30, 20, rng=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(weight_of(a), weight_of(b))
    assert (weight_of(a) != weight_of(c)).any()


@pytest.mark.parametrize("kind", MAKERS)
def test_float64_layers_compute_in_float64(kind):
    layer = MAKERS[kind](30, 20, dtype=np.float64, rng=0)
    out = layer(X)
    assert out.dtype == layer.dtype == layer.bias.dtype == np.float64
    np.testing.assert_allclose(out.numpy(), affine(layer, X), rtol=0, atol=1e-12)


def test_initial_weights_have_the_variance_of_the_actual_fan_in():
    mask = np.random.default_rng(0).random((400, 1000)) < np.linspace(0.05, 1, 400)[:, None]
    layer = nn.SparseLinear(1000, 400, topology=Topology.from_dense(mask), rng=0)
    fan_in = mask.sum(axis=1)
    w = layer.weight.to_dense().astype(np.float64)
    scaled = w[mask] * np.sqrt(np.repeat(fan_in, fan_in) / 2)
    # About 200 000 values, uniform with variance 1: the sample variance is within 0.6 % or so.
    np.testing.assert_allclose(scaled.var(), 1, rtol=0.02)
    assert abs(scaled.mean()) < 0.01
    assert (np.abs(w) <= np.sqrt(6 / fan_in)[:, None] * (1 + 1e-6)).all()
    dense = nn.Linear(1000, 400, rng=0).weight.data
    np.testing.assert_allclose(dense.var() * 1000 / 2, 1, rtol=0.02)


# ---------------------------------------------------------------- sparse layers


@pytest.mark.parametrize("name", ODD)
def test_a_layer_of_any_topology_agrees_with_its_dense_copy(name):
    topology = ODD[name]
    n_out, n_in = topology.shape
    layer = nn.SparseLinear(n_in, n_out, topology=topology, rng=0)
    layer.bias.data[:] = np.arange(n_out)
    x = RNG.standard_normal((3, n_in)).astype(np.float32)
    twin = layer.to_dense()
    a, b = layer(x), twin(x)
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)
    d = RNG.standard_normal((3, n_out)).astype(np.float32)
    a.backward(d)
    b.backward(d)
    gradient = layer.weight.canonical(layer.weight.grad)
    np.testing.assert_allclose(gradient, twin.weight.grad[topology.coo()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", [{"sparsity": 0.75}, {"density": 0.25}])
def test_sparsity_and_density_give_the_exact_number_of_weights(how):
    layer = nn.SparseLinear(30, 20, **how, rng=0)
    assert layer.nnz == 150 == layer.weight.size
    assert layer.sparsity == 0.75
    assert repr(layer) == "SparseLinear(30 -> 20, nnz=150, sparsity=0.75)"


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_a_layer_may_be_full_or_empty(sparsity):
    layer = nn.SparseLinear(30, 20, sparsity=sparsity, rng=0)
    out = layer(X)
    np.testing.assert_allclose(out.numpy(), affine(layer, X), rtol=0, atol=1e-4)
    out.backward(np.ones(out.shape))
    assert layer.weight.grad.shape == (600 * (1 - sparsity),)


def test_layers_go_to_scipy_and_back():
    layer = nn.SparseLinear(30, 20, sparsity=0.7, rng=0)
    matrix = layer.to_scipy()
    assert matrix.shape == (20, 30)
    assert matrix.format == "csr"
    again = nn.SparseLinear.from_scipy(matrix, layer.bias.data)
    assert again.weight.topology == layer.weight.topology
    np.testing.assert_array_equal(again(X).numpy(), layer(X).numpy())
    np.testing.assert_allclose((matrix @ X.T).T, layer(X).numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
def test_any_scipy_format_is_taken(form):
    matrix = sparse.random(20, 30, 0.3, rng=np.random.default_rng(0)).asformat(form)
    layer = nn.SparseLinear.from_scipy(matrix)
    assert layer.dtype == np.float64
    assert layer.bias is None
    np.testing.assert_array_equal(layer.weight.to_dense(), matrix.toarray())


def test_stored_zeros_of_a_scipy_matrix_stay_weights_and_duplicates_are_added():
    rows, columns, values = [0, 0, 1], [1, 1, 2], np.array([1, 2, 0], np.int32)
    layer = nn.SparseLinear.from_scipy(sparse.coo_array((values, (rows, columns)), (2, 3)))
    assert layer.nnz == 2
    assert layer.dtype == np.float32
    np.testing.assert_array_equal(layer.weight.to_dense(), [[0, 3, 0], [0, 0, 0]])


@pytest.mark.parametrize("dense", [nn.Linear, nn.NumpyLinear])
def test_a_dense_layer_gives_a_sparse_one_by_its_zeros_or_by_a_mask(dense):
    layer = dense(30, 20, rng=0)
    layer.bias.data[:] = 1
    mask = np.random.default_rng(1).random((20, 30)) < 0.2
    masked = nn.SparseLinear.from_dense(layer, mask)
    np.testing.assert_array_equal(masked.weight.to_dense(), layer.weight.data * mask)
    np.testing.assert_array_equal(masked.bias.data, 1)
    layer.weight.data *= mask
    by_zeros = nn.SparseLinear.from_dense(layer)
    assert by_zeros.weight.topology == masked.weight.topology
    np.testing.assert_allclose(by_zeros(X).numpy(), layer(X).numpy(), rtol=0, atol=1e-4)
    layer.weight.data[...] = 0
    assert masked.weight.data.all()  # a copy


def test_a_dense_copy_of_a_layer_without_bias_has_none():
    assert nn.SparseLinear(3, 2, False, density=1, rng=0).to_dense().bias is None


def test_moving_the_weight_moves_the_layer():
    layer = nn.SparseLinear(30, 20, sparsity=0.7, rng=0)
    layer(X)
    layer.weight.move_to(Topology.random((20, 30), density=0.5, rng=9), fill=0.1)
    assert layer.nnz == 300
    np.testing.assert_allclose(layer(X).numpy(), affine(layer, X), rtol=0, atol=1e-4)


def test_many_steps_build_one_plan():
    before = plans_built()
    layer = nn.SparseLinear(30, 20, sparsity=0.7, rng=0)
    for _ in range(5):
        layer(X).backward(np.ones((10, 20)))
        layer.weight.data -= 0.1 * layer.weight.grad
    assert plans_built() == before + 1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_copied_layer_computes_the_same_and_shares_nothing(kind, duplicate):
    layer = MAKERS[kind](30, 20, rng=0)
    expected = layer(X).numpy()
    again = duplicate(layer)
    np.testing.assert_array_equal(again(X).numpy(), expected)
    again.weight.data[...] = 0
    np.testing.assert_array_equal(layer(X).numpy(), expected)


def test_copying_a_layer_builds_no_plan():
    layer = nn.SparseLinear(30, 20, sparsity=0.7, rng=0)
    layer(X)
    before = plans_built()
    copy.deepcopy(layer)(X)
    assert plans_built() == before
    assert len(pickle.dumps(layer)) < 4 * layer.nnz + 2 * layer.nnz + 2500


# ---------------------------------------------------------------- what comes in


def test_a_tensor_that_needs_a_gradient_gets_it_in_its_own_shape():
    layer = nn.SparseLinear(30, 20, sparsity=0.7, rng=0)
    x = tensor(X, requires_grad=True)
    d = RNG.standard_normal((10, 20)).astype(np.float32)
    layer(x).backward(d)
    assert x.grad.shape == X.shape
    np.testing.assert_allclose(x.grad, d @ layer.weight.to_dense(), rtol=0, atol=1e-4)


def test_arrays_lists_rows_and_tensors_give_the_same():
    layer = nn.SparseLinear(30, 20, sparsity=0.7, rng=0)
    expected = layer(X).numpy()
    for x in (X.tolist(), Rows(X), tensor(X), Tensor(X.astype(np.float64)), [*X]):
        np.testing.assert_array_equal(layer(x).numpy(), expected)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "in_features"),
        ((5, 0), "out_features"),
        ((-1, 5), "in_features"),
        ((2.5, 5), "2.5"),
        ((True, 5), "True"),
        ((5, "3"), "'3'"),
    ],
)
def test_sizes_below_one_or_no_integers_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=f"to be an integer >= 1; got.*|{message}"):
        MAKERS[kind](*arguments)


@pytest.mark.parametrize("kind", MAKERS)
def test_other_dtypes_are_refused(kind):
    with pytest.raises(TypeError, match="float32 or float64; got float16"):
        MAKERS[kind](3, 2, dtype=np.float16)


T = Topology.full((2, 3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "exactly one of sparsity, density and topology; got none"),
        ({"sparsity": 0.5, "density": 0.5}, TypeError, "got sparsity and density"),
        ({"sparsity": 0.5, "topology": T}, TypeError, "got sparsity and topology"),
        ({"sparsity": -0.1}, ValueError, r"sparsity.*\[0, 1\]"),
        ({"sparsity": 1.5}, ValueError, r"sparsity.*\[0, 1\]"),
        ({"density": np.nan}, ValueError, r"density.*\[0, 1\]"),
        ({"sparsity": 95}, ValueError, r"\[0, 1\]"),
        ({"topology": T.T}, ValueError, r"\(out, in\) = \(2, 3\); got \(3, 2\)"),
        ({"topology": np.ones((2, 3))}, TypeError, "expects a Topology; got ndarray"),
    ],
)
def test_a_sparse_layer_refuses_what_makes_no_topology(options, error, message):
    with pytest.raises(error, match=message):
        nn.SparseLinear(3, 2, **options)


def test_bad_conversions_are_refused():
    with pytest.raises(TypeError, match="expects Linear or NumpyLinear; got SparseLinear"):
        nn.SparseLinear.from_dense(nn.SparseLinear(3, 2, density=1))
    with pytest.raises(ValueError, match=r"mask of shape \(2, 3\).*got \(3, 2\)"):
        nn.SparseLinear.from_dense(nn.Linear(3, 2), np.ones((3, 2)))
    with pytest.raises(TypeError, match="SciPy sparse matrix; got ndarray"):
        nn.SparseLinear.from_scipy(np.eye(3))
    with pytest.raises(ValueError, match=r"bias of shape \(3,\); got \(2,\)"):
        nn.SparseLinear.from_scipy(sparse.eye_array(3), np.zeros(2))
