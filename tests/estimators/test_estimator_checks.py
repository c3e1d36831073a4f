"""scikit-learn's own checks, none expected to fail; small networks, as the checks' data sets are."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from nnsparse.estimators import SparseMLPClassifier, SparseMLPRegressor

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (50,),
    "max_iter": 100,
    "learning_rate_init": 0.01,
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SparseMLPClassifier(**SMALL), SparseMLPRegressor(**SMALL)])
def test_scikit_learn_finds_nothing_wrong(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
