"""The challenge's TSV files: layers, images and categories, read and written, plain or .gz.

Indices count from one in files and from zero in arrays. `_lines` parses, `_order` sorts and refuses duplicates, and
`_tsv_images` has the functions for images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._lines import PathLike, blocks, integer, lines, open_binary, refuse, shown
from ._order import read_sorted
from ._tsv_images import N_IMAGES, read_image_blocks, read_images, write_images
from .networks import Layer, Network, at_least_1, bias_of, check_layer

__all__ = [
    "folder",
    "read_categories",
    "read_image_blocks",
    "read_images",
    "read_layer",
    "write_categories",
    "write_images",
    "write_layer",
]


def read_layer(path: PathLike, n_neurons: int) -> Layer:
    """Read one layer, `from<TAB>to<TAB>weight` per line, in any order.

    Parameters
    ----------
    path : path
        A file such as ``n1024-l1.tsv``, plain or ``.gz``.
    n_neurons : int
        Largest index allowed.

    Returns
    -------
    Layer
        Of n_neurons outputs.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line is not three numbers, one is out of range, a position occurs twice, or there is no line at all; names
        file and line.

    Notes
    -----
    Cost: O(nnz) memory; time also one sort where the file is not in column-major order, as the official ones are.
    """
    n = at_least_1("n_neurons", n_neurons)
    key, value = read_sorted(path, n, n, by_column=True)
    if not key.size:
        refuse(path, 1, "at least one weight", "an empty file")
    outputs, indices = np.divmod(key, n)
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(outputs, minlength=n), out=indptr[1:])
    return Layer(indptr, indices.astype(np.int32), value)


def write_layer(path: PathLike, layer: Layer) -> None:
    """Write one layer as the official files are: column-major, values as `%.6e`.

    Parameters
    ----------
    path : path
        ``.gz`` at its end packs it.
    layer : Layer
        Square, not empty; values that 7 digits do not tell are written with 9, so that they can be read back exactly.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError, ValueError
        As `networks.check_layer`.
    """
    texts = layer_text(layer)  # checked before the file is opened
    with open_binary(path, "wb") as file:
        file.writelines(texts)


def layer_text(layer: Layer) -> Iterator[bytes]:
    """Yield what `write_layer` writes, some lines at a time."""
    n = len(layer[0]) - 1
    indptr, indices, values = check_layer(layer, n)
    if not values.size:
        raise ValueError(
            "write_layer expects at least one weight; got an empty layer, whose file could not be told from one that "
            "was cut short. Leave the layer out."
        )
    outputs = np.repeat(np.arange(n), np.diff(indptr))
    return lines(indices, outputs, values, "%.6e")


def folder(path: PathLike, n_neurons: int, n_layers: int, bias: float | None = None) -> Network:
    """Return the network in the files ``n{n_neurons}-l{1 … n_layers}.tsv`` (or ``.tsv.gz``) of a folder.

    Parameters
    ----------
    path : path
        The folder. Files are read when the network's layers are asked for, one at a time.
    n_neurons, n_layers : int
        At least 1.
    bias : float, optional
        By default the official one of this size.

    Raises
    ------
    FileNotFoundError
        If a file is missing; names the first.
    TypeError, ValueError
        If a number is wrong, or there is no official bias. While layers are read: as `read_layer`.

    Notes
    -----
    Cost of the network's `nnz`: one pass over all the files, which counts lines.
    """
    n, depth = at_least_1("n_neurons", n_neurons), at_least_1("n_layers", n_layers)
    files = [_layer_file(Path(path), f"n{n}-l{layer}.tsv") for layer in range(1, depth + 1)]

    def count() -> int:
        return sum(block.count(b"\n") for file in files for _, block in blocks(file))

    return Network(n, depth, bias_of(n, bias), lambda: (read_layer(f, n) for f in files), count)


def _layer_file(path: Path, name: str) -> Path:
    for file in (path / name, path / f"{name}.gz"):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"expected {path / name}, or the same with .gz; there is none. The official networks are "
        "at https://graphchallenge.mit.edu/data-sets; network() makes them without files."
    )


def read_categories(path: PathLike, n_images: int = N_IMAGES) -> NDArray[np.int64]:
    """Read the images of a category file, one number per line.

    Returns
    -------
    (n,) int64
        From zero, increasing.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line is not one integer from 1 to n_images, or one occurs twice; names file and line.
    """
    found: dict[int, int] = {}
    for first, block in blocks(path):
        for line, text in enumerate(block.split(b"\n")[:-1], first):
            image = integer(path, line, "number of an image", text.rstrip(b"\r\t "), n_images)
            if image in found:
                refuse(path, line, "every image once", f"{shown(text)}, as in line {found[image]}")
            found[image] = line
    return np.array(sorted(found), np.int64)


def write_categories(path: PathLike, images: ArrayLike) -> None:
    """Write images (n,), counted from zero, as a category file: increasing, counted from one.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError, ValueError
        If `images` are not distinct integers >= 0 in a flat array.
    """
    ids = np.asarray(images)
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(
            f"write_categories expects integers; got {ids.dtype}. Pass np.flatnonzero(…)."
        )
    if ids.ndim != 1 or (ids.size and ids.min() < 0) or np.unique(ids).size != ids.size:
        raise ValueError(
            "write_categories expects distinct images >= 0, flat; got an array of shape "
            f"{ids.shape}. Pass np.flatnonzero(active)."
        )
    with open_binary(path, "wb") as file:
        file.write(b"".join(b"%d\n" % (int(i) + 1) for i in np.sort(ids)))
