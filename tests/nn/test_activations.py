"""Activation layers and dropout: each is its function, in both modes, and prints its settings."""

import numpy as np
import pytest

from nnsparse.autograd import tensor
from nnsparse.nn.activations import GELU, AllReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.module import Module
from nnsparse.ops import pointwise as ops

X = np.random.default_rng(4).standard_normal((20, 5)).astype(np.float32)
LAYERS = {
    "ReLU()": (ReLU(), ops.relu),
    "LeakyReLU(slope=0.2)": (LeakyReLU(0.2), lambda x: ops.leaky_relu(x, 0.2)),
    "AllReLU(slope=0.6, layer=1)": (AllReLU(0.6, 1), lambda x: ops.all_relu(x, 0.6, 1)),
    "Tanh()": (Tanh(), ops.tanh),
    "Sigmoid()": (Sigmoid(), ops.sigmoid),
    "GELU()": (GELU(), ops.gelu),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_function_and_prints_its_settings(name) -> None:
    layer, function = LAYERS[name]
    expected = function(tensor(X)).numpy()
    np.testing.assert_array_equal(layer(X).numpy(), expected)
    np.testing.assert_array_equal(layer.predict(X), expected)
    assert repr(layer) == name
    assert not list(layer.parameters())


def test_all_relu_changes_sign_from_layer_to_layer() -> None:
    left = np.array([[-1.0]], np.float32)
    values = [AllReLU(0.5, layer)(left).item() for layer in range(4)]
    assert values == [0.5, -0.5, 0.5, -0.5]


def test_dropout_drops_in_training_and_does_nothing_in_evaluation() -> None:
    layer = Dropout(0.5, rng=0)
    x = np.ones((20, 50), np.float32)
    first, second = layer(x).numpy(), layer(x).numpy()
    assert set(np.unique(first)) == {0.0, 2.0}
    assert (first != second).any()
    np.testing.assert_array_equal(layer.predict(x), x)
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), x)


def test_dropout_repeats_with_its_seed() -> None:
    results = []
    for _ in range(2):
        layer: Module = Dropout(0.3, rng=np.random.default_rng(9))
        results.append([layer(X).numpy() for _ in range(3)])
    np.testing.assert_array_equal(results[0], results[1])


def test_dropout_prints_and_checks_its_probability() -> None:
    assert repr(Dropout(0.25)) == "Dropout(p=0.25)"
    with pytest.raises(ValueError, match=r"p in \[0, 1\)"):
        Dropout(1.5)
