"""`check_gradients` passes what is right and names what is wrong."""

import numpy as np
import pytest

from nnsparse.autograd import Tensor, record
from nnsparse.gradcheck import GradientError, check_gradients
from nnsparse.ops.arithmetic import add, exp, multiply, negative, power
from nnsparse.ops.layout import tile


def wrong_by(error: float, place: int):
    """Return x -> 3x, whose rule adds `error` at one place."""

    def f(x: Tensor) -> Tensor:
        def rule(g, out, needs):
            shift = np.zeros_like(x.data)
            shift.flat[place] = error
            return (add(multiply(g, 3.0), shift),)

        return record(x.data * 3.0, (x,), rule)

    return f


def cube_with_wrong_second_derivative(x: Tensor) -> Tensor:
    def slope(x: Tensor) -> Tensor:
        return record(3 * x.data**2, (x,), lambda g, out, needs: (multiply(g, 6.0),))

    return record(x.data**3, (x,), lambda g, out, needs: (multiply(g, slope(x)),))


def test_a_right_gradient_passes_at_both_orders() -> None:
    check_gradients(
        lambda x, y: multiply(exp(x), power(y, 3)), [0.3, -1.0], [[2.0], [1.0]], order=2
    )


def test_a_wrong_gradient_is_named_with_its_place_and_both_values() -> None:
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(GradientError, match=r"input 1 at \(1, 0\): analytic .*, numeric .*1 of 4"):
        check_gradients(lambda a, b: add(a, wrong_by(0.1, 2)(b)), x, x)


def test_the_error_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError):
        check_gradients(wrong_by(-1.0, 0), [1.0])


def test_an_error_within_the_tolerance_passes() -> None:
    check_gradients(wrong_by(1e-7, 0), [1.0])
    with pytest.raises(GradientError):
        check_gradients(wrong_by(1e-3, 0), [1.0])


def test_a_wrong_sign_is_found() -> None:
    def f(x: Tensor) -> Tensor:
        return record(x.data**2, (x,), lambda g, out, needs: (negative(multiply(g, x)),))

    with pytest.raises(GradientError, match="gradient of input 0"):
        check_gradients(f, [0.5])


def test_a_nan_gradient_is_found() -> None:
    with pytest.raises(GradientError, match="nan"):
        check_gradients(wrong_by(np.nan, 0), [1.0])


def test_a_gradient_of_the_wrong_shape_is_found() -> None:
    def f(x: Tensor) -> Tensor:
        return record(x.data.sum(), (x,), lambda g, out, needs: (g,))

    with pytest.raises(GradientError, match=r"expected shape \(2,\); got \(\)"):
        check_gradients(f, [1.0, 2.0])


def test_a_wrong_second_derivative_passes_order_one_and_fails_order_two() -> None:
    check_gradients(cube_with_wrong_second_derivative, [2.0, -1.0])
    with pytest.raises(GradientError, match="second derivative of input 0"):
        check_gradients(cube_with_wrong_second_derivative, [2.0, -1.0], order=2)


def test_a_rule_wrong_only_when_recorded_is_found_at_order_two() -> None:
    from nnsparse.autograd import recording

    def f(x: Tensor) -> Tensor:
        factor = lambda: 4.0 if recording() else 3.0  # noqa: E731
        return record(x.data * 3.0, (x,), lambda g, out, needs: (multiply(g, factor()),))

    check_gradients(f, [1.0])
    with pytest.raises(GradientError, match="create_graph=True"):
        check_gradients(f, [1.0], order=2)


def test_an_input_that_is_not_used_has_gradient_zero() -> None:
    check_gradients(lambda x, y: multiply(x, x), [1.0, 2.0], [3.0], order=2)
    check_gradients(lambda x: Tensor(np.ones(3)), [1.0], order=2)


def test_a_dependence_hidden_from_the_tape_is_found() -> None:
    with pytest.raises(GradientError, match="input 1"):
        check_gradients(lambda x, y: multiply(x, y.data), [1.0, 2.0], [3.0, 4.0])


def test_a_tiled_output_is_compared_by_its_samples() -> None:
    check_gradients(lambda x: multiply(tile(x, 16), tile(x, 16)), np.ones((3, 2)), order=2)


def test_scalars_and_empty_arrays_are_inputs_too() -> None:
    check_gradients(lambda x, y: multiply(x, x), 2.0, np.zeros((0, 3)), order=2)


def test_the_arrays_are_not_changed() -> None:
    x = np.array([1.0, 2.0])
    check_gradients(lambda t: multiply(t, t), x, order=2)
    assert x.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: check_gradients(lambda x: x, [1.0], order=3), ValueError),
        (lambda: check_gradients(lambda: Tensor(np.ones(1))), ValueError),
        (lambda: check_gradients(lambda x: x.data, [1.0]), TypeError),
    ],
)
def test_a_misuse_is_refused(call, error) -> None:
    with pytest.raises(error, match="check_gradients expects"):
        call()
