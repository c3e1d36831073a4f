"""`memory_report`: every byte of a sparse layer, counted and compared with what is really there."""

import tracemalloc

import numpy as np
import pytest

from nnsparse import memory_report, nn, optim
from nnsparse.data import DataLoader
from nnsparse.plan import plan_of
from nnsparse.topology import Topology


def trained(model, n_in):
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    out = model(np.ones((3, n_in), np.float32))
    out.backward(np.ones(out.shape))
    optimizer.step()
    return model


def test_a_layer_at_95_percent_with_momentum_takes_at_most_24_bytes_per_nonzero():
    model = trained(nn.SparseLinear(1024, 1024, False, sparsity=0.95, rng=0), 1024)
    (layer,) = memory_report(model).layers
    assert layer.without_pointers <= 24 * layer.nnz
    assert layer.pointers <= 24 * 2 * 1024 + layer.nnz  # a few bytes for each run of nonzeros


def test_what_is_reported_is_what_the_arrays_take():
    model = trained(nn.SparseLinear(300, 100, sparsity=0.9, rng=0), 300)
    report = memory_report(model)
    weight, bias = report.layers
    p, plan = model.weight, plan_of(model.weight.topology)
    assert weight.name == "weight"
    assert weight.shape == (100, 300)
    assert weight.nnz == 3000
    assert weight.values == weight.gradient == p.data.nbytes == p.grad.nbytes == 12_000
    assert weight.state == sum(b.nbytes for b in p.buffers.values()) == 12_000
    assert weight.maps == plan.source.nbytes
    assert weight.indices + weight.maps + weight.pointers == plan.nbytes + p.topology.nbytes
    assert weight.total == weight.without_pointers + weight.pointers
    assert (bias.name, bias.shape, bias.total) == ("bias", (100,), 1200)
    assert report.total == weight.total + bias.total


def test_the_orders_of_a_dense_pattern_are_counted_too():
    model = trained(nn.SparseLinear(300, 100, False, sparsity=0.5, rng=0), 300)
    (weight,) = memory_report(model).layers
    plan = plan_of(model.weight.topology)
    assert weight.maps == sum(a.nbytes for a in (plan.source, plan.quads_source) if a is not None)
    topology = model.weight.topology
    assert weight.indices + weight.maps + weight.pointers == plan.nbytes + topology.nbytes


def test_a_dense_layer_takes_values_gradient_and_state():
    (weight,) = memory_report(trained(nn.Linear(30, 20, False, rng=0), 30)).layers
    assert weight.total == weight.dense_total == 3 * 4 * 600


def test_a_sparse_layer_is_compared_with_the_dense_one_of_its_shape():
    (weight,) = memory_report(
        trained(nn.SparseLinear(300, 100, False, sparsity=0.9, rng=0), 300)
    ).layers
    assert weight.dense_total == 3 * 4 * 30_000


def test_a_layer_without_nonzeros_is_compared_too():
    (weight,) = memory_report(nn.SparseLinear(30, 20, False, sparsity=1.0)).layers
    assert weight.nnz == weight.without_pointers == 0
    assert weight.dense_total == 2 * 4 * 600


def test_the_report_is_a_table_with_a_line_per_parameter_and_a_sum():
    model = trained(nn.mlp([300, 100, 10], sparsity=[0.9, None], rng=0), 300)
    report = memory_report(model)
    lines = str(report).splitlines()
    assert lines[0].split()[:3] == ["parameter", "shape", "nnz"]
    assert [line.split()[0] for line in lines[1:6]] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
        "all",
    ]
    assert "100x300" in lines[1]
    assert f"{report.total:,}" in lines[5]


def test_state_counts_only_what_the_optimizer_has_created():
    model = nn.SparseLinear(30, 20, sparsity=0.5, rng=0)
    assert [layer.state for layer in memory_report(model).layers] == [0, 0]


def test_the_numbers_follow_a_move():
    model = trained(nn.SparseLinear(30, 20, False, sparsity=0.5, rng=0), 30)
    model.weight.move_to(Topology.random((20, 30), density=0.1, rng=0))
    (layer,) = memory_report(model).layers
    assert (layer.nnz, layer.values, layer.state) == (60, 240, 240)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="expects a Module; got list"):
        memory_report([nn.ReLU()])


@pytest.mark.parametrize("sparsity", [None, 0.5, 0.9])
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_a_steady_training_step_asks_the_system_for_no_array(sparsity, optimizer):
    rng = np.random.default_rng(0)
    data = rng.random((640, 300), np.float32), rng.integers(10, size=640)
    model, loss_fn = nn.mlp([300, 200, 100, 10], sparsity=sparsity, rng=0), nn.CrossEntropyLoss()
    update = optimizer(model.parameters(), lr=0.01)
    batches = list(DataLoader(data, batch_size=64, rng=0))

    def step(x, labels):
        loss = loss_fn(model(x), labels)
        update.zero_grad()
        loss.backward()
        update.step()
        return loss.item()

    for _ in range(2):  # compiles, fills the pool
        for x, labels in batches:
            step(x, labels)
    tracemalloc.start()
    try:
        peaks = []
        for x, labels in batches:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            step(x, labels)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    # Everything that a step holds at a time, small objects of Python included; an activation of the
    # first layer alone would be 51 200 bytes.
    assert max(peaks) < 16_384


def test_a_full_sparse_layer_needs_no_plan_and_is_counted_without():
    layer = nn.SparseLinear(7, 5, topology=Topology.full((5, 7)), rng=0)
    weight, _ = memory_report(trained(layer, 7)).layers
    topology = layer.weight.topology
    assert (weight.maps, weight.scratch) == (0, 0)
    assert weight.indices + weight.pointers == topology.nbytes
    assert (weight.values, weight.gradient, weight.state) == (140, 140, 140)


def test_between_two_steps_neither_gradients_nor_scratch_memory_are_needed():
    report = memory_report(trained(nn.SparseLinear(40, 20, sparsity=0.5, rng=0), 40))
    gradients = sum(layer.gradient for layer in report.layers)
    scratch = sum(layer.scratch for layer in report.layers)
    assert gradients == 4 * (400 + 20)
    assert scratch > 0
    assert report.weights_and_state == report.total - gradients - scratch
