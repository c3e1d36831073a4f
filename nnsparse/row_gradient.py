"""`RowGradient`: the gradient of a table of which a mini-batch used a few rows."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse import tiles

Array = NDArray[Any]


@final
class RowGradient:
    """An array (n, width) that is zero but for some rows: what `weight.grad` of an embedding is.

    `np.asarray(gradient)` gives the whole array, as does any NumPy function; the sum of two of these is one again.

    Parameters
    ----------
    rows : (k,) integers
        From 0 to n - 1, strictly increasing.
    values : (k, width) array of float32 or float64
        The rows.
    shape : (n, width)
        Of the whole.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not as said above.

    Examples
    --------
    >>> gradient = RowGradient([1, 3], np.ones((2, 2)), (4, 2))
    >>> gradient + gradient
    RowGradient(2 of 4 rows, shape=(4, 2), dtype=float64)
    >>> np.asarray(gradient)[:, 0]
    array([0., 1., 0., 1.])
    """

    __slots__ = ("rows", "shape", "values")

    rows: Array
    values: Array
    shape: tuple[int, int]

    def __init__(self, rows: ArrayLike, values: ArrayLike, shape: tuple[int, int]) -> None:
        index, array = np.array(rows), np.ascontiguousarray(values)
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise TypeError(
                f"RowGradient expects rows (k,) of integers; got {index.dtype} {index.shape}"
            )
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"RowGradient expects values of float32 or float64; got {array.dtype}")
        index = index.astype(np.int64)
        n, width = shape
        if array.shape != (index.size, width):
            raise ValueError(
                f"RowGradient of shape {shape} expects values of shape ({index.size}, {width}), one row for each of "
                f"rows; got {array.shape}"
            )
        if index.size and (index[0] < 0 or index[-1] >= n or (np.diff(index) <= 0).any()):
            raise ValueError(
                f"RowGradient expects strictly increasing rows from 0 to {n - 1}; got {index}. Add up what belongs "
                "to one row."
            )
        self.rows, self.values, self.shape = index, array, (int(n), int(width))

    @classmethod
    def trusted(cls, rows: Array, values: Array, shape: tuple[int, int]) -> RowGradient:
        """Return a gradient of checked, contiguous arrays, without looking at them again."""
        gradient = cls.__new__(cls)
        gradient.rows, gradient.values, gradient.shape = rows, values, shape
        return gradient

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def size(self) -> int:
        """Number of elements of the whole."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that are really held."""
        return int(self.rows.nbytes + self.values.nbytes)

    def fits(self, data: Array) -> bool:
        """Whether this is a gradient of `data`, looked at element by element: compiled loops check no bounds."""
        rows, values, (n, width) = self.rows, self.values, self.shape
        return (
            data.shape == (n, width)
            and data.dtype == values.dtype
            and values.shape == (rows.size, width)
            and values.flags.c_contiguous
            and rows.flags.c_contiguous
            and (not rows.size or (int(rows.min()) >= 0 and int(rows.max()) < n))
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(
                "the other rows have to be made: np.asarray(gradient, copy=False) cannot work"
            )
        return self.whole() if dtype is None else self.whole().astype(dtype, copy=False)

    def whole(self) -> Array:
        """Return the whole array, in pooled memory."""
        array = tiles.zeros(self.shape, self.dtype)
        array[self.rows] = self.values
        return array

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, RowGradient):
            return np.asarray(self) + other
        if other.shape != self.shape:
            raise ValueError(
                f"gradients of one shape can be added; got {self.shape} and {other.shape}"
            )
        rows = np.union1d(self.rows, other.rows)
        values = np.zeros((rows.size, self.shape[1]), np.result_type(self.dtype, other.dtype))
        for part in (self, other):
            values[np.searchsorted(rows, part.rows)] += part.values
        return RowGradient.trusted(rows, values, self.shape)

    def __radd__(self, other: Any) -> Any:
        return other + np.asarray(self)

    def __mul__(self, factor: Any) -> Any:
        if np.ndim(factor):
            return np.asarray(self) * factor
        values = self.values * np.asarray(factor, self.dtype)
        return RowGradient.trusted(self.rows, values, self.shape)

    __rmul__ = __mul__

    def __neg__(self) -> RowGradient:
        return RowGradient.trusted(self.rows, -self.values, self.shape)

    def __sub__(self, other: Any) -> Any:
        return self + -other if isinstance(other, RowGradient) else np.asarray(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - np.asarray(self)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __truediv__(self, divisor: Any) -> Any:
        return self * (1.0 / np.asarray(divisor, self.dtype))

    def __repr__(self) -> str:
        return f"RowGradient({self.rows.size} of {self.shape[0]} rows, shape={self.shape}, dtype={self.dtype})"
