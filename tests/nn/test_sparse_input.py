"""SciPy matrices fed to a model: the same outputs and gradients as of the dense array, and nothing densified."""

import copy
import threading
import tracemalloc

import numpy as np
import pytest
from scipy import sparse

import nnsparse as ns
from nnsparse import nn, optim, sparsify, train
from nnsparse.autograd import Tensor
from nnsparse.data import DataLoader, Rows, SparseRows
from nnsparse.ops.sparse_batch import to_csr
from nnsparse.ops.sparse_input import spmm_csr
from nnsparse.ops.sparse_products import known_column_view
from nnsparse.parameter import FORWARD
from nnsparse.sparsify import Sparsifier, saliency
from nnsparse.sparsify.context import Context, targets
from nnsparse.tiles import pool

RNG = np.random.default_rng(0)
BATCH, N_IN = 45, 60
DENSE = np.where(RNG.random((BATCH, N_IN)) < 0.1, RNG.standard_normal((BATCH, N_IN)), 0)
DENSE[3] = 0
DENSE[:, 7] = 0
X = sparse.csr_array(DENSE)
Y = RNG.integers(0, 3, BATCH)

FIRST = {
    "sparse": lambda **k: nn.SparseLinear(N_IN, 20, sparsity=0.8, rng=0, **k),
    "full": lambda **k: nn.SparseLinear(N_IN, 20, sparsity=0.0, rng=0, **k),
    "dense": lambda **k: nn.Linear(N_IN, 20, rng=0, **k),
    "numpy": lambda **k: nn.NumpyLinear(N_IN, 20, rng=0, **k),
}
kinds = pytest.mark.parametrize("kind", FIRST)


def network(kind, dtype=np.float32, last=nn.Linear):
    if kind == "numpy":
        last = nn.NumpyLinear
    return nn.Sequential(FIRST[kind](dtype=dtype), nn.ReLU(), last(20, 3, rng=1, dtype=dtype))


def step(model, x, y=Y):
    """Return loss and gradients of one mini-batch."""
    model.zero_grad()
    loss = nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    return loss.item(), [np.asarray(p.grad) for p in model.parameters()]


def close(a, b, dtype=np.float32):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6 if dtype == np.float32 else 1e-12)


# ---------------------------------------------------------------- equal to the dense array


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@kinds
def test_outputs_and_gradients_are_those_of_the_dense_array(kind, dtype):
    model = network(kind, dtype)
    model[0].bias.data[:] = RNG.standard_normal(20)
    assert model(X).dtype == dtype
    close(model(X).numpy(), model(DENSE).numpy(), dtype)
    loss, gradients = step(model, X)
    expected_loss, expected = step(model, DENSE)
    close(loss, expected_loss, dtype)
    for found, other in zip(gradients, expected, strict=True):
        close(found, other, dtype)


@kinds
def test_a_single_layer_takes_sparse_rows_with_and_without_a_bias(kind):
    for bias in (True, False):
        layer = FIRST[kind](bias=bias)
        close(layer(X).numpy(), layer(DENSE).numpy())
        d = RNG.standard_normal((BATCH, 20)).astype(np.float32)
        layer(X).backward(d)
        found = layer.weight.grad
        layer.zero_grad()
        layer(DENSE).backward(d)
        close(found, layer.weight.grad)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@kinds
def test_predictions_do_not_depend_on_the_batch_size(kind, batch_size):
    model = network(kind)
    close(model.predict(X, batch_size), model.predict(DENSE))


@pytest.mark.parametrize("form", ["csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("family", [sparse.csr_array, sparse.csr_matrix])
def test_any_scipy_format_is_taken(form, family):
    model = network("dense")
    close(model(family(DENSE).asformat(form)).numpy(), model(DENSE).numpy())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_, np.float64])
def test_other_numbers_are_converted(dtype):
    counts = np.abs(np.round(2 * DENSE)).astype(dtype)
    model = network("dense")
    close(model(sparse.csr_array(counts)).numpy(), model(counts).numpy())


def test_the_samples_of_a_batch_do_not_depend_on_each_other():
    model = network("sparse")
    whole = model.predict(X)
    for i in (0, 3, 44):
        close(model.predict(X[[i]]), whole[[i]])


def test_second_derivatives_are_right_for_each_kind_of_weight():
    x = to_csr(SparseRows(X[:6, :9]), 16, np.dtype(np.float64))
    for kind in FIRST:
        layer = {
            "sparse": nn.SparseLinear(9, 4, sparsity=0.5, rng=0),
            "full": nn.SparseLinear(9, 4, sparsity=0.0, rng=0),
            "dense": nn.Linear(9, 4, rng=0),
            "numpy": nn.NumpyLinear(9, 4, rng=0),
        }[kind]
        structure = layer.structure
        w = RNG.standard_normal(structure.weight_shape)
        b = RNG.standard_normal(4)

        def squared(w, b, structure=structure):
            y = spmm_csr(w, x, structure, b)
            return y * y * y

        ns.check_gradients(squared, w, b, order=2)
        ns.check_gradients(
            lambda w, b, s=structure: spmm_csr(w, x, s, b, rectify=True), w, b, order=1
        )


@kinds
def test_gradients_of_gradients_are_those_of_the_dense_array(kind):
    model = network(kind, np.float64)

    def hessian_vector(x):
        params = list(model.parameters())
        loss = nn.CrossEntropyLoss()(model(x), Y)
        first = ns.grad(loss, params, create_graph=True)
        total = sum((g * g).sum() for g in first)
        return ns.grad(total, params)

    for found, expected in zip(hessian_vector(X), hessian_vector(DENSE), strict=True):
        close(found, expected, np.float64)


@kinds
def test_forward_mode_gives_the_slope_of_the_gradient(kind):
    model = network(kind, np.float64)
    params = list(model.parameters())
    tangents = [RNG.standard_normal(p.data.shape) for p in params]
    value, slope = ns.jvp(lambda: nn.CrossEntropyLoss()(model(X), Y), params, tangents)
    loss, gradients = step(model, X)
    assert value.item() == pytest.approx(loss)
    dot = sum(float((g * t).sum()) for g, t in zip(gradients, tangents, strict=True))
    assert float(slope) == pytest.approx(dot)
    _, slope = ns.jvp(lambda: nn.CrossEntropyLoss()(model(X), Y), params[1:2], tangents[1:2])
    assert float(slope) == pytest.approx(float((gradients[1] * tangents[1]).sum()))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_one_and_two_threads_give_the_same_bits(kind):
    results = []
    before = ns.get_num_threads()
    for threads in (1, 2):
        ns.set_num_threads(threads)
        model = network(kind)
        results.append([model(X).numpy(), *step(model, X)[1]])
    ns.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_several_python_threads_predict_at_once():
    model = network("sparse")
    expected, found = model.predict(X), {}

    def work(i):
        for _ in range(20):
            found[i] = model.predict(X, batch_size=5 + i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    for result in found.values():
        close(result, expected)


# ---------------------------------------------------------------- canonical order, values


def test_duplicates_are_added_up_and_the_users_matrix_stays_as_it_is():
    data, indices, indptr = np.array([200, 100, 1], np.uint8), np.array([5, 5, 2]), [0, 3]
    x = sparse.csr_matrix((data, indices, indptr), shape=(1, N_IN))
    dense = np.zeros((1, N_IN))
    dense[0, [5, 2]] = 300, 1
    model = network("dense")
    close(model(x).numpy(), model(dense).numpy())
    np.testing.assert_array_equal(x.indices, [5, 5, 2])
    np.testing.assert_array_equal(x.data, [200, 100, 1])
    rows = SparseRows(x)
    np.testing.assert_array_equal(rows.indices, [2, 5])
    np.testing.assert_array_equal(rows.values, [1, 300])


def test_the_values_of_a_canonical_matrix_are_kept_by_reference():
    x = X.astype(np.float32)
    rows = SparseRows(x)
    assert np.shares_memory(rows.values, x.data)
    x.data[0] = 99
    assert rows.matrix[0].toarray().max() == 99
    x.indices[0] = 10**9  # changed after it was checked: compiled loops check no bounds
    assert rows.indices.max() < N_IN
    with pytest.raises(ValueError, match="read-only"):
        rows.indices[0] = 10**9
    assert repr(rows) == f"SparseRows(shape=({BATCH}, {N_IN}), dtype=float32)"
    assert (rows.ndim, len(rows)) == (2, BATCH)


def test_read_only_and_strided_arrays_are_taken():
    x = X.copy()
    x.data.flags.writeable = x.indices.flags.writeable = x.indptr.flags.writeable = False
    model = network("sparse")
    expected = model(DENSE).numpy()
    close(model(x).numpy(), expected)
    x = X.copy()
    x.data = np.repeat(x.data, 2)[::2]
    x.indices = np.repeat(x.indices, 2)[::2]
    close(model(x).numpy(), expected)


def test_rows_and_their_parts_are_those_of_the_array():
    rows = SparseRows(X, [5, 1, 5])
    np.testing.assert_array_equal(np.asarray(rows), DENSE[[5, 1, 5]])
    np.testing.assert_array_equal(np.asarray(rows.part(slice(1, 3))), DENSE[[1, 5]])
    assert np.asarray(rows, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="have to be gathered"):
        rows.__array__(copy=False)
    model = network("dense")
    close(model(rows).numpy(), model(DENSE[[5, 1, 5]]).numpy())


@kinds
def test_nan_and_infinity_pass_as_they_do_in_a_dense_array(kind):
    model = network(kind)
    dense = DENSE.copy()
    dense[4, 9], dense[5, 9] = np.nan, np.inf
    found, expected = model(sparse.csr_array(dense)).numpy(), model(dense).numpy()
    finite = np.isfinite(expected).all(axis=1)
    close(found[finite], expected[finite])
    assert not finite[4]
    if kind != "sparse":  # there, whether a weight sees the feature is chance
        assert not np.isfinite(found[4]).all()
    with pytest.raises(train.NonFiniteLossError):
        train.check_finite(nn.CrossEntropyLoss()(model(sparse.csr_array(dense)), Y), model, 0)


# ---------------------------------------------------------------- bad input


BAD = {
    "too few features": (X[:, :50], ValueError, rf"expects x of shape \(batch, {N_IN}\); got"),
    "features first": (X.T, ValueError, "Features first"),
    "an empty batch": (X[:0], ValueError, "at least one sample; got an empty batch"),
    "complex": (X * 1j, TypeError, "real numbers; got dtype complex"),
    "one sample": (sparse.coo_array(DENSE[0]), ValueError, r"got \(60,\). One sample\?"),
}


@kinds
@pytest.mark.parametrize("name", BAD)
def test_a_bad_matrix_is_refused_in_calls_and_predictions(name, kind):
    x, error, message = BAD[name]
    model = network(kind)
    with pytest.raises(error, match=message):
        model(x)
    with pytest.raises(error, match=message):
        model.predict(x)
    assert model(X).shape == (BATCH, 3)


def test_a_matrix_whose_arrays_do_not_fit_is_refused_before_it_is_followed():
    x = X.copy()
    x.indices[3] = N_IN
    with pytest.raises(ValueError, match="inconsistent"):
        network("dense")(x)
    x = sparse.coo_matrix(DENSE)
    x.col[0] = -1
    with pytest.raises(ValueError, match="inconsistent"):
        SparseRows(x)


def test_sparse_rows_want_a_matrix_and_an_index_in_range():
    with pytest.raises(TypeError, match="SciPy sparse matrix; got ndarray"):
        SparseRows(DENSE)
    with pytest.raises(ValueError, match="out of range: expected 0 to 44"):
        SparseRows(X, [BATCH])
    with pytest.raises(TypeError, match="integers as index"):
        SparseRows(X, [0.5])


@pytest.mark.parametrize(
    "first",
    [nn.ReLU(), nn.BatchNorm1d(N_IN), nn.Dropout(0.5, rng=0), nn.Sigmoid(), nn.GELU()],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_cannot_take_sparse_rows_says_what_to_do(first):
    model = nn.Sequential(first, nn.Linear(N_IN, 3, rng=0))
    with pytest.raises(TypeError, match=r"cannot take a sparse mini-batch.*x\.toarray\(\)"):
        model(X)
    assert model(X.toarray()).shape == (BATCH, 3)


def test_a_model_without_layers_cannot_give_back_sparse_rows_as_tiles():
    with pytest.raises(TypeError, match="toarray"):
        nn.Sequential().predict(X)


def test_a_compiled_model_wants_a_dense_array():
    with pytest.raises(TypeError, match=r"Sparse input\? Pass x.toarray\(\)"):
        ns.compile(network("sparse")).predict(X)


def test_the_activation_prints_itself_and_can_be_made_dense():
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return nn.Linear(N_IN, 2, rng=0)(x)

    assert Spy()(X).shape == (BATCH, 2)
    (x,) = seen
    assert repr(x) == f"SparseBatch(shape=({BATCH}, {N_IN}), dtype=float32)"
    assert (len(x), x.ndim, x.size) == (BATCH, 2, BATCH * N_IN)
    assert x.detach() is x
    np.testing.assert_allclose(np.asarray(x), DENSE, rtol=1e-6)


# ---------------------------------------------------------------- training


def test_a_loader_draws_sparse_rows_in_the_order_of_an_array():
    arrays, matrices = (DataLoader((data, Y), batch_size=8, rng=3) for data in (DENSE, X))
    for (a, ya), (b, yb) in zip(arrays, matrices, strict=True):
        assert isinstance(a, Rows)
        assert isinstance(b, SparseRows)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        np.testing.assert_array_equal(ya, yb)
    assert (matrices.x != X).nnz == 0
    assert arrays.x is DENSE
    with pytest.raises(ValueError, match="one target per row"):
        DataLoader((X, Y[:4]), batch_size=2)
    with pytest.raises(ValueError, match="at least one sample"):
        DataLoader((X[:0], Y[:0]), batch_size=2)


@kinds
def test_training_on_sparse_rows_is_that_on_the_array(kind):
    histories = []
    for data in (DENSE, X):
        model = network(kind)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loader = DataLoader((data, Y), batch_size=10, rng=0)
        histories.append(
            train.fit(
                model, nn.CrossEntropyLoss(), optimizer, loader, epochs=3,
                validation=(data, Y), progress=False,
            )
        )  # fmt: skip
    close(histories[1].step_loss, histories[0].step_loss)
    close(histories[1]["validation_loss"], histories[0]["validation_loss"])
    loader = DataLoader((X, Y), batch_size=10)
    assert train.evaluate(model, None, loader).accuracy == histories[1]["validation_accuracy"][-1]


def test_a_hand_written_loop_on_a_canonical_matrix_allocates_nothing_of_batch_times_features():
    n_in, batch = 20_000, 64
    x = sparse.random(batch, n_in, 0.001, format="csr", rng=RNG, dtype=np.float32)
    y = RNG.integers(0, 2, batch)
    model = nn.Sequential(nn.SparseLinear(n_in, 16, density=0.01, rng=0), nn.Linear(16, 2, rng=0))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def once():
        loss = nn.CrossEntropyLoss()(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.predict(x)

    once()
    pool.clear()
    tracemalloc.start()
    once()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < batch * n_in * 4 / 4  # a quarter of one dense mini-batch


@pytest.mark.parametrize("kind", ["dense", "full"])
def test_dense_weights_make_no_dense_mini_batch_either(kind):
    n_in, batch = 5_000, 256
    x = sparse.random(batch, n_in, 0.002, format="csr", rng=RNG, dtype=np.float32)
    layer = nn.Linear(n_in, 4, rng=0)
    if kind == "full":
        layer = nn.SparseLinear(n_in, 4, sparsity=0.0, rng=0)
    layer(x).backward(np.ones((batch, 4)))
    layer.zero_grad()
    pool.clear()
    tracemalloc.start()
    layer(x).backward(np.ones((batch, 4)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < batch * n_in * 4 / 4


def test_rigl_trains_a_model_with_sparse_input_as_with_the_dense_array():
    topologies = []
    for data in (DENSE, X):
        model = nn.Sequential(
            nn.SparseLinear(N_IN, 30, sparsity=0.8, rng=0), nn.ReLU(), nn.Linear(30, 3, rng=1)
        )
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        recipe = sparsify.rigl(0.8, every=2)
        sparsifier = Sparsifier(model, optimizer, recipe, total_steps=12, rng=0)
        for _ in range(12):
            loss = nn.CrossEntropyLoss()(model(data), Y)
            optimizer.zero_grad()
            loss.backward()
            if not sparsifier.replaces_step:
                optimizer.step()
            sparsifier.step()
        topologies.append(model[0].weight.topology)
    assert topologies[0] != nn.SparseLinear(N_IN, 30, sparsity=0.8, rng=0).weight.topology
    shared = (topologies[0] & topologies[1]).nnz
    assert shared >= 0.98 * topologies[0].nnz  # rounding may decide between near ties


@pytest.mark.parametrize("name", ["snip", "taylor", "grasp", "fisher", "relevance"])
def test_criteria_score_a_model_with_sparse_input_as_with_the_dense_array(name):
    criterion = {
        "snip": saliency.snip,
        "taylor": saliency.taylor,
        "grasp": saliency.Grasp(),
        "fisher": saliency.fisher,
        "relevance": saliency.neuron_relevance,
    }[name]
    scores = []
    for data in (DENSE, X):
        model = network("sparse", np.float64)
        context = Context(model, targets(model), nn.CrossEntropyLoss(), [(data, Y)])
        scores.append(criterion(context))
    for a, b in zip(*scores, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-12)


def test_taps_get_the_dense_activation():
    layer = nn.SparseLinear(N_IN, 20, sparsity=0.8, rng=0)
    layer.taps = []
    layer(X).backward(np.ones((BATCH, 20)))
    ((_, x),) = layer.taps
    assert x.shape == (1, N_IN, 64)
    np.testing.assert_allclose(x[0, :, :BATCH].T, DENSE, rtol=1e-6)


def test_a_forward_mask_acts_on_sparse_rows_too():
    layer = nn.SparseLinear(N_IN, 20, sparsity=0.5, rng=0)
    layer.weight.buffers[FORWARD] = (RNG.random(layer.nnz) < 0.5).astype(np.float32)
    close(layer(X).numpy(), layer(DENSE).numpy())


def test_a_deep_copy_and_a_pruned_copy_take_sparse_rows():
    model = network("dense")
    close(copy.deepcopy(model)(X).numpy(), model(X).numpy())
    close(sparsify.prunable(model)(X).numpy(), model(X).numpy())


def test_a_profile_shows_the_products_of_the_first_layer():
    model = network("sparse")
    step(model, X)
    with ns.profile(model) as p:
        step(model, X)
    rows = {(row["layer"], row["section"]): row for row in p.rows()}
    columns = model[0].weight.topology.column_counts()
    work = 2 * int(columns[X.indices].sum())
    for section in ("forward", "weight gradient"):
        assert rows["0", section]["flops"] == work
        assert rows["0", section]["calls"] == 1
        assert rows["0", section]["bytes"] > 0
    assert ("0", "input gradient") not in rows
    assert rows["", "layout"]["seconds"] > 0


def test_the_memory_report_counts_the_view_by_column():
    model = network("sparse")
    model(DENSE)
    before = ns.memory_report(model).layers[0]
    assert known_column_view(model[0].weight.topology) is None
    model(X)
    after = ns.memory_report(model).layers[0]
    view = known_column_view(model[0].weight.topology)
    assert after.total - before.total == view.nbytes
