"""`Sequential` and `mlp`: fusion changes nothing, and layer densities are those of the literature."""

import copy
import pickle

import numpy as np
import pytest

from nnsparse import nn, tiles
from nnsparse.autograd import Tensor
from nnsparse.nn.dropout import Dropout
from nnsparse.plan import plans_built
from nnsparse.topology import Topology

RNG = np.random.default_rng(0)
X = RNG.standard_normal((100, 12)).astype(np.float32)
D = RNG.standard_normal((100, 5)).astype(np.float32)


class Unfused(nn.Module):
    """The same layers one by one, each with a kernel of its own."""

    def __init__(self, sequential: nn.Sequential) -> None:
        super().__init__()
        self.inner = sequential

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.inner:
            x = layer.forward(x)
        return x


def network(kind):
    layers = {
        "sparse": lambda *s: nn.SparseLinear(*s, sparsity=0.6, rng=0),
        "dense": lambda *s: nn.Linear(*s, rng=0),
        "numpy": lambda *s: nn.NumpyLinear(*s, rng=0),
    }[kind]
    return nn.Sequential(layers(12, 40), nn.ReLU(), layers(40, 40), nn.ReLU(), layers(40, 5))


@pytest.mark.parametrize("kind", ["sparse", "dense", "numpy"])
def test_fused_and_unfused_layers_give_the_same_bits_forward_and_backward(kind):
    fused = network(kind)
    for layer in fused:
        if not isinstance(layer, nn.ReLU):
            layer.bias.data[:] = RNG.standard_normal(layer.out_features)
    unfused = Unfused(copy.deepcopy(fused))
    a, b = fused(X), unfused(X)
    np.testing.assert_array_equal(a.data, b.data)
    a.backward(D)
    b.backward(D)
    for (name, p), (_, q) in zip(
        fused.named_parameters(), unfused.inner.named_parameters(), strict=True
    ):
        np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)


def test_a_nan_goes_through_the_fused_relu_to_the_output_and_the_gradients():
    m = network("sparse")
    x = X.copy()
    x[3] = np.nan
    out = m(x)
    assert np.isnan(out.numpy()[3]).all()
    assert np.isfinite(np.delete(out.numpy(), 3, 0)).all()
    out.backward(D)
    assert np.isnan(m[0].weight.grad).any()


def test_a_relu_after_a_relu_and_a_relu_at_the_front_are_applied_too():
    linear = nn.Linear(12, 5, rng=0)
    m = nn.Sequential(nn.ReLU(), linear, nn.ReLU(), nn.ReLU())
    expected = np.maximum(linear(np.maximum(X, 0)).numpy(), 0)
    np.testing.assert_array_equal(m(X).numpy(), expected)


def test_a_sequence_is_a_sequence_of_its_layers():
    layers = [nn.Linear(12, 5, rng=0), nn.ReLU()]
    m = nn.Sequential(*layers)
    assert len(m) == 2
    assert list(m) == layers
    assert m[1] is layers[1]
    assert m[-1] is layers[1]
    assert repr(m) == "Sequential(\n  (0) Linear(12 -> 5)\n  (1) ReLU()\n)"
    assert repr(nn.Sequential()) == "Sequential()"


def test_an_empty_sequence_returns_its_input():
    np.testing.assert_array_equal(nn.Sequential()(X).numpy(), X)


def test_sequences_can_be_nested():
    inner = nn.Sequential(nn.Linear(12, 7, rng=0), nn.ReLU())
    outer = nn.Sequential(inner, nn.Linear(7, 5, rng=1))
    flat = nn.Sequential(*inner, outer[1])
    np.testing.assert_array_equal(outer(X).numpy(), flat(X).numpy())
    assert next(outer.named_parameters())[0] == "0.0.weight"


def test_a_layer_used_twice_has_its_parameters_once_and_both_gradients():
    shared = nn.SparseLinear(12, 12, sparsity=0.5, rng=0)
    m = nn.Sequential(shared, nn.ReLU(), shared)
    assert len(list(m.parameters())) == 2
    d = np.ones((100, 12), np.float32)
    m(X).backward(d)
    first, last = copy.deepcopy(shared), copy.deepcopy(shared)
    first.zero_grad(), last.zero_grad()
    nn.Sequential(first, nn.ReLU(), last)(X).backward(d)
    expected = first.weight.grad + last.weight.grad
    np.testing.assert_allclose(shared.weight.grad, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("argument", [nn.ReLU, [nn.ReLU()], np.tanh, None])
def test_what_is_no_module_is_refused(argument):
    with pytest.raises(TypeError, match="expects modules; argument 1 is"):
        nn.Sequential(nn.ReLU(), argument)


def test_layers_of_different_dtypes_are_refused_when_they_meet():
    m = nn.Sequential(nn.Linear(12, 7), nn.SparseLinear(7, 5, density=1, dtype=np.float64))
    with pytest.raises(TypeError, match="float64 weights; got a float32 activation"):
        m(X)


def test_layers_that_do_not_fit_are_refused_by_name():
    m = nn.Sequential(nn.Linear(12, 7), nn.Linear(8, 5))
    with pytest.raises(ValueError, match=r"Linear\(8 -> 5\) expects x of shape \(batch, 8\)"):
        m(X)


def test_a_model_of_numpy_layers_takes_the_batch_as_one_tile_and_a_mixed_one_does_not():
    assert network("numpy")(X).data.shape == (1, 5, 100)
    mixed = nn.Sequential(nn.NumpyLinear(12, 7, rng=0), nn.Linear(7, 5, rng=0))
    out = mixed(X)
    assert out.data.shape == (2, 5, 64)
    dense = nn.Sequential(nn.Linear(12, 7, rng=0), nn.Linear(7, 5, rng=0))
    np.testing.assert_allclose(out.numpy(), dense(X).numpy(), rtol=0, atol=1e-4)
    out.backward(D)
    dense(X).backward(D)
    np.testing.assert_allclose(mixed[0].weight.grad, dense[0].weight.grad, rtol=0, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 16, 17, 33, 100])
def test_unwritten_memory_never_reaches_a_result(batch, monkeypatch):
    m, x, d = network("sparse"), X[:batch], D[:batch]
    expected = m(x)
    expected.backward(d)
    gradients = [p.grad.copy() for p in m.parameters()]
    m.zero_grad()
    monkeypatch.setattr(tiles, "_POISON", True)
    out = m(x)
    out.backward(d)
    np.testing.assert_array_equal(out.numpy(), expected.numpy())
    for p, gradient in zip(m.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(p.grad, gradient)


def test_training_builds_one_plan_per_layer():
    m, before = network("sparse"), plans_built()
    for _ in range(4):
        m.zero_grad()
        m(X).backward(D)
        for p in m.parameters():
            p.data -= 0.01 * p.grad
        m.predict(X)
    assert plans_built() == before + 3


def test_a_state_goes_to_a_network_of_another_topology_and_back():
    a = network("sparse")
    b = nn.mlp([12, 40, 40, 5], sparsity=[0.9, 0.3, 0.5], rng=9)
    before = b.predict(X)
    kept = b.state_dict()
    b.load_state_dict(a.state_dict())
    np.testing.assert_array_equal(b.predict(X), a.predict(X))
    assert b[2].weight.topology == a[2].weight.topology
    b.load_state_dict(kept)
    np.testing.assert_array_equal(b.predict(X), before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copied_network_trains_alike_and_apart(duplicate):
    a = nn.Sequential(*network("sparse"), Dropout(0.5, rng=0))
    b = duplicate(a)
    for m in (a, b):
        m(X).backward(D)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert p is not q
        np.testing.assert_array_equal(p.grad, q.grad)
        assert not np.shares_memory(p.data, q.data)


# ---------------------------------------------------------------- mlp


def test_an_mlp_has_relu_between_its_layers_and_none_at_the_end():
    m = nn.mlp([12, 9, 7, 5], rng=0)
    assert [type(layer).__name__ for layer in m] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [name for name, _ in m.named_parameters()] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
        "4.weight",
        "4.bias",
    ]


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.95])
def test_an_mlp_has_exactly_the_number_of_weights_asked_for(sparsity, distribution):
    sizes = [784, 300, 100, 10]
    m = nn.mlp(sizes, sparsity=sparsity, distribution=distribution, rng=0)
    total = 784 * 300 + 300 * 100 + 100 * 10
    nnz = sum(layer.weight.size for layer in m if not isinstance(layer, nn.ReLU))
    assert abs(nnz - (1 - sparsity) * total) <= (1 if distribution == "erk" else 3)


def test_one_sparsity_per_layer_may_be_given_and_none_means_dense():
    m = nn.mlp([10, 20, 30, 40], sparsity=[None, 0.5, 0], rng=0)
    assert [type(m[i]).__name__ for i in (0, 2, 4)] == ["Linear", "SparseLinear", "Linear"]
    assert m[2].sparsity == 0.5


def test_the_seed_decides_an_mlp():
    a, b, c = (nn.mlp([12, 20, 5], sparsity=0.5, rng=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.predict(X), b.predict(X))
    assert (a.predict(X) != c.predict(X)).any()
    assert isinstance(a[0].weight.topology, Topology)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([5], {}, r"at least two sizes, input and output; got \[5\]"),
        ([5, 0], {}, "integer >= 1; got 0"),
        ([5, 3], {"sparsity": 1.5}, r"\[0, 1\]"),
        ([5, 3], {"sparsity": -0.5}, r"\[0, 1\]"),
        ([5, 4, 3], {"sparsity": [0.5]}, "one sparsity per layer, 2 of them; got 1"),
        ([5, 3], {"distribution": "random"}, "'erk' or 'uniform'; got 'random'"),
    ],
)
def test_a_bad_mlp_is_refused(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        nn.mlp(sizes, **options)
