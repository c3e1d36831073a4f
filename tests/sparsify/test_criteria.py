"""Criteria without data: hand-worked tables, exact counts, ties, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from nnsparse import nn
from nnsparse.parameter import FORWARD
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.criteria import (
    magnitude,
    movement,
    neuron_strength,
    random,
    signed_rank,
)
from nnsparse.topology import Topology


def context_of(*matrices, **settings):
    """A chain of sparse layers with these dense matrices; zeros are not stored."""
    model = nn.Sequential(
        *(nn.SparseLinear.from_scipy(csr_array(np.array(m, float))) for m in matrices)
    )
    return Context(model, targets(model), **settings)


def row_of(values):
    """A context with one layer of one neuron that has all these weights, zeros too."""
    values = np.asarray(values, np.float64)
    layer = nn.SparseLinear(
        len(values), 1, topology=Topology.full((1, len(values))), dtype=np.float64, rng=0
    )
    layer.weight.set_canonical(values)
    return Context(layer, targets(layer))


def large_layer(dtype=np.float32, n=300):
    """A layer large enough that the kernels' order is not the canonical one."""
    layer = nn.SparseLinear(n, n, sparsity=0.8, dtype=dtype, rng=0)
    assert (layer.weight.data != layer.weight.canonical()).any()
    return layer


def kept(score, k):
    """Positions of the k largest; of equal ones the lower position stays."""
    return np.sort(np.lexsort((np.arange(len(score)), -score))[:k])


# ---------------------------------------------------------------- magnitude and random


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_magnitude_is_the_absolute_value_in_canonical_order(dtype):
    layer = large_layer(dtype)
    (score,) = magnitude(Context(layer, targets(layer)))
    assert score.dtype == dtype
    np.testing.assert_array_equal(score, np.abs(layer.to_scipy().data))


def test_a_criterion_scores_each_target_and_no_other_layer():
    model = nn.mlp([20, 15, 10, 5], sparsity=[0.5, 0.5, None], rng=0)
    context = Context(model, targets(model, skip=["2"]))
    for criterion in (magnitude, random, signed_rank):
        (score,) = criterion(context)
        assert score.shape == (model[0].nnz,)


def test_magnitude_does_not_change_when_its_result_is_overwritten():
    context = row_of([1.0, -2.0])
    magnitude(context)[0][:] = 7
    np.testing.assert_array_equal(magnitude(context)[0], [1, 2])


def test_random_depends_on_seed_step_and_target_only():
    matrix = np.ones((4, 4))

    def scores(**settings):
        return random(context_of(matrix, matrix, **settings))

    first, second = scores(seed=3, step=5)
    np.testing.assert_array_equal(first, scores(seed=3, step=5)[0])
    for other in (second, scores(seed=4, step=5)[0], scores(seed=3, step=6)[0]):
        assert (first != other).all()


def test_random_does_not_use_the_numbers_that_growth_draws():
    context = context_of(np.ones((4, 4)), seed=1)
    assert not np.isin(random(context)[0], context.rng(0).random(100)).any()


def test_random_keeps_every_weight_equally_often():
    context = row_of(np.ones(10))
    times = np.zeros(10)
    for step in range(2000):
        times[kept(random(Context(context.model, context.targets, step=step))[0], 3)] += 1
    # Each is binomial with mean 600 and standard deviation 20.5.
    assert (np.abs(times - 600) < 5 * 20.5).all()


# ---------------------------------------------------------------- movement


def test_movement_is_the_distance_from_the_start():
    context = row_of([1.0, -2.0, 0.5])
    weight = context.targets[0].weight
    weight.buffers["start"] = weight.data.copy()
    weight.set_canonical([1.5, -2.0, -0.5])
    np.testing.assert_array_equal(movement(context)[0], [0.5, 0.0, 1.0])


def test_movement_follows_the_weights_when_the_topology_changes():
    layer = large_layer(np.float64)
    weight = layer.weight
    weight.buffers["start"] = weight.data.copy()
    weight.data += 2.0
    before = weight.topology
    grown = before.random_free(50, 0)
    weight.move_to(before | grown, 3.0)
    (score,) = movement(Context(layer, targets(layer)))
    newcomer = weight.topology.positions_in(grown) >= 0
    np.testing.assert_allclose(score[~newcomer], 2.0, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(score[newcomer], 3.0)


def test_movement_without_a_start_names_the_layer_and_the_fix():
    context = context_of(np.ones((2, 2)), np.ones((2, 2)))
    weight = context.targets[0].weight
    weight.buffers["start"] = weight.data.copy()
    with pytest.raises(ValueError, match=r"layer '1'.*missing.*data\.copy\(\)"):
        movement(context)


# ---------------------------------------------------------------- signed rank (SET)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # Four positive (0.1, 0.2, 0.3, 0.4) and two negative ones.
        ([0.3, -9.0, 0.1, 0.4, -8.0, 0.2], [5 / 8, 3 / 4, 1 / 8, 7 / 8, 1 / 4, 3 / 8]),
        # Zeros of either sign, and NaN, come first.
        ([0.0, 5.0, -0.0, -1e-30, np.nan], [0.0, 1 / 2, 0.0, 1 / 2, 0.0]),
        # Of equal magnitudes the lower position ranks higher.
        ([2.0, 2.0, 1.0, 2.0], [7 / 8, 5 / 8, 1 / 8, 3 / 8]),
        ([-1.0], [1 / 2]),
        ([], []),
    ],
)
def test_signed_rank_of_a_worked_table(weights, expected):
    if weights:
        context = row_of(weights)
    else:
        layer = nn.SparseLinear(3, 1, topology=Topology.empty((1, 3)), rng=0)
        context = Context(layer, targets(layer))
    np.testing.assert_array_equal(signed_rank(context)[0], expected)


def test_signed_rank_drops_a_fraction_of_each_sign_although_one_sign_is_smaller():
    # ζ = 0.5 of four positive and of two negative weights; by magnitude both negative ones would go.
    context = row_of([5.0, 6.0, 7.0, 8.0, -0.1, -0.2])
    (score,) = signed_rank(context)
    np.testing.assert_array_equal(kept(score, 3), [2, 3, 5])
    np.testing.assert_array_equal(kept(magnitude(context)[0], 4), [0, 1, 2, 3])


@given(
    st.lists(st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0]), min_size=1, max_size=40),
    st.data(),
)
def test_signed_rank_drops_from_each_sign_in_proportion_and_smallest_first(weights, data):
    values = np.array(weights)
    n = len(values)
    dropped = data.draw(st.integers(0, n))
    survivors = kept(signed_rank(row_of(values))[0], n - dropped)
    gone = np.setdiff1d(np.arange(n), survivors)
    assert len(gone) == dropped
    for sign in (1, -1):
        side = np.flatnonzero(np.sign(values) == sign)
        lost = np.intersect1d(gone, side)
        assert 2 * abs(len(lost) * n - dropped * len(side)) <= n  # to the nearest integer
        # Those are the smallest, and of equal ones the last.
        order = side[np.lexsort((-side, np.abs(values[side])))]
        np.testing.assert_array_equal(lost, np.sort(order[: len(lost)]))


def test_signed_rank_is_in_canonical_order():
    layer = large_layer()
    (score,) = signed_rank(Context(layer, targets(layer)))
    w = layer.to_scipy().data
    for side in (w > 0, w < 0):
        assert (np.diff(score[side][np.argsort(np.abs(w[side]))]) > 0).all()
        assert np.isclose(score[side].mean(), 0.5)


# ---------------------------------------------------------------- neurons


@pytest.mark.parametrize("first", ["sparse", "dense"])
@pytest.mark.parametrize("second", ["sparse", "dense", None])
def test_strength_is_the_sum_of_absolute_weights_in_and_out(first, second):
    a, b = nn.Linear(30, 20, rng=0), nn.Linear(20, 10, rng=1)
    a.weight.data[3], b.weight.data[:, 4] = 0, 0
    expected = np.abs(a.weight.data).sum(axis=1, dtype=float)
    if second is not None:
        expected += np.abs(b.weight.data).sum(axis=0, dtype=float)
    layer = nn.SparseLinear.from_dense(a) if first == "sparse" else a
    following = nn.SparseLinear.from_dense(b) if second == "sparse" else b
    strength = neuron_strength(layer, following if second else None)
    assert strength.shape == (20,)
    assert strength.dtype == np.float64
    np.testing.assert_allclose(strength, expected, rtol=1e-6)


def test_strength_refuses_a_following_layer_of_another_size():
    with pytest.raises(ValueError, match="following layer with 20 inputs"):
        neuron_strength(nn.Linear(30, 20, rng=0), nn.Linear(30, 10, rng=0))


def test_weights_that_a_forward_mask_leaves_out_give_a_neuron_no_strength():
    layer = nn.SparseLinear(4, 3, density=1, rng=0)
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], layer.dtype)
    layer.weight.buffers[FORWARD] = layer.weight.planned(mask.ravel())
    expected = np.abs(layer.weight.to_dense() * mask).sum(axis=1)
    np.testing.assert_allclose(neuron_strength(layer), expected)
