"""Storing more than is alive: what is held at zero computes and trains as if it were not there."""

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.plan import plans_built
from nnsparse.sparsify.context import Target
from nnsparse.sparsify.holding import (
    Change,
    Crossover,
    alive_count,
    alive_mask,
    alive_topology,
    apply,
    compress,
    expand,
    hold,
    set_alive,
    settle,
)
from nnsparse.topology import Topology

RNG = np.random.default_rng(3)
X = RNG.standard_normal((20, 40)).astype(np.float32)
Y = RNG.integers(0, 30, 20)
SLOTS = ("momentum",)
MANY = Crossover(2 / 3)


def make(sparsity=0.5, dtype=np.float32):
    layer = nn.SparseLinear(40, 30, sparsity=sparsity, dtype=dtype, rng=0)
    weight = layer.weight
    weight.buffers["momentum"] = RNG.standard_normal(weight.data.size).astype(dtype)
    return Target("0", layer)


def some(target, fraction=0.6):
    return RNG.random(target.nnz) < fraction


def dense(target, name=None):
    """The (n_out, n_in) matrix of the values, or of a buffer."""
    array = target.canonical(None if name is None else target.weight.buffers[name])
    return target.topology.to_dense(array)


def test_a_held_layer_computes_what_the_compressed_one_computes():
    target = make()
    set_alive(target, some(target), SLOTS)
    held = target.layer(X).numpy()
    compress(target)
    np.testing.assert_allclose(target.layer(X).numpy(), held, rtol=0, atol=1e-6)


def test_holding_builds_no_plan():
    target = make()
    target.layer(X)
    before = plans_built()
    set_alive(target, some(target), SLOTS)
    target.layer(X)
    assert plans_built() == before


def test_holding_sets_weights_and_slots_to_zero_and_no_others():
    target = make()
    mask = some(target)
    values, momentum = dense(target), dense(target, "momentum")
    set_alive(target, mask, SLOTS)
    alive = target.topology.to_dense(mask)
    np.testing.assert_array_equal(dense(target), np.where(alive, values, 0))
    np.testing.assert_array_equal(dense(target, "momentum"), np.where(alive, momentum, 0))
    assert alive_count(target) == mask.sum()
    np.testing.assert_array_equal(alive_mask(target), mask)
    assert alive_topology(target).nnz == mask.sum()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_leaves_nothing_in_held_weights(bad):
    target = make()
    weight, mask = target.weight, some(target)
    optimizer = optim.SGD([weight], lr=0.1, momentum=0.9)
    set_alive(target, mask, SLOTS)
    held = weight.buffers["held"] == 0
    for _ in range(2):
        weight.grad = np.where(held, np.float32(bad), np.float32(1))
        optimizer.step()
        hold(weight, SLOTS)
    assert (weight.data[held] == 0).all()
    assert (weight.buffers["momentum"][held] == 0).all()
    assert np.isfinite(weight.data).all()
    assert (weight.data[~held] != 0).all()


def test_holding_refuses_an_array_of_another_shape():
    target = make()
    set_alive(target, some(target), SLOTS)
    target.weight.data = target.weight.data[:-1]
    with pytest.raises(ValueError, match=r"hold expects arrays of shape \(600,\)"):
        hold(target.weight, SLOTS)


def test_nothing_held_leaves_no_mask_behind():
    target = make()
    set_alive(target, np.ones(target.nnz, np.bool_), SLOTS)
    assert "held" not in target.weight.buffers
    assert alive_mask(target) is None
    assert alive_count(target) == target.nnz


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
        lambda p: optim.Adam(p, lr=0.01, weight_decay=1e-2),
    ],
)
def test_training_a_held_layer_is_training_the_compressed_one(make_optimizer):
    losses = []
    for held in (True, False):
        layer = nn.SparseLinear(40, 30, sparsity=0.5, dtype=np.float64, rng=0)
        target = Target("0", layer)
        optimizer = make_optimizer(list(layer.parameters()))
        mask = np.random.default_rng(5).random(target.nnz) < 0.5
        set_alive(target, mask)
        if not held:
            compress(target)
        losses.append([])
        for _ in range(5):
            loss = nn.CrossEntropyLoss()(layer(X), Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            hold(layer.weight, optimizer.settings.slots)
            losses[-1].append(loss.item())
        compress(target)
        losses[-1].append(np.sort(target.canonical()))
    for a, b in zip(*losses, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_compressing_keeps_survivors_bit_for_bit_and_the_parameter_object():
    target = make()
    weight, values, momentum = target.weight, dense(target), dense(target, "momentum")
    mask = some(target)
    alive = target.topology.to_dense(mask)
    set_alive(target, mask, SLOTS)
    compress(target)
    assert target.layer.weight is weight
    np.testing.assert_array_equal(target.topology.to_dense(), alive)
    np.testing.assert_array_equal(dense(target), np.where(alive, values, 0))
    np.testing.assert_array_equal(dense(target, "momentum"), np.where(alive, momentum, 0))


def test_expanding_and_compressing_again_changes_nothing():
    target = make()
    before, values, momentum = target.topology, dense(target), dense(target, "momentum")
    expand(target)
    assert target.topology.is_full
    assert alive_topology(target) == before
    np.testing.assert_array_equal(dense(target), values)
    expand(target)
    compress(target)
    assert target.topology == before
    np.testing.assert_array_equal(dense(target), values)
    np.testing.assert_array_equal(dense(target, "momentum"), momentum)


def test_expanding_keeps_what_was_held():
    target = make()
    mask = some(target)
    alive = target.topology.to_dense(mask)
    set_alive(target, mask, SLOTS)
    expand(target)
    np.testing.assert_array_equal(alive_mask(target).reshape(alive.shape), alive)


# ---------------------------------------------------------------- applying a change


def change_of(target, n_grown, value):
    kept = some(target)
    kept_topology = alive_of(target, kept)
    grown = kept_topology.random_free(n_grown, 7)
    return Change(kept, grown, value), kept_topology, grown


def alive_of(target, kept):
    rows, columns = (a[kept] for a in target.topology.coo())
    return Topology.from_coo(target.topology.shape, rows, columns)


@pytest.mark.parametrize("crossover", [None, MANY], ids=["compressed", "full"])
@pytest.mark.parametrize("before", ["compressed", "held", "full"])
def test_a_change_has_the_same_result_however_the_layer_is_stored(before, crossover):
    target = make()
    if before == "held":
        set_alive(target, some(target, 0.9), SLOTS)
    if before == "full":
        expand(target)
    kept = some(target) & (alive_mask(target) if alive_mask(target) is not None else True)
    values, momentum = dense(target), dense(target, "momentum")
    kept_topology = alive_of(target, kept)
    grown = kept_topology.random_free(300, 7)
    new = np.arange(1, 301, dtype=np.float32)
    moved = apply(target, Change(kept, grown, new), SLOTS, True, crossover)

    expected = np.where(kept_topology.to_dense(), values, 0) + grown.to_dense(new)
    np.testing.assert_array_equal(dense(target), expected)
    np.testing.assert_array_equal(
        dense(target, "momentum"), np.where(kept_topology.to_dense(), momentum, 0)
    )
    assert alive_topology(target) == kept_topology | grown
    assert target.topology.is_full == (crossover is not None)
    assert moved == (not (before == "full" and crossover is not None))


def test_a_weight_that_returns_with_its_value_keeps_its_momentum_and_another_does_not():
    for full in (False, True):
        target = make()
        if full:
            expand(target)
        values, momentum = dense(target), dense(target, "momentum")
        kept = target.canonical() != 0  # all but what is held
        first, second = np.flatnonzero(kept)[:2]
        kept[[first, second]] = False
        rows, columns = target.topology.coo()
        places = [(rows[i], columns[i]) for i in (first, second)]
        grown = Topology.from_coo(target.topology.shape, *zip(*places, strict=True))
        returning = np.array([values[places[0]], 0.0], np.float32)
        apply(target, Change(kept, grown, returning), SLOTS, True, MANY if full else None)
        assert dense(target)[places[0]] == values[places[0]]
        assert dense(target, "momentum")[places[0]] == momentum[places[0]]
        assert dense(target)[places[1]] == 0
        assert dense(target, "momentum")[places[1]] == 0
        assert alive_count(target) == np.count_nonzero(kept) + 2


def test_without_a_refresh_what_is_dropped_is_held_and_the_topology_stays():
    target = make()
    before = target.topology
    kept = some(target)
    assert not apply(target, Change(kept), SLOTS, refresh=False)
    assert target.topology is before
    assert alive_count(target) == kept.sum()


def test_growth_outside_of_what_is_stored_compresses_even_without_a_refresh():
    target = make()
    change, kept, grown = change_of(target, 50, 0.0)
    assert apply(target, change, SLOTS, refresh=False)
    assert target.topology == kept | grown
    assert "held" not in target.weight.buffers


def test_a_change_that_keeps_everything_moves_nothing():
    target = make()
    before = target.topology
    assert not apply(target, Change(np.ones(target.nnz, np.bool_)), SLOTS, refresh=True)
    assert target.topology is before


# ---------------------------------------------------------------- the crossover


def test_a_layer_near_the_crossover_stays_as_it_is():
    rule = Crossover(0.5, 0.1)
    assert [rule.wants_full(s, True) for s in (0.35, 0.45, 0.55, 0.65)] == [True] * 3 + [False]
    assert [rule.wants_full(s, False) for s in (0.35, 0.45, 0.55, 0.65)] == [True] + [False] * 3


def test_settling_moves_layers_to_the_faster_form_and_back():
    target = make(sparsity=0.05)
    before, values = target.topology, dense(target)
    assert settle(target, Crossover(0.5))
    assert target.topology.is_full
    assert not settle(target, Crossover(0.5))
    assert settle(target, Crossover(0.0))
    assert target.topology == before
    np.testing.assert_array_equal(dense(target), values)


def test_a_crossover_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"sparsity in \[0, 1\]"):
        Crossover(1.5)
    with pytest.raises(ValueError, match="margin"):
        Crossover(0.5, -0.1)
