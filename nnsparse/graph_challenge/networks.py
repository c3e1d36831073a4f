"""The networks of the Sparse DNN Graph Challenge, exact, made layer by layer in constant memory.

A `Network` is anything that yields `Layer`s: made here, or read from a folder of TSV files (`tsv.folder`). What is
computed with them is in `inference`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from nnsparse.radix import inputs
from nnsparse.topology import Topology

BIAS = {1024: -0.30, 4096: -0.35, 16384: -0.40, 65536: -0.45}
"""The official bias of all neurons, by neurons per layer."""

_COPIES = 16  # neurons per node: ones(16, 16) in the Kronecker product
_SEED = 5489  # of the Mersenne twister that draws the permutations, MATLAB's default


class Layer(NamedTuple):
    """One layer's weights by output neuron; any sparse matrix, not only the challenge's.

    indptr (n_out + 1,) int64; indices (nnz,) int32, the inputs of each output neuron, increasing; values (nnz,)
    float32. They are the CSC arrays of the challenge's W (from, to).
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]


@final
@dataclass(frozen=True, eq=False)
class Network:
    """A network whose layers are made or read when they are asked for, every time anew.

    Parameters
    ----------
    n_neurons, n_layers : int
        Each layer joins n_neurons with n_neurons.
    bias : float
        Of all neurons.
    layers : function
        Returns an iterator over the n_layers layers.
    count : function
        Returns the number of weights of all layers together; called at most once.

    Raises
    ------
    TypeError
        If a number is none, or a function cannot be called.
    ValueError
        If n_neurons or n_layers is not from 1 to 2**31 - 1, or the bias is not finite.
    """

    n_neurons: int
    n_layers: int
    bias: float
    layers: Callable[[], Iterator[Layer]] = field(repr=False)
    count: Callable[[], int] = field(repr=False)

    def __post_init__(self) -> None:
        at_least_1("n_neurons", self.n_neurons)
        at_least_1("n_layers", self.n_layers)
        if isinstance(self.bias, bool) or not isinstance(self.bias, Real):
            raise TypeError(f"Network expects a number as bias; got {self.bias!r}. Pass e.g. -0.3.")
        bias_of(self.n_neurons, float(self.bias))
        for name, function in (("layers", self.layers), ("count", self.count)):
            if not callable(function):
                raise TypeError(
                    f"Network expects {name} to be a function without arguments; got {type(function).__name__}. Pass "
                    f"lambda: …"
                )

    @cached_property
    def nnz(self) -> int:
        """Weights of all layers together: the challenge's number of edges."""
        return self.count()

    def __len__(self) -> int:
        return self.n_layers

    def __iter__(self) -> Iterator[Layer]:
        return self.layers()


def network(n_neurons: int, n_layers: int, bias: float | None = None) -> Network:
    """Return the challenge's network of this size, value for value that of the official files.

    With N' = n_neurons / 16 = 2^r nodes, r layers are a block: a RadiX-Net of radices 2, whose layer k joins node a
    with a and a - 2^k modulo N'. Each node stands for 16 neurons, so that a neuron has 32 inputs and 32 outputs, all
    of weight 1/16. Block 0 is as it is, each later one has its inputs permuted: W[p] = block, with
    p = argsort of the next n_neurons numbers of MT19937, seed 5489.

    Parameters
    ----------
    n_neurons : int
        1024, 4096, 16384 or 65536; with a bias also another 16·2^r, r >= 1.
    n_layers : int
        At least 1; officially 120, 480 or 1920. A shorter network is the beginning of a longer one.
    bias : float, optional
        By default the official one of this size.

    Returns
    -------
    Network

    Raises
    ------
    TypeError
        If n_neurons or n_layers is not an integer.
    ValueError
        If there is no such network, or no bias.

    Notes
    -----
    Cost: O(n_neurons) time and memory per layer, 32 weights for each; nothing is kept.

    Source: J. Kepner et al., "Sparse Deep Neural Network Graph Challenge", HPEC 2019. How the official files were
    permuted is not published; it was found from them, and the sha256 of all 120 layers of 1024 neurons agrees.

    Examples
    --------
    >>> net = network(1024, 120)
    >>> net.nnz, net.bias
    (3932160, -0.3)
    """
    size, depth = at_least_1("n_neurons", n_neurons), at_least_1("n_layers", n_layers)
    n_nodes, rest = divmod(size, _COPIES)
    if rest or n_nodes < 2 or n_nodes & (n_nodes - 1):
        raise ValueError(
            f"network expects 16·2^r neurons per layer, r >= 1; got {n_neurons}. The challenge "
            "has 1024, 4096, 16384 and 65536."
        )
    nnz = 2 * _COPIES * size * depth
    return Network(size, depth, bias_of(size, bias), lambda: _generate(size, depth), lambda: nnz)


def _generate(n_neurons: int, n_layers: int) -> Iterator[Layer]:
    n_nodes = n_neurons // _COPIES
    per_block = n_nodes.bit_length() - 1
    rng = np.random.RandomState(_SEED)
    indptr = np.arange(n_neurons + 1, dtype=np.int64) * (2 * _COPIES)
    permutation = np.empty(0, np.int64)
    for layer in range(n_layers):
        block, k = divmod(layer, per_block)
        rows = inputs(n_nodes, 2, 2**k, _COPIES)
        if block and k == 0:
            permutation = np.argsort(rng.random_sample(n_neurons))
        if block:
            rows = permutation[rows]
            rows.sort(axis=1)
        indices = np.tile(rows.astype(np.int32), (_COPIES, 1)).ravel()
        # Nobody may change what another layer shares, so the pointers are copied, not lent.
        yield Layer(indptr.copy(), indices, np.full(indices.size, 1 / _COPIES, np.float32))


def bias_of(n_neurons: int, bias: float | None = None) -> float:
    """Return the bias given, checked, or the official one of this size.

    Raises
    ------
    ValueError
        If it is not finite, or none is given and the size is not one of the challenge's.
    """
    if bias is None:
        if n_neurons not in BIAS:
            raise ValueError(
                f"the challenge has a bias for {', '.join(map(str, BIAS))} neurons; got "
                f"{n_neurons} neurons. Pass bias=."
            )
        return BIAS[n_neurons]
    if not math.isfinite(bias):
        raise ValueError(f"expected a finite bias; got {bias}. Pass a number such as -0.3.")
    return float(bias)


def check_layer(layer: Layer, n_neurons: int) -> Layer:
    """Return a layer with its arrays in the dtypes of `Layer`, after a look at every index and value.

    Parameters
    ----------
    layer : Layer, or any (indptr, indices, values)
        Weights (n_neurons, n_neurons) by output.
    n_neurons : int
        Neurons of the layer before and of this one.

    Raises
    ------
    TypeError
        If indices are not integers, or values not numbers.
    ValueError
        If a length, pointer, index or order is wrong, a position occurs twice, or a value is not finite.

    Notes
    -----
    Cost: O(nnz) time and memory.
    """
    if not isinstance(layer, tuple | list) or len(layer) != 3:
        raise TypeError(
            f"a layer is (indptr, indices, values), three arrays; got {type(layer).__name__}. Pass Layer(...)."
        )
    indptr, indices, values = (np.asarray(array) for array in layer)
    Topology((n_neurons, n_neurons), indptr, indices)  # raises if anything is wrong
    if values.dtype.kind not in "fiub":
        raise TypeError(f"a layer's values are numbers; got dtype {values.dtype}. Pass float32.")
    if values.shape != indices.shape:
        raise ValueError(
            f"a layer has one value per index; got {values.shape} values and {indices.shape} "
            "indices. Pass flat arrays of equal length."
        )
    check_finite(values)
    as_ = np.ascontiguousarray
    return Layer(as_(indptr, np.int64), as_(indices, np.int32), as_(values, np.float32))


def check_finite(values: NDArray[Any]) -> None:
    """Refuse a value that is NaN, infinite or too large for float32.

    Raises
    ------
    ValueError
        Names the first.
    """
    bad = ~(np.abs(values) <= np.finfo(np.float32).max)
    if bad.any():
        place = int(np.argmax(bad))
        raise ValueError(
            f"expected finite float32 numbers; got {values[place]} at {place}. Remove or repair it."
        )


def at_least_1(name: str, value: Any) -> int:
    """Return `value` as a Python int; TypeError or ValueError unless it is an integer from 1 to 2**31 - 1."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"expected {name} to be an integer; got {value!r}. Pass e.g. 1024."
        ) from None
    if not 1 <= number < 2**31:
        raise ValueError(f"expected {name} from 1 to 2**31 - 1; got {number}. Is it the right one?")
    return number
