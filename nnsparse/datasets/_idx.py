"""Reader of idx files, the format of MNIST: an array with a header of its type and dimensions.

A file may be anything: whatever is wrong with its content is a ValueError that names the file, and
memory is bounded by what the file really holds, not by what its header claims.
Format: Y. LeCun, "The MNIST database", 1998.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_idx"]

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32  # NumPy 1's limit
_MAX_BYTES = 1 << 30  # EMNIST, the largest known, has 0.64e9
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str], sha256: str | None = None) -> NDArray[Any]:
    """Read an idx file, raw or compressed by gzip; its first bytes tell which.

    Parameters
    ----------
    path : path
    sha256 : str, optional
        What the decompressed content must hash to, hexadecimal.

    Returns
    -------
    ndarray
        Of the shape and type in the header, native byte order, C-contiguous, writable.

    Raises
    ------
    ValueError
        If the content is not a whole idx file, has bytes after its end, claims to exceed 1 GiB, or
        has another sha256. The message has the file, what was expected and what was found.
    OSError
        If the file cannot be opened or read.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not packed:
                array = _parse(raw, digest)
            else:
                with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                    array = _parse(stream, digest)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a good idx file: {error}") from None
    if sha256 is not None and digest.hexdigest() != sha256.lower():
        raise ValueError(
            f"{path} has the wrong content: expected sha256 {sha256.lower()} (decompressed), "
            f"got {digest.hexdigest()}"
        )
    return array


def _parse(stream: BinaryIO, digest: hashlib._Hash) -> NDArray[Any]:
    """Read the whole stream and check it against its header; ValueError without the file's name."""
    magic = _read(stream, 4, digest)
    if len(magic) < 4:
        raise ValueError(f"expected a header of at least 4 bytes; got {len(magic)}")
    if magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        types = ", ".join(f"{code:02x}" for code in _DTYPES)
        raise ValueError(
            f"expected a magic number of 00 00, a type ({types}) and the number of dimensions; "
            f"got {magic.hex(' ')}"
        )
    n_dimensions = magic[3]
    if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"expected 1 to {_MAX_DIMENSIONS} dimensions; got {n_dimensions}")
    sizes = _read(stream, 4 * n_dimensions, digest)
    if len(sizes) < 4 * n_dimensions:
        raise ValueError(
            f"expected {4 * n_dimensions} bytes of dimensions; got {len(sizes)}: truncated"
        )
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    dtype = np.dtype(_DTYPES[magic[2]])
    n_bytes = math.prod(shape) * dtype.itemsize
    # Sizes that NumPy would refuse even when another one is 0.
    largest = math.prod(max(size, 1) for size in shape) * dtype.itemsize
    if largest > _MAX_BYTES:
        raise ValueError(f"shape {shape} needs {largest} bytes; expected at most {_MAX_BYTES}")
    content = _read(stream, n_bytes + 1, digest)
    if len(content) < n_bytes:
        raise ValueError(
            f"shape {shape} needs {n_bytes} bytes after the header; got {len(content)}: truncated"
        )
    if len(content) > n_bytes:
        raise ValueError(f"expected {n_bytes} bytes after the header for shape {shape}; got more")
    array = np.frombuffer(content, dtype).reshape(shape)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _read(stream: BinaryIO, n_bytes: int, digest: hashlib._Hash) -> bytearray:
    """Read up to ``n_bytes``, in chunks: nothing is allocated for bytes that are not there."""
    content = bytearray()
    while chunk := stream.read(min(_CHUNK, n_bytes - len(content))):
        digest.update(chunk)
        content += chunk
    return content
