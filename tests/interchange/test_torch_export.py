"""`to_torch`, and both ways in turn: the same bits, the same topologies, the same outputs."""

import copy

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import Topology, nn

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((9, 12)).astype(np.float32)


def network(dtype=np.float32):
    """Return a network with every layer that takes numbers, one stored weight being zero."""
    first = nn.SparseLinear(12, 10, sparsity=0.7, rng=0, dtype=dtype)
    first.weight.data[3] = 0
    norm = nn.BatchNorm1d(9, eps=1e-3, momentum=0.2, dtype=dtype)
    norm.running_mean[...], norm.running_var[...] = 0.5, 2.0
    norm.weight.data[...] = 1.5
    layers = [first, nn.ReLU(), nn.Dropout(0.3), nn.NumpyLinear(10, 9, rng=1, dtype=dtype), norm]
    layers += [nn.LeakyReLU(0.2), nn.Sequential(nn.Linear(9, 8, rng=2, dtype=dtype), nn.Tanh())]
    layers += [
        nn.SparseLinear(8, 8, bias=False, density=0.3, rng=3, dtype=dtype),
        nn.AllReLU(0.6, 0),
    ]
    layers += [nn.Linear(8, 8, rng=4, dtype=dtype), nn.AllReLU(0.6, 1)]
    layers += [nn.Linear(8, 4, bias=False, rng=5, dtype=dtype), nn.GELU(), nn.Sigmoid()]
    return nn.Sequential(*layers).eval()


def outputs(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("weights", ["dense", "pruned", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_computes_the_same(weights, dtype):
    model, x = network(dtype), X.astype(dtype)
    module = ns.to_torch(model, weights=weights)
    got = outputs(module, x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, model.predict(x), atol=1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("weights", ["dense", "pruned", "csr"])
def test_there_and_back_keeps_every_bit(weights):
    model = network()
    sparse = ["0", "8"] if weights == "dense" else None
    back = ns.from_torch(ns.to_torch(model, weights=weights), sparse=sparse)
    for got, want in zip(back.parameters(), model.parameters(), strict=True):
        if isinstance(want, ns.SparseParameter):
            if weights != "dense":
                assert got.topology == want.topology
            np.testing.assert_array_equal(got.to_dense(), want.to_dense())
        else:
            np.testing.assert_array_equal(got.data, want.data)
    np.testing.assert_array_equal(back[4].running_mean, model[4].running_mean)
    np.testing.assert_array_equal(back[4].running_var, model[4].running_var)
    assert (back[4].eps, back[4].momentum, back[2].p) == (1e-3, 0.2, 0.3)
    np.testing.assert_allclose(back.predict(X), model.predict(X), atol=1e-6)


@pytest.mark.parametrize("weights", ["dense", "pruned", "csr"])
def test_a_state_dict_goes_back_too(weights):
    model = nn.mlp([12, 20, 4], sparsity=0.8, rng=0)
    back = ns.from_torch(ns.to_torch(model, weights=weights).state_dict())
    np.testing.assert_array_equal(back[0].to_scipy().toarray(), model[0].to_scipy().toarray())
    np.testing.assert_allclose(back.predict(X), model.predict(X), atol=1e-6)


def test_dense_weights_are_those_of_a_plain_network():
    module = ns.to_torch(nn.mlp([12, 20, 4], sparsity=0.8, rng=0))
    assert list(module.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    plain = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 4))
    plain.load_state_dict(module.state_dict())
    copy.deepcopy(module)
    assert all(p.requires_grad and p.is_leaf for p in module.parameters())


def test_pruned_weights_stay_zero_when_torch_trains():
    model = nn.mlp([12, 20, 4], sparsity=[0.8, None], rng=0)
    module = ns.to_torch(model, weights="pruned")
    for _ in range(3):
        module(torch.from_numpy(X)).square().mean().backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= 0.1 * p.grad
    back = ns.from_torch(module)
    assert back[0].weight.topology == model[0].weight.topology
    assert not np.array_equal(back[0].weight.data, model[0].weight.data)


def test_a_wide_layer_as_csr_is_never_dense():
    wide = 200_000  # 160 GB of float32
    at = np.arange(100)
    topology = Topology.from_coo((wide, wide), at, at * 7)
    module = ns.to_torch(nn.SparseLinear(wide, wide, topology=topology, rng=0), weights="csr")
    assert module[0].weight.values().numel() == 100


def test_training_mode_and_dropout_are_taken_over():
    model = nn.Sequential(nn.Linear(12, 4), nn.Dropout(0.25))
    assert ns.to_torch(model).training
    assert ns.to_torch(model)[1].p == 0.25
    assert not ns.to_torch(model.eval()).training


def test_nothing_is_shared_and_the_random_state_of_torch_stays():
    model = network()
    before = model.predict(X)
    torch.manual_seed(3)
    module = ns.to_torch(model)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
        for b in module.buffers():
            b.zero_()
    np.testing.assert_array_equal(model.predict(X), before)
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(3))


def test_a_layer_in_two_places_is_one_layer():
    shared = nn.Linear(12, 12, rng=0)
    module = ns.to_torch(nn.Sequential(shared, nn.Tanh(), shared))
    assert module[0] is module[2]


def test_weights_hidden_from_the_forward_pass_are_zero():
    layer = nn.SparseLinear(12, 4, density=0.5, rng=0)
    layer.weight.buffers["forward"] = (np.arange(24) % 2).astype(np.float32)
    for weights in ("dense", "pruned", "csr"):
        module = ns.to_torch(layer, weights=weights)
        np.testing.assert_allclose(outputs(module, X), layer.predict(X), atol=1e-6)


TOKENS = np.array([[3, 5, 0, 2], [7, 0, 0, 0], [1, 1, 2, 9]])
EMBEDDED = {
    "mean": lambda: [nn.EmbeddingBag(10, 4, "mean", 0, rng=0)],
    "sum": lambda: [nn.EmbeddingBag(10, 4, "sum", rng=0)],
    "pooled": lambda: [nn.Embedding(10, 4, 0, rng=0), nn.GlobalAveragePooling1D()],
    "pooled, all": lambda: [nn.Embedding(10, 4, rng=0), nn.GlobalAveragePooling1D()],
    "flat": lambda: [nn.Embedding(10, 4, 0, rng=0)],
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embeddings_both_ways(name):
    front = EMBEDDED[name]()
    front[0].weight.data[0] = 5.0  # counts where 0 is no padding
    model = nn.Sequential(*front, nn.Linear(16 if name == "flat" else 4, 2, rng=1)).eval()
    module = ns.to_torch(model)
    np.testing.assert_allclose(outputs(module, TOKENS), model.predict(TOKENS), atol=1e-5)
    back = ns.from_torch(module)
    np.testing.assert_allclose(back.predict(TOKENS), model.predict(TOKENS), atol=1e-6)


class Custom(nn.Module):
    def forward(self, x):
        return x


REFUSED = {
    "no module": (7, {}, TypeError, "to_torch expects a Module; got int"),
    "another way to store": (
        nn.Linear(2, 2),
        {"weights": "coo"},
        ValueError,
        r"weights as one of \('dense', 'pruned', 'csr'\); got 'coo'",
    ),
    "a layer of one's own": (
        nn.Sequential(nn.Linear(2, 2), nn.Sequential(Custom())),
        {},
        TypeError,
        r"cannot take layer 1.0 \(Custom\): expected layers of nnsparse.nn",
    ),
    "a module of one's own": (Custom(), {}, TypeError, r"cannot take \(Custom\)"),
    "an average without embedding": (
        nn.Sequential(nn.Linear(2, 2), nn.GlobalAveragePooling1D()),
        {},
        ValueError,
        "GlobalAveragePooling1D directly behind an Embedding",
    ),
    "an average alone": (nn.GlobalAveragePooling1D(), {}, ValueError, "directly behind"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_cannot_be_given_is_refused(name):
    model, arguments, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ns.to_torch(model, **arguments)
