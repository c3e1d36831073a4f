"""What both estimators share: the arguments of scikit-learn's MLPs, one training with `train.fit`, the attributes.

`parameters` has the arguments' rules, `samples` what is trained on, `network` and `objective` what is trained,
`monitor` when it is enough, `going_on` what a later call keeps. The subclasses say what targets mean.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from nnsparse import nn
from nnsparse.estimators.going_on import (
    check_going_on,
    check_incremental,
    guarded,
    kept,
    settings_of,
)
from nnsparse.estimators.methods import first_sparsity, recipe_of
from nnsparse.estimators.monitor import Monitor
from nnsparse.estimators.network import affine, coefficients, network, weight_sparsity
from nnsparse.estimators.objective import Loss, make_optimizer
from nnsparse.estimators.parameters import check_parameters, layer_sizes
from nnsparse.estimators.samples import Samples, checked_weight
from nnsparse.estimators.training import UNFINISHED, Training
from nnsparse.optim import Optimizer
from nnsparse.rows import rows_of
from nnsparse.sparsify import prunable
from nnsparse.sparsify.recipe import Recipe

Array = NDArray[Any]

_AUTO_BATCH = 200


class SparseMLP(BaseEstimator, ABC):
    """The common part of `SparseMLPClassifier` and `SparseMLPRegressor`; see the former for the arguments."""

    # Set by the first training, and updated by each.
    model_: nn.Sequential
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    n_iter_: int
    t_: int
    loss_: float
    best_loss_: float | None
    loss_curve_: list[float]
    best_validation_score_: float | None
    validation_scores_: list[float] | None
    _optimizer: Optimizer
    _no_improvement_count: int
    _first_settings: dict[str, Any]

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
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.sparsity = sparsity
        self.distribution = distribution
        self.recipe = recipe

    # ------------------------------------------------------------ what targets mean

    @abstractmethod
    def _learn_targets(self, y: Array, classes: Any) -> tuple[int, str]:
        """Take note of what the targets are; return the number of outputs and their activation."""

    @abstractmethod
    def _encode(self, y: Array, weight: Array | None) -> tuple[Array, Array | None]:
        """Return targets as the loss takes them, and the weights of the samples."""

    @abstractmethod
    def _loss(self) -> tuple[Loss, float]:
        """Return the loss, and by what it is multiplied."""

    @abstractmethod
    def _score(self, outputs: Array, samples: Samples) -> float:
        """Return how good outputs are: what `score` measures."""

    @abstractmethod
    def _strata(self, samples: Samples) -> Array | None:
        """Return the classes that validation and training are to hold in the same proportion."""

    # ------------------------------------------------------------ training

    @guarded
    def _train(
        self, X: Any, y: Any, sample_weight: Any, *, incremental: bool, classes: Any = None
    ) -> None:
        """Train: all epochs, or with `incremental` one."""
        who = type(self).__name__
        check_parameters(who, self.get_params(deep=False))
        if incremental:
            check_incremental(who, self)
        fresh = not self.__sklearn_is_fitted__() or not (incremental or self.warm_start)
        if not fresh:
            check_going_on(who, self, self.model_, self._first_settings)
        random = check_random_state(self.random_state)
        samples = self._samples(who, X, y, sample_weight, classes, fresh)
        seeds = [int(seed) for seed in random.randint(2**31 - 1, size=3)]
        held_out = None
        if self.early_stopping:
            strata = self._strata(samples)
            samples, held_out = samples.split(self.validation_fraction, strata, seeds[2])
        loader = samples.loader(self._batch_size(len(samples)), bool(self.shuffle), seeds[1])
        epochs = 1 if incremental else int(self.max_iter)
        recipe = recipe_of(self.recipe, self.sparsity, epochs * len(loader)) if fresh else None
        with nullcontext() if fresh else kept(self):
            if fresh:
                self._make_model(samples, recipe, seeds[0])
            self._begin(fresh, incremental)
            loader.epoch = len(self.loss_curve_)  # another order than in earlier calls
            monitor = Monitor(self, len(samples), held_out, self._score)
            plan = Training(loader, epochs, self._loss(), recipe, seeds[0])
            ended = plan.run(self.model_, self._optimizer, self.alpha, monitor, bool(self.verbose))
            if ended == UNFINISHED and not incremental:
                warnings.warn(
                    f"max_iter={self.max_iter} epochs are over, and the training has not converged yet: it still "
                    f"improves by more than tol={self.tol:g}",
                    ConvergenceWarning,
                    stacklevel=4,
                )

    def _samples(
        self, who: str, X: Any, y: Any, sample_weight: Any, classes: Any, fresh: bool
    ) -> Samples:
        """Return what to train on, checked, without samples of weight zero; set what follows from the targets."""
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=is_regressor(self),
            reset=fresh,
        )
        if sparse.issparse(y):
            y = rows_of(y)  # indicators of labels
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        weight = checked_weight(who, sample_weight, len(y))
        rows = rows_of(X)
        if weight is not None and not weight.all():
            kept = np.flatnonzero(weight)
            rows, y, weight = rows.part(kept), y[kept], weight[kept]
        if fresh:
            self.n_outputs_, self.out_activation_ = self._learn_targets(y, classes)
        targets, weight = self._encode(y, weight)
        samples = Samples(rows, targets, weight)
        if weight is not None and not weight.all():
            if not weight.any():
                raise ValueError(
                    f"{who} expects a sample with a weight above zero; class_weight makes all of them zero."
                )
            samples = samples.part(np.flatnonzero(weight))
        return samples

    def _batch_size(self, n_samples: int) -> int:
        if isinstance(self.batch_size, str):
            return min(_AUTO_BATCH, n_samples)
        if self.batch_size > n_samples:
            warnings.warn(
                f"batch_size={self.batch_size} is more than the {n_samples} samples: all of them make one mini-batch.",
                stacklevel=5,
            )
        return min(int(self.batch_size), n_samples)

    def _make_model(self, samples: Samples, recipe: Recipe | None, seed: int) -> None:
        """Make the model of a first training, and an empty record of it."""
        sizes = [samples.rows.shape[1], *layer_sizes(self.hidden_layer_sizes), self.n_outputs_]
        model = network(
            sizes,
            self.activation,
            sparsity=first_sparsity(recipe, self.sparsity),
            distribution=self.distribution,
            dtype=samples.rows.dtype,
            seed=seed,
        )
        self.model_ = model if recipe is None else prunable(model)
        self._first_settings = settings_of(self)
        self.n_layers_, self.t_, self.loss_curve_, self.best_loss_ = len(sizes), 0, [], np.inf
        self.validation_scores_ = None

    def _begin(self, fresh: bool, incremental: bool) -> None:
        """Set what a call begins with; to the calls of `partial_fit`, each an epoch, more of it is the last one's."""
        if fresh or not incremental:
            self._optimizer = make_optimizer(list(self.model_.parameters()), self)
            self._no_improvement_count = 0
        self.n_iter_, self.best_validation_score_ = 0, None
        if self.early_stopping:
            self.validation_scores_ = self.validation_scores_ or []
            self.best_loss_, self.best_validation_score_ = None, -np.inf
        elif self.best_loss_ is None:  # the last call watched the validation score
            self.best_loss_ = np.inf

    # ------------------------------------------------------------ prediction and attributes

    def _outputs(self, X: Any) -> Array:
        """Return the network's outputs, (n, n_outputs), in its dtype."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return self.model_.predict(X)

    @property
    def coefs_(self) -> list[sparse.csr_matrix[Any]]:
        """Weights of each layer, CSR (n_in, n_out); copies of those of `model_`."""
        return [coefficients(layer) for layer in affine(self._fitted_model())]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, (n_out,); copies of those of `model_`."""
        layers = affine(self._fitted_model())
        return [np.array(layer.bias.data) for layer in layers if layer.bias is not None]

    @property
    def sparsity_(self) -> float:
        """Fraction of all weights that are zero, biases apart."""
        return weight_sparsity(self._fitted_model())

    def _fitted_model(self) -> nn.Sequential:
        check_is_fitted(self)
        return self.model_

    def __sklearn_is_fitted__(self) -> bool:
        return "model_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags
