"""`clip_grad_norm` against torch, on sparse parameters and gradients of rows, and its bad input."""

import numpy as np
import pytest

from nnsparse import Parameter
from nnsparse.optim import clip_grad_norm
from nnsparse.row_gradient import RowGradient

RNG = np.random.default_rng(0)
GRADS = [RNG.standard_normal(shape).astype(np.float32) for shape in [(70, 900), (5,), (3, 1)]]


def parameters():
    made = [Parameter(np.zeros_like(grad)) for grad in GRADS]
    for p, grad in zip(made, GRADS, strict=True):
        p.grad = grad.copy()
    return [*made, Parameter(np.zeros(3, np.float32))]  # the last one has no gradient


@pytest.mark.parametrize("limit", [1.0, 100.0, 1e6, float("inf")])
def test_norm_and_gradients_are_torchs(limit):
    torch = pytest.importorskip("torch")
    theirs = [torch.nn.Parameter(torch.zeros(grad.shape)) for grad in GRADS]
    for p, grad in zip(theirs, GRADS, strict=True):
        p.grad = torch.from_numpy(grad.copy())
    ours = parameters()
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit)
    assert clip_grad_norm(ours, limit) == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(ours, theirs, strict=False):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-5)
    assert ours[-1].grad is None


def test_rows_count_as_the_whole_gradient_that_they_stand_for():
    p = Parameter(np.zeros((6, 2)))
    p.grad = RowGradient([1, 4], np.array([[3.0, 0.0], [0.0, 4.0]]), (6, 2))
    assert clip_grad_norm(iter([p]), 2.5) == 5.0
    assert isinstance(p.grad, RowGradient)
    np.testing.assert_allclose(p.grad.values, [[1.5, 0.0], [0.0, 2.0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_changes_nothing(bad):
    made = parameters()
    made[1].grad[2] = bad
    assert not np.isfinite(clip_grad_norm(made, 1.0))
    np.testing.assert_array_equal(made[0].grad, GRADS[0])


@pytest.mark.parametrize(
    ("limit", "error"), [(0.0, ValueError), (-1, ValueError), (None, TypeError), (True, TypeError)]
)
def test_a_limit_that_is_no_number_above_zero_is_refused(limit, error):
    with pytest.raises(error, match="clip_grad_norm expects"):
        clip_grad_norm([], limit)
