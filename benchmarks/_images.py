"""The images that `thesis` and `learning` train on: MNIST where it is, else the embedded digits, which they say."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from nnsparse import datasets

Array = NDArray[Any]
Split = tuple[Array, Array]
MNIST = "MNIST"
DIGITS = "embedded digits (MNIST is not in the data home)"


def images(n_train: int, n_test: int = 10_000) -> tuple[str, Split, Split]:
    """Return what they are, training and test images: the first of MNIST's if it is there, else digits."""
    try:
        (x, y), (x_test, y_test) = datasets.mnist(download=False)
    except datasets.DataUnavailable:
        return DIGITS, *datasets.digits(n_train=n_train, n_test=n_test)
    return MNIST, (x[:n_train], y[:n_train]), (x_test[:n_test], y_test[:n_test])


def warning(data: str) -> str:
    """Return a line for the report that says it if the images are not MNIST's, else ""."""
    if data == MNIST:
        return ""
    return (
        f"**Not MNIST: this ran on the {data}, whose figures do not compare. Set NNSPARSE_DATA to a "
        "folder that contains mnist/ and run again.**"
    )
