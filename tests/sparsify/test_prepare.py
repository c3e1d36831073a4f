"""Models for pruning: dense layers that store all weights sparsely, and the swap to the faster storage."""

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.sparsify import Crossover, prunable, swap, targets
from nnsparse.sparsify.holding import alive_topology, hold

X = np.random.default_rng(0).standard_normal((10, 20)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 5, 10)


def test_every_dense_layer_becomes_a_full_sparse_one_with_the_same_function():
    model = nn.mlp([20, 16, 12, 5], sparsity=[None, 0.5, None], rng=0)
    before = model(X).numpy()
    made = prunable(model)
    kinds = [nn.SparseLinear, nn.ReLU, nn.SparseLinear, nn.ReLU, nn.SparseLinear]
    assert [type(layer) for layer in made] == kinds
    assert [made[i].weight.topology.is_full for i in (0, 2, 4)] == [True, False, True]
    np.testing.assert_array_equal(made(X).numpy(), before)


def test_nothing_is_shared_with_the_old_model():
    model = nn.mlp([20, 16, 5], sparsity=[None, 0.5], rng=0)
    made = prunable(model)
    for parameter in model.parameters():
        parameter.data[...] = np.nan
    assert np.isfinite(made(X).numpy()).all()
    assert not {id(p) for p in made.parameters()} & {id(p) for p in model.parameters()}


def test_what_an_optimizer_kept_is_left_behind():
    model = nn.mlp([20, 16, 5], sparsity=[0.5, None], rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    nn.CrossEntropyLoss()(model(X), Y).backward()
    optimizer.step()
    made = prunable(model)
    assert all(p.grad is None and not p.buffers for p in made.parameters())
    assert any(p.grad is not None for p in model.parameters())


def test_nested_models_shared_layers_biases_dtypes_and_modes_are_kept():
    shared = nn.Linear(8, 8, bias=False, dtype=np.float64, rng=0)
    inner = nn.Sequential(shared, nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8, dtype=np.float64))
    model = nn.Sequential(inner, shared, nn.NumpyLinear(8, 3, dtype=np.float64, rng=1))
    inner.eval()
    made = prunable(model)
    assert made[0][0] is made[1]
    assert made[1].bias is None
    assert made.dtype == np.float64
    assert made.training
    assert not made[0].training
    assert not made[0][2].training
    x = np.random.default_rng(0).standard_normal((4, 8))
    np.testing.assert_allclose(made.predict(x), model.predict(x), rtol=1e-12, atol=1e-12)


def test_skipped_layers_stay_dense():
    made = prunable(nn.mlp([20, 16, 5], rng=0), skip=["2"])
    assert [type(made[i]).__name__ for i in (0, 2)] == ["SparseLinear", "Linear"]


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(TypeError, match="expects a Sequential; got Linear"):
        prunable(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"skip names \['7'\].*it has \['0', '1', '2'\]"):
        prunable(nn.mlp([20, 16, 5], rng=0), skip=["7"])


def test_swap_moves_nearly_full_layers_to_the_dense_kernels_and_sparse_ones_back():
    model = nn.mlp([20, 16, 5], sparsity=[0.05, 0.5], rng=0)
    before, patterns = model(X).numpy(), [model[i].weight.topology for i in (0, 2)]
    assert swap(model) == ["0"]
    assert model[0].weight.topology.is_full
    assert model[2].weight.topology is patterns[1]
    np.testing.assert_allclose(model(X).numpy(), before, rtol=0, atol=1e-5)
    assert swap(model) == []
    assert swap(model, Crossover(0.0, 0.0)) == ["0"]
    assert model[0].weight.topology == patterns[0]
    assert swap(model, Crossover(1.0), skip=["0"]) == ["2"]


def test_training_goes_on_over_swaps_as_if_there_were_none():
    runs = []
    for swaps in (True, False):
        model = nn.mlp([20, 16, 5], sparsity=[0.1, 0.5], dtype=np.float64, rng=0)
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        for step in range(6):
            loss = nn.CrossEntropyLoss()(model(X), Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for i in (0, 2):
                hold(model[i].weight, optimizer.settings.slots)
            if swaps:
                swap(model, Crossover(1.0 if step % 2 else 0.0, 0.0))
        swap(model, Crossover(0.0, 0.0))
        runs.append(model)
    for i in (0, 2):
        a, b = (model[i].weight for model in runs)
        assert a.topology == b.topology
        np.testing.assert_allclose(a.canonical(), b.canonical(), rtol=1e-9, atol=1e-12)
        for slot in ("exp_avg", "exp_avg_sq"):
            np.testing.assert_allclose(
                a.canonical(a.buffers[slot]), b.canonical(b.buffers[slot]), rtol=1e-9, atol=1e-14
            )


def test_swap_keeps_the_parameter_objects():
    model = nn.mlp([20, 16, 5], sparsity=[0.05, 0.5], rng=0)
    weight = model[0].weight
    swap(model)
    assert model[0].weight is weight
    assert alive_topology(targets(model)[0]).nnz == 304
