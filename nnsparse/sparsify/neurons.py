"""Neurons as a whole: how strong each is, and taking some out. `compact` then makes the layers smaller."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.nn.linear import SparseLinear
from nnsparse.sparsify.compact import AnyLinear, entries
from nnsparse.sparsify.units import subset

Array = NDArray[Any]


def neuron_norms(layer: AnyLinear, after: AnyLinear | None = None) -> NDArray[np.float64]:
    """Return √Σw² over each neuron's incoming weights, and over its outgoing ones too if `after` is given.

    `criteria.neuron_strength` is the same with Σ|w|.

    Parameters
    ----------
    layer : Linear, NumpyLinear or SparseLinear
        (n_out, n_in).
    after : affine layer, optional
        The one that reads these neurons; its column j belongs to neuron j.

    Returns
    -------
    (n_out,) float64
        Larger = keep.

    Raises
    ------
    ValueError
        If `after` reads another number of neurons.

    Notes
    -----
    Source: Li et al., Pruning filters for efficient ConvNets, 2017, sec. 3.1, who take the L1 norm of incoming weights
    and find the L2 norm as good. Difference: the outgoing weights may count, as they go with the neuron.
    """
    _check_reader(layer, after)
    rows, _, values = entries(layer)
    squares = _square_sums(rows, values, layer.out_features)
    if after is not None:
        _, columns, values = entries(after)
        squares += _square_sums(columns, values, layer.out_features)
    return np.sqrt(squares)


def remove_neurons(layer: AnyLinear, gone: ArrayLike, after: AnyLinear | None = None) -> None:
    """Take neurons out of a layer: their rows of W, their biases, and their columns of the next W.

    A sparse weight moves to the topology without them, with what its buffers hold; a dense weight, a bias and their
    buffers become zero there. Shapes stay as they are: `compact` makes the layers smaller.

    Parameters
    ----------
    layer : Linear, NumpyLinear or SparseLinear
        (n_out, n_in).
    gone : (n_out,) array of bool
        Which neurons go.
    after : affine layer, optional
        The one that reads them.

    Raises
    ------
    TypeError, ValueError
        If `gone` is not a mask of that shape, takes all neurons, or `after` reads another number of neurons.
    """
    mask = np.asarray(gone)
    if mask.dtype != np.bool_:
        raise TypeError(
            f"remove_neurons expects a mask of bool; got {mask.dtype}. With a list of neurons: "
            "np.isin(np.arange(layer.out_features), neurons)."
        )
    if mask.shape != (layer.out_features,):
        raise ValueError(
            f"remove_neurons expects a mask of shape ({layer.out_features},), one per neuron of "
            f"{layer!r}; got {mask.shape}"
        )
    if mask.all():
        raise ValueError(
            f"remove_neurons: no neuron of {layer!r} would be left. Keep one at least."
        )
    _check_reader(layer, after)
    _clear(layer, mask, 0)
    if layer.bias is not None:
        for array in (layer.bias.data, *layer.bias.buffers.values()):
            array[mask] = 0
    if after is not None:
        _clear(after, mask, 1)


def _clear(layer: AnyLinear, gone: Array, axis: int) -> None:
    """Take the rows (axis 0) or columns (axis 1) where `gone` is true out of a weight."""
    if isinstance(layer, SparseLinear):
        topology = layer.weight.topology
        layer.weight.move_to(subset(topology, ~gone[topology.coo()[axis]]))
    else:
        for array in (layer.weight.data, *layer.weight.buffers.values()):
            array[gone if axis == 0 else (slice(None), gone)] = 0


def _square_sums(index: Array, values: Array, n: int) -> NDArray[np.float64]:
    squares = np.square(values, dtype=np.float64)
    return np.bincount(index, weights=squares, minlength=n).astype(np.float64)


def _check_reader(layer: AnyLinear, after: AnyLinear | None) -> None:
    if after is not None and after.in_features != layer.out_features:
        raise ValueError(
            f"expected the layer that reads {layer!r}, with {layer.out_features} inputs; got {after!r}"
        )
