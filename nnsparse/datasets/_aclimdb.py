"""The files of the IMDb reviews: a tar.gz read in place, or an unpacked folder, in a fixed order.

Whatever holds ``{train,test}/{pos,neg}/*.txt`` in full numbers is taken. How the texts are encoded
is not here, see `_text`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ._encoding import Labelled
from ._tar import read_members
from ._text import number, take

__all__ = ["Reviews", "find", "identity", "read"]

_MAX_REVIEW = 1 << 20  # bytes; the longest of IMDb has 13 704
_MAX_TEXT = 1 << 28  # bytes of all reviews; IMDb has 66e6
_NAME = re.compile(r"(?:.*/)?(train|test)/(pos|neg)/([^/.][^/]*\.txt)", re.DOTALL)
_KINDS = [(split, label) for split in ("train", "test") for label in ("pos", "neg")]


@dataclass(frozen=True)
class Reviews:
    """Both parts of the data set, and how many of their texts were not valid UTF-8."""

    train: Labelled
    test: Labelled
    n_undecodable: int


def find(home: Path) -> list[Path]:
    """Return what may be the data set in ``imdb/`` of a data home or in the folder itself."""
    found = []
    for folder in (home / "imdb", home):
        found += sorted(path for path in folder.glob("aclImdb*.tar.gz") if path.is_file())
        if (folder / "aclImdb").is_dir():
            found.append(folder / "aclImdb")
    return found


def identity(source: Path) -> str:
    """Return a string that changes when the source does: place, sizes and times of change.

    For a folder it looks at every review's file, in about a microsecond or two each.
    """
    digest = hashlib.sha256()

    def add(name: str, stat: os.stat_result) -> None:
        text = f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
        digest.update(text.encode("utf-8", "surrogateescape"))

    add(str(source.resolve()), source.stat())
    if source.is_dir():
        for name, entry in _files(source):
            add(name, entry.stat())
    return digest.hexdigest()


def read(source: Path, n_files: int, progress: bool) -> Reviews:
    """Read and tokenise all reviews of an archive or a folder.

    Parameters
    ----------
    source : Path
    n_files : int
        Number of reviews there must be in each of {train,test}/{pos,neg}.
    progress : bool
        Whether to show a bar; only on a terminal.

    Returns
    -------
    Reviews
        In order of the number that a file's name begins with, a negative review before the
        positive one of the same number, so that any stretch of the data is balanced.

    Raises
    ------
    ValueError
        If the source is damaged, or is not the data set: wrong number of reviews, one twice, one
        above 1 MiB, all together above 256 MiB.
    OSError
        If a file cannot be read.
    """
    names: list[tuple[str, str, str]] = []
    n_undecodable = 0

    def texts() -> Iterator[str]:
        nonlocal n_undecodable
        seen, n_bytes = Counter[tuple[str, str]](), 0
        for path, content in _contents(source, progress):
            split, label, name = _parts(path)
            seen[split, label] += 1
            n_bytes += len(content)
            # At once, so that memory stays bounded.
            if seen[split, label] > n_files or n_bytes > _MAX_TEXT:
                raise ValueError(
                    f"{source} has more than {n_files} reviews in {split}/{label}, or more than "
                    f"{_MAX_TEXT} bytes of reviews: it is not the IMDb data"
                )
            names.append((split, label, name))
            text, good = _decode(content)
            n_undecodable += not good
            yield text

    corpus = number(texts())
    _check(source, names, n_files)
    parts = []
    for part in ("train", "test"):
        rows = sorted(
            (i for i, (split, _, _) in enumerate(names) if split == part),
            key=lambda i: _place(*names[i][1:]),
        )
        y = np.array([names[i][1] == "pos" for i in rows], np.int64)
        parts.append((take(corpus, np.array(rows, np.int64)), y))
    return Reviews(parts[0], parts[1], n_undecodable)


def _contents(source: Path, progress: bool) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each review, with a bar of bytes or of files."""
    # disable=None: no bar where nobody looks, such as in a log file.
    options: Any = {"desc": source.name, "disable": None if progress else True}
    if not source.is_dir():
        n_bytes = source.stat().st_size
        with tqdm(total=n_bytes, unit="B", unit_scale=True, **options) as bar:
            yield from read_members(
                source,
                lambda name: _NAME.fullmatch(name) is not None,
                max_bytes=_MAX_REVIEW,
                passed=lambda position: bar.update(position - bar.n),
            )
        return
    for name, entry in tqdm(list(_files(source)), unit=" reviews", **options):
        with open(entry.path, "rb") as file:
            content = file.read(_MAX_REVIEW + 1)
        if len(content) > _MAX_REVIEW:
            raise ValueError(f"{entry.path} has more than {_MAX_REVIEW} bytes: it is no review")
        yield name, content


def _files(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the reviews of a folder, in order of their names."""
    for split, label in _KINDS:
        if (folder / split / label).is_dir():
            with os.scandir(folder / split / label) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f"{split}/{label}/{entry.name}"
                    if _NAME.fullmatch(name) and entry.is_file():
                        yield name, entry


def _parts(path: str) -> tuple[str, str, str]:
    """Return split, label and file name of a review."""
    match = _NAME.fullmatch(path)
    assert match is not None  # only such paths are read
    return match[1], match[2], match[3]


def _place(label: str, name: str) -> tuple[int, str, str]:
    """Return what reviews are sorted by; those without a number come last."""
    digits = re.match(r"[0-9]{1,18}", name)
    return int(digits[0]) if digits else 10**18, label, name


def _decode(content: bytes) -> tuple[str, bool]:
    """Decode UTF-8, bad bytes replaced by U+FFFD; and whether there were none."""
    try:
        return content.decode(), True
    except UnicodeDecodeError:
        return content.decode(errors="replace"), False


def _check(source: Path, names: list[tuple[str, str, str]], n_files: int) -> None:
    """Raise ValueError unless there are ``n_files`` different reviews of each kind."""
    for split, label in _KINDS:
        kind = [name for name in names if name[:2] == (split, label)]
        if len(kind) != n_files:
            raise ValueError(
                f"{source} has {len(kind)} reviews in {split}/{label}; expected {n_files}: "
                "it is not the IMDb data, or not whole"
            )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{source} has {'/'.join(twice[0])} twice")
