"""What the estimators minimise, scaled as scikit-learn scales it, and the optimizer that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nnsparse.autograd import Tensor
from nnsparse.optim import SGD, Adam, Optimizer
from nnsparse.parameter import Parameter

Array = NDArray[Any]
Loss = Callable[..., Tensor]  # (outputs, targets, sample_weight) -> weighted mean


@final
class Objective:
    """The loss function and update of one training: f · loss + α ‖W‖² / (2 Σᵢ wᵢ), wᵢ the samples' weights.

    To `train.fit` it is the loss function, and among the updates it adds the penalty's gradient.

    Parameters
    ----------
    loss : callable
        One of `nn`'s losses.
    factor : float
        f: `nn`'s losses are means over the outputs; scikit-learn adds them up.
    weights : sequence of Parameter
        W, whose squares are penalised; no biases.
    alpha : float
        α.

    Notes
    -----
    Source: `sklearn.neural_network.MLPClassifier`, whose penalty too is divided by the weight of the mini-batch.
    """

    def __init__(
        self, loss: Loss, factor: float, weights: Sequence[Parameter], alpha: float
    ) -> None:
        self.loss, self.factor, self.weights, self.alpha = loss, factor, weights, alpha
        self._share = 0.0  # α / Σ wᵢ of the present mini-batch

    def __call__(
        self, outputs: Tensor, targets: Array, sample_weight: Array | None = None
    ) -> Tensor:
        """Return the objective on a mini-batch, a single number."""
        value = self.loss(outputs, targets, sample_weight)
        if self.factor != 1.0:
            value = value * self.factor
        if self.alpha:
            total = len(targets) if sample_weight is None else sample_weight.sum()
            self._share = self.alpha / float(total)
            value = value + 0.5 * self._share * sum(map(_squares, self.weights))
        return value

    def before_step(self) -> None:
        """Add the penalty's gradient, α W / Σᵢ wᵢ."""
        if self.alpha:
            for weight in self.weights:
                weight.grad = np.asarray(weight.grad) + weight.dtype.type(self._share) * weight.data

    def step(self) -> None:
        """Do nothing: an update of `train.fit` has this method."""


def _squares(weight: Parameter) -> float:
    """Return the sum of squares; not by BLAS, whose threads would keep ours from the cores."""
    flat = weight.data.reshape(-1)
    return float(np.einsum("i,i->", flat, flat))


def make_optimizer(parameters: Sequence[Parameter], settings: Any) -> Optimizer:
    """Return the optimizer that an estimator's arguments ask for.

    Parameters
    ----------
    parameters : sequence of Parameter
    settings : estimator
        `solver`, `learning_rate_init` and those of the solver.
    """
    rate = float(settings.learning_rate_init)
    if settings.solver == "adam":
        betas = float(settings.beta_1), float(settings.beta_2)
        return Adam(parameters, rate, betas, float(settings.epsilon))
    momentum = float(settings.momentum)
    nesterov = bool(settings.nesterovs_momentum) and momentum > 0
    return SGD(parameters, rate, momentum, nesterov=nesterov)
