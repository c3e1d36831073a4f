"""The readers that are fuzzed: good files to begin with, how they are mutated, and what is done with what is read.

A mutation keeps the file's checksums right more often than not, so that it gets past them to what they guard. What a
reader accepts is used: a compiled model predicts, a layer is multiplied with, an index is looked at.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import nnsparse as ns
from benchmarks import _fuzz_mutate as mutate
from benchmarks._fuzz_mutate import pick
from nnsparse import data, nn, npz, optim, sparsify
from nnsparse.datasets import _aclimdb, _cache, _encoding, _text
from nnsparse.datasets._idx import read_idx
from nnsparse.datasets.imdb import kept as kept_reviews
from nnsparse.graph_challenge import tsv
from nnsparse.graph_challenge.networks import check_layer
from nnsparse.topology import check_scipy

Mutation = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes
    ----------
    what : str
        What it reads, for the table.
    seeds : function
        Returns good files, as (suffix, content).
    mutate : function
        (a seed's suffix and content, generator) -> the mutated content.
    read : function of a path
        Reads a file and uses what it gets; returns False where a damaged file is no error (a cache is made anew).
    place : function
        (folder, suffix) -> where to put the file.
    """

    what: str
    seeds: Callable[[], tuple[tuple[str, bytes], ...]]
    mutate: Callable[[str, bytes, np.random.Generator], bytes]
    read: Callable[[Path], bool]
    place: Callable[[Path, str], Path] = lambda folder, suffix: folder / f"file{suffix}"


def need(condition: Any, what: str) -> None:
    """Raise AssertionError for an accepted file whose content breaks what the reader promises."""
    if not condition:
        raise AssertionError(f"accepted, but {what}")


def _gzipped(suffix: str, content: bytes, rng: np.random.Generator, inner: Mutation) -> bytes:
    """Mutate a plain file, or what is in a .gz file (its checksum made anew), or rarely the .gz file itself."""
    if not suffix.endswith(".gz"):
        return inner(content, rng)
    if rng.integers(5) == 0:
        return mutate.damage(content, rng)
    packed = gzip.compress(inner(gzip.decompress(content), rng), 1, mtime=0)
    return mutate.damage(packed, rng, 1) if rng.integers(10) == 0 else packed


def _both(contents: list[bytes]) -> tuple[tuple[str, bytes], ...]:
    """Return each content plain and packed."""
    plain = [(".tsv", content) for content in contents]
    return (*plain, *((".tsv.gz", gzip.compress(content, mtime=0)) for content in contents))


# ---------------------------------------------------------------- idx


@lru_cache
def _idx_seeds() -> tuple[tuple[str, bytes], ...]:
    def encode(code: int, array: Any) -> bytes:
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        return bytes([0, 0, code, array.ndim]) + sizes + array.tobytes()

    rng = np.random.default_rng(0)
    plain = [
        encode(0x08, rng.integers(0, 256, (5, 7, 6)).astype(np.uint8)),
        encode(0x08, rng.integers(0, 10, 90).astype(np.uint8)),
        encode(0x0D, rng.standard_normal((4, 9)).astype(">f4")),
        encode(0x0B, rng.integers(-99, 99, (3, 2, 2, 3)).astype(">i2")),
    ]
    return (*(("", c) for c in plain), *((".gz", gzip.compress(c, mtime=0)) for c in plain))


def _idx_mutate(suffix: str, content: bytes, rng: np.random.Generator) -> bytes:
    def inner(content: bytes, rng: np.random.Generator) -> bytes:
        if rng.integers(2):
            return mutate.damage(content, rng)
        size = 4 + 4 * content[3]  # of the header
        return mutate.damage(content[:size], rng, 2) + content[size:]

    return _gzipped(suffix, content, rng, inner)


def _idx_read(path: Path) -> bool:
    array = read_idx(path)
    need(array.flags.carray and array.dtype.isnative and array.ndim >= 1, "the array is odd")
    array.tobytes()  # every byte is there
    return True


# ---------------------------------------------------------------- tar


@lru_cache
def _tar_seeds() -> tuple[tuple[str, bytes], ...]:
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
            folder = tarfile.TarInfo("aclImdb/train/")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for split in ("train", "test"):
                for label in ("pos", "neg"):
                    for i in range(2):
                        text = f"{split} {label}: it's a film, <br /> n\u00b0 {i}".encode()
                        long = "d" * 120 + "/" if i and form != tarfile.USTAR_FORMAT else ""
                        member = tarfile.TarInfo(f"{long}aclImdb/{split}/{label}/{i}_7.txt")
                        member.size, member.mtime = len(text), 1.5 if i else 1
                        tar.addfile(member, io.BytesIO(text))
            tar.addfile(tarfile.TarInfo("aclImdb/README"))
        found.append((".tar.gz", gzip.compress(stream.getvalue(), mtime=0)))
    return tuple(found)


_FIELDS = ((0, 100), (100, 8), (124, 12), (136, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155))  # fmt: skip
_FILLINGS = (
    b"", b"\0", b"7" * 155, b"8", b"-1", b"\x80" + bytes(10) + b"\xff", b"00000001000\0", b"77777777777\0",
    b"/etc/passwd",
    b"../" * 20, b"C:\\x", b"1", b"2", b"5", b"6", b"L", b"K", b"x", b"g", b"S", b"D", b"\xff" * 100, b"a" * 99 + b"/",
    b"train/pos/9_1.txt", b"train/pos/0_7.txt", b"GNU.sparse.major", b"\n", b" ",
)  # fmt: skip


def _tar_mutate(suffix: str, content: bytes, rng: np.random.Generator) -> bytes:
    def inner(content: bytes, rng: np.random.Generator) -> bytes:
        blocks = [content[i : i + 512] for i in range(0, len(content), 512)]
        headers = [i for i, block in enumerate(blocks) if _is_header(block)]
        for _ in range(int(rng.integers(1, 4))):
            i, kind = pick(rng, headers), int(rng.integers(8))
            if kind < 4:
                start, size = pick(rng, _FIELDS)
                filling = pick(rng, _FILLINGS)[:size]
                blocks[i] = _put(blocks[i], start, filling)
            elif kind == 4:
                blocks[i] = mutate.damage(blocks[i], rng, 1)[:512].ljust(512, b"\0")
            elif kind == 5:
                j = int(rng.integers(len(blocks)))
                blocks[i], blocks[j] = blocks[j], blocks[i]
            elif kind == 6:
                blocks.insert(int(rng.integers(len(blocks))), pick(rng, blocks))
            else:  # what lies behind a header: text, a long name, the records of pax
                behind = min(i + 1, len(blocks) - 1)
                if behind not in headers:
                    blocks[behind] = mutate.damage_text(blocks[behind], rng)[:512].ljust(512, b"\0")
            if kind < 5:
                blocks[i] = _summed(blocks[i])
            headers = [i for i, block in enumerate(blocks) if _is_header(block)]
        changed = b"".join(blocks)
        return mutate.damage(changed, rng, 1) if rng.integers(6) == 0 else changed

    return _gzipped(suffix, content, rng, inner)


def _is_header(block: bytes) -> bool:
    return len(block) == 512 and any(block) and _summed(block)[148:156] == block[148:156]


def _summed(block: bytes) -> bytes:
    """Return a header with its checksum put right."""
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return _put(block, 148, b"%06o\0 " % total)


def _put(block: bytes, start: int, content: bytes) -> bytes:
    return block[:start] + content + block[start + len(content) :]


def _tar_read(path: Path) -> bool:
    reviews = _aclimdb.read(path, n_files=2, progress=False)
    for corpus, labels in (reviews.train, reviews.test):
        need(labels.shape == (4,) and len(corpus.starts) == 5, "reviews are missing")
    return True


# ---------------------------------------------------------------- TSV

_N, _IMAGES = 64, 40


def _text_mutate(suffix: str, content: bytes, rng: np.random.Generator) -> bytes:
    return _gzipped(suffix, content, rng, mutate.damage_text)


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


@lru_cache
def _layer_seeds() -> tuple[tuple[str, bytes], ...]:
    layer = next(iter(ns_challenge().network(_N, 1, bias=-0.3)))
    rng = np.random.default_rng(0)
    odd = check_layer((layer.indptr, layer.indices, rng.standard_normal(layer.values.size)), _N)
    written = [_written(lambda path, one=one: tsv.write_layer(path, one)) for one in (layer, odd)]  # type: ignore[misc]
    lines = b"".join(written[1].splitlines(keepends=True)[::-37])  # another order, fewer lines
    return _both([b"".join(written[0].splitlines(keepends=True)[:60]), lines])


def ns_challenge() -> Any:
    """Return the module of the Graph Challenge, which `import nnsparse` leaves alone."""
    from nnsparse import graph_challenge

    return graph_challenge


def _layer_read(path: Path) -> bool:
    layer = check_layer(tsv.read_layer(path, _N), _N)
    need(layer.indptr[-1] == layer.values.size, "the pointers end elsewhere")
    return True


@lru_cache
def _image_seeds() -> tuple[tuple[str, bytes], ...]:
    from scipy import sparse

    rng = np.random.default_rng(1)
    images = sparse.random(_IMAGES, _N, 0.05, "csr", np.float32, random_state=rng)
    ones = images.copy()
    ones.data[:] = 1
    return _both([_written(lambda p, m=m: tsv.write_images(p, m)) for m in (images, ones)])  # type: ignore[misc]


def _images_read(path: Path) -> bool:
    images = tsv.read_images(path, _N, _IMAGES)
    check_scipy(images)
    need(images.shape == (_IMAGES, _N) and np.isfinite(images.data).all(), "the images are odd")
    return True


@lru_cache
def _category_seeds() -> tuple[tuple[str, bytes], ...]:
    return _both([b"3\n7\n12\n40\n", b"".join(b"%d\n" % i for i in range(1, _IMAGES + 1))])


def _categories_read(path: Path) -> bool:
    found = tsv.read_categories(path, _IMAGES)
    need((np.diff(found) > 0).all() and (found.min(initial=0) >= 0), "they do not increase")
    need(found.max(initial=0) < _IMAGES, "an image is out of range")
    return True


# ---------------------------------------------------------------- compiled models


@lru_cache
def _model_seeds() -> tuple[tuple[str, bytes], ...]:
    small = nn.mlp([9, 8, 3], sparsity=0.5, rng=0)
    mixed = nn.Sequential(
        nn.SparseLinear(20, 30, sparsity=0.7, rng=0), nn.GELU(), nn.BatchNorm1d(30), nn.Linear(30, 4, rng=1)
    )  # fmt: skip
    wide = nn.Sequential(nn.SparseLinear(700, 20, sparsity=0.99, rng=2), nn.LeakyReLU(0.1))
    models = (small, None), (mixed, None), (mixed, np.float16), (wide, None)
    return tuple(
        ("", _written(lambda p, m=m, d=d: ns.compile(m, dtype=d).save(p)))  # type: ignore[misc]
        for m, d in models
    )


def _model_mutate(suffix: str, content: bytes, rng: np.random.Generator) -> bytes:
    if rng.integers(5) == 0:
        return mutate.damage(content, rng)
    members = mutate.damage_members(mutate.unzip(content), rng, ("manifest.npy",))
    members = _manifest_mended(members, rng)
    method = zipfile.ZIP_DEFLATED if rng.integers(40) == 0 else zipfile.ZIP_STORED
    packed = mutate.pack(members, method)
    return mutate.damage(packed, rng, 1) if rng.integers(10) == 0 else packed


def _manifest_mended(members: mutate.Members, rng: np.random.Generator) -> mutate.Members:
    """Return the members with a manifest whose hashes fit; one in four times its text is mutated after that."""
    found = []
    for name, content in members:
        if name != "manifest.npy":
            found.append((name, content))
            continue
        _, data = mutate.split(content)
        manifest = json.loads(data)
        for other, member in members:
            stem = other.removesuffix(".npy")
            if stem in manifest["arrays"] and other != "manifest.npy":
                array = mutate.plain(*mutate.split(member))
                if array is not None:  # what cannot be read has no hash either
                    little = np.asarray(array, array.dtype.newbyteorder("<"))
                    manifest["arrays"][stem] = npz._describe(little, npz._digest(little))
        text = json.dumps(manifest).encode()
        if rng.integers(4) == 0:
            text = mutate.damage_text(text, rng)
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.frombuffer(text, np.uint8), version=(1, 0))
        found.append((name, stream.getvalue()))
    return found


def _model_read(path: Path) -> bool:
    model = ns.inference.load(path)
    need(max(model.sizes) < 10_000, "it is larger than its file")
    for batch in (1, 5):
        y = model.predict(np.ones((batch, model.n_in), model.dtype))
        need(y.shape == (batch, model.n_out), "its outputs have another shape")
    return True


# ---------------------------------------------------------------- checkpoints

_RNG = np.random.default_rng(2)
_X, _Y = _RNG.standard_normal((20, 6)).astype(np.float32), _RNG.integers(0, 3, 20)


def _run(seed: int) -> tuple[nn.Sequential, Any, Any, data.DataLoader]:
    """Return a model, its optimizer, its Sparsifier and a loader."""
    model = nn.Sequential(
        nn.SparseLinear(6, 8, sparsity=0.5, rng=seed), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3, rng=seed)
    )  # fmt: skip
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = data.DataLoader((_X, _Y), batch_size=10, rng=seed)
    return (
        model,
        optimizer,
        sparsify.Sparsifier(model, optimizer, sparsify.rigl(every=2), 20),
        loader,
    )


def _step(model: nn.Sequential, optimizer: Any, rigl: Any) -> None:
    nn.CrossEntropyLoss()(model(_X), _Y).backward()
    if not rigl.replaces_step:
        optimizer.step()
    rigl.step()
    optimizer.zero_grad()


@lru_cache
def _checkpoint_seeds() -> tuple[tuple[str, bytes], ...]:
    model, optimizer, rigl, loader = _run(0)
    for _ in range(3):
        _step(model, optimizer, rigl)
    extra = {"epoch": 3, "pair": (1.5, float("inf")), "notes": ["a", None, True], "x": np.arange(5)}
    return (
        ("", _written(lambda p: ns.save(p, model, optimizer, updates=[rigl], loader=loader, extra=extra))),
        ("", _written(lambda p: ns.save(p, model))),
    )  # fmt: skip


def _checkpoint_read(path: Path) -> bool:
    saved = ns.load(path)
    model, optimizer, rigl, loader = _run(1)
    before = {**model.state_dict(), **optimizer.state_dict()}
    try:
        saved.restore(model, optimizer, updates=[rigl], loader=loader)
    except ValueError:
        after = {**model.state_dict(), **optimizer.state_dict()}
        need(str(before) == str(after), "refused by restore, which has changed something")
        if path.stat().st_size > _LEAST_WHOLE:
            raise
        saved.restore(model)  # a file of a model alone
    with np.errstate(all="ignore"):
        with suppress(ValueError):  # weights without a finite gradient: nothing can grow
            _step(model, optimizer, rigl)
        model.predict(_X)
    return True


_LEAST_WHOLE = 12_000  # bytes: the file of a model alone is shorter

# ---------------------------------------------------------------- the cache of encoded reviews

_SETTINGS = {
    form: _encoding.Encoding(vocabulary=12, ngrams=2, form=form, max_length=6)
    for form in ("indices", "counts")
}


@lru_cache
def _cache_seeds() -> tuple[tuple[str, bytes], ...]:
    corpus = _text.number(["a good film", "not a good film at all", "", "bad bad film"])
    labels = np.array([1, 0, 1, 0])
    rows = np.arange(4)
    found = []
    for form, settings in _SETTINGS.items():
        packed = _encoding.pack((_text.take(corpus, rows), labels), (corpus, labels), settings)
        packed["n_undecodable"] = np.array(2)
        stream = io.BytesIO()
        named: dict[str, Any] = {"key": np.frombuffer(form.encode(), np.uint8), **packed}
        np.savez_compressed(stream, **named)
        found.append((form, stream.getvalue()))
    return tuple(found)


def _cache_mutate(suffix: str, content: bytes, rng: np.random.Generator) -> bytes:
    if rng.integers(6) == 0:
        return mutate.damage(content, rng)
    kept = () if rng.integers(10) == 0 else ("key.npy",)
    members = mutate.damage_members(mutate.unzip(content), rng, kept)
    return mutate.pack(members, zipfile.ZIP_DEFLATED)


def _cache_place(folder: Path, suffix: str) -> Path:
    os.environ["XDG_CACHE_HOME"] = str(folder)
    path = _cache._path("imdb", suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _cache_read(path: Path) -> bool:
    form = next(form for form in _SETTINGS if _cache._path("imdb", form) == path)
    found = kept_reviews(form, _SETTINGS[form])
    if found is None:
        return False
    for x, y in found[1]:
        need(x.shape[0] == len(y), "labels are missing")
        indices = x if form == "indices" else x.indices
        need(indices.min(initial=0) >= 0 and indices.max(initial=0) < 12, "an index is wrong")
    return True


TARGETS = {
    "idx": Target("idx, raw and .gz", _idx_seeds, _idx_mutate, _idx_read),
    "tar": Target("tar.gz of reviews", _tar_seeds, _tar_mutate, _tar_read),
    "tsv-layers": Target("TSV of layers, plain and .gz", _layer_seeds, _text_mutate, _layer_read),
    "tsv-images": Target("TSV of images, plain and .gz", _image_seeds, _text_mutate, _images_read),
    "tsv-categories": Target(
        "TSV of categories, plain and .gz", _category_seeds, _text_mutate, _categories_read
    ),
    "compiled": Target("compiled model", _model_seeds, _model_mutate, _model_read),
    "checkpoint": Target("training checkpoint", _checkpoint_seeds, _model_mutate, _checkpoint_read),
    "cache": Target(
        "cache of encoded reviews", _cache_seeds, _cache_mutate, _cache_read, _cache_place
    ),
}
