"""The samples of one call of `fit`: rows, targets and weights, those of weight zero left out."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from nnsparse.data import DataLoader
from nnsparse.rows import AnyRows

Array = NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """Samples as a `DataLoader` takes them.

    Attributes
    ----------
    rows : Rows or SparseRows (n, n_features)
    targets : (n,) or (n, n_outputs)
        As the loss takes them.
    weight : (n,) float64 or None
        Above 0.
    """

    rows: AnyRows
    targets: Array
    weight: Array | None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, index: NDArray[np.int64]) -> Samples:
        """Return some of the samples; the rows are not copied."""
        weight = None if self.weight is None else self.weight[index]
        return Samples(self.rows.part(index), self.targets[index], weight)

    def loader(self, batch_size: int, shuffle: bool, seed: int) -> DataLoader:
        """Return mini-batches of them."""
        data = self.rows, self.targets
        return DataLoader(
            data if self.weight is None else (*data, self.weight),
            batch_size=batch_size,
            shuffle=shuffle,
            rng=seed,
        )

    def split(self, fraction: float, classes: Array | None, seed: int) -> tuple[Samples, Samples]:
        """Return the samples without, and of only, a fraction of them.

        Parameters
        ----------
        fraction : float in (0, 1)
        classes : (n,) or None
            Kept in the same proportion on both sides, if each side has room for all of them and none has a single
            sample; else drawn without a look at them.

        Raises
        ------
        ValueError
            If one of the sides gets fewer than two samples.
        """
        n = len(self)
        held = int(np.ceil(fraction * n))
        if held < 2 or n - held < 2:
            raise ValueError(
                f"early_stopping expects two samples or more for training and for validation; {fraction:g} of {n} "
                f"samples is {held}. Change validation_fraction, or leave early_stopping off."
            )
        strata = None if classes is None or not _on_both_sides(classes, held) else classes
        index: tuple[Array, Array] = train_test_split(
            np.arange(n), test_size=held, random_state=seed, stratify=strata
        )
        return self.part(np.sort(index[0])), self.part(np.sort(index[1]))


def _on_both_sides(classes: Array, held: int) -> bool:
    """Return whether classes (n,) can all be among `held` samples and among the others."""
    counts = np.unique(classes, return_counts=True)[1]
    return bool(counts.size <= min(held, classes.size - held) and counts.min() >= 2)


def checked_weight(who: str, sample_weight: Any, n: int) -> Array | None:
    """Return weights as float64 (n,), of a single number for all or of n; None stays None.

    Raises
    ------
    ValueError
        If they are no numbers, ragged, of another shape, negative, not finite or all zero.
    """
    if sample_weight is None:
        return None
    try:
        given: Any = np.asarray(sample_weight)
    except ValueError:
        raise ValueError(
            f"{who} expects one sample_weight per sample, ({n},); got sequences of several lengths: "
            f"{reprlib.repr(sample_weight)}."
        ) from None
    if given.dtype.kind not in "fiub":
        raise ValueError(f"{who} expects real numbers as sample_weight; got dtype {given.dtype}.")
    if given.shape not in ((), (n,)):
        raise ValueError(
            f"{who} expects one sample_weight per sample, ({n},); got shape {given.shape}."
        )
    weight = np.array(np.broadcast_to(given, (n,)), np.float64)
    if not np.isfinite(weight).all() or (weight < 0).any():
        bad = int(np.argmin(np.isfinite(weight) & (weight >= 0)))
        raise ValueError(
            f"{who} expects sample_weight finite and at least 0; got {weight[bad]} at index {bad}."
        )
    if not weight.any():
        raise ValueError(
            f"{who} expects a sample_weight above 0 somewhere; all {n} weights are zero."
        )
    return weight


def class_factors(
    who: str, class_weight: Any, y: Array, classes: Array, weight: Array | None
) -> Array:
    """Return by what each sample's weight is multiplied, (n,), for its class.

    Parameters
    ----------
    class_weight : dict or "balanced"
        Class -> weight, 1 for classes that it leaves out; or so that all classes together weigh the same, and the mean
        weight stays.
    y : (n,)
        Numbers of the samples' classes.
    classes : (n_classes,)
    weight : (n,) or None

    Raises
    ------
    ValueError
        If a key is no class, or a weight negative or not finite.
    """
    n = classes.size
    if isinstance(class_weight, str):
        totals = np.bincount(y, weight, minlength=n).astype(np.float64)
        present = totals > 0
        mean = totals.sum() / present.sum()
        return np.asarray((mean / np.where(present, totals, 1.0))[y])
    factors = np.ones(n)
    for label, value in class_weight.items():
        place = np.flatnonzero(classes == label) if np.ndim(label) == 0 else np.empty(0, np.intp)
        if place.size != 1:
            raise ValueError(
                f"{who} expects the keys of class_weight among the classes {classes}; got {label!r}."
            )
        if not isinstance(value, int | float | np.number | np.bool_) or not 0 <= value < np.inf:
            raise ValueError(
                f"{who} expects weights of at least 0 in class_weight; got {value!r} for class {label!r}."
            )
        factors[place] = value
    return factors[y]
