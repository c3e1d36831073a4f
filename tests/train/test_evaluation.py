"""`evaluate`: loss and accuracy on all samples, leaving no trace."""

import numpy as np
import pytest

from nnsparse import data, nn
from nnsparse.train import evaluate

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 50)


def model():
    return nn.mlp([6, 20, 3], sparsity=[0.5, None], rng=0)


def test_loss_and_accuracy_are_those_of_all_samples_at_once():
    m = model()
    z = m.predict(X).astype(np.float64)
    expected = (np.log(np.exp(z).sum(1)) - z[np.arange(50), Y]).mean()
    loss, accuracy = evaluate(m, nn.CrossEntropyLoss(), (X, Y))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert accuracy == (z.argmax(1) == Y).mean()


def test_a_loader_counts_all_its_samples_and_stays_at_its_epoch():
    loader = data.DataLoader((X, Y), batch_size=32, drop_last=True, rng=0)
    m = model()
    assert evaluate(m, nn.CrossEntropyLoss(), loader) == evaluate(m, nn.CrossEntropyLoss(), (X, Y))
    assert loader.epoch == 0


def test_dropout_is_off_and_modes_and_gradients_stay():
    m = nn.Sequential(nn.Linear(6, 40, rng=0), nn.Dropout(0.5, rng=0), nn.Linear(40, 3, rng=1))
    first, second = (evaluate(m, nn.CrossEntropyLoss(), (X, Y)) for _ in range(2))
    assert first == second
    assert m.training
    assert all(p.grad is None for p in m.parameters())


def test_without_a_loss_function_there_is_accuracy_alone():
    loss, accuracy = evaluate(model(), None, (X, Y))
    assert np.isnan(loss)
    assert 0 < accuracy < 1


def test_real_targets_have_no_accuracy():
    m = nn.Sequential(nn.Linear(6, 3, rng=0))
    loss, accuracy = evaluate(m, nn.MSELoss(), (X, np.zeros((50, 3))))
    assert loss == pytest.approx((m.predict(X) ** 2).mean())
    assert np.isnan(accuracy)


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_yes_or_no_answers_are_right_on_the_targets_side_of_one_half(shape):
    m = nn.Sequential(nn.Linear(6, 1, rng=0))
    target = RNG.integers(0, 2, shape)
    _, accuracy = evaluate(m, nn.BCEWithLogitsLoss(), (X, target))
    assert accuracy == ((m.predict(X)[:, 0] > 0) == target.ravel()).mean()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (X, TypeError, r"a DataLoader, \(X, y\) or \(X, y, sample_weight\); got ndarray"),
        ((X, Y[:-1]), ValueError, r"one target per row; got X of shape \(50, 6\)"),
        ((X[0], Y), ValueError, "one target per row"),
    ],
)
def test_data_of_another_kind_is_refused(bad, error, message):
    with pytest.raises(error, match=message):
        evaluate(model(), None, bad)


def test_weights_count_samples_as_often_as_they_say():
    times = np.random.default_rng(0).integers(0, 4, len(Y))
    again = np.repeat(np.arange(len(Y)), times)
    model = nn.mlp([6, 8, 3], rng=0)
    loss = nn.CrossEntropyLoss()
    weighted = evaluate(model, loss, (X, Y, times))
    assert weighted == pytest.approx(evaluate(model, loss, (X[again], Y[again])))
    loader = data.DataLoader((X, Y, times), batch_size=7)
    assert evaluate(model, loss, loader) == weighted
    yes_or_no = nn.BCEWithLogitsLoss()
    targets = np.eye(3)[Y]
    assert evaluate(model, yes_or_no, (X, targets, times)) == pytest.approx(
        evaluate(model, yes_or_no, (X[again], targets[again]))
    )


@pytest.mark.parametrize("weights", [[1.0], -np.ones(50), np.full(50, "a")])
def test_bad_weights_are_refused(weights):
    model = nn.Sequential(nn.ReLU())
    with pytest.raises((ValueError, TypeError), match="expected sample_weight"):
        evaluate(model, None, (X, Y, weights))
