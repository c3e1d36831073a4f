"""Rows of a user's array, not yet copied: what a mini-batch is before a model asks for it in its own layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
        If the array is not 2-D, or an index is out of range.
    TypeError
        If the dtypes are not numbers and integers.
    """

    __slots__ = ("array", "index")

    def __init__(self, array: ArrayLike, index: ArrayLike | None = None) -> None:
        self.array: Array = np.asarray(array)
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
        n = len(self.array)
        if index is None:
            self.index: NDArray[np.int64] = np.arange(n)
            return
        raw = np.asarray(index)
        if raw.ndim != 1 or (raw.size and raw.dtype.kind not in "iu"):
            raise TypeError(
                f"expected a 1-D array of integers as index; got {raw.dtype} {raw.shape}"
            )
        self.index = np.ascontiguousarray(raw, dtype=np.int64)
        if raw.size and (self.index.min() < 0 or self.index.max() >= n):
            raise ValueError(f"row index out of range: expected 0 to {n - 1}")

    @classmethod
    def trusted(cls, array: Array, index: NDArray[np.int64]) -> Rows:
        """Return rows of a checked array at checked, contiguous indices, without looking at them again."""
        rows = cls.__new__(cls)
        rows.array, rows.index = array, index
        return rows

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
