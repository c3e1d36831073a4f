"""The reader of archives: what it yields, and every kind of bad archive it has to refuse."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from nnsparse.datasets import _tar


def info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes], fmt: int = tarfile.GNU_FORMAT):
    """Write a .tar.gz whose headers may lie."""
    parts = []
    for member, content in members:
        parts += [member.tobuf(fmt), content, bytes(-len(content) % 512)]
    path.write_bytes(gzip.compress(b"".join(parts) + bytes(1024)))
    return path


def read(path: Path, max_bytes: int = 1000) -> list[tuple[str, bytes]]:
    return list(_tar.read_members(path, lambda name: name.endswith(".txt"), max_bytes=max_bytes))


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("fmt", FORMATS)
def test_wanted_members_are_yielded_in_order_whatever_wrote_the_archive(
    tmp_path: Path, fmt: int
) -> None:
    contents = {"b.txt": b"B" * 512, "./d/a.txt": b"", "d/c.dat": b"no", "d/c.txt": b"C" * 700}
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", format=fmt) as tar:
        tar.addfile(info("d", kind=tarfile.DIRTYPE))
        for name, content in contents.items():
            member = info(name, len(content))
            member.mtime = 1.5 if fmt == tarfile.PAX_FORMAT else 1
            tar.addfile(member, io.BytesIO(content))
    expected = [(name, content) for name, content in contents.items() if name.endswith(".txt")]
    assert read(tmp_path / "t.tar.gz") == expected


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("length", [101, 200, 254])
def test_long_names_are_whole(tmp_path: Path, fmt: int, length: int) -> None:
    name = f"{'d' * 90}/{'e' * (length - 95)}.txt"
    if fmt == tarfile.USTAR_FORMAT and length > 190:
        name = f"{'d' * 150}/{'e' * 90}.txt"
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", format=fmt) as tar:
        tar.addfile(info(name, 2), io.BytesIO(b"hi"))
        tar.addfile(info("short.txt", 2), io.BytesIO(b"ho"))
    assert read(tmp_path / "t.tar.gz") == [(name, b"hi"), ("short.txt", b"ho")]


@pytest.mark.parametrize("name", ["é.txt", "映画.txt"])
def test_names_may_be_in_any_script(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info(name, 2), io.BytesIO(b"hi"))
    assert read(tmp_path / "t.tar.gz") == [(name, b"hi")]


@pytest.mark.parametrize(
    "name",
    ["../a.txt", "/a.txt", "d/../../a.txt", "d/..", "..", "C:\\a.txt", "..\\a.txt", "\\a.txt"],
)
def test_a_path_that_leads_out_is_refused_even_if_not_wanted(tmp_path: Path, name: str) -> None:
    for suffix in ("", ".dat"):
        path = archive(tmp_path / "t.tar.gz", (info(name + suffix), b""))
        if suffix and name.endswith(".."):
            assert read(path) == []  # "...dat" is a name
            continue
        with pytest.raises(ValueError, match=r"t\.tar\.gz .* a path that leads out"):
            read(path)


def test_dots_inside_a_name_are_no_path(tmp_path: Path) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("a..b/c..txt/..d.txt"), b""))
    assert read(path) == [("a..b/c..txt/..d.txt", b"")]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "of type 'Z'"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "other"])
def test_anything_but_files_and_folders_is_refused(
    tmp_path: Path, kind: bytes, what: str, name: str
) -> None:
    member = info(name, kind=kind)
    member.linkname = "/etc/passwd"
    path = archive(tmp_path / "t.tar.gz", (member, b""))
    with pytest.raises(ValueError, match=f"member '{name}' is {what}"):
        read(path)


def test_a_huge_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("a.txt", 8**11 - 1), b"tiny"))
    with pytest.raises(ValueError, match=r"claims 8589934591 bytes; expected at most 1000"):
        read(path)
    path = archive(tmp_path / "t.tar.gz", (info("a.txt", 8**11), b"tiny"))
    with pytest.raises(ValueError, match="claims more than 8 GiB"):
        read(path)
    assert read(archive(tmp_path / "t.tar.gz", (info("a.txt", 1000), b"x" * 1000)))


def test_a_huge_member_that_is_not_wanted_is_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("a.dat", 8**11 - 1), b"tiny"))
    with pytest.raises(ValueError, match="truncated"):
        read(path)
    path = archive(tmp_path / "t.tar.gz", (info("a.dat", 1 << 20), bytes(1 << 20)))
    assert read(path) == []
    monkeypatch.setattr(_tar, "_MAX_ARCHIVE", 1 << 19)
    with pytest.raises(ValueError, match="expected at most 524288 bytes unpacked"):
        read(path)


def test_zeros_without_end_behind_an_archive_are_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tar, "_MAX_ARCHIVE", 1 << 19)
    path = tmp_path / "t.tar.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(ValueError, match="expected at most"):
        read(path)


def test_every_truncation_of_the_file_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("a.txt", 600), b"x" * 600), (info("b"), b""))
    whole = path.read_bytes()
    for n_bytes in range(1, len(whole)):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(ValueError, match=r"t\.tar\.gz is not a"):
            read(path)


def test_a_truncated_archive_in_a_whole_gzip_file_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("a.txt", 600), b"x" * 600))
    content = gzip.decompress(path.read_bytes())
    for n_bytes in (100, 511, 513, 512 + 600, 512 + 1023):
        path.write_bytes(gzip.compress(content[:n_bytes]))
        with pytest.raises(ValueError, match="truncated"):
            read(path)


def test_any_damaged_byte_gives_an_error_and_no_crash(tmp_path: Path) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("a.txt", 600), bytes(range(200)) * 3))
    whole = path.read_bytes()
    good = read(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = read(path)
        except ValueError as error:
            message = str(error)
        else:
            message = str(path)
            assert found == good  # a byte of gzip's header that says nothing
        assert str(path) in message


@pytest.mark.parametrize("content", [b"no gzip file", b"<html>not found</html>"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.tar.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a whole gzip file"):
        read(path)
    path.write_bytes(gzip.compress(content * 100))
    with pytest.raises(ValueError, match="not a good archive"):
        read(path)


def extended(path: Path, records: bytes, size: int | None = None) -> Path:
    header = info("pax", len(records) if size is None else size, b"x")
    return archive(path, (header, records), (info("a.txt", 2), b"hi"), fmt=tarfile.USTAR_FORMAT)


def test_an_extended_header_changes_path_and_size_of_one_member(tmp_path: Path) -> None:
    path = tmp_path / "t.tar.gz"
    assert read(extended(path, b"14 path=b.txt\n10 size=1\n")) == [("b.txt", b"h")]
    assert read(extended(path, b"18 mtime=1234.567\n")) == [("a.txt", b"hi")]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (b"15 path=../a.b\n", "leads out"),
        (b"9 size=x\n", "decimal digits"),
        (b"0 size=1\n", "KEY=VALUE"),
        (b"2 \n", "KEY=VALUE"),
        (b"xyz", "decimal digits"),
        (b"19 size=9999999999\n", "claims 9999999999 bytes"),
        (b"22 GNU.sparse.major=1\n", "sparse"),
        (b"99999999999999999999 a=b\n", "decimal digits"),
    ],
)
def test_a_bad_extended_header_is_refused(tmp_path: Path, records: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(extended(tmp_path / "t.tar.gz", records))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_huge_extended_header_is_refused_before_it_is_read(tmp_path: Path, kind: bytes) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("pax", 8**11 - 1, kind), b""))
    with pytest.raises(ValueError, match="an extended header claims 8589934591 bytes"):
        read(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.tar.gz")


def test_positions_in_the_file_are_told(tmp_path: Path) -> None:
    path = archive(tmp_path / "t.tar.gz", (info("a.txt"), b""), (info("b.txt"), b""))
    told: list[int] = []
    list(_tar.read_members(path, lambda name: True, max_bytes=1, passed=told.append))
    assert len(told) == 2
    assert 0 < told[0] <= told[1] <= path.stat().st_size


def test_a_directory_as_the_first_tar_wrote_it_is_no_member(tmp_path: Path) -> None:
    """Such a one has the type of a file, and a slash at the end."""
    folder = bytearray(info("d.txt/").tobuf(tarfile.USTAR_FORMAT))
    folder[156:157] = tarfile.REGTYPE
    folder[148:156] = b" " * 8  # the checksum counts itself as spaces
    folder[148:156] = b"%06o\0 " % sum(folder)
    member = info("d.txt/a.txt", 2).tobuf(tarfile.USTAR_FORMAT) + b"hi" + bytes(510)
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(bytes(folder) + member + bytes(1024)))
    assert read(tmp_path / "t.tar.gz") == [("d.txt/a.txt", b"hi")]


def test_remarks_on_the_whole_archive_change_no_member(tmp_path: Path) -> None:
    headers = {"comment": "made by hand", "path": "elsewhere.txt"}
    with tarfile.open(
        tmp_path / "t.tar.gz", "w:gz", format=tarfile.PAX_FORMAT, pax_headers=headers
    ) as tar:
        tar.addfile(info("a.txt", 2), io.BytesIO(b"hi"))
    assert read(tmp_path / "t.tar.gz") == [("a.txt", b"hi")]
