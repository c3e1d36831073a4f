"""Images for inference: CSR, whole or in blocks of rows, checked and cut into pieces of the size that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnsparse.topology import check_scipy

Array = NDArray[Any]


class Piece(NamedTuple):
    """Some images: rows first ... first + rows - 1 of a CSR matrix, inputs increasing, float32."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    first: int
    rows: int


def is_sparse(images: Any) -> bool:
    """Return whether this is a matrix or array of scipy.sparse, without telling mypy that it is nothing more."""
    return sparse.issparse(images)


def count_of(images: Any) -> int | None:
    """Return how many images there are, None where only reading them will tell."""
    return int(images.shape[0]) if is_sparse(images) else None


def pieces(images: Any, n: int, rows: int) -> Iterator[Piece]:
    """Yield the images in pieces of `rows`, the last one perhaps smaller.

    Parameters
    ----------
    images : scipy.sparse matrix (n_images, n), or an iterable of such
    n : int
        Neurons.

    Raises
    ------
    TypeError
        If it is neither, or values are not real numbers.
    ValueError
        If there is no image, a shape is wrong, an index is out of range, or a value is not finite.
    """
    if is_sparse(images):
        whole = _checked(images, n)
        for first in range(0, whole.rows, rows):
            yield whole._replace(first=first, rows=min(rows, whole.rows - first))
        if not whole.rows:
            raise ValueError(f"expected at least one image; got shape {images.shape}.")
        return
    if isinstance(images, np.ndarray) or not isinstance(images, Iterable):
        raise TypeError(
            f"expected images as a scipy.sparse matrix (n_images, {n}), or an iterable of such; got "
            f"{type(images).__name__}. Dense? Pass scipy.sparse.csr_array(images)."
        )
    waiting: list[Piece] = []
    have = total = 0
    for block in images:
        piece = _checked(block, n)
        waiting.append(piece)
        have += piece.rows
        total += piece.rows
        if have >= rows:
            joined = _joined(waiting)
            whole_rows = have // rows * rows
            for first in range(0, whole_rows, rows):
                yield joined._replace(first=first, rows=rows)
            waiting, have = (
                [joined._replace(first=whole_rows, rows=have - whole_rows)],
                have - whole_rows,
            )
    if have:
        yield _joined(waiting)
    if not total:
        raise ValueError("expected at least one image; the iterable has none. Was it read before?")


def _joined(parts: list[Piece]) -> Piece:
    """Return several pieces as one."""
    if len(parts) == 1:
        return parts[0]
    ends = [(p.indptr[p.first], p.indptr[p.first + p.rows]) for p in parts]
    counts = [np.diff(p.indptr[p.first : p.first + p.rows + 1]) for p in parts]
    indptr = np.zeros(sum(p.rows for p in parts) + 1, np.int64)
    np.cumsum(np.concatenate(counts), out=indptr[1:])
    indices = np.concatenate([p.indices[a:b] for p, (a, b) in zip(parts, ends, strict=True)])
    data = np.concatenate([p.data[a:b] for p, (a, b) in zip(parts, ends, strict=True)])
    return Piece(indptr, indices, data, 0, indptr.size - 1)


def _checked(images: Any, n: int) -> Piece:
    """Return a matrix as a piece; duplicates are added up, as SciPy means them."""
    if not is_sparse(images):
        raise TypeError(
            f"expected blocks of images as scipy.sparse matrices; got {type(images).__name__}. "
            "Dense? Pass scipy.sparse.csr_array(block)."
        )
    if images.ndim != 2 or images.shape[1] != n:
        raise ValueError(
            f"expected images of shape (n_images, {n}), one column per neuron; got {images.shape}. "
            "Images first? Transpose them."
        )
    if images.dtype.kind not in "fiub":
        raise TypeError(f"expected images of real numbers; got {images.dtype}. Pass float32.")
    check_scipy(images)
    csr: Any = images.tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found
        data = csr.data[: csr.indptr[-1]].astype(np.float32, copy=False)
    if not np.isfinite(data).all():
        raise ValueError("expected images of finite float32 numbers; found NaN or infinity.")
    indices = csr.indices.astype(np.int32, copy=False)
    return Piece(csr.indptr.astype(np.int64, copy=False), indices, data, 0, csr.shape[0])
