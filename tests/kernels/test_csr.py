"""Sparse mini-batches: gathered, scaled and sorted by column, and their products, against SciPy in float64."""

import numpy as np
import pytest
from scipy import sparse

from nnsparse import jit
from nnsparse.kernels import csr
from nnsparse.ops import sparse_products
from nnsparse.ops.sparse_batch import Tokens, scaled, to_csr
from nnsparse.parameter import SparseParameter
from nnsparse.plan import plan_of
from nnsparse.rows import Rows, SparseRows
from nnsparse.testing import from_tiles_reference, odd_topologies, roundoff, to_tiles_reference
from nnsparse.tiles import aligned
from nnsparse.topology import Topology

ODD = {n: t for n, t in odd_topologies(np.random.default_rng(0)) if 0 not in t.shape}
DTYPES = [np.float32, np.float64]
# (batch, n_in, n_out, density of x, lanes)
SHAPES = [
    (1, 1, 1, 1.0, 16),
    (1, 40, 3, 0.2, 16),
    (5, 33, 17, 0.3, 5),
    (16, 16, 16, 0.5, 16),
    (37, 70, 35, 0.1, 16),
    (70, 300, 64, 0.05, 64),
    (100, 513, 100, 0.02, 100),
    (65, 1000, 130, 0.01, 64),
    (20, 50, 20, 0.0, 32),
    (40, 31, 48, 1.0, 32),
]


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    before = jit.get_num_threads()
    jit.set_num_threads(request.param)
    yield request.param
    jit.set_num_threads(before)


def sparse_rows(rng, batch, n_in, density):
    """Return a random CSR matrix with some empty rows and columns."""
    x = sparse.random(batch, n_in, density, format="csr", rng=rng).toarray()
    x[rng.random(batch) < 0.2] = 0
    x[:, rng.random(n_in) < 0.3] = 0
    if density:
        x[0, 0] = 1
    return sparse.csr_array(x)


def batch_of(x, lanes, dtype):
    return to_csr(SparseRows(x), lanes, np.dtype(dtype))


def plain(out, batch):
    """Return tiles as (batch, n) after checking that padded lanes are zero."""
    n_tiles, _, lanes = out.shape
    everything = from_tiles_reference(out, n_tiles * lanes)
    assert not everything[batch:].any()
    return everything[:batch]


def tiled(d, lanes):
    return aligned(to_tiles_reference(d, lanes))


# ---------------------------------------------------------------- mini-batches


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_rows_are_gathered_in_the_order_of_the_index_and_converted(source, dtype):
    rng = np.random.default_rng(0)
    x = sparse_rows(rng, 30, 50, 0.2).astype(source)
    index = rng.integers(0, 30, 41)
    found = to_csr(SparseRows(x, index), 16, np.dtype(dtype))
    assert found.dtype == dtype
    assert found.shape == (41, 50)
    np.testing.assert_array_equal(found.numpy(), x.toarray()[index].astype(dtype))
    np.testing.assert_array_equal(
        found.to_tiles(), to_tiles_reference(x.toarray()[index].astype(dtype), 16)
    )


def test_a_float64_value_beyond_float32_becomes_infinite_without_a_warning():
    found = batch_of(sparse.csr_array([[1e300, -1e300]]), 16, np.float32)
    np.testing.assert_array_equal(found.values, [np.inf, -np.inf])


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, ">i4"])
@pytest.mark.parametrize("padding", [-1, 0, 7])
@pytest.mark.parametrize("mean", [False, True])
def test_tokens_become_rows_without_the_padding(kind, padding, mean):
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 9, (20, 13)).astype(kind)
    tokens[3] = 0
    index = np.array([5, 3, 3, 19])
    bags = Tokens(Rows(tokens, index), np.dtype(np.float32), 16).bags(9, padding, mean)
    expected = np.zeros((4, 9))
    for row, sample in zip(expected, tokens[index], strict=True):
        kept = sample[sample != padding]
        np.add.at(row, kept, 1 / max(1, len(kept)) if mean else 1)
    np.testing.assert_allclose(bags.numpy(), expected, rtol=1e-6)
    assert not (bags.indices == padding).any()


@pytest.mark.parametrize(("token", "place"), [(9, (2, 4)), (-1, (0, 0)), (2**40, (1, 3))])
def test_a_token_that_is_none_is_named_with_its_place(token, place):
    tokens = np.zeros((3, 5), np.int64)
    tokens[place] = token
    rows = Rows(tokens, [0, 1, 2])
    with pytest.raises(
        ValueError, match=rf"got {token} in sample {place[0]} at position {place[1]}"
    ):
        Tokens(rows, np.dtype(np.float32), 16).bags(9, 0, mean=True)


@pytest.mark.parametrize("padding", [-1, 4])
@pytest.mark.parametrize("mean", [False, True])
def test_counts_are_divided_by_their_sum_without_the_padding(padding, mean):
    x = sparse_rows(np.random.default_rng(2), 20, 12, 0.4)
    found = scaled(batch_of(x, 16, np.float64), padding, mean).numpy()
    expected = x.toarray()
    if padding >= 0:
        expected[:, padding] = 0
    if mean:
        total = expected.sum(axis=1, keepdims=True)
        expected = np.divide(expected, total, out=np.zeros_like(expected), where=total != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_entries_are_sorted_by_column_and_then_by_sample(shape):
    batch, n_in, _, density, lanes = shape
    x = sparse_rows(np.random.default_rng(3), batch, n_in, density)
    found = batch_of(x, lanes, np.float64)
    columns = found.by_column(compact=True)
    csc = x.tocsc()
    counts = np.diff(csc.indptr)
    np.testing.assert_array_equal(columns.used, np.flatnonzero(counts))
    np.testing.assert_array_equal(np.diff(columns.starts), counts[counts > 0])
    np.testing.assert_array_equal(columns.samples[: x.nnz], csc.indices)
    np.testing.assert_array_equal(columns.weights[: x.nnz], csc.data)
    np.testing.assert_array_equal(columns.used[columns.compact[: x.nnz]], found.indices)
    bounds = columns.shared(7)
    assert bounds[0] == 0
    assert bounds[-1] == columns.used.size
    assert (np.diff(bounds) >= 0).all()


def test_repeated_columns_stay_separate_entries():
    found = SparseRows.ragged([2, 2, 1, 2], [0, 3, 3], 4)
    columns = to_csr(found, 16, np.dtype(np.float32)).by_column()
    np.testing.assert_array_equal(columns.used, [1, 2])
    np.testing.assert_array_equal(columns.samples[:4], [0, 0, 0, 2])


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dense_weights_times_sparse_rows(shape, dtype, rectify, threads):
    batch, n_in, n_out, density, lanes = shape
    rng = np.random.default_rng(4)
    x = sparse_rows(rng, batch, n_in, density)
    w = rng.standard_normal((n_out, n_in)).astype(dtype)
    bias = rng.standard_normal(n_out).astype(dtype)
    found = batch_of(x, lanes, dtype)
    out = plain(sparse_products.dense_forward(w.reshape(-1), found, bias, rectify), batch)
    expected = found.numpy().astype(np.float64) @ w.T.astype(np.float64) + bias
    if rectify:
        expected = np.maximum(expected, 0)
    atol = roundoff(found.numpy(), w.T, dtype=dtype) + 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_of_dense_weights(shape, dtype, threads):
    batch, n_in, n_out, density, lanes = shape
    rng = np.random.default_rng(5)
    found = batch_of(sparse_rows(rng, batch, n_in, density), lanes, dtype)
    d = rng.standard_normal((batch, n_out)).astype(dtype)
    out = sparse_products.dense_gradient(tiled(d, lanes), found).reshape(n_out, n_in)
    expected = d.T.astype(np.float64) @ found.numpy()
    atol = roundoff(d.T, found.numpy(), dtype=dtype)
    np.testing.assert_allclose(out, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ODD)
def test_both_products_of_any_topology(name, dtype, threads):
    topology = ODD[name]
    n_out, n_in = topology.shape
    rng = np.random.default_rng(6)
    for batch, density, rectify in ((1, 1.0, False), (37, 0.2, True), (16, 0.0, False)):
        x = sparse_rows(rng, batch, n_in, density if n_in < 2000 else density / 100)
        found = batch_of(x, 16, dtype)
        weight = SparseParameter(topology, rng.standard_normal(topology.nnz).astype(dtype))
        bias = rng.standard_normal(n_out).astype(dtype)
        dense_x, w = found.numpy(), weight.to_scipy()
        out = sparse_products.sparse_forward(topology, weight.data, found, bias, rectify)
        expected = (w @ dense_x.T.astype(np.float64)).T + bias
        if rectify:
            expected = np.maximum(expected, 0)
        atol = (topology.row_counts().max(initial=0) + 4) * np.finfo(dtype).eps * 20
        np.testing.assert_allclose(plain(out, batch), expected, rtol=1e-5, atol=atol)
        d = rng.standard_normal((batch, n_out)).astype(dtype)
        gradient = sparse_products.sparse_gradient(topology, tiled(d, 16), found)
        rows, columns = topology.coo()
        expected = (d[:, rows].astype(np.float64) * dense_x[:, columns]).sum(axis=0)
        atol = (batch + 4) * np.finfo(dtype).eps * 20
        np.testing.assert_allclose(weight.canonical(gradient), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_products_of_a_table(shape, dtype, threads):
    batch, n_in, n_out, density, lanes = shape
    rng = np.random.default_rng(7)
    found = batch_of(sparse_rows(rng, batch, n_in, density), lanes, dtype)
    table = sparse_products.Table(n_in, n_out)
    w = rng.standard_normal((n_in, n_out)).astype(dtype)
    out = plain(table.forward_csr(w, found, None, False), batch)
    expected = found.numpy().astype(np.float64) @ w
    np.testing.assert_allclose(out, expected, rtol=0, atol=roundoff(found.numpy(), w, dtype=dtype))
    d = rng.standard_normal((batch, n_out)).astype(dtype)
    gradient = table.row_gradient(tiled(d, lanes), found)
    expected = found.numpy().T.astype(np.float64) @ d
    atol = roundoff(found.numpy().T, d, dtype=dtype)
    np.testing.assert_allclose(np.asarray(gradient), expected, rtol=0, atol=atol)
    np.testing.assert_array_equal(gradient.rows, np.flatnonzero(found.numpy().any(axis=0)))
    np.testing.assert_array_equal(table.gradient_csr(tiled(d, lanes), found), gradient)


def test_all_products_give_the_same_bits_on_one_and_two_threads():
    rng = np.random.default_rng(8)
    x = sparse_rows(rng, 200, 700, 0.05)
    topology = Topology.random((150, 700), density=0.1, rng=rng)
    plan_of(topology)
    w = rng.standard_normal((150, 700)).astype(np.float32)
    d = tiled(rng.standard_normal((200, 150)).astype(np.float32), 64)
    values, bias = rng.standard_normal(topology.nnz).astype(np.float32), np.zeros(150, np.float32)
    table = sparse_products.Table(700, 150)
    results = []
    for n in (1, 2):
        jit.set_num_threads(n)
        found = batch_of(x, 64, np.float32)
        results.append(
            [
                np.array(a)
                for a in (
                    sparse_products.dense_forward(w.reshape(-1), found, bias, True),
                    sparse_products.dense_gradient(d, found),
                    sparse_products.sparse_forward(topology, values, found, bias, True),
                    sparse_products.sparse_gradient(topology, d, found),
                    table.forward_csr(w.reshape(700, 150), found, None, False),
                    table.row_gradient(d, found).values,
                )
            ]
        )
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_sample(bad):
    x = np.zeros((20, 30), np.float32)
    x[3, 5] = bad
    x[:, 6] = 1
    found = batch_of(sparse.csr_array(x), 16, np.float32)
    w, bias = np.ones((17, 30), np.float32), np.zeros(17, np.float32)
    out = plain(sparse_products.dense_forward(w.reshape(-1), found, bias, True), 20)
    assert not np.isfinite(out[3]).any()
    np.testing.assert_array_equal(np.delete(out, 3, axis=0), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 64])
def test_a_step_on_some_rows_is_that_on_the_whole_gradient_bit_for_bit(width, dtype):
    from nnsparse.kernels.optimizer import sgd

    rng = np.random.default_rng(9)
    p = rng.standard_normal((500, width)).astype(dtype)
    rows = np.flatnonzero(rng.random(500) < 0.3)
    values = rng.standard_normal((rows.size, width)).astype(dtype)
    whole = np.zeros_like(p)
    whole[rows] = values
    expected = p.copy()
    sgd(expected.reshape(-1), whole.reshape(-1), whole.reshape(-1), 0.1, 0.0, 0.0, 0.0, False, True)
    csr.sgd_rows(p.reshape(-1), rows, values, 0.1)
    np.testing.assert_array_equal(p, expected)
