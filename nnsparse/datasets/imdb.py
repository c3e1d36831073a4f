"""IMDb: 50 000 film reviews, positive or negative, as padded indices or counts of words.

Which files are taken and in which order is in `_aclimdb`, words and vocabularies in `_text`, the
shapes of arrays in `_encoding`. Without a network, see `reviews`.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from . import _aclimdb
from ._cache import cached, keep
from ._encoding import Encoding, Form, Split, encoding, pack, unpack
from ._home import DataUnavailable, data_home, fetch

__all__ = ["imdb"]

_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
_SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
_BYTES = 84_125_825
_N_FILES = 12_500  # in each of {train,test}/{pos,neg}
_VERSION = 1  # of what is cached: to be raised when words, order or packing change


def imdb(
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    *,
    vocabulary: int = 32_000,
    ngrams: int = 1,
    form: Form = "indices",
    max_length: int = 512,
    progress: bool = True,
    cache: bool = True,
) -> tuple[Split, Split]:
    """Load the IMDb reviews, encoded; they are downloaded (84 MB) if not in the data home.

    Text is cut into words: lower case, HTML line breaks removed, apostrophes inside words kept.
    The vocabulary is chosen from the training part, by frequency, ties by the order of Unicode;
    with bigrams, words and pairs of neighbouring words compete for the same places. Index 0 is
    padding, 1 any word that is not in the vocabulary, 2 the most frequent term.

    Parameters
    ----------
    root : path, optional
        A data home, that is a folder that contains ``imdb/``, or the folder that holds the data
        itself; by default `data_home()`. The data is an ``aclImdb*.tar.gz``, read in place, or an
        unpacked ``aclImdb/``, with 12 500 files in each of {train,test}/{pos,neg}.
    download : bool
        Whether missing data may be fetched, into ``imdb/`` of the data home.
    vocabulary : int
        Rows of an embedding, at least 3: every index is below it.
    ngrams : int
        1 for words, 2 for words and bigrams. A bigram of the vocabulary stands between the
        indices of its words; other bigrams leave no trace.
    form : {"indices", "counts"}
    max_length : int
        Indices a review keeps in form "indices", at its end, where the verdict often is. Counts are
        of whole reviews.
    progress : bool
        Whether to show bars; they only appear on a terminal.
    cache : bool
        Whether to use and keep the encoded arrays, in ``nnsparse/encoded/`` of the user's cache
        directory, under the settings and the identity of the data (path, size, time of change).
        Nothing goes wrong if the files there are deleted, damaged, or cannot be written.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)
        X, for "indices": (25 000, max_length) int32, C-contiguous, 0 behind a review's end;
        X, for "counts": scipy.sparse.csr_array (25 000, vocabulary) float32, canonical, column k
        the number of times that index k occurs;
        y: (25 000,) int64, 1 if positive. Reviews come in order of their file's number, negative
        and positive in turn, on every machine.

    Raises
    ------
    DataUnavailable
        If the data is missing and cannot or may not be downloaded.
    ValueError
        If what is there is corrupt or incomplete, or a setting is out of range.
    TypeError
        If ``root`` is not a path, or a number is no integer.
    OSError
        If a file cannot be read.

    Warns
    -----
    UserWarning
        If reviews are not valid UTF-8 (bad bytes are replaced), with their number; if the encoded
        arrays cannot be kept.

    Notes
    -----
    Cost, on one slow core: 10 s the first time, 12 s with bigrams, and 0.1 to 0.4 s from the cache,
    where each choice of settings takes 10 to 20 MB; up to 0.5 GB of memory.

    What there is to learn: logistic regression on counts is right in 88.4 % of the test part, with
    bigrams in 89.8 %. On mean counts it reaches 88.1 % from whole reviews, 88.0 % from their last
    512 words, 87.6 % from the last 256 and 86.4 % from the first 256; with bigrams 89.7 % from whole
    reviews or their last 800 indices, and 89.4 % from the last 512.

    Source: A. Maas et al., "Learning word vectors for sentiment analysis", 2011.
    """
    settings = encoding("imdb", vocabulary, ngrams, form, max_length)
    home = data_home(root)
    sources = _aclimdb.find(home) or [_fetch(home, download)]
    faults = []
    for source in sources:
        try:
            return _load(source, settings, progress, cache)
        except ValueError as error:
            faults.append(str(error))
    cure = "Delete it, and the data will be downloaded anew."
    raise ValueError(f"{'; '.join(faults)}. {cure}")


def _load(source: Path, settings: Encoding, progress: bool, cache: bool) -> tuple[Split, Split]:
    """Return the encoded data of a source, from the cache if it is there."""
    key = json.dumps(
        {"version": _VERSION, "source": _aclimdb.identity(source), "n_files": _N_FILES}
        | asdict(settings),
        sort_keys=True,
    )
    found = kept(key, settings) if cache else None
    if found is not None:
        _warn(source, found[0])
        return found[1]
    data = _aclimdb.read(source, _N_FILES, progress)
    _warn(source, data.n_undecodable)
    packed = pack(data.train, data.test, settings)
    packed["n_undecodable"] = np.array(data.n_undecodable)
    if cache:
        keep("imdb", key, packed)
    return unpack(packed, settings)


def kept(key: str, settings: Encoding) -> tuple[int, tuple[Split, Split]] | None:
    """Return the number of undecodable reviews and the data kept under a key; None if they are to be made anew."""
    packed = cached("imdb", key)
    if packed is None:
        return None
    try:
        count = packed["n_undecodable"]
        if count.shape != () or count.dtype.kind not in "iu":
            return None
        return int(count), unpack(packed, settings)
    except (KeyError, TypeError, ValueError):
        return None  # not what was kept


def _warn(source: Path, n_undecodable: int) -> None:
    """Say how many reviews are damaged."""
    if n_undecodable:
        warnings.warn(
            f"{source}: {n_undecodable} reviews are not valid UTF-8; their bad bytes were replaced",
            stacklevel=4,
        )


def _fetch(home: Path, download: bool) -> Path:
    """Download the archive, if allowed, and return its path."""
    target = home / "imdb" / _URL.rsplit("/", 1)[1]
    explain = partial(_explain, target)
    if not download:
        raise DataUnavailable(explain(["download=False"]))
    fetch([_URL], target, check=_check, max_bytes=_BYTES, explain=explain)
    return target


def _check(path: Path) -> None:
    """Raise ValueError unless a file is the official archive."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != _SHA256:
        raise ValueError(f"expected sha256 {_SHA256}; got {digest.hexdigest()}")


def _explain(target: Path, failures: Sequence[str]) -> str:
    """Say what is missing, why, and what the user can do."""
    return "\n".join(
        [
            f"IMDb needs {target}, which is missing and was not downloaded:",
            *(f"  {failure}" for failure in failures),
            f"Download {_URL}",
            f"({_BYTES} bytes, sha256 {_SHA256})",
            f"and put it at {target}, or unpack it to {target.parent / 'aclImdb'}; or set "
            "NNSPARSE_DATA to a folder that contains imdb/. datasets.reviews() needs no network.",
        ]
    )
