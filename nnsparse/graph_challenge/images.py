"""The challenge's inputs from MNIST: pictures made larger, black or white.

The official files cannot be made again exactly; these come closest (see `THRESHOLDS`). Where a user has the official
ones, `tsv.read_images` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._order import canonical, stack
from .networks import at_least_1

__all__ = ["THRESHOLDS", "challenge_blocks", "challenge_images", "interpolation"]

_SIDE = 28  # of MNIST's pictures
_BLOCK_BYTES = 1 << 25  # of enlarged pictures in float64

THRESHOLDS = {32: 184.632, 64: 188.71, 128: 191.005, 256: 192.5382}
"""By side: the grey value, of 255, above which a pixel is 1.

Found by search: with them MNIST's 60 000 training pictures have as many nonzeros as the official files, exactly so
at side 32, and but for 4 of 392 191 985 at side 256.
"""


def interpolation(side: int) -> NDArray[np.float64]:
    """Return the matrix (side, 28) that resamples a periodic signal of 28 values at the points j·28/side.

    Band-limited, as by the FFT: A[j, n] = (1 + 2 Σ_{k=1}^{13} cos(2πk(u_j - n)/28) + cos(π(u_j - n))) / 28 with
    u_j = j·28/side. It begins at the first value, and the rows sum to 1.

    Examples
    --------
    >>> np.allclose(interpolation(28), np.eye(28))
    True
    """
    n = at_least_1("side", side)
    distance = np.arange(n)[:, None] * (_SIDE / n) - np.arange(_SIDE)
    k = np.arange(1, _SIDE // 2)[:, None, None]
    waves = 1 + 2 * np.cos(2 * math.pi / _SIDE * k * distance).sum(0)
    # The wave of 14 periods has only its cosine, whose phase the values themselves fix.
    nyquist = np.cos(math.pi * distance)
    matrix: NDArray[np.float64] = (waves + nyquist) / _SIDE
    return matrix


def challenge_blocks(
    pictures: ArrayLike, side: int, threshold: float | None = None
) -> Iterator[sparse.csr_matrix[np.float32]]:
    """Yield the challenge's inputs a block of rows at a time, in bounded memory.

    Parameters, errors and notes as `challenge_images`; a block is what 32 MB of enlarged pictures hold.
    """
    images = np.asarray(pictures)
    if images.ndim != 2 or images.shape[1] != _SIDE**2:
        raise ValueError(
            f"challenge_images expects pictures of shape (n, {_SIDE**2}); got {images.shape}. "
            "Pass datasets.mnist()[0][0], or x.reshape(len(x), -1)."
        )
    if images.dtype.kind not in "fiub":
        raise TypeError(f"challenge_images expects real numbers; got {images.dtype}. Pass float32.")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"challenge_images expects ink from 0 to 1; got {images.min()} to {images.max()}. "
            "8 bits? Divide by 255."
        )
    matrix = interpolation(side)
    if threshold is None:
        if side not in THRESHOLDS:
            raise ValueError(
                f"challenge_images has thresholds for the sides {', '.join(map(str, THRESHOLDS))}; "
                f"got {side}. Pass threshold=, a grey value of 255."
            )
        threshold = THRESHOLDS[side]
    elif not math.isfinite(threshold):
        raise ValueError(f"challenge_images expects a finite threshold; got {threshold}.")
    return _enlarge(images, matrix, threshold)


def challenge_images(
    pictures: ArrayLike, side: int, threshold: float | None = None
) -> sparse.csr_matrix[np.float32]:
    """Return pictures enlarged to side × side pixels, 1 where they are bright, as the challenge's inputs.

    Parameters
    ----------
    pictures : (n, 784) array
        Ink from 0 to 1, a picture row by row, as `datasets.mnist` gives it; rounded to 1/255.
    side : int
        32, 64, 128 or 256 for networks of side² neurons; with a threshold any other.
    threshold : float, optional
        Grey value, of 255, above which a pixel is 1. By default `THRESHOLDS`.

    Returns
    -------
    csr_matrix (n, side²) float32
        Ones; neuron c·side + r is the pixel in row r, column c.

    Raises
    ------
    TypeError, ValueError
        If the pictures' shape, dtype or values are wrong, or there is no threshold for this side.

    Notes
    -----
    Cost per picture: 28·side·(28 + side) multiply-adds in two matrix products. Memory: 8 bytes per nonzero, at most
    twice that, and a block of 32 MB.

    Source: J. Kepner et al., "Sparse Deep Neural Network Graph Challenge", 2019, who do not say how pictures were
    enlarged. Differences: the interpolation and the thresholds were found by comparing numbers of nonzeros with the
    official files.
    """
    return stack(challenge_blocks(pictures, side, threshold), side**2)  # type: ignore[no-any-return]


def _enlarge(
    pictures: NDArray[Any], matrix: NDArray[np.float64], threshold: float
) -> Iterator[sparse.csr_matrix[np.float32]]:
    side = len(matrix)
    n_neurons = side**2
    step = max(1, _BLOCK_BYTES // (8 * n_neurons))
    for start in range(0, len(pictures), step):
        # Rounding makes 8-bit grey values exact again, so that the result does not depend on the dtype.
        grey = np.rint(pictures[start : start + step].astype(np.float64) * 255)
        n = len(grey)
        wide = (grey.reshape(n * _SIDE, _SIDE) @ matrix.T).reshape(n, _SIDE, side)
        # Columns first, as they are to be flattened; a copy, so that this is one product and not n.
        columns = wide.transpose(0, 2, 1).reshape(n * side, _SIDE)
        bright = (columns @ matrix.T).reshape(n, n_neurons) > threshold
        indptr = np.zeros(len(bright) + 1, np.int64)
        np.cumsum(np.count_nonzero(bright, axis=1), out=indptr[1:])
        indices = (np.flatnonzero(bright) % n_neurons).astype(np.int32)
        yield canonical(np.ones(indices.size, np.float32), indices, indptr, bright.shape)
