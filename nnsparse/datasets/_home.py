"""Where data sets live on disk, and how a missing file gets there.

Nothing here knows a file format: `fetch` takes a function that checks what came. A file appears
under its own name only when it is whole and checked, so an interrupted download leaves nothing.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

__all__ = ["DataUnavailable", "data_home", "fetch"]

_CHUNK = 1 << 18  # bytes
_TIMEOUT = 10.0  # seconds without an answer or a byte


class DataUnavailable(OSError):  # noqa: N818 (reads as what is the case)
    """A data set is neither on disk nor to be had from the network.

    The message has the URLs, the sha256 and the place where to put the file by hand.
    """


def data_home(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds the data sets; it need not exist.

    Parameters
    ----------
    root : path, optional
        Taken as it is, ``~`` expanded. Without it: ``$NNSPARSE_DATA`` if set and not empty, else
        ``nnsparse`` in the user's cache directory (``$XDG_CACHE_HOME`` or ``~/.cache``;
        ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows).

    Returns
    -------
    Path

    Raises
    ------
    TypeError
        If ``root`` is not a path.
    DataUnavailable
        If the user has no home directory.

    Examples
    --------
    >>> data_home("data").name
    'data'
    """
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise TypeError(f"the data home is a path (str or os.PathLike); got {root!r}")
    try:
        if root is not None:
            return Path(root).expanduser()
        variable = os.environ.get("NNSPARSE_DATA")
        return Path(variable).expanduser() if variable else _cache_home() / "nnsparse"
    except RuntimeError as error:
        raise DataUnavailable(
            f"no folder for data sets ({error}). Set NNSPARSE_DATA to a folder of yours."
        ) from error


def _cache_home() -> Path:
    """Return the platform's directory for caches of this user."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    check: Callable[[Path], object],
    max_bytes: int,
    explain: Callable[[Sequence[str]], str],
) -> None:
    """Download the first of ``urls`` that works to ``target``, atomically.

    Parameters
    ----------
    urls : sequence of str
        https mirrors of one file, tried in order.
    target : Path
        Its folder is made if need be. It appears by a rename, once ``check`` has accepted it.
    check : function of a Path
        Raises ValueError if the content of that file is wrong.
    max_bytes : int
        Longest answer to accept, bytes.
    explain : function
        Gets a line per failure, returns the message of the exception.

    Raises
    ------
    DataUnavailable
        If no mirror gave a good file, or the file cannot be written.
    """
    failures = []
    for url in urls:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _part_of(target) as part:
                _download(url, part, max_bytes, target.name)
                check(part)
                os.replace(part, target)
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error).replace(str(target.parent) + os.sep, "")
            failures.append(f"{url}: {reason or type(error).__name__}")
    raise DataUnavailable(explain(failures))


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """Name a file beside ``target``, so that a rename is atomic; remove it whatever happens."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _download(url: str, part: Path, max_bytes: int, name: str) -> None:
    """Write what ``url`` answers to the new file ``part``; ValueError if too long or cut short."""
    with _open_url(url, _TIMEOUT) as answer, part.open("xb") as file:
        announced = answer.headers.get("Content-Length")
        total = int(announced) if announced and announced.isdecimal() else None
        n_bytes = 0
        # disable=None: no bar where nobody looks, such as in a log file.
        with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None) as bar:
            while chunk := answer.read(_CHUNK):
                n_bytes += len(chunk)
                if n_bytes > max_bytes:
                    raise ValueError(f"expected at most {max_bytes} bytes; got more")
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and n_bytes != total:
            raise ValueError(f"expected {total} bytes; got {n_bytes}")
        file.flush()
        os.fsync(file.fileno())


def _open_url(url: str, timeout: float) -> Any:
    """Open an https URL. Redirects are followed to https only: no other handler is installed."""
    if not url.startswith("https://"):
        raise ValueError(f"expected an https URL; got {url}")
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "nnsparse")]
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPSHandler,
    ):
        opener.add_handler(handler())
    return opener.open(url, timeout=timeout)
