"""Loss functions as objects: settings first, then `loss(outputs, targets)`; see `ops.losses`.

All are weighted means over the samples, Σ w_i l_i / Σ w_i; `total_weight` is the denominator, by which a loop joins
the losses of several mini-batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from nnsparse.autograd import Tensor
from nnsparse.ops import losses
from nnsparse.ops.weights import check_weights


def _total(targets: Any, sample_weight: ArrayLike | None) -> float:
    return float(len(targets) if sample_weight is None else np.sum(sample_weight, dtype=np.float64))


@final
@dataclass(frozen=True)
class CrossEntropyLoss:
    """Mean softmax cross-entropy of logits (batch, n_classes) and integer labels (batch,).

    Parameters
    ----------
    label_smoothing : float in [0, 1)
        Share of the target spread evenly over all classes.
    class_weight : sequence of n_classes numbers, optional
        A sample's weight is multiplied by its label's: at least 0, not all of them 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not as said above.

    Examples
    --------
    >>> from nnsparse.autograd import tensor
    >>> round(CrossEntropyLoss()(tensor([[0.0, 0.0]]), [1]).item(), 4)
    0.6931
    """

    label_smoothing: float = 0.0
    class_weight: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        losses.check_smoothing(self.label_smoothing)
        if self.class_weight is not None:
            found = check_weights("class_weight", self.class_weight, None, "one per class")
            if not found.any():
                raise ValueError("expected class_weight with at least one number above 0.")
            object.__setattr__(self, "class_weight", tuple(found.tolist()))

    def __call__(
        self, logits: Tensor, labels: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Tensor:
        """Return the loss, a single number; see `ops.losses.cross_entropy`."""
        return losses.cross_entropy(
            logits,
            labels,
            self.label_smoothing,
            sample_weight=sample_weight,
            class_weight=self.class_weight,
        )

    def total_weight(self, labels: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return Σ w_i of these samples."""
        classes = np.asarray(labels)
        if self.class_weight is None:
            return _total(classes, sample_weight)
        if classes.dtype.kind not in "iu":
            raise TypeError(
                f"CrossEntropyLoss expects integer labels (batch,); got dtype {classes.dtype}."
            )
        if (largest := classes.max(initial=-1)) >= len(self.class_weight):
            raise ValueError(
                f"expected class_weight of one number per class; got {len(self.class_weight)}, and the label {largest}."
            )
        factors = np.take(self.class_weight, classes)
        return float(factors.sum() if sample_weight is None else np.dot(factors, sample_weight))


@final
@dataclass(frozen=True)
class MSELoss:
    """Mean of (output − target)² over samples and outputs."""

    def __call__(
        self, outputs: Tensor, targets: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Tensor:
        """Return the loss, a single number; see `ops.losses.mse`."""
        return losses.mse(outputs, targets, sample_weight=sample_weight)

    def total_weight(self, targets: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return Σ w_i of these samples."""
        return _total(targets, sample_weight)


@final
@dataclass(frozen=True)
class BCEWithLogitsLoss:
    """Mean binary cross-entropy of sigmoid(logits) and targets from 0 to 1."""

    def __call__(
        self, logits: Tensor, targets: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Tensor:
        """Return the loss, a single number; see `ops.losses.bce_with_logits`."""
        return losses.bce_with_logits(logits, targets, sample_weight=sample_weight)

    def total_weight(self, targets: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return Σ w_i of these samples."""
        return _total(targets, sample_weight)
