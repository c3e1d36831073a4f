"""Exact integer counts: how many nonzeros a matrix gets, how they are shared out, which are drawn.

Fractions end here; everything behind this file counts in integers. What the counts are used for is in `topology`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction
from numbers import Integral, Rational, Real

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]


def exact_count(
    size: int,
    *,
    sparsity: float | None = None,
    density: float | None = None,
    nnz: int | None = None,
) -> int:
    """Return the number of nonzeros among `size` positions: nnz, or round(density * size).

    Parameters
    ----------
    size : int
        Number of positions, n_out * n_in for one matrix.
    sparsity, density : float in [0, 1], optional
        Fraction of zeros, fraction of nonzeros; a half rounds to the even neighbour.
    nnz : int from 0 to size, optional
        The number itself. Give exactly one of the three.

    Returns
    -------
    int
        From 0 to size.

    Raises
    ------
    TypeError
        If not exactly one of the three is given, or it is not a number (`nnz`: an integer).
    ValueError
        If it is out of its range, or NaN.

    Examples
    --------
    >>> exact_count(1000, sparsity=0.9)
    100
    """
    given = {"sparsity": sparsity, "density": density, "nnz": nnz}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise TypeError(
            "expected exactly one of sparsity, density and nnz; got "
            f"{' and '.join(named) or 'none'}. Pass e.g. sparsity=0.9 alone."
        )
    if nnz is not None:
        return _count("nnz", nnz, size)
    ((name, value),) = named.items()
    if not isinstance(value, Real):
        raise TypeError(f"expected {name} to be a float in [0, 1]; got {value!r}. Pass a number.")
    fraction = float(value)
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"expected {name} in [0, 1]; got {value}. In percent? Divide by 100.")
    return round((fraction if name == "density" else 1.0 - fraction) * size)


def apportion(shares: Sequence[float], caps: Sequence[int], total: int) -> list[int]:
    """Split `total` in proportion to `shares`, exactly, with no part above its cap.

    Water-filling: part l gets min(level * shares[l], caps[l]), with the level that uses up the
    total. Then every part is rounded down and the largest remainders, the first one among equals,
    get one more. The arithmetic is rational, so no rounding error ever decides.

    Parameters
    ----------
    shares : sequence of float, length n
        Finite and >= 0. Parts of share 0 get something only when all others are full; then the
        rest is split in proportion to their caps.
    caps : sequence of int, length n
        The most that each part can take, >= 0.
    total : int
        From 0 to sum(caps).

    Returns
    -------
    list of int, length n
        0 <= result[l] <= caps[l] and sum(result) == total.

    Raises
    ------
    TypeError
        If a cap or the total is not an integer.
    ValueError
        If the lengths differ, a share or cap is negative or not finite, or the total does not fit.

    Notes
    -----
    Cost: O(n log n) rational operations.

    Examples
    --------
    >>> apportion([1084, 400, 110], [235200, 30000, 1000], 26620)
    [18714, 6906, 1000]
    """
    if len(shares) != len(caps):
        raise ValueError(
            f"apportion expects one cap per share; got {len(shares)} shares and {len(caps)} caps. "
            "Pass lists of equal length."
        )
    shares = [int(s) if isinstance(s, Integral) else s for s in shares]  # NumPy's overflow
    limits = [_count(f"caps[{i}]", cap) for i, cap in enumerate(caps)]
    total = _count("total", total, sum(limits))
    for i, share in enumerate(shares):
        if not (math.isfinite(share) and share >= 0):
            raise ValueError(
                f"apportion expects finite shares >= 0; got {share} at {i}. Take absolute values?"
            )
    exact = [Fraction(s if isinstance(s, Rational) else float(s)) for s in shares]
    quotas = _fill(exact, limits, total)
    rest = total - int(sum(quotas))
    if rest:  # all parts with a share are full
        limits = [0 if share else cap for share, cap in zip(shares, limits, strict=True)]
        extra = _fill([Fraction(cap) for cap in limits], limits, rest)
        quotas = [a + b for a, b in zip(quotas, extra, strict=True)]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - quotas[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def erdos_renyi(shapes: Iterable[Shape], sparsity: float) -> list[int]:
    """Return each layer's number of nonzeros, in proportion to n_out + n_in.

    The density of layer l is min(1, epsilon (n_out + n_in) / (n_out n_in)), with the epsilon that
    gives all layers together the sparsity asked for. For linear layers ERK is the same.

    Parameters
    ----------
    shapes : iterable of (n_out, n_in)
        One pair per layer.
    sparsity : float in [0, 1]
        Fraction of zeros in all layers together.

    Returns
    -------
    list of int
        Nonzeros per layer; they sum to round((1 - sparsity) * all positions).

    Raises
    ------
    TypeError, ValueError
        As `exact_count`, and if a shape is not a pair of integers >= 0.

    Notes
    -----
    Source: Mocanu et al. 2018; Evci et al. 2020 (ERK). Difference: exact integer totals.

    Examples
    --------
    >>> erdos_renyi([(300, 784), (100, 300), (10, 100)], 0.9)
    [18714, 6906, 1000]
    """
    pairs = [check_shape(shape) for shape in shapes]
    sizes = [n_out * n_in for n_out, n_in in pairs]
    total = exact_count(sum(sizes), sparsity=sparsity)
    return apportion([n_out + n_in for n_out, n_in in pairs], sizes, total)


def uniform(shapes: Iterable[Shape], sparsity: float) -> list[int]:
    """Return each layer's number of nonzeros when all layers have the same density.

    Parameters, total and errors as in `erdos_renyi`; each count is less than 1 from its share.

    Examples
    --------
    >>> uniform([(300, 784), (100, 300), (10, 100)], 0.9)
    [23520, 3000, 100]
    """
    sizes = [n_out * n_in for n_out, n_in in map(check_shape, shapes)]
    return apportion(sizes, sizes, exact_count(sum(sizes), sparsity=sparsity))


def draw(size: int, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw k of the numbers 0 .. size - 1 without replacement, every set equally likely.

    Parameters
    ----------
    size : int
        Below 2**63.
    k : int
        From 0 to size.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    (k,) int64
        The numbers drawn, increasing.

    Raises
    ------
    TypeError, ValueError
        If `k` is not an integer from 0 to size.

    Notes
    -----
    Cost: O(k) memory; O(k log k) time (one sort), O(k) when k > size / 8 (a byte per number).
    """
    k = _count("k", k, size)
    if 2 * k > size:  # the complement is the smaller set
        chosen = np.ones(size, np.bool_)
        chosen[draw(size, size - k, rng)] = False
        return np.flatnonzero(chosen)
    found = np.empty(0, np.int64)
    # Distinct values among independent draws, thinned at random: no step looks at the numbers
    # themselves, so by symmetry every set of k is equally likely.
    while found.size < k:
        missing = k - found.size
        expected = -size * math.log1p(-missing / size)
        tries = rng.integers(0, size, math.ceil(expected + 4.0 * math.sqrt(missing)) + 8)
        found = _distinct(np.concatenate([found, tries]) if found.size else tries, size)
    surplus = found.size - k
    if surplus == 0:
        return found
    return np.delete(found, rng.choice(found.size, surplus, replace=False, shuffle=False))


def _distinct(numbers: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the distinct values of `numbers` below `size`, increasing; it is overwritten."""
    if size <= 8 * numbers.size:  # a byte per candidate takes no more memory and needs no sort
        seen = np.zeros(size, np.bool_)
        seen[numbers] = True
        return np.flatnonzero(seen)
    numbers.sort()
    fresh = np.ones(numbers.size, np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=fresh[1:])
    return numbers[fresh]


def check_shape(shape: Shape) -> Shape:
    """Return `shape` as a pair of Python ints.

    Raises
    ------
    TypeError
        If it is not a pair of integers.
    ValueError
        If one is negative or their product reaches 2**63.
    """
    try:
        n_out, n_in = (operator.index(n) for n in shape)
    except (TypeError, ValueError):
        raise TypeError(
            f"expected a shape (n_out, n_in) of two integers; got {shape!r}. "
            "Pass (out_features, in_features)."
        ) from None
    if n_out < 0 or n_in < 0 or n_out * n_in >= 2**63:
        raise ValueError(
            "expected a shape (n_out, n_in) with both >= 0 and n_out * n_in < 2**63; got "
            f"({n_out}, {n_in}). Pass (out_features, in_features)."
        )
    return n_out, n_in


def _count(name: str, value: int, limit: int | None = None) -> int:
    """Return `value` as a Python int from 0 to `limit`, or raise in terms of `name`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"expected {name} to be an integer; got {value!r}. Round it first."
        ) from None
    if number < 0 or (limit is not None and number > limit):
        span = ">= 0" if limit is None else f"from 0 to {limit}, the positions there are"
        raise ValueError(f"expected {name} {span}; got {number}. Ask for a number in that range.")
    return number


def _fill(shares: list[Fraction], caps: list[int], total: int) -> list[Fraction]:
    """Return min(level * share, cap) per part; the level uses up the total unless all are full."""
    quotas = [Fraction(0)] * len(shares)
    parts = [i for i, share in enumerate(shares) if share]
    parts.sort(key=lambda i: caps[i] / shares[i])  # the order in which they fill up
    left, weight = Fraction(total), sum((shares[i] for i in parts), Fraction(0))
    for done, i in enumerate(parts):
        if caps[i] * weight > left * shares[i]:
            for j in parts[done:]:
                quotas[j] = left * shares[j] / weight
            break
        quotas[i] = Fraction(caps[i])
        left -= caps[i]
        weight -= shares[i]
    return quotas
