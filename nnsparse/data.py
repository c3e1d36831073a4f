"""Mini-batches: `DataLoader` draws rows in a seeded order and leaves the copying to the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.rows import AnyRows, Rows, SparseRows, rows_of

__all__ = ["DataLoader", "Rows", "SparseRows"]
Array = NDArray[Any]


@final
class DataLoader:
    """Iterate over mini-batches `(Rows of X, y[...])`; of a sparse X, `SparseRows`.

    The order of epoch e depends on (seed, e) only: every pass over the loader is the next epoch, and setting `epoch`
    repeats one.

    Parameters
    ----------
    data : (X, y)
        X (n, n_features) of real numbers, an array or a scipy.sparse matrix; y (n,) or (n, n_targets). Kept by
        reference, a sparse matrix as `SparseRows` keeps it.
    batch_size : int
        Samples per mini-batch, at least 1.
    shuffle : bool
        A new order every epoch, or as they lie.
    drop_last : bool
        Leave out the last mini-batch if it is smaller.
    rng : numpy.random.Generator, int or None
        Seed of the order; a generator is asked for one once.

    Raises
    ------
    ValueError, TypeError
        If X and y differ in length, are empty, have the wrong shape or dtype, batch_size is no integer >= 1, or
        the seed is negative or not an integer.

    Examples
    --------
    >>> loader = DataLoader((np.eye(5), np.arange(5)), batch_size=2, rng=0)
    >>> [len(y) for x, y in loader]
    [2, 2, 1]
    """

    def __init__(
        self,
        data: tuple[ArrayLike, ArrayLike],
        *,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise TypeError("DataLoader expects a pair (X, y) as its first argument")
        self.rows: AnyRows = rows_of(data[0])
        self.y: Array = np.asarray(data[1])
        if self.y.ndim not in (1, 2) or len(self.y) != len(self.rows):
            raise ValueError(
                f"DataLoader expects one target per row: X has shape {self.rows.shape}, "
                f"y has shape {self.y.shape}"
            )
        if len(self.rows) == 0:
            raise ValueError(
                f"DataLoader expects at least one sample; X has shape {self.rows.shape}"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
            raise TypeError(f"DataLoader expects an integer batch_size; got {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"DataLoader expects batch_size >= 1; got {batch_size}")
        self.batch_size = int(batch_size)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.seed = _seed(rng)
        self.epoch = 0
        if len(self) == 0:
            raise ValueError(
                f"DataLoader with drop_last: {len(self.rows)} samples give no batch of {batch_size}"
            )

    @property
    def x(self) -> Any:
        """X as it was given: an array (n, n_features), or a `scipy.sparse.csr_array` in canonical order."""
        return self.rows.array if isinstance(self.rows, Rows) else self.rows.matrix

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows in the order of an epoch, (n,)."""
        n = len(self.rows)
        if not self.shuffle:
            return np.arange(n)
        return np.random.default_rng([self.seed, epoch]).permutation(n)

    def __len__(self) -> int:
        """Return the number of mini-batches of an epoch."""
        n = len(self.rows)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[AnyRows, Array]]:
        order = self.order(self.epoch)
        self.epoch += 1
        for i in range(len(self)):
            index = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield self.rows.part(index), self.y[index]


def _seed(rng: np.random.Generator | int | None) -> int:
    """Return an integer seed, drawn from a generator if one is given."""
    if rng is None or isinstance(rng, np.random.Generator):
        return int((rng or np.random.default_rng()).integers(2**63))
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        raise TypeError(
            f"DataLoader expects rng to be a Generator, an integer or None; got {rng!r}"
        )
    if rng < 0:
        raise ValueError(f"DataLoader expects a seed >= 0; got {rng}")
    return int(rng)
