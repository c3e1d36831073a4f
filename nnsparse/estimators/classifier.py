"""`SparseMLPClassifier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin

from nnsparse import nn
from nnsparse.estimators.base import SparseMLP
from nnsparse.estimators.labels import MULTICLASS, MULTILABEL, Labels, checked_classes
from nnsparse.estimators.monitor import weighted_mean
from nnsparse.estimators.objective import Loss
from nnsparse.estimators.samples import Samples, class_factors

Array = NDArray[Any]


@final
class SparseMLPClassifier(ClassifierMixin, SparseMLP):
    """Multilayer perceptron classifier whose weights are sparse in storage and in arithmetic.

    Takes the place of `sklearn.neural_network.MLPClassifier`, whose arguments and attributes it has.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Neurons of the hidden layers. Sparse layers pay when they are wide: hundreds of neurons and more.
    activation : "relu", "tanh", "logistic" or "identity"
        Of the hidden layers.
    solver : "adam" or "sgd"
    alpha : float
        L2 penalty on the weights, α ‖W‖² / 2, divided by the weight of a mini-batch.
    batch_size : int or "auto"
        Samples per mini-batch; "auto": 200, or all of fewer.
    learning_rate : "constant", "invscaling" or "adaptive"
        With solver "sgd": `learning_rate_init`; divided by (samples seen + 1)^`power_t` after each epoch; or divided
        by 5 whenever the training would end.
    learning_rate_init, power_t : float
    max_iter : int
        Epochs, at most.
    shuffle : bool
        A new order of the samples every epoch.
    random_state : int, RandomState or None
        Of topology, weights, validation split and order; an int gives the same bits in every run.
    tol, n_iter_no_change : float, int
        Training ends when the loss (with `early_stopping` the validation score) has not improved by more than `tol`
        for more than `n_iter_no_change` epochs.
    verbose : bool
        Show a progress bar.
    warm_start : bool
        `fit` goes on with the present model, which keeps its hidden layers, activation, sparsity, distribution (they
        may not be changed), classes (fewer may occur) and dtype. A recipe is not run again.
    momentum, nesterovs_momentum
        Of "sgd".
    early_stopping, validation_fraction : bool, float
        Hold out a fraction of the samples, and end with the weights that score best on them. Of each class alike, if
        all classes have two samples and fit into both parts (several labels: at random).
    beta_1, beta_2, epsilon : float
        Of "adam".
    sparsity : float in [0, 1)
        Fraction of all weights (biases apart) that are zero; 0 is a dense network.
    distribution : "erk" or "uniform"
        How layers share the weights, as in `nn.mlp`.
    recipe : None, str, callable or sparsify.Recipe
        None: weights stay where they are drawn. Else how sparsity comes or moves: a name ("rigl", "set", "agp", ...),
        a function of `nnsparse.sparsify` that takes the sparsity (`sparsify.rigl`), or what such a function returns,
        which has a sparsity of its own. Its schedule spans `max_iter` epochs, and training does not end before its
        last sparsity is reached. Not with `partial_fit`.
    class_weight : None, dict or "balanced"
        Factors of the samples' weights by class (1 for classes left out), or such that all classes weigh the same.

    Attributes
    ----------
    classes_ : (n_classes,)
    model_ : nn.Sequential
        Outputs logits. `ns.compile(est.model_)`, `ns.memory_report(est.model_)` and `est.model_[0].to_scipy()` go on.
    sparsity_ : float
        Fraction of weights that are zero.
    coefs_ : list of scipy.sparse.csr_matrix (n_in, n_out)
    intercepts_ : list of (n_out,)
    loss_, best_loss_, loss_curve_ : float, float, list
        Objective of the last epoch, the least of any (None with `early_stopping`), of all epochs.
    validation_scores_, best_validation_score_ : list, float
        None without `early_stopping`.
    n_iter_, t_ : int
        Epochs of the last `fit`; samples seen by the model.
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_

    Notes
    -----
    X is an array or a scipy.sparse matrix, which stays sparse. float32 is computed in float32, twice as fast as
    float64, in which everything else is computed, integers too. A sample of weight zero is as if it were not there.
    Differences from `MLPClassifier`: no "lbfgs"; initial weights are He's for the sparse fan-in; after the learning
    rate has changed, "sgd" applies the new one to all of its momentum (as torch does). Multi-label targets are an
    indicator (n, n_labels).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
    >>> model = SparseMLPClassifier((300, 100), early_stopping=True, random_state=0)
    >>> model.fit(X_train, y_train).score(X_test, y_test) > 0.95
    True
    >>> round(model.sparsity_, 3)
    0.9
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.003,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        sparsity: float = 0.9,
        distribution: str = "erk",
        recipe: Any = None,
        class_weight: Mapping[Any, float] | str | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            sparsity=sparsity,
            distribution=distribution,
            recipe=recipe,
        )
        self.class_weight = class_weight

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SparseMLPClassifier:
        """Train, and return self.

        Parameters
        ----------
        X : (n, n_features) array or scipy.sparse matrix
        y : (n,) labels, or (n, n_labels) indicators of 0 and 1
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
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> SparseMLPClassifier:
        """Train for one epoch, going on where the last call ended, and return self.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : (n_classes,)
            All that will ever occur; asked for in the first call, and then not needed.

        Raises
        ------
        ValueError
            As `fit`; also with `early_stopping`, a `recipe` or `class_weight="balanced"`, for which all data have to
            be known.
        """
        known = None if classes is None else checked_classes("SparseMLPClassifier", classes)
        if not self.__sklearn_is_fitted__():
            if known is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
        elif known is not None and not np.array_equal(known, self.classes_):
            raise ValueError(
                f"SparseMLPClassifier.partial_fit expects classes={self.classes_} as before; got {classes!r}."
            )
        if isinstance(self.class_weight, str):
            raise ValueError(
                "SparseMLPClassifier.partial_fit expects class_weight as a dict: it has not seen all data, which "
                "'balanced' asks for. Pass for instance dict(zip(classes, compute_class_weight('balanced', ...)))."
            )
        self._train(X, y, sample_weight, incremental=True, classes=known)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Return the predicted classes (n,), or indicators (n, n_labels)."""
        outputs = self._outputs(X)
        return self._labels.decode(outputs)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return probabilities (n, n_classes) in the order of `classes_`; of each label by itself if multi-label."""
        outputs = self._outputs(X)
        return self._labels.probabilities(outputs)

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Return the logarithms of `predict_proba`, exact also where that is zero."""
        outputs = self._outputs(X)
        return self._labels.log_probabilities(outputs)

    # ------------------------------------------------------------ what targets mean

    def _learn_targets(self, y: Array, classes: Any) -> tuple[int, str]:
        self._labels = Labels.of(y, classes)
        self.classes_ = self._labels.classes
        softmax = self._labels.kind == MULTICLASS
        return self._labels.n_outputs, "softmax" if softmax else "logistic"

    def _encode(self, y: Array, weight: Array | None) -> tuple[Array, Array | None]:
        labels = self._labels
        targets = labels.encode(y)
        if self.class_weight is None:
            return targets, weight
        if labels.kind == MULTILABEL:
            raise ValueError(
                "SparseMLPClassifier expects class_weight=None for multi-label targets: a sample has several classes. "
                "Pass sample_weight to fit."
            )
        factors = class_factors(
            "SparseMLPClassifier", self.class_weight, targets, self.classes_, weight
        )
        return targets, factors if weight is None else factors * weight

    def _loss(self) -> tuple[Loss, float]:
        if self._labels.kind == MULTICLASS:
            return nn.CrossEntropyLoss(), 1.0
        return nn.BCEWithLogitsLoss(), float(self.n_outputs_)

    def _score(self, outputs: Array, samples: Samples) -> float:
        return weighted_mean(self._labels.agrees(outputs, samples.targets), samples)

    def _strata(self, samples: Samples) -> Array | None:
        return None if self._labels.kind == MULTILABEL else samples.targets

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
