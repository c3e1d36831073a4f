"""`BatchNorm1d`: modes, running statistics and gradients as in torch, state, and bad settings."""

import numpy as np
import pytest

from nnsparse.autograd import tensor
from nnsparse.inference import compile as compile_model
from nnsparse.nn.normalization import BatchNorm1d

rng = np.random.default_rng(6)


def batches(n: int = 4, dtype=np.float64) -> list[np.ndarray]:
    return [(rng.standard_normal((b, n)) * 2 + 1).astype(dtype) for b in (20, 33, 64)]


@pytest.mark.parametrize("affine", [True, False])
def test_training_evaluation_and_gradients_agree_with_torch(affine) -> None:
    torch = pytest.importorskip("torch")
    ours = BatchNorm1d(4, eps=1e-4, momentum=0.2, affine=affine, dtype=np.float64)
    theirs = torch.nn.BatchNorm1d(4, eps=1e-4, momentum=0.2, affine=affine, dtype=torch.float64)
    if affine:
        for name in ("weight", "bias"):
            values = rng.uniform(0.5, 2.0, 4)
            getattr(ours, name).data[...] = values
            getattr(theirs, name).data[...] = torch.tensor(values)
    for mode in (True, False):
        ours.train(mode)
        theirs.train(mode)
        for x in batches():
            t, u = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            y, v = ours(t), theirs(u)
            y.backward(np.sin(x))
            v.backward(torch.sin(u.detach()))
            np.testing.assert_allclose(y.numpy(), v.detach().numpy(), atol=1e-12)
            np.testing.assert_allclose(t.grad, u.grad.numpy(), atol=1e-12)
            np.testing.assert_allclose(ours.running_mean, theirs.running_mean, atol=1e-14)
            np.testing.assert_allclose(ours.running_var, theirs.running_var, atol=1e-14)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), atol=1e-11)


def test_evaluation_uses_and_keeps_the_running_statistics_even_for_one_sample() -> None:
    layer = BatchNorm1d(4)
    for x in batches(dtype=np.float32):
        layer(x)
    mean, variance = layer.running_mean.copy(), layer.running_var.copy()
    layer.eval()
    x = batches(dtype=np.float32)[0]
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(layer(x[:1]).numpy(), expected[:1], atol=1e-5)
    np.testing.assert_array_equal(layer.running_mean, mean)
    np.testing.assert_array_equal(layer.running_var, variance)


def test_predict_leaves_a_layer_in_training_alone() -> None:
    layer = BatchNorm1d(4)
    layer.predict(batches(dtype=np.float32)[0])
    assert layer.training
    assert not layer.running_mean.any()


def test_padded_lanes_are_zero_in_both_modes() -> None:
    layer = BatchNorm1d(4)
    layer.bias.data[...] = 3.0
    for mode in (True, False):
        y = layer.train(mode)(batches(dtype=np.float32)[0])
        assert y.data.shape == (1, 4, 32)
        assert not y.data[:, :, 20:].any()
        assert y.data[:, :, :20].all()


def test_float32_stays_float32_in_both_modes() -> None:
    layer = BatchNorm1d(4)
    for mode in (True, False):
        y = layer.train(mode)(batches()[0])
        y.backward(np.ones(y.shape))
        assert y.dtype == np.float32
        assert {p.grad.dtype for p in layer.parameters()} == {np.dtype(np.float32)}


def test_the_state_holds_parameters_and_running_statistics() -> None:
    layer, other = BatchNorm1d(4), BatchNorm1d(4)
    layer(batches(dtype=np.float32)[0])
    state = layer.state_dict()
    assert set(state) == {"weight", "bias", "running_mean", "running_var"}
    other.load_state_dict(state)
    x = batches(dtype=np.float32)[1]
    np.testing.assert_array_equal(layer.eval()(x).numpy(), other.eval()(x).numpy())


def test_a_single_sample_in_training_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"at least two samples.*model\.eval\(\)"):
        BatchNorm1d(4)(np.ones((1, 4), np.float32))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features >= 1"),
        ({"num_features": 2.0}, TypeError, "num_features as an int"),
        ({"num_features": 2, "eps": 0.0}, ValueError, "eps above 0"),
        ({"num_features": 2, "momentum": 1.5}, ValueError, r"momentum in \[0, 1\]"),
        ({"num_features": 2, "momentum": None}, TypeError, "momentum as a number"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, message) -> None:
    with pytest.raises(error, match=message):
        BatchNorm1d(**settings)


def test_it_prints_its_settings() -> None:
    assert repr(BatchNorm1d(3)) == "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True)"


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_statistics_of_another_size_are_refused_in_calls_and_when_compiled(name):
    layer = BatchNorm1d(3)
    setattr(layer, name, np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"running_var of shape \(3,\); got .*\(4,\)"):
        layer(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"BatchNorm1d expects parameters and statistics of shape"):
        compile_model(layer)
