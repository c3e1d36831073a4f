"""Loss and accuracy on data that is not trained on: `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnsparse.autograd import Tensor, no_grad
from nnsparse.data import DataLoader, checked_weights
from nnsparse.nn.losses import BCEWithLogitsLoss
from nnsparse.nn.module import Module
from nnsparse.rows import SparseRows, plain_array, rows_of

Array = NDArray[Any]
# (outputs, y), or (outputs, y, sample_weight) for data with weights -> a single number
LossFunction: TypeAlias = Callable[..., Tensor]
Data: TypeAlias = DataLoader | tuple[Any, ...]  # a tuple is (X, y) or (X, y, sample_weight)


class Evaluation(NamedTuple):
    """A model on one data set; NaN stands for what does not apply.

    Attributes
    ----------
    loss : float
    accuracy : float
        Fraction in [0, 1].
    """

    loss: float
    accuracy: float


def evaluate(model: Module, loss_fn: LossFunction | None, data: Data) -> Evaluation:
    """Return loss and accuracy on all samples of a data set, in evaluation mode and without recording.

    Parameters
    ----------
    model : Module
        Stays in its mode.
    loss_fn : callable or None
        (outputs (n, n_out), y) -> a single number, called once on all samples; with weights (outputs, y, weights).
        None: no loss.
    data : DataLoader, (X, y) or (X, y, sample_weight)
        X (n, n_in), an array or a scipy.sparse matrix, y (n,) or (n, n_targets), weights (n,). Of a loader, all samples
        count, also those that `drop_last` leaves out, and its `epoch` stays.

    Returns
    -------
    Evaluation
        (loss, accuracy). Accuracy is the weighted share of samples whose largest output is at their label, for integer
        labels (n,) and two outputs or more; with `BCEWithLogitsLoss` the share of outputs on the target's side of one
        half; NaN for anything else.

    Raises
    ------
    TypeError
        If `data` is neither a loader nor such a tuple.
    ValueError
        If X, y and weights differ in length, or do not fit the model or the loss.

    Examples
    --------
    >>> from nnsparse import nn
    >>> model = nn.Sequential(nn.ReLU())
    >>> evaluate(model, None, (np.eye(3), [0, 1, 0]))
    Evaluation(loss=nan, accuracy=0.6666666666666666)
    """
    x, *targets = arrays("evaluate", data)
    outputs = model.predict(x)
    loss = np.nan
    if loss_fn is not None:
        with no_grad():
            loss = loss_fn(Tensor(outputs), *targets).item()
    return Evaluation(loss, accuracy(outputs, targets[0], loss_fn, *targets[1:]))


def accuracy(
    outputs: Array, y: Array, loss_fn: LossFunction | None = None, weights: Array | None = None
) -> float:
    """Return the share of right answers as `evaluate` counts them, NaN where that means nothing.

    Parameters
    ----------
    outputs : (n, n_out)
    y : (n,) or (n, n_targets)
    loss_fn : callable or None
        Tells whether the outputs are logits of independent yes-or-no answers.
    weights : (n,), optional
        Of the samples.
    """
    if isinstance(loss_fn, BCEWithLogitsLoss):
        right = ((outputs > 0) == (np.reshape(y, outputs.shape) > 0.5)).reshape(len(y), -1).mean(1)
    elif y.ndim == 1 and y.dtype.kind in "iu" and outputs.ndim == 2 and outputs.shape[1] > 1:
        right = outputs.argmax(axis=1) == y
    else:
        return float("nan")
    if weights is None:
        return float(right.mean())
    return float(np.average(right, weights=weights)) if weights.any() else float("nan")


def _shown(data: object) -> str:
    return repr(data) if isinstance(data, bool | int | str) else type(data).__name__


def rehearse(who: str, model: Module, loss_fn: LossFunction, data: Data) -> None:
    """Evaluate a few samples, those of the least and the largest label among them.

    Raises
    ------
    TypeError, ValueError
        If data, model and loss do not fit each other: what `evaluate` would raise, named by `who`.
    """
    x, y, *weights = arrays(who, data)
    whole = y.ndim == 1 and y.dtype.kind in "iu"
    some = np.unique([0, y.argmin(), y.argmax()] if whole else [0])
    try:
        part = rows_of(x).part(some), y[some], *(np.ones(some.size) for _ in weights)
        evaluate(model, loss_fn, part)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{who}: {error}") from error


def arrays(who: str, data: Data) -> tuple[Any, ...]:
    """Return (X, y), or with weights (X, y, weights), of a loader or a tuple, or say what `who` expects."""
    if isinstance(data, DataLoader):
        weights = () if data.sample_weight is None else (data.sample_weight,)
        return (data.rows, data.y, *weights)
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise TypeError(
            f"{who} expects data as a DataLoader, (X, y) or (X, y, sample_weight); got {_shown(data)}"
        )
    x, y = data[0], plain_array("y of shape (n,) or (n, n_targets)", data[1])
    if not sparse.issparse(x) and not isinstance(x, SparseRows):
        x = plain_array("X of shape (n, n_in)", x)
    if x.ndim != 2 or y.ndim not in (1, 2) or x.shape[0] != len(y):
        raise ValueError(
            f"{who} expects X (n, n_in) and one target per row; got X of shape {x.shape} and y of shape {y.shape}"
        )
    if not len(y):
        raise ValueError(f"{who} expects at least one sample; X has shape {x.shape}")
    return (x, y) if len(data) == 2 else (x, y, checked_weights(who, data[2], len(y)))
