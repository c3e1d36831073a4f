"""The Sparsifier beside a training: counts, identity, resuming, threads, refreshing, swapping, refusals."""

import dataclasses

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import nn, optim
from nnsparse.plan import plans_built
from nnsparse.schedule import constant, linear
from nnsparse.sparsify import Crossover, Sparsifier, criteria, dynamic, prunable, recipes
from nnsparse.sparsify.group_lasso import GroupLasso
from nnsparse.sparsify.holding import alive_count, alive_topology
from nnsparse.sparsify.recipe import Recipe
from nnsparse.sparsify.when import At, Every

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 24)).astype(np.float32)
Y = RNG.integers(0, 6, 32)
LOSS = nn.CrossEntropyLoss()
SIZES = [24, 20, 6]
POSITIONS = 24 * 20 + 20 * 6
AGP = recipes.agp(0.9, every=4, end=0.8)


def net(sparsity=None, dtype=np.float32):
    model = nn.mlp(SIZES, sparsity=sparsity, dtype=dtype, rng=1)
    return prunable(model) if sparsity is None else model


def sgd(model):
    return optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def adam(model):
    return optim.Adam(model.parameters(), lr=0.01)


class Run:
    """A model, its optimizer and its Sparsifier, trained on one batch."""

    def __init__(self, recipe, total=40, model=None, optimizer=sgd, **options):
        self.model = net() if model is None else model
        self.optimizer = optimizer(self.model)
        self.sparsifier = Sparsifier(
            self.model, self.optimizer, recipe, total, loss_fn=LOSS, batches=[(X, Y)], **options
        )

    def train(self, steps):
        for _ in range(steps):
            loss = LOSS(self.model(X), Y)
            self.optimizer.zero_grad()
            loss.backward()
            self.sparsifier.before_step()
            if not self.sparsifier.replaces_step:
                self.optimizer.step()
            self.sparsifier.step()
        return self

    def alive(self):
        return sum(alive_count(target) for target in self.sparsifier.targets)

    def weights(self):
        """Dense copies of all values and optimizer buffers, wherever they are stored."""
        found = []
        for p in self.model.parameters():
            names = [None, *sorted(set(p.buffers) & {"momentum", "exp_avg", "exp_avg_sq"})]
            for name in names:
                array = p.canonical(p.data if name is None else p.buffers[name])
                found.append(p.topology.to_dense(array) if hasattr(p, "topology") else array.copy())
        return found


def same(a, b):
    for x, y in zip(a.weights(), b.weights(), strict=True):
        np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------- counts and identity


def test_the_total_is_exact_after_every_update():
    run = Run(AGP)
    for _ in range(40):
        run.train(1)
        wanted = AGP.sparsity(AGP.when.progress(run.sparsifier.steps // 4 * 4, 40))
        assert run.alive() == round((1 - wanted) * POSITIONS)
    assert run.alive() == 60
    assert [record.step for record in run.sparsifier.history] == list(range(0, 33, 4))
    assert all(sum(r.counts) >= 60 for r in run.sparsifier.history)


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("recipe", [AGP, dynamic.rigl(0.8, every=5), dynamic.set_(0.8, every=5)])
def test_survivors_and_their_optimizer_state_are_bit_identical_over_an_update(recipe, optimizer):
    run = Run(recipe, optimizer=optimizer).train(3)
    while not run.sparsifier.due:
        run.train(1)
    parameters = list(run.model.parameters())
    loss = LOSS(run.model(X), Y)
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    before, patterns = run.weights(), [t.topology for t in run.sparsifier.targets]
    run.sparsifier.step()
    after = run.weights()
    assert all(a is b for a, b in zip(run.model.parameters(), parameters, strict=True))
    slots, pairs = len(before) // 4, iter(range(0, len(before), len(before) // 2))
    for target, old, i in zip(run.sparsifier.targets, patterns, pairs, strict=True):
        assert target.topology != old
        # What random growth puts in the place of a weight that was just dropped is new, too.
        replaced = (target.topology & old).to_dense() & (after[i] != before[i])
        assert replaced.sum() <= (6 if recipe.name == "set" else 0)
        stays = (target.topology & old).to_dense() & ~replaced
        newcomers = (target.topology - old).to_dense() | replaced
        for j in range(i, i + slots):
            np.testing.assert_array_equal(after[j][stays], before[j][stays])
            assert j == i or (after[j][newcomers] == 0).all()


def test_the_optimizer_goes_on_training_the_same_parameters():
    run = Run(dynamic.rigl(0.8, every=5)).train(40)
    before = run.model[0].weight.data.copy()
    run.model[0].weight.grad = np.ones_like(before)
    run.optimizer.step()
    assert (run.model[0].weight.data != before).all()


def test_updates_at_step_zero_are_made_at_once():
    run = Run(recipes.magnitude(0.9))
    assert run.alive() == 60
    assert run.model[0].nnz + run.model[2].nnz == 60
    assert run.sparsifier.history[0].step == 0


def test_a_model_that_already_holds_the_wanted_total_stays_as_it_is():
    model = net(0.8)
    patterns = [model[i].weight.topology for i in (0, 2)]
    values = [model[i].weight.data.copy() for i in (0, 2)]
    run = Run(dynamic.rigl(0.8, every=5), model=model)
    for i, pattern, value in zip((0, 2), patterns, values, strict=True):
        assert run.model[i].weight.topology is pattern
        np.testing.assert_array_equal(run.model[i].weight.data, value)


@pytest.mark.parametrize("sparsity", [0.5, 0.95])
def test_a_model_with_another_total_is_pruned_or_grown_to_the_first_sparsity(sparsity):
    run = Run(dynamic.rigl(0.8, every=5), model=net(sparsity))
    assert run.alive() == 120
    values = np.concatenate([target.canonical() for target in run.sparsifier.targets])
    assert (values != 0).all()  # fresh weights have initial values


def test_no_sparsity_takes_the_model_as_it_is():
    run = Run(dynamic.set_(every=5), model=net(0.7)).train(40)
    assert run.alive() == 180


# ---------------------------------------------------------------- reproducibility


RESUMABLE = {
    "agp": (AGP, {}),
    "held": (recipes.agp(0.9, every=1, end=0.8), {"refresh_every": 10}),
    "swap": (recipes.agp(0.9, every=1, end=0.8), {"swap": Crossover(0.5)}),
    "rigl": (dynamic.rigl(0.8, every=3), {}),
    "set": (dynamic.set_(0.8, every=3), {}),
    "snfs": (dynamic.snfs(0.8, every=3), {}),
    "granet": (dynamic.granet(0.9, every=3), {"swap": Crossover(0.6)}),
    "srigl": (dynamic.srigl(0.8, every=3), {}),
    "top_kast": (dynamic.top_kast(0.9, every=3), {}),
    "sr_ste": (dynamic.sr_ste(), {}),
    "lottery_ticket": (recipes.lottery_ticket(0.8, rounds=3, rewind=0.1), {}),
    "movement": (
        dataclasses.replace(recipes.agp(0.9, every=4, criterion=criteria.movement), remember=True),
        {},
    ),
}


@pytest.mark.parametrize("name", RESUMABLE)
@pytest.mark.parametrize("at", [5, 14, 29])
def test_a_run_that_was_saved_and_resumed_is_the_same_bit_for_bit(name, at):
    recipe, options = RESUMABLE[name]
    whole = Run(recipe, **options).train(40)

    first = Run(recipe, **options).train(at)
    states = [part.state_dict() for part in (first.model, first.optimizer, first.sparsifier)]
    first.train(3)  # what was saved is not shared with what goes on
    second = Run(recipe, rng=99, **options)
    for part, state in zip(
        (second.model, second.optimizer, second.sparsifier), states, strict=True
    ):
        part.load_state_dict(state)
    second.train(40 - at)

    same(whole, second)
    a, b = whole.sparsifier, second.sparsifier
    assert [(r.step, r.counts, r.grown) for r in a.history] == [
        (r.step, r.counts, r.grown) for r in b.history
    ]
    assert a.report().layers == b.report().layers


@pytest.mark.parametrize("name", ["agp", "held", "rigl", "set", "granet", "srigl"])
def test_one_and_two_threads_give_the_same_bits(name):
    recipe, options = RESUMABLE[name]
    runs = []
    before = ns.get_num_threads()
    try:
        for threads in (1, 2):
            ns.set_num_threads(threads)
            runs.append(Run(recipe, **options).train(40))
    finally:
        ns.set_num_threads(before)
    same(*runs)


def test_the_seed_decides_what_is_drawn():
    a, b, c = (
        Run(dynamic.set_(0.8, every=5), rng=rng).train(20)
        for rng in (3, 3, np.random.default_rng(3))
    )
    same(a, b)
    assert a.model[0].weight.topology != c.model[0].weight.topology
    assert Run(dynamic.set_(0.8, every=5), rng=None)


# ---------------------------------------------------------------- refreshing apart from pruning


def test_pruning_at_every_step_rebuilds_patterns_at_every_refresh_only():
    recipe = dataclasses.replace(recipes.agp(0.9, every=1, end=0.8), sparsity=linear(0.0, 0.9))
    run = Run(recipe, refresh_every=10)
    before, patterns = plans_built(), [run.model[0].weight.topology]
    for _ in range(40):
        run.train(1)
        wanted = recipe.sparsity(recipe.when.progress(run.sparsifier.steps, 40))
        assert run.alive() == round((1 - wanted) * POSITIONS)
        if run.model[0].weight.topology is not patterns[-1]:
            patterns.append(run.model[0].weight.topology)
    assert len(patterns) == 1 + 4  # at 10, 20, 30, and at the last update, 32
    assert plans_built() - before == 2 * 4
    assert run.model[0].nnz + run.model[2].nnz == 60


def test_held_weights_train_as_compressed_ones_do():
    recipe = recipes.agp(0.9, every=1, end=0.8)
    make = [Run(recipe, model=net(dtype=np.float64), **o) for o in ({"refresh_every": 7}, {})]
    held, compressed = (run.train(37) for run in make)
    for target, other in zip(held.sparsifier.targets, compressed.sparsifier.targets, strict=True):
        assert alive_topology(target) == alive_topology(other)
    for a, b in zip(held.weights(), compressed.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


def test_what_was_dropped_stays_at_zero_until_the_refresh():
    run = Run(recipes.agp(0.9, every=1, end=0.8), refresh_every=100)
    for _ in range(10):
        run.train(1)
        for target in run.sparsifier.targets:
            held = target.weight.buffers.get("held")
            if held is not None:
                assert (target.weight.data[held == 0] == 0).all()
                assert (target.weight.buffers["momentum"][held == 0] == 0).all()


def test_everything_is_compressed_after_the_last_step():
    recipe = recipes.agp(0.3, every=4, end=0.8)
    for options in ({"swap": Crossover(0.9)}, {"refresh_every": 1000}):
        run = Run(recipe, **options).train(40)
        assert run.model[0].nnz + run.model[2].nnz == 420
        assert all("held" not in t.weight.buffers for t in run.sparsifier.targets)


def test_swapping_keeps_layers_full_below_the_crossover_and_trains_the_same():
    recipe = recipes.agp(0.9, every=2, end=0.8)
    swapped = Run(recipe, model=net(dtype=np.float64), swap=Crossover(0.5, 0.05))
    plain = Run(recipe, model=net(dtype=np.float64))
    seen = set()
    for _ in range(39):
        swapped.train(1)
        plain.train(1)
        for target in swapped.sparsifier.targets:
            sparsity = 1 - alive_count(target) / target.size
            seen.add(target.topology.is_full)
            assert target.topology.is_full == (sparsity < 0.55)
    assert seen == {True, False}
    for a, b in zip(swapped.weights(), plain.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


def test_swapping_records_updates_only():
    run = Run(recipes.agp(0.3, every=8, end=0.8), swap=True).train(40)
    assert [record.step for record in run.sparsifier.history] == [0, 8, 16, 24, 32]


def test_growth_in_a_full_layer_gives_the_same_patterns_as_in_a_compressed_one():
    for recipe in (dynamic.granet(0.9, initial=0.2, every=3), dynamic.rigl(0.3, every=3)):
        runs = [
            Run(recipe, model=net(dtype=np.float64), **options).train(39)
            for options in ({"swap": Crossover(0.95, 0.0)}, {})
        ]
        assert runs[0].model[0].weight.topology.is_full
        for a, b in zip(*(run.sparsifier.targets for run in runs), strict=True):
            assert alive_topology(a) == alive_topology(b)
        for a, b in zip(*(run.weights() for run in runs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


# ---------------------------------------------------------------- the loop's side


def test_due_tells_beforehand_and_taps_are_set_for_due_steps_only():
    run = Run(dynamic.rigl(0.8, every=5, end=0.5))
    for step in range(1, 41):
        due = step in (5, 10, 15, 20)
        assert run.sparsifier.due == due
        assert run.sparsifier.replaces_step == (due and step < 20)  # f(20) = 0
        assert [t.layer.taps for t in run.sparsifier.targets] == ([[], []] if due else [None] * 2)
        run.train(1)
    assert not run.sparsifier.due


def test_methods_that_only_prune_replace_no_step():
    run = Run(recipes.agp(0.9, every=1, end=0.8))
    assert run.sparsifier.due
    assert not run.sparsifier.replaces_step


def test_more_steps_than_announced_are_refused():
    run = Run(AGP).train(40)
    with pytest.raises(ValueError, match="at most total_steps=40 calls"):
        run.sparsifier.step()


def test_an_update_that_fails_can_be_made_again():
    run = Run(dynamic.rigl(0.8, every=5)).train(4)
    before = run.weights()
    with pytest.raises(ValueError, match="layer '0' had no backward pass in step 5"):
        run.sparsifier.step()
    for a, b in zip(before, run.weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    run.train(1)
    assert run.sparsifier.steps == 5


def test_the_report_counts_dead_neurons_overlap_and_what_was_explored():
    run = Run(dynamic.set_(0.9, every=5), model=net(0.9))
    first = [t.topology for t in run.sparsifier.targets]
    seen = list(first)
    for _ in range(40):
        run.train(1)
        seen = [s | t.topology for s, t in zip(seen, run.sparsifier.targets, strict=True)]
    report = run.sparsifier.report()
    for layer, target, f, s in zip(report.layers, run.sparsifier.targets, first, seen, strict=True):
        dense = target.topology.to_dense()
        assert layer.nnz == dense.sum()
        assert layer.dead == (dense.sum(axis=1) == 0).sum()
        assert layer.overlap == (dense & f.to_dense()).sum() / f.nnz
        assert layer.explored == s.nnz / target.size
        assert layer.density == dense.mean()
    assert report.nnz == 60
    assert report.sparsity == pytest.approx(0.9)
    assert report.explored == sum(s.nnz for s in seen) / POSITIONS
    assert report.updates == len(run.sparsifier.history) - 1  # the first made the start
    assert report.pruning > 0
    assert report.refreshing > 0
    assert "sparsity 0.9000" in str(report)
    assert str(report).count("\n") == 3


def test_skipped_layers_and_shared_layers():
    shared = nn.SparseLinear(24, 24, density=1, rng=0)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.SparseLinear(24, 6, density=1))
    run = Run(recipes.magnitude(0.5), model=model, skip=["4"])
    assert [target.name for target in run.sparsifier.targets] == ["0"]
    assert (shared.nnz, model[4].nnz) == (288, 144)


# ---------------------------------------------------------------- refusals


def no_growth(sparsity):
    return Recipe("r", criteria.magnitude, sparsity, Every(5))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m, o: Sparsifier(m.parameters(), o, AGP, 40), TypeError, "expects a model"),
        (lambda m, o: Sparsifier(m, list(m.parameters()), AGP, 40), TypeError, "an optimizer"),
        (lambda m, o: Sparsifier(m, o, recipes.agp, 40), TypeError, "Call it with a sparsity"),
        (lambda m, o: Sparsifier(m, o, AGP, 0), ValueError, "total_steps.*>= 1; got 0"),
        (lambda m, o: Sparsifier(m, o, AGP, 4.5), ValueError, "total_steps.*>= 1; got 4.5"),
        (lambda m, o: Sparsifier(m, o, AGP, 40, refresh_every=0), ValueError, "refresh_every"),
        (lambda m, o: Sparsifier(m, o, AGP, 40, rng=-1), ValueError, "rng as a seed"),
        (lambda m, o: Sparsifier(m, o, AGP, 40, skip=["1"]), ValueError, r"skip names \['1'\]"),
        (
            lambda m, o: Sparsifier(nn.mlp([3, 2], rng=0), o, AGP, 40),
            ValueError,
            "no sparse layers",
        ),
        (lambda m, o: Sparsifier(net(), o, AGP, 40), ValueError, "make the optimizer afterwards"),
        (
            lambda m, o: Sparsifier(m, o, recipes.magnitude(1.0), 40),
            ValueError,
            "magnitude: sparsity 1 leaves 0 of 600 weights for 2 layers",
        ),
        (
            lambda m, o: Sparsifier(m, o, dynamic.rigl(0.999, every=5), 40),
            ValueError,
            "leaves 1 of 600 weights",
        ),
        (lambda m, o: Sparsifier(m, o, recipes.snip(0.5), 40), ValueError, "snip needs data: pass"),
        (lambda m, o: Sparsifier(m, o, recipes.obd(0.5), 40), ValueError, "obd needs data: pass"),
        (
            lambda m, o: Sparsifier(m, o, no_growth(linear(0.9, 0.5)), 40),
            ValueError,
            "r: the schedule of sparsity falls from 0.9 to 0.85",
        ),
        (
            lambda m, o: Sparsifier(m, o, dynamic.rigl(0.8, every=100), 40),
            ValueError,
            "no update is due: every=100 steps",
        ),
        (
            lambda m, o: Sparsifier(m, o, recipes.iterative(0.8, rewind=0.5), 40),
            ValueError,
            "rewind=0.5 is not before the first update, at step 16 of 40",
        ),
        (lambda m, o: Sparsifier(m, o, recipes.agp(95), 40), ValueError, r"in \[0, 1\]"),
    ],
)
def test_arguments_that_do_not_fit_are_named(make, error, message):
    model = net()
    with pytest.raises(error, match=message):
        make(model, sgd(model))


def test_a_model_that_is_sparser_than_a_pruning_recipe_ends_is_refused():
    model = net(0.95)
    with pytest.raises(ValueError, match=r"hold 30 of 600 weights.*cannot bring them to 0.9"):
        Sparsifier(model, sgd(model), AGP, 40)


def test_a_schedule_that_begins_below_the_models_sparsity_waits():
    run = Run(recipes.agp(0.9, every=4, end=0.8), model=net(0.7))
    counts = [sum(record.counts) for record in run.train(40).sparsifier.history]
    assert counts[0] == 180
    assert counts[-1] == 60


def test_growth_by_momentum_is_refused_without_it_before_anything_changes():
    model = net()
    with pytest.raises(ValueError, match=r"snfs shares out .* momentum, and SGD keeps none"):
        Run(
            dynamic.snfs(0.8, every=3),
            model=model,
            optimizer=lambda m: optim.SGD(m.parameters(), lr=0.1),
        )
    assert model[0].nnz == 480


def test_momentum_that_is_no_number_is_refused_where_it_is():
    run = Run(dynamic.snfs(0.8, every=3)).train(2)
    run.model[2].weight.buffers["momentum"][0] = np.nan
    with pytest.raises(ValueError, match="the momentum of layer '2' is not finite"):
        run.train(1)


def test_a_frozen_layer_that_is_to_grow_is_to_be_skipped():
    run = Run(dynamic.rigl(0.8, every=3)).train(1)
    run.model[0].weight.requires_grad = False
    with pytest.raises(ValueError, match=r"layer '0'.*requires_grad is False.*skip=\['0'\]"):
        run.train(2)


def test_neurons_of_a_model_without_hidden_layers_are_none():
    model = prunable(nn.mlp([24, 6], rng=0))
    with pytest.raises(ValueError, match="'0' is the only layer: its neurons are the outputs"):
        Run(recipes.neurons(0.5), model=model).train(40)


@pytest.mark.parametrize("total", [100, 103])
def test_the_group_lasso_acts_until_the_step_of_its_update(total):
    # 0.5 · 103 is 51.5: the update is at 52, and has to see what the proximal step of 52 leaves.
    run = Run(recipes.group_lasso(0.02), total, optimizer=lambda m: optim.SGD(m.parameters(), 0.5))
    run.train(total)
    [record] = run.sparsifier.history
    assert record.step == round(0.5 * total)
    assert record.counts[0] < 0.6 * 480


def test_a_schedule_whose_ends_are_equal_begins_where_it_ends():
    # (1 - p) · 0.9 + p · 0.9 may be rounded, and 2.5 weights then to 2 or to 3.
    model = prunable(nn.mlp([5, 5], rng=0))
    recipe = recipes.agp(0.9, initial=0.9, every=1, end=1.0)
    sparsifier = Sparsifier(model, sgd(model), recipe, 20)
    assert sparsifier.report().nnz == model[0].nnz == 2


class Failing:
    """A criterion that fails when it is called for the n-th time, once."""

    def __init__(self, n):
        self.n = n

    def __call__(self, context):
        self.n -= 1
        if self.n == 0:
            raise ValueError("mend me")
        return criteria.magnitude(context)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("r", None, linear(0.0, 0.9), At((0.25, 0.5)), rounds=5),
        Recipe("r", None, linear(0.0, 0.9), At((0.25, 0.5)), effects=(GroupLasso(0.5),)),
        Recipe("r", None, linear(0.0, 0.9), At((0.25, 0.5)), rewind=0.1),
    ],
    ids=["rounds", "effects", "rewind"],
)
def test_what_an_update_did_before_it_failed_is_undone(recipe):
    sound = dataclasses.replace(recipe, criterion=criteria.magnitude)
    fails = dataclasses.replace(recipe, criterion=Failing(4 if recipe.rounds > 1 else 1))
    run, whole = Run(fails), Run(sound).train(40)
    for _ in range(40):
        loss = LOSS(run.model(X), Y)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        before, steps = run.weights(), run.sparsifier.steps
        try:
            run.sparsifier.step()
        except ValueError:
            assert run.sparsifier.steps == steps
            for a, b in zip(before, run.weights(), strict=True):
                np.testing.assert_array_equal(a, b)
            run.sparsifier.step()
    assert run.sparsifier.recipe.criterion.n < 0  # it did fail
    same(run, whole)
    for ours, theirs in zip(run.sparsifier.history, whole.sparsifier.history, strict=True):
        assert (ours.step, ours.counts) == (theirs.step, theirs.counts)
    assert run.sparsifier.report().layers == whole.sparsifier.report().layers


def test_the_report_counts_updates_without_refreshes_and_without_the_start():
    run = Run(recipes.agp(0.9, every=10, end=0.8), refresh_every=3).train(40)
    assert [record.step for record in run.sparsifier.history] == [0, 10, 12, 20, 21, 30]
    assert run.sparsifier.report().updates == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("steps"), "lacks 'steps'"),
        (lambda s: s.update(total_steps=50), "from step 12 of 50; this training has"),
        (lambda s: s.update(steps=41), "from step 41 of 40"),
        (lambda s: s.update(other=1), r"no place for \['other'\]"),
        (lambda s: s.update({"0.weight.held": np.ones(3, np.float32)}), "0.weight.held of shape"),
        (lambda s: s.update({"first.0.indptr": np.zeros(3)}), "first of layer '0'"),
        (lambda s: s.update({"history.counts": np.zeros((1, 2))}), "history of shapes"),
    ],
)
def test_a_damaged_state_is_refused_and_nothing_changes(damage, message):
    run = Run(RESUMABLE["held"][0], refresh_every=10).train(12)
    state = run.sparsifier.state_dict()
    damage(state)
    before = run.weights()
    with pytest.raises(ValueError, match=message):
        run.sparsifier.load_state_dict(state)
    for a, b in zip(before, run.weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert run.sparsifier.steps == 12


def test_the_first_sparsity_may_be_no_schedule_at_all():
    assert Run(dataclasses.replace(AGP, sparsity=constant(0.5))).alive() == 300
