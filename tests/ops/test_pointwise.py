"""Activations, dropout and sums over samples: values, gradients, NaN, padding, threads."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.autograd import Tensor, grad, no_grad, tensor
from nnsparse.gradcheck import check_gradients
from nnsparse.kernels import pointwise as kernels
from nnsparse.ops import pointwise as ops
from nnsparse.ops.layout import tile, untile
from nnsparse.testing import to_tiles_reference

ACTIVATIONS = {
    "relu": (ops.relu, lambda x: max(x, 0.0)),
    "leaky_relu": (lambda x: ops.leaky_relu(x, 0.2), lambda x: x if x > 0 else 0.2 * x),
    "all_relu even": (lambda x: ops.all_relu(x, 0.6, 2), lambda x: x if x > 0 else -0.6 * x),
    "all_relu odd": (lambda x: ops.all_relu(x, 0.6, 1), lambda x: x if x > 0 else 0.6 * x),
    "tanh": (ops.tanh, math.tanh),
    "sigmoid": (ops.sigmoid, lambda x: 1 / (1 + math.exp(-x))),
    "gelu": (ops.gelu, lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2))),
    "dropout": (lambda x: ops.dropout(x, 0.4, 7), None),
}
SMOOTH = ["tanh", "sigmoid", "gelu"]
each = pytest.mark.parametrize("name", ACTIVATIONS)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def samples(batch: int, n: int, dtype=np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, n)).astype(dtype) * 2


@both_dtypes
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "dropout"])
def test_an_activation_agrees_with_its_equation(name, dtype) -> None:
    f, reference = ACTIVATIONS[name]
    x = np.concatenate([np.linspace(-8, 8, 161), [0.0, -30.0, 30.0]]).astype(dtype)
    y = f(tensor(x)).numpy()
    assert y.dtype == dtype
    expected = [reference(float(v)) for v in x]
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y, expected, rtol=rtol, atol=np.finfo(dtype).tiny)


@each
def test_gradients_are_right_to_second_order_plain_and_tiled(name) -> None:
    f, _ = ACTIVATIONS[name]
    x = samples(5, 3)
    check_gradients(f, x, order=2)
    check_gradients(lambda t: f(tile(t, 16)), x, order=2)
    check_gradients(lambda t: untile(f(tile(t, 5))), x, order=2)


@pytest.mark.parametrize("name", SMOOTH)
def test_third_derivatives_are_right(name) -> None:
    f, _ = ACTIVATIONS[name]

    def slope(x: Tensor) -> Tensor:
        return grad(f(x), [x], np.ones(x.shape), create_graph=True)[0]

    for x in np.linspace(-2, 2, 5).reshape(5, 1, 1):
        t, steps = tensor(x, requires_grad=True), []
        second = grad(slope(t), [t], np.ones((1, 1)), create_graph=True)[0]
        third = grad(second, [t], np.ones((1, 1)))[0]
        for shift in (1e-5, -1e-5):
            u = tensor(x + shift, requires_grad=True)
            steps.append(grad(slope(u), [u], np.ones((1, 1)))[0])
        np.testing.assert_allclose(third, (steps[0] - steps[1]) / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in SMOOTH])
def test_the_second_derivative_of_what_is_linear_by_pieces_is_zero(name) -> None:
    x = tensor(samples(4, 3), requires_grad=True)
    slope = grad(ACTIVATIONS[name][0](x), [x], np.ones((4, 3)), create_graph=True)[0]
    assert not slope.requires_grad


@pytest.mark.parametrize(("name", "slope"), [("relu", 0.0), ("leaky_relu", 0.2)])
def test_at_zero_the_left_derivative_is_taken_as_in_torch(name, slope) -> None:
    x = tensor([0.0], requires_grad=True)
    assert grad(ACTIVATIONS[name][0](x), [x], [1.0])[0][0] == slope


@both_dtypes
@each
def test_a_nan_stays_a_nan_and_alone(name, dtype) -> None:
    x = np.ones((5, 4), dtype)
    x[3, 2] = np.nan
    for t in (tensor(x), tile(tensor(x), 16)):
        y = ACTIVATIONS[name][0](t).numpy()
        assert np.isnan(y[3, 2])
        assert np.isnan(y).sum() == 1


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid", "gelu"])
def test_infinite_inputs_have_their_limits_and_finite_slopes(name) -> None:
    x = tensor([-np.inf, np.inf], requires_grad=True)
    limits = {"relu": (0, np.inf), "leaky_relu": (-np.inf, np.inf), "tanh": (-1, 1)}
    y = ACTIVATIONS[name][0](x)
    assert tuple(y.numpy()) == limits.get(name, (0, np.inf if name == "gelu" else 1))
    assert np.isfinite(grad(y, [x], [1.0, 1.0])[0]).all()


@pytest.mark.parametrize(("batch", "lanes"), [(1, 16), (20, 16), (33, 32), (100, 64), (7, 7)])
@each
def test_a_tiled_result_equals_the_plain_one_and_its_padding_is_zero(name, batch, lanes) -> None:
    f, _ = ACTIVATIONS[name]
    x, g = samples(batch, 5), samples(batch, 5, seed=1)
    plain, tiled = (tensor(x, requires_grad=True) for _ in range(2))
    a, b = f(plain), f(tile(tiled, lanes))
    np.testing.assert_array_equal(a.numpy(), b.numpy())
    np.testing.assert_array_equal(b.data, to_tiles_reference(a.numpy(), lanes))
    inside = Tensor(to_tiles_reference(x, lanes), requires_grad=True, batch=batch)
    f(inside).backward(g)
    a.backward(g)
    np.testing.assert_array_equal(inside.grad, to_tiles_reference(plain.grad, lanes))


@each
def test_the_bits_do_not_depend_on_the_number_of_threads(name) -> None:
    x, results = tile(tensor(samples(300, 41, np.float32)), 64), []
    x = Tensor(x.data, requires_grad=True, batch=300)
    for threads in (1, 2):
        jit.set_num_threads(threads)
        y = ACTIVATIONS[name][0](x)
        results.append((y.data, grad(y, [x], np.ones(y.shape))[0]))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@each
def test_strided_readonly_empty_and_scalar_arrays_are_taken(name) -> None:
    f, _ = ACTIVATIONS[name]
    x = samples(6, 4)
    x.setflags(write=False)
    strided = Tensor(x.T[::2])
    np.testing.assert_array_equal(f(strided).numpy(), f(tensor(x.T[::2])).numpy())
    assert f(tensor(np.zeros((0, 3)))).shape == (0, 3)
    assert f(tensor(1.0)).shape == ()


def test_gelu_agrees_with_torch_by_default() -> None:
    torch = pytest.importorskip("torch")
    x = samples(30, 4, np.float32) * 3
    t, u = tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, v = ops.gelu(t), torch.nn.GELU()(u)
    v.sum().backward()
    np.testing.assert_allclose(y.numpy(), v.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad(y, [t], np.ones(y.shape))[0], u.grad.numpy(), atol=2e-6)


# ---------------------------------------------------------------- dropout


def test_dropout_drops_the_right_share_and_keeps_the_mean() -> None:
    n = 400_000
    y = ops.dropout(tensor(np.ones((1000, n // 1000))), 0.3, 5).numpy()
    dropped = (y == 0).sum()
    assert abs(dropped - 0.3 * n) < 4 * math.sqrt(n * 0.3 * 0.7)
    np.testing.assert_allclose(y[y != 0], 1 / 0.7)


def test_dropout_is_independent_between_neighbours_and_seeds() -> None:
    x = tensor(np.ones((1000, 400)))
    a, b = (ops.dropout(x, 0.5, seed).numpy() == 0 for seed in (1, 2))
    n = a.size
    pairs = [(a, b), (a[:, 1:], a[:, :-1]), (a[1:], a[:-1]), (a[2:, 1:], a[:-2, :-1])]
    for first, second in pairs:
        assert abs((first ^ second).mean() - 0.5) < 4 * 0.5 / math.sqrt(n * 0.99)


def test_dropout_with_one_seed_gives_one_mask_and_a_generator_moves_on() -> None:
    x = tensor(np.ones((20, 20)))
    first, again = ops.dropout(x, 0.5, 3).numpy(), ops.dropout(x, 0.5, 3).numpy()
    np.testing.assert_array_equal(first, again)
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(ops.dropout(x, 0.5, rng).numpy(), first)
    assert (ops.dropout(x, 0.5, rng).numpy() != first).any()


def test_dropout_of_nothing_is_the_identity() -> None:
    x = tensor(np.ones(3))
    assert ops.dropout(x, 0.0, 1) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, 2, math.nan])
def test_dropout_refuses_a_wrong_probability(p) -> None:
    with pytest.raises(ValueError, match=r"p in \[0, 1\)"):
        ops.dropout(tensor(np.ones(3)), p)


def test_settings_that_are_no_numbers_are_refused() -> None:
    x = tensor(np.ones(3))
    for call in (
        lambda: ops.dropout(x, "half"),  # type: ignore[arg-type]
        lambda: ops.leaky_relu(x, None),  # type: ignore[arg-type]
        lambda: ops.all_relu(x, 0.5, 1.0),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="expects"):
            call()


# ---------------------------------------------------------------- sums over samples


@given(
    batch=st.integers(1, 150),
    n=st.integers(1, 40),
    lanes=st.sampled_from([3, 16, 32, 64, 100, 128]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_sums_over_samples_are_those_of_numpy(batch, n, lanes, dtype) -> None:
    g = samples(batch, n, dtype, seed=1)
    out = np.full(n, np.nan, dtype)
    kernels.sum_samples_kernel(tiles.aligned(to_tiles_reference(g, lanes)), out)
    tolerance = 150 * np.finfo(dtype).eps * np.abs(g).sum(0).max()
    np.testing.assert_allclose(out, g.sum(0, dtype=np.float64), rtol=0, atol=tolerance)


def test_sums_over_samples_have_the_same_bits_on_any_number_of_threads() -> None:
    g = tiles.aligned(to_tiles_reference(samples(500, 77, np.float32, 1), 64))
    results = np.full((2, 77), np.nan, np.float32)
    for threads in (1, 2):
        jit.set_num_threads(threads)
        kernels.sum_samples_kernel(g, results[threads - 1])
    np.testing.assert_array_equal(results[0], results[1])


def test_relu_gate_passes_the_gradient_where_the_output_is_positive_or_nan() -> None:
    out = tensor([-0.0, 0.0, 1.0, np.nan])
    g = tensor([5.0, 5.0, 5.0, 5.0], requires_grad=True)
    gated = ops.relu_gate(out, g)
    assert gated.numpy().tolist() == [0.0, 0.0, 5.0, 5.0]
    assert grad(gated, [g], [1.0, 2.0, 3.0, 4.0])[0].tolist() == [0.0, 0.0, 3.0, 4.0]


@pytest.mark.parametrize("lanes", [None, 16, 20])
def test_sum_samples_and_spread_are_each_others_gradients(lanes) -> None:
    def layout(x: Tensor) -> Tensor:
        return x if lanes is None else tile(x, lanes)

    x, v = samples(20, 3), samples(1, 3)[0]
    like = layout(tensor(x))
    np.testing.assert_allclose(ops.sum_samples(like).numpy(), x.sum(0))
    spread = ops.spread(tensor(v), like)
    np.testing.assert_array_equal(spread.numpy(), np.tile(v, (20, 1)))
    assert spread.data.sum() == pytest.approx(20 * v.sum())
    check_gradients(lambda t: ops.sum_samples(layout(t) * layout(t)), x, order=2)
    check_gradients(lambda t: ops.spread(t * t, like), v, order=2)


def test_nothing_is_recorded_under_no_grad() -> None:
    x = tensor(samples(3, 2), requires_grad=True)
    with no_grad():
        assert not any(f(x).requires_grad for f, _ in ACTIVATIONS.values())
