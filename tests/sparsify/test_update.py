"""One update, worked by hand: counts, what is kept, what grows, and what does not fit."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from nnsparse import nn
from nnsparse.schedule import constant, cubic
from nnsparse.sparsify import criteria
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.holding import set_alive
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.schedules import geometric
from nnsparse.sparsify.shares import fixed, global_rank, uniform
from nnsparse.sparsify.units import Neuron
from nnsparse.sparsify.update import (
    EmptyLayerWarning,
    changes_nothing,
    check_taps,
    propose,
    sparsities,
    total_count,
)
from nnsparse.sparsify.when import At, Rounds
from nnsparse.topology import Topology

FIRST = [[5.0, -1.0, 0.0], [2.0, 0.0, -4.0]]  # 0.0: not stored
SECOND = [[3.0, -6.0]]


def model_of(*matrices):
    return nn.Sequential(*[nn.SparseLinear.from_scipy(csr_array(np.array(m))) for m in matrices])


def context_of(*matrices):
    model = model_of(*matrices)
    return Context(model, targets(model), seed=1, step=2)


def matrices(context, changes):
    """What is kept (1) and grown (2), as matrices."""
    found = []
    for target, change in zip(context.targets, changes, strict=True):
        matrix = target.topology.to_dense(change.kept.astype(int))
        if change.grown is not None:
            matrix += 2 * change.grown.to_dense(np.ones(change.grown.nnz, int))
        found.append(matrix.tolist())
    return found


def first_free(context, index, kept, k):
    """Growth at the first free positions, with values 10, 11, ..."""
    shape = kept.shape
    free = np.flatnonzero(~kept.to_dense().reshape(-1))[:k]
    return Topology.from_coo(shape, free // shape[1], free % shape[1]), 10.0 + np.arange(k)


def test_global_magnitude_keeps_the_largest_of_all_layers():
    context = context_of(FIRST, SECOND)
    recipe = Recipe("r", criteria.magnitude, constant(0.5), allocation=global_rank)
    assert matrices(context, propose(context, recipe, 3)) == [
        [[1, 0, 0], [0, 0, 1]],
        [[0, 1]],
    ]
    assert matrices(context, propose(context, recipe, 5)) == [
        [[1, 0, 0], [1, 0, 1]],
        [[1, 1]],
    ]


def test_each_layer_keeps_its_own_best_by_its_count():
    context = context_of(FIRST, SECOND)
    recipe = Recipe("r", criteria.magnitude, constant(0.5), allocation=uniform)
    # 8 positions, 4 weights: 6/8 · 4 = 3 and 2/8 · 4 = 1
    assert matrices(context, propose(context, recipe, 4)) == [
        [[1, 0, 0], [1, 0, 1]],
        [[0, 1]],
    ]


def test_a_fraction_of_each_layer_is_dropped_and_grown_again():
    context = context_of(FIRST, SECOND)
    recipe = Recipe("r", criteria.magnitude, growth=first_free, drop_fraction=constant(0.5))
    changes = propose(context, recipe, 6, 0.5)
    # Layer 0 drops ⌊0.5 · 4⌋ = 2 (the 1 and the 2), layer 1 ⌊0.5 · 2⌋ = 1 (the 3).
    assert matrices(context, changes) == [[[1, 2, 2], [0, 0, 1]], [[2, 1]]]
    assert changes[0].values.tolist() == [10.0, 11.0]
    assert [change.nnz for change in changes] == [4, 2]


def test_the_fraction_is_rounded_down_but_not_because_of_rounding_errors():
    context = context_of(np.ones((10, 10)))
    recipe = Recipe("r", criteria.magnitude, growth=first_free, drop_fraction=constant(0.29))
    assert propose(context, recipe, 100, 0.29)[0].n_grown == 29  # 0.29 · 100 = 28.999999999999996
    assert propose(context, recipe, 100, 0.299)[0].n_grown == 29


def test_what_was_dropped_is_shared_out_by_regrowth():
    context = context_of(FIRST, np.array(SECOND * 4))

    def all_to_the_second(context):
        return [0.0, 1.0]

    recipe = Recipe(
        "r",
        criteria.magnitude,
        growth=lambda c, i, kept, k: (kept.random_free(k, 0), 0.0),
        drop_fraction=constant(0.5),
        regrowth=all_to_the_second,
    )
    changes = propose(context, recipe, 12, 0.5)
    # 2 and 4 were dropped; the second layer has 4 free positions, so 2 go back to the first.
    assert [change.n_grown for change in changes] == [2, 4]
    changes = propose(context, recipe, 12, 0.25)
    assert [change.n_grown for change in changes] == [1, 2]  # 1 + 2, the second has room for 2
    assert sum(change.nnz for change in changes) == 12


def test_more_weights_than_there_are_grow():
    context = context_of(FIRST, SECOND)
    recipe = Recipe("r", criteria.magnitude, constant(0.0), growth=first_free)
    changes = propose(context, recipe, 8)
    assert matrices(context, changes) == [[[1, 1, 2], [1, 2, 1]], [[1, 1]]]


def test_what_is_held_at_zero_does_not_count_and_is_not_kept():
    context = context_of(FIRST, SECOND)
    set_alive(context.targets[0], np.array([True, True, False, True]))
    assert total_count(context, None) == 5
    recipe = Recipe("r", criteria.magnitude, constant(0.5), allocation=global_rank)
    assert matrices(context, propose(context, recipe, 4)) == [
        [[1, 0, 0], [0, 0, 1]],
        [[1, 1]],
    ]
    worst = Recipe(
        "r", lambda c: [-s for s in criteria.magnitude(c)], constant(0.5), allocation=global_rank
    )
    assert matrices(context, propose(context, worst, 2)) == [[[0, 1, 0], [0, 0, 0]], [[1, 0]]]


@pytest.mark.parametrize("score", [np.nan, -np.inf])
def test_a_weight_with_the_worst_score_is_still_kept_before_one_that_is_held_at_zero(score):
    context = context_of(FIRST, SECOND)
    set_alive(context.targets[0], np.array([False, True, False, True]))
    recipe = Recipe(
        "r", lambda c: [np.array([9.0, 1.0, 9.0, score]), np.ones(2)], allocation=lambda *_: [2, 2]
    )
    assert matrices(context, propose(context, recipe, 4)) == [
        [[0, 1, 0], [0, 0, 1]],
        [[1, 1]],
    ]


def test_a_layer_that_would_be_empty_keeps_its_best_weight_with_a_warning():
    context = context_of([[1.0, 2.0]], [[30.0], [40.0]])
    recipe = Recipe("r", criteria.magnitude, constant(0.5), allocation=global_rank)
    with pytest.warns(EmptyLayerWarning, match="r: nothing would be left of layer '0'"):
        changes = propose(context, recipe, 2)
    assert matrices(context, changes) == [[[0, 1]], [[0], [1]]]


def test_fewer_weights_than_layers_are_refused():
    context = context_of([[1.0, 2.0]], [[30.0], [40.0]])
    recipe = Recipe("r", criteria.magnitude, constant(0.5), allocation=global_rank)
    with pytest.raises(ValueError, match="r: 1 weights are too few for 2 layers"):
        propose(context, recipe, 1)


def test_a_layer_that_has_no_weights_may_stay_without():
    model = nn.Sequential(
        nn.SparseLinear(3, 2, topology=Topology((2, 3), [0, 0, 0], [])),
        nn.SparseLinear.from_scipy(csr_array(np.array(SECOND))),
    )
    context = Context(model, targets(model))
    recipe = Recipe("r", criteria.magnitude, constant(0.5), allocation=global_rank)
    assert [change.nnz for change in propose(context, recipe, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("r", lambda c: [np.ones(4)]), "score 2 layers; got 1"),
        (Recipe("r", lambda c: [np.ones(3), np.ones(2)]), r"weight of '0', \(4,\); got \(3,\)"),
        (Recipe("r", criteria.magnitude, allocation=lambda c, k, s: [3]), r"return 2 counts; got"),
        (
            Recipe("r", criteria.magnitude, allocation=lambda c, k, s: [5, 1]),
            "layer '0' can hold 0 to 4 weights; the allocation gives it 5",
        ),
    ],
)
def test_parts_that_return_what_does_not_fit_are_named(recipe, message):
    with pytest.raises(ValueError, match=message):
        propose(context_of(FIRST, SECOND), recipe, 4)


# ---------------------------------------------------------------- how far, and whether at all


def test_rounds_divide_the_way_between_two_updates():
    synflow = Recipe("r", criteria.magnitude, geometric(0.99), At((0.0,)), rounds=2)
    assert sparsities(synflow, 0, 100) == pytest.approx([0.9, 0.99])
    twice = Recipe("r", criteria.magnitude, cubic(0.0, 0.8), Rounds(2), rounds=2)
    ways = [0.25, 0.5, 0.75, 1.0]
    expected = [cubic(0.0, 0.8)(p) for p in ways]
    assert sparsities(twice, 50, 100) + sparsities(twice, 100, 100) == pytest.approx(expected)
    assert sparsities(Recipe("r", criteria.magnitude), 0, 100) == [None]


def test_an_update_that_has_nothing_to_do_is_known_beforehand():
    context = context_of(FIRST, SECOND)
    prune = Recipe("r", criteria.magnitude, constant(0.5))
    assert changes_nothing(context, prune, 6, 0.0)
    assert changes_nothing(context, prune, 7, 0.0)  # the schedule is not down to it yet
    assert not changes_nothing(context, prune, 5, 0.0)
    grow = Recipe("r", criteria.magnitude, growth=first_free, drop_fraction=constant(0.3))
    assert changes_nothing(context, grow, 6, 0.0)
    assert not changes_nothing(context, grow, 6, 0.3)
    assert not changes_nothing(context, grow, 7, 0.0)
    neurons = Recipe("r", criteria.magnitude, constant(0.5), unit=Neuron())
    assert not changes_nothing(context, neurons, 6, 0.0)


def test_growth_by_gradients_that_nobody_noted_is_refused():
    context = context_of(FIRST)
    noted = Context(context.model, context.targets, step=7, taps=([],))
    with pytest.raises(ValueError, match="layer '0' had no backward pass in step 7"):
        check_taps(noted, Recipe("r", criteria.magnitude))


def test_totals_count_the_positions_of_all_layers_together():
    context = context_of(FIRST, SECOND)
    assert total_count(context, 0.5) == 4
    assert total_count(context, 0.0) == 8
    assert total_count(context, None) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds as an integer >= 1"),
        ({"drop_fraction": constant(0.3)}, "go with growth"),
        ({"needs_taps": True}, "go with growth"),
        ({"rewind": 1.0}, r"rewind in \[0, 1\)"),
        ({"growth": first_free, "regrowth": lambda c: [1.0]}, "goes with drop_fraction"),
    ],
)
def test_recipes_whose_parts_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe("r", criteria.magnitude, **options)


def test_the_default_allocation_is_the_present_proportion():
    assert Recipe("r", criteria.magnitude).allocation is fixed


def test_growth_of_another_number_is_refused():
    recipe = Recipe(
        "r",
        criteria.magnitude,
        allocation=lambda c, k, s: [5, 1],
        growth=lambda c, i, kept, k: (kept.random_free(2, 0), 0.0),
    )
    message = "growth is expected to return 1 positions for layer '0'; got"
    with pytest.raises(ValueError, match=message):
        propose(context_of(FIRST, SECOND), recipe, 6)
