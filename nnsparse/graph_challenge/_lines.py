"""Lines `row<TAB>column<TAB>value`, counted from one, to arrays and back, a block at a time, in NumPy.

Blocks of whole lines are parsed as arrays of bytes: 8 characters are one integer, and all numbers of a block are
decoded together. What does not fit that, or is wrong, is parsed again line by line, which finds the line to name.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

PathLike = str | os.PathLike[str]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_BLOCK = 1 << 23  # bytes read at a time, and the longest line
_LINES = 1 << 17  # lines written at a time
_DIGITS = 8  # of an integer that is decoded as one word
_WIDEST = 32  # characters of a value that is not parsed line by line
_TAB, _NEWLINE = 9, 10
_LARGEST = float(np.finfo(np.float32).max)


def _word(number: int) -> Any:
    return np.uint64(number)


# A window is the 8 characters before a tab, as an integer whose lowest byte is the first of them.
# By the number of digits: the bytes that are theirs, and "0" for the others.
_KEEP = np.array([2**64 - 2 ** (64 - 8 * n) for n in range(_DIGITS + 1)], np.uint64)
_ZEROS = ~_KEEP & _word(0x3030303030303030)


class Entries(NamedTuple):
    """Consecutive lines of a file: the number of the first; rows, columns (n,) from zero; values (n,) float64."""

    line: int
    rows: Ints
    columns: Ints
    values: NDArray[np.float64]


# ---------------------------------------------------------------- reading


def entries(path: PathLike, n_rows: int, n_columns: int) -> Iterator[Entries]:
    """Yield all entries of a file, plain or .gz, in the order of its lines; memory of one block.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line has not three fields, its numbers are no numbers, not finite in float32 or out of range, or the
        .gz is broken; names file and line.
    """
    for line, block in blocks(path):
        parsed = _parse(block)
        if parsed is None or not _fits(parsed, n_rows, n_columns):
            parsed = _parse_slowly(path, line, block, n_rows, n_columns)
        yield Entries(line, *parsed)


def blocks(path: PathLike) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the first line, whole lines) until the file ends; a last newline is added if missing."""
    line, rest = 1, b""
    try:
        with open_binary(path, "rb") as file:
            while chunk := file.read(_BLOCK):
                cut = chunk.rfind(b"\n") + 1
                if cut == 0:
                    rest += chunk
                    if len(rest) > _BLOCK:
                        refuse(path, line, "a line end", f"{len(rest)} bytes without one")
                    continue
                block, rest = rest + chunk[:cut], chunk[cut:]
                yield line, block
                line += block.count(b"\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole .gz file: {error}. Get it again.") from error
    if rest:
        yield line, rest + b"\n"


def open_binary(path: PathLike, mode: str) -> IO[bytes]:
    """Open a file to read or write bytes, through gzip if its name ends in .gz."""
    if Path(path).suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, mode, compresslevel=6))
    return cast(IO[bytes], Path(path).open(mode))


def refuse(path: PathLike, line: int, expected: str, got: str) -> NoReturn:
    """Raise the ValueError that names file and line."""
    raise ValueError(f"{path}, line {line}: expected {expected}; got {got}. Get or make it again.")


def _parse(block: bytes) -> tuple[Ints, Ints, NDArray[np.float64]] | None:
    """Return rows, columns and values of whole lines; None where one of them is not as usual."""
    text = np.frombuffer(b"0" * _DIGITS + block + b"0" * _WIDEST, np.uint8)
    ends = np.flatnonzero(text[:-_WIDEST] <= _NEWLINE)
    if ends.size % 3:
        return None
    first, second, third = ends[0::3], ends[1::3], ends[2::3]
    if not (
        (text[first] == _TAB).all()
        and (text[second] == _TAB).all()
        and (text[third] == _NEWLINE).all()
    ):
        return None
    starts = np.empty_like(first)
    starts[0] = _DIGITS
    starts[1:] = third[:-1] + 1
    rows = _integers(text, first, first - starts)
    columns = _integers(text, second, second - first - 1)
    if rows is None or columns is None:
        return None
    values = _floats(text, second + 1, third - second - 1)
    return None if values is None else (rows, columns, values)


def _integers(text: NDArray[np.uint8], ends: Ints, lengths: Ints) -> Ints | None:
    """Return the integers of 1 to 8 digits that end before `ends`, less one; None if there are others."""
    if lengths.min() < 1 or lengths.max() > _DIGITS:
        return None
    windows: Words = np.ndarray(text.size - 7, "<u8", text.data, strides=(1,))
    word = windows[ends - _DIGITS].astype(np.uint64, copy=False)
    word &= _KEEP[lengths]
    word |= _ZEROS[lengths]
    word ^= _word(0x3030303030303030)
    if (((word + _word(0x7676767676767676)) | word) & _word(0x8080808080808080)).any():
        return None  # a byte above 9
    # Neighbours become numbers of 2 digits, then of 4, then of 8, in all words at once.
    word = word * _word(10) + (word >> _word(8))
    low = (word & _word(0x000000FF000000FF)) * _word(0x000F424000000064)
    high = ((word >> _word(16)) & _word(0x000000FF000000FF)) * _word(0x0000271000000001)
    numbers: Ints = ((low + high) >> _word(32)).view(np.int64)
    return numbers - 1


def _floats(text: NDArray[np.uint8], starts: Ints, lengths: Ints) -> NDArray[np.float64] | None:
    """Return the numbers that begin at `starts`; None if one is no number or long."""
    width = int(lengths.max())
    if lengths.min() < 1 or width > _WIDEST:
        return None
    windows = np.ndarray(text.size - width + 1, f"S{width}", text.data, strides=(1,))
    fields = windows[starts]
    characters = fields.view(np.uint8).reshape(starts.size, width)
    within = characters[np.arange(width) < lengths[:, None]]
    if ((within == ord("_")) | (within == ord(" "))).any():
        return None  # Python reads these as numbers, TSV does not mean them
    try:
        if lengths.min() == width and (characters == characters[0]).all():
            return np.full(starts.size, float(bytes(characters[0])))
        characters[np.arange(width) >= lengths[:, None]] = 0
        numbers: NDArray[np.float64] = fields.astype(np.float64)
    except ValueError:
        return None
    return numbers


def _fits(parsed: tuple[Ints, Ints, NDArray[np.float64]], n_rows: int, n_columns: int) -> bool:
    rows, columns, values = parsed
    return bool(
        rows.min() >= 0
        and rows.max() < n_rows
        and columns.min() >= 0
        and columns.max() < n_columns
        and np.abs(values).max() <= _LARGEST  # False for NaN
    )


def _parse_slowly(
    path: PathLike, first: int, block: bytes, n_rows: int, n_columns: int
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Do what `_parse` and `_fits` do, line by line, and name what is wrong."""
    lines = block.split(b"\n")[:-1]
    numbers, values = np.empty((2, len(lines)), np.int64), np.empty(len(lines))
    for i, text in enumerate(lines):
        line, fields = first + i, text.split(b"\t")
        if len(fields) != 3:
            refuse(path, line, "row, column and value between tabs", shown(text))
        for axis, (name, limit) in enumerate((("row", n_rows), ("column", n_columns))):
            numbers[axis, i] = integer(path, line, name, fields[axis], limit)
        try:
            if b"_" in fields[2] or b" " in fields[2]:
                raise ValueError
            values[i] = float(fields[2])
        except ValueError:
            refuse(path, line, "a number as value", shown(fields[2]))
        if not (math.isfinite(values[i]) and abs(values[i]) <= _LARGEST):
            refuse(path, line, "a finite float32 value", shown(fields[2]))
    return numbers[0], numbers[1], values


def integer(path: PathLike, line: int, name: str, field: bytes, limit: int) -> int:
    """Return the number in a field less one; ValueError unless it is from 1 to `limit`."""
    number = int(field.lstrip(b"0")[:20] or b"0") if field.isdigit() else 0
    if not 1 <= number <= limit:
        refuse(path, line, f"a {name} from 1 to {limit}", shown(field))
    return number - 1


def shown(text: bytes) -> str:
    """Return the beginning of what a file has, for a message."""
    return repr(text[:40]) + ("…" if len(text) > 40 else "")


# ---------------------------------------------------------------- writing


def lines(
    rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], format_: str
) -> Iterator[bytes]:
    """Yield the text of entries (n,), indices from zero >= 0, some lines at a time.

    Values are written with `format_`, such as "%.6e", or with 9 digits where it would change a float32.
    """
    for start in range(0, len(rows), _LINES):
        part = slice(start, start + _LINES)
        texts, which = _formatted(values[part], format_)
        tables = (_numbers(rows[part]), _numbers(columns[part]), texts[which])
        text = np.concatenate(tables, axis=1).ravel()
        yield text[text != 0].tobytes()


def _numbers(indices: NDArray[Any]) -> NDArray[np.uint8]:
    """Return indices + 1 in decimal, and a tab, one per row, zero bytes before the first digit."""
    last = int(indices.max()) + 1
    powers = 10 ** np.arange(len(str(last)) - 1, -1, -1)
    number = (indices.astype(np.int64) + 1)[:, None] // powers
    text = np.full((len(indices), powers.size + 1), _TAB, np.uint8)
    text[:, :-1] = np.where(number > 0, number % 10 + ord("0"), 0)
    return text


def _formatted(values: NDArray[Any], format_: str) -> tuple[NDArray[np.uint8], Ints]:
    """Return the texts of the distinct values with newlines, one per row, and which is each value's."""
    if (values == values[0]).all():
        distinct, which = values[:1], np.zeros(len(values), np.int64)
    else:
        distinct, which = np.unique(values, return_inverse=True)
    texts = [format_ % value for value in distinct]
    for i, value in enumerate(distinct):
        if np.float32(texts[i]) != np.float32(value):
            texts[i] = f"{value:.8e}"
    table = np.array([f"{text}\n".encode() for text in texts])
    return table.view(np.uint8).reshape(len(distinct), -1), which
