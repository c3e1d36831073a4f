"""What happens after each epoch of an estimator's training: the record, the learning rate, when it is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nnsparse.estimators.samples import Samples
from nnsparse.nn.module import Module
from nnsparse.train.hooks import TrainState

Array = NDArray[Any]
Score = Callable[[Array, Samples], float]  # (outputs, samples) -> larger is better

_ADAPTIVE_FACTOR, _LEAST_RATE = 5.0, 1e-6


@final
class Monitor:
    """Callback of `train.fit` that keeps an estimator's attributes and ends its training as `MLPClassifier` does.

    An epoch counts as no better if the loss falls by less than `tol`, or with `early_stopping` the validation score
    rises by less; after more than `n_iter_no_change` of them in a row it is enough. With SGD's "adaptive" rate that
    divides it by five instead, until it is down to 1e-6.

    Parameters
    ----------
    estimator : estimator
        With attributes of a training that has begun; they are updated.
    n_samples : int
        Trained on in an epoch.
    held_out, score
        Samples of the validation and how outputs are scored on them; None without early stopping.

    Attributes
    ----------
    first_end : int
        The step before which nothing ends the training, nor counts as its best.
    converged : bool
        Whether it was enough.
    """

    def __init__(
        self,
        estimator: Any,
        n_samples: int,
        held_out: Samples | None,
        score: Score,
    ) -> None:
        self.estimator, self.n_samples = estimator, n_samples
        self.held_out, self.score = held_out, score
        self.first_end, self.converged = 0, False
        self._best: dict[str, Array] | None = None

    def __call__(self, state: TrainState) -> None:
        """Take note of an epoch."""
        e = self.estimator
        e.n_iter_ += 1
        e.t_ += self.n_samples
        e.loss_ = state.history.epochs[-1].train_loss
        e.loss_curve_.append(e.loss_)
        better = self._better_loss() if self.held_out is None else self._better_score(state)
        if state.step < self.first_end:  # the weights are not yet as sparse as they are to be
            better, self._best = True, None
            if self.held_out is None:
                e.best_loss_ = np.inf
            else:
                e.best_validation_score_ = -np.inf
        e._no_improvement_count = 0 if better else e._no_improvement_count + 1
        if e.solver == "sgd" and e.learning_rate == "invscaling":
            state.optimizer.lr = e.learning_rate_init / (e.t_ + 1) ** e.power_t
        if e._no_improvement_count > e.n_iter_no_change and state.step >= self.first_end:
            self._enough(state)

    def restore_best(self, model: Module) -> None:
        """Bring back the weights of the best validation, if there was one."""
        if self._best is not None:
            model.load_state_dict(self._best)

    def _better_loss(self) -> bool:
        e = self.estimator
        better = e.loss_ <= e.best_loss_ - e.tol
        e.best_loss_ = min(e.best_loss_, e.loss_)
        return bool(better)

    def _better_score(self, state: TrainState) -> bool:
        e = self.estimator
        assert self.held_out is not None
        score = self.score(state.model.predict(self.held_out.rows), self.held_out)
        e.validation_scores_.append(score)
        better = score >= e.best_validation_score_ + e.tol
        if score > e.best_validation_score_:
            e.best_validation_score_ = score
            self._best = state.model.state_dict()
        return bool(better)

    def _enough(self, state: TrainState) -> None:
        e, optimizer = self.estimator, state.optimizer
        if e.solver == "sgd" and e.learning_rate == "adaptive" and optimizer.lr > _LEAST_RATE:
            optimizer.lr /= _ADAPTIVE_FACTOR
            e._no_improvement_count = 0
            return
        self.converged = True
        what = "training loss" if self.held_out is None else "validation score"
        state.request_stop(
            f"the {what} did not improve by more than tol={e.tol:g} for {e.n_iter_no_change} epochs"
        )


def weighted_mean(values: Array, samples: Samples) -> float:
    """Return the mean over samples by their weights."""
    return float(np.average(values, weights=samples.weight))
