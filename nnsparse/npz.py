"""Arrays and a JSON manifest in one file, an uncompressed .npz that `numpy.load` reads too. Nothing is ever unpickled.

Compiled models and checkpoints are such files. Writing is all or nothing; reading trusts nothing: what the file claims
about sizes is held against its length before memory is taken, and every array against its sha256.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.atomic import replaced

Array = NDArray[Any]

MANIFEST = "manifest"
_CHUNK = 1 << 20  # bytes read, hashed and copied at a time
_DTYPES = {np.dtype(c).newbyteorder("<").str: np.dtype(c) for c in "?bBhHiIqQefd"}
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,20})', 'fortran_order': (False|True), 'shape': \(([\d, ]{0,200})\), \} *\n"
)
# What reading and checking a damaged file may raise.
DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    RuntimeError,  # NotImplementedError and RecursionError too
    EOFError,
    struct.error,
    zipfile.BadZipFile,
)


def write(
    path: str | PathLike[str],
    kind: str,
    version: int,
    arrays: Mapping[str, Array],
    fields: Mapping[str, Any],
) -> None:
    """Write arrays and a manifest: to a temporary file in the same folder, flushed to disk, which then gets the name.

    Parameters
    ----------
    path : path
        See `atomic.replaced`.
    kind, version : str, int
        What is in the file, and the version of that format.
    arrays : mapping of name to array
        Of booleans, integers or floats; none is called "manifest".
    fields : mapping
        What else the manifest holds, plain JSON without NaN; not "format", "version" and "arrays".

    Raises
    ------
    TypeError
        If an array holds anything but numbers.
    OSError
        If the file cannot be written; what was there before is as it was, and the message says so.
    """
    plain = {name: _little(name, array) for name, array in arrays.items()}
    described = {name: _describe(array, _digest(array)) for name, array in plain.items()}
    manifest = {"format": kind, "version": version, **fields, "arrays": described}
    text = json.dumps(manifest, allow_nan=False).encode()
    with replaced(path) as file:
        _write_members(file, {MANIFEST: np.frombuffer(text, np.uint8), **plain})


def read(
    path: str | PathLike[str], kind: str, version: int
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays, private and writeable, and the manifest of a file that `write` wrote.

    Parameters
    ----------
    path : path
    kind, version : str, int
        What is expected; older versions from 1 on are returned too, `manifest["version"]` says which.

    Raises
    ------
    DAMAGED
        One of these if anything in it is wrong; `explained` turns them into a ValueError with a message for users.
    OSError
        If it cannot be read.

    Notes
    -----
    Takes as much memory as the file is long, and one array more.
    """
    mode = os.stat(
        path
    ).st_mode  # opening a pipe would wait for a writer, a folder is refused there
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError("it is no regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, size)
            if MANIFEST not in members:
                raise ValueError("it has no manifest")
            text, _ = read_member(archive, members.pop(MANIFEST))
            manifest = _manifest(text, kind, version)
            listed = manifest["arrays"]
            if missing := sorted(listed.keys() - members.keys()):
                raise ValueError(f"arrays {missing} are missing")
            if unknown := sorted(members.keys() - listed.keys()):
                raise ValueError(f"unknown arrays {unknown}")
            arrays: dict[str, Array] = {}
            for name, info in members.items():
                array, digest = read_member(archive, info)
                if _describe(array, digest) != listed[name]:
                    raise ValueError(f"array {name!r} is not what the manifest says (damaged?)")
                arrays[name] = array
    return arrays, manifest


@contextmanager
def explained(path: str | PathLike[str], advice: str) -> Iterator[None]:
    """Turn what a damaged file raises into `ValueError: PATH cannot be loaded: REASON. ADVICE`."""
    try:
        yield
    except DAMAGED as error:
        raise ValueError(f"{os.fspath(path)} cannot be loaded: {error}. {advice}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a position before the file's beginning
            raise
        raise ValueError(
            f"{os.fspath(path)} cannot be loaded: a wrong position. {advice}"
        ) from error


# ---------------------------------------------------------------- writing


def _little(name: str, array: Array) -> Array:
    """Return an array as it is written: contiguous, little-endian."""
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in _DTYPES:
        raise TypeError(
            f"array {name!r} holds {array.dtype}; expected booleans, integers or floats"
        )
    return np.asarray(array, dtype, order="C")


def _digest(array: Array) -> str:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()


def _describe(array: Array, digest: str) -> dict[str, Any]:
    dtype = array.dtype.newbyteorder("<").str
    return {"dtype": dtype, "shape": list(array.shape), "sha256": digest}


def _write_members(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # of 1980: equal arrays give equal files
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


# ---------------------------------------------------------------- reading


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by array name: stored plainly, each once, together no larger than the file."""
    found: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise ValueError(f"{name!r} is no array")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"array {name!r} is compressed or encrypted")
        if name in found:
            raise ValueError(f"array {name!r} occurs twice")
        total += info.file_size
        if info.file_size != info.compress_size or total > size:
            raise ValueError(f"array {name!r} is said to be larger than the file")
        found[name] = info
    return found


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[Array, str]:
    """Return a member as an array, in this machine's byte order, and the sha256 of what was read.

    Takes as much memory as `info` says: look at that before. May raise what is in `DAMAGED`.
    """
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as member:
        head = member.read(len(_MAGIC) + 2)
        if len(head) != len(_MAGIC) + 2 or not head.startswith(_MAGIC):
            raise ValueError(f"array {name!r} is no .npy of version (1, 0)")
        length = int.from_bytes(head[-2:], "little")
        header = member.read(length)
        dtype, shape, count = _parsed(name, header)
        rest = info.file_size - len(head) - length
        if len(header) != length or count * dtype.itemsize != rest:
            raise ValueError(f"array {name!r} of shape {shape} and {dtype} has {rest} bytes")
        content = np.empty(rest, np.uint8)
        digest, at = hashlib.sha256(), 0
        while chunk := member.read(_CHUNK):
            content[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            digest.update(chunk)
            at += len(chunk)
        if at != rest:
            raise ValueError(f"array {name!r} ends after {at} of {rest} bytes")
    array = content.view(dtype.newbyteorder("<")).reshape(shape)
    return array.astype(dtype, copy=False).view(dtype), digest.hexdigest()


def _parsed(name: str, header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return dtype, shape and number of elements of an .npy header, exactly as NumPy writes it."""
    match = _HEADER.fullmatch(header)
    if match is None:
        raise ValueError(f"array {name!r} has a header that is not understood")
    dtype = _DTYPES.get(match[1].decode("latin-1"))
    if dtype is None or match[2] == b"True":
        raise ValueError(
            f"array {name!r} has dtype {match[1].decode('latin-1')!r}; expected plain numbers in C order"
        )
    shape = tuple(int(n) for n in match[3].split(b",") if n.strip())
    count = 1
    for n in shape:
        count *= n
    return dtype, shape, count


def _manifest(text: Array, kind: str, version: int) -> dict[str, Any]:
    if text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError("its manifest is no text")
    manifest = json.loads(text.tobytes(), parse_constant=_refuse, object_pairs_hook=_once)
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        raise ValueError(f"expected the format {kind!r}")
    found = manifest.get("version")
    if type(found) is not int or found < 1:
        raise ValueError(f"it has format version {found!r}; this nnsparse reads {version}")
    if found > version:
        raise ValueError(
            f"it has format version {found}, of a newer nnsparse; this one reads up to {version}"
        )
    if not isinstance(manifest.get("arrays"), dict):
        raise ValueError("the manifest lists no arrays")
    return manifest


def _refuse(constant: str) -> None:
    raise ValueError(f"the manifest holds {constant}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the manifest has a name twice")
    return found
