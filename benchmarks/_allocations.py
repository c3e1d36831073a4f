"""What a training step asks the system for: the largest block, and what is left of it all, by `tracemalloc`.

Python's and NumPy's memory is seen, blocks that live for a moment included; that of torch is not.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Allocations:
    """Bytes: `largest`, a bound of the largest block, asked for in `where`; `growth`, held at the end."""

    largest: int
    where: str
    growth: int


class _Watch:
    """A profile function: bounds what was allocated since it was last called, by peak less what was held.

    It is called at every call and return, of C functions too, so that hardly more than one block
    lies between two calls.
    """

    def __init__(self) -> None:
        self.largest, self.where = 0, ""
        self.held = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        peak = tracemalloc.get_traced_memory()[1]
        if peak - self.held > self.largest:
            name = getattr(arg, "__qualname__", "") if event.startswith("c_") else ""
            self.largest = peak - self.held
            self.where = f"{frame.f_code.co_name}, {name or f'line {frame.f_lineno}'}"
        tracemalloc.reset_peak()
        self.held = tracemalloc.get_traced_memory()[0]


def steady(step: Callable[[], object], steps: int, warm: int) -> Allocations:
    """Run `warm` steps, then watch `steps` more: about a hundred times slower than unwatched."""
    for _ in range(warm):
        step()
    watch = _Watch()
    tracemalloc.start(1)
    try:
        step()  # what tracing itself keeps for each line that allocates
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(steps):
            step()
        growth = tracemalloc.get_traced_memory()[0] - before
        watch.held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        other = sys.getprofile()
        sys.setprofile(watch)
        try:
            for _ in range(steps):
                step()
        finally:
            sys.setprofile(other)
    finally:
        tracemalloc.stop()
    return Allocations(watch.largest, watch.where, growth)
