"""Loss functions as objects: settings first, then `loss(outputs, targets)`; see `ops.losses`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from numpy.typing import ArrayLike

from nnsparse.autograd import Tensor
from nnsparse.ops import losses


@final
@dataclass(frozen=True)
class CrossEntropyLoss:
    """Mean softmax cross-entropy of logits (batch, n_classes) and integer labels (batch,).

    Parameters
    ----------
    label_smoothing : float in [0, 1)
        Share of the target spread evenly over all classes.

    Examples
    --------
    >>> from nnsparse.autograd import tensor
    >>> round(CrossEntropyLoss()(tensor([[0.0, 0.0]]), [1]).item(), 4)
    0.6931
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        losses.check_smoothing(self.label_smoothing)

    def __call__(self, logits: Tensor, labels: ArrayLike) -> Tensor:
        """Return the loss, a single number; see `ops.losses.cross_entropy`."""
        return losses.cross_entropy(logits, labels, self.label_smoothing)


@final
@dataclass(frozen=True)
class MSELoss:
    """Mean of (output − target)² over samples and outputs."""

    def __call__(self, outputs: Tensor, targets: ArrayLike) -> Tensor:
        """Return the loss, a single number; see `ops.losses.mse`."""
        return losses.mse(outputs, targets)


@final
@dataclass(frozen=True)
class BCEWithLogitsLoss:
    """Mean binary cross-entropy of sigmoid(logits) and targets from 0 to 1."""

    def __call__(self, logits: Tensor, targets: ArrayLike) -> Tensor:
        """Return the loss, a single number; see `ops.losses.bce_with_logits`."""
        return losses.bce_with_logits(logits, targets)
