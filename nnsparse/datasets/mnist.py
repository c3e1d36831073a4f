"""MNIST: 70 000 handwritten digits, from the data home or, once, from the network.

Where files live is in `_home`, their format in `_idx`. Without a network, see `digits`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._home import DataUnavailable, data_home, fetch
from ._idx import read_idx

__all__ = ["mnist"]

Split = tuple[NDArray[np.float32], NDArray[np.int64]]

# sha256 of the decompressed content.
_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
_MAX_BYTES = 1 << 26  # a mirror may unpack the 47 MB of train-images on the way


def mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Split, Split]:
    """Load MNIST, after downloading it (11 MB) if it is not in the data home.

    Parameters
    ----------
    root : path, optional
        A data home, that is a folder that contains ``mnist/``, or the folder that holds the four
        idx files itself; by default `data_home()`. Files may be raw or ``.gz``.
    download : bool
        Whether missing files may be fetched, into ``mnist/`` of the data home.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)
        X : (60 000 or 10 000, 784) float32, C-contiguous, ink from 0 to 1, a picture row by row;
        y : (60 000 or 10 000,) int64, the digit from 0 to 9.

    Raises
    ------
    DataUnavailable
        If a file is missing and cannot or may not be downloaded.
    ValueError
        If a file is corrupt: truncated, of a wrong magic number, or of a wrong sha256.
    TypeError
        If ``root`` is not a path.
    OSError
        If a file cannot be read.

    Notes
    -----
    Cost: about half a second, and 220 MB of memory for what is returned.

    Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits", 1998.
    """
    home = data_home(root)
    # All four first, so that a missing one is known before the time is spent.
    paths = {name: _provide(name, home, download) for name in _FILES}
    return _split(paths, "train"), _split(paths, "t10k")


def _provide(name: str, home: Path, download: bool) -> Path:
    """Return the path of one of `_FILES`, downloaded if need be and allowed."""
    for folder in (home / "mnist", home):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    target = home / "mnist" / f"{name}.gz"
    explain = partial(_explain, name, target)
    if not download:
        raise DataUnavailable(explain(["download=False"]))
    urls = [f"{mirror}{name}.gz" for mirror in _MIRRORS]
    check = partial(read_idx, sha256=_FILES[name])
    fetch(urls, target, check=check, max_bytes=_MAX_BYTES, explain=explain)
    return target


def _explain(name: str, target: Path, failures: Sequence[str]) -> str:
    """Say what is missing, why, and what the user can do."""
    return "\n".join(
        [
            f"MNIST needs {target}, which is missing and was not downloaded:",
            *(f"  {failure}" for failure in failures),
            f"Download {_MIRRORS[0]}{name}.gz",
            f"(sha256 of the decompressed content: {_FILES[name]})",
            f"and put it at {target}, packed or not; or set NNSPARSE_DATA to a folder that "
            "contains mnist/. datasets.digits() needs no network.",
        ]
    )


def _split(paths: dict[str, Path], part: str) -> Split:
    """Read the pictures and the labels of "train" or "t10k"."""
    pixels = _read(paths, f"{part}-images-idx3-ubyte")
    labels = _read(paths, f"{part}-labels-idx1-ubyte")
    pictures = pixels.reshape(len(pixels), -1).astype(np.float32)
    pictures /= np.float32(255)
    return pictures, labels.astype(np.int64)


def _read(paths: dict[str, Path], name: str) -> NDArray[np.uint8]:
    """Read one of `_FILES`; what is wrong with it is for the user to remove."""
    try:
        return read_idx(paths[name], sha256=_FILES[name])
    except ValueError as error:
        raise ValueError(f"{error}. Delete it, and it will be downloaded anew.") from None
