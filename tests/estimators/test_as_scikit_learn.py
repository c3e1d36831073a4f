"""Dense networks take the steps of scikit-learn's MLPs: objective, penalty, weights, solvers."""

from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from nnsparse.estimators import SparseMLPClassifier, SparseMLPRegressor
from nnsparse.estimators.network import affine

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"
)
N, FEATURES = 50, 6  # the last of the mini-batches is smaller
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, FEATURES))
CLASSES = (X @ RNG.standard_normal((FEATURES, 3))).argmax(axis=1)
TARGETS = {
    "multiclass": CLASSES,
    "binary": CLASSES > 0,
    "multilabel": (X[:, :3] > 0).astype(int),
    "one output": X[:, 0] * X[:, 1],
    "two outputs": np.column_stack([X[:, 0] * X[:, 1], X[:, 2]]),
}
SOLVERS: dict[str, dict[str, Any]] = {
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.05},
    "momentum": {"solver": "sgd", "learning_rate_init": 0.05, "nesterovs_momentum": False},
    "plain": {"solver": "sgd", "learning_rate_init": 0.05, "momentum": 0.0},
    "adam": {"solver": "adam", "learning_rate_init": 0.01, "epsilon": 1e-12},
}


def fitted_alike(
    kind: str, weight: np.ndarray[Any, Any] | None = None, **settings: Any
) -> tuple[Any, Any]:
    """Return ours and theirs, trained for 5 epochs from the same weights."""
    shared = {"batch_size": 16, "shuffle": False, "warm_start": True, "max_iter": 1, **settings}
    regression = "output" in kind
    theirs = (MLPRegressor if regression else MLPClassifier)(
        hidden_layer_sizes=(7, 5), random_state=1, **shared
    )
    ours: Any = (SparseMLPRegressor if regression else SparseMLPClassifier)(
        (7, 5), random_state=1, sparsity=0.0, **shared
    )
    for model in (theirs, ours):
        model.fit(X, TARGETS[kind])
    for layer, coefs, intercepts in zip(
        affine(ours.model_), theirs.coefs_, theirs.intercepts_, strict=True
    ):
        layer.weight.data[...] = coefs.T
        layer.bias.data[...] = intercepts
    for model in (theirs, ours):
        model.set_params(max_iter=5).fit(X, TARGETS[kind], sample_weight=weight)
    return ours, theirs


def assert_alike(ours: Any, theirs: Any) -> None:
    for mine, coefs in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(mine.toarray(), coefs, rtol=1e-7, atol=1e-9)
    for biases, intercepts in zip(ours.intercepts_, theirs.intercepts_, strict=True):
        np.testing.assert_allclose(biases, intercepts, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_take_the_same_steps(solver: str) -> None:
    ours, theirs = fitted_alike("multiclass", **SOLVERS[solver])
    assert_alike(ours, theirs)
    np.testing.assert_allclose(ours.loss_curve_[1:], theirs.loss_curve_[1:], rtol=1e-7)


@pytest.mark.parametrize("kind", TARGETS)
def test_losses_and_penalty_have_the_same_scale(kind: str) -> None:
    ours, theirs = fitted_alike(kind, alpha=2.0, **SOLVERS["nesterov"])
    assert_alike(ours, theirs)
    assert (ours.n_outputs_, ours.out_activation_, ours.n_layers_, ours.n_iter_, ours.t_) == (
        theirs.n_outputs_,
        theirs.out_activation_,
        theirs.n_layers_,
        theirs.n_iter_,
        theirs.t_,
    )
    if kind != "two outputs":  # whose loss they report as a mean, and minimise as a sum
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-7)
        assert ours.best_loss_ == pytest.approx(min(ours.loss_curve_))


@pytest.mark.parametrize("kind", ["multiclass", "binary", "two outputs"])
def test_sample_weights_mean_the_same(kind: str) -> None:
    weight = np.random.default_rng(1).uniform(0.1, 3.0, N)
    ours, theirs = fitted_alike(kind, weight, alpha=0.5, **SOLVERS["adam"])
    assert_alike(ours, theirs)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh"])
def test_activations_are_the_same(activation: str) -> None:
    ours, theirs = fitted_alike("multiclass", activation=activation, **SOLVERS["nesterov"])
    assert_alike(ours, theirs)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)


def test_predictions_are_the_same() -> None:
    for kind in TARGETS:
        ours, theirs = fitted_alike(kind, **SOLVERS["nesterov"])
        predicted, expected = ours.predict(X), theirs.predict(X)
        if "output" in kind:
            np.testing.assert_allclose(predicted, expected, atol=1e-9)
            continue
        np.testing.assert_array_equal(predicted, expected)
        probabilities = theirs.predict_proba(X)
        np.testing.assert_allclose(ours.predict_proba(X), probabilities, rtol=1e-6)
        np.testing.assert_allclose(ours.predict_log_proba(X), np.log(probabilities), rtol=1e-6)


@pytest.mark.parametrize("schedule", ["invscaling", "adaptive"])
def test_learning_rates_fall_alike(schedule: str) -> None:
    settings = {"solver": "sgd", "learning_rate": schedule, "learning_rate_init": 0.05}
    ours, theirs = fitted_alike("multiclass", n_iter_no_change=1, tol=10.0, momentum=0, **settings)
    assert ours._optimizer.lr == pytest.approx(theirs._optimizer.learning_rate)
    assert ours._optimizer.lr < 0.05
    assert_alike(ours, theirs)
