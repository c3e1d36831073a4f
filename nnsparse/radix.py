"""RadiX-Nets: sparse layered networks that join every input with every output by the same number of paths.

Only arithmetic on NumPy arrays: `RadixNet` checks the description and makes one layer after the other. As trainable
topologies they are `Topology.radix_net`; the networks of the Graph Challenge are made of `inputs`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Radices: TypeAlias = Sequence[int] | Sequence[Sequence[int]]


class Pattern(NamedTuple):
    """Positions of one layer's weights, CSR by output: indptr (n_out + 1,), indices (nnz,) int64, increasing."""

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]


@final
@dataclass(frozen=True)
class RadixNet:
    """The description of a RadiX-Net, checked; iterating over it makes its layers.

    Take N' nodes per layer. For the i-th radix N_i of a list, with the place value ν_i = Π_{j<i} N_j, the layer
    W_i = Σ_{n<N_i} P^{n·ν_i}, P the cyclic shift, joins node a with a, a - ν_i, …, a - (N_i - 1)·ν_i modulo N'.
    Several lists make one deeper network. Then every node stands for B neurons of its layer:
    W_i becomes ones(B_{i-1}, B_i) ⊗ W_i.

    Parameters
    ----------
    radices : list of integers >= 2, or list of such lists
        One radix per layer of weights. All lists have the product N'; the last of several may have one that
        divides N'.
    widths : list of integers, optional
        Neurons per layer, inputs first: one more than radices. Each is a multiple of N', B_i = widths[i] / N'. By
        default N' everywhere.

    Raises
    ------
    TypeError
        If radices or widths are not integers.
    ValueError
        If a radix is below 2, a product does not fit, a width is missing or no multiple of N', or a layer has 2³¹
        neurons or more.

    Notes
    -----
    Neuron j of a layer is node j mod N'. The densities of layers are N_i / N'.

    Source: R. Robinett and J. Kepner, "RadiX-Net: Structured Sparse Matrices for Deep Neural Networks", 2019, section
    3. Difference: widths count neurons, not neurons per node.

    Examples
    --------
    >>> net = RadixNet([10, 10], widths=[800, 300, 100])
    >>> net.density, net.n_paths
    (0.1, 3)
    """

    radices: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]

    def __init__(self, radices: Radices, widths: Sequence[int] | None = None) -> None:
        lists = _lists(radices)
        n_nodes = _common_product(lists)
        object.__setattr__(self, "radices", lists)
        object.__setattr__(self, "widths", _widths(widths, sum(map(len, lists)), n_nodes))
        if max(self.widths) >= 2**31:
            raise ValueError(
                f"RadixNet expects fewer than 2**31 neurons per layer; got {max(self.widths):.3g}. Without widths "
                "there are as many as the product of the radices."
            )

    @property
    def n_nodes(self) -> int:
        """N', the product of the first list of radices."""
        return math.prod(self.radices[0])

    @property
    def nnz(self) -> int:
        """Weights of all layers together."""
        flat = (radix for numbers in self.radices for radix in numbers)
        pairs = zip(flat, self.widths, self.widths[1:], strict=False)
        return sum(radix * n_in * n_out for radix, n_in, n_out in pairs) // self.n_nodes

    @property
    def density(self) -> float:
        """Σ N_i·B_{i-1}·B_i / (N'·Σ B_{i-1}·B_i), of all layers together."""
        return self.nnz / sum(a * b for a, b in zip(self.widths, self.widths[1:], strict=False))

    @property
    def n_paths(self) -> int:
        """Paths from any input to any output: Π N_i / N' times Π B_i of the layers between."""
        paths = math.prod(radix for numbers in self.radices for radix in numbers) // self.n_nodes
        return paths * math.prod(width // self.n_nodes for width in self.widths[1:-1])

    def __len__(self) -> int:
        """Return the number of layers of weights."""
        return len(self.widths) - 1

    def __iter__(self) -> Iterator[Pattern]:
        """Make the layers one after the other; cost O(nnz) each."""
        n_nodes, layer = self.n_nodes, 0
        for numbers in self.radices:
            place = 1
            for radix in numbers:
                n_in, n_out = self.widths[layer : layer + 2]
                rows = inputs(n_nodes, radix, place, n_in // n_nodes)
                indptr = np.arange(n_out + 1, dtype=np.int64) * rows.shape[1]
                yield Pattern((n_out, n_in), indptr, np.tile(rows, (n_out // n_nodes, 1)).ravel())
                place *= radix
                layer += 1


def inputs(n_nodes: int, radix: int, place: int, copies: int) -> NDArray[np.int64]:
    """Return the inputs of each node, the columns of ones(copies, 1) ⊗ Σ_{n<radix} P^{n·place}.

    Parameters
    ----------
    n_nodes, radix, place : int
        N', N_i and ν_i, with radix * place <= n_nodes. Not checked.
    copies : int
        Input neurons per node; neuron j is node j mod n_nodes.

    Returns
    -------
    (n_nodes, copies * radix) int64
        Increasing in each row.

    Examples
    --------
    >>> inputs(4, 2, 2, 1)
    array([[0, 2], [1, 3], [0, 2], [1, 3]])
    """
    nodes = (np.arange(n_nodes)[:, None] + np.arange(radix) * place) % n_nodes
    nodes.sort(axis=1)
    neurons = nodes[:, None, :] + np.arange(copies)[:, None] * n_nodes
    return neurons.reshape(n_nodes, -1)


# ---------------------------------------------------------------- validation


def _integer(what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"RadixNet expects {what} to be an integer; got {value!r}. Pass e.g. "
            "RadixNet([[10, 10]], widths=[800, 300, 100])."
        ) from None


def _lists(radices: Radices) -> tuple[tuple[int, ...], ...]:
    """Return the lists of radices as tuples; one flat list is one list."""
    flat: list[Any] = _items("radices", radices)
    if not any(isinstance(item, Sequence | np.ndarray) for item in flat):
        flat = [flat]
    lists = tuple(
        tuple(_integer("each radix", radix) for radix in _items("each list of radices", item))
        for item in flat
    )
    for numbers in lists:
        if not numbers or min(numbers) < 2:
            raise ValueError(
                f"RadixNet expects lists of radices >= 2; got {list(numbers)}. "
                "A radix is the number of nodes that a node is joined with."
            )
    return lists


def _items(what: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"RadixNet expects {what} to be a list; got {value!r}. Pass e.g. [2, 2].")
    return list(value)


def _common_product(lists: tuple[tuple[int, ...], ...]) -> int:
    """Return N', which every list has as its product; the last one's may divide it."""
    n_nodes = math.prod(lists[0])
    for i, numbers in enumerate(lists[1:], 1):
        product, last = math.prod(numbers), i == len(lists) - 1
        if n_nodes % product if last else product != n_nodes:
            fit = f"divide N' = {n_nodes}" if last else f"be N' = {n_nodes}"
            raise ValueError(
                f"RadixNet expects the product of radices[{i}] to {fit}, the product of the first "
                f"list; got {product} from {list(numbers)}. Only the last list's may be smaller."
            )
    return n_nodes


def _widths(widths: Sequence[int] | None, n_layers: int, n_nodes: int) -> tuple[int, ...]:
    """Return the neurons of each layer."""
    if widths is None:
        return (n_nodes,) * (n_layers + 1)
    found = tuple(_integer("each width", width) for width in _items("widths", widths))
    if len(found) != n_layers + 1:
        raise ValueError(
            f"RadixNet expects {n_layers + 1} widths for {n_layers} radices, the inputs' first; "
            f"got {len(found)}. A radix is one layer of weights, between two widths."
        )
    for i, width in enumerate(found):
        if width < 1 or width % n_nodes:
            above = max(-(-width // n_nodes), 1) * n_nodes
            raise ValueError(
                f"RadixNet expects widths that are multiples of N' = {n_nodes}; got {width} at "
                f"{i}. Take {above} (inputs can be padded with zeros), or other radices."
            )
    return found
