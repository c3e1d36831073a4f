"""Two Sparsifiers on one model: the later one has the layers, the earlier one says so; nothing is kept alive."""

import copy
import gc
import weakref

import numpy as np
import pytest

from nnsparse import nn, optim
from nnsparse.sparsify import Sparsifier, dynamic, harden, prunable, recipes, targets

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 24)).astype(np.float32)
Y = RNG.integers(0, 6, 32)
LOSS = nn.CrossEntropyLoss()
AGP = recipes.agp(0.9, every=4, end=0.8)


def parts():
    model = prunable(nn.mlp([24, 20, 6], rng=1))
    return model, optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def train(model, optimizer, sparsifier, steps):
    for _ in range(steps):
        loss = LOSS(model(X), Y)
        optimizer.zero_grad()
        loss.backward()
        sparsifier.before_step()
        if not sparsifier.replaces_step:
            optimizer.step()
        sparsifier.step()


@pytest.mark.parametrize(
    "go_on",
    [
        lambda s: s.step(),
        lambda s: s.before_step(),
        lambda s: s.load_state_dict(s.state_dict()),
    ],
)
def test_an_earlier_sparsifier_of_the_same_layers_says_that_it_has_lost_them(go_on):
    model, optimizer = parts()
    first = Sparsifier(model, optimizer, AGP, 40)
    train(model, optimizer, first, 3)
    second = Sparsifier(model, optimizer, AGP, 40)
    before = model[0].weight.data.copy()
    with pytest.raises(RuntimeError, match=r"\(agp\): another Sparsifier was made for layer '0'"):
        go_on(first)
    np.testing.assert_array_equal(model[0].weight.data, before)
    assert first.steps == 3
    assert first.report().step == 3  # what it did can still be read
    train(model, optimizer, second, 40)
    assert second.report().nnz == 60


def test_a_cell_that_is_run_again_has_a_sparsifier_that_works():
    model, optimizer = parts()
    for _ in range(2):  # the name still holds the first one while the second is made
        sparsifier = Sparsifier(model, optimizer, AGP, 40)
        train(model, optimizer, sparsifier, 5)
    assert sparsifier.steps == 5


def test_a_sparsifier_that_was_refused_takes_nothing_over():
    model, optimizer = parts()
    first = Sparsifier(model, optimizer, AGP, 40)
    with pytest.raises(ValueError, match="snip needs data"):
        Sparsifier(model, optimizer, recipes.snip(0.5), 40)
    train(model, optimizer, first, 40)


def test_each_may_have_layers_of_its_own():
    model, optimizer = parts()
    first = Sparsifier(model, optimizer, AGP, 40, skip=["2"])
    second = Sparsifier(model, optimizer, recipes.magnitude(0.5), 40, skip=["0"])
    train(model, optimizer, first, 2)
    second.step()
    first.step()


@pytest.mark.parametrize("first_rewinds", [True, False])
def test_rewinding_changes_all_parameters_and_so_claims_all_layers(first_rewinds):
    model, optimizer = parts()
    rewinding = recipes.lottery_ticket(0.8, rounds=2)
    chosen = [rewinding, AGP] if first_rewinds else [AGP, rewinding]
    first, second = (
        Sparsifier(model, optimizer, recipe, 40, skip=[name])
        for recipe, name in zip(chosen, ("2", "0"), strict=True)
    )
    second.step()
    with pytest.raises(RuntimeError, match="another Sparsifier"):
        first.step()


def test_another_one_may_follow_when_the_first_is_done_or_deleted_and_resume_it():
    model, optimizer = parts()
    first = Sparsifier(model, optimizer, AGP, 40)
    train(model, optimizer, first, 9)
    states = [part.state_dict() for part in (model, optimizer, first)]
    train(model, optimizer, first, 31)
    expected = model[0].to_scipy().toarray()
    del first
    second = Sparsifier(model, optimizer, recipes.agp(0.9, every=4, end=0.8), 40)
    for part, state in zip((model, optimizer, second), states, strict=True):
        part.load_state_dict(state)
    train(model, optimizer, second, 31)
    np.testing.assert_array_equal(model[0].to_scipy().toarray(), expected)
    Sparsifier(model, optimizer, dynamic.rigl(every=4), 40)


def test_nothing_is_kept_alive():
    model, optimizer = parts()
    sparsifier = Sparsifier(model, optimizer, AGP, 40)
    dead = weakref.ref(sparsifier)
    del sparsifier
    gc.collect()
    assert dead() is None
    sparsifier = Sparsifier(model, optimizer, AGP, 40)
    gone = weakref.ref(model)
    del model, optimizer, sparsifier
    gc.collect()
    assert gone() is None


def test_a_copy_of_model_and_sparsifier_goes_on_by_itself():
    model, optimizer = parts()
    first = Sparsifier(model, optimizer, recipes.one_shot(0.5), 40)
    train(model, optimizer, first, 3)
    twins = copy.deepcopy((model, optimizer, first))
    train(*twins, 2)
    Sparsifier(twins[0], twins[1], AGP, 40)
    train(model, optimizer, first, 3)
    assert (first.steps, twins[2].steps) == (6, 5)


def test_a_mask_of_the_forward_pass_that_nobody_would_renew_is_refused():
    model, optimizer = parts()
    first = Sparsifier(model, optimizer, dynamic.sr_ste(), 40)
    train(model, optimizer, first, 3)
    with pytest.raises(ValueError, match=r"agp: layer '0' still has the forward mask of another"):
        Sparsifier(model, optimizer, AGP, 40)
    Sparsifier(model, optimizer, dynamic.sr_ste(1, 4), 40)
    for target in targets(model):
        harden(target)
    Sparsifier(model, optimizer, AGP, 40)


# ---------------------------------------------------------------- what is left behind


def interrupted():
    model, optimizer = parts()
    first = Sparsifier(model, optimizer, recipes.agp(0.9, every=4), 40, refresh_every=40)
    train(model, optimizer, first, 20)
    assert "held" in model[0].weight.buffers
    return model, optimizer, first


@pytest.mark.parametrize("alive", [True, False])
def test_what_an_interrupted_sparsifier_held_in_a_skipped_layer_stays_away(alive):
    model, optimizer, first = interrupted()
    nnz = first.report().layers[0].nnz
    if not alive:
        del first
        gc.collect()
    second = Sparsifier(model, optimizer, recipes.magnitude(0.95), 40, skip=["0"])
    assert "held" not in model[0].weight.buffers
    train(model, optimizer, second, 5)
    assert model[0].nnz == np.count_nonzero(model[0].weight.data) == nnz


def test_layers_of_a_sparsifier_that_goes_on_keep_their_form():
    model, optimizer = parts()
    first = Sparsifier(
        model, optimizer, recipes.agp(0.9, every=4), 40, refresh_every=40, skip=["2"]
    )
    train(model, optimizer, first, 20)
    Sparsifier(model, optimizer, recipes.magnitude(0.5), 40, skip=["0"])
    assert "held" in model[0].weight.buffers
    train(model, optimizer, first, 20)
    assert first.report().nnz == 48


def test_masks_that_no_effect_of_the_new_recipe_makes_are_refused():
    model, optimizer = parts()
    Sparsifier(model, optimizer, dynamic.sr_ste(), 40)
    for recipe in (recipes.group_lasso(0.01), recipes.magnitude(0.5)):
        with pytest.raises(ValueError, match="layer '0' still has the forward mask"):
            Sparsifier(model, optimizer, recipe, 40)
    Sparsifier(model, optimizer, dynamic.top_kast(0.5, every=5), 40)
