"""Per-step effects: masks and penalties by hand, gradients straight through, hardening."""

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.effects import SrSte, TopKast, harden, set_forward
from nnsparse.sparsify.units import NofM
from nnsparse.topology import Topology


def context(matrix, step=0, where=None, dtype=np.float64):
    matrix = np.asarray(matrix, float)
    topology = Topology.from_dense(np.ones_like(matrix) if where is None else where)
    n_out, n_in = matrix.shape
    layer = nn.SparseLinear(n_in, n_out, topology=topology, dtype=dtype, rng=0)
    layer.weight.set_canonical(matrix[topology.coo()])
    model = nn.Sequential(layer)
    return Context(model, targets(model), step=step)


def matrix_of(c, array):
    weight = c.targets[0].weight
    return weight.topology.to_dense(weight.canonical(array))


W = [[1, -4, 3, 2, -9, 8, 7, 0], [5, 5, 5, 5, 0, 1, 2, -3]]
MASK = [[0, 1, 1, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1, 1]]


# ---------------------------------------------------------------- SR-STE


@pytest.mark.parametrize("where", [None, np.array(W) != 0])
def test_sr_ste_shows_the_forward_pass_two_of_four_and_pulls_the_others_down(where):
    c = context(W, where=where)
    effect, weight = SrSte(decay=0.1), c.targets[0].weight
    effect.refresh(c, 0.0)
    np.testing.assert_array_equal(matrix_of(c, weight.buffers["forward"]), MASK)
    weight.grad = np.ones_like(weight.data)
    effect(c)
    stored = c.targets[0].topology.to_dense()
    expected = (1 + 0.1 * (1 - np.array(MASK)) * W) * stored
    np.testing.assert_allclose(matrix_of(c, weight.grad), expected)


def test_sr_ste_follows_the_weights_and_training_equals_the_equations():
    # W ← W − γ(∇L(mask ⊙ W) + λ(1 − mask) ⊙ W), the loss Σ (y·x)² / 2 in dense NumPy.
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 8))
    c = context(start)
    layer, effect = c.targets[0].layer, SrSte(NofM(1, 4), decay=0.05)
    optimizer = optim.SGD([layer.weight], lr=0.1)
    x, W = rng.standard_normal((5, 8)), start.copy()
    effect.refresh(c, 0.0)
    for _ in range(4):
        y = layer(x)
        loss = (y * y).sum() * 0.5
        optimizer.zero_grad()
        loss.backward()
        effect(c)
        optimizer.step()
        effect.refresh(c, optimizer.lr)
        groups = np.abs(W).reshape(3, 2, 4)
        mask = (groups == groups.max(axis=2, keepdims=True)).reshape(3, 8)
        W = W - 0.1 * ((x @ (mask * W).T).T @ x + 0.05 * (1 - mask) * W)
        np.testing.assert_allclose(layer.weight.to_dense(), W, rtol=1e-10)


def test_hardening_keeps_the_function_and_drops_what_the_forward_pass_does_not_see():
    c = context(W)
    SrSte().refresh(c, 0.0)
    target, x = c.targets[0], np.random.default_rng(0).standard_normal((4, 8))
    before = target.layer.predict(x)
    harden(target)
    np.testing.assert_array_equal(target.topology.to_dense(), MASK)
    np.testing.assert_array_equal(target.weight.to_dense(), np.multiply(W, MASK))
    assert "forward" not in target.weight.buffers
    np.testing.assert_allclose(target.layer.predict(x), before)
    topology = target.topology
    harden(target)  # nothing to do
    assert target.topology is topology


# ---------------------------------------------------------------- Top-KAST


def test_top_kast_shows_the_largest_and_penalises_the_rest_more():
    c = context(W)
    effect, weight = TopKast(share=0.25, decay=0.1, every=10), c.targets[0].weight
    effect.refresh(c, 0.0)
    mask = np.array([[0, 0, 0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(matrix_of(c, weight.buffers["forward"]), mask)
    weight.grad = np.ones_like(weight.data)
    effect(c)
    # λ(Σ_A w² + Σ_{B∖A} w² / D) with D = 4 / 16
    expected = 1 + np.where(mask, 0.2, 0.8) * W
    np.testing.assert_allclose(matrix_of(c, weight.grad), expected)


def test_the_penalty_is_the_derivative_of_its_formula():
    where = np.random.default_rng(0).random((6, 7)) < 0.6
    c = context(np.random.default_rng(1).standard_normal((6, 7)), where=where)
    effect, weight = TopKast(share=0.5, decay=0.01), c.targets[0].weight
    effect.refresh(c, 0.0)
    a = weight.buffers["forward"] != 0
    d = a.sum() / 42

    def penalty(w):
        return 0.01 * ((w[a] ** 2).sum() + (w[~a] ** 2).sum() / d)

    weight.grad = np.zeros_like(weight.data)
    effect(c)
    for i in range(weight.size):
        step = np.eye(weight.size)[i] * 1e-6
        slope = (penalty(weight.data + step) - penalty(weight.data - step)) / 2e-6
        assert weight.grad[i] == pytest.approx(slope, abs=1e-8)


def test_the_forward_set_changes_only_when_it_is_due():
    c = context([[1, 2, 3, 4]])
    effect, weight = TopKast(share=0.5, every=10), c.targets[0].weight
    for step, expected in ((3, [0, 0, 1, 1]), (9, [0, 0, 1, 1]), (10, [1, 1, 0, 0])):
        effect.refresh(Context(c.model, c.targets, step=step), 0.0)
        assert matrix_of(c, weight.buffers["forward"]).tolist() == [expected]
        weight.set_canonical([4, 3, 2, 1])


def test_the_forward_set_has_one_weight_at_least_and_no_more_than_there_are():
    for share, count in ((0.0, 1), (0.1, 1), (0.5, 2), (1.0, 4)):
        c = context([[1, 2, 3, 4]])
        TopKast(share).refresh(c, 0.0)
        assert c.targets[0].weight.buffers["forward"].sum() == count
    c = context([[1, 2]], where=[[0, 0]])
    TopKast(0.5).refresh(c, 0.0)
    TopKast(0.5)(c)
    assert c.targets[0].weight.buffers["forward"].size == 0


# ---------------------------------------------------------------- both


@pytest.mark.parametrize("effect", [SrSte(), TopKast(0.5)])
def test_a_shared_or_missing_gradient_is_safe_and_the_dtype_stays(effect):
    c = context(W, dtype=np.float32)
    weight = c.targets[0].weight
    effect(c)  # neither mask nor gradient
    assert weight.grad is None
    effect.refresh(c, 0.0)
    effect(c)
    assert weight.grad is None
    weight.grad = shared = np.zeros_like(weight.data)
    effect(c)
    assert not shared.any()
    assert weight.grad.any()
    assert weight.grad.dtype == weight.buffers["forward"].dtype == np.float32


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 10), (3, 8)])
def test_sr_ste_chooses_the_same_weights_in_a_full_layer_as_by_their_positions(n, m):
    unit, rng = NofM(n, m), np.random.default_rng(0)
    c = context(rng.integers(-4, 5, (30, 53)), dtype=np.float32)
    SrSte(unit).refresh(c, 0.0)
    target = c.targets[0]
    expected = unit.best(target.topology, np.abs(target.canonical()))
    np.testing.assert_array_equal(target.weight.buffers["forward"], expected)


def test_an_infinite_weight_that_is_not_penalised_spoils_no_gradient():
    c = context([[np.inf, 4, 3, 2]])
    effect, weight = SrSte(decay=0.1), c.targets[0].weight
    effect.refresh(c, 0.0)
    weight.grad = np.ones_like(weight.data)
    effect(c)
    np.testing.assert_allclose(weight.grad, [1, 1, 1.3, 1.2])


def test_a_gradient_of_another_shape_is_refused():
    c = context(W)
    SrSte().refresh(c, 0.0)
    c.targets[0].weight.grad = np.ones(3)
    with pytest.raises(ValueError, match=r"layer '0' expects a gradient and a mask of shape"):
        SrSte()(c)


def test_set_forward_takes_a_mask_in_canonical_order():
    c = context(
        np.random.default_rng(0).standard_normal((9, 40)), where=np.eye(9, 40) + np.eye(9, 40, 5)
    )
    target = c.targets[0]
    mask = np.arange(target.nnz) % 3 == 0
    set_forward(target, mask)
    np.testing.assert_array_equal(target.canonical(target.weight.buffers["forward"]) != 0, mask)


def test_settings_out_of_range_are_refused():
    for make in (lambda: SrSte(decay=-1.0), lambda: TopKast(0.5, decay=float("nan"))):
        with pytest.raises(ValueError, match="decay >= 0 and finite"):
            make()
    with pytest.raises(ValueError, match=r"share in \[0, 1\]"):
        TopKast(1.5)
    with pytest.raises(ValueError, match="every >= 1"):
        TopKast(0.5, every=0)
