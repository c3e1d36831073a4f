"""The handwriting of `digits`: our own stroke glyphs, and the curves through their knots.

What is here is data and its parser; nothing random and no pixels, those are in `digits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

# One line per way to write a digit, in a box 20 units wide and high, y downwards. "x,y x,y" is a
# smooth curve through its knots, "|" a corner, ";" lifts the pen.
_GLYPHS: tuple[tuple[str, ...], ...] = (
    (
        "10,1 5,4 3,10 5,17 10,19 15,16 17,10 15,4 10,1",
        "11,1 7,4 6,10 7,16 10,19 13,16 14,10 13,4 10,1.5",
        "12,2 8,1 4,6 3,12 6,18 12,18 16,13 16,6 12,1.5 8,3",
        "13,1 7,3 3,10 4,16 8,19 13,17 17,10 16,4 12,1",
    ),
    (
        "10,1 10,10 10,19",
        "13,1 10,10 7,19",
        "6,6 11,1 | 10.5,10 10,19",
        "6,5 10,1 | 10,10 10,19 ; 5,19 10,18.5 15,19",
        "5,7.5 12,1 | 11,10 10,19",
    ),
    (
        "4,5 7,1.5 12,1.5 15,5 13,10 8,15 4,19 | 10,18.5 16,19",
        "4,4 9,1 14,3 14,8 9,14 5,18 4,16 7,15 11,18 17,18",
        "4,3 10,1 15,4 12,10 4,18 | 10,17 17,18",
        "3,6 6,2 12,1 16,4 14,10 9,15 3,19 | 9,17.5 17,19",
        "4,3 9,2 15,3 | 10,10 4,18 | 10,17.5 16,18",
    ),
    (
        "4,3 9,1 14,3 14,7 9,9.5 | 14,11 16,15 12,19 7,19 3,16",
        "4,2 10,1.5 15,2 | 9,8.5 | 14,10 15,15 11,19 4,17",
        "5,3 10,1 14,4 11,8 8,9.5 11,10 15,14 12,18.5 7,19 4,17",
        "4,4 8,1 13,2 13,7 8,9 | 13,10 15,14 12,18 7,19.5 4,17",
    ),
    (
        "5,1 4.5,6 4,11 | 10,11 16,11 ; 14,3 13.5,11 13,19",
        "12,1 7.5,7 3,13 | 10,13 17,13 ; 12,1 12,10 12,19",
        "5,2 4,8 6,11 14,10 ; 15,2 14,10 12,19",
        "13,1 8,6 4,12 | 9,11.5 15,10 ; 14,5 13,11 11,19",
        "6,2 4,8 5,11 9,11 14,8 | 15,2 | 14,10 14,19",
    ),
    (
        "15,2 10,1.5 6,2 | 5,9 | 10,8 15,11 15,16 10,19 4,17",
        "6,2 5,9 | 10,7.5 15,11 14,17 9,19 4,18 ; 6,2 11,2 16,1.5",
        "15,2 8,2 6,6 8,9 13,12 13,17 8,19 4,17",
        "14,1 7,2 6,8 | 11,8 14,12 13,16 9,19 5,18",
    ),
    (
        "13,1 7,6 4,13 7,18.5 12,18.5 15,15 12,11 8,11.5 5,15",
        "11,1 6,9 5,15 8,19 12,18 14,14 11,11 7,13 5.5,16",
        "14,2 8,4 4,11 5,17 10,19 15,16 14,11 9,10 5,14",
        "12,1 6,8 4,14 6,18.5 10,19 12,16 10,13.5 6,15",
    ),
    (
        "4,3 10,2.5 16,3 | 11,11 8,19",
        "4,2.5 10,2.5 16,2.5 | 11,11 8,19 ; 6,11 10,10.5 14,10.5",
        "4,6 4,3 | 10,2.5 16,3 | 12,9 10,19",
        "3,4 9,2 15,3 14,8 10,14 9,19",
        "5,3 10,2.5 14.5,2 | 13,10 11.5,19",
    ),
    (
        "14,3 9,1 5,4 7,8 12,11 15,15 11,19 6,18 5,14 9,10 13,7 14,3",
        "10,9 6,6 7,2 11,1 14,4 12,8 10,9 6,12 5,16 9,19 14,17 14,12 10,9",
        "14,2 10,1 7,4 9,8 12,12 11,17 7,19 5,16 8,11 13,7 14,2",
        "15,2 9,2 6,5 9,9 13,12 13,17 8,19 5,16 7,12 12,8 14,4",
    ),
    (
        "14,5 10,1 5,4 5,8 9,10.5 14,7 14,3 | 14,11 13,19",
        "14,4 9,2 5,6 7,10 12,9 15,4 | 13,11 11,19",
        "15,4 10,1 5,4 6,9 11,10 15,6 15,3 15,11 13,17 8,19 5,17",
        "14,3 8,3 5,7 8,10 13,8 14,2 | 13,11 12,19",
    ),
)

_SEGMENT = 1.3  # longest piece of a stroke, glyph units


@dataclass(frozen=True)
class Glyph:
    """One way to write a digit, ready to be drawn many times.

    knots : (n_knots, 2); spline : (n_points, n_knots), points = spline @ knots;
    starts : (n_segments,), segment i joins points starts[i] and starts[i] + 1.
    """

    knots: NDArray[np.float64]
    spline: NDArray[np.float64]
    starts: NDArray[np.int64]


@cache
def glyphs() -> tuple[tuple[Glyph, ...], ...]:
    """Parse `_GLYPHS` once."""
    return tuple(tuple(_parse(text) for text in family) for family in _GLYPHS)


def _parse(text: str) -> Glyph:
    """Turn a line of `_GLYPHS` into knots, the spline through them and its segments."""
    strokes = [
        [[_numbers(pair) for pair in run.split()] for run in stroke.split("|")]
        for stroke in text.split(";")
    ]
    knots = np.array([knot for stroke in strokes for run in stroke for knot in run])
    rows: list[NDArray[np.float64]] = []
    starts: list[int] = []
    first = 0  # knot of the run that comes next
    for stroke in strokes:
        rows.append(np.eye(len(knots))[first])
        for i, run in enumerate(stroke):
            # A corner is the last knot of one run and the first of the next.
            ids = list(range(first - (i > 0), first + len(run)))
            first += len(run)
            for row in _run(knots, ids):
                starts.append(len(rows) - 1)
                rows.append(row)
    return Glyph(knots, np.array(rows), np.array(starts, np.int64))


def _numbers(pair: str) -> list[float]:
    """Read "x,y"."""
    return [float(value) for value in pair.split(",")]


def _run(knots: NDArray[np.float64], ids: list[int]) -> Iterator[NDArray[np.float64]]:
    """Yield the weights (n_knots,) of each point after the first of a smooth run of knots."""
    for k in range(len(ids) - 1):
        through = [ids[max(k - 1, 0)], ids[k], ids[k + 1], ids[min(k + 2, len(ids) - 1)]]
        dx, dy = knots[ids[k + 1]] - knots[ids[k]]
        pieces = max(1, math.ceil(math.sqrt(dx * dx + dy * dy) / _SEGMENT))
        for piece in range(1, pieces + 1):
            row = np.zeros(len(knots))
            np.add.at(row, through, _catmull_rom(piece / pieces))
            yield row


def _catmull_rom(t: float) -> list[float]:
    """Return the weights of four successive knots for the point t of the way from the second."""
    t2, t3 = t * t, t * t * t
    return [
        (2 * t2 - t - t3) / 2,
        (2 - 5 * t2 + 3 * t3) / 2,
        (t + 4 * t2 - 3 * t3) / 2,
        (t3 - t2) / 2,
    ]
