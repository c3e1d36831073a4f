"""Group lasso: value and proximal step by hand and against the definition of a proximal operator."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import nn
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.group_lasso import GroupLasso, by_column, by_row
from nnsparse.sparsify.units import Block
from nnsparse.testing import random_topology
from nnsparse.topology import Topology


def context(*matrices, dtype=np.float64):
    layers = []
    for matrix in map(np.asarray, matrices):
        topology = Topology.from_dense(matrix)
        n_out, n_in = matrix.shape
        layers.append(nn.SparseLinear(n_in, n_out, topology=topology, dtype=dtype, rng=0))
        layers[-1].weight.set_canonical(matrix[topology.coo()])
    model = nn.Sequential(*layers)
    return Context(model, targets(model))


def dense(c, index=0):
    return c.targets[index].weight.to_dense()


def test_the_value_weighs_each_norm_by_the_root_of_its_size():
    c = context([[3.0, 4, 0], [0, 0, 2]], [[5.0]])
    assert GroupLasso(0.1, by_row).value(c) == pytest.approx(0.1 * (5 * np.sqrt(2) + 2 + 5))
    assert GroupLasso(0.1, by_column).value(c) == pytest.approx(0.1 * (3 + 4 + 2 + 5))
    blocks = Block(2, 2).groups  # {3, 4}, {2}
    assert GroupLasso(1.0, blocks).value(c) == pytest.approx(5 * np.sqrt(2) + 2 + 5)


def test_the_proximal_step_shrinks_every_group_and_takes_weak_ones_to_zero():
    c = context([[3.0, 4, 0], [0, 0, 2], [0.1, 0.1, 0]])
    lasso = GroupLasso(10.0)
    lasso.refresh(c, lr=0.1)
    shrink = 1 - np.sqrt(2) / 5
    np.testing.assert_allclose(dense(c), [[3 * shrink, 4 * shrink, 0], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(lasso.survivors(c.targets[0]), [True, True, True, False, False])
    assert c.targets[0].nnz == 5  # what is zero is still stored


def test_a_group_exactly_at_the_threshold_goes_and_zero_groups_stay_zero():
    c = context([[2.0], [1.0]])
    GroupLasso(2.0).refresh(c, lr=1.0)
    np.testing.assert_array_equal(dense(c), [[0], [0]])
    GroupLasso(2.0).refresh(c, lr=1.0)
    np.testing.assert_array_equal(dense(c), [[0], [0]])
    assert not GroupLasso(2.0).survivors(c.targets[0]).any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([by_row, by_column, Block(2, 3).groups]))
def test_the_step_minimises_penalty_plus_squared_distance(seed, groups):
    rng = np.random.default_rng(seed)
    topology = random_topology(rng, 6, 8)
    layer = nn.SparseLinear(*topology.shape[::-1], topology=topology, dtype=np.float64, rng=rng)
    model = nn.Sequential(layer)
    c, lr, lasso = Context(model, targets(model)), 0.3, GroupLasso(0.5, groups)
    start = layer.weight.canonical().copy()

    def objective(w):
        layer.weight.set_canonical(w)
        return lasso.value(c) + ((w - start) ** 2).sum() / (2 * lr)

    lasso.refresh(c, lr)
    found = layer.weight.canonical().copy()
    best = objective(found)
    for size in (1e-3, 1e-1):
        assert best <= objective(found + size * rng.standard_normal(found.size)) + 1e-12


def test_gradients_masks_and_dtype_are_left_alone():
    c = context([[3.0, 4.0]], dtype=np.float32)
    lasso, weight = GroupLasso(1.0), c.targets[0].weight
    weight.grad = np.ones_like(weight.data)
    lasso(c)
    np.testing.assert_array_equal(weight.grad, [1, 1])
    data = weight.data
    lasso.refresh(c, 0.0)
    np.testing.assert_array_equal(weight.canonical(), [3, 4])
    lasso.refresh(c, 0.1)
    assert weight.data is data
    assert data.dtype == np.float32


def test_a_nan_is_not_hidden():
    c = context([[np.nan, 1.0]])
    GroupLasso(1.0).refresh(c, 0.1)
    assert np.isnan(dense(c)).all()


def test_infinity_stays_what_it_is_and_spoils_no_other_weight():
    c = context([[np.inf, 1.0], [3.0, 4.0]])
    GroupLasso(1.0).refresh(c, 0.1)
    np.testing.assert_array_equal(dense(c)[0], [np.inf, 1.0])
    np.testing.assert_allclose(dense(c)[1], np.array([3.0, 4.0]) * (1 - 0.1 * np.sqrt(2) / 5))


def test_the_strength_is_a_number_from_zero_on():
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="strength >= 0 and finite"):
            GroupLasso(bad)


def test_equal_settings_are_equal_objects():
    assert GroupLasso(0.1) == GroupLasso(0.1, by_row) != GroupLasso(0.1, by_column)
