"""Whole neurons: their strength by hand, and taking them out of sparse and dense layers."""

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.sparsify.compact import compact
from nnsparse.sparsify.neurons import neuron_norms, remove_neurons
from nnsparse.topology import Topology

W = np.array([[3.0, -4.0], [0, 0], [0, 2]])
AFTER = np.array([[0.0, 1, -2], [12, 0, 0]])


def sparse(matrix, bias=True):
    topology = Topology.from_dense(matrix)
    n_out, n_in = matrix.shape
    layer = nn.SparseLinear(n_in, n_out, bias, topology=topology, dtype=np.float64, rng=0)
    layer.weight.set_canonical(matrix[topology.coo()])
    return layer


def dense(matrix):
    layer = nn.Linear(*matrix.shape[::-1], dtype=np.float64, rng=0)
    layer.weight.data[...] = matrix
    return layer


@pytest.mark.parametrize("make", [sparse, dense])
def test_a_norm_takes_the_row_and_the_column_that_reads_it(make):
    np.testing.assert_allclose(neuron_norms(make(W)), [5, 0, 2])
    np.testing.assert_allclose(neuron_norms(make(W), make(AFTER)), [13, 1, np.sqrt(8)])


def test_large_float32_weights_do_not_overflow():
    layer = nn.Linear(2, 1, rng=0)
    layer.weight.data[...] = 3e38
    assert neuron_norms(layer)[0] == pytest.approx(3e38 * np.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("make", [sparse, dense])
@pytest.mark.parametrize("make_after", [sparse, dense])
def test_removing_neurons_takes_row_bias_and_column(make, make_after):
    layer, after = make(np.arange(1.0, 7).reshape(3, 2)), make_after(np.ones((2, 3)))
    layer.bias.data[:] = [1, 2, 3]
    layer.bias.buffers["momentum"] = np.ones(3)
    layer.weight.buffers["momentum"] = np.ones(layer.weight.data.shape)
    remove_neurons(layer, np.array([False, True, False]), after)
    as_dense = [
        m.weight.data if isinstance(m, nn.Linear) else m.weight.to_dense() for m in (layer, after)
    ]
    np.testing.assert_array_equal(as_dense[0], [[1, 2], [0, 0], [5, 6]])
    np.testing.assert_array_equal(as_dense[1], [[1, 0, 1], [1, 0, 1]])
    np.testing.assert_array_equal(layer.bias.data, [1, 0, 3])
    np.testing.assert_array_equal(layer.bias.buffers["momentum"], [1, 0, 1])
    assert layer.weight.buffers["momentum"].sum() == 4
    if make is sparse:
        assert layer.nnz == 4
    if make_after is sparse:
        assert after.nnz == 4


def test_removed_neurons_stay_removed_in_training_and_compact_makes_the_layers_smaller():
    model = nn.mlp([6, 8, 3], sparsity=0.3, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = np.random.default_rng(0).random((20, 6)), np.arange(20) % 3
    gone = np.isin(np.arange(8), [0, 3, 7])

    def train(net, by):
        loss = nn.CrossEntropyLoss()(net(x), y)
        by.zero_grad()
        loss.backward()
        by.step()

    train(model, optimizer)
    remove_neurons(model[0], gone, model[2])
    train(model, optimizer)
    assert not model[0].weight.to_dense()[gone].any()
    assert not model[0].bias.data[gone].any()
    small = compact(model)
    assert small[0].out_features == small[2].in_features == 5
    np.testing.assert_allclose(small.predict(x), model.predict(x), atol=1e-6)
    train(small, optim.SGD(small.parameters(), lr=0.1))


def test_masks_that_do_not_fit_are_refused():
    layer = sparse(W)
    with pytest.raises(TypeError, match="expects a mask of bool; got int64"):
        remove_neurons(layer, np.array([0, 2]))
    with pytest.raises(ValueError, match=r"a mask of shape \(3,\), one per neuron.*got \(2,\)"):
        remove_neurons(layer, np.array([True, False]))
    with pytest.raises(ValueError, match="no neuron of SparseLinear"):
        remove_neurons(layer, np.ones(3, bool))
    for call in (neuron_norms, lambda a, b: remove_neurons(a, np.zeros(3, bool), b)):
        with pytest.raises(ValueError, match="with 3 inputs; got SparseLinear"):
            call(layer, layer)
