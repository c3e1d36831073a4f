"""Scores that ask the data how the loss depends on each weight: SNIP, Taylor, GraSP, Fisher, a neuron's relevance.

Larger = keep, one array per target in canonical order, as in `criteria`. All need `Context(loss_fn=..., batches=...)`.
They run the model in the mode it is in (call `model.eval()` first to score without dropout and with running
statistics) and leave no trace in it: see `passes`. Batches count by their numbers of samples; where the loss is a mean
over samples, only `taylor` depends on how the data is cut into batches. SynFlow, without data, is in `flow`.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import final

import numpy as np

from nnsparse import tiles
from nnsparse.autograd import Tensor, grad, sweep
from nnsparse.ops import arithmetic
from nnsparse.parameter import FORWARD
from nnsparse.sparsify.context import Array, Context
from nnsparse.sparsify.passes import gradients, mean_gradients, passes, sample_uses, untraced


def snip(context: Context) -> list[Array]:
    """Return |w·dL/dw|, to first order the change of the loss when the weight is removed.

    Returns
    -------
    list of (nnz,) float64 arrays
        One per target, canonical order; L is the mean loss of all batches.

    Raises
    ------
    ValueError
        If loss_fn or batches are missing, a batch is no pair, or a loss is not finite.

    Notes
    -----
    Source: Lee, Ajanthan & Torr, SNIP, 2019, algorithm 1. Difference: not divided by the sum of all scores, which
    changes no order. Cost: one forward and one backward pass per batch.
    """
    means = mean_gradients(context, "snip")
    return [
        np.abs(target.canonical(target.weight.data * mean))
        for target, mean in zip(context.targets, means, strict=True)
    ]


def taylor(context: Context) -> list[Array]:
    """Return the mean over batches of (w·dL/dw)²: the squared first-order change of a batch's loss.

    Returns and errors as for `snip`; with one batch the order is also the same.

    Notes
    -----
    Source: Molchanov et al., Importance estimation for neural network pruning, 2019, the first-order
    criterion, for single weights.
    """
    totals, samples = [np.zeros(target.nnz) for target in context.targets], 0
    with untraced(context.model):
        for output, _, loss in passes(context, "taylor"):
            samples += len(output)
            for target, total, gradient in zip(
                context.targets, totals, gradients(context, loss), strict=True
            ):
                total += len(output) * (target.weight.data * gradient.astype(np.float64)) ** 2
    return [
        target.canonical(total / samples)
        for target, total in zip(context.targets, totals, strict=True)
    ]


@final
@dataclass(frozen=True)
class Grasp:
    """Return w ⊙ H·g: what keeping a weight does for the gradient flow ‖g‖².

    To first order, removing weight i changes ‖g‖² by −2·w_i·(H·g)_i. The paper removes where −w ⊙ H·g is *largest*
    (the gradient shrinks least, or grows), so here, where larger = keep, the score is w ⊙ H·g, signed, without an
    absolute value. g and H are gradient and Hessian of the mean loss of all batches, with the outputs divided by
    `temperature`, in the weights of the targets.

    Parameters
    ----------
    temperature : float
        T, above 0.

    Raises
    ------
    ValueError
        If the temperature is not positive and finite; when called, as `snip`.

    Notes
    -----
    Source: Wang, Zhang & Grosse, Picking winning tickets before training by preserving gradient flow, 2020,
    algorithm 1; T = 200 as in the authors' code. Differences: weights of layers that are no targets, and biases, count
    as constants; not divided by the sum of all scores. Cost: two passes forward and back per batch, and one back
    through the second's backward; H is never formed. Dropout draws the same masks for g and for H.
    """

    temperature: float = 200.0

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(
                f"Grasp expects a positive temperature; got {self.temperature!r}. The paper's is 200."
            )

    def __call__(self, context: Context) -> list[Array]:
        """Return one array (nnz,) float64 per target, canonical order."""
        means = mean_gradients(context, "Grasp", self.temperature)
        products = _hessian_products(context, means, self.temperature)
        return [
            target.canonical(target.weight.data * product)
            for target, product in zip(context.targets, products, strict=True)
        ]


def _hessian_products(context: Context, vectors: list[Array], temperature: float) -> list[Array]:
    """Return H·v, (nnz,) float64 per target, with v and the result in plan order: d(g·v)/dw."""
    weights = [target.weight for target in context.targets]
    totals, samples = [np.zeros(weight.size) for weight in weights], 0
    with untraced(context.model):
        for output, _, loss in passes(context, "Grasp", temperature):
            samples += len(output)
            slope = Tensor(np.zeros((), loss.dtype))
            for g, v in zip(grad(loss, weights, create_graph=True), vectors, strict=True):
                slope = arithmetic.add(slope, arithmetic.sum(arithmetic.multiply(g, v)))
            # A weight that no gradient depends on is not found: its second derivatives are zero.
            swept = sweep(slope, None, weights, False, False) if slope.requires_grad else []
            found = {id(weight): product for weight, product in swept}
            for weight, total in zip(weights, totals, strict=True):
                if id(weight) in found:
                    total += len(output) * found[id(weight)].data.astype(np.float64)
    return [total / samples for total in totals]


def fisher_diagonal(context: Context) -> list[Array]:
    """Return h = mean over samples n of (dℓ_n/dw)², the diagonal of the empirical Fisher matrix.

    Not the square of the mean gradient: for a linear layer it is Σ_n δ_ni²·x_nj² / N, the product that also gives the
    weight gradient, of squared arrays.

    Returns
    -------
    list of (nnz,) float64 arrays
        One per target, canonical order, >= 0.

    Raises
    ------
    ValueError
        As `snip`; or if the loss is neither a mean nor a sum of the samples' losses ℓ_n. Which of them it is is found
        by calling loss_fn with every sample twice.

    Notes
    -----
    "Empirical": with the labels of the data, not drawn from the model. A layer that is used several times is treated
    exactly. With batch normalisation in training mode a sample's loss depends on the others, and h is made of each
    sample's part in the gradient instead; call `model.eval()` for the real one. Cost: as `snip`, and one more product
    per layer.
    """
    totals, samples = [np.zeros(target.nnz) for target in context.targets], 0
    with closing(sample_uses(context, "fisher")) as batches:
        for batch in batches:
            samples += batch[0].batch
            for total, (structure, _, taps) in zip(totals, batch, strict=True):
                # The square of a sum over uses: every use with every other.
                for d, x in taps:
                    for e, z in taps:
                        total += structure.gradient(_product(d, e), _product(x, z))
    return [
        target.canonical(total / samples)
        for target, total in zip(context.targets, totals, strict=True)
    ]


def _product(a: Array, b: Array) -> Array:
    """Return a·b elementwise, aligned for the kernels."""
    return np.multiply(a, b, out=tiles.empty(a.shape, a.dtype))


def fisher(context: Context) -> list[Array]:
    """Return ½·h·w², to second order the change of the loss when the weight is removed, h as in `fisher_diagonal`.

    Returns and errors as for `fisher_diagonal`.

    Notes
    -----
    Source: LeCun, Denker & Solla, Optimal brain damage, 1990, with the Fisher diagonal in place of the second
    derivatives as in Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018. Like them it
    takes the network as trained: the first-order term, zero at a minimum, is left out.
    """
    return [
        0.5 * h * target.canonical().astype(np.float64) ** 2
        for target, h in zip(context.targets, fisher_diagonal(context), strict=True)
    ]


def neuron_relevance(context: Context) -> list[Array]:
    """Return the mean over samples of |z·dℓ/dz| of each output neuron, z = W·x + b: per neuron, not per weight.

    It is the first-order change of a sample's loss when the neuron's weights and bias are removed. Where a ReLU
    follows it equals |a·dℓ/da| of the activation a = ReLU(z).

    Returns
    -------
    list of (n_out,) float64 arrays
        One per target, larger = keep.

    Raises
    ------
    ValueError
        As `fisher_diagonal`.

    Notes
    -----
    Source: Molchanov et al., Pruning convolutional neural networks for resource efficient inference, 2017 (Taylor
    criterion). Aketi et al., Gradual channel pruning while training using feature relevance scores, 2020, prune at
    fixed intervals by a relevance; this one stands in for theirs. Difference: z in place of a, the same for ReLU.
    """
    totals, samples = [np.zeros(target.topology.shape[0]) for target in context.targets], 0
    with closing(sample_uses(context, "neuron_relevance")) as batches:
        for batch in batches:
            samples += batch[0].batch
            for target, total, (structure, size, taps) in zip(
                context.targets, totals, batch, strict=True
            ):
                w, bias = target.weight.data, target.layer.bias
                if FORWARD in target.weight.buffers:
                    w = w * target.weight.buffers[FORWARD]
                change = [
                    d * structure.forward(w, x, size, None if bias is None else bias.data, False)
                    for d, x in taps
                ]
                total += np.abs(sum(change)).sum(axis=(0, 2), dtype=np.float64)
    return [total / samples for total in totals]
