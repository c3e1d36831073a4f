"""Whole networks from and to SciPy matrices."""

import numpy as np
import pytest
from scipy import sparse

from nnsparse import Topology, interchange, nn

RNG = np.random.default_rng(0)


def matrix(n_out, n_in, density=0.4, dtype=np.float32):
    dense = RNG.standard_normal((n_out, n_in)) * (RNG.random((n_out, n_in)) < density)
    return sparse.csr_matrix(dense.astype(dtype))


X = RNG.standard_normal((5, 6)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_computes_what_its_matrices_say(dtype):
    first, second = matrix(8, 6, dtype=dtype), matrix(3, 8, dtype=dtype)
    b = np.arange(8, dtype=dtype)
    model = interchange.from_scipy([(first, b), second])
    expected = np.maximum(X @ first.T.toarray() + b, 0) @ second.T.toarray()
    assert model.dtype == dtype
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("family", ["matrix", "array"])
def test_every_format_of_scipy_is_taken(kind, family):
    dense = matrix(4, 6).toarray()
    made = getattr(sparse, f"{kind}_{family}")(dense)
    (back, bias), *rest = interchange.to_scipy(interchange.from_scipy([made]))
    assert bias is None
    assert not rest
    np.testing.assert_array_equal(back.toarray(), dense)


def test_there_and_back_keeps_every_bit_and_every_stored_zero():
    first, second = matrix(8, 6), matrix(3, 8)
    first.data[::3] = 0
    b = RNG.standard_normal(8).astype(np.float32)
    back = interchange.to_scipy(interchange.from_scipy([(first, b), (second, None)]))
    for (got, bias), (want, want_bias) in zip(back, [(first, b), (second, None)], strict=True):
        np.testing.assert_array_equal(got.indptr, want.indptr)
        np.testing.assert_array_equal(got.indices, want.indices)
        np.testing.assert_array_equal(got.data, want.data)
        assert bias is want_bias or np.array_equal(bias, want_bias)


def test_what_comes_back_is_a_copy():
    model = interchange.from_scipy([(matrix(4, 6), np.ones(4))])
    (back, bias), *_ = interchange.to_scipy(model)
    before = model.predict(X)
    back.data[:], bias[:] = 7, 7
    np.testing.assert_array_equal(model.predict(X), before)


def test_the_activation_stands_between_two_layers_and_only_there():
    pair = [matrix(8, 6), matrix(3, 8)]
    kinds = [type(m) for m in interchange.from_scipy(pair, activation=lambda: nn.LeakyReLU(0.1))]
    assert kinds == [nn.SparseLinear, nn.LeakyReLU, nn.SparseLinear]
    assert len(interchange.from_scipy(pair, activation=None)) == 2


def test_dense_layers_give_their_weights_that_are_not_zero():
    layer = nn.Linear(6, 4, rng=0)
    layer.weight.data[1:3] = 0
    for kind in (nn.Sequential(layer), layer):
        (back, bias), *_ = interchange.to_scipy(kind)
        assert back.nnz == 12
        np.testing.assert_array_equal(back.toarray(), layer.weight.data)
        np.testing.assert_array_equal(bias, layer.bias.data)


def test_nested_networks_give_their_layers_in_order():
    inner = nn.Sequential(nn.SparseLinear(8, 5, density=0.5, rng=0), nn.Tanh())
    model = nn.Sequential(nn.Linear(6, 8, rng=0), nn.ReLU(), inner, nn.Linear(5, 2, bias=False))
    assert [m.shape for m, _ in interchange.to_scipy(model)] == [(8, 6), (5, 8), (2, 5)]


def test_a_wide_layer_is_never_made_dense():
    wide = 3_000_000
    rows, columns = np.arange(50), np.arange(50) * 1000
    made = sparse.coo_matrix((np.ones(50, np.float32), (rows, columns)), (wide, wide))
    (back, _), *_ = interchange.to_scipy(interchange.from_scipy([made]))
    assert back.nnz == 50


BAD_LISTS = {
    "one matrix": (
        matrix(4, 6),
        TypeError,
        r"a list of sparse matrices or of pairs.*Use nn.SparseLinear",
    ),
    "nothing": ([], ValueError, "at least one matrix; got an empty list"),
    "no list": (7, TypeError, "expects a list of sparse matrices.*got int"),
    "a dense array": (
        [matrix(4, 6), np.ones((3, 4))],
        TypeError,
        "layer 1: from_scipy expects a SciPy",
    ),
    "a triple": ([(matrix(4, 6), None, None)], TypeError, "layer 0: .*got tuple"),
    "sizes that do not fit": (
        [matrix(8, 6), matrix(8, 3)],
        ValueError,
        r"layer 1 takes 3 features, but layer 0 gives 8.*\(out_features, in_features\); transposed\?",
    ),
    "mixed dtypes": (
        [matrix(8, 6), matrix(3, 8, dtype=np.float64)],
        TypeError,
        "layer 1 is float64, layer 0 float32. Give all matrices the same dtype",
    ),
    "complex numbers": ([matrix(4, 6) * 1j], TypeError, "layer 0: .*real numbers; got dtype c"),
    "a short bias": (
        [(matrix(4, 6), np.ones(3))],
        ValueError,
        r"layer 0: expected a bias of shape \(4,\)",
    ),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_are_refused(name):
    layers, error, message = BAD_LISTS[name]
    with pytest.raises(error, match=message):
        interchange.from_scipy(layers)


def test_an_index_out_of_range_is_refused_before_scipy_follows_it():
    broken = matrix(4, 6)
    broken.indices[0] = 600
    with pytest.raises(ValueError, match="layer 0: the SciPy matrix is inconsistent"):
        interchange.from_scipy([broken])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (7, "expects a Module; got int"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
            r"cannot take layer 1 \(BatchNorm1d\).*Use state_dict",
        ),
        (nn.Sequential(nn.EmbeddingBag(5, 3)), r"cannot take layer 0 \(EmbeddingBag\)"),
    ],
)
def test_what_matrices_cannot_hold_is_refused(model, message):
    with pytest.raises(TypeError, match=message):
        interchange.to_scipy(model)


def test_weights_hidden_from_the_forward_pass_are_zero():
    layer = nn.SparseLinear(6, 4, topology=Topology.full((4, 6)), rng=0)
    layer.weight.buffers["forward"] = np.zeros(24, np.float32)
    (back, _), *_ = interchange.to_scipy(layer)
    assert not back.toarray().any()
