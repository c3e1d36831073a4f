"""Trainings that go on with a model: what they may not change, and that one that fails has changed nothing."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from nnsparse import sparsify
from nnsparse.estimators import SparseMLPClassifier, SparseMLPRegressor
from nnsparse.train import NonFiniteLossError

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"
)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 8), np.float32)
Y = (X @ RNG.standard_normal((8, 3), np.float32)).argmax(axis=1)
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (30,),
    "batch_size": 16,
    "max_iter": 4,
    "random_state": 0,
    "warm_start": True,
    "sparsity": 0.5,
}


def classifier(**settings: Any) -> SparseMLPClassifier:
    return SparseMLPClassifier(**{**SMALL, **settings})


def everything(model: Any) -> dict[str, Any]:
    """Return copies of all that a training changes."""
    opaque = "model_", "_optimizer", "_labels"
    named = dict(model.model_.named_parameters())
    arrays = {f"{name} {b}": np.array(a) for name, p in named.items() for b, a in p.buffers.items()}
    return {
        **{name: np.array(array) for name, array in model.model_.state_dict().items()},
        **{f"optimizer {k}": np.array(v) for k, v in model._optimizer.state_dict().items()},
        **arrays,
        **{k: copy.copy(v) for k, v in vars(model).items() if k not in opaque},
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# ---------------------------------------------------------------- all or nothing


def assert_a_failure_changes_nothing(model: Any, fail: Any, errors: Any) -> None:
    """Fail, look, and compare what the next epoch makes of it with what it makes of a twin that has not failed."""
    before, objects = everything(model), (model.model_, model._optimizer, model.loss_curve_)
    twin = copy.deepcopy(model)
    with np.errstate(all="ignore"), pytest.raises(errors):
        fail(model)
    assert_same(everything(model), before)
    assert objects == (model.model_, model._optimizer, model.loss_curve_)
    assert objects[0] is model.model_
    settings = {"early_stopping": False, "recipe": None}
    for one in (model, twin):
        one.set_params(**settings).partial_fit(X, Y)
    assert_same(everything(model), everything(twin))


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_warm_start_that_diverges_changes_nothing(solver: str, early: bool) -> None:
    model = classifier(solver=solver, early_stopping=early).fit(X, Y)
    model.set_params(solver="sgd", learning_rate_init=1e3, momentum=0.99, max_iter=500, alpha=1.0)
    model.set_params(n_iter_no_change=np.inf)
    assert_a_failure_changes_nothing(model, lambda m: m.fit(X, Y), (NonFiniteLossError, ValueError))


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_partial_fit_with_an_absurd_sample_changes_nothing(solver: str) -> None:
    model = classifier(solver=solver, shuffle=False).partial_fit(X, Y, classes=[0, 1, 2])
    absurd = X.copy()
    absurd[-1] = 3e38
    first = copy.deepcopy(model).partial_fit(X[:48], Y[:48])
    assert np.any(first.coefs_[0].data != model.coefs_[0].data)  # the batches before it do train
    assert_a_failure_changes_nothing(
        model, lambda m: m.partial_fit(absurd, Y), (NonFiniteLossError, ValueError)
    )


def test_what_a_recipe_keeps_with_the_weights_is_given_back_too() -> None:
    model = classifier(recipe=sparsify.top_kast(0.5, every=3)).fit(X, Y)
    model.set_params(solver="sgd", learning_rate_init=1e3, momentum=0.99, max_iter=500, alpha=1.0)
    model.set_params(n_iter_no_change=np.inf)
    assert_a_failure_changes_nothing(model, lambda m: m.fit(X, Y), (NonFiniteLossError, ValueError))


def test_a_warning_that_is_made_an_error_is_an_error_like_others() -> None:
    model = classifier().fit(X, Y)

    def fail(model: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.fit(X, Y)

    assert_a_failure_changes_nothing(model, fail, ConvergenceWarning)


def test_a_cold_start_that_diverges_leaves_the_old_model() -> None:
    model = classifier(warm_start=False).fit(X, Y)
    settings = {"solver": "sgd", "learning_rate_init": 1e30, "max_iter": 50}
    before = everything(model)
    model.set_params(**settings)
    with np.errstate(all="ignore"), pytest.raises((NonFiniteLossError, ValueError)):
        model.fit(X, Y)
    assert_same(everything(model), {**before, **settings})


# ---------------------------------------------------------------- other ways to end


def test_without_early_stopping_a_warm_start_looks_at_the_loss_again() -> None:
    for go_on in ("fit", "partial_fit"):
        model = classifier(early_stopping=True).fit(X, Y)
        assert model.best_loss_ is None
        epochs = model.n_iter_
        getattr(model.set_params(early_stopping=False), go_on)(X, Y)
        assert model.best_loss_ == min(model.loss_curve_[epochs:])
        assert model.best_validation_score_ is None


def test_the_adaptive_rate_falls_between_calls_of_partial_fit_as_in_scikit_learn() -> None:
    settings: dict[str, Any] = {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 0.01,
        "n_iter_no_change": 2,
        "tol": 10.0,
    }
    ours: Any = classifier(**settings)
    theirs: Any = MLPClassifier((30,), batch_size=16, random_state=0, **settings)
    rates = []
    for _ in range(12):
        for model in (ours, theirs):
            model.partial_fit(X, Y, classes=[0, 1, 2])
        rates.append(ours._optimizer.lr)
        assert rates[-1] == pytest.approx(theirs._optimizer.learning_rate)
    assert len(set(rates)) == 4


def test_a_warm_start_counts_the_epochs_without_progress_anew() -> None:
    model = classifier(n_iter_no_change=2, tol=10.0, max_iter=50)
    assert model.fit(X, Y).n_iter_ == 4  # the first is better than none
    assert model.fit(X, Y).n_iter_ == 3


# ---------------------------------------------------------------- what may not change


CHANGES = [
    ({"activation": "tanh"}, "activation='relu'", "'tanh'"),
    ({"sparsity": 0.8}, "sparsity=0.5", "0.8"),
    ({"distribution": "uniform"}, "distribution='erk'", "'uniform'"),
    ({"hidden_layer_sizes": (30, 30)}, "hidden_layer_sizes=(30,)", "(30, 30)"),
]


@pytest.mark.parametrize(("change", "was", "now"), CHANGES)
def test_another_model_is_not_gone_on_with(change: dict[str, Any], was: str, now: str) -> None:
    model = classifier().fit(X, Y).set_params(**change)
    expected = f"SparseMLPClassifier expects {was} of the model that it goes on with; got {now}. To"
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            go_on(X, Y)
        assert str(error.value).startswith(expected)
    anew = model.set_params(warm_start=False).fit(X, Y)
    fresh = classifier(**change).fit(X, Y)
    np.testing.assert_array_equal(anew.predict_proba(X), fresh.predict_proba(X))
    anew.set_params(warm_start=True).fit(X, Y)  # the settings are now those of this model


@pytest.mark.parametrize("recipe", ["agp", sparsify.rigl(0.7, every=3)])
def test_the_sparsity_to_keep_is_what_was_asked_for_not_what_a_recipe_made(recipe: Any) -> None:
    model = classifier(recipe=recipe, sparsity=0.6, max_iter=8).fit(X, Y)
    kept = model.sparsity_
    assert model.fit(X, Y).sparsity_ == kept
    assert model.set_params(recipe=None, hidden_layer_sizes=30).partial_fit(X, Y).sparsity_ == kept
    with pytest.raises(ValueError, match=r"sparsity=0\.6 of the model that it goes on with"):
        model.set_params(sparsity=0.7).fit(X, Y)


def test_the_dtype_of_the_first_fit_stays_and_fewer_classes_are_enough() -> None:
    model = classifier().fit(X, Y)
    some = Y != 2
    model.fit(X[some].astype(np.float64), Y[some])
    assert model.model_.dtype == np.float32
    assert model.predict_proba(X).shape == (60, 3)


def test_several_labels_do_not_follow_on_one_nor_the_reverse() -> None:
    labels = np.eye(3, dtype=int)[Y]
    for targets in (Y, Y > 0):
        model = classifier().fit(X, targets)
        with pytest.raises(ValueError, match=r"one class per sample, \(n,\).*got \(60, 3\)"):
            model.fit(X, labels)
    with pytest.raises(ValueError, match=r"indicator of 3 labels as in the first fit; got \(60,\)"):
        classifier().fit(X, labels).fit(X, Y)


def test_classes_of_another_type_are_refused_in_plain_words() -> None:
    model = classifier().fit(X, Y)
    for other in ("a", None):
        odd = np.where(Y == 2, other, Y.astype(object))
        with pytest.raises(ValueError, match=r"expected y with the classes \[0 1 2\].*got also"):
            model.fit(X, odd)


def test_an_absurd_target_changes_no_regressor() -> None:
    model = SparseMLPRegressor(**SMALL).fit(X, X[:, 0])
    before = everything(model)
    target = X[:, 0].astype(np.float64)
    target[7] = 1e300
    with np.errstate(all="ignore"), pytest.raises((NonFiniteLossError, ValueError)):
        model.partial_fit(X, target)
    assert_same(everything(model), before)
