"""Bad arguments and bad data, with the message that a user sees."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from nnsparse import sparsify
from nnsparse.estimators import SparseMLPClassifier, SparseMLPRegressor
from nnsparse.train import NonFiniteLossError

X = np.random.default_rng(0).standard_normal((20, 4))
Y = np.arange(20) % 3
NAN = np.where(np.eye(20, 4) > 0, np.nan, X)

ARGUMENTS: list[tuple[str, Any, str]] = [
    ("hidden_layer_sizes", (100, 0), "an integer >= 1 or a sequence of them, one per layer"),
    ("hidden_layer_sizes", 2.5, "an integer >= 1 or a sequence"),
    ("hidden_layer_sizes", "100", "an integer >= 1 or a sequence"),
    ("activation", "gelu", "'identity', 'logistic', 'tanh' or 'relu'"),
    ("solver", "lbfgs", "'sgd' or 'adam'; got 'lbfgs'. Small data?"),
    ("alpha", -1e-4, "a number >= 0; got -0.0001"),
    ("alpha", float("nan"), "a number >= 0; got nan"),
    ("batch_size", 0, "'auto' or an integer >= 1; got 0"),
    ("batch_size", "all", "'auto' or an integer >= 1; got 'all'"),
    ("learning_rate", "cosine", "'constant', 'invscaling' or 'adaptive'"),
    ("learning_rate_init", 0.0, "a number > 0; got 0.0"),
    ("power_t", -1, "a number >= 0"),
    ("max_iter", 0, "an integer >= 1; got 0"),
    ("max_iter", 10.0, "an integer >= 1; got 10.0"),
    ("shuffle", "yes", "True or False; got 'yes'"),
    ("tol", -1.0, "a number >= 0"),
    ("verbose", "loud", "True, False or an integer >= 0"),
    ("warm_start", 1, "True or False; got 1"),
    ("momentum", 1.0, "a number from 0 to below 1; got 1.0"),
    ("nesterovs_momentum", None, "True or False; got None"),
    ("early_stopping", "auto", "True or False; got 'auto'"),
    ("validation_fraction", 0.0, "a number between 0 and 1; got 0.0"),
    ("beta_1", 1.0, "a number from 0 to below 1"),
    ("beta_2", -0.1, "a number from 0 to below 1"),
    ("epsilon", 0.0, "a number > 0"),
    ("n_iter_no_change", 0, "an integer >= 1 or np.inf"),
    ("sparsity", 1.0, "the fraction of weights that are zero, from 0 to below 1; got 1.0."),
    ("sparsity", 95, "got 95. A percentage? Divide by 100."),
    ("sparsity", None, "the fraction of weights that are zero"),
    ("distribution", "er", "'erk' or 'uniform'; got 'er'"),
    ("recipe", "riggle", "what it returns, or one of set, rigl, "),
    ("recipe", 0.9, "None, a function of nnsparse.sparsify such as sparsify.rigl"),
    ("class_weight", "uniform", "None, 'balanced' or a dict {label: weight}"),
    ("random_state", "zero", "cannot be used to seed"),
]


@pytest.mark.parametrize(("name", "value", "message"), ARGUMENTS)
def test_an_argument_that_makes_no_sense_is_refused_by_fit(
    name: str, value: Any, message: str
) -> None:
    model = SparseMLPClassifier(**{name: value})
    with pytest.raises(ValueError) as error:  # noqa: PT011
        model.fit(X, Y)
    assert message in str(error.value)
    assert name in str(error.value) or name == "random_state"


DATA: list[tuple[str, dict[str, Any], str]] = [
    ("a wrong length", {"y": Y[:-1]}, "inconsistent numbers of samples"),
    ("NaN", {"X": NAN}, "Input X contains NaN"),
    ("one dimension", {"X": X[0]}, "Expected 2D array, got 1D array"),
    ("no samples", {"X": X[:0], "y": Y[:0]}, "Found array with 0 sample"),
    ("complex numbers", {"X": X + 1j}, "Complex data not supported"),
    ("continuous classes", {"y": X[:, 0]}, "Unknown label type: continuous"),
    ("several classes", {"y": np.column_stack([Y, Y])}, "Fit one estimator per column"),
    ("short weights", {"sample_weight": np.ones(3)}, "one sample_weight per sample, (20,)"),
    ("negative weights", {"sample_weight": Y - 1.0}, "at least 0; got -1.0 at index 0"),
    ("infinite weights", {"sample_weight": np.full(20, np.inf)}, "finite and at least 0"),
    ("no weights", {"sample_weight": np.zeros(20)}, "all 20 weights are zero"),
    (
        "ragged weights",
        {"sample_weight": [[1], [1, 2]] * 10},
        "one sample_weight per sample, (20,); got sequences of",
    ),
    ("labels of -1 and 1", {"y": 2 * np.eye(3)[Y] - 1}, "indicators of 0 and 1 as y (20, 3)"),
    ("labels of 1 and 2", {"y": np.eye(3, dtype=int)[Y] + 1}, "one column per label; got also 2. "),
    ("weights in words", {"sample_weight": ["a"] * 20}, "real numbers as sample_weight"),
]


@pytest.mark.parametrize(("data", "message"), [d[1:] for d in DATA], ids=[d[0] for d in DATA])
def test_data_that_make_no_sense_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        SparseMLPClassifier(max_iter=1).fit(**{"X": X, "y": Y, **data})
    assert message in str(error.value)


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"class_weight": {7: 1.0}}, "keys of class_weight among the classes [0 1 2]; got 7"),
    ({"class_weight": {0: -1.0}}, "got -1.0 for class 0"),
    ({"class_weight": {0: 0, 1: 0, 2: 0}}, "class_weight makes all of them zero"),
    (
        {"early_stopping": True, "validation_fraction": 0.01},
        "two samples or more for training and for validation; 0.01 of 20 samples is 1",
    ),
    ({"recipe": lambda sparsity: sparsity}, "a function that returns a Recipe for a sparsity"),
    ({"recipe": sparsify.rigl(0.9, every=10**6)}, "no update is due"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_settings_that_do_not_suit_the_data_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        SparseMLPClassifier(max_iter=2, **settings).fit(X, Y)
    assert message in str(error.value)


@pytest.mark.parametrize("weights", [{0: "much"}, {0: None}, {0: [1.0]}, {(0, 1): 1.0}, {7: 1.0}])
def test_a_fit_that_is_refused_leaves_the_model_of_before(weights: dict[Any, Any]) -> None:
    model = SparseMLPClassifier(max_iter=20, n_iter_no_change=1, tol=1.0, random_state=0)
    expected = model.fit(X, Y).predict_proba(X)
    names = np.array(["c", "b"])[Y % 2]
    model.set_params(class_weight=weights)
    with pytest.raises(ValueError, match=r"class_weight(;| among) "):
        model.fit(X[:, :3], names)
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_class_weights_are_not_for_several_labels() -> None:
    labels = np.column_stack([Y > 0, Y > 1]).astype(int)
    with pytest.raises(ValueError, match="class_weight=None for multi-label targets"):
        SparseMLPClassifier(class_weight="balanced").fit(X, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping": True}, "partial_fit expects early_stopping=False"),
        ({"recipe": "rigl"}, "partial_fit expects recipe=None"),
        ({"class_weight": "balanced"}, "partial_fit expects class_weight as a dict"),
    ],
)
def test_partial_fit_refuses_what_needs_all_data(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseMLPClassifier(**settings).partial_fit(X, Y, classes=[0, 1, 2])


def test_partial_fit_asks_for_the_classes_first_and_then_keeps_to_them() -> None:
    model = SparseMLPClassifier()
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, Y)
    model.partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y, classes=[2, 1, 0])
    with pytest.raises(ValueError, match=r"expects classes=\[0 1 2\] as before"):
        model.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"expected y with the classes \[0 1 2\].*got also \[5\]"):
        model.partial_fit(X, np.where(Y > 1, 5, Y))
    with pytest.raises(
        ValueError, match="X has 3 features, but SparseMLPClassifier is expecting 4"
    ):
        model.partial_fit(X[:, :3], Y)
    labels = SparseMLPClassifier().partial_fit(X, np.eye(3, dtype=int)[Y], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="indicator of 3 labels as in the first fit"):
        labels.partial_fit(X, Y)


@pytest.mark.parametrize(
    ("classes", "shown"),
    [
        ([[0], [1, 2]], "[[0], [1, 2]]"),
        ([[0, 1], [2, 3]], "[[0, 1], [2, 3]]"),
        ([0, None], "[0, None]"),
        ([0, "a"], "[0, 'a']"),
        ([0, 1, float("nan")], "[0, 1, nan]"),
        (3, "3"),
        ({0, 1, 2}, "{0, 1, 2}"),
        (list(range(99)) + [None], "[0, 1, 2, 3, 4, 5, ...]"),
    ],
)
def test_classes_that_are_no_sequence_of_labels_are_refused(classes: Any, shown: str) -> None:
    for model in (
        SparseMLPClassifier(),
        SparseMLPClassifier(max_iter=1, tol=1.0).partial_fit(X, Y, classes=[0, 1, 2]),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            model.partial_fit(X, Y, classes=classes)
        assert str(error.value) == (
            "SparseMLPClassifier.partial_fit expects classes as a sequence (n_classes,) of labels of one type, all "
            f"numbers or all strings; got {shown}."
        )


def test_indicators_stay_zero_and_one() -> None:
    labels = np.eye(3, dtype=int)[Y]
    model = SparseMLPClassifier().partial_fit(X, labels, classes=[0, 1, 2])
    for wrong in (2 * labels - 1, 0.5 * labels, np.where(labels, "yes", "no")):
        with pytest.raises(ValueError, match=r"indicators of 0 and 1 as y \(20, 3\)"):
            model.partial_fit(X, wrong)


def test_going_on_needs_the_same_shape() -> None:
    model = SparseMLPRegressor(max_iter=1, warm_start=True).partial_fit(X, X[:, 0])
    with pytest.raises(ValueError, match="y with 1 outputs, as in the first fit; got 2"):
        model.partial_fit(X, X[:, :2])
    with pytest.raises(
        ValueError,
        match=r"hidden_layer_sizes=\(100,\) of the model that it goes on with; got \(5,\)",
    ):
        model.set_params(hidden_layer_sizes=5).fit(X, X[:, 0])


def test_a_batch_larger_than_the_data_is_pointed_out() -> None:
    with pytest.warns(UserWarning, match="batch_size=64 is more than the 20 samples"):
        SparseMLPClassifier(batch_size=64).partial_fit(X, Y, classes=[0, 1, 2])


def test_a_training_that_diverges_says_what_to_do() -> None:
    model = SparseMLPRegressor(solver="sgd", learning_rate_init=1e30, max_iter=50)
    with pytest.raises(NonFiniteLossError, match=r"learning rate 1e\+30"):
        model.fit(X, X[:, 0])


def test_weights_that_overflow_in_the_very_last_step_are_noticed() -> None:
    model = SparseMLPRegressor(solver="sgd", learning_rate_init=1e308, max_iter=1)
    with pytest.raises(ValueError, match="weights that are not finite"):
        model.fit(sparse.csr_array(1e3 * X), 1e3 * X[:, 0])


def test_without_scikit_learn_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["sklearn"] = None
import nnsparse
try:
    import nnsparse.estimators
except ImportError as error:
    assert "pip install 'nnsparse[sklearn]'" in str(error), error
else:
    raise AssertionError("no error")
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
