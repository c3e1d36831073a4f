"""Frozen models that drop dead samples: the same function, with less to do."""

import threading

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import inference, nn
from nnsparse.inference import filtered
from nnsparse.rows import Rows


def network(depth=6, n=48, dtype=np.float32, threshold=0.3):
    """Return a ReLU network whose negative biases kill weak samples in every layer."""
    layers = []
    for seed in range(depth):
        layer = nn.SparseLinear(n, n, density=0.3, dtype=dtype, rng=seed)
        layer.weight.data[:] = np.abs(layer.weight.data)
        layer.bias.data[:] = -threshold
        layers += [layer, nn.ReLU()]
    head = nn.Linear(n, 5, dtype=dtype, rng=depth)
    head.bias.data[:] = np.arange(5)
    return nn.Sequential(*layers, head)


def samples(n, features=48, seed=0):
    """Return samples of very different strength, some of them zero."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, features)) * rng.gamma(0.5, 1.0, (n, 1))
    x[::7] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 3, 40, 301])
def test_it_is_the_same_function(n, dtype):
    model, x = network(dtype=dtype), samples(n)
    fast = ns.compile(model, skip_dead=True)
    assert isinstance(fast, inference.FilteredModel)
    np.testing.assert_allclose(fast.predict(x), model.predict(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fast(x), fast.predict(x))


def test_the_number_of_live_samples_is_that_of_nonzero_activations():
    model, x = network(), samples(200)
    fast, expected, y = ns.compile(model, skip_dead=True), [200], x
    for i in range(0, 12, 2):
        y = nn.Sequential(model[i], model[i + 1]).predict(y)
        if i in (0, 2, 6):  # behind the 1st, 2nd and 4th ReLU
            expected.append(int(y.any(axis=1).sum()))
    assert fast.count_live(x) == expected
    assert expected[0] > expected[1] > expected[3] > 0  # the data tests something


def test_all_samples_may_die():
    model = network(threshold=100.0)
    fast, x = ns.compile(model, skip_dead=True), samples(50)
    np.testing.assert_allclose(fast.predict(x), model.predict(x), rtol=1e-6)
    assert fast.count_live(x) == [50, 0, 0, 0]


def test_a_bias_brings_dead_samples_back_to_life_in_the_output():
    dead = nn.Linear(4, 4, rng=0)
    dead.weight.data[:], dead.bias.data[:] = 0, -1
    alive = nn.Linear(4, 3, rng=0)
    alive.weight.data[:], alive.bias.data[:] = 1, [1, -2, 3]
    model = nn.Sequential(dead, nn.ReLU(), alive, nn.ReLU(), nn.Linear(3, 2, rng=1))
    fast, x = ns.compile(model, skip_dead=True), np.ones((3, 4), np.float32)
    np.testing.assert_allclose(fast.predict(x), model.predict(x), rtol=1e-6)
    assert fast.count_live(x) == [3, 0, 0]


def test_a_nan_is_alive():
    x = samples(10)
    x[0, 0] = np.nan
    assert np.isnan(ns.compile(network(), skip_dead=True).predict(x)[0]).all()


def test_blocks_do_not_show(monkeypatch):
    fast, x = ns.compile(network(), skip_dead=True), samples(100)
    whole = fast.predict(x)
    monkeypatch.setattr(filtered, "BLOCK", 7)
    np.testing.assert_allclose(fast.predict(x), whole, rtol=1e-5, atol=1e-6)
    picked = np.array([90, 3, 3, 55])
    np.testing.assert_allclose(fast.predict(Rows(x, picked)), whole[picked], rtol=1e-5, atol=1e-6)


def test_without_a_hidden_relu_there_is_one_stage():
    model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=0), nn.ReLU())
    fast = ns.compile(model, skip_dead=True)
    assert len(fast.stages) == 1
    x = samples(9, 4)
    np.testing.assert_allclose(fast.predict(x), model.predict(x), rtol=1e-5, atol=1e-6)


def test_half_precision_and_sizes_are_those_of_the_whole_model():
    model = network()
    fast, whole = (
        ns.compile(model, dtype=np.float16, skip_dead=True),
        ns.compile(model, dtype=np.float16),
    )
    np.testing.assert_allclose(
        fast.predict(samples(33)), whole.predict(samples(33)), rtol=1e-5, atol=1e-5
    )
    assert max(stage.storage_error for stage in fast.stages) == whole.storage_error > 0
    assert (fast.n_in, fast.n_out) == (48, 5)
    assert 0.9 * whole.nbytes < fast.nbytes < 1.2 * whole.nbytes
    assert repr(fast).startswith("FilteredModel(48 -> 48 -> ")


def test_threads_may_share_it():
    fast, x = ns.compile(network(), skip_dead=True), samples(500)
    whole, found = fast.predict(x), []
    threads = [threading.Thread(target=lambda: found.append(fast.predict(x))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for y in found:
        np.testing.assert_array_equal(y, whole)


@pytest.mark.parametrize(
    "x", [np.zeros(48), np.zeros((2, 47)), np.zeros((0, 48)), np.zeros((1, 48), complex)]
)
def test_input_of_another_shape_or_kind_is_refused(x):
    with pytest.raises((TypeError, ValueError)):
        ns.compile(network(), skip_dead=True).predict(x)
