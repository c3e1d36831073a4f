"""Compiled models on disk: an uncompressed .npz of plain arrays with a JSON manifest. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.inference.checking import check
from nnsparse.inference.packing import Packed

Array = NDArray[Any]

FORMAT, VERSION = "nnsparse compiled model", 1
_KINDS: dict[str, tuple[type[np.generic], ...]] = {
    "program": (np.int64,),
    "values": (np.uint16, np.float32, np.float64),
    "narrow": (np.uint8,),
    "wide": (np.uint16,),
    "constants": (np.float32, np.float64),
}


def _little(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _describe(array: Array) -> dict[str, Any]:
    """Return dtype, shape and sha256 of a little-endian array."""
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}


def write(path: str | PathLike[str], packed: Packed, storage_error: float) -> None:
    """Write arrays and manifest to a temporary file beside `path`, flush it to disk, and give it its name."""
    arrays = {name: _little(array) for name, array in packed.arrays().items()}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "storage_error": storage_error,
        "arrays": {name: _describe(array) for name, array in arrays.items()},
    }
    text = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, manifest=text, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str | PathLike[str]) -> tuple[Packed, float]:
    """Return the checked arrays and the storage error of a file that `write` wrote.

    Raises
    ------
    ValueError
        If anything in it is wrong.
    OSError
        If it cannot be read.
    """
    try:
        members = _members(path)
        manifest = _manifest(members.pop("manifest", None))
        arrays = {name: _verified(name, members, manifest["arrays"]) for name in _KINDS}
        if members:
            raise ValueError(f"unknown arrays {sorted(members)}")
        packed = Packed(**arrays)
        if not packed.half and packed.values.dtype != packed.constants.dtype:
            raise ValueError(f"weights are {packed.values.dtype}, biases {packed.constants.dtype}")
        check(packed)
    except _DAMAGED as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be loaded: {error}. Write it again with CompiledModel.save; "
            "checkpoints of training are read by nnsparse.load."
        ) from error
    return packed, manifest["storage_error"]


# What reading and checking a damaged file may raise.
_DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    NotImplementedError,
    zipfile.BadZipFile,
    EOFError,
    RecursionError,
)


def _members(path: str | PathLike[str]) -> dict[str, Array]:
    """Return the arrays of an .npz file, none of them larger than the file."""
    found: dict[str, Array] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise ValueError(f"array {name!r} is compressed or encrypted")
            if name in found:
                raise ValueError(f"array {name!r} occurs twice")
            found[name] = _array(name, archive.read(info))
    return found


def _array(name: str, content: bytes) -> Array:
    """Return the array in the bytes of an .npy file, a view of them; never an object array."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"array {name!r} has .npy version {version}; expected (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    rest = len(content) - stream.tell()
    if dtype.kind not in "fiu" or fortran or len(shape) != 1:
        raise ValueError(f"array {name!r} is {dtype} {shape}; expected a plain vector of numbers")
    if shape[0] * dtype.itemsize != rest:
        raise ValueError(f"array {name!r} of {shape[0]} {dtype} has {rest} bytes")
    return np.frombuffer(content, dtype, offset=stream.tell())


def _manifest(text: Array | None) -> dict[str, Any]:
    if text is None:
        raise ValueError("it has no manifest")
    manifest = json.loads(text.tobytes())
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"expected the format {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise ValueError(
            f"it has format version {manifest.get('version')!r}; this nnsparse reads {VERSION}"
        )
    error = manifest.get("storage_error")
    if not isinstance(error, float) or not 0.0 <= error < math.inf:
        raise ValueError(f"storage_error is {error!r}; expected a number from 0 on")
    if not isinstance(manifest.get("arrays"), dict):
        raise ValueError("the manifest lists no arrays")
    return manifest


def _verified(name: str, members: dict[str, Array], listed: dict[str, Any]) -> Array:
    """Return a private, aligned copy of one array, after comparing it with the manifest."""
    if name not in members or name not in listed:
        raise ValueError(f"array {name!r} is missing")
    array = members.pop(name)
    if _describe(array) != listed[name]:
        raise ValueError(f"array {name!r} is not what the manifest says (damaged?)")
    native = array.dtype.newbyteorder("=")
    if native not in [np.dtype(kind) for kind in _KINDS[name]]:
        raise ValueError(f"array {name!r} has dtype {array.dtype}")
    return array.astype(native)
