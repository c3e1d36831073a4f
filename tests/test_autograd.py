"""The tape: what a backward sweep computes, keeps, frees and refuses."""

import gc
import threading
import weakref

import numpy as np
import pytest

from nnsparse import tiles
from nnsparse.autograd import Tensor, accumulate, grad, no_grad, record, recording, tensor
from nnsparse.ops.arithmetic import add, exp, multiply
from nnsparse.ops.arithmetic import sum as sum_of
from nnsparse.testing import to_tiles_reference


def leaf(*values: float) -> Tensor:
    return tensor(np.array(values), requires_grad=True)


# ---------------------------------------------------------------- what it computes


def test_a_tensor_used_twice_gets_both_gradients() -> None:
    x = leaf(2.0, 3.0)
    assert grad(sum_of(multiply(x, x)), [x])[0].tolist() == [4.0, 6.0]


def test_a_shared_subexpression_is_swept_once_with_its_whole_gradient() -> None:
    calls = []

    def rule(g, out, needs):
        calls.append(g.item())
        return (g,)

    x = leaf(1.0)
    shared = record(x.data, (x,), rule)
    out = add(multiply(shared, 2.0), multiply(shared, shared))
    assert grad(out, [x])[0].tolist() == [4.0]
    assert calls == [4.0]


def test_a_ladder_of_diamonds_costs_linear_time() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2**60 paths
        y = multiply(add(y, y), 0.5)
    assert grad(y, [x])[0].tolist() == [1.0]


def test_branches_of_different_length_are_swept_in_order() -> None:
    x = leaf(0.5)
    long = x
    for _ in range(10):
        long = multiply(long, 1.0)
    expected = 2 * 0.5 * np.exp(0.25)
    assert grad(exp(multiply(long, x)), [x])[0][0] == pytest.approx(expected)


def test_a_chain_of_five_thousand_ops_needs_no_recursion() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = add(y, 0.001)
    assert grad(y, [x])[0].tolist() == [1.0]
    del y  # nor does freeing it


def test_a_chain_of_five_thousand_ops_that_was_never_swept_is_freed_too() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = multiply(y, 1.0)
    gone = weakref.ref(y)
    del y
    assert gone() is None


def test_derivatives_of_every_order_follow_from_create_graph() -> None:
    x = leaf(2.0)
    y = multiply(multiply(x, x), multiply(x, x))
    values = []
    for _ in range(4):
        (y,) = grad(y, [x], create_graph=True)
        values.append(y.item())
    assert values == [32.0, 48.0, 48.0, 24.0]


def test_grad_goes_to_tensors_in_the_middle_too() -> None:
    x = leaf(3.0)
    middle = multiply(x, x)
    out = multiply(middle, middle)
    assert [g.tolist() for g in grad(out, [middle, x])] == [[18.0], [108.0]]


def test_grad_of_a_tensor_by_itself_is_one() -> None:
    x = leaf(3.0)
    assert grad(x, [x])[0] == 1.0


def test_a_gradient_for_many_outputs_weighs_them() -> None:
    x = leaf(1.0, 2.0)
    assert grad(multiply(x, x), [x], [1.0, 10.0])[0].tolist() == [2.0, 40.0]


def test_an_activation_takes_and_gives_gradients_by_its_samples() -> None:
    rows = np.arange(15.0).reshape(5, 3)
    x = Tensor(to_tiles_reference(rows, 16), requires_grad=True, batch=5)
    y = multiply(x, x)
    np.testing.assert_array_equal(grad(y, [x], np.ones((5, 3)), retain_graph=True)[0], 2 * rows)
    y.backward(np.ones((5, 3)))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad, to_tiles_reference(2 * rows, 16))


def test_accumulate_keeps_the_layout() -> None:
    assert accumulate(a := Tensor(tiles.zeros((1, 2, 16)), batch=3), a).batch == 3


# ---------------------------------------------------------------- leaves


def test_backward_adds_to_the_gradients_of_leaves() -> None:
    x = leaf(2.0)
    for _ in range(2):
        multiply(x, x).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8.0]


def test_backward_fills_leaves_that_require_it_and_no_others() -> None:
    x, constant = leaf(2.0), tensor([3.0])
    middle = multiply(x, constant)
    multiply(middle, 2.0).backward()
    assert x.grad is not None
    assert constant.grad is None
    assert middle.grad is None


def test_grad_touches_no_grad_attribute() -> None:
    x = leaf(2.0)
    y = multiply(x, x)
    grad(y, [x])
    assert x.grad is None
    assert y.grad is None


def test_detach_cuts_the_history_and_shares_the_data() -> None:
    x = leaf(2.0)
    y = multiply(x, x)
    cut = y.detach()
    assert cut.data is y.data
    assert not cut.requires_grad
    assert grad(multiply(cut, x), [x])[0].tolist() == [4.0]


# ---------------------------------------------------------------- keeping and freeing


def test_a_second_sweep_is_refused_with_the_fix() -> None:
    x = leaf(2.0)
    y = multiply(x, x)
    y.backward()
    with pytest.raises(RuntimeError, match=r"already used and freed.*retain_graph=True"):
        y.backward()


def test_a_graph_that_shares_a_freed_part_is_refused() -> None:
    x = leaf(2.0)
    shared = multiply(x, x)
    multiply(shared, 2.0).backward()
    with pytest.raises(RuntimeError, match="already used and freed"):
        multiply(shared, 3.0).backward()


def test_retain_graph_allows_a_second_sweep() -> None:
    x = leaf(2.0)
    y = multiply(x, x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8.0]


def test_backward_frees_what_the_rules_held() -> None:
    x = leaf(2.0)
    middle = multiply(x, x)
    held = weakref.ref(middle)
    out = exp(middle)
    del middle
    assert held() is not None
    out.backward()
    assert held() is None


@pytest.mark.parametrize("swept", [True, False])
def test_a_graph_has_no_reference_cycles(swept) -> None:
    x = leaf(2.0)
    gc.collect()
    gc.disable()
    try:
        middle = exp(multiply(x, x))
        out = sum_of(multiply(middle, middle))
        if swept:
            out.backward()
        gone = [weakref.ref(t) for t in (middle, out)]
        del middle, out
        assert [r() for r in gone] == [None, None]
    finally:
        gc.enable()


def test_a_second_order_graph_has_no_reference_cycles() -> None:
    x = leaf(2.0)
    gc.collect()
    gc.disable()
    try:
        y = exp(multiply(x, x))
        (slope,) = grad(y, [x], create_graph=True)
        slope.backward()
        gone = [weakref.ref(t) for t in (y, slope)]
        del y, slope
        assert [r() for r in gone] == [None, None]
    finally:
        gc.enable()


# ---------------------------------------------------------------- no_grad


def test_nothing_is_recorded_inside_no_grad_and_again_after_it() -> None:
    x = leaf(2.0)
    with no_grad():
        assert not recording()
        y = multiply(x, x)
    assert not y.requires_grad
    assert y.node is None
    assert multiply(x, x).requires_grad


def test_no_grad_ends_with_an_error_too_and_can_be_nested() -> None:
    with pytest.raises(KeyError), no_grad(), no_grad():
        raise KeyError
    assert recording()


def test_no_grad_holds_for_its_own_thread_only() -> None:
    inside = []
    with no_grad():
        thread = threading.Thread(target=lambda: inside.append(recording()))
        thread.start()
        thread.join()
    assert inside == [True]


def test_a_failing_rule_leaves_recording_as_it_was() -> None:
    def rule(g, out, needs):
        raise ZeroDivisionError

    x = leaf(1.0)
    with pytest.raises(ZeroDivisionError):
        record(x.data, (x,), rule).backward()
    assert recording()


def test_backward_works_inside_no_grad_on_what_was_recorded_before() -> None:
    x = leaf(3.0)
    y = multiply(x, x)
    with no_grad():
        y.backward()
        assert not recording()
    assert x.grad is not None
    assert x.grad.tolist() == [6.0]


# ---------------------------------------------------------------- refusals


def test_backward_of_a_constant_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not made from anything that requires a gradient"):
        multiply(tensor([1.0]), 2.0).backward()


def test_backward_of_many_numbers_needs_a_gradient() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"single number; got shape \(2,\)"):
        multiply(x, x).backward()


def test_a_gradient_of_the_wrong_shape_is_refused() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"shape \(2,\); got \(3,\)"):
        multiply(x, x).backward([1.0, 2.0, 3.0])


def test_grad_by_something_unused_is_refused_by_its_number() -> None:
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="does not depend on input 1"):
        grad(multiply(x, x), [x, y])
