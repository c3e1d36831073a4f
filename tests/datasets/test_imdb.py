"""IMDb: which files are taken, what is refused, what is cached; on tiny archives, and the real one."""

import hashlib
import importlib
import io
import json
import os
import tarfile
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnsparse import datasets
from nnsparse.datasets import DataUnavailable, _aclimdb, _home, imdb

# The module: the package shows the function under this name.
module = importlib.import_module("nnsparse.datasets.imdb")

# Two reviews of each kind; the numbers in the names give the order, not the letters.
FILES = {
    "train/pos/2_9.txt": b"a good film, a very good film",
    "train/pos/10_7.txt": b"Good.<br /><br />It's good",
    "train/neg/2_1.txt": b"not good, a bad film",
    "train/neg/10_4.txt": b"bad bad bad",
    "test/pos/0_8.txt": b"a good story",
    "test/pos/1_10.txt": b"",
    "test/neg/0_2.txt": b"not good",
    "test/neg/1_3.txt": b"dull",
}
EXTRA = {
    "train/unsup/0_0.txt": b"no label",
    "train/labeledBow.feat": b"9 0:9",
    "train/pos/._2_9.txt": b"of a Macintosh",
    "imdb.vocab": b"the",
    "README": b"!" * 2000,
}
# By frequency in the training part, ties in order.
WORDS = ["good", "bad", "a", "film", "it's", "not", "very"]


@pytest.fixture(autouse=True)
def small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Let eight tiny files be IMDb, keep the cache here, and let no test reach the network."""

    def open_url(url: str, timeout: float) -> Any:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(_home, "_open_url", open_url)
    monkeypatch.setattr(_home.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "real" not in request.node.name:
        monkeypatch.setattr(module, "_N_FILES", 2)


def tar(path: Path, files: dict[str, bytes], top: str = "aclImdb/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def home(tmp_path: Path, files: dict[str, bytes] = FILES) -> Path:
    tar(tmp_path / "home" / "imdb" / "aclImdb_v1.tar.gz", files)
    return tmp_path / "home"


def cache_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*"))[2:]  # behind nnsparse/ and encoded/


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads: list[Path] = []
    original = _aclimdb.read

    def read(source: Path, *rest: Any) -> Any:
        reads.append(source)
        return original(source, *rest)

    monkeypatch.setattr(_aclimdb, "read", read)
    return reads


def same(a: Any, b: Any) -> bool:
    for (x, y), (x_other, y_other) in zip(a, b, strict=True):
        if hasattr(x, "toarray"):
            x, x_other = x.toarray(), x_other.toarray()
        if not (np.array_equal(x, x_other) and np.array_equal(y, y_other)):
            return False
    return True


def rows(*texts: str, length: int = 512) -> list[list[int]]:
    numbers = [[WORDS.index(w) + 2 if w in WORDS else 1 for w in text.split()] for text in texts]
    return [row + [0] * (length - len(row)) for row in numbers]


def check(result: Any) -> None:
    (x, y), (x_test, y_test) = result
    assert x.dtype == x_test.dtype == np.int32
    assert x.flags.c_contiguous
    assert y.dtype == y_test.dtype == np.int64
    assert x.tolist() == rows(
        "not good a bad film", "a good film a very good film", "bad bad bad", "good it's good"
    )
    assert y.tolist() == [0, 1, 0, 1]
    assert x_test.tolist() == rows("not good", "a good story", "dull", "")
    assert y_test.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("folder", ["imdb", "."])
@pytest.mark.parametrize("name", ["aclImdb_v1.tar.gz", "aclImdb_v1.labelled.tar.gz", "aclImdb"])
def test_the_data_is_found_packed_or_not_in_the_home_or_in_its_imdb_folder(
    tmp_path: Path, folder: str, name: str
) -> None:
    place = tmp_path / "home" / folder / name
    write: Callable[..., Path] = unpacked if name == "aclImdb" else tar
    write(place, FILES)
    for _ in range(2):  # the second time from the cache
        check(imdb(tmp_path / "home", download=False))
    check(imdb(str(tmp_path / "home"), cache=False))


def test_the_data_home_of_the_environment_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNSPARSE_DATA", str(home(tmp_path)))
    check(imdb())


@pytest.mark.parametrize("top", ["aclImdb/", "", "./", "some/other/folder/"])
def test_the_order_of_an_archive_and_its_other_files_do_not_matter(
    tmp_path: Path, top: str
) -> None:
    files = dict(reversed([*FILES.items(), *EXTRA.items()]))
    tar(tmp_path / "home" / "aclImdb.tar.gz", files, top)
    check(imdb(tmp_path / "home"))


def test_an_unpacked_folder_with_other_files_gives_the_same(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "home" / "imdb" / "aclImdb", FILES | EXTRA)
    (folder / "train" / "pos" / "folder.txt").mkdir()
    check(imdb(tmp_path / "home"))


def test_nothing_is_extracted(tmp_path: Path) -> None:
    imdb(home(tmp_path), cache=False)
    assert [path.name for path in (tmp_path / "home").rglob("*")] == ["imdb", "aclImdb_v1.tar.gz"]
    assert not (tmp_path / "cache").exists()


def test_counts_are_canonical_and_of_whole_reviews(tmp_path: Path) -> None:
    (x, y), (x_test, _) = imdb(home(tmp_path), form="counts", vocabulary=12, max_length=1)
    assert x.format == x_test.format == "csr"
    assert x.dtype == np.float32
    assert x.has_canonical_format
    assert x_test.has_canonical_format
    assert x.indices.dtype == np.int32
    assert y.tolist() == [0, 1, 0, 1]
    expected = np.zeros((4, 12))
    for i, row in enumerate(imdb(home(tmp_path))[0][0]):
        np.add.at(expected[i], row[row > 0], 1)
    np.testing.assert_array_equal(x.toarray(), expected)
    assert x_test.toarray()[:, 1].tolist() == [0, 1, 1, 0]  # unknown words
    assert x_test[[3]].nnz == 0  # the empty review


def test_a_small_vocabulary_makes_the_other_words_unknown(tmp_path: Path) -> None:
    (x, _), (x_test, _) = imdb(home(tmp_path), vocabulary=4, max_length=5)
    assert x.tolist() == [[1, 2, 1, 3, 1], [1, 1, 1, 2, 1], [3, 3, 3, 0, 0], [2, 1, 2, 0, 0]]
    assert x[1].tolist() == [1, 1, 1, 2, 1]  # the end of a review that is too long
    assert x_test.tolist()[2:] == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_bigrams_of_the_vocabulary_stand_between_their_words(tmp_path: Path) -> None:
    (x, _), (x_test, _) = imdb(home(tmp_path), vocabulary=100, ngrams=2, max_length=8)
    # good 5, bad 4, a 3, film 3, then "bad bad" 2 and "good film" 2; the rest once.
    terms = ["good", "bad", "a", "film", "bad bad", "good film"]
    assert (
        x[2].tolist() == [terms.index(t) + 2 for t in ("bad", "bad bad") * 2 + ("bad",)] + [0] * 3
    )
    assert x_test[0, :4].tolist()[1::2] != [0, 0]  # "not good" is known
    assert x_test[1, 3] == 1  # a, "a good", good, then no "good story" but an unknown word


def test_reviews_without_a_number_come_last_by_label_and_name(tmp_path: Path) -> None:
    renamed = {name.replace("2_9", "best").replace("2_1", "ab"): c for name, c in FILES.items()}
    (x, y), _ = imdb(home(tmp_path, renamed))
    assert y.tolist() == [0, 1, 0, 1]
    assert x.tolist() == rows(
        "bad bad bad", "good it's good", "not good a bad film", "a good film a very good film"
    )


def test_undecodable_text_is_replaced_and_counted_in_one_warning(tmp_path: Path) -> None:
    bad = FILES | {"train/neg/2_1.txt": b"not g\xffod", "test/neg/1_3.txt": b"d\xc3"}
    folder = home(tmp_path, bad)
    for _ in range(2):  # also from the cache
        with pytest.warns(UserWarning, match="2 reviews are not valid UTF-8") as caught:
            (x, _), _ = imdb(folder)
        assert len(caught) == 1
        assert caught[0].filename == __file__
    assert (x[0] > 0).sum() == 3  # not, g, od


def test_text_in_any_script_is_taken(tmp_path: Path) -> None:
    (x, _), _ = imdb(home(tmp_path, FILES | {"train/neg/2_1.txt": "映画 été".encode()}))
    assert (x[0] > 0).sum() == 2


def test_only_empty_reviews_are_rows_of_padding(tmp_path: Path) -> None:
    folder = home(tmp_path, dict.fromkeys(FILES, b" <br /> "))
    (x, _), (x_test, _) = imdb(folder, max_length=3)
    assert x.tolist() == x_test.tolist() == [[0, 0, 0]] * 4
    assert imdb(folder, form="counts", ngrams=2)[0][0].nnz == 0


# What is refused.


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train/pos/2_9.txt", None, "has 1 reviews in train/pos; expected 2"),
        ("test/neg/3_1.txt", b"third", "has more than 2 reviews in test/neg"),
        ("train/pos/2_9.txt", b"x" * ((1 << 20) + 1), "claims 1048577 bytes"),
    ],
)
def test_a_wrong_number_of_files_or_a_huge_one_is_refused(
    tmp_path: Path, name: str, change: bytes | None, message: str
) -> None:
    files = dict(FILES)
    if change is None:
        del files[name]
    else:
        files[name] = change
    with pytest.raises(ValueError, match=message) as caught:
        imdb(home(tmp_path, files))
    assert "aclImdb_v1.tar.gz" in str(caught.value)
    assert "Delete it" in str(caught.value)
    unpacked(tmp_path / "folder" / "aclImdb", files)
    with pytest.raises(ValueError, match=message.replace("claims 1048577", "more than 1048576")):
        imdb(tmp_path / "folder")


def test_a_review_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "home" / "aclImdb.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name in FILES:
            archive.addfile(tarfile.TarInfo(name.replace("10_7", "2_9")))
    with pytest.raises(ValueError, match=r"has train/pos/2_9\.txt twice"):
        imdb(tmp_path / "home")


def test_too_much_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aclimdb, "_MAX_TEXT", 50)
    with pytest.raises(ValueError, match="more than 50 bytes of reviews"):
        imdb(home(tmp_path))


@pytest.mark.parametrize("kind", ["path", "link", "cut", "empty", "text"])
def test_a_bad_archive_is_refused_by_name_and_left_alone(tmp_path: Path, kind: str) -> None:
    folder = home(tmp_path)
    path = folder / "imdb" / "aclImdb_v1.tar.gz"
    if kind == "path":
        tar(path, FILES, "../aclImdb/")
    elif kind == "link":
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("aclImdb/train/pos/2_9.txt")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    else:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[:-9], "empty": b"", "text": b"not found"}[kind])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"aclImdb_v1\.tar\.gz .* Delete it"):
        imdb(folder)
    assert path.read_bytes() == before
    assert not cache_files(tmp_path)


def test_a_bad_source_is_passed_over_if_there_is_a_good_one(tmp_path: Path) -> None:
    folder = home(tmp_path)
    (folder / "imdb" / "aclImdb.tar.gz").write_bytes(b"bad")
    check(imdb(folder))
    (folder / "imdb" / "aclImdb_v1.tar.gz").write_bytes(b"worse")
    with pytest.raises(ValueError, match=r"aclImdb\.tar\.gz .*; .*aclImdb_v1\.tar\.gz "):
        imdb(folder)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"vocabulary": 0}, ValueError, "expects vocabulary from 3 .* got 0"),
        ({"vocabulary": 2}, ValueError, "one word at least"),
        ({"vocabulary": -5}, ValueError, "vocabulary"),
        ({"vocabulary": 1 << 40}, ValueError, "vocabulary from 3 to 16777216"),
        ({"vocabulary": 1e4}, TypeError, "expects an integer vocabulary; got 10000.0"),
        ({"vocabulary": True}, TypeError, "integer vocabulary"),
        ({"ngrams": 0}, ValueError, "ngrams from 1 to 2; got 0"),
        ({"ngrams": 3}, ValueError, "ngrams from 1 to 2; got 3"),
        ({"max_length": 0}, ValueError, "max_length"),
        ({"max_length": None}, TypeError, "max_length"),
        ({"form": "bag"}, ValueError, "form 'indices' or 'counts'; got 'bag'"),
        ({"form": None}, TypeError, "form 'indices' or 'counts'; got None"),
        ({"root": 3}, TypeError, "data home"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_read(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        imdb(**({"root": tmp_path / "none", "download": False} | settings))


# Download.


def test_without_data_and_network_the_message_has_url_checksum_and_place(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable) as caught:
        imdb(tmp_path)
    message = str(caught.value)
    assert "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz" in message
    assert "no network here" in message
    assert "84125825 bytes" in message
    assert "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe" in message
    assert str(tmp_path / "imdb" / "aclImdb_v1.tar.gz") in message
    assert "NNSPARSE_DATA" in message
    assert "datasets.reviews()" in message
    assert os.listdir(tmp_path / "imdb") == []


def test_nothing_is_fetched_or_made_when_download_is_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_home, "_open_url", lambda *_: pytest.fail("opened a URL"))
    with pytest.raises(DataUnavailable, match="download=False"):
        imdb(tmp_path / "none", download=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("good", [True, False])
def test_a_download_is_taken_only_with_the_right_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    content = tar(tmp_path / "source.tar.gz", FILES).read_bytes()
    opened = []

    def open_url(url: str, timeout: float) -> Any:
        opened.append(url)
        answer: Any = io.BytesIO(content)
        answer.headers = {}
        return answer

    monkeypatch.setattr(_home, "_open_url", open_url)
    if good:
        monkeypatch.setattr(module, "_SHA256", hashlib.sha256(content).hexdigest())
        for _ in range(2):
            check(imdb(tmp_path / "home"))
        assert len(opened) == 1
    else:
        with pytest.raises(DataUnavailable, match=r"expected sha256 c40f74.* got "):
            imdb(tmp_path / "home")
    names = os.listdir(tmp_path / "home" / "imdb")
    assert names == (["aclImdb_v1.tar.gz"] if good else [])


# The cache.


@pytest.mark.parametrize("form", ["indices", "counts"])
@pytest.mark.parametrize("ngrams", [1, 2])
def test_the_second_call_reads_the_cache_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, ngrams: int
) -> None:
    folder, reads = home(tmp_path), count_reads(monkeypatch)
    first = imdb(folder, form=form, ngrams=ngrams)
    second = imdb(folder, form=form, ngrams=ngrams)
    assert len(reads) == 1
    assert same(first, second)
    assert same(first, imdb(folder, form=form, ngrams=ngrams, cache=False))
    assert len(reads) == 2
    (x, y), _ = second
    y[:] = 9  # what is returned is the caller's
    if form == "indices":
        x[:] = 9
    assert same(first, imdb(folder, form=form, ngrams=ngrams))


def test_every_setting_and_the_source_have_their_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reads = home(tmp_path), count_reads(monkeypatch)
    for settings in ({}, {"vocabulary": 5}, {"ngrams": 2}, {"form": "counts"}, {"max_length": 4}):
        imdb(folder, **settings)
    assert len(reads) == len(cache_files(tmp_path)) == 5
    path = folder / "imdb" / "aclImdb_v1.tar.gz"
    os.utime(path, ns=(1, 1))
    imdb(folder)
    assert len(reads) == 6
    changed = FILES | {"train/neg/10_4.txt": b"bad bad not"}
    tar(path, changed)
    (x, _), _ = imdb(folder)
    assert len(reads) == 7
    assert x[2, :3].tolist() != x[2, [0, 0, 0]].tolist()


@pytest.mark.parametrize("change", ["content", "time", "name"])
def test_a_change_of_one_file_of_a_folder_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = unpacked(tmp_path / "home" / "aclImdb", FILES)
    reads = count_reads(monkeypatch)
    imdb(tmp_path / "home")
    imdb(tmp_path / "home")
    assert len(reads) == 1
    path = folder / "test" / "neg" / "1_3.txt"
    if change == "content":
        path.write_bytes(b"another text")
    elif change == "time":
        os.utime(path, ns=(1, 1))
    else:
        path.rename(path.with_name("7_3.txt"))
    imdb(tmp_path / "home")
    assert len(reads) == 2


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"no zip file")
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        if kind == "key":
            arrays["key"] = arrays["key"][::-1]
        elif kind == "pickle":
            arrays["test_indices"] = np.array([{}, None], object)
        elif kind == "missing":
            del arrays["train_lengths"]
        elif kind == "range":
            arrays["train_indices"] = np.full_like(arrays["train_indices"], 255)
        elif kind == "zero":
            arrays["train_indices"] = np.zeros_like(arrays["train_indices"])
        elif kind == "negative":
            arrays["train_indices"] = -arrays["train_indices"].astype(np.int8)
        elif kind == "lengths":
            arrays["train_lengths"] = arrays["train_lengths"][:-1]
        elif kind == "overflow":
            arrays["train_lengths"] = np.array([2**64 - 1, 1, 0, 0], np.uint64)
        elif kind == "labels":
            arrays["test_labels"] = arrays["test_labels"] + np.uint8(2)
        elif kind == "shape":
            arrays["train_indices"] = arrays["train_indices"][None]
        elif kind == "undecodable":
            arrays["n_undecodable"] = np.zeros(3)
        with path.open("wb") as file:
            np.savez(file, **arrays)


KINDS = (
    "cut empty text npy key pickle missing range zero negative lengths overflow labels shape "
    "undecodable"
)


@pytest.mark.parametrize("kind", KINDS.split())
@pytest.mark.parametrize("form", ["indices", "counts"])
def test_a_damaged_cache_file_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, form: Any
) -> None:
    folder, reads = home(tmp_path), count_reads(monkeypatch)
    first = imdb(folder, vocabulary=20, form=form)
    (path,) = cache_files(tmp_path)
    damage(path, kind)
    assert same(first, imdb(folder, vocabulary=20, form=form))
    assert len(reads) == 2
    assert same(first, imdb(folder, vocabulary=20, form=form))
    assert len(reads) == 2
    assert cache_files(tmp_path) == [path]


@pytest.mark.parametrize("kind", ["unsorted", "counts"])
def test_cached_counts_are_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder, reads = home(tmp_path), count_reads(monkeypatch)
    first = imdb(folder, form="counts")
    (path,) = cache_files(tmp_path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    if kind == "unsorted":
        arrays["train_indices"] = arrays["train_indices"][::-1]
    else:
        arrays["train_counts"] = np.zeros_like(arrays["train_counts"])
    with path.open("wb") as file:
        np.savez(file, **arrays)
    assert same(first, imdb(folder, form="counts"))
    assert len(reads) == 2


def test_the_cache_file_has_no_pickle_and_says_what_it_is_of(tmp_path: Path) -> None:
    imdb(home(tmp_path), ngrams=2)
    (path,) = cache_files(tmp_path)
    assert path.parent == tmp_path / "cache" / "nnsparse" / "encoded"
    with np.load(path, allow_pickle=False) as file:
        key = json.loads(file["key"].tobytes())
        assert all(file[name].dtype.kind in "ui" for name in file.files)
    assert (key["ngrams"], key["vocabulary"], key["form"]) == (2, 32_000, "indices")


@pytest.mark.parametrize("kind", ["occupied", "folder", "no home"])
def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = home(tmp_path)
    if kind == "occupied":
        (tmp_path / "cache").write_text("a file, no folder")
    elif kind == "folder":
        imdb(folder)
        damage(cache_files(tmp_path)[0], "folder")
    else:

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setattr(Path, "home", no_home)
    with pytest.warns(UserWarning, match=r"could not be kept .* cache=False") as caught:
        check(imdb(folder))
    assert caught[0].filename == __file__
    check(imdb(folder, cache=False))
    assert not list(tmp_path.rglob("*.part"))


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def savez(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    folder = home(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", savez)
        with pytest.raises(KeyboardInterrupt):
            imdb(folder)
    assert cache_files(tmp_path) == []
    check(imdb(folder))
    assert len(cache_files(tmp_path)) == 1


def test_the_read_only_data_home_is_never_written_to(tmp_path: Path) -> None:
    folder = home(tmp_path)
    before = sorted(folder.rglob("*"))
    imdb(folder)
    assert sorted(folder.rglob("*")) == before


def test_the_bar_counts_bytes_of_an_archive_and_reviews_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[dict[str, Any], Any]] = []
    original = _aclimdb.tqdm

    def tqdm(*args: Any, **options: Any) -> Any:
        assert options["disable"] is None  # only where somebody looks
        bar = original(*args, **(options | {"disable": False, "file": io.StringIO()}))
        made.append((options, bar))
        return bar

    folder = home(tmp_path)
    monkeypatch.setattr(_aclimdb, "tqdm", tqdm)
    imdb(folder, cache=False)
    options, bar = made[0]
    assert options["unit"] == "B"
    assert 0 < bar.n <= bar.total == (folder / "imdb" / "aclImdb_v1.tar.gz").stat().st_size
    unpacked(tmp_path / "other" / "aclImdb", FILES)
    imdb(tmp_path / "other", cache=False)
    assert made[1][1].n == made[1][1].total == 8


def test_no_bar_is_shown_if_not_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imdb(home(tmp_path), progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_real_imdb_is_what_everyone_else_has(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        (x, y), (x_test, y_test) = imdb(download=False)  # any warning is an error
    except DataUnavailable:
        pytest.skip(f"no IMDb in {datasets.data_home()}")
    for part, labels in ((x, y), (x_test, y_test)):
        assert part.shape == (25_000, 512)
        assert labels.tolist() == [0, 1] * 12_500
    assert x.max() == 31_999
    digest = hashlib.sha256(x.astype("<i4").tobytes() + x_test.astype("<i4").tobytes())
    assert digest.hexdigest() == "435d891258ebd355af93ccd45a3509a971aa8fd878eb7073b54cf6a7fd348458"
    # "the and a of to is it in i this": the ten most frequent words, so 2 to 11 in that order.
    assert np.bincount(x.ravel())[2:12].argsort().tolist()[::-1] == list(range(10))
    monkeypatch.setattr(_aclimdb, "read", lambda *_: pytest.fail("read again"))
    assert same(((x, y), (x_test, y_test)), imdb(download=False))
