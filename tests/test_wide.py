"""Wide layers cost what they hold: no array of n_in x n_out, and none that grows with more than the weights."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from nnsparse import Topology, memory_report, nn, optim, tiles
from nnsparse.plan import plan_of
from nnsparse.sparsify import Sparsifier, rigl, set_, update
from nnsparse.train import evaluate

N, FAN_IN = 100_000, 5  # 10¹⁰ positions a layer


@pytest.fixture
def peak():
    """Returns a function that calls another and says how many bytes it held at most."""

    def of(call):
        tiles.pool.clear()
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return of


def batch(rng, n_features):
    x = sparse.random_array((8, n_features), density=20 / n_features, rng=rng, dtype=np.float32)
    return x.tocsr() * np.float32(50), rng.integers(10, size=8)


def step(model, optimizer, rng):
    x, y = batch(rng, model[0].in_features)
    loss = nn.CrossEntropyLoss()(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def network():
    density = FAN_IN / N
    return nn.mlp(
        [N // 10, N, N, 100, 10], sparsity=[1 - 10 * density, 1 - density, 0.95, None], rng=0
    )


def test_a_topology_and_its_plan_take_bytes_per_nonzero_and_per_neuron(peak):
    found = []
    assert (
        peak(lambda: found.append(Topology.random((N, N), nnz=FAN_IN * N, rng=0))) < 45 * FAN_IN * N
    )
    topology = found[0]
    assert peak(lambda: plan_of(topology)) < 100 * FAN_IN * N
    assert plan_of(topology).nbytes + topology.nbytes < 25 * FAN_IN * N
    assert peak(lambda: topology.random_free(N, 1)) < 40 * FAN_IN * N


@pytest.mark.parametrize("recipe", [set_, rigl])
def test_training_and_updates_of_wide_layers_take_bytes_per_weight(recipe, peak):
    model, rng = network(), np.random.default_rng(0)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    weights = sum(p.size for p in model.parameters())
    sparsifier = Sparsifier(model, optimizer, recipe(every=2), 8, rng=0)
    before = [target.topology for target in sparsifier.targets]

    def two_steps():
        for _ in range(2):
            step(model, optimizer, rng)
            sparsifier.step()

    assert peak(two_steps) < 250 * weights + 64 * 16 * 4 * N
    assert [t.topology.nnz for t in sparsifier.targets] == [topology.nnz for topology in before]
    moved = [t.topology != b for t, b in zip(sparsifier.targets, before, strict=True)]
    assert moved == [True] * len(before)
    assert np.isfinite(step(model, optimizer, rng))


def test_an_update_gives_large_free_activations_back_to_the_system_first(monkeypatch):
    model = nn.mlp([1000, 50_000, 10], sparsity=[0.99, 0.99], rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    rng = np.random.default_rng(0)
    sparsifier = Sparsifier(model, optimizer, set_(every=1), 8, rng=0)
    for idle, expected in ((2**30, True), (2**20, False)):
        monkeypatch.setattr(update, "_IDLE", idle)
        tiles.pool.clear()
        step(model, optimizer, rng)
        held = tiles.pool.nbytes()
        assert held > 2 * 16 * 50_000 * 4
        sparsifier.step()
        assert (tiles.pool.nbytes() >= held) == expected


def test_reports_and_predictions_of_wide_models_take_little(peak):
    model, rng = network(), np.random.default_rng(0)
    x = sparse.random_array((1500, N // 10), density=20 / N, rng=rng, dtype=np.float32).tocsr()
    y = rng.integers(10, size=1500)
    report = memory_report(model)
    assert "1.000" in str(report)
    assert report.layers[0].dense_total == 2 * 4 * N * N // 10
    # 1024 samples at a time would take 400 MB for each of two layers.
    assert peak(lambda: evaluate(model, nn.CrossEntropyLoss(), (x, y))) < 1.2e9
    assert model._batch_size(model._rows(x)) == 656
