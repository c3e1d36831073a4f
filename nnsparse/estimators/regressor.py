"""`SparseMLPRegressor`."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from nnsparse import nn
from nnsparse.estimators.base import SparseMLP
from nnsparse.estimators.objective import Loss
from nnsparse.estimators.samples import Samples

Array = NDArray[Any]


@final
class SparseMLPRegressor(RegressorMixin, SparseMLP):
    """Multilayer perceptron regressor whose weights are sparse in storage and in arithmetic.

    Takes the place of `sklearn.neural_network.MLPRegressor` with its squared error, halved and summed over the outputs.
    Arguments, attributes and notes are those of `SparseMLPClassifier`, without classes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 20), np.float32)
    >>> y = np.maximum(X[:, 0], 0) - X[:, 1]
    >>> model = SparseMLPRegressor((200,), learning_rate_init=0.01, random_state=0)
    >>> model.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.9
    True
    """

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SparseMLPRegressor:
        """Train, and return self.

        Parameters
        ----------
        X : (n, n_features) array or scipy.sparse matrix
        y : (n,) or (n, n_outputs)
            Scaled to about unit variance, so that the default learning rate suits.
        sample_weight : (n,) or None
            At least 0.

        Raises
        ------
        ValueError
            If an argument, of the constructor or of this method, is not as said.
        NonFiniteLossError
            If the training diverges. After any error the estimator is as before.
        """
        self._train(X, y, sample_weight, incremental=False)
        return self

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SparseMLPRegressor:
        """Train for one epoch, going on where the last call ended, and return self; arguments and errors as `fit`.

        Raises
        ------
        ValueError
            Also with `early_stopping` or a `recipe`.
        """
        self._train(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Return predictions (n,) or (n, n_outputs), in the dtype of the model."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    # ------------------------------------------------------------ what targets mean

    def _learn_targets(self, y: Array, classes: Any) -> tuple[int, str]:
        return (1 if y.ndim == 1 else y.shape[1]), "identity"

    def _encode(self, y: Array, weight: Array | None) -> tuple[Array, Array | None]:
        given = 1 if y.ndim == 1 else y.shape[1]
        if given != self.n_outputs_:
            raise ValueError(
                f"SparseMLPRegressor expects y with {self.n_outputs_} outputs, as in the first fit; got {given}."
            )
        return y.reshape(len(y), -1), weight

    def _loss(self) -> tuple[Loss, float]:
        return nn.MSELoss(), 0.5 * self.n_outputs_

    def _score(self, outputs: Array, samples: Samples) -> float:
        if not np.isfinite(outputs).all():
            return -np.inf
        return float(r2_score(samples.targets, outputs, sample_weight=samples.weight))

    def _strata(self, samples: Samples) -> Array | None:
        return None
