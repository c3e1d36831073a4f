"""Numbers that recipes are given, looked at where they are given: each message names the argument."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from nnsparse.schedule import Schedule, constant


def fraction(name: str, value: float) -> float:
    """Return a fraction in [0, 1], such as a sparsity, as a float.

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it is not within [0, 1], or NaN.

    Examples
    --------
    >>> fraction("sparsity", 1)
    1.0
    """
    number = _real(name, value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"expected {name} in [0, 1]; got {value!r}. In percent? Divide by 100.")
    return number


def below_one(name: str, value: float) -> float:
    """Return a fraction in [0, 1), such as that of the weights to be replaced; errors as `fraction`."""
    number = _real(name, value)
    if not 0.0 <= number < 1.0:
        raise ValueError(
            f"expected {name} in [0, 1), a fraction of each layer's weights; got {value!r}. In percent? Divide by 100."
        )
    return number


def non_negative(name: str, value: float) -> float:
    """Return a finite number >= 0; errors as `fraction`."""
    number = _real(name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"expected {name} >= 0 and finite; got {value!r}. Zero switches it off.")
    return number


def rising(initial: float, sparsity: float) -> None:
    """Refuse an `initial` sparsity that is above the last one; errors as `fraction`."""
    if fraction("initial", initial) > fraction("sparsity", sparsity):
        raise ValueError(
            f"expected initial <= sparsity; got initial={initial!r}, sparsity={sparsity!r}. Swap them?"
        )


def integer(who: str, name: str, number: Any) -> int:
    """Return an integer, NumPy's too, as Python's.

    Raises
    ------
    TypeError
        If it is none.
    """
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{who} expects {name} as an integer; got {number!r}.") from None


def held(sparsity: float) -> Schedule:
    """Return a constant sparsity as a schedule; errors as `fraction`."""
    return constant(fraction("sparsity", sparsity))


def ends(initial: float, sparsity: float) -> tuple[float, float]:
    """Return both ends of a schedule of sparsity as floats; errors as `fraction`."""
    return fraction("initial", initial), fraction("sparsity", sparsity)


def _real(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"expected {name} as a number; got {value!r}. Pass one, such as {name}=0.5."
        )
    return float(value)
