"""The challenge's files of images, read whole or in blocks of images, and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnsparse.topology import check_scipy

from ._lines import PathLike, entries, lines, open_binary, refuse
from ._order import csr, read_sorted, stack
from .networks import at_least_1, check_finite

Csr: TypeAlias = "sparse.csr_matrix[np.float32]"

N_IMAGES = 60_000
"""Images of the challenge: MNIST's training pictures."""


class _UnsortedError(ValueError):
    """A file of images is not in the order of its images."""


def read_images(path: PathLike, n_neurons: int, n_images: int = N_IMAGES) -> Csr:
    """Read all images, `image<TAB>neuron<TAB>value` per line, in any order.

    Parameters
    ----------
    path : path
        A file such as ``sparse-images-1024.tsv``, plain or ``.gz``.
    n_neurons : int
        Columns of the result.
    n_images : int
        Its rows; images that the file does not name are empty.

    Returns
    -------
    csr_matrix (n_images, n_neurons) float32
        Columns increasing in each row.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        As `read_layer`.

    Notes
    -----
    Memory: 8 bytes per entry, at most twice that; of a file that is not in the order of its images three times.
    `read_image_blocks` needs one block of images only.
    """
    n, rows = at_least_1("n_neurons", n_neurons), at_least_1("n_images", n_images)
    try:
        images: Csr = stack(read_image_blocks(path, n, rows), n)
    except _UnsortedError:
        images = csr(*read_sorted(path, rows, n, by_column=False), 0, rows, n)
    return images


def read_image_blocks(
    path: PathLike, n_neurons: int, n_images: int = N_IMAGES, block: int = 1024
) -> Iterator[Csr]:
    """Yield the images of a file, `block` at a time (the last one fewer), in bounded memory.

    Parameters and errors as `read_images`; besides, the file must be in the order of its images, and within an image
    in that of the neurons.
    """
    n, rows = at_least_1("n_neurons", n_neurons), at_least_1("n_images", n_images)
    step = at_least_1("block", block)
    return _read_blocks(path, n, rows, step)


def _read_blocks(path: PathLike, n: int, n_images: int, step: int) -> Iterator[Csr]:
    first, last = 0, -1  # the image that the next block begins with, and the latest entry
    keys, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for part in entries(path, n_images, n):
        key = part.rows * n + part.columns
        _check_rise(path, part.line, last, key)
        last = int(key[-1])
        keys.append(key)
        values.append(part.values.astype(np.float32))
        if last >= (first + step) * n:
            joined, value, start = np.concatenate(keys), np.concatenate(values), 0
            while last >= (first + step) * n:
                end = int(np.searchsorted(joined, (first + step) * n))
                yield csr(joined[start:end], value[start:end], first, step, n)
                first, start = first + step, end
            keys, values = [joined[start:].copy()], [value[start:].copy()]
    joined, value = np.concatenate(keys), np.concatenate(values)
    for image in range(first, n_images, step):
        start, end = np.searchsorted(joined, (image * n, (image + step) * n))
        yield csr(joined[start:end], value[start:end], image, min(step, n_images - image), n)


def _check_rise(path: PathLike, line: int, last: int, keys: NDArray[np.int64]) -> None:
    """Refuse a duplicate or a fall in the keys of consecutive lines, `last` being the key before."""
    steps = np.diff(keys, prepend=last)
    if steps.min() <= 0:
        place = int(np.argmax(steps <= 0))
        if steps[place] == 0:
            refuse(path, line + place, "every position once", "that of the line before")
        raise _UnsortedError(
            f"{path}, line {line + place}: expected images in order, and their neurons in order; "
            "got an earlier position than before. read_images sorts, in memory."
        )


def write_images(path: PathLike, images: Any) -> None:
    """Write images, one line per nonzero, in order.

    Parameters
    ----------
    path : path
        ``.gz`` at its end packs it.
    images : SciPy sparse (n_images, n_neurons), or iterable of such blocks
        The blocks' rows are numbered on. Stored zeros are left out, duplicates summed.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If a block is not a SciPy sparse matrix.
    ValueError
        If a value is not a finite float32, or a block inconsistent.
    """
    parts: Iterable[Any] = (images,) if sparse.issparse(images) else images
    first = 0
    with open_binary(path, "wb") as file:
        for part in parts:
            is_sparse: bool = sparse.issparse(part)
            if not is_sparse:
                raise TypeError(
                    f"write_images expects SciPy sparse blocks; got {type(part).__name__}. "
                    "Pass scipy.sparse.csr_matrix(images)."
                )
            check_scipy(part)
            block: Any = part.tocsr(copy=True)
            block.sum_duplicates()
            block.eliminate_zeros()
            check_finite(block.data)
            rows = first + np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            file.writelines(lines(rows, block.indices, block.data, "%g"))
            first += block.shape[0]
