"""Recipes against tables worked by hand, dense twins of their papers' algorithms, and exact counts."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_array

from nnsparse import nn, optim
from nnsparse.sparsify import Sparsifier, compact, criteria, dynamic, prunable, recipes, targets
from nnsparse.sparsify.holding import alive_topology
from nnsparse.sparsify.units import Block
from nnsparse.topology import Topology

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 24)).astype(np.float32)
Y = RNG.integers(0, 6, 32)
LOSS = nn.CrossEntropyLoss()
POSITIONS = 24 * 20 + 20 * 6


def net(sparsity=None, dtype=np.float32, sizes=(24, 20, 6)):
    model = nn.mlp(list(sizes), sparsity=sparsity, dtype=dtype, rng=1)
    return prunable(model) if sparsity is None else model


def make(model, recipe, total=40, lr=0.05, **options):
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    options = {"loss_fn": LOSS, "batches": [(X, Y)], **options}
    return optimizer, Sparsifier(model, optimizer, recipe, total, **options)


def train(model, optimizer, sparsifier, steps):
    for _ in range(steps):
        loss = LOSS(model(X), Y)
        optimizer.zero_grad()
        loss.backward()
        sparsifier.before_step()
        if not sparsifier.replaces_step:
            optimizer.step()
        sparsifier.step()


def matrices(model):
    return [target.weight.to_dense() for target in targets(model)]


def patterns(model):
    return [target.topology.to_dense() for target in targets(model)]


def table(recipe, total, sparsifier_options=None):
    """(step, weights) after each update."""
    model = net()
    optimizer, sparsifier = make(model, recipe, total, **(sparsifier_options or {}))
    train(model, optimizer, sparsifier, total)
    return [(record.step, sum(record.counts)) for record in sparsifier.history]


# ---------------------------------------------------------------- schedules, by hand


def test_one_shot_prunes_once_at_its_moment():
    assert table(recipes.one_shot(0.9, at=0.5), 20) == [(10, 60)]


def test_iterative_prunes_in_equal_steps():
    recipe = recipes.iterative(0.9, rounds=3, begin=0.2, end=0.8)
    assert table(recipe, 20) == [(8, 420), (12, 240), (16, 60)]


def test_agp_follows_zhu_and_guptas_cubic():
    # s = 0.8 (1 − (1 − k/4)³) for k = 0 ... 4: 0, .4625, .7, .7875, .8 of 600
    recipe = recipes.agp(0.8, every=3, begin=0.2, end=0.8)
    assert table(recipe, 20) == [(4, 600), (7, 322), (10, 180), (13, 127), (16, 120)]


def test_agp_can_begin_with_a_jump():
    # s = 0.8 − 0.6 (1 − k/2)³: .2, .725, .8
    recipe = recipes.agp(0.8, initial=0.2, every=5, end=0.5)
    assert table(recipe, 20) == [(0, 480), (5, 165), (10, 120)]


def test_one_cycle_follows_hubens_sigmoid():
    # 1 − 0.9 · (.0025, .0392, .4013, .917, .9950, 1) of 600
    expected = [(0, 599), (4, 579), (8, 383), (12, 105), (16, 63), (20, 60)]
    assert table(recipes.one_cycle(0.9, every=4), 20) == expected


def test_a_lottery_ticket_keeps_four_fifths_in_each_round():
    recipe = recipes.lottery_ticket(1 - 0.8**3, rounds=3, end=0.9)
    assert table(recipe, 20) == [(6, 480), (12, 384), (18, 307)]  # 600 · 0.8ᵏ


def test_granet_prunes_and_grows_at_the_same_steps():
    # s = 0.9 − 0.4 (1 − k/3)³ of 600, k = 1, 2, 3; before training 0.5
    recipe = dynamic.granet(0.9, initial=0.5, every=4, end=0.6)
    rows = table(recipe, 20)
    assert rows == [(0, 300), (0, 300), (4, 131), (8, 69), (12, 60)][-len(rows) :]


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        (dynamic.set_(0.8, every=4), [4, 8, 12, 16]),
        (dynamic.snfs(0.8, every=4), [4, 8, 12, 16]),
        (dynamic.rigl(0.8, every=4), [4, 8, 12]),
        (dynamic.srigl(0.8, every=4), [4, 8, 12]),
    ],
)
def test_dynamic_recipes_hold_their_total_at_every_update(recipe, steps):
    rows = table(recipe, 20)
    assert [step for step, _ in rows if step] == steps
    assert {total for _, total in rows} == {120}


# ---------------------------------------------------------------- before training


@pytest.mark.parametrize(
    "recipe",
    [
        recipes.random(0.9),
        recipes.magnitude(0.9),
        recipes.snip(0.9),
        recipes.grasp(0.9),
        recipes.synflow(0.9, rounds=10),
        recipes.obd(0.9, at=0.0),
    ],
    ids=lambda r: r.name,
)
def test_pruning_before_training_leaves_the_exact_total_and_the_values(recipe):
    model = net()
    before = matrices(model)
    make(model, recipe)
    after = matrices(model)
    assert sum(p.sum() for p in patterns(model)) == 60
    for a, b, p in zip(after, before, patterns(model), strict=True):
        np.testing.assert_array_equal(a, np.where(p, b, 0))


def test_magnitude_keeps_the_largest_weights_of_all_layers():
    model = net()
    sizes = np.concatenate([np.abs(m).ravel() for m in matrices(model)])
    make(model, recipes.magnitude(0.9))
    threshold = np.sort(sizes)[-60]
    kept = np.concatenate([p.ravel() for p in patterns(model)])
    np.testing.assert_array_equal(kept, sizes >= threshold)


def test_snip_keeps_the_largest_products_of_weight_and_gradient():
    model = net(dtype=np.float64)
    LOSS(model(X), Y).backward()
    scores = np.concatenate(
        [np.abs(t.canonical() * t.canonical(t.weight.grad)) for t in targets(model)]
    )
    model.zero_grad()
    make(model, recipes.snip(0.9))
    kept = np.concatenate([p.ravel() for p in patterns(model)])
    np.testing.assert_array_equal(kept, scores >= np.sort(scores)[-60])


def dense_synflow(weights, sparsity, rounds):
    """SynFlow with masks on dense matrices, as in the paper: rescore, keep the global top of d^(k/n), repeat."""
    masks = [np.ones(w.shape, bool) for w in weights]
    size = sum(w.size for w in weights)
    for k in range(1, rounds + 1):
        alive = [np.abs(w) * m for w, m in zip(weights, masks, strict=True)]
        scores = []
        for layer, w in enumerate(alive):
            u = np.ones(alive[0].shape[1])
            for before in alive[:layer]:
                u = before @ u
            v = np.ones(alive[-1].shape[0])
            for after in alive[:layer:-1]:
                v = after.T @ v
            scores.append(v[:, None] * w * u)
        pooled = np.concatenate([s.ravel() for s in scores])
        keep = round((1 - sparsity) ** (k / rounds) * size)
        threshold = np.sort(pooled)[-keep]
        masks = [s >= threshold for s in scores]
    return masks


def test_synflow_is_the_papers_loop_over_masks():
    model = net(dtype=np.float64, sizes=(10, 8, 6, 4))
    expected = dense_synflow(matrices(model), 0.9, 20)
    make(model, recipes.synflow(0.9, rounds=20))
    for mask, pattern in zip(expected, patterns(model), strict=True):
        np.testing.assert_array_equal(pattern, mask)
        assert mask.any()


def test_random_pruning_has_erdos_renyi_shares_and_no_regard_for_weights():
    model = net()
    make(model, recipes.random(0.9))
    assert [t.nnz for t in targets(model)] == [38, 22]  # 60 · 44/70, 60 · 26/70
    again = net()
    for target in targets(again):
        target.weight.data[...] *= -7
    make(again, recipes.random(0.9))
    for a, b in zip(patterns(model), patterns(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_obd_prunes_what_the_fisher_diagonal_misses_least():
    model = net(dtype=np.float64)
    weights, squares = matrices(model), [0.0, 0.0]
    for i in range(len(X)):
        model.zero_grad()
        LOSS(model(X[i : i + 1]), Y[i : i + 1]).backward()
        for place, t in enumerate(targets(model)):
            squares[place] = (
                squares[place] + t.canonical(t.weight.grad).reshape(t.topology.shape) ** 2
            )
    model.zero_grad()
    scores = np.concatenate(
        [(w**2 * h / 64).ravel() for w, h in zip(weights, squares, strict=True)]
    )
    make(model, recipes.obd(0.9, at=0.0))
    kept = np.concatenate([p.ravel() for p in patterns(model)])
    np.testing.assert_array_equal(kept, scores >= np.sort(scores)[-60])


# ---------------------------------------------------------------- rewinding


@pytest.mark.parametrize("rewind", [0.0, 0.1])
def test_after_each_round_the_ticket_has_the_weights_kept_for_it(rewind):
    model = net()
    recipe = recipes.lottery_ticket(0.8, rounds=2, end=0.8, rewind=rewind)
    optimizer, sparsifier = make(model, recipe, 20)
    first = matrices(model) + [model[0].bias.data.copy()]
    for step in range(1, 21):
        train(model, optimizer, sparsifier, 1)
        if step == round(rewind * 20):
            first = matrices(model) + [model[0].bias.data.copy()]
        if step in (8, 16):
            for matrix, pattern, start in zip(
                matrices(model), patterns(model), first, strict=False
            ):
                np.testing.assert_array_equal(matrix, np.where(pattern, start, 0))
            np.testing.assert_array_equal(model[0].bias.data, first[-1])
            assert "momentum" not in model[0].weight.buffers
        else:
            assert (model[0].bias.data != first[-1]).any() or step == round(rewind * 20)
    assert all("rewind" not in p.buffers for p in model.parameters())
    assert sum(p.sum() for p in patterns(model)) == 120


def test_what_is_held_stays_at_zero_when_the_weights_return():
    model = net()
    recipe = recipes.iterative(0.8, rounds=2, begin=0.0, end=0.8, rewind=0.0)
    optimizer, sparsifier = make(model, recipe, 20, refresh_every=50)
    train(model, optimizer, sparsifier, 9)
    held = model[0].weight.buffers["held"]
    assert (held == 0).any()
    assert (model[0].weight.data[held == 0] == 0).all()


# ---------------------------------------------------------------- growth, against dense twins


def dense_gradients(model):
    """Gradients of all positions, by a full copy of the model."""
    twin = nn.Sequential(
        *[
            nn.SparseLinear.from_dense(m.to_dense(), np.ones((m.out_features, m.in_features)))
            if isinstance(m, nn.SparseLinear)
            else m
            for m in model
        ]
    )
    LOSS(twin(X), Y).backward()
    return [t.canonical(t.weight.grad).reshape(t.topology.shape) for t in targets(twin)]


def order(scores, allowed):
    """Positions in falling order of score, ties by position, those not allowed last."""
    return np.lexsort((np.arange(scores.size), -np.where(allowed, scores, -np.inf).ravel()))


@pytest.mark.parametrize("returning", [True, False])
def test_rigl_drops_the_smallest_weights_and_grows_where_the_gradient_is_largest(returning):
    model = net(0.8, dtype=np.float64)
    recipe = dynamic.rigl(0.8, every=5, drop=0.5, end=1.0, returning=returning)
    optimizer, sparsifier = make(model, recipe, 20, lr=0.3)
    train(model, optimizer, sparsifier, 4)
    weights, before, gradients = matrices(model), patterns(model), dense_gradients(model)
    fraction = 0.25 * (1 + np.cos(np.pi * 5 / 20))
    train(model, optimizer, sparsifier, 1)
    for w, p, g, after, now in zip(
        weights, before, gradients, matrices(model), patterns(model), strict=True
    ):
        k = int(fraction * p.sum())
        kept = np.zeros(w.size, bool)
        kept[order(np.abs(w), p)[: p.sum() - k]] = True
        kept = kept.reshape(w.shape)
        grown = np.zeros(w.size, bool)
        grown[order(np.abs(g), ~kept)[:k]] = True
        grown = grown.reshape(w.shape)
        np.testing.assert_array_equal(now, kept | grown)
        survivors = now & p if returning else kept
        np.testing.assert_array_equal(after, np.where(survivors, w, 0))  # and no gradient step


def test_set_drops_a_share_of_each_sign_and_draws_the_rest():
    # 5 positive, 5 negative weights; ζ = 0.4 drops 2 of each, those nearest to zero
    row = [[1.0, -1.5, 2.0, -2.5, 3.0, -3.5, 4.0, -4.5, 5.0, -5.5] + [0.0] * 30]
    model = nn.Sequential(nn.SparseLinear.from_scipy(csr_array(np.array(row * 1))))
    _, sparsifier = make(model, dynamic.set_(every=1, drop=0.4, std=0.1), 3)
    sparsifier.step()
    after = matrices(model)[0][0]
    np.testing.assert_array_equal(after[4:10], row[0][4:10])
    assert model[0].nnz == 10
    new = after[np.flatnonzero(patterns(model)[0][0])]
    new = new[~np.isin(new, row[0][4:10])]
    assert new.size == 4
    assert (np.abs(new) < 0.6).all()  # N(0, 0.1²)
    assert (new != 0).all()


def test_snfs_gives_weights_to_layers_with_much_momentum():
    model = net(0.8)
    optimizer, sparsifier = make(model, dynamic.snfs(0.8, every=2, drop=0.5), 20)
    train(model, optimizer, sparsifier, 1)
    LOSS(model(X), Y).backward()
    found = targets(model)
    found[0].weight.buffers["momentum"][...] = 0
    found[1].weight.buffers["momentum"][...] = 3
    before = [t.nnz for t in found]
    sparsifier.step()
    dropped = [int((0.005 + 0.495 * (1 + np.cos(np.pi * 2 / 20)) / 2) * n) for n in before]
    room = 120 - (before[1] - dropped[1])
    grown = min(room, sum(dropped))
    assert [t.nnz for t in found] == [
        before[0] - dropped[0] + sum(dropped) - grown,
        before[1] - dropped[1] + grown,
    ]


def test_granet_keeps_its_total_while_it_regenerates():
    model = net()
    recipe = dynamic.granet(0.9, initial=0.0, every=4, end=0.8)
    optimizer, sparsifier = make(model, recipe, 40)
    train(model, optimizer, sparsifier, 40)
    grown = [record.grown for record in sparsifier.history]
    assert sum(grown) > 0
    assert grown[-1] == 0  # the regeneration ends with the schedule
    assert sparsifier.report().nnz == 60


def test_srigl_keeps_fan_ins_equal():
    model = net()
    optimizer, sparsifier = make(model, dynamic.srigl(0.8, every=4), 40)
    for step in range(40):
        for pattern in patterns(model):
            fan_in = pattern.sum(axis=1)
            alive = fan_in[fan_in > 0]
            assert alive.max() - alive.min() <= 1, step
        assert sum(p.sum() for p in patterns(model)) == 120
        train(model, optimizer, sparsifier, 1)


def test_srigl_evens_out_a_model_of_uneven_fan_ins():
    model = net(0.8)
    make(model, dynamic.srigl(0.8, every=4))
    for pattern in patterns(model):
        fan_in = pattern.sum(axis=1)
        assert fan_in.max() - fan_in.min() <= 1
    assert sum(p.sum() for p in patterns(model)) == 120


def test_top_kast_stores_the_backward_set_and_ends_with_the_forward_set():
    model = net()
    recipe = dynamic.top_kast(0.9, backward_sparsity=0.8, every=4)
    assert recipe.effects[0].share == pytest.approx(0.5)
    optimizer, sparsifier = make(model, recipe, 40)
    for _ in range(39):
        assert sum(t.nnz for t in targets(model)) == 120
        seen = sum(t.weight.buffers["forward"].sum() for t in targets(model))
        assert seen <= 61
        train(model, optimizer, sparsifier, 1)
    before = model(X).numpy()
    sparsifier.step()
    assert sum(t.nnz for t in targets(model)) in (60, 61)
    assert all("forward" not in t.weight.buffers for t in targets(model))
    assert np.isfinite(before).all()


def test_top_kast_refuses_a_backward_set_smaller_than_the_forward_set():
    with pytest.raises(ValueError, match="backward_sparsity <= sparsity < 1"):
        dynamic.top_kast(0.8, backward_sparsity=0.9)


# ---------------------------------------------------------------- structures


def groups_of_four(pattern):
    n_out, n_in = pattern.shape
    return pattern.reshape(n_out, n_in // 4, 4).sum(axis=2)


def test_n_m_keeps_the_two_largest_of_every_four():
    model = net()
    optimizer, sparsifier = make(model, recipes.n_m(2, 4, at=0.5), 20)
    train(model, optimizer, sparsifier, 9)
    optimizer_only(model, optimizer)
    weights = matrices(model)
    sparsifier.step()
    for weight, pattern in zip(weights, patterns(model), strict=True):
        assert (groups_of_four(pattern) == 2).all()
        sizes = np.abs(weight).reshape(len(weight), -1, 4)
        smallest_kept = np.where(pattern.reshape(sizes.shape), sizes, np.inf).min(axis=2)
        largest_dropped = np.where(pattern.reshape(sizes.shape), -np.inf, sizes).max(axis=2)
        assert (smallest_kept > largest_dropped).all()


def optimizer_only(model, optimizer):
    loss = LOSS(model(X), Y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_sr_ste_trains_all_weights_and_ends_with_n_of_m():
    model = net()
    optimizer, sparsifier = make(model, dynamic.sr_ste(2, 4), 20)
    for _ in range(19):
        train(model, optimizer, sparsifier, 1)
        assert all(t.topology.is_full for t in targets(model))
        for t in targets(model):
            mask = t.canonical(t.weight.buffers["forward"]).reshape(t.topology.shape)
            assert (groups_of_four(mask != 0) == 2).all()
    train(model, optimizer, sparsifier, 1)
    for pattern in patterns(model):
        assert (groups_of_four(pattern) == 2).all()


def test_neurons_takes_whole_rows_of_the_hidden_layers_in_order_of_their_strength():
    model = net()
    optimizer, sparsifier = make(model, recipes.neurons(0.4, end=0.5), 20)
    train(model, optimizer, sparsifier, 9)
    optimizer_only(model, optimizer)
    strength = np.abs(matrices(model)[0]).sum(axis=1)
    sparsifier.step()
    # 600 · 0.6 = 360 are to stay, 120 of them in the output layer: ten rows of 24
    first, last = patterns(model)
    assert last.all()
    stays = np.zeros(20, bool)
    stays[np.argsort(-strength)[:10]] = True
    np.testing.assert_array_equal(first, np.repeat(stays[:, None], 24, axis=1))
    train(model, optimizer, sparsifier, 10)
    small = compact(model)
    assert small[0].out_features == 10
    np.testing.assert_allclose(small.predict(X), model.predict(X), rtol=0, atol=1e-5)


def test_neurons_says_when_the_output_layer_alone_is_too_much():
    model = net()
    optimizer, sparsifier = make(model, recipes.neurons(0.9), 20)
    with pytest.raises(ValueError, match="60 weights are to be left, but the last layer, '2'"):
        train(model, optimizer, sparsifier, 10)


def test_group_lasso_drops_whole_groups_and_then_leaves_the_rest_alone():
    model = net()
    recipe = recipes.group_lasso(0.3, groups=Block(4, 4).groups, until=0.5)
    optimizer, sparsifier = make(model, recipe, 40)
    train(model, optimizer, sparsifier, 20)
    for pattern in patterns(model):
        n_out, n_in = pattern.shape
        padded = np.zeros((-(-n_out // 4) * 4, n_in), bool)
        padded[:n_out] = pattern
        blocks = padded.reshape(-1, 4, n_in // 4, 4).sum(axis=(1, 3))
        full = np.minimum(4, n_out - 4 * np.arange(len(blocks)))[:, None] * 4
        assert ((blocks == 0) | (blocks == full)).all()
    left = sparsifier.report().nnz
    assert 0 < left < POSITIONS
    before = matrices(model)
    sparsifier.step()  # no gradient step: the penalty has ended
    for a, b in zip(before, matrices(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sparsifier.report().nnz == left


# ---------------------------------------------------------------- parts can be exchanged


def test_parts_can_be_exchanged():
    recipe = dataclasses.replace(
        recipes.agp(0.9, every=4, criterion=criteria.movement), remember=True
    )
    model = net()
    optimizer, sparsifier = make(model, recipe, 20)
    start = matrices(model)
    train(model, optimizer, sparsifier, 2)
    optimizer_only(model, optimizer)
    moved = np.abs(matrices(model)[0] - start[0])
    train(model, optimizer, sparsifier, 2)
    assert patterns(model)[0].sum() < 480
    assert moved.any()


def test_a_full_model_starts_dynamic_training_at_the_wanted_sparsity():
    model = prunable(nn.mlp([24, 20, 6], rng=1))
    make(model, dynamic.rigl(0.8, every=5))
    assert [t.nnz for t in targets(model)] == [75, 45]  # 120 · 44/70, 120 · 26/70
    assert alive_topology(targets(model)[0]) != Topology.full((20, 24))
