"""Classes: what a classifier's targets are to the network's outputs, and back."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special
from sklearn.utils.multiclass import check_classification_targets, type_of_target

Array = NDArray[Any]

BINARY, MULTICLASS, MULTILABEL = "binary", "multiclass", "multilabel"


@dataclass(frozen=True)
class Labels:
    """The classes of a problem and how many outputs tell them apart.

    Attributes
    ----------
    classes : (n_classes,)
        Sorted; of a multi-label problem the numbers of the labels.
    kind : "binary", "multiclass" or "multilabel"
        Two classes (or a single one) have one output, whose sign decides; more have one each, of which the largest
        decides; labels have one each, whose signs decide.
    dtype : dtype
        Of predicted indicators, if multi-label.
    """

    classes: Array
    kind: str
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, y: Array, classes: Any = None) -> Labels:
        """Return the labels of targets (n,) or indicators (n, n_labels); of (n,) perhaps more `classes` than occur.

        Those are as `checked_classes` returns them.

        Raises
        ------
        ValueError
            If the targets are continuous, several of several classes, or two numbers other than 0 and 1.
        """
        check_classification_targets(y)
        found = type_of_target(y)
        if found == "multilabel-indicator":
            _check_indicators(y)
            return cls(np.arange(y.shape[1]), MULTILABEL, y.dtype)
        if y.ndim == 2:
            raise ValueError(
                f"expected one class per sample, or an indicator of 0 and 1 per label; got {found} targets of shape "
                f"{y.shape}. Several classes per sample? Fit one estimator per column: "
                "sklearn.multioutput.MultiOutputClassifier."
            )
        known = np.unique(y) if classes is None else classes
        return cls(known, BINARY if known.size <= 2 else MULTICLASS, known.dtype)

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""
        return 1 if self.kind == BINARY else int(self.classes.size)

    def encode(self, y: Array) -> Array:
        """Return targets as the loss takes them: numbers of classes (n,), or 0 and 1 (n, n_labels), integers.

        Raises
        ------
        ValueError
            If there are other classes than `classes`, another number of labels, or one kind for the other.
        """
        if self.kind == MULTILABEL:
            if y.ndim != 2 or y.shape[1] != self.classes.size:
                raise ValueError(
                    f"expected y as an indicator of {self.classes.size} labels as in the first fit; got {y.shape}"
                )
            _check_indicators(y)
            return y.astype(np.int64)
        if y.ndim != 1:
            raise ValueError(
                f"expected y with one class per sample, (n,), as in the first fit; got {y.shape}. Several labels per "
                "sample? Begin anew: call fit with warm_start=False."
            )
        try:
            unknown = np.setdiff1d(y, self.classes)
        except TypeError:  # they do not sort
            unknown = np.array([label for label in y if label not in self.classes][:1], object)
        if unknown.size:
            raise ValueError(
                f"expected y with the classes {self.classes}, as in the first fit; got also {unknown}. With "
                "partial_fit, name all classes in its first call."
            )
        return np.asarray(np.searchsorted(self.classes, y))

    def numbers(self, outputs: Array) -> Array:
        """Return what the network decides for, in the form of `encode`: (n,) or (n, n_labels) integers."""
        if self.kind == MULTICLASS:
            return np.asarray(outputs.argmax(axis=1))
        decided = (outputs > 0).astype(np.int64)
        if self.kind == MULTILABEL:
            return decided
        return np.minimum(decided[:, 0], self.classes.size - 1)

    def decode(self, outputs: Array) -> Array:
        """Return the predicted classes (n,), or indicators (n, n_labels)."""
        numbers = self.numbers(outputs)
        return numbers.astype(self.dtype) if self.kind == MULTILABEL else self.classes[numbers]

    def log_probabilities(self, outputs: Array) -> Array:
        """Return log probabilities of the classes (n, n_classes), or of each label by itself (n, n_labels)."""
        if self.kind == MULTICLASS:
            return np.asarray(special.log_softmax(outputs, axis=1))
        if self.kind == MULTILABEL:
            return np.asarray(special.log_expit(outputs))
        if self.classes.size == 1:
            return np.zeros_like(outputs)
        return np.asarray(special.log_expit(np.hstack([-outputs, outputs])))

    def probabilities(self, outputs: Array) -> Array:
        """Return probabilities, in the shape of `log_probabilities`."""
        if self.kind == MULTICLASS:
            return np.asarray(special.softmax(outputs, axis=1))
        return np.exp(self.log_probabilities(outputs))

    def agrees(self, outputs: Array, targets: Array) -> Array:
        """Return for which samples the network is right, in all labels, (n,) bool; `targets` as `encode` makes them."""
        right = self.numbers(outputs) == targets
        return np.asarray(right.all(axis=1) if self.kind == MULTILABEL else right)


def checked_classes(who: str, classes: Any) -> Array:
    """Return the classes that a user names, sorted, each once, (n_classes,).

    Raises
    ------
    ValueError
        If they are no sequence of labels that sort.
    """
    try:
        given = np.asarray(classes)
        known = np.unique(given)
    except (TypeError, ValueError):
        known = None
    mixed = isinstance(classes, Sequence) and len({isinstance(c, str) for c in classes}) > 1
    if known is None or mixed or given.ndim != 1 or (known != known).any():
        raise ValueError(
            f"{who}.partial_fit expects classes as a sequence (n_classes,) of labels of one type, all numbers or all "
            f"strings; got {reprlib.repr(classes)}."
        )
    return known


def _check_indicators(y: Array) -> None:
    others = y[~np.isin(y, (0, 1))]
    if others.size:
        raise ValueError(
            f"expected indicators of 0 and 1 as y {y.shape}, one column per label; got also {others[0]}. "
            "Where a label holds, pass 1: for instance (y == y.max()).astype(int)."
        )
