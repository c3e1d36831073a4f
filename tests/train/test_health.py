"""`check_finite`: a run that has gone wrong stops, and says when and where."""

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.train import NonFiniteLossError, check_finite

RNG = np.random.default_rng(0)
X = RNG.standard_normal((20, 8)).astype(np.float32)
Y = RNG.integers(0, 3, 20)


def run(model, x=X):
    return nn.CrossEntropyLoss()(model(x), Y)


def model():
    return nn.mlp([8, 20, 3], sparsity=[0.5, None], rng=0)


def test_a_finite_loss_is_returned_as_a_number():
    m = model()
    loss = run(m)
    assert check_finite(loss, m, 0) == loss.item()
    assert isinstance(check_finite(loss, m, 0), float)


def test_the_first_broken_parameter_is_named_with_step_and_learning_rate():
    m = model()
    optimizer = optim.SGD(m.parameters(), lr=0.125)
    m[2].weight.data[1, 4] = np.nan
    m[2].bias.data[:] = np.inf
    with pytest.raises(NonFiniteLossError) as caught:
        check_finite(run(m), m, 17, optimizer)
    message = str(caught.value)
    assert "the loss is nan at step 17, learning rate 0.125" in message
    assert "first parameter that is not finite is 2.weight" in message
    assert "2.weight: norm nan, 1 of 60 values not finite" in message
    assert "0.weight: norm" in message
    assert "0 of 80 values not finite" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_input_is_blamed_on_the_data_and_the_first_layer(value):
    m, x = model(), X.copy()
    x[3, 2] = value
    with pytest.raises(NonFiniteLossError, match="all weights are finite") as caught:
        check_finite(run(m, x), m, 0)
    assert "the data that enters 0.weight" in str(caught.value)
    assert "learning rate" not in str(caught.value)


@pytest.mark.parametrize("make", [nn.SparseLinear, nn.Linear, nn.NumpyLinear])
def test_a_diverging_run_is_stopped_at_a_later_step(make):
    options = {"density": 0.5} if make is nn.SparseLinear else {}
    m = nn.Sequential(make(8, 20, **options, rng=0), nn.ReLU(), make(20, 3, **options, rng=1))
    optimizer = optim.SGD(m.parameters(), lr=1e30)

    def train():
        for step in range(10):
            loss = run(m)
            check_finite(loss, m, step, optimizer)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    with pytest.raises(NonFiniteLossError, match=r"at step [1-9]"):
        train()


def test_a_module_without_parameters_is_named_too():
    m = nn.ReLU()
    x = np.full((20, 3), np.nan, np.float32)
    with pytest.raises(NonFiniteLossError, match="the data that enters the model"):
        check_finite(run(m, x), m, 2)
