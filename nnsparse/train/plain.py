"""State dicts of any shape as JSON and arrays, and back with the same bits: what checkpoint files are made of.

Numbers, strings, None, lists, tuples and dicts become JSON; arrays are taken out by name. What JSON has no word for is
a dict with one key that begins with "$": an array, a tuple, a float that is not finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_ARRAY, _TUPLE, _FLOAT = "$array", "$tuple", "$float"
_UNUSUAL = re.compile(r"[^\w.\-/]", re.ASCII)


def to_plain(value: Any, where: str, arrays: dict[str, Array]) -> Any:
    """Return `value` as JSON; its arrays are put into `arrays` under names that begin with `where`.

    Raises
    ------
    TypeError
        Naming the place, for whatever is none of None, bool, number, string, list, tuple, dict with strings as keys,
        and array of booleans, integers or floats.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "U":
        value = value.item()
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    is_array = isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)
    if is_array and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        name = _free_name(where, arrays)
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, list):
        return [to_plain(item, f"{where}/{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {_TUPLE: to_plain(list(value), where, arrays)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(
                    f"a checkpoint cannot hold the key {key!r} in {where}; expected strings that do not begin with '$'"
                )
        return {key: to_plain(item, f"{where}/{key}", arrays) for key, item in value.items()}
    kind = f"an array of {value.dtype}" if is_array else type(value).__name__
    raise TypeError(
        f"a checkpoint cannot hold {kind} in {where}; expected numbers, strings, None, lists, tuples, dicts and arrays "
        "of numbers. Return one of these from state_dict."
    )


def from_plain(plain: Any, arrays: dict[str, Array]) -> Any:
    """Return what `to_plain` was given; each array is taken out of `arrays`, once.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is nothing that `to_plain` makes.
    """
    if isinstance(plain, list):
        return [from_plain(item, arrays) for item in plain]
    if not isinstance(plain, dict):
        return plain
    marks = [key for key in plain if key.startswith("$")]
    if not marks:
        return {key: from_plain(item, arrays) for key, item in plain.items()}
    if len(plain) != 1 or marks[0] not in (_ARRAY, _TUPLE, _FLOAT):
        raise ValueError(f"the manifest has an entry {marks[0]!r} that is not understood")
    content = plain[marks[0]]
    if marks[0] == _ARRAY:
        return arrays.pop(content)
    if marks[0] == _TUPLE:
        return tuple(from_plain(list(content), arrays))
    if content not in ("nan", "inf", "-inf"):
        raise ValueError(f"the manifest has the number {content!r}")
    return float(content)


def _free_name(where: str, arrays: dict[str, Array]) -> str:
    """Return a name that no array has yet, of letters that every file system and archive takes."""
    name = base = _UNUSUAL.sub("_", where)
    count = 1
    while name in arrays:
        count += 1
        name = f"{base}-{count}"
    return name
