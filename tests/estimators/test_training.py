"""What a training does: randomness, weights of samples, stopping, going on, recipes, sparse input."""

import signal
import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_class_weight

import nnsparse as ns
from nnsparse import sparsify
from nnsparse.estimators import SparseMLPClassifier, SparseMLPRegressor
from nnsparse.estimators.monitor import Monitor
from nnsparse.estimators.network import used_sizes
from nnsparse.estimators.samples import Samples
from nnsparse.rows import rows_of

UNFINISHED = f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"
pytestmark = pytest.mark.filterwarnings(UNFINISHED)
RNG = np.random.default_rng(0)
N = 120
X = RNG.standard_normal((N, 20), np.float32)
Y = (X @ RNG.standard_normal((20, 3), np.float32)).argmax(axis=1)
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (40, 30),
    "batch_size": 32,
    "max_iter": 4,
    "random_state": 0,
    "learning_rate_init": 0.01,
}


def classifier(**settings: Any) -> SparseMLPClassifier:
    return SparseMLPClassifier(**{**SMALL, **settings})


def bits(model: Any) -> bytes:
    """Return all weights, positions included."""
    parts = [part for m in model.coefs_ for part in (m.indptr, m.indices, m.data)]
    return b"".join(part.tobytes() for part in [*parts, *model.intercepts_])


def topologies(model: Any) -> list[Any]:
    return [m.indices.tobytes() + m.indptr.tobytes() for m in model.coefs_]


# ---------------------------------------------------------------- randomness and dtype


def test_a_seed_gives_the_same_bits_on_any_number_of_threads() -> None:
    runs = []
    for threads in (1, 2):
        ns.set_num_threads(threads)
        runs.append(bits(classifier(early_stopping=True, recipe="rigl").fit(X, Y)))
    assert runs[0] == runs[1]
    assert runs[0] != bits(classifier(early_stopping=True, random_state=1).fit(X, Y))


def test_a_random_state_is_drawn_from_so_that_two_fits_differ() -> None:
    first, second = (np.random.RandomState(0) for _ in range(2))
    model, twin = classifier(random_state=first), classifier(random_state=second)
    assert bits(model.fit(X, Y)) == bits(twin.fit(X, Y))
    before = bits(model)
    assert bits(model.fit(X, Y)) == bits(twin.fit(X, Y)) != before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_model_computes_in_the_dtype_of_the_data(dtype: Any) -> None:
    x = X.astype(dtype)
    model = classifier().fit(x, Y)
    regressor = SparseMLPRegressor(**SMALL).fit(x, x[:, 0])
    assert model.model_.dtype == model.coefs_[0].dtype == dtype
    assert model.predict_proba(X).dtype == model.predict_log_proba(X).dtype == dtype
    assert regressor.predict(X).dtype == dtype


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array, sparse.coo_array])
def test_sparse_input_gives_what_dense_input_gives(container: Any) -> None:
    x = np.where(np.abs(X) > 1, X, 0)
    for model in (classifier(early_stopping=True), SparseMLPRegressor(**SMALL)):
        dense = model.fit(x, Y).coefs_
        found = model.fit(container(x), Y)
        for one, other in zip(dense, found.coefs_, strict=True):
            np.testing.assert_allclose(one.toarray(), other.toarray(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found._outputs(container(x)), found._outputs(x), atol=1e-5)


def test_sparse_input_stays_sparse() -> None:
    n, width = 400, 200_000  # 320 MB as an array
    columns = RNG.integers(0, width, (n, 10))
    x = sparse.csr_array(
        (np.ones(n * 10, np.float32), (np.repeat(np.arange(n), 10), columns.ravel())), (n, width)
    )
    y = columns[:, 0] > width // 2
    model = classifier(sparsity=0.99, max_iter=2)
    tracemalloc.start()
    model.fit(x, y).predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_samples_of_weight_zero_are_as_if_they_were_not_there() -> None:
    weight = np.random.default_rng(1).integers(0, 3, N).astype(float)
    kept = weight > 0
    choices: list[dict[str, Any]] = [{}, {"early_stopping": True}, {"class_weight": "balanced"}]
    for settings in choices:
        model = classifier(batch_size=16, **settings)
        with_zeros = bits(model.fit(X, Y, sample_weight=weight))
        assert with_zeros == bits(model.fit(X[kept], Y[kept], sample_weight=weight[kept]))
    only_one = np.where(Y == 1, weight, 0.0)
    model = classifier(batch_size="auto").fit(X, Y, sample_weight=only_one)
    assert model.classes_.tolist() == [1]
    assert set(model.predict(X)) == {1}
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((N, 1), np.float32))


def test_one_weight_for_all_changes_nothing() -> None:
    plain, weighed = (classifier(alpha=0).fit(X, Y, sample_weight=w) for w in (None, 3.0))
    for one, other in zip(plain.coefs_, weighed.coefs_, strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-4, atol=1e-6)


def test_class_weights_are_weights_of_the_samples() -> None:
    weight = np.random.default_rng(1).uniform(0.5, 2.0, N)
    asked = classifier(class_weight={1: 5.0}).fit(X, Y, sample_weight=weight)
    by_hand = classifier().fit(X, Y, sample_weight=np.where(Y == 1, 5.0, 1.0) * weight)
    assert bits(asked) == bits(by_hand)
    assert bits(asked) != bits(classifier().fit(X, Y, sample_weight=weight))


def test_a_class_of_weight_zero_stays_a_class() -> None:
    model = classifier(class_weight={2: 0.0}, max_iter=30).fit(X, Y)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.t_ == 30 * np.count_nonzero(Y != 2)
    assert 2 not in model.predict(X[Y == 0])


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=Y)
    asked = classifier(class_weight="balanced").fit(X, Y)
    by_hand = classifier(class_weight=dict(enumerate(balanced))).fit(X, Y)
    np.testing.assert_allclose(asked.predict_proba(X), by_hand.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize(
    "names", [["a", "b", "c"], [10, 5, 7], [2.0, 1.0, 0.0], np.array(["x", "yy", "z"], object)]
)
def test_labels_may_be_anything_that_sorts(names: Any) -> None:
    labels = np.asarray(names)[Y]
    model = classifier(max_iter=30, sparsity=0.3).fit(X, labels)
    assert model.score(X, labels) > 0.9
    assert model.classes_.tolist() == sorted(names)
    assert model.predict(X).dtype == labels.dtype


def test_several_labels_are_learned_each_by_itself() -> None:
    labels = (X[:, :4] > 0).astype(np.int8)
    settings: dict[str, Any] = {"max_iter": 60, "sparsity": 0.3}
    model = classifier(**settings).fit(X, labels)
    assert model.score(X, labels) > 0.8
    assert model.predict(X).dtype == np.int8
    assert model.predict_proba(X).shape == (N, 4)
    np.testing.assert_array_equal(model.predict_proba(X) > 0.5, model.predict(X))
    assert bits(model) == bits(classifier(**settings).fit(X, sparse.csr_matrix(labels)))
    early = classifier(early_stopping=True, **settings).fit(X, labels)
    assert early.best_validation_score_ == max(early.validation_scores_ or [])


# ---------------------------------------------------------------- how long


def test_training_ends_when_the_loss_no_longer_falls() -> None:
    model = classifier(max_iter=500, tol=1e-2, n_iter_no_change=3).fit(X, Y)
    assert 4 < model.n_iter_ < 500
    last = model.loss_curve_[-5:]
    assert min(last) > last[0] - 4 * 1e-2
    assert model.best_loss_ == min(model.loss_curve_)
    assert model.loss_ == model.loss_curve_[-1]
    assert model.t_ == model.n_iter_ * N


@pytest.mark.filterwarnings("default")
def test_training_that_is_cut_short_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter=4 epochs are over"):
        classifier().fit(X, Y)


@pytest.mark.parametrize("kind", [SparseMLPClassifier, SparseMLPRegressor])
def test_early_stopping_ends_with_the_best_weights(kind: Any) -> None:
    settings = {**SMALL, "early_stopping": True, "tol": 0.0, "validation_fraction": 0.2}
    model = kind(**{**settings, "max_iter": 60, "n_iter_no_change": 5}).fit(X, Y)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) < 60
    assert model.best_validation_score_ == max(scores)
    assert model.best_loss_ is None
    best = int(np.argmax(scores)) + 1
    assert best < model.n_iter_
    assert bits(model) == bits(kind(**{**settings, "max_iter": best}).fit(X, Y))


def test_early_stopping_holds_out_all_classes_alike() -> None:
    y = np.repeat([0, 1, 2], [80, 30, 10])
    model = classifier(early_stopping=True, max_iter=1)
    samples = Samples(rows_of(X), y, None)
    rest, held_out = samples.split(0.1, y, seed=0)
    assert np.bincount(held_out.targets).tolist() == [8, 3, 1]
    assert np.bincount(rest.targets).tolist() == [72, 27, 9]
    model.fit(X, y)
    assert model.t_ == 108


@pytest.mark.parametrize(
    ("y", "fraction"),
    [
        (np.arange(60) % 10, 0.1),  # 6 held out
        (np.arange(60) % 10, 0.9),  # 6 left
        (np.minimum(np.arange(60), 1), 0.1),  # a class that occurs once
    ],
    ids=["few held out", "few left", "a class of one"],
)
def test_early_stopping_takes_classes_that_cannot_all_be_held_out(y: Any, fraction: float) -> None:
    model = classifier(
        early_stopping=True, validation_fraction=fraction, max_iter=2, batch_size="auto"
    ).fit(X[:60], y)
    assert model.t_ == 2 * (60 - np.ceil(60 * fraction))
    assert model.classes_.tolist() == np.unique(y).tolist()


def test_the_adaptive_rate_is_divided_until_it_is_tiny() -> None:
    model = classifier(
        solver="sgd", learning_rate="adaptive", n_iter_no_change=1, tol=10.0, max_iter=100
    ).fit(X, Y)
    assert model._optimizer is not None
    assert model._optimizer.lr == pytest.approx(0.01 / 5**6)
    assert model.n_iter_ == 1 + 6 * 2 + 2


def test_ctrl_c_ends_the_training_and_keeps_what_was_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    after_epoch = Monitor.__call__

    def interrupt(self: Monitor, state: Any) -> None:
        after_epoch(self, state)
        if state.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Monitor, "__call__", interrupt)
    with pytest.warns(UserWarning, match="interrupted by Ctrl-C"):
        model = classifier(max_iter=50).fit(X, Y)
    assert model.n_iter_ == 2
    assert model.predict(X).shape == (N,)


# ---------------------------------------------------------------- going on


def test_epochs_by_partial_fit_are_those_of_one_fit() -> None:
    model = classifier(tol=0.0, n_iter_no_change=np.inf)
    whole = bits(model.fit(X, Y))
    parts = classifier()
    for _ in range(4):
        parts.partial_fit(X, Y, classes=[0, 1, 2])
    assert bits(parts) == whole
    assert parts.t_ == model.t_
    assert parts.loss_curve_ == model.loss_curve_
    assert parts.n_iter_ == 1


def test_a_warm_start_goes_on_and_a_cold_one_does_not() -> None:
    cold = classifier()
    assert bits(cold.fit(X, Y)) == bits(cold.fit(X, Y))
    warm = classifier(warm_start=True).fit(X, Y)
    model, before = warm.model_, topologies(warm)
    warm.fit(X, Y)
    assert warm.model_ is model
    assert topologies(warm) == before
    assert bits(warm) != bits(cold)
    assert len(warm.loss_curve_) == 8
    assert warm.n_iter_ == 4
    assert warm.loss_ < cold.loss_
    warm.set_params(early_stopping=True).fit(X, Y)
    assert len(warm.validation_scores_ or []) == 4


# ---------------------------------------------------------------- sparsity


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_the_network_has_the_sparsity_that_was_asked_for(distribution: str) -> None:
    size = 20 * 200 + 200 * 100 + 100 * 3
    for sparsity in (0.0, 0.5, 0.95):
        model = classifier(
            hidden_layer_sizes=(200, 100), sparsity=sparsity, distribution=distribution
        ).fit(X, Y)
        kept = sum(m.nnz for m in model.coefs_)
        assert kept == round((1 - sparsity) * size)
        assert model.sparsity_ == pytest.approx(1 - kept / size)
        assert [m.shape for m in model.coefs_] == [(20, 200), (200, 100), (100, 3)]


def test_a_small_network_wastes_no_weights_on_dead_ends() -> None:
    used, counts = used_sizes([2, 100, 1], 0.9, "erk")
    assert sum(counts) == 30
    assert used[1] < 20
    assert counts[1] == used[1]  # each neuron that is used is looked at
    x = RNG.uniform(-1, 1, (200, 2))
    model = SparseMLPRegressor(learning_rate_init=0.02, random_state=0, max_iter=600)
    assert model.fit(x, x[:, 0] - x[:, 1]).score(x, x[:, 0] - x[:, 1]) > 0.9
    assert model.sparsity_ == pytest.approx(0.9)
    assert used_sizes([1, 1, 1], 0.99, "uniform") == ([1, 1, 1], [1, 1])


RECIPES: dict[str, Any] = {
    "a name": "rigl",
    "a function": sparsify.set_,
    "a recipe": sparsify.rigl(0.8, every=3),
    "a recipe without a sparsity": sparsify.rigl(every=3),
    "pruning by name": "agp",
    "pruning with data": "snip",
    "pruning in rounds": sparsify.iterative,
    "masks": sparsify.top_kast(0.8, every=3),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_moves_or_makes_the_sparsity(recipe: Any) -> None:
    model = classifier(recipe=recipe, sparsity=0.8, max_iter=40, hidden_layer_sizes=(60, 60))
    if recipe is sparsify.set_:
        model.set_params(recipe=lambda sparsity: sparsify.set_(sparsity, every=5))
    model.fit(X, Y)
    assert model.sparsity_ == pytest.approx(0.8, abs=1e-3)
    assert model.score(X, Y) > 0.9
    static = classifier(sparsity=0.8, hidden_layer_sizes=(60, 60), max_iter=1).fit(X, Y)
    assert topologies(model) != topologies(static)
    after = topologies(model)
    model.set_params(warm_start=True, max_iter=2).fit(X, Y)  # the recipe is over
    assert topologies(model) == after


@pytest.mark.parametrize("name", ["set", "snfs", "srigl", "granet", "one_shot", "synflow"])
def test_a_recipe_by_name_suits_a_short_training(name: str) -> None:
    model = classifier(recipe=name, sparsity=0.7, max_iter=8).fit(X, Y)
    assert model.sparsity_ == pytest.approx(0.7, abs=1e-2)


@pytest.mark.parametrize(
    ("recipe", "least"),
    [("agp", 30), (sparsify.top_kast(0.8, every=3), 40), ("rigl", 1), ("iterative", 32)],
)
def test_training_does_not_end_before_the_last_sparsity(recipe: Any, least: int) -> None:
    for early in (False, True):
        model = classifier(
            recipe=recipe,
            sparsity=0.8,
            max_iter=40,
            tol=100.0,
            n_iter_no_change=1,
            early_stopping=early,
        ).fit(X, Y)
        assert least <= model.n_iter_ <= least + 3
        assert model.sparsity_ == pytest.approx(0.8, abs=1e-3)
