"""Rows of a user's data, not yet copied: what a mini-batch is before a model asks for it in its own layout.

`Rows` are those of an array, `SparseRows` those of a SciPy matrix. Whoever takes data from a user makes one of them
(`rows_of`), which checks it once; their parts are not looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from nnsparse.topology import check_scipy

Array = NDArray[Any]


@final
class Rows:
    """Rows `index` of a 2-D array, gathered when somebody needs them.

    A model gathers and transposes them into tiles in one pass; `np.asarray(rows)` gives the plain (batch, n_features)
    array.

    Parameters
    ----------
    array : (n, n_features) array of real numbers
        Kept by reference, never written.
    index : (batch,) integers, optional
        Which rows; by default all, in order.

    Raises
    ------
    ValueError
        If the array is not 2-D or has masked entries, or an index is out of range.
    TypeError
        If the dtypes are not numbers and integers.
    """

    __slots__ = ("array", "index")

    def __init__(self, array: ArrayLike, index: ArrayLike | None = None) -> None:
        self.array: Array = plain_array("an array of shape (batch, n_features)", array)
        if self.array.dtype.kind not in "fiub":
            hint = " Sparse input? Pass x.toarray()." if hasattr(array, "toarray") else ""
            raise TypeError(
                f"expected an array of real numbers; got dtype {self.array.dtype}.{hint}"
            )
        if self.array.ndim != 2:
            hint = " One sample? Pass x[None, :]." if self.array.ndim == 1 else ""
            raise ValueError(
                f"expected an array of shape (batch, n_features); got {self.array.shape}.{hint}"
            )
        self.index: NDArray[np.int64] = _checked_index(index, len(self.array))

    @classmethod
    def trusted(cls, array: Array, index: NDArray[np.int64]) -> Rows:
        """Return rows of a checked array at checked, contiguous indices, without looking at them again."""
        rows = cls.__new__(cls)
        rows.array, rows.index = array, index
        return rows

    def part(self, which: slice | NDArray[np.int64]) -> Rows:
        """Return some of these rows, by a slice or by checked positions."""
        return Rows.trusted(self.array, self.index[which])

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, n_features)."""
        return self.index.size, self.array.shape[1]

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype."""
        return self.array.dtype

    def __len__(self) -> int:
        return self.index.size

    def __iter__(self) -> Iterator[Array]:
        return (self.array[i] for i in self.index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("rows have to be gathered: np.asarray(rows, copy=False) cannot work")
        return np.asarray(self.array[self.index], dtype=dtype)

    def __repr__(self) -> str:
        return f"Rows(shape={self.shape}, dtype={self.dtype})"


@final
class SparseRows:
    """Rows `index` of a sparse matrix, gathered when somebody needs them: the counterpart of `Rows`.

    A model takes them without the zeros; `np.asarray(rows)` gives the plain (batch, n_features) array.

    Parameters
    ----------
    matrix : scipy.sparse matrix or array (n, n_features) of real numbers
        In any format, and converted once to CSR in canonical order: duplicates added up, columns sorted, other numbers
        as float64. The values of what is that already are kept by reference; nothing of it is ever written.
    index : (batch,) integers, optional
        Which rows; by default all, in order.

    Attributes
    ----------
    indptr, indices, values : arrays (n + 1,), (nnz,) and (nnz,)
        Of the whole matrix, as CSR; where the values are is read-only. Zeros may be stored, and NaN and infinity are
        what they are in an array.

    Raises
    ------
    ValueError
        If the matrix is not 2-D or its index arrays are inconsistent, or an index is out of range.
    TypeError
        If it is no SciPy matrix, or the dtypes are not numbers and integers.
    """

    __slots__ = ("index", "indices", "indptr", "n_features", "values")

    def __init__(self, matrix: Any, index: ArrayLike | None = None) -> None:
        if not _is_sparse(matrix):
            raise TypeError(f"expected a SciPy sparse matrix; got {type(matrix).__name__}")
        if matrix.dtype.kind not in "fiub":
            raise TypeError(f"expected a sparse matrix of real numbers; got dtype {matrix.dtype}")
        if matrix.ndim != 2:
            raise ValueError(
                f"expected a sparse matrix of shape (batch, n_features); got {matrix.shape}. "
                "One sample? Pass x.reshape(1, -1)."
            )
        check_scipy(matrix)
        if matrix.dtype not in (np.float32, np.float64):
            matrix = matrix.astype(np.float64)  # before duplicates are added: bytes overflow
        csr: Any = sparse.csr_array(matrix)
        if not csr.has_canonical_format:
            csr = csr.copy()
            csr.sum_duplicates()
        self._keep(csr.indptr, csr.indices, csr.data, matrix.shape[1])
        self.index = _checked_index(index, matrix.shape[0])

    def _keep(self, indptr: Array, indices: Array, values: Array, n_features: int) -> None:
        """Keep arrays as compiled loops want them: contiguous, and positions that nobody changes once checked."""
        self.indptr, self.indices = np.array(indptr, order="C"), np.array(indices, order="C")
        self.indptr.flags.writeable = self.indices.flags.writeable = False
        self.values: Array = np.require(values, requirements=["C", "A"])
        self.n_features = int(n_features)

    @classmethod
    def ragged(cls, indices: ArrayLike, offsets: ArrayLike, n_features: int) -> SparseRows:
        """Return rows of ones, at columns that may repeat: row i has indices[offsets[i] : offsets[i + 1]].

        Parameters
        ----------
        indices : (n_tokens,) integers
            From 0 to n_features - 1.
        offsets : (batch,) integers
            Where each row starts, not decreasing, the first 0; the last row ends with `indices`.

        Raises
        ------
        ValueError, TypeError
            If the arrays are not as said above.
        """
        tokens, starts = np.asarray(indices), np.asarray(offsets)
        for name, array in (("indices", tokens), ("offsets", starts)):
            if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
                raise TypeError(
                    f"expected 1-D integers as {name} of ragged rows (indices, offsets); got "
                    f"{array.dtype} {array.shape}"
                )
        indptr = np.append(starts.astype(np.int64), tokens.size)
        if indptr[0] != 0 or (np.diff(indptr) < 0).any():
            raise ValueError(
                f"expected offsets from 0 up to the number of tokens, {tokens.size}, not decreasing; got {starts}"
            )
        if tokens.size and (tokens.min() < 0 or tokens.max() >= n_features):
            place = int(np.argmax((tokens < 0) | (tokens >= n_features)))
            raise ValueError(
                f"expected tokens from 0 to {n_features - 1}; got {tokens[place]} at position {place}"
            )
        rows = cls.__new__(cls)
        small = np.int32 if n_features < 2**31 else np.int64
        rows._keep(indptr, tokens.astype(small), np.ones(tokens.size, np.float32), n_features)
        rows.index = np.arange(starts.size)
        return rows

    def part(self, which: slice | NDArray[np.int64]) -> SparseRows:
        """Return some of these rows, by a slice or by checked positions."""
        rows = SparseRows.__new__(SparseRows)
        rows.indptr, rows.indices, rows.values = self.indptr, self.indices, self.values
        rows.n_features, rows.index = self.n_features, self.index[which]
        return rows

    @property
    def matrix(self) -> Any:
        """The whole matrix, a `scipy.sparse.csr_array` (n, n_features) of the same arrays."""
        shape = (self.indptr.size - 1, self.n_features)
        return sparse.csr_array((self.values, self.indices, self.indptr), shape=shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, n_features)."""
        return self.index.size, self.n_features

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.values.dtype

    def __len__(self) -> int:
        return self.index.size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("rows have to be gathered: np.asarray(rows, copy=False) cannot work")
        return np.asarray(self.matrix[self.index].toarray(), dtype=dtype)

    def __repr__(self) -> str:
        return f"SparseRows(shape={self.shape}, dtype={self.dtype})"


AnyRows: TypeAlias = Rows | SparseRows


def plain_array(what: str, value: Any) -> Array:
    """Return what a user gave as an array; masked entries and lists of different lengths are refused.

    Parameters
    ----------
    what : str
        What is expected, for the message.
    """
    if np.ma.is_masked(value):
        raise ValueError(
            f"expected {what} without masked entries; fill them first, for instance with a.filled(0)."
        )
    try:
        return np.asarray(value)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(f"expected {what}; got lists of different lengths.") from error


def rows_of(x: Any) -> AnyRows:
    """Return a user's mini-batch or data set, an array or a SciPy matrix, as rows."""
    if isinstance(x, Rows | SparseRows):
        return x
    return SparseRows(x) if _is_sparse(x) else Rows(x)


def _is_sparse(x: Any) -> bool:
    """Whether this is a SciPy matrix or array: its two families share no typed base."""
    return isinstance(x, sparse.spmatrix | sparse.sparray)


def _checked_index(index: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Return which of n rows are meant: all of them, or those of a valid index, contiguous."""
    if index is None:
        return np.arange(n)
    raw = np.asarray(index)
    if raw.ndim != 1 or (raw.size and raw.dtype.kind not in "iu"):
        raise TypeError(f"expected a 1-D array of integers as index; got {raw.dtype} {raw.shape}")
    found = np.ascontiguousarray(raw, dtype=np.int64)
    if raw.size and (found.min() < 0 or found.max() >= n):
        raise ValueError(f"row index out of range: expected 0 to {n - 1}")
    return found
