"""Nothing depends on how a layer is stored: what is held at zero takes part in no choice, norm or gradient."""

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.sparsify import Crossover, Sparsifier, criteria, dynamic, prunable, recipes, saliency
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.fan_in import FanInGradient
from nnsparse.sparsify.group_lasso import GroupLasso
from nnsparse.sparsify.growth import Gradient, Random
from nnsparse.sparsify.holding import alive_mask, alive_topology, compress, expand, set_alive
from nnsparse.topology import Topology

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 24))
Y = RNG.integers(0, 6, 32)
LOSS = nn.CrossEntropyLoss()
ALWAYS_FULL = Crossover(1.0, 0.0)


def net(sparsity=None):
    model = nn.mlp([24, 20, 6], sparsity=sparsity, dtype=np.float64, rng=1)
    return prunable(model) if sparsity is None else model


def trained(recipe, total=40, clip=None, **options):
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = Sparsifier(
        model, optimizer, recipe, total, loss_fn=LOSS, batches=[(X, Y)], **options
    )
    for _ in range(total):
        optimizer.zero_grad()
        LOSS(model(X), Y).backward()
        sparsifier.before_step()
        if clip is not None:
            optim.clip_grad_norm(model.parameters(), clip)
        if not sparsifier.replaces_step:
            optimizer.step()
        sparsifier.step()
    return sparsifier


def agp(**options):
    return recipes.agp(0.9, every=5, end=0.8, **options)


CASES = {
    "random": (agp(criterion=criteria.random), None),
    "grasp": (agp(criterion=saliency.Grasp()), None),
    "clipped": (agp(), 0.05),
    "top_kast": (dynamic.top_kast(0.6, every=5), None),
    "set": (dynamic.set_(0.6, every=5), None),
    "group_lasso": (recipes.group_lasso(0.03), None),
}


@pytest.mark.parametrize("storage", [{"refresh_every": 7}, {"swap": ALWAYS_FULL}, {"swap": True}])
@pytest.mark.parametrize("case", CASES)
def test_a_recipe_makes_the_same_of_held_and_of_compressed_layers(case, storage):
    recipe, clip = CASES[case]
    plain, other = trained(recipe, clip=clip), trained(recipe, clip=clip, **storage)
    for a, b in zip(plain.targets, other.targets, strict=True):
        assert alive_topology(a) == alive_topology(b)
        np.testing.assert_allclose(a.canonical(), b.canonical(), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("backward", [None, 0.55, 0.6])
@pytest.mark.parametrize("storage", [{}, {"swap": ALWAYS_FULL}])
def test_top_kast_ends_with_the_exact_number(backward, storage):
    recipe = dynamic.top_kast(0.6, backward_sparsity=backward, every=5)
    sparsifier = trained(recipe, **storage)
    assert sum(target.nnz for target in sparsifier.targets) == round(0.4 * 600)


def held_and_compressed():
    """The same model twice, the second with half of its weights held at zero in full layers."""
    plain, held = net(0.5), net(0.5)
    for target in targets(held):
        expand(target)
    return plain, held


def test_the_norm_that_is_clipped_leaves_out_what_is_held():
    norms = []
    for model in held_and_compressed():
        LOSS(model(X), Y).backward()
        norms.append(optim.clip_grad_norm(model.parameters(), np.inf))
    assert norms[1] == pytest.approx(norms[0], rel=1e-12)


def test_a_gradient_of_a_held_weight_that_is_no_number_does_not_spoil_the_norm():
    _, model = held_and_compressed()
    LOSS(model(X), Y).backward()
    weight = model[0].weight
    expected = optim.clip_grad_norm(model.parameters(), np.inf)
    weight.grad[weight.buffers["held"] == 0] = np.nan
    assert optim.clip_grad_norm(model.parameters(), np.inf) == expected


@pytest.mark.parametrize("criterion", [saliency.Grasp(), saliency.snip, criteria.random])
def test_scores_of_what_is_alive_are_those_of_the_compressed_layer(criterion):
    scores = []
    for model in held_and_compressed():
        context = Context(model, targets(model), LOSS, [(X, Y)], seed=3, step=4)
        found = criterion(context)
        masks = [alive_mask(target) for target in context.targets]
        scores.append([s if m is None else s[m] for s, m in zip(found, masks, strict=True)])
    for a, b in zip(*scores, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-15)


def test_the_size_of_a_group_is_what_is_alive_in_it():
    values = []
    for model in held_and_compressed():
        context = Context(model, targets(model))
        values.append(GroupLasso(0.1).value(context))
        GroupLasso(0.1).refresh(context, 0.1)
        values.append([target.weight.to_dense() for target in context.targets])
    assert values[2] == pytest.approx(values[0], rel=1e-12)
    for a, b in zip(values[1], values[3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    "growth", [Random(0.0, 0.1), Gradient(), Gradient(False), FanInGradient(False)]
)
def test_what_grows_does_not_depend_on_what_is_held(growth):
    grown = []
    for model in held_and_compressed():
        for target in targets(model):
            target.layer.taps = []
        LOSS(model(X), Y).backward()
        context = Context(
            model, targets(model), seed=3, taps=[t.layer.taps for t in targets(model)]
        )
        grown.append(growth(context, 0, alive_topology(context.targets[0]), 50))
    assert grown[0][0] == grown[1][0]
    np.testing.assert_array_equal(
        np.broadcast_to(grown[0][1], 50), np.broadcast_to(grown[1][1], 50)
    )


# ---------------------------------------------------------------- gradients follow


def test_gradients_follow_a_layer_into_another_form_and_back():
    model = net(0.5)
    LOSS(model(X), Y).backward()
    target = targets(model)[0]
    weight, before = target.weight, target.canonical(target.weight.grad)
    expand(target)
    np.testing.assert_array_equal(
        weight.topology.to_dense(weight.canonical(weight.grad)),
        alive_topology(target).to_dense(before),
    )
    compress(target)
    np.testing.assert_array_equal(target.canonical(weight.grad), before)


def test_compressing_keeps_the_gradients_of_survivors():
    target = targets(net(0.5))[0]
    weight = target.weight
    weight.grad = RNG.standard_normal(weight.data.shape)
    before, mask = target.canonical(weight.grad), RNG.random(target.nnz) < 0.5
    set_alive(target, mask)
    compress(target)
    np.testing.assert_array_equal(target.canonical(weight.grad), before[mask])


@pytest.mark.parametrize("grad", [None, np.ones(3)])
def test_a_gradient_that_is_missing_or_does_not_fit_is_none_afterwards(grad):
    target = targets(net(0.5))[0]
    target.weight.grad = grad
    expand(target)
    assert target.weight.grad is None


def test_moving_drops_the_gradient_unless_it_is_told_to_keep_it():
    target = targets(net(0.5))[0]
    target.weight.grad = np.ones_like(target.weight.data)
    target.weight.move_to(Topology.full((20, 24)))
    assert target.weight.grad is None


def test_an_optimizer_goes_on_after_a_swap_between_backward_and_step():
    results = []
    for swapped in (False, True):
        model = net(0.05)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        LOSS(model(X), Y).backward()
        if swapped:
            for target in targets(model):
                expand(target)
        optimizer.step()
        results.append([t.weight.to_dense() for t in targets(model)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
