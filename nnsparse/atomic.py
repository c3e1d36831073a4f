"""A file that is there whole or not at all, whatever happens while it is written: `replaced`."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replaced(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """Yield a temporary file in the same folder, which is flushed to disk and gets the name if all went well.

    Parameters
    ----------
    path : path
        A symbolic link stays one: the file that it names is replaced.

    Raises
    ------
    OSError
        If the file cannot be written, or something else than a file has that name, such as a device; what was there
        before is as it was, and the message says so.

    Notes
    -----
    After an exception the temporary file is removed. Those of processes that were killed, `.NAME.` and 16 hexadecimal
    digits, are removed at the next call for the same path; no reader takes them for the file itself.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            kind = errno.EISDIR if target.is_dir() else errno.EINVAL
            raise OSError(kind, "no regular file")
        _remove_leftovers(target)
        with _temporary(target) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}: {target} was not written; what was there before is as it was",
        ) from error
    _flush_folder(target.parent)


@contextmanager
def _temporary(target: Path) -> Iterator[IO[bytes]]:
    """Yield a new file beside the target, locked as long as this process lives; it is gone unless it was renamed."""
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        file = open(temporary, "xb")  # noqa: SIM115 - closed below
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink or fcntl is None:
            break
        file.close()  # somebody took it for a leftover in the moment before it was locked
    try:
        with file:
            yield file
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files of this target that nobody is writing: their writers were killed."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}")
    with suppress(OSError):  # what cannot be listed, the writing itself will complain about
        for leftover in [p for p in target.parent.iterdir() if ours.fullmatch(p.name)]:
            with suppress(OSError), open(leftover, "rb") as file:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


def _flush_folder(folder: Path) -> None:
    """Flush the new name to disk, where folders can be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)
