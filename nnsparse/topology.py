"""The positions of one weight matrix's nonzeros: validated once, immutable, without values.

Everything takes O(nnz + n_out + n_in) memory, never n_out * n_in, unless it is called dense. The
counts and draws come from `allocation`, the kernels' own order of the nonzeros from `plan`.
This file has more than 300 lines because constructors, views and set algebra are one class.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import sparse

from nnsparse.allocation import Shape, check_shape, draw, exact_count
from nnsparse.kernels import planning
from nnsparse.radix import Radices, RadixNet
from nnsparse.space import check_room

Ints: TypeAlias = NDArray[Any]  # int32 or int64, by size
Seed: TypeAlias = np.random.Generator | int | None
T = TypeVar("T")


@final
class Topology:
    """The immutable set of positions of a weight matrix, canonical CSR, no values.

    The canonical order of the nonzeros is by row, within a row by column. Column indices are kept
    in 2 bytes when n_in <= 65536, else 4 or 8. Two topologies with the same shape and positions
    are equal and have the same hash.

    Parameters
    ----------
    shape : (n_out, n_in)
        Two integers >= 0 with n_out * n_in < 2**63.
    indptr : (n_out + 1,) integers
        Row o has its nonzeros at indptr[o] .. indptr[o + 1] - 1.
    indices : (nnz,) integers
        Their columns, strictly increasing within each row. Both arrays are copied.

    Raises
    ------
    TypeError
        If the shape or an array is not of integers.
    ValueError
        If a length, a pointer or an index is wrong, or a row is unsorted or has duplicates; the
        message names the first place. `from_scipy` and `from_coo` sort.

    Examples
    --------
    >>> Topology((2, 3), [0, 2, 3], [0, 2, 1])
    Topology(2 x 3, nnz=3, sparsity=0.5)
    """

    __slots__ = (
        "__weakref__", "_columns", "_derived", "_fingerprint", "_indptr", "_sealed", "shape",
    )  # fmt: skip
    shape: Shape
    _indptr: Ints
    _columns: NDArray[Any]
    _fingerprint: bytes
    _derived: dict[Any, Any]
    _sealed: tuple[Ints, NDArray[Any]]  # the arrays as they were checked

    def __init__(self, shape: Shape, indptr: ArrayLike, indices: ArrayLike) -> None:
        shape = check_shape(shape)
        pointers, columns = _integers("indptr", indptr), _integers("indices", indices)
        _check_pointers(shape, pointers, columns.size)
        _check_range("indices", columns, shape[1], "n_in")
        _check_sorted(pointers, columns)
        self._store(shape, pointers, columns)

    def _store(self, shape: Shape, indptr: NDArray[Any], columns: NDArray[Any]) -> Topology:
        """Set the fields from arrays known to be canonical, copied and in the smallest dtype."""
        small = np.uint16 if shape[1] <= 2**16 else _index_dtype(shape[1])
        columns = np.array(columns, dtype=small, order="C")
        indptr = np.array(indptr, dtype=_index_dtype(columns.size), order="C")
        columns.flags.writeable = indptr.flags.writeable = False
        fill = object.__setattr__
        fill(self, "shape", shape)
        fill(self, "_indptr", indptr)
        fill(self, "_columns", columns)
        fill(self, "_fingerprint", b"")
        fill(self, "_derived", {})
        fill(self, "_sealed", (indptr, columns))
        return self

    @classmethod
    def _canonical(cls, shape: Shape, indptr: NDArray[Any], columns: NDArray[Any]) -> Topology:
        return cls.__new__(cls)._store(shape, indptr, columns)

    @classmethod
    def _from_keys(cls, shape: Shape, keys: NDArray[np.int64]) -> Topology:
        """Build from increasing keys row * n_in + column."""
        n_out, n_in = shape
        rows, columns = np.divmod(keys, max(n_in, 1))
        indptr = np.zeros(n_out + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=n_out), out=indptr[1:])
        return cls._canonical(shape, indptr, columns)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Topology is immutable; cannot set {name}. Build a new one.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Topology is immutable; cannot delete {name}. Build a new one.")

    def __getattr__(self, name: str) -> Any:
        made = "" if name not in self.__slots__ else ": it was never made. Call Topology(...)"
        raise AttributeError(f"this Topology has no {name!r}{made}")

    def sound(self) -> tuple[Ints, NDArray[Any]]:
        """Return the row pointers and columns that compiled loops take, which check no bounds.

        Costs nothing unless somebody got round the immutability; then every number is looked at again.

        Raises
        ------
        ValueError
            If they are not what a constructor makes.
        """
        indptr, columns = self._indptr, self._columns
        if not (
            self._sealed[0] is indptr
            and self._sealed[1] is columns
            and not indptr.flags.writeable
            and not columns.flags.writeable
        ):
            self._check_again(indptr, columns)
        return indptr, columns

    def _check_again(self, indptr: Any, columns: Any) -> None:
        try:
            for name, array, good in zip(
                ("_indptr", "_columns"), (indptr, columns), self._sealed, strict=True
            ):
                if (
                    not isinstance(array, np.ndarray)
                    or array.dtype != good.dtype
                    or not array.flags.c_contiguous
                ):
                    raise ValueError(f"{name} is another kind of array")
            _check_pointers(self.shape, _integers("_indptr", indptr), columns.size)
            _check_range("_columns", _integers("_columns", columns), self.shape[1], "n_in")
            _check_sorted(indptr, columns)
        except ValueError as error:
            raise ValueError(
                f"somebody has changed a Topology, which is immutable: {error} Build a new one."
            ) from error

    def __copy__(self) -> Topology:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Topology:
        return self

    def __reduce__(self) -> tuple[type[Topology], tuple[Any, ...]]:
        return Topology, (self.shape, self._indptr, self._columns)

    # ------------------------------------------------------------ constructors

    @classmethod
    def random(
        cls,
        shape: Shape,
        *,
        sparsity: float | None = None,
        density: float | None = None,
        nnz: int | None = None,
        rng: Seed = None,
    ) -> Topology:
        """Draw a topology with an exact number of nonzeros, every such set equally likely.

        Parameters
        ----------
        shape : (n_out, n_in)
            Two integers >= 0 with n_out * n_in < 2**63.
        sparsity, density : float in [0, 1], optional
            Fraction of zeros, of nonzeros: nnz = round(density * n_out * n_in).
        nnz : int, optional
            The number itself. Give exactly one of the three.
        rng : numpy.random.Generator, int or None
            Source of randomness, or its seed; None seeds from the system.

        Raises
        ------
        TypeError, ValueError
            As `allocation.exact_count` and `allocation.check_shape`, and if there is no room for so many nonzeros.

        Notes
        -----
        Cost: O(nnz + n_out) memory; time also O(nnz log nnz), for one sort, below density 1/8.
        """
        n_out, n_in = shape = check_shape(shape)
        count = exact_count(n_out * n_in, sparsity=sparsity, density=density, nnz=nnz)
        _check_room(shape, count)
        return cls._from_keys(shape, draw(n_out * n_in, count, np.random.default_rng(rng)))

    @classmethod
    def full(cls, shape: Shape) -> Topology:
        """Return the topology with all n_out * n_in positions."""
        n_out, n_in = shape = check_shape(shape)
        _check_room(shape, n_out * n_in)
        indptr = np.arange(n_out + 1, dtype=np.int64) * n_in
        return cls._canonical(shape, indptr, np.tile(np.arange(n_in), n_out))

    @classmethod
    def empty(cls, shape: Shape) -> Topology:
        """Return the topology without any position."""
        shape = check_shape(shape)
        _check_room(shape, 0)
        return cls._canonical(shape, np.zeros(shape[0] + 1, np.int32), np.empty(0, np.int32))

    @classmethod
    def from_scipy(cls, m: sparse.spmatrix[Any] | sparse.sparray[Any]) -> Topology:
        """Return the stored positions of a SciPy sparse matrix or array (n_out, n_in).

        Sorts and merges duplicates, in a copy. Stored zeros stay: a zero is a legal weight (DIA
        matrices cannot store any).

        Raises
        ------
        TypeError, ValueError
            If `m` is not sparse, not 2-D, or its index arrays are inconsistent.
        """
        if not isinstance(m, sparse.spmatrix | sparse.sparray):
            raise TypeError(
                f"from_scipy expects a SciPy sparse matrix; got {type(m).__name__}. "
                "Dense? Use Topology.from_dense."
            )
        matrix: Any = m  # SciPy's two families share these methods but no typed base
        if matrix.ndim != 2:
            raise ValueError(
                f"from_scipy expects shape (n_out, n_in); got {matrix.shape}. Reshape it."
            )
        shape = check_shape(matrix.shape)
        check_scipy(matrix)
        csr = matrix.tocsr()
        ones = np.ones(csr.indices.size, np.bool_)
        copy = sparse.csr_array((ones, csr.indices, csr.indptr), shape=shape, copy=True)
        copy.check_format(full_check=True)
        copy.sum_duplicates()
        return cls._canonical(shape, copy.indptr, copy.indices)

    @classmethod
    def from_dense(cls, mask: ArrayLike) -> Topology:
        """Return the positions where `mask`, (n_out, n_in) of bool or numbers, is not zero."""
        array = np.asarray(mask)
        if array.ndim != 2:
            raise ValueError(
                f"from_dense expects an array (n_out, n_in); got shape {array.shape}. Reshape it."
            )
        return cls._from_keys(check_shape(array.shape), np.flatnonzero(array).astype(np.int64))

    @classmethod
    def from_coo(cls, shape: Shape, rows: ArrayLike, cols: ArrayLike) -> Topology:
        """Return the positions (rows[k], cols[k]), given in any order.

        Parameters
        ----------
        shape : (n_out, n_in)
            Two integers >= 0 with n_out * n_in < 2**63.
        rows, cols : (nnz,) integers
            Below n_out and n_in.

        Raises
        ------
        TypeError, ValueError
            If the arrays are not of integers, differ in length, are out of range, or a position
            occurs twice.
        """
        n_out, n_in = shape = check_shape(shape)
        row, col = _integers("rows", rows), _integers("cols", cols)
        if row.size != col.size:
            raise ValueError(
                f"from_coo expects rows and cols of equal length; got {row.size} and {col.size}. "
                "Pass one row and one column per nonzero."
            )
        _check_range("rows", row, n_out, "n_out")
        _check_range("cols", col, n_in, "n_in")
        keys = row.astype(np.int64) * n_in + col.astype(np.int64)
        keys.sort()
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if twice.size:
            place = divmod(int(keys[twice[0]]), n_in)
            raise ValueError(
                f"from_coo expects distinct positions; got row {place[0]}, column {place[1]} "
                "twice. Merge duplicates first, or use from_scipy, which does."
            )
        return cls._from_keys(shape, keys)

    @classmethod
    def radix_net(cls, radices: Radices, widths: Sequence[int] | None = None) -> list[Topology]:
        """Return the layers of a RadiX-Net, sparse and regular, with as many paths between every two ends.

        Parameters
        ----------
        radices : list of integers >= 2, or list of such lists
            One radix N_i per layer, which then has density N_i / N'. N' is the product of each list; that of the
            last of several lists may be a divisor.
        widths : list of integers, optional
            Neurons per layer, inputs first: one more than radices, multiples of N'. By default N' everywhere.

        Returns
        -------
        list of Topology
            One per radix, of shape (widths[i + 1], widths[i]).

        Raises
        ------
        TypeError, ValueError
            As `radix.RadixNet`, which also has the construction, its source, and the number of paths.

        Notes
        -----
        Cost: O(nnz + n_out) memory.

        Examples
        --------
        >>> Topology.radix_net([10, 10], widths=[800, 300, 100])
        [Topology(300 x 800, nnz=24000, sparsity=0.9), Topology(100 x 300, nnz=3000, sparsity=0.9)]
        """
        return [cls._canonical(*pattern) for pattern in RadixNet(radices, widths)]

    # ------------------------------------------------------------ facts

    @property
    def nnz(self) -> int:
        """Number of positions."""
        return int(self._columns.size)

    @property
    def density(self) -> float:
        """Nonzeros / (n_out * n_in); 0 for a matrix without entries."""
        return self.nnz / max(self.shape[0] * self.shape[1], 1)

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1.0 - self.density

    @property
    def is_full(self) -> bool:
        """Whether every position is in it."""
        return self.nnz == self.shape[0] * self.shape[1]

    @property
    def indptr(self) -> Ints:
        """Row pointers, (n_out + 1,) int32, int64 from 2**31 nonzeros on; read-only."""
        view: Ints = self._indptr.view()  # of which nobody can take back that it is read-only
        return view

    @property
    def indices(self) -> Ints:
        """Columns, (nnz,) int32, int64 from n_in = 2**31 on; read-only, made at each access."""
        columns = self._columns.astype(_index_dtype(self.shape[1]), copy=False)
        columns.flags.writeable = False
        view: Ints = columns.view()
        return view

    @property
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""
        return int(self._columns.nbytes + self._indptr.nbytes)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of shape and positions, the same in every process."""
        return self._digest().hex()

    def _digest(self) -> bytes:
        if not self._fingerprint:
            digest = hashlib.sha256(repr(self.shape).encode())
            for array in (self._indptr, self._columns):
                digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
            object.__setattr__(self, "_fingerprint", digest.digest())
        return self._fingerprint

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return self is other or (
            self.shape == other.shape
            and np.array_equal(self._indptr, other._indptr)
            and np.array_equal(self._columns, other._columns)
        )

    def __hash__(self) -> int:
        return int.from_bytes(self._digest()[:8], "little")

    def __repr__(self) -> str:
        n_out, n_in = self.shape
        return f"Topology({n_out} x {n_in}, nnz={self.nnz}, sparsity={self.sparsity:.6g})"

    def __contains__(self, position: tuple[int, int]) -> bool:
        row, col = map(operator.index, position)
        if not (0 <= row < self.shape[0] and 0 <= col < self.shape[1]):
            return False
        run = self._columns[self._indptr[row] : self._indptr[row + 1]]
        k = int(np.searchsorted(run, col))
        return k < run.size and int(run[k]) == col

    def derived(self, build: Callable[[Topology], T]) -> T:
        """Return build(self), made at the first call with this `build` and kept (as the plan is).

        Two threads that call at once may both build; both get the same result.
        """
        if build not in self._derived:
            self._derived.setdefault(build, build(self))
        result: T = self._derived[build]
        return result

    # ------------------------------------------------------------ views

    def row_counts(self) -> Ints:
        """Return the nonzeros per row, (n_out,): each neuron's actual fan-in."""
        indptr = self.sound()[0]
        return indptr[1:] - indptr[:-1]

    def column_counts(self) -> NDArray[np.int64]:
        """Return the nonzeros per column, (n_in,)."""
        return np.bincount(self._columns, minlength=self.shape[1])

    def rows(self) -> Ints:
        """Return the row of each nonzero, (nnz,), in canonical order."""
        n_out = self.shape[0]
        return np.repeat(np.arange(n_out, dtype=_index_dtype(n_out)), self.row_counts())

    def coo(self) -> tuple[Ints, Ints]:
        """Return (rows, columns) of each nonzero, (nnz,) each, in canonical order."""
        return self.rows(), self.indices

    def csr(self) -> tuple[Ints, Ints]:
        """Return (indptr, column indices), (n_out + 1,) and (nnz,)."""
        return self.indptr, self.indices

    def csc(self) -> tuple[Ints, Ints, Ints]:
        """Return (indptr, row indices, permutation), (n_in + 1,), (nnz,) and (nnz,).

        With values in canonical order, values[permutation] are those of the CSC matrix.
        """
        order = np.arange(self.nnz, dtype=_index_dtype(self.nnz))
        self.sound()
        csr: Any = sparse.csr_array((order, self.indices, self._indptr), shape=self.shape)
        csc = csr.tocsc()
        return csc.indptr, csc.indices, csc.data

    def transpose(self) -> Topology:
        """Return the topology of the transposed matrix, shape (n_in, n_out)."""
        indptr, rows, _ = self.csc()
        return Topology._canonical(self.shape[::-1], indptr, rows)

    @property
    def T(self) -> Topology:  # noqa: N802 - as in NumPy
        """The topology of the transposed matrix."""
        return self.transpose()

    def to_scipy(
        self, values: ArrayLike | None = None, dtype: DTypeLike | None = None
    ) -> sparse.csr_matrix[Any]:
        """Return a CSR matrix (n_out, n_in) that shares no memory with this topology.

        Parameters
        ----------
        values : (nnz,) array, optional
            In canonical order; ones by default.
        dtype : dtype, optional
            Default: that of `values`, else float32.

        Raises
        ------
        ValueError
            If `values` has not the shape (nnz,).
        """
        self.sound()
        data = np.array(self._values(values, dtype))
        return sparse.csr_matrix((data, self.indices.copy(), self._indptr.copy()), self.shape)

    def to_dense(self, values: ArrayLike | None = None) -> NDArray[Any]:
        """Return the (n_out, n_in) mask of bool, or the matrix with `values`, (nnz,), and zeros.

        Cost: n_out * n_in entries. Raises ValueError as `to_scipy`, and if there is no room for so many.
        """
        data = self._values(values, np.bool_ if values is None else None)
        entries = self.shape[0] * self.shape[1]
        check_room(f"{self} as a dense array", entries * data.itemsize, "Take to_scipy() instead.")
        dense = np.zeros(self.shape, data.dtype)
        dense[self.coo()] = data
        return dense

    def _values(self, values: ArrayLike | None, dtype: DTypeLike | None) -> NDArray[Any]:
        if values is None:
            return np.ones(self.nnz, np.float32 if dtype is None else dtype)
        data = np.asarray(values, dtype)
        if data.shape != (self.nnz,):
            raise ValueError(
                f"{self} expects values of shape ({self.nnz},); got {data.shape}. "
                "Pass one per nonzero, in canonical order."
            )
        return data

    # ------------------------------------------------------------ set algebra

    def __or__(self, other: Topology) -> Topology:
        if not isinstance(other, Topology):
            return NotImplemented
        self._check_same_shape(other)
        most = self.nnz + other.nnz
        indptr = np.empty(self.shape[0] + 1, _index_dtype(most))
        columns = np.empty(most, self._columns.dtype)
        planning.merge_patterns(*self.sound(), *other.sound(), indptr, columns)
        return Topology._canonical(self.shape, indptr, columns[: indptr[-1]])

    def __and__(self, other: Topology) -> Topology:
        return self._combine(other, lambda a, b: a.minimum(b))

    def __sub__(self, other: Topology) -> Topology:
        return self._combine(other, operator.gt)

    def __xor__(self, other: Topology) -> Topology:
        return self._combine(other, operator.ne)

    def _combine(self, other: Topology, merge: Callable[[Any, Any], Any]) -> Topology:
        """Merge two bool matrices in one pass of SciPy over both, O(nnz + n_out)."""
        if not isinstance(other, Topology):
            return NotImplemented
        self._check_same_shape(other)
        merged = merge(self._mask(), other._mask())
        return Topology._canonical(self.shape, merged.indptr, merged.indices)

    def _mask(self) -> Any:
        self.sound()
        ones = np.ones(self.nnz, np.bool_)
        return sparse.csr_array((ones, self.indices, self._indptr), shape=self.shape)

    def _keys(self) -> NDArray[np.int64]:
        """Return row * n_in + column of each nonzero, increasing."""
        starts = np.arange(self.shape[0], dtype=np.int64) * self.shape[1]
        keys = np.repeat(starts, self.row_counts())
        keys += self._columns
        return keys

    def _check_same_shape(self, other: Topology) -> None:
        if self.shape != other.shape:
            raise ValueError(
                f"expected two topologies of one shape; got {self.shape} and {other.shape}. "
                "Transposed? Use .T."
            )

    def issubset(self, other: Topology) -> bool:
        """Return whether every position of this topology is one of `other`, of the same shape."""
        self._check_same_shape(other)
        return self.nnz <= other.nnz and (self & other).nnz == self.nnz

    def positions_in(self, other: Topology) -> NDArray[np.int64]:
        """Return where each position of this topology stands in `other`, to move values.

        Returns
        -------
        (nnz,) int64
            Index into the canonical order of `other`; -1 where `other` lacks the position.

        Raises
        ------
        ValueError
            If the shapes differ.

        Examples
        --------
        >>> a, b = Topology.full((1, 3)), Topology.from_coo((1, 3), [0, 0], [0, 2])
        >>> a.positions_in(b)
        array([ 0, -1,  1])
        """
        self._check_same_shape(other)
        found, places = np.empty(self.nnz, np.int64), np.empty(self.shape[1], np.int64)
        planning.find_positions(*self.sound(), *other.sound(), places, found)
        return found

    def random_free(self, k: int, rng: Seed = None) -> Topology:
        """Draw exactly k positions that are *not* in this topology, every set equally likely.

        Parameters
        ----------
        k : int
            From 0 to n_out * n_in - nnz.
        rng : numpy.random.Generator, int or None
            Source of randomness, or its seed.

        Returns
        -------
        Topology
            Of the same shape, with k positions: the grown topology is `self | result`.

        Raises
        ------
        TypeError, ValueError
            If `k` is not an integer in its range.

        Notes
        -----
        Cost: O(nnz + k + n_out) memory. Ranks among the free positions are drawn, and each is
        shifted by the number of taken positions before it: nothing is rejected.
        """
        keys = self._keys()
        free = self.shape[0] * self.shape[1] - self.nnz
        ranks = draw(free, k, np.random.default_rng(rng))
        keys -= np.arange(self.nnz)  # now the number of free positions before each taken one
        ranks += np.searchsorted(keys, ranks, side="right")
        return Topology._from_keys(self.shape, ranks)


# ---------------------------------------------------------------- validation


def _check_room(shape: Shape, nnz: int) -> None:
    """Refuse, before it is begun, a topology that does not fit: two long integers and a column per nonzero."""
    what = f"a topology {shape[0]} x {shape[1]} with {nnz} nonzeros"
    check_room(what, 20 * nnz + 4 * shape[0], "Take fewer neurons, or a higher sparsity.")


def _index_dtype(limit: int) -> type[np.int32] | type[np.int64]:
    """Return the index type for numbers below `limit`, and for `limit` itself as a pointer."""
    return np.int32 if limit < 2**31 else np.int64


def _integers(name: str, array: ArrayLike) -> NDArray[Any]:
    numbers = np.asarray(array)
    if numbers.ndim != 1:
        raise ValueError(
            f"Topology expects {name} to be one-dimensional; got shape {numbers.shape}. "
            "Pass a flat array."
        )
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(
            f"Topology expects {name} of an integer dtype; got {numbers.dtype}. "
            f"Pass {name}.astype(np.int64), or a mask to Topology.from_dense."
        )
    return numbers if numbers.size else numbers.astype(np.int64)


def _check_pointers(shape: Shape, indptr: NDArray[Any], nnz: int) -> None:
    if indptr.size != shape[0] + 1:
        raise ValueError(
            f"Topology{shape} expects indptr of length n_out + 1 = {shape[0] + 1}; got "
            f"{indptr.size}. The shape is (out_features, in_features); CSC arrays? Transpose."
        )
    if indptr[0] != 0 or indptr[-1] != nnz:
        raise ValueError(
            f"Topology expects indptr to run from 0 to len(indices) = {nnz}; got {indptr[0]} to "
            f"{indptr[-1]}. Cut out of a larger matrix? Subtract indptr[0], slice indices alike."
        )
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        row = int(np.argmax(falls))
        raise ValueError(
            f"Topology expects indptr never to fall; got {indptr[row]} then {indptr[row + 1]} at "
            f"row {row}. Were counts passed? Take their cumulative sum, after a 0."
        )


def _check_range(name: str, numbers: NDArray[Any], limit: int, what: str) -> None:
    if numbers.size and (numbers.min() < 0 or numbers.max() >= limit):
        place = int(np.argmax((numbers < 0) | (numbers >= limit)))
        raise ValueError(
            f"Topology expects {name} from 0 to {what} - 1 = {limit - 1}; got {numbers[place]} at "
            f"position {place}. Counted from one? Subtract 1. The shape is (n_out, n_in)."
        )


def _check_sorted(indptr: NDArray[Any], columns: NDArray[Any]) -> None:
    falls = columns[1:] <= columns[:-1]
    starts = indptr[(indptr > 0) & (indptr < columns.size)]
    falls[starts - 1] = False  # a new row may start anywhere
    if falls.any():
        place = int(np.argmax(falls)) + 1
        row = int(np.searchsorted(indptr, place, side="right")) - 1
        before, column = columns[place - 1], columns[place]
        kind = "a duplicate" if before == column else "unsorted"
        raise ValueError(
            f"Topology expects strictly increasing columns within a row; got {kind}: column "
            f"{column} after {before} in row {row}. Use Topology.from_scipy, which sorts."
        )


def check_scipy(matrix: Any) -> None:
    """Refuse a SciPy sparse matrix whose index arrays are inconsistent, before SciPy itself follows them.

    Raises
    ------
    ValueError
        If an index is out of range or the arrays do not fit together.
    """
    try:
        if matrix.format in ("csr", "csc", "bsr"):
            matrix.check_format(full_check=True)
        elif matrix.format == "coo":
            for name, index, size in zip(
                ("row", "col"), (matrix.row, matrix.col), matrix.shape, strict=True
            ):
                if len(index) != len(matrix.data):
                    raise ValueError(f"{len(matrix.data)} values but {len(index)} {name} indices")
                if len(index) and (index.min() < 0 or index.max() >= size):
                    raise ValueError(f"{name} indices must be from 0 to {size - 1}")
        elif matrix.format == "lil":
            for columns, values in zip(matrix.rows, matrix.data, strict=True):
                if len(columns) != len(values):
                    raise ValueError(f"a row has {len(values)} values but {len(columns)} columns")
                if columns and not 0 <= min(columns) <= max(columns) < matrix.shape[1]:
                    raise ValueError(f"columns must be from 0 to {matrix.shape[1] - 1}")
    except ValueError as error:
        raise ValueError(f"the SciPy matrix is inconsistent: {error}") from error
