"""A chain of affine layers as one op, against the same layers op by op."""

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import nn
from nnsparse.ops.chain import chain
from nnsparse.ops.layout import tile, untile
from nnsparse.ops.products import spmm


def network(kind=np.float64, bias=True):
    """Return sparse runs, sparse quads, dense and full layers, 30 -> 40 -> 20 -> 25 -> 3."""
    return nn.Sequential(
        nn.SparseLinear(30, 40, bias, density=0.1, dtype=kind, rng=0),
        nn.ReLU(),
        nn.SparseLinear(40, 20, bias, density=0.6, dtype=kind, rng=1),
        nn.ReLU(),
        nn.Linear(20, 25, bias, dtype=kind, rng=2),
        nn.SparseLinear(25, 3, bias, density=1.0, dtype=kind, rng=3),
    )


def op_by_op(model, x):
    """Return the model's output from the ops of `products`."""
    layers = list(model)
    for i, layer in enumerate(layers):
        if not isinstance(layer, nn.ReLU):
            rectify = isinstance(layers[min(i + 1, len(layers) - 1)], nn.ReLU)
            x = spmm(layer.weight, x, layer.structure, layer.bias, rectify)
    return x


def gradients(output, model, x):
    loss = (untile(output) * untile(output)).sum()
    return ns.grad(loss, [x, *model.parameters()])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 16, 37, 130])
def test_a_chain_gives_what_its_layers_give_one_by_one(batch, bias):
    model = network(bias=bias)
    for p in model.parameters():  # biases, too, away from zero
        p.data[...] += 0.1 * np.random.default_rng(p.size).standard_normal(p.shape)
    x = ns.tensor(np.random.default_rng(0).standard_normal((batch, 30)), requires_grad=True)
    lanes = 16
    expected, got = op_by_op(model, tile(x, lanes)), model(tile(x, lanes))
    np.testing.assert_array_equal(got.numpy(), expected.numpy())
    for a, b in zip(gradients(got, model, x), gradients(expected, model, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("order", [1, 2])
def test_its_gradients_agree_with_finite_differences(order):
    model = network(bias=True)
    rng = np.random.default_rng(2)  # biases away from the kinks of the ReLUs
    arrays = [p.data + 0.1 * rng.standard_normal(p.shape) for p in model.parameters()]

    def loss(x, *parameters):
        links, given = [], iter(parameters)
        for layer, rectify in model._steps[0]:
            links.append(layer.link(x.shape[:1] + (layer.in_features,), x.dtype, rectify))
            links[-1] = links[-1]._replace(weight=next(given), bias=next(given))
        return (untile(chain(tile(x, 16), links)) * 0.1).sum()

    x = np.random.default_rng(1).standard_normal((5, 30))
    ns.check_gradients(loss, x, *arrays, order=order)


def test_a_frozen_parameter_gets_no_gradient_and_the_others_keep_theirs():
    model = network()
    x = np.random.default_rng(0).standard_normal((7, 30))
    model(x).backward(np.ones((7, 3)))
    expected = [p.grad for p in model.parameters()]
    for frozen in range(len(expected)):
        model.zero_grad()
        for i, p in enumerate(model.parameters()):
            p.requires_grad = i != frozen
        model(x).backward(np.ones((7, 3)))
        for i, p in enumerate(model.parameters()):
            assert (p.grad is None) == (i == frozen)
            if i != frozen:
                np.testing.assert_allclose(p.grad, expected[i], rtol=1e-12, atol=1e-12)


def test_the_lowest_layers_are_not_visited_when_they_are_frozen():
    model = network()
    for layer in (model[0], model[2]):
        for p in layer.parameters():
            p.requires_grad = False
    visited = model[0].taps = []
    model(np.ones((3, 30))).backward(np.ones((3, 3)))
    assert visited == []
    assert model[4].weight.grad is not None


def test_taps_see_what_each_weight_gradient_was_made_of():
    model = network()
    layer = model[2]
    layer.taps = []
    model(np.random.default_rng(0).standard_normal((7, 30))).backward(np.ones((7, 3)))
    ((d, x),) = layer.taps
    assert d.shape == (1, 20, 16)
    assert x.shape == (1, 40, 16)
    np.testing.assert_array_equal(layer.structure.gradient(d, x), layer.weight.grad)


def test_a_forward_mask_acts_on_the_forward_pass_only():
    model = network()
    weight = model[0].weight
    mask = (np.arange(weight.size) % 2).astype(weight.dtype)
    x = np.random.default_rng(0).standard_normal((7, 30))
    weight.buffers["forward"] = mask
    masked = model(x)
    masked.backward(np.ones((7, 3)))
    straight = weight.grad
    del weight.buffers["forward"]
    weight.data *= mask
    model.zero_grad()
    plain = model(x)
    np.testing.assert_array_equal(masked.numpy(), plain.numpy())
    plain.backward(np.ones((7, 3)))
    np.testing.assert_array_equal(straight, weight.grad)
    assert np.abs(straight[mask == 0]).max() > 0


def test_a_chain_under_no_grad_keeps_nothing():
    model = network()
    with ns.no_grad():
        out = model(np.ones((3, 30)))
    assert out.node is None
    assert not out.requires_grad


def test_a_full_sparse_layer_computes_what_a_dense_one_does():
    full = nn.SparseLinear(33, 21, density=1.0, rng=0)
    dense = full.to_dense()
    x = np.random.default_rng(0).standard_normal((50, 33))
    a, b = full(x), dense(x)
    np.testing.assert_array_equal(a.numpy(), b.numpy())
    for out in (a, b):
        out.backward(np.ones((50, 21)))
    np.testing.assert_array_equal(full.weight.grad.reshape(21, 33), dense.weight.grad)
    np.testing.assert_array_equal(full.weight.data.reshape(21, 33), dense.weight.data)


def test_taps_begin_anew_with_each_gradient_and_add_up_as_gradients_do():
    model = nn.Sequential(nn.SparseLinear(8, 8, density=0.5, rng=0), nn.ReLU())
    layer = model[0]
    x, layer.taps = np.ones((3, 8)), []
    for expected in (1, 2):  # two backward passes add up
        model(x).backward(np.ones((3, 8)))
        assert len(layer.taps) == expected
    model.zero_grad()
    model(x).backward(np.ones((3, 8)))
    assert len(layer.taps) == 1
    model.zero_grad()
    model(model(x)).backward(np.ones((3, 8)))  # two uses in one pass
    assert len(layer.taps) == 2
    sums = sum(layer.structure._structure.gradient(d, x) for d, x in layer.taps)
    np.testing.assert_allclose(sums, layer.weight.grad, rtol=1e-5, atol=1e-6)


def test_exports_hold_what_a_masked_layer_computes():
    layer = nn.SparseLinear(6, 5, density=0.6, rng=0)
    layer.weight.buffers["forward"] = (np.arange(layer.nnz) % 2).astype(np.float32)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    expected = layer(x).numpy()
    np.testing.assert_allclose(layer.to_dense()(x).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose((layer.to_scipy() @ x.T).T + layer.bias.data, expected, atol=1e-6)
    np.testing.assert_allclose(ns.compile(nn.Sequential(layer))(x), expected, atol=1e-6)
    twin = ns.sparsify.prunable(nn.Sequential(layer))
    assert not twin[0].weight.buffers
    np.testing.assert_allclose(twin(x).numpy(), expected, atol=1e-6)
