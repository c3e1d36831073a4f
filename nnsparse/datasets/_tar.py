"""Reader of .tar.gz files that only hands out the content of chosen regular members, in passing.

Nothing is extracted and no name ever reaches the file system. A file may be anything: whatever is
wrong with it is a ValueError that names it, and memory is bounded whatever sizes its headers claim.

Python's `tarfile` is not used because it reads extended headers into memory whatever their size,
and keeps a record of every member it has seen.
Format: POSIX.1-2001 pax (ustar with extended headers) and GNU tar's long names.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["read_members"]

_BLOCK = 512
_CHUNK = 1 << 18
_MAX_ARCHIVE = 1 << 32  # unpacked bytes
_MAX_EXTENDED = 1 << 16  # bytes of an extended header
_KINDS = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a device",
    "4": "a device",
    "6": "a pipe",
    "S": "a sparse file",
}
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)


class _Header(NamedTuple):
    name: str
    size: int
    kind: str


def read_members(
    path: Path,
    wanted: Callable[[str], bool],
    *,
    max_bytes: int,
    passed: Callable[[int], object] = lambda n_bytes: None,
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each regular member whose name is wanted, in the archive's order.

    Parameters
    ----------
    path : Path
        A tar archive compressed by gzip.
    wanted : function of a name
        Whether to read that member; others are passed over.
    max_bytes : int
        Longest wanted member to accept.
    passed : function
        Told after each wanted member how many bytes of the file have been read.

    Yields
    ------
    (str, bytes)

    Raises
    ------
    ValueError
        If the file is no whole archive; if a member is a link, a device or sparse, or its name is
        absolute or has ".."; if a wanted member is longer than ``max_bytes`` or the archive than
        4 GiB. What came before has been yielded.
    OSError
        If the file cannot be opened or read.
    """
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw, mode="rb") as stream:
            for member in _walk(_Blocks(stream), wanted, max_bytes):  # type: ignore[arg-type]
                yield member
                passed(raw.tell())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a good archive: {error}") from None


class _Blocks:
    """A stream read in whole blocks of 512 bytes, up to the largest archive accepted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = _MAX_ARCHIVE

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes and pass over the rest of their last block."""
        n_bytes = -(-size // _BLOCK) * _BLOCK
        content = self._stream.read(n_bytes)
        self._count(len(content))
        if len(content) < n_bytes:
            raise ValueError(f"truncated: expected {n_bytes} more bytes, got {len(content)}")
        return content[:size]

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes and the rest of their last block."""
        for start in range(0, size, _CHUNK):
            self.read(min(_CHUNK, size - start))

    def header(self) -> bytes:
        """Return the next block, or nothing at the end, after reading the file out."""
        block = self._stream.read(_BLOCK)
        self._count(len(block))
        if any(block):
            return block
        # Zeros end an archive. What follows is read for the sake of gzip's checksum.
        while rest := self._stream.read(_CHUNK):
            self._count(len(rest))
        return b""

    def _count(self, n_bytes: int) -> None:
        self._left -= n_bytes
        if self._left < 0:
            raise ValueError(f"expected at most {_MAX_ARCHIVE} bytes unpacked; got more")


def _walk(
    blocks: _Blocks, wanted: Callable[[str], bool], max_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted members; ValueError without the archive's name."""
    changes: dict[str, str] = {}  # what extended headers say of the next member
    while block := blocks.header():
        header = _parse(block)
        if header.kind in "LKxg":
            changes.update(_extended(header, blocks))
            continue
        header = _Header(
            changes.get("path", header.name),
            _number("size", changes["size"]) if "size" in changes else header.size,
            header.kind,
        )
        changes = {}
        _refuse(header)
        if header.kind == "5":
            continue  # a directory has no content, whatever its size field says
        if not wanted(header.name):
            blocks.skip(header.size)
            continue
        if header.size > max_bytes:
            raise ValueError(
                f"member {header.name!r} claims {header.size} bytes; expected at most {max_bytes}"
            )
        yield header.name, blocks.read(header.size)


def _parse(block: bytes) -> _Header:
    """Read a header block."""
    if len(block) < _BLOCK:
        raise ValueError(f"truncated: expected a header of {_BLOCK} bytes, got {len(block)}")
    # The sum is over the block with its own field blank.
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if _octal("checksum", block[148:156]) != total:
        raise ValueError("a member's header has a wrong checksum: no tar archive, or damaged")
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    text = name.decode("utf-8", "surrogateescape")
    kind = chr(block[156]) if block[156] else "0"
    if kind == "0" and text.endswith("/"):
        kind = "5"  # so did the first tar write directories
    if block[124] & 0x80:  # a number too long for octal digits
        raise ValueError(f"member {text!r} claims more than 8 GiB")
    return _Header(text, _octal("size", block[124:136]), kind)


def _octal(what: str, field: bytes) -> int:
    """Read a number of a header; no digits are 0."""
    digits = field.partition(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ValueError(f"expected octal digits as a member's {what}; got {digits!r}")
    return int(digits or b"0", 8)


def _number(what: str, digits: str) -> int:
    """Read a decimal number of an extended header."""
    if not re.fullmatch(r"[0-9]{1,18}", digits, re.ASCII):
        raise ValueError(f"expected decimal digits as a member's {what}; got {digits[:40]!r}")
    return int(digits)


def _extended(header: _Header, blocks: _Blocks) -> dict[str, str]:
    """Read what an extended header changes of the next member: its path and size at most."""
    if header.size > _MAX_EXTENDED:
        raise ValueError(
            f"an extended header claims {header.size} bytes; expected at most {_MAX_EXTENDED}"
        )
    content = blocks.read(header.size)
    if header.kind == "L":
        name = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        return {"path": name}
    if header.kind != "x":
        return {}  # the target of a link, or remarks on the whole archive
    changes = {}
    while content:
        # "LENGTH KEY=VALUE\n", where LENGTH counts the whole record.
        digits, _, _ = content.partition(b" ")
        length = _number("record", digits[:20].decode("latin-1"))
        record, content = content[len(digits) + 1 : length - 1], content[length:]
        key, equals, value = record.decode("utf-8", "surrogateescape").partition("=")
        if not equals or length <= len(digits) + 1:
            raise ValueError(f"expected KEY=VALUE in an extended header; got {record[:40]!r}")
        if key.startswith("GNU.sparse"):
            raise ValueError("a member is a sparse file; expected regular files only")
        if key in ("path", "size"):
            changes[key] = value
    return changes


def _refuse(header: _Header) -> None:
    """Refuse what has no place in a data set."""
    if _OUTSIDE.match(header.name):
        raise ValueError(f"member {header.name!r} has a path that leads out of the archive")
    if header.kind not in "05":
        kind = _KINDS.get(header.kind, f"of type {header.kind!r}")
        raise ValueError(f"member {header.name!r} is {kind}; expected regular files and folders")
