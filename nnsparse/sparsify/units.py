"""What is kept or dropped together: single weights, N of every M inputs, neurons, blocks; `fan_in` has another unit.

A unit says which of a layer's k best stored weights stay. Scores come from `criteria` and `saliency`, k from `shares`;
`update` applies the answer. Ties go to the lower canonical position, and a score of NaN counts as the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.kernels import planning
from nnsparse.kernels.groups import best_n_of_m
from nnsparse.kernels.select import largest
from nnsparse.sparsify.arguments import integer
from nnsparse.sparsify.context import Target
from nnsparse.topology import Topology

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class Unit(Protocol):
    """Says which stored weights stay: frozen, without state, the same answer for any number of threads."""

    def keep(self, target: Target, scores: Array, k: int) -> Mask:
        """Return a mask (nnz,), in canonical order: the weights that stay when about k of them may.

        Parameters
        ----------
        target : Target
        scores : (nnz,) array
            In canonical order, larger = keep.
        k : int
            From 0 to nnz. Each unit says how exactly it is met; `mask.sum()` is the number that counts.

        Raises
        ------
        TypeError, ValueError
            If the scores are not one number per stored weight, or k is not an integer in its range.
        """


@dataclass(frozen=True)
class Weight:
    """Single weights: exactly the k with the largest scores.

    Notes
    -----
    Cost: O(nnz).
    """

    def keep(self, target: Target, scores: Array, k: int) -> Mask:
        """Return the mask (nnz,) of the k largest scores; see `Unit`."""
        return largest(*checked("Weight", target, scores, k))


@dataclass(frozen=True)
class NofM:
    """N of M: the n best in every group of m consecutive inputs of a neuron.

    The last group of a row is short where n_in is no multiple of m, as if it were padded with weights that score
    nothing; a group that stores n weights or fewer keeps them all. So k follows from the topology: `count` gives it.

    Parameters
    ----------
    n, m : int
        1 <= n <= m. NVIDIA's sparse tensor cores take 2 of 4.

    Raises
    ------
    TypeError, ValueError
        If n or m is not an integer in its range; from `keep`, if k is another number than `count`.

    Notes
    -----
    Cost: O(nnz · m).
    Source: Zhou et al., Learning N:M fine-grained structured sparse neural networks from scratch, 2021, sec. 3.

    Examples
    --------
    >>> NofM(2, 4).count(Topology.full((3, 10)))
    18
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        n, m = integer("NofM", "n", self.n), integer("NofM", "m", self.m)
        if not 1 <= n <= m:
            raise ValueError(f"NofM expects 1 <= n <= m, as in NofM(2, 4); got n={n}, m={m}.")
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "m", m)

    def count(self, topology: Topology) -> int:
        """Return how many of a topology's positions stay."""
        rows, columns = topology.coo()
        groups = rows.astype(np.int64) * -(-topology.shape[1] // self.m) + columns // self.m
        sizes = np.unique(groups, return_counts=True)[1]
        return int(np.minimum(sizes, self.n).sum())

    def best(self, topology: Topology, scores: Array) -> Mask:
        """Return the mask (nnz,) of the n largest scores, (nnz,), in every group; `keep` without a number."""
        kept = np.empty(topology.nnz, np.bool_)
        best_n_of_m(*topology.csr(), scores, self.n, self.m, kept)
        return kept

    def keep(self, target: Target, scores: Array, k: int) -> Mask:
        """Return the mask (nnz,) of the n best in every group; see `Unit`."""
        scores, k = checked(f"{self}", target, scores, k)
        kept = self.best(target.topology, scores)
        total = int(np.count_nonzero(kept))
        if k != total:
            raise ValueError(
                f"{self} keeps {total} weights of layer {target.name!r}; got k={k}. N:M decides the "
                "number itself: pass k = unit.count(target.topology)."
            )
        return kept


@dataclass(frozen=True)
class Neuron:
    """Whole neurons: rows of W in order of their summed scores, as many as have k weights or fewer together.

    Rows are taken best first, up to the first that would make it more than k. With k >= 1 the best row stays even if
    it alone has more. A row without weights is not a neuron any more. The biases are not touched: a neuron without
    weights goes on giving a constant, which `compact` folds into the next layer.

    Notes
    -----
    Cost: O(nnz). Source: Li et al., Pruning filters for efficient ConvNets, 2017, sec. 3, for rows instead of filters.
    """

    def keep(self, target: Target, scores: Array, k: int) -> Mask:
        """Return the mask (nnz,) of the rows that stay; see `Unit`."""
        scores, k = checked("Neuron", target, scores, k)
        return _whole(target.topology.rows(), scores, k)


@dataclass(frozen=True)
class Block:
    """Rectangles of W: blocks of rows × cols positions in order of their summed scores, k weights or fewer together.

    The blocks lie side by side from the top left; those at the right and lower edge may be smaller. They are taken as
    `Neuron` takes rows.

    Parameters
    ----------
    rows, cols : int
        At least 1; else TypeError or ValueError.

    Notes
    -----
    Source: Narang et al., Block-sparse recurrent neural networks, 2017. Difference: blocks are ranked by the sum of
    their weights' scores instead of the largest one, against a count instead of a threshold.
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        for name, given in (("rows", self.rows), ("cols", self.cols)):
            number = integer("Block", name, given)
            if number < 1:
                raise ValueError(f"Block expects {name} >= 1; got {number}.")
            object.__setattr__(self, name, number)

    def groups(self, topology: Topology) -> Array:
        """Return the number of each position's block, (nnz,), counted along the rows of blocks."""
        rows, columns = topology.coo()
        per_row = -(-topology.shape[1] // self.cols)
        groups: Array = rows.astype(np.int64) // self.rows * per_row + columns // self.cols
        return groups

    def keep(self, target: Target, scores: Array, k: int) -> Mask:
        """Return the mask (nnz,) of the blocks that stay; see `Unit`."""
        scores, k = checked(f"{self}", target, scores, k)
        return _whole(self.groups(target.topology), scores, k)


# ---------------------------------------------------------------- choosing


def subset(topology: Topology, mask: Mask) -> Topology:
    """Return the topology of those positions where `mask`, (nnz,) in canonical order, is true.

    Raises
    ------
    ValueError
        If the mask has another length.
    """
    mask = np.asarray(mask, np.bool_)
    if mask.shape != (topology.nnz,):
        raise ValueError(
            f"subset expects a mask of shape ({topology.nnz},), one per position; got {mask.shape}"
        )
    n = int(np.count_nonzero(mask))
    indptr, columns = np.empty_like(topology._indptr), np.empty(n + 1, topology._columns.dtype)
    chosen = np.ascontiguousarray(mask).view(np.uint8)
    planning.select_positions(*topology.sound(), chosen, indptr, columns)
    return Topology._canonical(topology.shape, indptr, columns[:n])


def _whole(groups: Array, scores: Array, k: int) -> Mask:
    """Return the mask (nnz,) of the groups that stay: the largest sums, up to k weights, or the best one alone."""
    sizes = np.bincount(groups)
    sums = np.bincount(groups, weights=scores)
    present = np.flatnonzero(sizes)
    order = present[np.argsort(-sums[present], kind="stable")]
    n_kept = int(np.searchsorted(np.cumsum(sizes[order]), k, side="right"))
    stays = np.zeros(sizes.size, np.bool_)
    stays[order[: max(n_kept, min(k, 1))]] = True
    return np.asarray(stays[groups])


# ---------------------------------------------------------------- checks


def checked(who: str, target: Target, scores: ArrayLike, k: int) -> tuple[Array, int]:
    """Return scores as a floating-point array (nnz,) and k as a Python int."""
    array, nnz = np.asarray(scores), target.nnz
    if array.shape != (nnz,) or array.dtype.kind not in "fiub":
        raise ValueError(
            f"{who}: layer {target.name!r} expects one score per stored weight, numbers of shape ({nnz},); got "
            f"{array.dtype} {array.shape}. Scores are in canonical order, stored weights only."
        )
    number = integer(who, "k", k)
    if not 0 <= number <= nnz:
        raise ValueError(
            f"{who}: layer {target.name!r} has {nnz} weights; cannot keep k={number} of them."
        )
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    return array, number
