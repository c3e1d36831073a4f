"""The idx reader: round trips, every kind of damage, and fuzzing."""

import contextlib
import gzip
import hashlib
import os
import re
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nnsparse.datasets._idx import read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def encode(array: NDArray[Any]) -> bytes:
    """Write idx bytes: the naive twin of the reader."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    magic = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
    return magic + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


PICTURES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = encode(PICTURES)


def read(content: bytes, **options: str) -> NDArray[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        return read_idx(path, **options)


arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda code: hnp.arrays(np.dtype(code), hnp.array_shapes(max_dims=4, min_side=0, max_side=5))
)


@given(arrays, st.booleans())
def test_what_was_written_is_read_raw_or_compressed(array: NDArray[Any], packed: bool) -> None:
    content = encode(array)
    result = read(gzip.compress(content) if packed else content)
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    assert result.flags.c_contiguous
    assert result.flags.writeable
    np.testing.assert_array_equal(result, array)


@given(st.data())
def test_a_mutated_file_gives_an_array_or_a_value_error(data: st.DataObject) -> None:
    content = bytearray(GOOD)
    if data.draw(st.booleans(), "packed"):
        content = bytearray(gzip.compress(GOOD))
    for _ in range(data.draw(st.integers(1, 4), "mutations")):
        at = data.draw(st.integers(0, len(content) - 1), "at")
        content[at] = data.draw(st.integers(0, 255), "byte")
    length = data.draw(st.integers(0, len(content)), "length")
    tail = data.draw(st.binary(max_size=3), "tail")
    with contextlib.suppress(ValueError):
        assert isinstance(read(bytes(content[:length]) + tail), np.ndarray)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\0\0", b"\0\0\x08\x03", b"\x1f\x8b\x08"]))
def test_any_bytes_give_an_array_or_a_value_error(content: bytes, start: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read(start + content), np.ndarray)


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"file is not a good idx file: .*got"):
        read(GOOD[:length])


@pytest.mark.parametrize("length", range(2, len(gzip.compress(GOOD))))
def test_every_truncation_of_a_gzip_file_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="file is not a whole gzip file"):
        read(gzip.compress(GOOD)[:length])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a header of at least 4 bytes; got 0"),
        (b"\x89PNG\r\n\x1a\n", "expected a magic number of 00 00, .* got 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\x01\0", "expected a magic number .* got 00 00 07 01"),
        (b"\0\0\x08\x00", "expected 1 to 32 dimensions; got 0"),
        (b"\0\0\x08\xff" + 1020 * b"\0", "expected 1 to 32 dimensions; got 255"),
        (b"\0\0\x08\x03\0\0\0\x01\0", "expected 12 bytes of dimensions; got 5: truncated"),
        (GOOD[:-5], r"shape \(2, 3, 4\) needs 24 bytes after the header; got 19: truncated"),
        (GOOD + b"\0", r"expected 24 bytes after the header for shape \(2, 3, 4\); got more"),
    ],
)
def test_a_bad_file_is_refused_with_what_was_expected_and_got(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"file is not a good idx file: {message}"):
        read(content)
    with pytest.raises(ValueError, match=f"file is not a good idx file: {message}"):
        read(gzip.compress(content))


@pytest.mark.parametrize("sizes", [(2**32 - 1, 2**32 - 1), (2**20, 2**11), (0, 2**32 - 1)])
def test_an_absurd_size_is_refused_before_anything_is_allocated(sizes: tuple[int, int]) -> None:
    header = b"\0\0\x08\x02" + b"".join(size.to_bytes(4, "big") for size in sizes)
    message = re.escape(f"shape {sizes} needs ")
    with pytest.raises(ValueError, match=f"{message}.* expected at most 1073741824"):
        read(header)


def test_memory_is_bounded_by_the_file_and_not_by_its_header() -> None:
    header = b"\0\0\x08\x01" + (2**30).to_bytes(4, "big")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="truncated"):
            read(header + b"few")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [GOOD, gzip.compress(GOOD)], ids=["raw", "gz"])
def test_the_checksum_is_of_the_decompressed_content(content: bytes) -> None:
    good = hashlib.sha256(GOOD).hexdigest()
    np.testing.assert_array_equal(read(content, sha256=good.upper()), PICTURES)
    with pytest.raises(ValueError, match=f"file has the wrong content: .* {64 * '0'} .* {good}"):
        read(content, sha256=64 * "0")


def test_a_missing_file_is_an_ordinary_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(os.fspath(tmp_path / "none"))
