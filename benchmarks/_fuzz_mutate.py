"""Mutations of files: of bytes, of text, of numbers in place, and of the members of an .npz archive.

All are functions of the content and a generator, so that every mutated file can be made again from its number. What
the formats are, and how their checksums are put right afterwards, is in `_fuzz_targets`.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

EXTREMES = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    b"", b"0", b"-1", b"1", b"2", b"64", b"65", b"+1", b" 1", b"1_0", b"007", b"1.5", b"1e999", b"-1e-400", b"nan",
    b"inf", b"0x10", b"2147483647", b"2147483648", b"4294967296", b"9223372036854775808", b"1" * 30, b"1" * 5000,
    b"\xff\xfe", b"\0", b"\t", b"\n", b"\r\n", b"None", b"True", b"[]", b"{}", b"'", b'"', b"\\", b"(" * 40,
    b"[" * 3000,
)  # fmt: skip
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Return one of the choices."""
    return choices[int(rng.integers(len(choices)))]


# ---------------------------------------------------------------- bytes


def _span(content: bytearray, rng: np.random.Generator, most: int = 64) -> tuple[int, int]:
    """Return a place in the content and the end of a stretch from there, at most `most` bytes."""
    start = int(rng.integers(len(content) + 1))
    return start, min(len(content), start + int(rng.integers(1, most + 1)))


def _flip(c: bytearray, rng: np.random.Generator) -> None:
    c[int(rng.integers(len(c)))] ^= 1 << int(rng.integers(8))


def _set(c: bytearray, rng: np.random.Generator) -> None:
    c[int(rng.integers(len(c)))] = pick(rng, (0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))))


def _number(c: bytearray, rng: np.random.Generator) -> None:
    width, order = pick(rng, (1, 2, 4, 8)), pick(rng, ("little", "big"))
    start = int(rng.integers(len(c)))
    value = (pick(rng, EXTREMES) & (256**width - 1)).to_bytes(width, order)  # type: ignore[arg-type]
    c[start : start + width] = value[: len(c) - start]


def _truncate(c: bytearray, rng: np.random.Generator) -> None:
    del c[int(rng.integers(len(c) + 1)) :]


def _insert(c: bytearray, rng: np.random.Generator) -> None:
    start, _ = _span(c, rng)
    c[start:start] = rng.bytes(int(rng.integers(1, 17)))


def _delete(c: bytearray, rng: np.random.Generator) -> None:
    start, end = _span(c, rng)
    del c[start:end]


def _duplicate(c: bytearray, rng: np.random.Generator) -> None:
    start, end = _span(c, rng, 512)
    place = int(rng.integers(len(c) + 1))
    c[place:place] = c[start:end] * pick(rng, (1, 1, 1, 2, 50))


def _swap(c: bytearray, rng: np.random.Generator) -> None:
    (a, b), (d, e) = sorted((_span(c, rng), _span(c, rng)))
    if b <= d:
        c[a:e] = c[d:e] + c[b:d] + c[a:b]


def _blank(c: bytearray, rng: np.random.Generator) -> None:
    start, end = _span(c, rng)
    c[start:end] = bytes([pick(rng, (0, 0xFF, 0x20))]) * (end - start)


def _append(c: bytearray, rng: np.random.Generator) -> None:
    c += pick(rng, (b"\0", b"\n", bytes(600), rng.bytes(9)))


_BYTES: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    _flip, _flip, _set, _set, _number, _number, _truncate, _insert, _delete, _duplicate, _swap, _blank, _append,
)  # fmt: skip


def damage(content: bytes, rng: np.random.Generator, most: int = 4) -> bytes:
    """Return the content after one to `most` mutations of its bytes."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, most + 1))):
        if changed:
            pick(rng, _BYTES)(changed, rng)
    return bytes(changed)


def damage_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a text of numbers after one to four mutations: of a number, of a line, or of bytes."""
    for _ in range(int(rng.integers(1, 5))):
        kind, places = int(rng.integers(4)), list(_NUMBER.finditer(content))
        if kind < 2 and places:
            place = pick(rng, places)
            word = pick(rng, places)[0] if rng.integers(3) == 0 else pick(rng, WORDS)
            content = content[: place.start()] + word + content[place.end() :]
        elif kind == 2:
            lines = content.split(b"\n")
            i, j = (int(rng.integers(len(lines))) for _ in range(2))
            if rng.integers(2):
                lines[i], lines[j] = lines[j], lines[i]
            else:
                lines.insert(i, lines[j])
            content = b"\n".join(lines)
        else:
            content = damage(content, rng, 1)
    return content


# ---------------------------------------------------------------- .npz archives

Members = list[tuple[str, bytes]]


def unzip(content: bytes) -> Members:
    """Return the members of a good archive by name, unpacked."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def pack(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive with these members, checksums right; names may occur twice."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name twice is what is wanted
        for name, content in members:
            info = zipfile.ZipInfo(name or "empty")
            info.compress_type = method
            archive.writestr(info, content)
    return stream.getvalue()


def split(member: bytes) -> tuple[bytes, bytes]:
    """Return the header and the data of a good .npy file of version 1."""
    end = 10 + int.from_bytes(member[8:10], "little")
    return member[:end], member[end:]


def header(text: bytes) -> bytes:
    """Return the header of an .npy file of version 1 around a text, its length right."""
    return b"\x93NUMPY\x01\0" + (len(text) % 2**16).to_bytes(2, "little") + text


def damage_member(member: bytes, rng: np.random.Generator) -> bytes:
    """Return an .npy file after a mutation of numbers in place, of its header's text, or of its bytes."""
    kind = int(rng.integers(8))
    start, data = split(member)
    array = plain(start, data)
    if kind < 4 and array is not None and array.size and array.dtype.kind != "b":
        return start + damage_numbers(array.reshape(-1), rng)
    if kind == 4:
        return header(damage_text(start[10:], rng)) + data
    if kind == 5:
        return start + damage(data, rng)
    if kind == 6:
        return member[:-1] if array is None else resized(array.reshape(-1), rng)
    return damage(member, rng)


def plain(start: bytes, data: bytes) -> Any:
    """Return the array of numbers in an .npy file, None if an earlier mutation has broken it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.lib.format.read_array(io.BytesIO(start + data))
    except Exception:  # NumPy's reader raises anything
        return None
    return array if array.dtype.kind in "biuf" else None


def damage_numbers(array: Any, rng: np.random.Generator) -> bytes:
    """Return the data of an array (n,) with one to three numbers replaced: extremes, neighbours, others' values."""
    array = array.copy()
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(array.size)), int(rng.integers(4))
        old = array[at]
        with np.errstate(all="ignore"):
            if kind == 0:
                limits = np.finfo(array.dtype) if array.dtype.kind == "f" else np.iinfo(array.dtype)
                array[at] = pick(rng, (limits.max, limits.min, 0, 1))
            elif kind == 1:
                array[at] = old + array.dtype.type(1)
            elif kind == 2:
                array[at] = old - array.dtype.type(1)
            else:
                array[at] = array[int(rng.integers(array.size))]
    return array.tobytes()


def resized(array: Any, rng: np.random.Generator) -> bytes:
    """Return an .npy file with an array (n,) cut short or repeated, whose header fits it."""
    size = pick(rng, (0, 1, max(0, array.size - 1), array.size + 1, 2 * array.size))
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.resize(array, size), version=(1, 0))
    return stream.getvalue()


def damage_members(members: Members, rng: np.random.Generator, kept: Sequence[str] = ()) -> Members:
    """Return an archive's members after one to three mutations; those named in `kept` are left alone."""
    found = list(members)
    for _ in range(int(rng.integers(1, 4))):
        open_ = [i for i, (name, _) in enumerate(found) if name not in kept]
        if not open_:
            break
        i, kind = pick(rng, open_), int(rng.integers(12))
        name, content = found[i]
        if kind < 8:
            found[i] = name, damage_member(content, rng) if len(content) > 10 else rng.bytes(20)
        elif kind == 8:
            del found[i]
        elif kind == 9:
            found.insert(int(rng.integers(len(found) + 1)), found[i])
        elif kind == 10:
            found[i] = pick(rng, ("x.npy", "../x.npy", "é" * 9, name.removesuffix(".npy"))), content
        else:
            found[i] = name, pick(rng, found)[1]
    return found
