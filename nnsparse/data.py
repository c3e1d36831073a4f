"""Mini-batches: `DataLoader` draws rows in a seeded order and leaves the copying to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.ops.weights import check_weights
from nnsparse.rows import AnyRows, Rows, SparseRows, plain_array, rows_of

__all__ = ["DataLoader", "Rows", "SparseRows"]
Array = NDArray[Any]


@final
class DataLoader:
    """Iterate over mini-batches `(Rows of X, y[...])`; of a sparse X, `SparseRows`; with weights, `(x, y, w[...])`.

    The order of epoch e depends on (seed, e) only: every pass over the loader is the next epoch, and setting `epoch`
    repeats one.

    Parameters
    ----------
    data : (X, y) or (X, y, sample_weight)
        X (n, n_features) of real numbers, an array or a scipy.sparse matrix; y (n,) or (n, n_targets). Kept by
        reference, a sparse matrix as `SparseRows` keeps it. Weights (n,), at least 0, are what a loss multiplies each
        sample with.
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
        If X, y and weights differ in length, are empty, have the wrong shape or dtype, all weights are 0, batch_size
        is no integer >= 1, or the seed is negative or not an integer.

    Examples
    --------
    >>> loader = DataLoader((np.eye(5), np.arange(5)), batch_size=2, rng=0)
    >>> [len(y) for x, y in loader]
    [2, 2, 1]
    """

    def __init__(
        self,
        data: tuple[Any, ...],
        *,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            raise TypeError(
                "DataLoader expects (X, y) or (X, y, sample_weight) as its first argument"
            )
        self.rows: AnyRows = rows_of(data[0])
        self.y: Array = plain_array("y of shape (n,) or (n, n_targets)", data[1])
        if self.y.ndim not in (1, 2) or len(self.y) != len(self.rows):
            raise ValueError(
                f"DataLoader expects one target per row: X has shape {self.rows.shape}, "
                f"y has shape {self.y.shape}"
            )
        if len(self.rows) == 0:
            raise ValueError(
                f"DataLoader expects at least one sample; X has shape {self.rows.shape}"
            )
        self.sample_weight = (
            checked_weights("DataLoader", data[2], len(self.y)) if len(data) == 3 else None
        )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
            raise TypeError(f"DataLoader expects an integer batch_size; got {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"DataLoader expects batch_size >= 1; got {batch_size}")
        self.batch_size = int(batch_size)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.seed = _seed(rng)
        self.epoch = 0
        self.part = 0, 1
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

    def __iter__(self) -> Iterator[Any]:
        self.epoch += 1
        return self.batches(self.epoch - 1)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """Iterate over the mini-batches of an epoch, from number `first` on; `epoch` itself stays."""
        order, w = self.order(epoch), self.sample_weight
        for i in range(first, len(self)):
            index = self._own(order[i * self.batch_size : (i + 1) * self.batch_size])
            part = self.rows.part(index), self.y[index]
            yield part if w is None else (*part, w[index])

    def shard(self, rank: int, size: int) -> DataLoader:
        """Return a loader of the part of each mini-batch that process `rank` of `size` trains on.

        Parameters
        ----------
        rank, size : int
            From 0 to size - 1; the number of processes, at least 1.

        Returns
        -------
        DataLoader
            In the same order, with as many mini-batches. Together the parts are this loader's mini-batch, one after
            the other; they differ by one sample at most, so that some are empty where it has fewer than `size`.

        Raises
        ------
        ValueError, TypeError
            If they are no integers in their range, or this loader is a part already.

        Examples
        --------
        >>> loader = DataLoader((np.eye(5), np.arange(5)), batch_size=3, shuffle=False)
        >>> [[y.tolist() for x, y in loader.shard(rank, 2)] for rank in (0, 1)]
        [[[0], [3]], [[1, 2], [4]]]
        """
        for name, value in (("rank", rank), ("size", size)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"shard expects an integer as {name}; got {value!r}")
        if not 0 <= rank < size:
            raise ValueError(f"shard expects rank from 0 to size - 1; got rank {rank} of {size}")
        if self.part != (0, 1):
            raise ValueError(
                f"shard expects a whole loader; this one is part {self.part[0]} of {self.part[1]} already"
            )
        own = copy(self)
        own.part = int(rank), int(size)
        return own

    def _own(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this loader's part of a mini-batch."""
        rank, size = self.part
        return index[rank * index.size // size : (rank + 1) * index.size // size]

    def state_dict(self) -> dict[str, int | bool]:
        """Return where the order of the samples stands: seed and epoch, and what has to be the same for it."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "samples": len(self.rows),
            "batch_size": self.batch_size,
            "shuffle": bool(self.shuffle),
            "drop_last": bool(self.drop_last),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the seed and the epoch of a `state_dict`; on an error nothing has changed.

        Raises
        ------
        ValueError
            If something is missing, or the loader that it was taken from had other samples or mini-batches.
        """
        own = self.state_dict()
        if set(state) != set(own):
            raise ValueError(f"DataLoader expects a state with {sorted(own)}; got {sorted(state)}")
        for name in ("samples", "batch_size", "shuffle", "drop_last"):
            if state[name] != own[name]:
                raise ValueError(
                    f"DataLoader has {name}={own[name]}; the state is of one with {name}={state[name]}"
                )
        seed, epoch = _seed(int(state["seed"])), int(state["epoch"])
        if epoch < 0:
            raise ValueError(f"DataLoader expects an epoch >= 0 in the state; got {epoch}")
        self.seed, self.epoch = seed, epoch

    def split(self, fraction: float, seed: int | None = None) -> tuple[DataLoader, DataLoader]:
        """Return two loaders of this one's samples, at its epoch: without, and of only, a fraction drawn by the seed.

        Parameters
        ----------
        fraction : float in (0, 1)
            Of the samples, rounded; at least one is on each side.
        seed : int, optional
            Of the draw and of the new loaders; by default this one's.

        Raises
        ------
        ValueError
            If the fraction is not between 0 and 1, there is one sample only, or the seed is negative.
        """
        n = len(self.rows)
        if not 0.0 < fraction < 1.0:
            raise ValueError(f"split expects a fraction above 0 and below 1; got {fraction!r}")
        if n < 2:
            raise ValueError("split expects two samples or more; got one")
        held = min(max(1, round(fraction * n)), n - 1)
        seed = self.seed if seed is None else _seed(seed)
        order = np.random.default_rng([seed, n, _SPLIT]).permutation(n)
        return self._of(np.sort(order[held:]), seed), self._of(np.sort(order[:held]), seed)

    def _of(self, index: NDArray[np.int64], seed: int) -> DataLoader:
        """Return a loader like this one over some of the samples."""
        own = self.rows.part(index), self.y[index]
        loader = DataLoader(
            own if self.sample_weight is None else (*own, self.sample_weight[index]),
            batch_size=min(self.batch_size, index.size),
            shuffle=self.shuffle,
            drop_last=self.drop_last,
            rng=seed,
        )
        loader.part, loader.epoch = self.part, self.epoch
        return loader


_SPLIT = 0x5B117  # keeps the draw of a split apart from the orders of the epochs


def checked_weights(who: str, weights: ArrayLike, n: int) -> Array:
    """Return the weights of n samples as float64 (n,), or say what `who` expects."""
    found = check_weights("sample_weight", weights, n, "one per sample")
    if not found.any():
        raise ValueError(f"{who} expects sample_weight above 0 somewhere; got zeros only.")
    return found


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
