"""Files of arrays: complete or not at all, and nothing in them is believed."""

import errno
import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from nnsparse import atomic, npz

ARRAYS = {
    "floats": np.array([[1.5, np.nan], [-0.0, np.inf]], np.float32),
    "folder/ints": np.arange(-3, 4),
    "flag": np.array(True),
    "none": np.empty((0, 3), np.uint16),
}
FIELDS = {"note": ["any", {"plain": 1.5}]}


def read(path, kind="test", version=3):
    with npz.explained(path, "Advice."):
        return npz.read(path, kind, version)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "file.nns"
    npz.write(file, "test", 3, ARRAYS, FIELDS)
    return file


def test_arrays_and_fields_come_back_bit_for_bit(path):
    arrays, manifest = read(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        again = arrays[name]
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.tobytes() == array.tobytes()
        assert again.flags.writeable
    assert manifest["note"] == FIELDS["note"]
    assert (manifest["format"], manifest["version"]) == ("test", 3)


@pytest.mark.parametrize("code", "?bBhHiIqQefd")
@pytest.mark.parametrize("order", "<>")
def test_every_kind_of_number_in_any_byte_order_and_layout(code, order, tmp_path):
    array = np.arange(12).reshape(3, 4).astype(np.dtype(code).newbyteorder(order)).T
    npz.write(tmp_path / "f", "test", 1, {"a": array}, {})
    again = read(tmp_path / "f", version=1)[0]["a"]
    assert repr(again.dtype) == repr(np.dtype(code))  # in the machine's own order
    np.testing.assert_array_equal(again, array)


def test_numpy_reads_it_without_pickle_and_equal_arrays_give_equal_files(path, tmp_path):
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["folder/ints"], ARRAYS["folder/ints"])
    npz.write(tmp_path / "twin", "test", 3, ARRAYS, FIELDS)
    assert (tmp_path / "twin").read_bytes() == path.read_bytes()


def test_an_array_of_anything_but_numbers_is_refused_before_anything_is_written(path, tmp_path):
    before = path.read_bytes()
    for array in (
        np.array([{}], object),
        np.array("text"),
        np.zeros(2, np.longdouble),
        np.zeros(1, "c8"),
    ):
        with pytest.raises(
            TypeError, match=r"array 'bad' holds .*; expected booleans, integers or floats"
        ):
            npz.write(path, "test", 3, {"bad": array}, {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        npz.write(path, "test", 3, {}, {"nan": float("nan")})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- writing that fails


def only_the_old_one(path, before):
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(where, path, monkeypatch):
    before = path.read_bytes()

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner, name = {
        "write": (npz.np.lib.format, "write_array"),
        "fsync": (atomic.os, "fsync"),
        "replace": (atomic.os, "replace"),
    }[where]
    monkeypatch.setattr(owner, name, full)
    message = (
        r"No space left on device: .*file.nns was not written; what was there before is as it was"
    )
    with pytest.raises(OSError, match=message) as caught:
        npz.write(path, "test", 3, {}, {})
    assert caught.value.errno == errno.ENOSPC
    only_the_old_one(path, before)


@pytest.mark.skipif(os.name == "nt", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize("limit", [0, 100, 50_000, 4_000_000])
def test_a_disk_that_really_takes_no_more_leaves_the_old_file(limit, path):
    """The kernel refuses the write at some byte: in a header, in an array, in the last flush of the buffer."""
    import resource

    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError, match="was not written; what was there before is as it was"):
            npz.write(path, "test", 3, {"big": np.zeros(10**6), "more": np.zeros(100)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    only_the_old_one(path, before)


def test_ctrl_c_while_writing_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        npz.write(path, "test", 3, {}, {})
    only_the_old_one(path, before)


def test_a_folder_that_is_missing_or_a_file_is_named(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="none/file was not written"):
        npz.write(tmp_path / "none" / "file", "test", 3, {}, {})
    with pytest.raises(NotADirectoryError, match="was not written"):
        npz.write(path / "file", "test", 3, {}, {})
    with pytest.raises(OSError, match="was not written"):  # a folder stands there
        npz.write(tmp_path, "test", 3, {}, {})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX")
def test_a_folder_that_cannot_be_written_is_named(path):
    before, root = path.read_bytes(), os.geteuid() == 0
    path.parent.chmod(0o555)
    if root:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match=r"Permission denied: .* was not written"):
            npz.write(path, "test", 3, {}, {})
    finally:
        if root:
            os.seteuid(0)
        path.parent.chmod(0o755)
    only_the_old_one(path, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"no regular file: .*pipe was not written"):
        npz.write(pipe, "test", 1, {}, {})
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_a_link_to_a_file_stays_a_link(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    npz.write(tmp_path / "link", "test", 1, {}, {})
    assert (tmp_path / "link").is_symlink()
    assert read(path, version=1)[0] == {}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_flushed_is_an_error_only_where_it_could_be(
    code, tmp_path, monkeypatch
):
    flush, calls = os.fsync, []

    def second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(code, os.strerror(code))
        flush(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", second)
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            npz.write(tmp_path / "f", "test", 1, {}, {})
    else:
        npz.write(tmp_path / "f", "test", 1, {}, {})
    assert read(tmp_path / "f", version=1)[0] == {}  # the new one is there in either case
    assert len(calls) == 2


WRITER = """
import os, signal, sys
import numpy as np
from nnsparse import npz
def hang(descriptor):
    os.fsync = lambda descriptor: None
    {action}
os.fsync = hang
npz.write(sys.argv[1], "test", 3, {{"a": np.zeros(1000)}}, {{}})
"""


def writer(path, action):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER.format(action=action), path],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )


@pytest.mark.skipif(os.name == "nt", reason="signals and locks")
def test_leftovers_of_killed_writers_are_removed_and_those_of_living_ones_kept(path):
    before = path.read_bytes()
    with writer(path, "os.kill(os.getpid(), signal.SIGKILL)") as killed:
        killed.wait()
    (dead,) = [p for p in path.parent.iterdir() if p != path]
    assert path.read_bytes() == before
    other = path.with_name(".file.nns.backup")  # looks alike, but is none of ours
    other.write_text("keep me")
    with writer(path, "print(flush=True); input()") as alive:
        alive.stdout.readline()
        assert not dead.exists()
        (living,) = [p for p in path.parent.iterdir() if p not in (path, other)]
        npz.write(path, "test", 3, ARRAYS, FIELDS)
        assert living.exists()
        alive.communicate(b"\n")
        assert alive.returncode == 0
    assert sorted(path.parent.iterdir()) == sorted([path, other])
    np.testing.assert_array_equal(read(path)[0]["a"], np.zeros(1000))


@pytest.mark.skipif(atomic.fcntl is None, reason="locks")
def test_a_new_file_that_is_taken_for_a_leftover_is_made_again(path, monkeypatch):
    lock, taken = atomic.fcntl.flock, []

    def take(file, kind):
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        lock(file, kind)

    monkeypatch.setattr(atomic.fcntl, "flock", take)
    npz.write(path, "test", 3, ARRAYS, FIELDS)
    assert len(taken) == 1
    assert read(path)[0].keys() == ARRAYS.keys()


# ---------------------------------------------------------------- reading what is wrong


def forged(path, members, **manifest):
    """Write members (bytes or arrays) with a manifest that fits but for what is given."""
    arrays = {
        name: m for name, m in members.items() if isinstance(m, np.ndarray) and m.dtype != object
    }
    text = {
        "format": "test",
        "version": 3,
        "arrays": {name: npz._describe(a, npz._digest(a)) for name, a in arrays.items()},
        **manifest,
    }
    found = {"manifest": np.frombuffer(json.dumps(text).encode(), np.uint8), **members}
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in found.items():
            stream = io.BytesIO()
            if isinstance(member, np.ndarray):
                np.save(stream, member)
            archive.writestr(name + ".npy", stream.getvalue() or member)


def npy(header, data=b"", version=b"\x01\x00"):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


A = np.arange(4.0)
SHAPE = "{{'descr': '<f8', 'fortran_order': False, 'shape': ({}), }}"
FORGERIES = {
    "another format": ({}, {"format": "other"}, "expected the format 'test'"),
    "a newer version": (
        {},
        {"version": 4},
        "format version 4, of a newer nnsparse; this one reads up to 3",
    ),
    "version 0": ({}, {"version": 0}, "format version 0"),
    "version true": ({}, {"version": True}, "format version True"),
    "no version": ({}, {"version": None}, "format version None"),
    "no list": ({}, {"arrays": None}, "lists no arrays"),
    "nan": ({}, {"x": float("nan")}, "the manifest holds NaN"),
    "an array more": ({"a": A}, {"arrays": {}}, r"unknown arrays \['a'\]"),
    "an array less": ({}, {"arrays": {"a": {}}}, r"arrays \['a'\] are missing"),
    "a wrong hash": (
        {"a": A},
        {"arrays": {"a": npz._describe(A, "0" * 64)}},
        "not what the manifest says",
    ),
    "a wrong shape": (
        {"a": A},
        {"arrays": {"a": npz._describe(A.reshape(2, 2), npz._digest(A))}},
        "not what the manifest says",
    ),
    "a wrong dtype": (
        {"a": A},
        {"arrays": {"a": npz._describe(A.view(np.int64), npz._digest(A))}},
        "not what the manifest says",
    ),
    "objects": ({"a": np.array([{}], object)}, {"arrays": {"a": {}}}, r"has dtype '\|O'"),
    "text": ({"a": np.array(["b"])}, {"arrays": {"a": {}}}, "has dtype '<U1'"),
    "columns first": (
        {"a": np.asfortranarray(np.eye(2)[:, :1] + np.zeros(2))},
        {},
        "expected plain numbers",
    ),
    "another order": ({"a": np.zeros(3, ">f8")}, {"arrays": {"a": {}}}, "has dtype '>f8'"),
    "a structure": (
        {"a": np.zeros(1, "f4,f4")},
        {"arrays": {"a": {}}},
        "header that is not understood",
    ),
    "an absurd size": (
        {"a": npy(SHAPE.format("99999999999999999999,"))},
        {"arrays": {"a": {}}},
        "has 0 bytes",
    ),
    "many axes": ({"a": npy(SHAPE.format("1, " * 66), bytes(8))}, {"arrays": {"a": {}}}, "."),
    "a wrong number": (
        {"a": npy(SHAPE.format("1 2,"), bytes(8))},
        {"arrays": {"a": {}}},
        "invalid literal",
    ),
    "code in a header": ({"a": npy("__import__('os')")}, {"arrays": {"a": {}}}, "not understood"),
    "version 2 of npy": (
        {"a": npy("", version=b"\x02\x00")},
        {"arrays": {"a": {}}},
        r"version \(1, 0\)",
    ),
    "a short header": (
        {"a": b"\x93NUMPY\x01\x00\xff\xffabc"},
        {"arrays": {"a": {}}},
        "not understood",
    ),
    "no header": ({"a": b""}, {"arrays": {"a": {}}}, r"version \(1, 0\)"),
    "bytes behind": (
        {"a": npy(SHAPE.format("1,"), bytes(9))},
        {"arrays": {"a": {}}},
        "has 9 bytes",
    ),
    "a manifest of numbers": ({"manifest": np.zeros(3)}, {}, "manifest is no text"),
    "a manifest that is no JSON": ({"manifest": np.frombuffer(b"{", np.uint8)}, {}, "."),
    "a manifest that is a list": (
        {"manifest": np.frombuffer(b"[]", np.uint8)},
        {},
        "expected the format",
    ),
    "a name twice": (
        {"manifest": np.frombuffer(b'{"a": 1, "a": 2}', np.uint8)},
        {},
        "a name twice",
    ),
    "a deep manifest": ({"manifest": np.frombuffer(b"[" * 10**6, np.uint8)}, {}, "."),
    "a long number": ({"manifest": np.frombuffer(b"1" * 10**6, np.uint8)}, {}, "."),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_file_is_refused_with_the_reason(name, tmp_path):
    members, manifest, message = FORGERIES[name]
    forged(tmp_path / "f", members, **manifest)
    with pytest.raises(ValueError, match=f"f cannot be loaded: .*{message}.* Advice."):
        read(tmp_path / "f")


def test_what_the_forger_makes_without_a_fault_is_loaded(tmp_path):
    forged(tmp_path / "f", {"a": A}, version=2)
    arrays, manifest = read(tmp_path / "f")
    np.testing.assert_array_equal(arrays["a"], A)
    assert manifest["version"] == 2


def zipped(path, change):
    with zipfile.ZipFile(path, "w") as archive:
        change(archive)


def test_a_strange_archive_is_refused(path):
    good = path.read_bytes()
    zipped(
        path, lambda archive: archive.writestr("manifest.npy", bytes(10**6), zipfile.ZIP_DEFLATED)
    )
    with pytest.raises(ValueError, match="'manifest' is compressed"):
        read(path)
    zipped(path, lambda archive: archive.writestr("../evil.txt", b""))
    with pytest.raises(ValueError, match=r"evil\.txt' is no array"):
        read(path)
    zipped(path, lambda archive: archive.writestr("a.npy", b""))
    with pytest.raises(ValueError, match="no manifest"):
        read(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(path, lambda archive: [archive.writestr("a.npy", b"") for _ in range(2)])
    with pytest.raises(ValueError, match="'a' occurs twice"):
        read(path)
    path.write_bytes(good)
    assert read(path)


def test_members_that_share_their_bytes_are_refused(path):
    """Many entries of the directory that point at one large member: each is smaller than the file, all are not."""
    archive = zipfile.ZipFile(path, "w")
    archive.writestr("a.npy", bytes(10_000))
    for i in range(5):
        info = zipfile.ZipInfo(f"a{i}.npy")
        info.CRC, info.header_offset = 0, 0
        info.file_size = info.compress_size = 10_000
        archive.filelist.append(info)
        archive.NameToInfo[info.filename] = info
    archive._didModify = True
    archive.close()
    with pytest.raises(ValueError, match="larger than the file"):
        read(path)


def test_a_file_cut_anywhere_is_refused(path):
    good = path.read_bytes()
    for size in range(0, len(good), 7):
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match="cannot be loaded"):
            read(path)


def test_a_changed_byte_is_noticed_or_does_not_matter(path):
    good, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(good), 600):
        changed = bytearray(good)
        changed[at] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            arrays, manifest = read(path)
        except ValueError:  # nothing else may come
            refused += 1
        else:
            assert manifest["note"] == FIELDS["note"]
            assert all(arrays[name].tobytes() == a.tobytes() for name, a in ARRAYS.items())
    assert refused > 400


def test_what_is_no_file_is_an_error_of_the_system_or_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    if os.path.exists("/dev/zero"):
        with pytest.raises(ValueError, match="no regular file"):
            read("/dev/zero")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="no regular file"):
            read(tmp_path / "pipe")  # at once


def test_an_error_of_the_disk_is_no_damage(path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(npz.zipfile, "ZipFile", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read(path)

    def nowhere(*args):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(npz.zipfile, "ZipFile", nowhere)
    with pytest.raises(ValueError, match="a wrong position"):
        read(path)
