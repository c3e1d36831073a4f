"""N:M patterns as topologies, and 2:4 weights packed with two bits of metadata each. The unit is `units.NofM`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.sparsify.units import NofM, subset
from nnsparse.topology import Topology

Array = NDArray[Any]


def n_m_topology(scores: ArrayLike, n: int, m: int) -> Topology:
    """Return the positions of the n largest scores in every m consecutive inputs of a neuron.

    Parameters
    ----------
    scores : (n_out, n_in) array of numbers
        Larger = keep: np.abs(W), or rng.random(shape) for a random pattern. Ties go to the lower position, NaN last.
    n, m : int
        1 <= n <= m. The last group of a row is short where n_in is no multiple of m.

    Raises
    ------
    TypeError, ValueError
        If n or m is not an integer in its range, or `scores` is not a matrix of numbers.

    Notes
    -----
    Cost: O(n_out · n_in · m).

    Examples
    --------
    >>> n_m_topology([[1.0, 4.0, 3.0, 2.0, 5.0]], 2, 4).indices
    array([1, 2, 4], dtype=int32)
    """
    array = np.asarray(scores)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"n_m_topology expects scores as numbers of shape (n_out, n_in); got {array.dtype} {array.shape}."
        )
    full = Topology.full(array.shape)
    kind = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
    return subset(full, NofM(n, m).best(full, array.astype(kind).reshape(-1)))


@dataclass(frozen=True)
class Packed2of4:
    """A 2:4 weight matrix as sparse tensor cores read it: two values of every four, and where they stood.

    Attributes
    ----------
    shape : (n_out, n_in)
    values : (n_out · 2⌈n_in / 4⌉,) array
        By row and group. A row is padded with zeros to a multiple of four inputs.
    metadata : (⌈len(values) / 4⌉,) uint8
        Two bits per value, its column modulo 4; the first of four values in the lowest bits.
    """

    shape: tuple[int, int]
    values: Array
    metadata: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes of values and metadata: a float32 matrix takes 8.5 bytes for every four positions instead of 16."""
        return int(self.values.nbytes + self.metadata.nbytes)


def pack_2_4(topology: Topology, values: ArrayLike) -> Packed2of4:
    """Return 2:4 weights with two bits of metadata each.

    Parameters
    ----------
    topology : Topology
        With exactly two positions in every four consecutive inputs; in the last group of a row, where n_in % 4 == 1,
        with the one that there is.
    values : (nnz,) array
        In canonical order.

    Raises
    ------
    ValueError
        If a group has another number of positions, or the values another shape.
    """
    array = np.asarray(values)
    n_out, n_in = topology.shape
    if array.shape != (topology.nnz,):
        raise ValueError(
            f"pack_2_4 expects one value per position, ({topology.nnz},); got {array.shape}"
        )
    per_row = -(-n_in // 4)
    rows, columns = topology.coo()
    group = rows.astype(np.int64) * per_row + columns // 4
    counts = np.bincount(group, minlength=n_out * per_row).reshape(n_out, per_row)
    expected = np.full(per_row, 2)
    expected[n_in // 4 :] = min(2, n_in % 4)
    wrong = np.argwhere(counts != expected)
    if wrong.size:
        row, g = map(int, wrong[0])
        raise ValueError(
            f"pack_2_4 expects {expected[g]} weights in row {row}, columns {4 * g} to {min(n_in, 4 * g + 4) - 1}; "
            f"got {counts[row, g]}. n_m_topology(np.abs(W), 2, 4) makes such a topology, NofM(2, 4) prunes to one."
        )
    place = np.arange(group.size) - (np.cumsum(counts) - counts.reshape(-1))[group]
    # What pads a row stands behind its only weight: codes 0 and 1.
    codes = np.tile(np.array([0, 1], np.uint8), (n_out * per_row, 1))
    packed = np.zeros(codes.shape, array.dtype)
    codes[group, place] = columns % 4
    packed[group, place] = array
    four = np.zeros((-(-codes.size // 4), 4), np.uint8)
    four.reshape(-1)[: codes.size] = codes.reshape(-1)
    metadata = np.bitwise_or.reduce(four << _SHIFTS, axis=1)
    return Packed2of4(topology.shape, packed.reshape(-1), metadata)


def unpack_2_4(packed: Packed2of4) -> tuple[Topology, Array]:
    """Return (topology, values (nnz,) in canonical order): the inverse of `pack_2_4`."""
    n_out, n_in = packed.shape
    codes = (packed.metadata[:, None] >> _SHIFTS & 3).reshape(-1)[: packed.values.size]
    per_row = -(-n_in // 4)
    columns = np.tile(np.repeat(4 * np.arange(per_row), 2), n_out) + codes
    real = columns < n_in
    indptr = np.arange(n_out + 1) * np.count_nonzero(real) // max(n_out, 1)
    return Topology(packed.shape, indptr, columns[real]), packed.values[real]


_SHIFTS = np.array([0, 2, 4, 6], np.uint8)
