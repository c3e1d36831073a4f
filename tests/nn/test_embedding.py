"""`EmbeddingBag`, `Embedding` and `GlobalAveragePooling1D` against NumPy, and against each other."""

import copy
import pickle
import threading

import numpy as np
import pytest
from scipy import sparse

import nnsparse as ns
from nnsparse import nn, optim, train
from nnsparse.autograd import Tensor, tensor
from nnsparse.data import DataLoader, SparseRows
from nnsparse.ops.sparse_batch import Tokens, to_csr
from nnsparse.ops.sparse_input import spmm_csr, sum_rows
from nnsparse.ops.sparse_products import Table
from nnsparse.row_gradient import RowGradient
from nnsparse.rows import Rows

RNG = np.random.default_rng(0)
N, DIM, BATCH, LENGTH = 50, 20, 37, 11
TOKENS = RNG.integers(0, N, (BATCH, LENGTH))
TOKENS[:, -3:] = 0
TOKENS[4] = 0
Y = RNG.integers(0, 3, BATCH)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def counts_of(tokens, padding=None, n=N):
    """Return how often each token occurs in each sample, (batch, n), padding left out."""
    counts = np.zeros((len(tokens), n))
    for row, sample in zip(counts, tokens, strict=True):
        np.add.at(row, sample[sample != padding] if padding is not None else sample, 1)
    return counts


def expected_sum(weight, counts, mode):
    """Return counts @ weight, with "mean" divided by the counts of each sample."""
    total = counts @ weight.astype(np.float64)
    if mode == "mean":
        n = counts.sum(axis=1, keepdims=True)
        total = np.divide(total, n, out=np.zeros_like(total), where=n != 0)
    return total


def forms(tokens, padding):
    """Return the same data set in all forms that EmbeddingBag takes."""
    kept = [row if padding is None else row[row != padding] for row in tokens]
    offsets = np.cumsum([0, *map(len, kept)])[:-1]
    return {
        "int64": tokens,
        "int32": tokens.astype(np.int32),
        "uint8": tokens.astype(np.uint8),
        "fortran-ordered": np.asfortranarray(tokens),
        "lists": tokens.tolist(),
        "rows": Rows(tokens),
        "counts": sparse.csr_array(counts_of(tokens, padding)),
        "counts, csc": sparse.csc_matrix(counts_of(tokens, padding)),
        "ragged": (np.concatenate(kept), offsets),
    }


def close(a, b, dtype=np.float32):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 if dtype == np.float32 else 1e-13)


# ---------------------------------------------------------------- the function


@pytest.mark.parametrize("padding", [None, 0, 7])
@pytest.mark.parametrize("mode", ["mean", "sum"])
@BOTH
def test_a_bag_is_the_mean_or_sum_of_its_rows_in_every_form(mode, padding, dtype):
    layer = nn.EmbeddingBag(N, DIM, mode, padding, dtype=dtype, rng=0)
    expected = expected_sum(layer.weight.data, counts_of(TOKENS, padding), mode)
    for name, x in forms(TOKENS, padding).items():
        out = layer(x)
        assert (out.shape, out.dtype) == ((BATCH, DIM), dtype), name
        close(out.numpy(), expected, dtype)
        close(layer.predict(x, batch_size=10), expected, dtype)


@pytest.mark.parametrize("mode", ["mean", "sum"])
@pytest.mark.parametrize("dim", [1, 5, 16, 33, 64, 100])
def test_the_gradient_has_the_rows_that_were_used(mode, dim):
    layer = nn.EmbeddingBag(N, dim, mode, 0, rng=0)
    used = TOKENS % 13  # of fifty
    d = RNG.standard_normal((BATCH, dim)).astype(np.float32)
    counts = counts_of(used, 0)
    if mode == "mean":
        counts /= np.maximum(1, counts.sum(axis=1, keepdims=True))
    for name, x in forms(used, 0).items():
        layer.zero_grad()
        layer(x).backward(d)
        gradient = layer.weight.grad
        assert isinstance(gradient, RowGradient), name
        np.testing.assert_array_equal(gradient.rows, np.arange(1, 13))
        close(np.asarray(gradient), counts.T @ d)


def test_weights_of_tokens_need_not_be_counts():
    x = sparse.csr_array(np.array([[0, 0.5, -2.0], [0, 0, 0], [1, 1, -2]]))
    layer = nn.EmbeddingBag(3, 4, rng=0)
    w = layer.weight.data
    out = layer(x).numpy()
    close(out[0], (0.5 * w[1] - 2 * w[2]) / -1.5)
    close(out[1:], np.zeros((2, 4)))  # no tokens; weights that add up to nothing
    close(nn.EmbeddingBag(3, 4, "sum", rng=0)(x).numpy(), x @ w)


def test_nothing_to_sum_gives_zeros():
    layer = nn.EmbeddingBag(N, DIM, padding_idx=0, rng=0)
    assert not layer(np.zeros((3, 4), int)).numpy().any()
    assert not layer(np.zeros((3, 0), int)).numpy().any()
    assert not layer(sparse.csr_array((3, N))).numpy().any()
    assert not layer(([], [0, 0])).numpy().any()
    out = layer(np.zeros((3, 0), int))
    out.backward(np.ones(out.shape))
    assert layer.weight.grad.rows.size == 0
    assert layer.weight.grad.values.shape == (0, DIM)
    optimizer = optim.SGD(layer.parameters(), lr=1.0)
    before = layer.weight.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.data, before)


def test_the_row_of_padding_is_zero_at_first_and_stays_what_it_is():
    layer = nn.EmbeddingBag(N, DIM, padding_idx=7, rng=0)
    assert not layer.weight.data[7].any()
    layer.weight.data[7] = np.nan
    optimizer = optim.SGD(layer.parameters(), lr=1.0)
    out = layer(np.array([[7, 3, 7]]))
    out.backward(np.ones(out.shape))
    optimizer.step()
    assert np.isfinite(out.numpy()).all()
    assert np.isnan(layer.weight.data[7]).all()
    assert np.isfinite(np.delete(layer.weight.data, 7, axis=0)).all()


def test_initial_rows_have_length_one_on_average_and_follow_the_seed():
    layer = nn.EmbeddingBag(2000, 64, rng=0)
    squares = (layer.weight.data.astype(np.float64) ** 2).sum(axis=1)
    assert abs(squares.mean() - 1) < 0.02
    np.testing.assert_array_equal(nn.Embedding(2000, 64, rng=0).weight.data, layer.weight.data)
    assert (nn.EmbeddingBag(2000, 64, rng=1).weight.data != layer.weight.data).any()


def test_one_and_two_threads_give_the_same_bits():
    before, results = ns.get_num_threads(), []
    tokens = RNG.integers(0, 3000, (300, 40))
    for threads in (1, 2):
        ns.set_num_threads(threads)
        layer = nn.EmbeddingBag(3000, 70, rng=0)
        out = layer(tokens)
        out.backward(np.ones(out.shape) * np.arange(70))
        results.append((out.numpy(), layer.weight.grad.values.copy()))
    ns.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


# ---------------------------------------------------------------- derivatives


def test_derivatives_of_first_and_second_order_are_right():
    bags = Tokens(Rows(TOKENS[:5] % 6), np.dtype(np.float64), 16).bags(6, 0, mean=True)
    w = RNG.standard_normal((6, 3))

    def cubed(w):
        y = sum_rows(w, bags, Table(6, 3))
        return y * y * y

    ns.check_gradients(cubed, w, order=2)
    ns.check_gradients(lambda w: sum_rows(w * 2.0, bags, Table(6, 3)), w, order=2)
    ns.check_gradients(lambda w: spmm_csr(w, bags, Table(6, 3)), w, order=2)


def network(first, dtype=np.float32):
    second, last = nn.Linear(DIM, 8, rng=1, dtype=dtype), nn.Linear(8, 3, rng=2, dtype=dtype)
    return nn.Sequential(first, second, nn.ReLU(), last)


def test_gradients_and_slopes_are_those_of_a_linear_layer_on_the_means():
    model = network(nn.EmbeddingBag(N, DIM, padding_idx=0, dtype=np.float64, rng=0), np.float64)
    twin = network(nn.Linear(N, DIM, False, dtype=np.float64), np.float64)
    for a, b in zip(list(twin)[1:], list(model)[1:], strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            p.data[...] = q.data
    twin[0].weight.data[...] = model[0].weight.data.T
    counts = counts_of(TOKENS, 0)
    means = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    loss = nn.CrossEntropyLoss()
    params, others = list(model.parameters()), list(twin.parameters())

    def second(model, x, params):
        first = ns.grad(loss(model(x), Y), params, create_graph=True)
        return ns.grad(sum((g * g).sum() for g in first), params)

    found, expected = second(model, TOKENS, params), second(twin, means, others)
    close(found[0], expected[0].T, np.float64)
    for a, b in zip(found[1:], expected[1:], strict=True):
        close(a, b, np.float64)
    tangent = RNG.standard_normal((N, DIM))
    value, slope = ns.jvp(lambda: loss(model(TOKENS), Y), params[:1], [tangent])
    other, expected_slope = ns.jvp(lambda: loss(twin(means), Y), others[:1], [tangent.T])
    assert value.item() == pytest.approx(other.item())
    assert float(slope) == pytest.approx(float(expected_slope))


def test_grad_returns_a_whole_array():
    layer = nn.EmbeddingBag(N, DIM, rng=0)
    (gradient,) = ns.grad(layer(TOKENS), [layer.weight], gradient=np.ones((BATCH, DIM)))
    assert type(gradient) is np.ndarray
    assert gradient.shape == (N, DIM)
    assert layer.weight.grad is None


def test_gradients_of_several_passes_and_uses_add_up():
    layer = nn.EmbeddingBag(N, DIM, rng=0)
    ones = np.ones((BATCH, DIM))
    first, second = TOKENS % 5, TOKENS % 7 + 20
    layer(first).backward(ones)
    one = np.asarray(layer.weight.grad)
    layer(second).backward(ones)
    both = layer.weight.grad
    assert isinstance(both, RowGradient)
    np.testing.assert_array_equal(both.rows, [*range(5), *range(20, 27)])
    layer.zero_grad()
    layer(second).backward(ones)
    close(np.asarray(both), one + np.asarray(layer.weight.grad))
    layer.zero_grad()
    (layer(first) + layer(second)).backward(ones)
    assert isinstance(layer.weight.grad, RowGradient)
    close(np.asarray(layer.weight.grad), np.asarray(both))
    layer.zero_grad()
    ((layer.weight * 2.0).sum() + layer(first).sum()).backward()
    close(np.asarray(layer.weight.grad), 2 + one)


# ---------------------------------------------------------------- optimizers


@pytest.mark.parametrize("dim", [3, 64])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01),
        lambda p: optim.Adam(p, lr=0.1),
    ],
    ids=["sgd", "momentum", "nesterov", "decay", "adam"],
)
def test_every_optimizer_does_with_row_gradients_what_it_does_with_whole_ones(make, dim):
    layers = [nn.EmbeddingBag(N, dim, rng=0) for _ in range(2)]
    optimizers = [make(layer.parameters()) for layer in layers]
    for step in range(4):
        d = RNG.standard_normal((BATCH, dim)).astype(np.float32)
        for i, (layer, optimizer) in enumerate(zip(layers, optimizers, strict=True)):
            optimizer.zero_grad()
            layer(TOKENS % (7 + step)).backward(d)
            if i:
                layer.weight.grad = np.asarray(layer.weight.grad)
            optimizer.step()
    np.testing.assert_array_equal(layers[0].weight.data, layers[1].weight.data)
    for name, buffer in layers[0].weight.buffers.items():
        np.testing.assert_array_equal(buffer, layers[1].weight.buffers[name])
    a, b = (optimizer.state_dict() for optimizer in optimizers)
    assert a.keys() == b.keys()
    assert a["0.count"] == b["0.count"] == 4


def test_plain_sgd_touches_only_the_rows_of_the_gradient():
    layer = nn.EmbeddingBag(N, DIM, rng=0)
    layer.weight.data[30] = (
        np.inf
    )  # inf − 0.1·0 stays; any arithmetic with it would show as NaN in a product
    before = layer.weight.data.copy()
    layer(np.array([[1, 2, 4]])).backward(np.ones((1, DIM)))
    optim.SGD(layer.parameters(), lr=0.1).step()
    changed = (layer.weight.data != before).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), [1, 2, 4])


def test_a_row_gradient_that_does_not_fit_is_refused():
    layer = nn.EmbeddingBag(N, DIM, rng=0)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    good = RowGradient([0], np.ones((1, DIM), np.float32), (N, DIM))
    moved, other = copy.deepcopy(good), copy.deepcopy(good)
    moved.rows[0] = N  # changed after it was checked: compiled loops check no bounds
    other.values = np.ones((2, DIM), np.float32)
    for bad in (
        RowGradient([0], np.ones((1, DIM), np.float32), (N + 1, DIM)),
        RowGradient([0], np.ones((1, DIM), np.float64), (N, DIM)),
        moved,
        other,
    ):
        layer.weight.grad = bad
        with pytest.raises(ValueError, match="expects a gradient of shape"):
            optimizer.step()


# ---------------------------------------------------------------- RowGradient


def test_a_row_gradient_behaves_like_its_array():
    g = RowGradient([1, 3], [[1.0, 2.0], [3.0, 4.0]], (5, 2))
    whole = np.zeros((5, 2))
    whole[[1, 3]] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(g, whole)
    assert (g.shape, g.ndim, g.size, g.dtype) == ((5, 2), 2, 10, np.float64)
    assert g.nbytes == 2 * 8 + 4 * 8
    assert np.asarray(g, np.float32).dtype == np.float32
    for twice in (g * 2, 2 * g, g + g):
        assert isinstance(twice, RowGradient)
        np.testing.assert_array_equal(twice, 2 * whole)
    other = RowGradient([0, 3], np.ones((2, 2)), (5, 2))
    assert isinstance(g + other, RowGradient)
    np.testing.assert_array_equal(g + other, whole + np.asarray(other))
    for added in (g + np.ones((5, 2)), np.ones((5, 2)) + g):
        assert type(added) is np.ndarray
        np.testing.assert_array_equal(added, whole + 1)
    np.testing.assert_array_equal(g * whole, whole * whole)
    assert isinstance(g / 4, RowGradient)
    np.testing.assert_array_equal(g / 4, whole / 4)
    assert np.linalg.norm(g) == np.linalg.norm(whole)
    np.testing.assert_array_equal(copy.deepcopy(g), whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(g)), whole)
    with pytest.raises(ValueError, match=r"copy=False\) cannot work"):
        g.__array__(copy=False)
    with pytest.raises(ValueError, match="one shape"):
        g + RowGradient([0], np.ones((1, 2)), (4, 2))


@pytest.mark.parametrize(
    ("rows", "values", "error", "message"),
    [
        ([0.5], np.ones((1, 2)), TypeError, "integers"),
        ([[0]], np.ones((1, 2)), TypeError, "integers"),
        ([0], np.ones((1, 2), int), TypeError, "float32 or float64"),
        ([0], np.ones((2, 2)), ValueError, r"values of shape \(1, 2\)"),
        ([0], np.ones(2), ValueError, r"values of shape \(1, 2\)"),
        ([-1], np.ones((1, 2)), ValueError, "from 0 to 4"),
        ([5], np.ones((1, 2)), ValueError, "from 0 to 4"),
        ([2, 1], np.ones((2, 2)), ValueError, "strictly increasing"),
        ([1, 1], np.ones((2, 2)), ValueError, "Add up"),
    ],
)
def test_a_bad_row_gradient_is_refused(rows, values, error, message):
    with pytest.raises(error, match=message):
        RowGradient(rows, values, (5, 2))


# ---------------------------------------------------------------- Embedding and its average


def test_an_embedding_gives_the_rows_of_its_tokens_side_by_side():
    layer = nn.Embedding(N, DIM, padding_idx=0, rng=0)
    out = layer(TOKENS)
    assert out.shape == (BATCH, LENGTH * DIM)
    np.testing.assert_array_equal(out.numpy(), layer.weight.data[TOKENS].reshape(BATCH, -1))
    d = RNG.standard_normal(out.shape).astype(np.float32)
    out.backward(d)
    expected = np.zeros((N, DIM))
    np.add.at(expected, TOKENS.ravel(), d.reshape(-1, DIM))
    expected[0] = 0
    close(np.asarray(layer.weight.grad), expected)
    assert isinstance(layer.weight.grad, RowGradient)


@pytest.mark.parametrize("padding", [None, 0])
@BOTH
def test_embedding_and_average_are_an_embedding_bag(padding, dtype):
    fused = nn.Sequential(nn.Embedding(N, DIM, padding, dtype=dtype, rng=0), nn.GlobalAveragePooling1D())  # fmt: skip
    apart = nn.Sequential(nn.Sequential(fused[0]), nn.GlobalAveragePooling1D())
    bag = nn.EmbeddingBag(N, DIM, padding_idx=padding, dtype=dtype, rng=0)
    d = RNG.standard_normal((BATCH, DIM)).astype(dtype)
    expected = bag(TOKENS)
    expected.backward(d)
    for model in (fused, apart):
        model.zero_grad()
        out = model(TOKENS)
        assert (out.shape, out.dtype) == ((BATCH, DIM), dtype)
        close(out.numpy(), expected.numpy(), dtype)
        out.backward(d)
        close(np.asarray(fused[0].weight.grad), np.asarray(bag.weight.grad), dtype)
        close(model.predict(TOKENS, 8), expected.numpy(), dtype)


def test_sequences_without_tokens_have_the_average_zero():
    embedding, nothing = nn.Embedding(N, DIM, 0, rng=0), np.zeros((3, 0), int)
    assert embedding(nothing).shape == (3, 0)
    for first in (embedding, nn.Sequential(embedding)):
        out = nn.Sequential(first, nn.GlobalAveragePooling1D())(nothing)
        np.testing.assert_array_equal(out.numpy(), np.zeros((3, DIM)))


def test_apart_they_have_second_derivatives_and_slopes_too():
    embedding = nn.Embedding(N, DIM, padding_idx=0, dtype=np.float64, rng=0)
    apart = nn.Sequential(nn.Sequential(embedding), nn.GlobalAveragePooling1D())
    bag = nn.EmbeddingBag(N, DIM, padding_idx=0, dtype=np.float64, rng=0)

    def second(model, weight):
        y = model(TOKENS)
        (first,) = ns.grad((y * y * y).sum(), [weight], create_graph=True)
        return ns.grad((first * first).sum(), [weight])[0]

    close(second(apart, embedding.weight), second(bag, bag.weight), np.float64)
    tangent = RNG.standard_normal((N, DIM))
    slopes = [
        ns.jvp(lambda m=model: m(TOKENS), [weight], [tangent])[1]
        for model, weight in ((apart, embedding.weight), (bag, bag.weight))
    ]
    close(*slopes, np.float64)


def test_the_fused_pair_is_a_model_like_any_other():
    model = nn.Sequential(
        nn.Embedding(N, DIM, padding_idx=0, rng=0), nn.GlobalAveragePooling1D(), nn.Linear(DIM, 3, rng=0)
    )  # fmt: skip
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "2.weight", "2.bias"]
    assert len(model) == 3
    assert repr(model).splitlines()[1:3] == [
        "  (0) Embedding(50, 20, padding_idx=0)",
        "  (1) GlobalAveragePooling1D()",
    ]
    twin = copy.deepcopy(model)
    twin[0].weight.data[...] = 0
    assert not np.array_equal(twin.predict(TOKENS), model.predict(TOKENS))
    twin.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(twin.predict(TOKENS), model.predict(TOKENS))
    with ns.profile(model) as p:
        model(TOKENS)
    assert ("0", "forward") in {(row["layer"], row["section"]) for row in p.rows()}


def test_an_average_wants_an_embedding_before_it():
    pool = nn.GlobalAveragePooling1D()
    with pytest.raises(TypeError, match="what Embedding gives, from directly before it"):
        pool(np.ones((2, 6)))
    with pytest.raises(TypeError, match="directly before"):
        nn.Sequential(nn.Embedding(N, DIM, rng=0), nn.ReLU(), pool)(TOKENS)


# ---------------------------------------------------------------- in a model


@pytest.mark.parametrize("last", [nn.Linear, nn.NumpyLinear])
def test_an_embedding_stands_before_any_layers(last):
    bag = nn.EmbeddingBag(N, DIM, padding_idx=0, rng=0)
    means = bag.predict(TOKENS)
    rest = nn.Sequential(last(DIM, 7, rng=0), nn.Tanh(), last(7, 2, rng=1))
    for model in (nn.Sequential(bag, rest), nn.Sequential(nn.Sequential(bag), *rest)):
        close(model(TOKENS).numpy(), rest(means).numpy())
        close(model.predict(TOKENS, batch_size=6), rest(means).numpy())
        close(model.predict(sparse.csr_array(counts_of(TOKENS, 0))), rest(means).numpy())


def test_a_model_of_ones_own_may_begin_with_an_embedding():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.EmbeddingBag(N, DIM, padding_idx=0, rng=0)
            self.last = nn.Linear(DIM, 2, rng=0)

        def _first(self):
            return self.embedding

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.embedding(x))

    net = Net()
    close(net.predict(TOKENS), net.last.predict(net.embedding.predict(TOKENS)))


@pytest.mark.parametrize("form", ["int64", "counts"])
def test_a_network_on_tokens_learns(form):
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 300)
    tokens = rng.integers(3, 40, (300, 12))
    tokens[np.arange(300), rng.integers(0, 12, 300)] = 1 + y
    tokens[:, 10:] = 0
    x = forms(tokens, 0)[form]
    y = (tokens == 2).any(axis=1).astype(int)
    model = nn.Sequential(nn.EmbeddingBag(N, 16, padding_idx=0, rng=0), nn.Linear(16, 2, rng=0))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    loader = DataLoader((x, y), batch_size=32, rng=0)
    history = train.fit(
        model, nn.CrossEntropyLoss(), optimizer, loader, epochs=12, validation=(x, y), progress=False
    )  # fmt: skip
    assert history["validation_accuracy"][-1] > 0.97
    assert train.evaluate(model, None, loader).accuracy == history["validation_accuracy"][-1]


def test_copies_and_states_are_independent():
    layer = nn.EmbeddingBag(N, DIM, "sum", 0, rng=0)
    layer(TOKENS).backward(np.ones((BATCH, DIM)))
    twin = copy.deepcopy(layer)
    assert isinstance(twin.weight.grad, RowGradient)
    twin.weight.data[...] = 1
    assert not (layer.weight.data == 1).all()
    state = layer.state_dict()
    assert list(state) == ["weight"]
    twin.load_state_dict(state)
    np.testing.assert_array_equal(twin.predict(TOKENS), layer.predict(TOKENS))
    again = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(again.predict(TOKENS), layer.predict(TOKENS))


def test_several_python_threads_predict_at_once():
    model = nn.Sequential(nn.EmbeddingBag(N, DIM, padding_idx=0, rng=0), nn.Linear(DIM, 3, rng=0))
    expected, found = model.predict(TOKENS), {}

    def work(i):
        for _ in range(20):
            found[i] = model.predict(TOKENS, batch_size=4 + i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    for result in found.values():
        close(result, expected)


def test_layers_print_what_they_were_made_of():
    assert repr(nn.EmbeddingBag(9, 4, rng=0)) == "EmbeddingBag(9, 4)"
    assert (
        repr(nn.EmbeddingBag(9, 4, "sum", 0, rng=0))
        == "EmbeddingBag(9, 4, padding_idx=0, mode='sum')"
    )
    assert repr(nn.Embedding(9, 4, 2, rng=0)) == "Embedding(9, 4, padding_idx=2)"


def test_memory_and_profile_show_the_table():
    layer = nn.EmbeddingBag(N, DIM, padding_idx=0, rng=0)
    model = nn.Sequential(layer, nn.Linear(DIM, 2, rng=0))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    used = TOKENS % 6
    model(used).backward(np.ones((BATCH, 2)))
    optimizer.step()
    table = ns.memory_report(model).layers[0]
    assert (table.name, table.shape, table.values) == ("0.weight", (N, DIM), 4 * N * DIM)
    assert table.gradient == layer.weight.grad.nbytes < table.values
    with ns.profile(model) as p:
        optimizer.zero_grad()
        model(used).backward(np.ones((BATCH, 2)))
        optimizer.step()
    rows = {(row["layer"], row["section"]): row for row in p.rows()}
    work = 2 * int((used != 0).sum()) * DIM
    assert rows["0", "forward"]["flops"] == rows["0", "weight gradient"]["flops"] == work
    assert rows["0", "write-back"]["bytes"] == 3 * layer.weight.grad.nbytes
    assert sum(p.sections().values()) + p.overhead == pytest.approx(p.seconds, rel=1e-6)


def test_compile_names_the_layer_that_it_cannot_take():
    model = nn.Sequential(nn.EmbeddingBag(N, DIM, rng=0), nn.Linear(DIM, 2, rng=0))
    with pytest.raises(TypeError, match=r"cannot take layer 0 \(EmbeddingBag\)"):
        ns.compile(model)


# ---------------------------------------------------------------- bad input


BAD_TOKENS = {
    "floats": (TOKENS.astype(float), TypeError, "expects integer tokens.*got an array of float64"),
    "booleans": (TOKENS > 3, TypeError, "got an array of bool"),
    "text": (np.full((3, 4), "a"), TypeError, "integer tokens"),
    "one sample": (TOKENS[0], ValueError, "One sample"),
    "nothing": (None, TypeError, "integer tokens"),
    "a tensor": (tensor(TOKENS), TypeError, "got a Tensor of float32"),
    "too large a token": (TOKENS + 3, ValueError, rf"from 0 to num_embeddings - 1 = {N - 1}; got"),
    "a negative token": (TOKENS - 1, ValueError, "got -1 in sample 4 at position 0|got -1"),
    "an empty batch": (TOKENS[:0], ValueError, "at least one sample"),
    "lists of different lengths": ([[1, 2], [3]], ValueError, "Different lengths"),
}
BAD_BAGS = {
    "counts of the wrong width": (sparse.csr_array((3, N + 1)), ValueError, r"counts of shape \(batch, 50\)"),
    "three arrays": (([1], [0], [1]), TypeError, "a tuple of 3"),
    "offsets that do not begin at 0": (([1, 2], [1]), ValueError, "offsets from 0"),
    "offsets that fall": (([1, 2], [0, 2, 1]), ValueError, "not decreasing"),
    "offsets beyond the tokens": (([1, 2], [0, 3]), ValueError, "not decreasing"),
    "ragged tokens out of range": (([1, N], [0]), ValueError, "got 50 at position 1"),
    "ragged floats": (([0.5], [0]), TypeError, "1-D integers as indices"),
    "a 2-D pair": ((TOKENS, TOKENS), TypeError, "1-D integers as indices"),
    "complex counts": (sparse.csr_array(np.ones((3, N)) * 1j), TypeError, "real numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*BAD_TOKENS, *BAD_BAGS])
def test_bad_tokens_are_refused_by_a_bag(name):
    x, error, message = {**BAD_TOKENS, **BAD_BAGS}[name]
    layer = nn.EmbeddingBag(N, DIM, rng=0)
    for model in (layer, nn.Sequential(layer, nn.Linear(DIM, 2, rng=0))):
        with pytest.raises(error, match=message):
            model(x)
        with pytest.raises(error, match=message):
            model.predict(x)
    assert layer(TOKENS).shape == (BATCH, DIM)


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_bad_tokens_are_refused_by_an_embedding(name):
    x, error, message = BAD_TOKENS[name]
    for model in (
        nn.Embedding(N, DIM, rng=0),
        nn.Sequential(nn.Embedding(N, DIM, rng=0), nn.GlobalAveragePooling1D()),
    ):
        message = message.replace("Different lengths", "integer tokens")
        with pytest.raises(error, match=message):
            model(x)


def test_an_embedding_takes_no_counts_and_no_pairs():
    layer = nn.Embedding(N, DIM, rng=0)
    for x in (sparse.csr_array((3, N)), SparseRows(sparse.csr_array((3, N)))):
        with pytest.raises(TypeError, match="Use EmbeddingBag"):
            layer(x)
    with pytest.raises((TypeError, ValueError), match="integer tokens"):
        layer(([1, 2, 3], [0]))


@pytest.mark.parametrize("make", [nn.EmbeddingBag, nn.Embedding])
def test_an_embedding_cannot_stand_behind_another_layer(make):
    model = nn.Sequential(nn.Linear(3, LENGTH, rng=0), make(N, DIM, rng=0))
    with pytest.raises(TypeError, match="embeddings come first"):
        model(np.ones((2, 3)))


def test_a_layer_that_is_not_made_for_tokens_says_so():
    with pytest.raises(TypeError, match="integer tokens: Embedding and EmbeddingBag do"):
        nn.Linear(LENGTH, 2, rng=0)(Tokens(Rows(TOKENS), np.dtype(np.float32), 16))
    x = to_csr(SparseRows(sparse.csr_array((3, N))), 16, np.dtype(np.float32))
    with pytest.raises(TypeError, match="integer tokens"):
        nn.Embedding(N, DIM, rng=0)(x)


@pytest.mark.parametrize("make", [nn.EmbeddingBag, nn.Embedding])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_embeddings": 0}, ValueError, "num_embeddings to be an integer >= 1"),
        ({"num_embeddings": 2.0}, ValueError, "num_embeddings"),
        ({"embedding_dim": -1}, ValueError, "embedding_dim to be an integer >= 1"),
        ({"padding_idx": 5}, ValueError, "padding_idx from 0 to 4; got 5"),
        ({"padding_idx": -1}, ValueError, "padding_idx from 0 to 4; got -1"),
        ({"padding_idx": 0.0}, TypeError, "padding_idx as an integer"),
        ({"dtype": np.int32}, TypeError, "float32 or float64"),
    ],
)
def test_settings_out_of_range_are_refused(make, arguments, error, message):
    with pytest.raises(error, match=message):
        make(**{"num_embeddings": 5, "embedding_dim": 2, **arguments})


def test_the_mode_is_mean_or_sum():
    with pytest.raises(ValueError, match="'mean' or 'sum'; got 'max'"):
        nn.EmbeddingBag(5, 2, "max")


def test_another_array_in_place_of_the_table_is_refused():
    layer = nn.EmbeddingBag(N, DIM, rng=0)
    layer.weight.data = np.ones((3, DIM), np.float32)
    with pytest.raises(ValueError, match=r"weight.data of shape \(50, 20\)"):
        layer(TOKENS)
