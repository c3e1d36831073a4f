"""What is given wrongly is refused where it is given, by the name of the argument."""

import re

import numpy as np
import pytest

from nnsparse import nn, optim, sparsify
from nnsparse.schedule import constant
from nnsparse.sparsify import Sparsifier, criteria, dynamic, prunable, recipes
from nnsparse.sparsify.holding import alive_count
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.update import EmptyLayerWarning
from nnsparse.topology import Topology

RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 12)).astype(np.float32)
Y = RNG.integers(0, 4, 16)
LOSS = nn.CrossEntropyLoss()


def net(sizes=(12, 10, 4)):
    return prunable(nn.mlp(list(sizes), rng=0))


def make(recipe, total=20, model=None, **options):
    model = net() if model is None else model
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return model, optimizer, Sparsifier(model, optimizer, recipe, total, **options)


def train(model, optimizer, sparsifier, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        LOSS(model(X), Y).backward()
        sparsifier.before_step()
        if not sparsifier.replaces_step:
            optimizer.step()
        sparsifier.step()


# ---------------------------------------------------------------- shared weights


def test_two_layers_that_share_a_weight_are_refused_by_name():
    a, b = (nn.SparseLinear(8, 8, sparsity=0.5, rng=i) for i in (0, 1))
    b.weight = a.weight
    model = nn.Sequential(a, nn.ReLU(), b)
    before = a.weight.to_dense()
    with pytest.raises(ValueError, match=r"'0' and '2' share one weight.*layer itself twice"):
        make(recipes.magnitude(0.9), model=model)
    with pytest.raises(ValueError, match="share one weight"):
        sparsify.targets(model, skip=["2"])
    np.testing.assert_array_equal(a.weight.to_dense(), before)


def test_a_layer_used_twice_is_still_one_target():
    a = nn.SparseLinear(8, 8, sparsity=0.5, rng=0)
    assert len(sparsify.targets(nn.Sequential(a, nn.ReLU(), a))) == 1


# ---------------------------------------------------------------- numbers of recipes

SPARSE = [
    recipes.one_shot,
    recipes.iterative,
    recipes.lottery_ticket,
    recipes.agp,
    recipes.one_cycle,
    recipes.random,
    recipes.magnitude,
    recipes.snip,
    recipes.grasp,
    recipes.synflow,
    recipes.obd,
    recipes.neurons,
    dynamic.granet,
    dynamic.top_kast,
]
HELD = [dynamic.set_, dynamic.rigl, dynamic.snfs, dynamic.srigl]


@pytest.mark.parametrize("make_recipe", SPARSE + HELD, ids=lambda f: f.__name__)
def test_a_sparsity_is_a_number_from_0_to_1(make_recipe):
    for wrong in ("0.9", [0.9], True, 0.9j):
        with pytest.raises(TypeError, match=r"expected sparsity as a number"):
            make_recipe(wrong)
    for wrong in (float("nan"), -0.1, 90.0, float("inf")):
        with pytest.raises(ValueError, match=r"expected sparsity in \[0, 1\]"):
            make_recipe(wrong)
    make_recipe(np.float32(0.75))


@pytest.mark.parametrize("make_recipe", SPARSE, ids=lambda f: f.__name__)
def test_no_sparsity_is_refused_where_one_is_needed(make_recipe):
    with pytest.raises(TypeError, match="expected sparsity as a number; got None"):
        make_recipe(None)


@pytest.mark.parametrize("make_recipe", HELD, ids=lambda f: f.__name__)
def test_methods_that_hold_their_sparsity_take_none(make_recipe):
    assert make_recipe(None).sparsity is None


@pytest.mark.parametrize(
    ("make_recipe", "name"),
    [
        (dynamic.set_, "drop"),
        (dynamic.rigl, "drop"),
        (dynamic.snfs, "drop"),
        (dynamic.snfs, "final_drop"),
        (dynamic.granet, "drop"),
        (dynamic.srigl, "drop"),
        (dynamic.top_kast, "explore"),
    ],
)
def test_what_is_replaced_is_a_fraction_below_1(make_recipe, name):
    for wrong in (-0.1, 1.0, 30, float("nan")):
        with pytest.raises(ValueError, match=rf"expected {name} in \[0, 1\)"):
            make_recipe(0.9, **{name: wrong})
    for wrong in ("0.3", None):
        with pytest.raises(TypeError, match=f"expected {name} as a number"):
            make_recipe(0.9, **{name: wrong})
    make_recipe(0.9, **{name: 0.0})


@pytest.mark.parametrize("make_recipe", [recipes.agp, recipes.iterative, recipes.one_cycle])
def test_the_initial_sparsity_is_named_too(make_recipe):
    with pytest.raises(ValueError, match=r"expected initial in \[0, 1\]"):
        make_recipe(0.9, initial=-1)
    with pytest.raises(TypeError, match="expected initial as a number"):
        make_recipe(0.9, initial="0")


def test_granet_prunes_and_does_not_refill():
    with pytest.raises(ValueError, match=r"expected initial <= sparsity; got initial=0\.9"):
        dynamic.granet(0.8, initial=0.9)
    with pytest.raises(TypeError, match="expected initial"):
        dynamic.granet(0.8, initial="0.5")


def test_other_numbers_are_named():
    with pytest.raises(ValueError, match="decay >= 0"):
        dynamic.top_kast(0.9, decay=-1.0)
    with pytest.raises(TypeError, match="expected decay as a number"):
        dynamic.top_kast(0.9, decay="1e-4")
    with pytest.raises(TypeError, match="expected backward_sparsity as a number"):
        dynamic.top_kast(0.9, backward_sparsity="0.8")
    with pytest.raises(TypeError, match="expected strength as a number"):
        recipes.group_lasso("1e-3")


def test_a_group_lasso_that_leaves_nothing_speaks_of_its_strength():
    model, optimizer, sparsifier = make(recipes.group_lasso(1e3, until=0.5), 4)
    with pytest.raises(ValueError, match="Lower strength"):
        train(model, optimizer, sparsifier, 4)


# ---------------------------------------------------------------- top_kast's total


@pytest.mark.parametrize(
    ("sizes", "sparsity", "total"),
    [((100, 64, 32, 10), 0.93, 614), ((20, 10, 7), 0.87, 35), ((11, 9, 8, 7), 0.9, 23)],
)
def test_top_kast_sees_the_exact_total_at_every_update(sizes, sparsity, total):
    model = net(sizes)
    recipe = dynamic.top_kast(sparsity, every=2)
    model, optimizer, sparsifier = make(recipe, 7, model)
    x = RNG.standard_normal((8, sizes[0])).astype(np.float32)
    y = RNG.integers(0, sizes[-1], 8)
    for _ in range(7):
        seen = sum(int(t.weight.buffers["forward"].sum()) for t in sparsifier.targets)
        assert seen == total
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        sparsifier.before_step()
        optimizer.step()
        sparsifier.step()
    assert sum(alive_count(t) for t in sparsifier.targets) == total


# ---------------------------------------------------------------- plots


def test_the_plots_are_exported():
    for name in ("plot_schedule", "plot_densities", "plot_mask"):
        assert name in sparsify.__all__
        assert getattr(sparsify, name) is getattr(sparsify.plots, name)


# ---------------------------------------------------------------- the Sparsifier


def test_numpy_integers_are_integers():
    _, _, sparsifier = make(recipes.magnitude(0.9), np.int64(20), refresh_every=np.int32(5))
    assert type(sparsifier.total_steps) is int
    assert sparsifier.state_dict()["total_steps"] == 20
    for wrong in (np.float64(20), np.bool_(True), True):
        with pytest.raises(ValueError, match="total_steps"):
            make(recipes.magnitude(0.9), wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swap": "yes"}, "expects swap as True, False or a Crossover; got 'yes'"),
        ({"swap": 1}, "expects swap as"),
        ({"swap": None}, "expects swap as"),
        ({"skip": "00"}, r"expected skip as a list of names; got '00'. Say skip=\['00'\]"),
        ({"batches": (batch for batch in [(X, Y)])}, r"Say batches=list\(\.\.\.\)"),
        ({"batches": None}, "expects batches"),
        ({"loss_fn": 3}, "expects loss_fn as a function of"),
    ],
)
def test_a_sparsifiers_arguments_of_another_kind_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        make(recipes.magnitude(0.9), **options)


def test_prunable_refuses_one_name_as_skip_too():
    with pytest.raises(TypeError, match="expected skip as a list of names"):
        prunable(nn.mlp([4, 3, 2], rng=0), skip="00")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed"),
        ("seed", 2**64, "seed"),
        ("steps", 1.5, "steps"),
        ("steps", "1", "steps"),
        ("steps", None, "steps"),
        ("total_steps", [20], "total_steps"),
        ("history.steps", 3, "history"),
        ("history.counts", None, "history"),
        ("history.counts", "x", "history"),
        ("recipe", "set", "from recipe 'set'; this one runs 'magnitude'"),
    ],
)
def test_a_state_that_makes_no_sense_changes_nothing(key, value, message):
    _, _, sparsifier = make(recipes.magnitude(0.9))
    good = sparsifier.state_dict()
    with pytest.raises(ValueError, match=f"Sparsifier.*{message}"):
        sparsifier.load_state_dict({**good, key: value})
    sparsifier.load_state_dict(good)
    numpy = {name: np.asarray(entry) for name, entry in good.items()}  # as np.load returns it
    sparsifier.load_state_dict(numpy)
    assert sparsifier.state_dict()["steps"] == 0


def test_the_way_to_the_first_sparsity_is_no_update():
    model, optimizer, sparsifier = make(dynamic.set_(0.8, every=5))
    assert sparsifier.report().updates == 0
    train(model, optimizer, sparsifier, 20)
    assert sparsifier.report().updates == 3
    assert make(recipes.magnitude(0.9))[2].report().updates == 1


def test_the_warning_of_an_empty_layer_points_here():
    recipe = Recipe("r", criteria.magnitude, constant(0.9), allocation=lambda c, k, s: [k, 0])
    with pytest.warns(EmptyLayerWarning) as warned:
        make(recipe)
    assert warned[0].filename == __file__


# ---------------------------------------------------------------- parts made by users


def overlapping(context, index, kept, k):
    rows, columns = np.divmod(np.arange(k), kept.shape[1])
    return Topology.from_coo(kept.shape, rows, columns), 0.0


def test_growth_where_a_weight_is_kept_is_refused():
    recipe = Recipe("mine", criteria.magnitude, growth=overlapping, drop_fraction=constant(0.5))
    model = nn.Sequential(nn.SparseLinear(4, 4, topology=Topology.from_coo((4, 4), [0, 0], [0, 1])))
    model[0].weight.set_canonical([2.0, 1.0])
    with pytest.raises(ValueError, match=r"mine: growth for layer '0'.*1 of 1.*kept"):
        make(recipe, model=model)


@pytest.mark.parametrize("counts", [(10, 5), (1, 1)])
def test_an_allocation_of_another_sum_is_refused(counts):
    recipe = Recipe(
        "mine", criteria.magnitude, constant(0.9), allocation=lambda c, k, s: list(counts)
    )
    with pytest.raises(ValueError, match=re.escape(f"share out 16 weights; got {sum(counts)}")):
        make(recipe)


def test_units_may_take_fewer_weights_than_they_are_given():
    make(recipes.n_m(2, 4, at=0.0))
    model, optimizer, sparsifier = make(recipes.neurons(0.5, end=0.5), 4)
    train(model, optimizer, sparsifier, 4)
