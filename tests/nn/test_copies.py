"""Copies and pickles of models: of every kind of layer, alone and together with what trains them."""

import copy
import pickle

import numpy as np
import pytest
from scipy import sparse

import nnsparse.plan as plans
from nnsparse import nn, optim, schedule, tiles
from nnsparse.machine import Choices
from nnsparse.ops import pointwise
from nnsparse.parameter import SparseParameter
from nnsparse.sparsify import Sparsifier, rigl

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 12)).astype(np.float32)
Y = RNG.integers(0, 5, 40)
TOKENS = RNG.integers(0, 30, (40, 6))
COUNTS = sparse.csr_matrix(np.where(RNG.random((40, 30)) < 0.2, 1.0, 0.0))
LOSS = nn.CrossEntropyLoss()


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


DUPLICATES = {"deepcopy": copy.deepcopy, "pickle": pickled}


class Twice(nn.Module):
    """A model of somebody's own, which uses one layer twice and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.one = nn.SparseLinear(12, 12, sparsity=0.5, rng=0)
        self.two = self.one
        self.noise = np.random.default_rng(3)

    def forward(self, x):
        return self.two(pointwise.dropout(self.one(x), 0.5, self.noise))


MODELS = {
    "sparse": lambda: (nn.mlp([12, 20, 5], sparsity=0.6, rng=0), X),
    "full": lambda: (nn.mlp([12, 20, 5], sparsity=0.0, rng=0), X),
    "no bias": lambda: (nn.SparseLinear(12, 5, False, sparsity=0.5, rng=0), X),
    "dense": lambda: (nn.Sequential(nn.Linear(12, 9, rng=0), nn.Tanh(), nn.Linear(9, 5, rng=1)), X),
    "numpy": lambda: (
        nn.Sequential(nn.NumpyLinear(12, 9, rng=0), nn.GELU(), nn.NumpyLinear(9, 5, rng=1)),
        X,
    ),
    "float64": lambda: (nn.mlp([12, 20, 5], sparsity=0.6, rng=0, dtype=np.float64), X),
    "normalised": lambda: (
        nn.Sequential(
            nn.BatchNorm1d(12),
            nn.SparseLinear(12, 16, sparsity=0.5, rng=0),
            nn.BatchNorm1d(16, affine=False),
            nn.LeakyReLU(),
            nn.Dropout(0.3, rng=7),
            nn.Sequential(nn.Linear(16, 5, rng=1), nn.Sigmoid()),
        ),
        X,
    ),
    "bag of tokens": lambda: (
        nn.Sequential(
            nn.EmbeddingBag(30, 8, padding_idx=0, rng=0), nn.SparseLinear(8, 5, sparsity=0.4, rng=1)
        ),
        TOKENS,
    ),
    "bag of counts": lambda: (
        nn.Sequential(nn.EmbeddingBag(30, 8, mode="sum", rng=0), nn.Linear(8, 5, rng=1)),
        COUNTS,
    ),
    "embedding": lambda: (
        nn.Sequential(
            nn.Embedding(30, 8, rng=0), nn.GlobalAveragePooling1D(), nn.Linear(8, 5, rng=1)
        ),
        TOKENS,
    ),
    "sparse input": lambda: (nn.mlp([30, 20, 5], sparsity=0.5, rng=0), COUNTS),
    "shared": lambda: (Twice(), X),
}


def step(model, optimizer, x):
    loss = LOSS(model(x), Y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def state(model):
    return {name: (array.dtype, array.tobytes()) for name, array in model.state_dict().items()}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("how", DUPLICATES)
def test_a_copy_trains_on_with_the_same_bits_and_shares_nothing(kind, how):
    model, x = MODELS[kind]()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        step(model, optimizer, x)
    twin, its_optimizer = DUPLICATES[how]((model, optimizer))
    assert all(a is b for a, b in zip(twin.parameters(), its_optimizer.params, strict=True))
    assert state(twin) == state(model)
    before = state(twin)
    losses = [step(model, optimizer, x) for _ in range(3)]
    assert state(twin) == before
    assert [step(twin, its_optimizer, x) for _ in range(3)] == losses
    assert state(twin) == state(model)
    np.testing.assert_array_equal(twin.predict(x), model.predict(x))


@pytest.mark.parametrize("how", DUPLICATES)
def test_mode_gradient_and_buffers_are_copied_and_arrays_are_aligned(how):
    model, x = MODELS["normalised"]()
    model.eval()
    LOSS(model(x), Y).backward()
    model[1].weight.buffers["mine"] = RNG.standard_normal(model[1].nnz)
    twin = DUPLICATES[how](model)
    assert not any(part.training for part in twin.modules())
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)
        assert not np.shares_memory(a.grad, b.grad)
        assert b.data.ctypes.data % 64 == 0
        assert b.requires_grad
    np.testing.assert_array_equal(twin[1].weight.buffers["mine"], model[1].weight.buffers["mine"])


def test_a_pickle_of_another_machine_has_its_weights_where_they_belong(monkeypatch):
    """The order in memory follows the machine's caches; a pickle must not depend on it."""
    model, x = nn.mlp([60, 20, 5], sparsity=0.6, rng=0), RNG.random((40, 60))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer, x)
    content, expected = pickle.dumps((model, optimizer)), model.predict(x)
    momentum = optimizer.state_dict()["0.momentum"]
    order = model[0].weight.data.copy()
    monkeypatch.setattr(plans, "choices", lambda: Choices(base=16, dense_enough=()))
    twin, its_optimizer = pickle.loads(content)
    assert not np.array_equal(twin[0].weight.data, order)  # the test would show nothing otherwise
    np.testing.assert_allclose(twin.predict(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(its_optimizer.state_dict()["0.momentum"], momentum)
    np.testing.assert_array_equal(
        twin[0].weight.canonical(twin[0].weight.grad),
        model[0].weight.canonical(model[0].weight.grad),
    )


def test_a_copied_training_with_sparsifier_and_schedule_goes_on_bit_for_bit():
    model, x = MODELS["sparse"]()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    updates = [
        Sparsifier(model, optimizer, rigl(0.7, every=4), total_steps=20),
        optim.LRScheduler(optimizer, schedule.cosine(), 20),
    ]

    def train(steps, model, optimizer, updates):
        for _ in range(steps):
            step(model, optimizer, x)
            for update in updates:
                update.step()

    train(7, model, optimizer, updates)  # the next step's gradients are noted
    twins = copy.deepcopy((model, optimizer, updates))
    train(13, model, optimizer, updates)
    train(13, *twins)
    assert state(twins[0]) == state(model)


def test_a_sparse_parameter_by_itself_keeps_type_and_topology():
    model, _ = MODELS["sparse"]()
    weight = model[0].weight
    for duplicate in DUPLICATES.values():
        twin = duplicate(weight)
        assert type(twin) is SparseParameter
        assert twin.topology == weight.topology
        twin.buffers["new"] = tiles.zeros(twin.shape)
        assert not weight.buffers
