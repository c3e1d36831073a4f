"""MNIST: where it is looked for, what is refused, what is said without a network."""

import gzip
import hashlib
import importlib
import io
import os
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnsparse import datasets
from nnsparse.datasets import DataUnavailable, _home, mnist

# The module: the package shows the function under this name.
module = importlib.import_module("nnsparse.datasets.mnist")

TRAIN_IMAGES = "train-images-idx3-ubyte"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 7, dtype=np.uint8)
IMAGES = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (7, 28, 28)) + PIXELS.tobytes()
CONTENT = {
    name: IMAGES if "images" in name else b"\0\0\x08\x01\0\0\0\x07" + LABELS.tobytes()
    for name in module._FILES
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let four tiny files be MNIST, and let no test reach the network."""

    def open_url(url: str, timeout: float) -> Any:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(_home, "_open_url", open_url)
    if "real" not in request.node.name:
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
        monkeypatch.setattr(module, "_FILES", sums)


def write(folder: Path, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENT.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def check(result: Any) -> None:
    for x, y in result:
        assert x.dtype == np.float32
        assert x.shape == (7, 784)
        assert x.flags.c_contiguous
        np.testing.assert_array_equal(x, PIXELS.reshape(7, -1) / np.float32(255))
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, LABELS)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("folder", ["mnist", "."])
def test_files_are_found_raw_or_packed_in_the_home_or_in_its_mnist_folder(
    tmp_path: Path, packed: bool, folder: str
) -> None:
    write(tmp_path / folder, packed)
    check(mnist(tmp_path, download=False))
    check(mnist(str(tmp_path)))


def test_the_data_home_of_the_environment_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNSPARSE_DATA", str(tmp_path))
    write(tmp_path / "mnist", True)
    check(mnist())


def test_a_wrong_checksum_names_the_file_both_sums_and_the_cure(tmp_path: Path) -> None:
    write(tmp_path / "mnist", False)
    path = tmp_path / "mnist" / TRAIN_IMAGES
    wrong = IMAGES[:-1] + bytes([IMAGES[-1] ^ 1])
    path.write_bytes(wrong)
    with pytest.raises(ValueError, match="Delete it") as caught:
        mnist(tmp_path)
    for part in (str(path), hashlib.sha256(IMAGES), hashlib.sha256(wrong)):
        assert (part if isinstance(part, str) else part.hexdigest()) in str(caught.value)


def test_a_truncated_file_is_refused_and_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "mnist", False)
    path = tmp_path / "mnist" / TRAIN_IMAGES
    path.write_bytes(IMAGES[:-9])
    with pytest.raises(ValueError, match=r"needs 5488 bytes .* got 5479: truncated. Delete it"):
        mnist(tmp_path)
    assert path.read_bytes() == IMAGES[:-9]


def test_without_files_and_network_the_message_has_url_checksum_and_place(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable) as caught:
        mnist(tmp_path)
    message = str(caught.value)
    for mirror in module._MIRRORS:
        assert mirror.startswith("https://")
        assert f"{mirror}{TRAIN_IMAGES}.gz: <urlopen error no network here>" in message
    assert module._FILES[TRAIN_IMAGES] in message
    assert str(tmp_path / "mnist" / f"{TRAIN_IMAGES}.gz") in message
    assert "NNSPARSE_DATA" in message
    assert "datasets.digits()" in message
    assert os.listdir(tmp_path / "mnist") == []


def test_nothing_is_fetched_or_made_when_download_is_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_home, "_open_url", lambda *_: pytest.fail("opened a URL"))
    with pytest.raises(DataUnavailable, match="download=False"):
        mnist(tmp_path / "none", download=False)
    assert not (tmp_path / "none").exists()


def test_missing_files_are_downloaded_once_past_a_bad_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_url(url: str, timeout: float) -> Any:
        opened.append(url)
        content = CONTENT[url.rsplit("/", 1)[1].removesuffix(".gz")]
        # The first mirror gives something that only its checksum betrays.
        wrong = content[:-1] + bytes([content[-1] ^ 1])
        answer: Any = io.BytesIO(gzip.compress(wrong if len(opened) == 1 else content))
        answer.headers = {}
        return answer

    monkeypatch.setattr(_home, "_open_url", open_url)
    check(mnist(tmp_path))
    assert len(opened) == 5
    check(mnist(tmp_path))
    assert len(opened) == 5
    assert sorted(os.listdir(tmp_path / "mnist")) == sorted(f"{name}.gz" for name in CONTENT)


def test_real_mnist_is_what_everyone_else_has() -> None:
    try:
        (x, y), (x_test, y_test) = mnist(download=False)
    except DataUnavailable:
        pytest.skip(f"no MNIST in {datasets.data_home()}")
    assert x.shape == (60_000, 784)
    assert x_test.shape == (10_000, 784)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert x.mean(dtype=np.float64) == pytest.approx(0.1306604762738429)
    assert x.std(dtype=np.float64) == pytest.approx(0.3081078)
    assert y[:5].tolist() == [5, 0, 4, 1, 9]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
