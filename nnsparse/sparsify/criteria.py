"""Scores that need no data: magnitude, random, movement, SET's rank within each sign, and a neuron's strength.

A criterion gives every stored weight of every target a score in canonical order, larger = keep; how many are kept is
the allocation's business, which of equal ones the unit's (the lower position). Criteria that run the model are in
`saliency`, SynFlow is in `flow`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from nnsparse.nn.linear import Affine, SparseLinear
from nnsparse.parameter import FORWARD
from nnsparse.sparsify.context import Array, Context
from nnsparse.sparsify.holding import alive_count, alive_mask

# context -> for each target the scores (nnz,) of its stored weights in canonical order, larger = keep
Criterion: TypeAlias = Callable[[Context], list[Array]]


def magnitude(context: Context) -> list[Array]:
    """Return |w| of every weight.

    Returns
    -------
    list of (nnz,) arrays
        One per target, canonical order, dtype of the weights.

    Notes
    -----
    Source: Han, Pool, Tran & Dally, Learning both weights and connections, 2015; Zhu & Gupta, 2017.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from nnsparse import nn
    >>> from nnsparse.sparsify.context import targets
    >>> layer = nn.SparseLinear.from_scipy(csr_array([[0.5, 0.0], [-2.0, 1.0]]))
    >>> magnitude(Context(layer, targets(layer)))
    [array([0.5, 2. , 1. ])]
    """
    return [np.abs(target.canonical()) for target in context.targets]


def random(context: Context) -> list[Array]:
    """Return independent uniform numbers from [0, 1): every set of k weights is equally likely to be kept.

    Returns
    -------
    list of (nnz,) float64 arrays
        One per target, canonical order: a function of seed, step, target and the weights that are alive. What is held
        at zero gets 0, so that nothing depends on how a layer is stored.

    Notes
    -----
    The numbers come from a child of `context.rng(index)`, so that random growth, which draws from the generator
    itself, does not repeat what decided the drop.
    """
    scores = [np.zeros(target.nnz) for target in context.targets]
    for index, (target, score) in enumerate(zip(context.targets, scores, strict=True)):
        alive = alive_mask(target)
        drawn = context.rng(index).spawn(1)[0].random(alive_count(target))
        score[slice(None) if alive is None else alive] = drawn
    return scores


def movement(context: Context) -> list[Array]:
    """Return how far every weight has moved from where it started, |w − w₀|.

    w₀ is the buffer "start" of the weight, in plan order like every buffer. It follows the weights when the topology
    changes; a grown weight starts at 0 there.

    Returns
    -------
    list of (nnz,) arrays
        One per target, canonical order, dtype of the weights.

    Raises
    ------
    ValueError
        If a target has no such buffer.

    Notes
    -----
    Source: Zhou, Lan, Liu & Yosinski, Deconstructing lottery tickets, 2019 ("movement"). Not the movement pruning of
    Sanh et al., 2020, which sums −w·dL/dw over the steps of training.
    """
    scores = []
    for target in context.targets:
        start = target.weight.buffers.get("start")
        if start is None:
            raise ValueError(
                f'movement compares layer {target.name!r} with its buffer "start", which is missing. Before '
                'training, set layer.weight.buffers["start"] = layer.weight.data.copy().'
            )
        scores.append(np.abs(target.canonical() - target.canonical(start)))
    return scores


def signed_rank(context: Context) -> list[Array]:
    """Return the rank of every weight among those of its own sign, as a fraction of them: SET's rule as a score.

    Of n weights of one sign the r-th smallest in magnitude (r = 0 is the one nearest to zero) gets (r + ½) / n, an
    exact zero (or NaN) 0. Keeping the k largest then drops zeros first, and takes what else has to go from the smallest
    positive and the largest negative weights in proportion to how many there are of each sign.

    Returns
    -------
    list of (nnz,) float64 arrays
        One per target, canonical order, from 0 to 1. Of equal magnitudes the lower position ranks higher.

    Notes
    -----
    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity, 2018,
    algorithm 1: remove the fraction ζ of the smallest positive and ζ of the largest negative weights. Difference: the
    caller fixes the number dropped, d, exactly. Without zeros, d₊ = d·n₊/nnz rounded to the nearest integer are
    positive and the others negative (of an exact half, the higher position goes). The paper leaves open how ζ·n₊ and
    ζ·n₋ are rounded. Scores are for shares within a layer: as a global score they give all layers the same density.

    Cost: O(nnz log nnz), two sorts.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from nnsparse import nn
    >>> from nnsparse.sparsify.context import targets
    >>> layer = nn.SparseLinear.from_scipy(csr_array([[3.0, -0.1, 2.0, 1.0, -0.2, 4.0]]))
    >>> signed_rank(Context(layer, targets(layer)))
    [array([0.625, 0.25 , 0.375, 0.125, 0.75 , 0.875])]
    """
    scores = []
    for target in context.targets:
        w = target.canonical()
        score = np.zeros(w.size)
        for side in (np.flatnonzero(w > 0), np.flatnonzero(w < 0)):
            score[side] = (2 * _ranks(np.abs(w[side])) + 1) / max(2 * side.size, 1)
        scores.append(score)
    return scores


def _ranks(values: Array) -> Array:
    """Return the rank of each value (n,), 0 for the smallest; of equal ones the first ranks highest."""
    rising = values.size - 1 - np.argsort(values[::-1], kind="stable")
    ranks = np.empty(values.size, np.int64)
    ranks[rising] = np.arange(values.size)
    return ranks


def neuron_strength(layer: Affine, following: Affine | None = None) -> Array:
    """Return Σ|w| over the fan-in of every neuron of a layer, and over its fan-out in the following layer.

    Parameters
    ----------
    layer : SparseLinear, Linear or NumpyLinear
        n_in -> n_out.
    following : the same, optional
        The affine layer that takes this one's outputs, n_out -> anything; without it only the fan-in counts.

    Returns
    -------
    (n_out,) float64 array
        Larger = keep.

    Raises
    ------
    ValueError
        If `following` does not take as many inputs as `layer` has outputs.

    Notes
    -----
    Source: Li et al., Pruning filters for efficient ConvNets, 2017 (L1 norm of the fan-in); the fan-out is added, as
    both go when the neuron goes. Neither biases nor weights that a forward mask leaves out (N:M) count.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from nnsparse import nn
    >>> first = nn.SparseLinear.from_scipy(csr_array([[1.0, 0.0], [-2.0, 3.0]]))
    >>> second = nn.SparseLinear.from_scipy(csr_array([[-10.0, 0.0]]))
    >>> neuron_strength(first, second)
    array([11.,  5.])
    """
    if following is not None and following.in_features != layer.out_features:
        raise ValueError(
            f"neuron_strength expects a following layer with {layer.out_features} inputs, the outputs of "
            f"{layer!r}; got {following!r}. Pass the next affine layer of the model."
        )
    strength = _absolute_sums(layer, axis=1)
    return strength if following is None else strength + _absolute_sums(following, axis=0)


def _absolute_sums(layer: Affine, axis: int) -> Array:
    """Return Σ|w| of every row (axis 1) or column (axis 0) of a layer's weight, float64."""
    if not isinstance(layer, SparseLinear):
        return np.asarray(np.abs(layer.weight.data).sum(axis=axis, dtype=np.float64))
    weight = layer.weight
    mask = weight.buffers.get(FORWARD)  # of n_m and sr_ste: what does not take part has no strength
    used = weight.data if mask is None else np.where(mask != 0, weight.data, 0)
    topology, values = weight.topology, np.abs(weight.canonical(used))
    places = topology.coo()[0 if axis == 1 else 1]
    return np.bincount(places, values, minlength=topology.shape[0 if axis == 1 else 1])
