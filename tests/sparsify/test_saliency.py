"""Criteria with data against dense float64 NumPy, sample by sample; and that they leave no trace in the model."""

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import nn
from nnsparse.ops.losses import cross_entropy, mse
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.saliency import (
    Grasp,
    fisher,
    fisher_diagonal,
    neuron_relevance,
    snip,
    taylor,
)
from nnsparse.topology import Topology

RNG = np.random.default_rng(0)
N_IN, N_CLASSES, N = 23, 5, 37
X, Y = RNG.standard_normal((N, N_IN)), RNG.integers(0, N_CLASSES, N)
WITH_DATA = {
    "snip": snip,
    "taylor": taylor,
    "grasp": Grasp(),
    "fisher": fisher,
    "relevance": neuron_relevance,
}
TOLERANCE = {np.float64: 1e-10, np.float32: 2e-3}


def network(kind="sparse", activation=nn.ReLU, dtype=np.float64):
    """Two targets with a dense layer between them; `full`: all their weights are stored."""
    density = {"sparse": 0.4, "full": 1.0}[kind]
    model = nn.Sequential(
        nn.SparseLinear(N_IN, 19, density=density, dtype=dtype, rng=1),
        activation(),
        nn.Linear(19, 17, dtype=dtype, rng=2),
        activation(),
        nn.SparseLinear(17, N_CLASSES, density=density, dtype=dtype, rng=3),
    )
    for i in (0, 2, 4):
        model[i].bias.data[:] = np.random.default_rng(i).standard_normal(model[i].out_features) / 3
    return model


def context_of(model, batches=((X, Y),), loss_fn=None, **settings):
    loss_fn = nn.CrossEntropyLoss() if loss_fn is None else loss_fn
    return Context(model, targets(model), loss_fn, list(batches), **settings)


# ---------------------------------------------------------------- the reference: one sample at a time, float64


def dense_weights(model):
    layers = [model[i] for i in (0, 2, 4)]
    return [
        (layer.weight.to_dense() if isinstance(layer, nn.SparseLinear) else layer.weight.data)
        .astype(np.float64)
        .copy()
        for layer in layers
    ]


def sample_gradients(model, weights, x, label, temperature=1.0, loss="cross_entropy"):
    """d ℓ / d W of the three layers for one sample, and z·dℓ/dz of each neuron."""
    tanh = isinstance(model[1], nn.Tanh)
    f = np.tanh if tanh else lambda z: np.maximum(z, 0)
    slope = (lambda z: 1 - np.tanh(z) ** 2) if tanh else lambda z: (z > 0).astype(float)
    biases = [model[i].bias.data.astype(np.float64) for i in (0, 2, 4)]
    inputs, sums = [x], []
    for W, b in zip(weights, biases, strict=True):
        sums.append(W @ inputs[-1] + b)
        inputs.append(f(sums[-1]))
    logits = sums[-1] / temperature
    if loss == "cross_entropy":
        p = np.exp(logits - logits.max())
        d = (p / p.sum() - np.eye(N_CLASSES)[label]) / temperature
    else:  # mean over outputs of squared differences from one-hot
        d = 2 * (logits - np.eye(N_CLASSES)[label]) / N_CLASSES
    gradients, relevances = [None] * 3, [None] * 3
    for i in (2, 1, 0):
        gradients[i], relevances[i] = np.outer(d, inputs[i]), sums[i] * d
        if i:
            d = (weights[i].T @ d) * slope(sums[i - 1])
    return gradients, relevances


def mean_gradient(model, weights, temperature=1.0):
    """Mean gradient over X of the first and the last layer, zero where no weight is stored."""
    total = [0.0, 0.0]
    for x, label in zip(X, Y, strict=True):
        first, _, last = sample_gradients(model, weights, x, label, temperature)[0]
        total = [total[0] + first / N, total[1] + last / N]
    return [g * mask for g, mask in zip(total, masks(model), strict=True)]


def masks(model):
    return [model[i].weight.topology.to_dense() for i in (0, 4)]


def stored(model, dense):
    """Entries of two dense arrays where the targets have weights, canonical order."""
    pairs = zip(dense, (0, 4), strict=True)
    return [array[model[i].weight.topology.coo()] for array, i in pairs]


def check(model, scores, dense, dtype=np.float64):
    for score, expected in zip(scores, stored(model, dense), strict=True):
        assert score.dtype == np.float64
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(score, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


CASES = [
    pytest.param(kind, activation, dtype, id=f"{kind}-{activation.__name__}-{dtype.__name__}")
    for kind in ("sparse", "full")
    for activation in (nn.ReLU, nn.Tanh)
    for dtype in (np.float64, np.float32)
]


# ---------------------------------------------------------------- SNIP and Taylor


@pytest.mark.parametrize(("kind", "activation", "dtype"), CASES)
def test_snip_is_the_absolute_value_of_weight_times_gradient(kind, activation, dtype):
    model = network(kind, activation, dtype)
    W = dense_weights(model)
    gradients = mean_gradient(model, W)
    expected = [np.abs(w * g) for w, g in zip((W[0], W[2]), gradients, strict=True)]
    check(model, snip(context_of(model)), expected, dtype)


def test_taylor_is_the_mean_over_batches_of_the_squared_product():
    model = network()
    W = dense_weights(model)
    cuts = [slice(0, 20), slice(20, N)]
    expected = [0.0, 0.0]
    for cut in cuts:
        n = len(Y[cut])
        each = [sample_gradients(model, W, x, y)[0] for x, y in zip(X[cut], Y[cut], strict=True)]
        for k, i in enumerate((0, 2)):
            expected[k] += n / N * (W[i] * np.mean([g[i] for g in each], axis=0)) ** 2
    scores = taylor(context_of(model, [(X[cut], Y[cut]) for cut in cuts]))
    check(model, scores, expected)


def test_taylor_of_one_batch_is_snip_squared():
    context = context_of(network())
    for a, b in zip(taylor(context), snip(context), strict=True):
        np.testing.assert_allclose(a, b**2, rtol=1e-12)


@pytest.mark.parametrize("criterion", [snip, Grasp(), fisher, neuron_relevance])
def test_how_the_data_is_cut_into_batches_does_not_matter(criterion):
    model = network()
    cuts = [slice(0, 1), slice(1, 30), slice(30, N)]
    several = criterion(context_of(model, [(X[cut], Y[cut]) for cut in cuts]))
    for a, b in zip(criterion(context_of(model)), several, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * np.abs(a).max())


# ---------------------------------------------------------------- GraSP


@pytest.mark.parametrize(("kind", "activation", "dtype"), CASES)
@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_weight_times_hessian_times_gradient(kind, activation, dtype, temperature):
    model = network(kind, activation, dtype)
    W = dense_weights(model)
    g = mean_gradient(model, W, temperature)
    step = 1e-5 / max(np.abs(a).max() for a in g)
    ends = []
    for sign in (1, -1):
        moved = [W[0] + sign * step * g[0], W[1], W[2] + sign * step * g[1]]
        ends.append(mean_gradient(model, moved, temperature))
    products = [(a - b) / (2 * step) for a, b in zip(*ends, strict=True)]
    expected = [w * p for w, p in zip((W[0], W[2]), products, strict=True)]
    scores = Grasp(temperature)(context_of(model))
    for score, dense in zip(scores, stored(model, expected), strict=True):
        scale = np.abs(dense).max()
        assert scale > 0
        tolerance = 1e-6 if dtype == np.float64 else 5e-3
        np.testing.assert_allclose(score, dense, rtol=0, atol=tolerance * scale)


def test_the_weight_that_grasp_scores_highest_carries_most_gradient_flow():
    # The sign: ‖g‖² must fall when the best weight is taken out, and rise for the worst one.
    model = network(activation=nn.Tanh)
    (score, _) = Grasp(1.0)(context_of(model))
    rows, columns = model[0].weight.topology.coo()

    def flow(shrunk=None):
        W = dense_weights(model)
        if shrunk is not None:
            W[0][rows[shrunk], columns[shrunk]] *= 1 - 1e-3
        return sum((g**2).sum() for g in mean_gradient(model, W))

    best, worst = int(score.argmax()), int(score.argmin())
    assert score[best] > 0 > score[worst]
    assert flow(best) < flow() < flow(worst)
    # To first order the change is −2·(step·w)·(H·g).
    np.testing.assert_allclose(flow(best) - flow(), -2e-3 * score[best], rtol=0.02)


def test_grasp_is_zero_where_the_gradient_depends_on_no_weight():
    model = nn.Sequential(nn.SparseLinear(4, 3, density=0.5, dtype=np.float64, rng=0))
    (score,) = Grasp()(context_of(model, [(np.ones((2, 4)), None)], lambda out, y: out.sum()))
    np.testing.assert_array_equal(score, np.zeros(6))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan])
def test_grasp_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match="positive temperature"):
        Grasp(temperature)


# ---------------------------------------------------------------- Fisher, relevance

LOSSES = {
    "mean": (nn.CrossEntropyLoss(), "cross_entropy"),
    "sum": (lambda out, y: cross_entropy(out, y, reduction="sum"), "cross_entropy"),
    "mse": (lambda out, y: mse(out, np.eye(N_CLASSES)[np.asarray(y)]), "mse"),
}


@pytest.mark.parametrize(("kind", "activation", "dtype"), CASES)
@pytest.mark.parametrize("loss", LOSSES)
def test_fisher_is_half_the_mean_squared_sample_gradient_times_weight_squared(
    kind, activation, dtype, loss
):
    model = network(kind, activation, dtype)
    W = dense_weights(model)
    loss_fn, name = LOSSES[loss]
    h = [0.0, 0.0]
    for x, y in zip(X, Y, strict=True):
        gradients, _ = sample_gradients(model, W, x, y, loss=name)
        h = [h[0] + gradients[0] ** 2 / N, h[1] + gradients[2] ** 2 / N]
    context = context_of(model, [(X[:20], Y[:20]), (X[20:], Y[20:])], loss_fn)
    check(model, fisher_diagonal(context), h, dtype)
    check(model, fisher(context), [h[0] * W[0] ** 2 / 2, h[1] * W[2] ** 2 / 2], dtype)


def test_fisher_of_a_layer_used_twice_squares_the_whole_gradient_of_a_sample():
    layer = nn.SparseLinear(6, 6, density=0.6, dtype=np.float64, rng=0)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    x, y = RNG.standard_normal((9, 6)), RNG.integers(0, 6, 9)
    expected = 0.0
    for n in range(9):
        loss = nn.CrossEntropyLoss()(model(x[n : n + 1]), y[n : n + 1])
        expected += layer.weight.canonical(ns.grad(loss, [layer.weight])[0]) ** 2 / 9
    context = Context(model, targets(model)[:1], nn.CrossEntropyLoss(), [(x, y)])
    np.testing.assert_allclose(fisher_diagonal(context)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("loss_fn", [lambda out, y: nn.CrossEntropyLoss()(out, y) * len(y) ** 0.5])
def test_fisher_refuses_a_loss_that_is_neither_mean_nor_sum(loss_fn):
    with pytest.raises(ValueError, match="mean or the sum over samples"):
        fisher(context_of(network(), loss_fn=loss_fn))


def test_fisher_needs_one_target_per_sample():
    context = context_of(network(), [(X, None)], lambda out, y: (out * out).mean())
    with pytest.raises(ValueError, match=f"expected {N} targets"):
        fisher(context)


@pytest.mark.parametrize(("kind", "activation", "dtype"), CASES)
def test_relevance_is_the_mean_of_preactivation_times_its_gradient(kind, activation, dtype):
    model = network(kind, activation, dtype)
    W = dense_weights(model)
    each = [sample_gradients(model, W, x, y)[1] for x, y in zip(X, Y, strict=True)]
    for score, i in zip(neuron_relevance(context_of(model)), (0, 2), strict=True):
        expected = np.mean([np.abs(r[i]) for r in each], axis=0)
        np.testing.assert_allclose(score, expected, rtol=0, atol=TOLERANCE[dtype] * expected.max())


# ---------------------------------------------------------------- threads, traces, bad input


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", WITH_DATA)
def test_scores_have_the_same_bits_on_one_and_two_threads(name, dtype):
    criterion = WITH_DATA[name]
    model = nn.mlp([70, 300, 200, 10], sparsity=[0.9, None, 0.5], dtype=dtype, rng=0)
    x, y = RNG.standard_normal((300, 70)), RNG.integers(0, 10, 300)
    before, found = ns.get_num_threads(), []
    try:
        for n in (1, 2):
            ns.set_num_threads(n)
            found.append(criterion(context_of(model, [(x[:200], y[:200]), (x[200:], y[200:])])))
    finally:
        ns.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()


def noisy_model():
    return nn.Sequential(
        nn.SparseLinear(N_IN, 30, density=0.3, rng=0),
        nn.BatchNorm1d(30),
        nn.ReLU(),
        nn.Dropout(0.5, rng=1),
        nn.SparseLinear(30, N_CLASSES, density=0.3, rng=2),
    )


def snapshot(model):
    """Everything of a model that a pass might change, as comparable values."""
    state = {name: array.tobytes() for name, array in model.state_dict().items()}
    state["generator"] = model[3].rng.bit_generator.state
    state["modes"] = [module.training for module in model.modules()]
    state["gradients"] = [id(parameter.grad) for parameter in model.parameters()]
    state["taps"] = [id(model[i].taps) for i in (0, 4)]
    return state


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", WITH_DATA)
def test_scoring_leaves_no_trace_in_the_model(name, training):
    model = noisy_model().train(training)
    model[0].weight.grad = np.ones_like(model[0].weight.data)
    before = snapshot(model)
    context = context_of(model, [(X, Y), (X[:10], Y[:10])])
    first, second = WITH_DATA[name](context), WITH_DATA[name](context)
    assert snapshot(model) == before
    assert (model[0].weight.grad == 1).all()
    for a, b in zip(first, second, strict=True):
        assert np.isfinite(a).all()
        assert np.ptp(a) > 0
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", WITH_DATA)
def test_scoring_leaves_no_trace_after_an_error(name):
    model = noisy_model()
    before = snapshot(model)
    calls = []

    def loss_fn(out, y):
        calls.append(len(y))
        if len(calls) > 2:
            raise KeyError("broken loss")
        return nn.CrossEntropyLoss()(out, y)

    with pytest.raises(KeyError, match="broken loss"):
        WITH_DATA[name](context_of(model, [(X, Y)] * 3, loss_fn))
    assert snapshot(model) == before
    assert model[0].taps is None


@pytest.mark.parametrize("name", WITH_DATA)
def test_taps_that_somebody_else_set_are_kept_and_get_nothing(name):
    model = network()
    mine = []
    model[0].taps = mine
    WITH_DATA[name](context_of(model))
    assert model[0].taps is mine
    assert not mine


def test_the_mode_of_the_model_decides_about_dropout():
    model = noisy_model()
    training = snip(context_of(model))[0]
    model.eval()
    assert (training != snip(context_of(model))[0]).any()


@pytest.mark.parametrize("name", WITH_DATA)
def test_without_data_the_criterion_says_what_it_needs(name):
    model = network()
    with pytest.raises(ValueError, match="needs data: pass loss_fn"):
        WITH_DATA[name](Context(model, targets(model)))
    with pytest.raises(ValueError, match="needs data: pass batches"):
        WITH_DATA[name](Context(model, targets(model), nn.CrossEntropyLoss()))


def test_one_pair_in_place_of_a_list_of_pairs_is_refused():
    with pytest.raises(ValueError, match=r"batch 0 is a ndarray, not a pair.*\[\(x, y\)\]"):
        snip(context_of(network(), (X, Y)))


@pytest.mark.parametrize("loss_fn", [lambda out, y: 1.0, lambda out, y: out])
def test_a_loss_that_is_no_single_number_is_refused(loss_fn):
    with pytest.raises(TypeError, match="snip expects loss_fn"):
        snip(context_of(network(), loss_fn=loss_fn))


@pytest.mark.parametrize("name", WITH_DATA)
def test_a_loss_that_is_not_finite_is_refused(name):
    bad = X.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="the loss of batch 1 is nan"):
        WITH_DATA[name](context_of(network("full"), [(X, Y), (bad, Y)]))


def test_empty_layers_have_empty_scores():
    model = nn.Sequential(
        nn.SparseLinear(N_IN, 8, topology=Topology.empty((8, N_IN)), rng=0),
        nn.ReLU(),
        nn.SparseLinear(8, N_CLASSES, density=0.5, rng=0),
    )
    for criterion in (snip, taylor, Grasp(), fisher):
        assert [score.shape for score in criterion(context_of(model))] == [(0,), (20,)]


def test_a_data_loaders_batches_are_taken_as_they_come():
    loader = ns.data.DataLoader((X, Y), batch_size=16, shuffle=False, rng=0)
    model = network()
    for a, b in zip(snip(context_of(model, loader)), snip(context_of(model)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)
