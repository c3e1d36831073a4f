"""Arithmetic: values as NumPy's, gradients by finite differences, layouts, dtypes."""

import numpy as np
import pytest

from nnsparse.autograd import Tensor, grad, tensor
from nnsparse.gradcheck import check_gradients
from nnsparse.ops import arithmetic as ops
from nnsparse.ops.layout import tile

rng = np.random.default_rng(1)
A = rng.standard_normal((3, 4))
POSITIVE = rng.uniform(0.5, 2.0, (3, 4))

BINARY = {
    "add": (ops.add, np.add),
    "subtract": (ops.subtract, np.subtract),
    "multiply": (ops.multiply, np.multiply),
    "divide": (ops.divide, np.divide),
}
SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (3, 4)), ((2, 3, 4), (3, 1))]
UNARY = {
    "negative": (ops.negative, np.negative),
    "exp": (ops.exp, np.exp),
    "log": (ops.log, np.log),
    "square": (lambda x: ops.power(x, 2), np.square),
    "root": (lambda x: ops.power(x, 0.5), np.sqrt),
    "inverse": (lambda x: ops.power(x, -1), np.reciprocal),
    "constant": (lambda x: ops.power(x, 0), np.ones_like),
    "transpose": (ops.transpose, np.transpose),
    "sum": (ops.sum, np.sum),
    "sum of rows": (lambda x: ops.sum(x, 1), lambda x: x.sum(1)),
    "sum kept": (lambda x: ops.sum(x, -2, keepdims=True), lambda x: x.sum(0, keepdims=True)),
    "sum of two axes": (lambda x: ops.sum(x, (0, 1)), np.sum),
    "mean": (ops.mean, np.mean),
    "mean kept": (lambda x: ops.mean(x, 0, keepdims=True), lambda x: x.mean(0, keepdims=True)),
    "reshape": (lambda x: ops.reshape(x, 2, -1), lambda x: x.reshape(2, -1)),
    "broadcast": (
        lambda x: ops.broadcast_to(x, (2, 3, 4)),
        lambda x: np.broadcast_to(x, (2, 3, 4)),
    ),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_a_binary_op_broadcasts_as_numpy_and_has_right_gradients(name, shapes) -> None:
    op, reference = BINARY[name]
    a, b = (rng.uniform(0.5, 2.0, shape) for shape in shapes)
    np.testing.assert_array_equal(op(tensor(a), tensor(b)).numpy(), reference(a, b))
    check_gradients(op, a, b, order=2)


@pytest.mark.parametrize("name", UNARY)
def test_a_unary_op_agrees_with_numpy_and_has_right_gradients(name) -> None:
    op, reference = UNARY[name]
    np.testing.assert_allclose(op(tensor(POSITIVE)).numpy(), reference(POSITIVE), rtol=1e-15)
    check_gradients(op, POSITIVE, order=2)


def test_matmul_is_the_matrix_product_with_right_gradients() -> None:
    b = rng.standard_normal((4, 2))
    np.testing.assert_allclose(ops.matmul(tensor(A), b).numpy(), A @ b)
    check_gradients(ops.matmul, A, b, order=2)


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((4,), (4, 2)), ((2, 3, 4), (4, 2))])
def test_matmul_of_wrong_shapes_says_what_to_do(shapes) -> None:
    with pytest.raises(ValueError, match=r"matmul expects .*Transposed\?"):
        ops.matmul(*(tensor(np.ones(shape)) for shape in shapes))


def test_operators_take_tensors_arrays_and_numbers_on_either_side() -> None:
    t, b = tensor(A), rng.uniform(1.0, 2.0, (3, 4))
    cases = [
        (t + b, A + b), (b + t, b + A), (t + 1, A + 1), (1 + t, 1 + A),
        (t - b, A - b), (b - t, b - A), (2 - t, 2 - A),
        (t * b, A * b), (b * t, b * A), (np.float64(3) * t, 3 * A),
        (t / b, A / b), (b / t, b / A), (1 / t, 1 / A),
        (t**2, A**2), (-t, -A), (t @ b.T, A @ b.T), (b.T @ t, b.T @ A),
        (t.sum(), A.sum()), (t.sum(axis=0), A.sum(0)), (t.mean(), A.mean()),
        (t.reshape(4, 3), A.reshape(4, 3)), (t.reshape((2, 6)), A.reshape(2, 6)), (t.T, A.T),
    ]  # fmt: skip
    for result, expected in cases:
        assert isinstance(result, Tensor)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-14)


def test_gradients_flow_through_operators_on_either_side() -> None:
    def f(x, y):
        return (2 / x - 3 * y) @ ((1 - x) ** 2).T + (A[0] * -y) @ x.T

    check_gradients(f, POSITIVE, A, order=2)


@pytest.mark.parametrize(
    "operand",
    [2, 2.5, True, np.float64(2), np.int64(3), np.ones(4), np.ones(4, np.int64), [1, 2, 3, 4]],
    ids=repr,
)
def test_a_constant_never_widens_a_float32_tensor(operand) -> None:
    x = tensor(np.ones(4, np.float32), requires_grad=True)
    for result in (x + operand, operand - x, x * operand, operand / x, x / operand):
        assert result.dtype == np.float32
        assert grad(result.sum(), [x])[0].dtype == np.float32


def test_two_tensors_of_different_dtypes_meet_in_the_wider_one() -> None:
    x = tensor(np.ones(3, np.float32), requires_grad=True)
    y = tensor(np.ones(3), requires_grad=True)
    out = x * y
    gx, gy = grad(out, [x, y], np.ones(3))
    assert (out.dtype, gx.dtype, gy.dtype) == (np.float64, np.float32, np.float64)


def test_only_the_gradients_asked_for_are_computed() -> None:
    x = tensor(A, requires_grad=True)
    for op, _ in BINARY.values():
        assert grad(op(x, POSITIVE), [x], A)[0].shape == A.shape
        assert grad(op(POSITIVE, x), [x], A)[0].shape == A.shape


def test_the_power_of_zero_has_the_limits_that_calculus_says() -> None:
    x = tensor([0.0], requires_grad=True)
    slopes = [grad(ops.power(x, p), [x], [1.0])[0][0] for p in (0, 1, 2, 3)]
    assert slopes == [0.0, 1.0, 0.0, 0.0]


def test_extreme_values_give_inf_or_nan_without_a_warning() -> None:
    zero = tensor([0.0])
    results = [1 / zero, zero / zero, ops.log(zero), ops.log(-1 - zero), ops.power(zero, -1)]
    values = [r.numpy()[0] for r in [*results, ops.exp(zero + 1e4)]]
    np.testing.assert_array_equal(values, [np.inf, np.nan, -np.inf, np.nan, np.inf, np.inf])


def test_a_power_with_a_tensor_as_exponent_is_refused() -> None:
    with pytest.raises(TypeError, match=r"exp\(log\(a\) \* b\)"):
        tensor(A) ** tensor(A)  # type: ignore[operator]


def test_an_operand_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="real numbers; got str"):
        tensor(A) + "one"


def tiled(a: np.ndarray, lanes: int = 16) -> Tensor:
    return tile(tensor(a), lanes)


@pytest.mark.parametrize("op", [ops.add, ops.subtract, ops.multiply])
def test_two_activations_of_one_layout_stay_tiled_with_zero_padding(op) -> None:
    a, b = rng.standard_normal((2, 20, 5))
    out = op(tiled(a), tiled(b))
    assert out.batch == 20
    assert out.data.shape == (2, 5, 16)
    assert not out.data[1, :, 4:].any()
    np.testing.assert_array_equal(out.numpy(), op(tensor(a), tensor(b)).numpy())


def test_an_activation_and_anything_else_give_a_plain_tensor() -> None:
    a, b = rng.uniform(1.0, 2.0, (2, 20, 5))
    others = {"plain": tensor(b), "other lanes": tiled(b, 32), "array": b, "row": b[0], "number": 3}
    for name, other in others.items():
        values = other.numpy() if isinstance(other, Tensor) else other
        for op, reference in BINARY.values():
            out = op(tiled(a), other)
            assert out.batch is None, name
            np.testing.assert_array_equal(out.numpy(), reference(a, values), err_msg=name)


def test_gradients_are_right_through_tiles() -> None:
    a, b = rng.uniform(1.0, 2.0, (2, 5, 3))
    for op, _ in BINARY.values():
        check_gradients(lambda x, y, op=op: op(tile(x, 16), tile(y, 16)), a, b, order=2)
        check_gradients(lambda x, y, op=op: op(tile(x, 16), y), a, b[0], order=2)
        check_gradients(lambda x, y, op=op: op(y, tile(x, 16)), a, b[0], order=2)


def test_sums_and_products_of_activations_do_not_see_the_padding() -> None:
    a = rng.standard_normal((5, 3))
    assert ops.sum(ops.exp(tiled(a))).item() == pytest.approx(np.exp(a).sum())
    assert ops.mean(tiled(a)).item() == pytest.approx(a.mean())
    np.testing.assert_allclose((tiled(a).T @ tiled(a)).numpy(), a.T @ a)
    np.testing.assert_array_equal((-tiled(a)).numpy(), -a)


def test_the_sum_of_nothing_is_zero_and_its_mean_nan() -> None:
    empty = tensor(np.zeros((0, 3)), requires_grad=True)
    assert ops.sum(empty).item() == 0.0
    assert np.isnan(ops.mean(empty).item())
    assert grad(ops.sum(empty), [empty])[0].shape == (0, 3)
