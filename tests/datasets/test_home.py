"""The data home and the download, without any network: every URL is opened by a fake."""

import email.message
import io
import os
import sys
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nnsparse.datasets import DataUnavailable, _home, data_home

URLS = ("https://first.example/file", "https://second.example/file")


class Answer(io.BytesIO):
    """What `urlopen` returns, as far as it is used."""

    def __init__(self, content: bytes, length: int | None = None) -> None:
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


class CutAnswer(Answer):
    """Gives some bytes, then raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(b"half")
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        if not chunk:
            raise self.error
        return chunk


Server = dict[str, Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """URL -> an answer to give or an error to raise; URLs not in it fail like a missing host."""
    answers: Server = {}

    def open_url(url: str, timeout: float) -> Any:
        assert 0 < timeout < 60
        answer = answers.get(url, urllib.error.URLError("no such host"))
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(_home, "_open_url", open_url)
    return answers


def fetch(target: Path, check: Callable[[Path], object] = Path.read_bytes) -> None:
    def explain(failures: Sequence[str]) -> str:
        return "\n".join(["no file:", *failures])

    _home.fetch(URLS, target, check=check, max_bytes=1000, explain=explain)


def test_the_data_home_is_what_was_given_then_the_variable_then_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NNSPARSE_DATA", str(tmp_path / "variable"))
    assert data_home(tmp_path / "given") == tmp_path / "given"
    assert data_home(str(tmp_path / "given")) == tmp_path / "given"
    assert data_home("") == Path()
    assert data_home() == tmp_path / "variable"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NNSPARSE_DATA", "")
    assert data_home() == tmp_path / "cache" / "nnsparse"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": ""}, ".cache/nnsparse"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, ".cache/nnsparse"),
        ("darwin", {}, "Library/Caches/nnsparse"),
        ("win32", {"LOCALAPPDATA": ""}, "AppData/Local/nnsparse"),
    ],
)
def test_the_cache_is_where_the_platform_wants_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    variables: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.delenv("NNSPARSE_DATA", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert data_home() == tmp_path / expected


def test_the_home_directory_sign_is_expanded() -> None:
    assert data_home("~/data") == Path.home() / "data"


def test_a_data_home_that_is_no_path_is_refused() -> None:
    with pytest.raises(TypeError, match=r"is a path .* got 3"):
        data_home(3)  # type: ignore[arg-type]


def test_a_user_without_a_home_directory_is_told_of_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NNSPARSE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(DataUnavailable, match="Set NNSPARSE_DATA"):
        data_home()


def test_a_file_is_downloaded_into_a_folder_that_is_made(server: Server, tmp_path: Path) -> None:
    server[URLS[0]] = Answer(b"content", length=7)
    fetch(tmp_path / "a" / "b" / "file")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


@pytest.mark.parametrize(
    "first",
    [
        urllib.error.URLError("no such host"),
        TimeoutError("timed out"),
        CutAnswer(ConnectionResetError("reset")),
        Answer(b"half", length=8),
        Answer(1001 * b"x"),
        Answer(b"wrong"),
    ],
    ids=["no host", "timeout", "reset", "short", "too long", "wrong content"],
)
def test_the_next_mirror_is_tried_after(server: Server, tmp_path: Path, first: Any) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() != b"right":
            raise ValueError("wrong content")

    server[URLS[0]] = first
    server[URLS[1]] = Answer(b"right")
    fetch(tmp_path / "file", check)
    assert (tmp_path / "file").read_bytes() == b"right"
    assert os.listdir(tmp_path) == ["file"]


def test_when_all_mirrors_fail_each_reason_is_told_and_nothing_is_left(
    server: Server, tmp_path: Path
) -> None:
    server[URLS[0]] = Answer(b"half", length=8)
    with pytest.raises(DataUnavailable) as caught:
        fetch(tmp_path / "file")
    message = str(caught.value)
    assert f"{URLS[0]}: expected 8 bytes; got 4" in message
    assert f"{URLS[1]}: <urlopen error no such host>" in message
    assert isinstance(caught.value, OSError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_download_leaves_no_file(
    server: Server, tmp_path: Path, error: BaseException
) -> None:
    server[URLS[0]] = CutAnswer(error)
    with pytest.raises(type(error)):
        fetch(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_the_file_has_its_name_only_after_it_was_checked(server: Server, tmp_path: Path) -> None:
    seen = []

    def check(path: Path) -> None:
        seen.append(path)
        assert path.read_bytes() == b"content"
        assert path.parent == tmp_path  # so that the rename is atomic
        assert os.listdir(tmp_path) == [path.name]
        assert path.name != "file"

    server[URLS[0]] = Answer(b"content")
    fetch(tmp_path / "file", check)
    assert len(seen) == 1


def test_a_folder_that_cannot_be_made_is_reported(server: Server, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file, no folder")
    server[URLS[0]] = Answer(b"content")
    with pytest.raises(DataUnavailable, match="occupied"):
        fetch(tmp_path / "occupied" / "file")


@pytest.mark.parametrize("url", ["http://a.example/file", "file:///etc/hostname", "ftp://a/b"])
def test_only_https_is_opened(url: str) -> None:
    with pytest.raises(ValueError, match="expected an https URL"):
        _home._open_url(url, 1.0)


def test_a_redirect_away_from_https_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def https_open(self: Any, request: urllib.request.Request) -> Any:
        headers = email.message.Message()
        headers["Location"] = "http://plain.example/file"
        answer: Any = urllib.response.addinfourl(io.BytesIO(), headers, request.full_url, 302)
        answer.msg = "Found"
        return answer

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    with pytest.raises(urllib.error.URLError, match="unknown url type: http"):
        _home._open_url("https://a.example/file", 1.0)
