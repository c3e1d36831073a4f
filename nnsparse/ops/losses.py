"""Loss functions of logits (batch, n), plain or tiled: single numbers to call `backward` on.

The forward pass computes loss and gradient together, so the backward pass has nothing left to do
but to hand the gradient over. On a recorded backward (second order) the gradient is made again out
of ops. Labels and targets are checked here, once; the loops are in `kernels.losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nnsparse import tiles
from nnsparse.autograd import Array, Tensor, record, recording
from nnsparse.kernels import losses as kernels
from nnsparse.ops import arithmetic
from nnsparse.ops.arithmetic import divide, exp, multiply, subtract
from nnsparse.ops.layout import tile, untile
from nnsparse.ops.pointwise import sigmoid
from nnsparse.ops.weights import column, weights_of, with_class_weight

# logits, plain -> d (sum over samples of the loss) / d logits, as a differentiable tensor
Slope: TypeAlias = Callable[[Tensor], Tensor]


def cross_entropy(
    logits: Tensor,
    labels: ArrayLike,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    sample_weight: ArrayLike | None = None,
    class_weight: ArrayLike | None = None,
) -> Tensor:
    """Return the softmax cross-entropy −Σ_c q_c log softmax(logits)_c, mean or sum over samples.

    Parameters
    ----------
    logits : Tensor (batch, n_classes)
        Plain or tiled.
    labels : (batch,) integers
        From 0 to n_classes − 1.
    label_smoothing : float in [0, 1)
        ε: q is 1 − ε at the label, plus ε / n_classes at every class.
    reduction : "mean" or "sum"
        Over the samples: Σ w_i l_i / Σ w_i (0 if all weights are 0), or Σ w_i l_i.
    sample_weight : (batch,) numbers, optional
        At least 0; default: 1.
    class_weight : (n_classes,) numbers, optional
        At least 0; a sample's weight is multiplied by its label's. (With label smoothing, torch instead weighs each
        class's part of the target.)

    Returns
    -------
    Tensor, shape (), dtype of the logits
        Summed in float64, in the order of the samples.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If a shape, label or weight is wrong, the batch is empty, or label_smoothing is not in [0, 1).

    Notes
    -----
    Cost: O(batch · n_classes). Label smoothing as in Szegedy et al., 2016, section 7.

    Examples
    --------
    >>> from nnsparse.autograd import tensor
    >>> round(cross_entropy(tensor([[0.0, 0.0], [2.0, 0.0]]), [1, 0]).item(), 4)
    0.41
    """
    batch, n = _logits_shape("cross_entropy", logits)
    classes = _labels(labels, batch, n)
    check_smoothing(label_smoothing)
    z, d, data = _buffers(logits)
    weights = weights_of(
        "cross_entropy",
        reduction,
        batch,
        with_class_weight(classes, sample_weight, class_weight, n),
    )
    lanes = z.shape[0] * z.shape[2]
    scratch = tiles.empty((2, lanes), np.float64)
    total = kernels.cross_entropy(
        z,
        classes,
        float(label_smoothing),
        weights,
        tiles.empty((lanes,), z.dtype),
        scratch[0],
        scratch[1],
        d,
    )

    def slope(x: Tensor) -> Tensor:
        target = np.full((batch, n), label_smoothing / n, x.dtype)
        target[np.arange(batch), classes] += x.dtype.type(1.0 - label_smoothing)
        powers = exp(subtract(x, x.data.max(axis=1, keepdims=True)))
        softmax = divide(powers, arithmetic.sum(powers, 1, keepdims=True))
        return multiply(subtract(softmax, target), column(weights, x))

    return _loss(total, logits, data, slope)


def mse(
    logits: Tensor,
    targets: ArrayLike,
    reduction: str = "mean",
    sample_weight: ArrayLike | None = None,
) -> Tensor:
    """Return the squared error (x − t)², mean over all elements, or their sum.

    Parameters
    ----------
    logits : Tensor (batch, n) or (batch,)
        Plain or tiled.
    targets : (batch, n) numbers, or (batch,) for one output
        What the outputs should be.
    reduction : "mean" or "sum"
        Over samples and outputs.
    sample_weight : (batch,) numbers, optional
        At least 0; default: 1. The mean is then Σ w_i l_i / Σ w_i (0 if all weights are 0), l_i a sample's mean.
    """
    values = _targets("mse", targets, logits)
    weights = weights_of("mse", reduction, len(values), sample_weight, values.shape[1])
    z, d, data = _buffers(logits)
    total = kernels.squared_error(
        z, values, weights, tiles.empty((z.shape[0] * z.shape[2],), np.float64), d
    )

    def slope(x: Tensor) -> Tensor:
        return multiply(subtract(x, values.reshape(x.shape)), column(2.0 * weights, x))

    return _loss(total, logits, data, slope)


def bce_with_logits(
    logits: Tensor,
    targets: ArrayLike,
    reduction: str = "mean",
    sample_weight: ArrayLike | None = None,
) -> Tensor:
    """Return the binary cross-entropy −t log p − (1 − t) log(1 − p) of p = sigmoid(logits).

    Parameters
    ----------
    logits : Tensor (batch, n) or (batch,)
        Plain or tiled.
    targets : (batch, n) numbers from 0 to 1, or (batch,) for one output
        Probabilities that the outputs should give.
    reduction : "mean" or "sum"
        Over samples and outputs.
    sample_weight : (batch,) numbers, optional
        At least 0; default: 1. The mean is then Σ w_i l_i / Σ w_i (0 if all weights are 0), l_i a sample's mean.
    """
    values = _targets("bce_with_logits", targets, logits)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"bce_with_logits expects targets from 0 to 1; got {values.min():g} to "
            f"{values.max():g}. Classes 0 .. n - 1? Use cross_entropy."
        )
    weights = weights_of("bce_with_logits", reduction, len(values), sample_weight, values.shape[1])
    z, d, data = _buffers(logits)
    total = kernels.logistic(
        z, values, weights, tiles.empty((z.shape[0] * z.shape[2],), np.float64), d
    )

    def slope(x: Tensor) -> Tensor:
        return multiply(subtract(sigmoid(x), values.reshape(x.shape)), column(weights, x))

    return _loss(total, logits, data, slope)


# ---------------------------------------------------------------- shared by all


def _loss(total: float, logits: Tensor, d: Array, slope: Slope) -> Tensor:
    """Return the loss as a tensor whose gradient is `d`, or on a recorded backward `slope`."""

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> Sequence[Tensor | None]:
        if recording():
            plain = multiply(slope(untile(logits)), g)
            return (plain if logits.batch is None else tile(plain, logits.data.shape[2]),)
        factor = g.data.item()
        # A plain gradient may end up as somebody's `.grad`, so it is always a copy.
        if factor == 1.0 and logits.batch is not None:
            return (Tensor(d, batch=logits.batch),)
        return (Tensor(np.asarray(d * d.dtype.type(factor)), batch=logits.batch),)

    def push(out: Tensor, t: Tensor) -> Tensor:
        slope_along = np.multiply(d, t.data).sum(dtype=np.float64)
        return Tensor(np.array(slope_along, d.dtype))

    return record(np.array(total, logits.data.dtype), (logits,), rule, push=push)


def _buffers(logits: Tensor) -> tuple[Array, Array, Array]:
    """Return logits and gradient as the kernels take them, and the gradient in its own shape."""
    z = logits.data
    d = tiles.empty(z.shape, z.dtype)
    if logits.batch is not None:
        return z, d, d
    rows = (len(z), -1)
    return z.reshape(rows).T[np.newaxis], d.reshape(rows).T[np.newaxis], d


def check_smoothing(label_smoothing: float) -> None:
    """Raise ValueError unless label_smoothing is in [0, 1)."""
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(
            f"cross-entropy expects label_smoothing in [0, 1); got {label_smoothing!r}."
        )


def _logits_shape(function: str, logits: Tensor) -> tuple[int, int]:
    if not isinstance(logits, Tensor):
        raise TypeError(f"{function} expects a Tensor of logits; got {type(logits).__name__}.")
    shape = logits.shape
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"{function} expects logits of shape (batch, n_classes); got {shape}.")
    if shape[0] == 0:
        raise ValueError(f"{function} expects at least one sample; got an empty batch {shape}.")
    return shape[0], shape[1]


def _labels(labels: ArrayLike, batch: int, n: int) -> Array:
    """Return the labels as a contiguous (batch,) integer array from 0 to n - 1."""
    classes: Any = np.asarray(labels)
    if classes.dtype.kind not in "iu":
        raise TypeError(
            f"cross_entropy expects integer labels (batch,); got dtype {classes.dtype}. "
            "Whole numbers? Pass labels.astype(np.int64). Probabilities? Use bce_with_logits."
        )
    if classes.shape != (batch,):
        hint = " One-hot? Pass labels.argmax(axis=1)." if classes.shape == (batch, n) else ""
        hint = hint or " A column? Pass labels.ravel()." * (classes.shape == (batch, 1))
        raise ValueError(
            f"cross_entropy expects labels of shape ({batch},) for logits ({batch}, {n}); "
            f"got {classes.shape}.{hint}"
        )
    found: Array = np.ascontiguousarray(classes, np.int64)
    bad = kernels.first_outside(found, n)
    if bad >= 0:
        raise ValueError(
            f"cross_entropy expects labels from 0 to {n - 1}; got {classes[bad]} at index {bad}. "
            f"Counted from one? Subtract 1."
        )
    return found


def _targets(function: str, targets: ArrayLike, logits: Tensor) -> Array:
    """Return the targets as a (batch, n) array in the dtype of the logits."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"{function} expects a Tensor of outputs; got {type(logits).__name__}.")
    if isinstance(targets, Tensor) and targets.requires_grad:
        raise TypeError(f"{function} takes no gradient of its targets. Pass targets.detach().")
    values: Any = np.asarray(targets)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{function} expects real numbers as targets; got {values.dtype}.")
    shape = logits.shape
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(f"{function} expects outputs (batch, n), batch > 0; got {shape}.")
    one_output = shape == (shape[0], 1) and values.shape == shape[:1]
    if values.shape != shape and not one_output:
        hint = "One target per sample needs one output" if values.ndim < 2 else "Transposed"
        raise ValueError(
            f"{function} expects targets of the outputs' shape {shape}; got {values.shape}. "
            f"{hint}? Reshape one of them."
        )
    rows: Array = np.ascontiguousarray(values.reshape(shape[0], -1), logits.dtype)
    return rows
