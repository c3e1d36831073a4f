"""Weights of samples and classes: checked, joined, and turned into what each sample's loss is multiplied by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnsparse.autograd import Array, Tensor
from nnsparse.rows import plain_array


def with_class_weight(
    labels: Array, sample_weight: ArrayLike | None, class_weight: ArrayLike | None, n: int
) -> ArrayLike | None:
    """Return the weights of samples (batch,) times those of their checked labels, None where all are 1."""
    if class_weight is None:
        return sample_weight
    factors = check_weights("class_weight", class_weight, n, "one per class")[labels]
    if sample_weight is None:
        return factors
    return factors * check_weights("sample_weight", sample_weight, labels.size, "one per sample")


def check_weights(name: str, weights: ArrayLike, n: int | None, what: str) -> Array:
    """Return weights as float64 (n,), or raise TypeError or ValueError; n None: any number of them."""
    given: Any = plain_array(f"{name} as numbers", weights)
    if given.dtype.kind not in "fiub":
        raise TypeError(f"expected {name} as real numbers; got dtype {given.dtype}.")
    if given.ndim != 1 or n not in (None, given.size):
        shape = "(n,)" if n is None else f"({n},)"
        raise ValueError(f"expected {name} of shape {shape}, {what}; got {given.shape}.")
    found: Array = np.ascontiguousarray(given, np.float64)
    if found.size and not (found.min() >= 0.0 and found.max() < np.inf):
        bad = int(np.argmax(~((found >= 0.0) & (found < np.inf))))
        raise ValueError(f"expected {name} finite and at least 0; got {found[bad]:g} at {bad}.")
    return found


def weights_of(
    function: str,
    reduction: str,
    batch: int,
    sample_weight: ArrayLike | None,
    n_outputs: int = 1,
) -> Array:
    """Return what each sample's loss is multiplied by, (batch,) float64."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f'{function} expects reduction "mean" or "sum"; got {reduction!r}.')
    if sample_weight is None:
        return np.full(batch, 1.0 / (batch * n_outputs) if reduction == "mean" else 1.0)
    weights = check_weights("sample_weight", sample_weight, batch, "one per sample")
    if reduction == "sum":
        return weights
    total = float(weights.sum())
    return weights / (total * n_outputs) if total > 0.0 else np.zeros(batch)


def column(weights: Array, x: Tensor) -> Array:
    """Return weights (batch,) so that they multiply the rows of x, (batch, n) or (batch,)."""
    shaped: Array = weights.reshape((-1,) + (1,) * (x.data.ndim - 1))
    return shaped.astype(x.dtype)
