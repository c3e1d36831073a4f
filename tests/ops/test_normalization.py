"""Batch normalisation: its equation, gradients to second order, layouts, and bad input."""

import numpy as np
import pytest

from nnsparse import jit
from nnsparse.autograd import Tensor, grad, tensor
from nnsparse.gradcheck import check_gradients
from nnsparse.ops.layout import tile
from nnsparse.ops.normalization import affine, batch_norm
from nnsparse.testing import to_tiles_reference

rng = np.random.default_rng(3)
WEIGHT, BIAS = rng.uniform(0.5, 2.0, 4), rng.standard_normal(4)


def samples(batch: int, n: int = 4, dtype=np.float64) -> np.ndarray:
    return (rng.standard_normal((batch, n)) * 3 + 5).astype(dtype)


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return weight * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) + bias


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [None, 5, 16, 64])
@pytest.mark.parametrize("batch", [2, 16, 37, 100])
def test_batch_norm_agrees_with_its_equation_in_every_layout(batch, lanes, dtype) -> None:
    x = samples(batch, dtype=dtype)
    t = tensor(x) if lanes is None else tile(tensor(x), lanes)
    y, statistics = batch_norm(t, tensor(WEIGHT.astype(dtype)), tensor(BIAS.astype(dtype)))
    assert y.dtype == dtype
    assert y.batch == t.batch
    atol = 5e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y.numpy(), reference(x, WEIGHT, BIAS), atol=atol)
    np.testing.assert_allclose(statistics.mean, x.mean(0, np.float64), rtol=1e-6)
    np.testing.assert_allclose(statistics.variance, x.var(0, np.float64), rtol=1e-5)
    if lanes is not None:
        np.testing.assert_array_equal(y.data, to_tiles_reference(y.numpy(), lanes))


def test_gradients_are_right_to_second_order_plain_and_tiled() -> None:
    x = samples(5)
    check_gradients(lambda *t: batch_norm(*t)[0], x, WEIGHT, BIAS, order=2)
    check_gradients(lambda t, *p: batch_norm(tile(t, 3), *p)[0], x, WEIGHT, BIAS, order=2)
    check_gradients(lambda t, *p: affine(tile(t, 16), *p), x, WEIGHT, BIAS, order=2)


def test_the_gradient_in_the_padding_is_zero() -> None:
    x = Tensor(to_tiles_reference(samples(20), 16), requires_grad=True, batch=20)
    y, _ = batch_norm(x, tensor(WEIGHT), tensor(BIAS))
    y.backward(samples(20))
    assert x.grad is not None
    assert not x.grad[1, :, 4:].any()
    assert x.grad[1, :, :4].all()


def test_what_stands_in_the_padding_does_not_count() -> None:
    x = samples(20)
    t = Tensor(to_tiles_reference(x, 16), batch=20)
    t.data[1, :, 4:] = 1e6
    y, _ = batch_norm(t, tensor(WEIGHT), tensor(BIAS))
    np.testing.assert_allclose(y.numpy(), reference(x, WEIGHT, BIAS), atol=1e-12)


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    x = Tensor(to_tiles_reference(samples(300, 33, np.float32), 64), True, batch=300)
    weight, bias = tensor(np.ones(33, np.float32), True), tensor(np.zeros(33, np.float32), True)
    results = []
    for threads in (1, 2):
        jit.set_num_threads(threads)
        y, _ = batch_norm(x, weight, bias)
        results.append((y.data, *grad(y, [x, weight, bias], np.cos(y.numpy()))))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_far_mean_does_not_cost_the_variance_its_digits() -> None:
    x = (rng.standard_normal((64, 4)) + 10_000).astype(np.float32)
    _, statistics = batch_norm(tensor(x), tensor(np.ones(4, "f4")), tensor(np.zeros(4, "f4")))
    np.testing.assert_allclose(statistics.variance, x.var(0, np.float64), rtol=1e-3)


def test_a_constant_feature_becomes_the_bias() -> None:
    y, _ = batch_norm(tensor(np.full((6, 4), 3.0)), tensor(WEIGHT), tensor(BIAS))
    np.testing.assert_allclose(y.numpy(), np.tile(BIAS, (6, 1)))


def test_a_nan_spoils_its_own_feature_only() -> None:
    x = samples(6)
    x[2, 1] = np.nan
    y, _ = batch_norm(tensor(x), tensor(WEIGHT), tensor(BIAS))
    assert np.isnan(y.numpy()).all(0).tolist() == [False, True, False, False]
    assert np.isfinite(y.numpy()[:, [0, 2, 3]]).all()


def test_a_single_sample_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"at least two samples.*model\.eval\(\)"):
        batch_norm(tensor(samples(1)), tensor(WEIGHT), tensor(BIAS))


@pytest.mark.parametrize(("shape", "hint"), [((6, 3), "got"), ((4, 6), r"x\.T"), ((4,), "got")])
def test_a_wrong_number_of_features_is_refused(shape, hint) -> None:
    for f in (batch_norm, affine):
        with pytest.raises(ValueError, match=rf"shape \(batch, 4\); got .*{hint}|{hint}"):
            f(tensor(np.ones(shape)), tensor(WEIGHT), tensor(BIAS))
