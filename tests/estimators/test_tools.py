"""The estimators within scikit-learn's tools: pipelines, searches, copies, files, other processes."""

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

import nnsparse as ns
from nnsparse import sparsify
from nnsparse.estimators import SparseMLPClassifier, SparseMLPRegressor

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"
)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((150, 8), np.float32)
Y = (X[:, 0] > X[:, 1]).astype(int)


def classifier(**settings: Any) -> SparseMLPClassifier:
    given = {"hidden_layer_sizes": 40, "learning_rate_init": 0.02, "max_iter": 30, **settings}
    return SparseMLPClassifier(random_state=0, **given)


def test_the_tags_say_what_the_estimators_can_do() -> None:
    assert is_classifier(classifier())
    assert is_regressor(SparseMLPRegressor())
    for model in (classifier(), SparseMLPRegressor()):
        tags = model.__sklearn_tags__()
        assert tags.input_tags.sparse
        assert tags.target_tags.multi_output
        assert not tags.non_deterministic
    tags = classifier().__sklearn_tags__()
    assert tags.classifier_tags.multi_label
    assert not tags.classifier_tags.poor_score
    assert not SparseMLPRegressor().__sklearn_tags__().regressor_tags.poor_score


def test_attributes_are_missing_before_fit() -> None:
    model = classifier()
    for name in ("coefs_", "intercepts_", "sparsity_"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(model, name)


RECIPES = ["rigl", sparsify.random, sparsify.rigl(0.8, every=7), None]


@pytest.mark.parametrize("recipe", RECIPES, ids=["name", "function", "recipe", "none"])
def test_a_clone_and_a_pickle_have_the_same_arguments(recipe: Any) -> None:
    model = classifier(recipe=recipe, class_weight={0: 2.0})
    copies = clone(model), pickle.loads(pickle.dumps(model))
    for copy in copies:
        assert copy.get_params() == model.get_params()
    fitted = [copy.fit(X, Y).predict_proba(X) for copy in (model, *copies)]
    np.testing.assert_array_equal(fitted[0], fitted[1])
    np.testing.assert_array_equal(fitted[0], fitted[2])


@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_a_fitted_estimator_comes_back_from_a_file_and_goes_on(
    mmap_mode: Any, tmp_path: Path
) -> None:
    model = classifier().partial_fit(X, Y, classes=[0, 1])
    joblib.dump(model, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode=mmap_mode)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for one in (model, loaded):
        one.partial_fit(X, Y)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_a_pipeline_takes_sparse_input_and_weights() -> None:
    x = sparse.csr_array(np.where(np.abs(X) > 0.5, X, 0))
    pipeline = make_pipeline(MaxAbsScaler(), classifier(max_iter=100))
    weight = RNG.uniform(0.5, 1.5, len(Y))
    pipeline.fit(x, Y, sparsemlpclassifier__sample_weight=weight)
    assert pipeline.score(x, Y) > 0.8
    scores = cross_val_score(pipeline, x, Y, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.7


# Two processes with their own threads; two Python threads that share ours.
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_search_in_parallel_finds_what_one_in_turn_finds(backend: str) -> None:
    grid = {"sparsity": [0.5, 0.9], "recipe": [None, "rigl"]}
    searches = {}
    for n_jobs in (1, 2):
        with joblib.parallel_config(backend=backend):
            search = GridSearchCV(classifier(max_iter=15), grid, cv=2, n_jobs=n_jobs)
            searches[n_jobs] = search.fit(X, Y)
    one, two = (search.cv_results_["mean_test_score"] for search in searches.values())
    np.testing.assert_array_equal(one, two)
    assert searches[2].best_params_ == searches[1].best_params_
    np.testing.assert_array_equal(searches[1].predict_proba(X), searches[2].predict_proba(X))


def test_several_columns_of_classes_take_several_estimators() -> None:
    columns = np.column_stack([Y, np.arange(len(Y)) % 3])
    model = MultiOutputClassifier(classifier(max_iter=2)).fit(X, columns)
    assert model.predict(X).shape == columns.shape


def test_the_model_goes_on_without_the_estimator() -> None:
    model = classifier(sparsity=0.5).fit(X, Y)
    frozen = ns.compile(model.model_)
    np.testing.assert_allclose(frozen.predict(X)[:, 0] > 0, model.predict(X) == 1)
    assert "values" in str(ns.memory_report(model.model_))


def test_a_regressor_learns_in_a_pipeline() -> None:
    y = np.column_stack([X[:, 0] + X[:, 1], X[:, 2] * 2])
    model = make_pipeline(
        StandardScaler(),
        SparseMLPRegressor(100, learning_rate_init=0.02, sparsity=0.5, random_state=0),
    )
    assert model.fit(X, y).score(X, y) > 0.95
    assert model.predict(X).shape == y.shape
    single = model.fit(X, y[:, 0]).predict(X)
    assert single.shape == (150,)
