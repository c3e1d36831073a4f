"""How many weights each layer gets: FORMULAS' oracles, ties, caps."""

import itertools

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.shares import erdos_renyi, fixed, global_rank, momentum_share, uniform
from nnsparse.topology import Topology

LENET = [784, 300, 100, 10]


def full(sizes):
    layers = [
        nn.SparseLinear(a, b, topology=Topology.full((b, a)), rng=0)
        for a, b in itertools.pairwise(sizes)
    ]
    return nn.Sequential(*layers)


def context_of(model):
    return Context(model, targets(model))


def scores_of(context):
    return [np.ones(t.nnz, np.float32) for t in context.targets]


@pytest.mark.parametrize(
    ("sparsity", "densities"),
    [
        (0.8, (0.162241, 0.469362, 1.0)),
        (0.9, (0.079568, 0.230189, 1.0)),
        (0.95, (0.038484, 0.111334, 0.918507)),
        (0.98, (0.015394, 0.044534, 0.367403)),
        (0.99, (0.007697, 0.022267, 0.183701)),
    ],
)
def test_erdos_renyi_gives_the_published_densities(sparsity, densities):
    context = context_of(full(LENET))
    total = round((1 - sparsity) * 266200)
    counts = erdos_renyi(context, total, scores_of(context))
    assert sum(counts) == total
    for target, count, density in zip(context.targets, counts, densities, strict=True):
        assert count / target.size == pytest.approx(density, abs=1.01 / target.size)


def test_erdos_renyi_and_uniform_give_the_exact_counts_of_lenet_at_ninety_percent():
    context = context_of(full(LENET))
    assert erdos_renyi(context, 26620, scores_of(context)) == [18714, 6906, 1000]
    assert uniform(context, 26620, scores_of(context)) == [23520, 3000, 100]


def test_no_layer_gets_more_than_it_has_unless_weights_must_grow():
    context = context_of(full([10, 10, 2]))  # 100 and 20 positions
    present = [np.ones(5), np.ones(20)]
    assert uniform(context, 24, present) == [5, 19]
    assert erdos_renyi(context, 24, present)[0] == 5
    assert uniform(context, 60, present) == [50, 10]  # 35 of them are new


def test_fixed_leaves_an_unchanged_total_and_scales_another():
    context = context_of(full([10, 10, 2]))
    present = [np.ones(30), np.ones(10)]
    assert fixed(context, 40, present) == [30, 10]
    assert fixed(context, 20, present) == [15, 5]
    assert fixed(context, 12, [np.ones(0), np.ones(0)]) == [10, 2]  # nothing there: as uniform


def test_global_rank_counts_the_best_of_all_layers():
    context = context_of(full([2, 2, 1]))
    scores = [np.array([5.0, 1.0, 4.0, 0.0]), np.array([3.0, 2.0])]
    assert global_rank(context, 1, scores) == [1, 0]
    assert global_rank(context, 3, scores) == [2, 1]
    assert global_rank(context, 4, scores) == [2, 2]
    assert global_rank(context, 6, scores) == [4, 2]


def test_global_rank_gives_ties_to_the_first_layer_and_puts_nan_last():
    context = context_of(full([2, 2, 1]))
    assert global_rank(context, 3, [np.ones(4), np.ones(2)]) == [3, 0]
    assert global_rank(context, 2, [np.full(4, np.nan), -np.ones(2)]) == [0, 2]


def test_global_rank_mixes_precisions():
    context = context_of(full([2, 2, 1]))
    scores = [np.array([1, 2, 3, 4], np.float32), np.array([2.5, 3.5])]
    assert global_rank(context, 3, scores) == [2, 1]


def test_global_rank_cannot_rank_what_does_not_exist():
    context = context_of(full([2, 2, 1]))
    with pytest.raises(ValueError, match="cannot pick 7 weights from 6"):
        global_rank(context, 7, [np.ones(4), np.ones(2)])


@pytest.mark.parametrize("name", ["momentum", "exp_avg"])
def test_momentum_share_is_the_mean_size_of_what_is_alive(name):
    model = full([2, 2, 1])
    context = context_of(model)
    model[0].weight.buffers[name] = np.array([1, -1, 0, 2], np.float32)
    model[1].weight.buffers[name] = np.array([-3, 0], np.float32)
    assert momentum_share(context) == [1.0, 1.5]
    model[1].weight.buffers["held"] = np.array([1, 0], np.float32)
    assert momentum_share(context) == [1.0, 3.0]


def test_momentum_share_says_that_it_needs_momentum():
    model = full([2, 2, 1])
    optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"layer '0' has no momentum.*momentum=0.9"):
        momentum_share(context_of(model))
