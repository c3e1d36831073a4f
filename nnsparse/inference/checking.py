"""Proof that a program reads and writes only what it may: kernels check no bounds, and files come from anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.inference.packing import LARGEST, Packed
from nnsparse.kernels.forward import BLOCK, DENSE, GELU, HEAD, NARROW, SCALE, WIDE

Array = NDArray[Any]


def check(packed: Packed) -> None:
    """Check that the arrays are what `packing.pack` writes: every part used once, in order, every index in its range.

    Raises
    ------
    ValueError
        If not; the message says where.
    """
    _Reader(packed).run()


class _Reader:
    """Walks through a program as `pack` wrote it, with a cursor in each array."""

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.program: list[int] = packed.program.tolist()
        self.at = 0
        self.cursor = {"values": 0, "narrow": 0, "wide": 0, "constants": 0}

    def run(self) -> None:
        n_layers, widest = self.numbers("the program's head", 2)
        self.need(n_layers >= 1, "expected at least one layer")
        features, largest = None, 0
        for index in range(n_layers):
            where = f"layer {index}"
            n_in, n_out = self.layer(where)
            self.need(features in (None, n_in), f"{where} does not take what comes before it")
            features, largest = n_out, max(largest, n_in, n_out)
        self.need(widest == largest, f"the widest layer has {largest} features, not {widest}")
        self.need(self.at == len(self.program), "the program goes on after its last layer")
        for name, end in self.cursor.items():
            size = getattr(self.packed, name).size
            self.need(end == size, f"{size} elements in {name}, of which {end} are used")

    def need(self, condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(f"not a valid compiled model: {message}")

    def numbers(self, where: str, n: int) -> list[int]:
        """Return the next n numbers of the program."""
        self.need(self.at + n <= len(self.program), f"the program ends within {where}")
        found = self.program[self.at : self.at + n]
        self.at += n
        return found

    def take(self, where: str, name: str, start: int, count: int) -> Array:
        """Return the next `count` elements of an array, which have to begin at `start`."""
        array: Array = getattr(self.packed, name)
        self.need(
            start == self.cursor[name] and 0 <= count <= array.size - start,
            f"{where} points outside its part of {name}",
        )
        self.cursor[name] += count
        return array[start : start + count]

    def layer(self, where: str) -> tuple[int, int]:
        begin = self.at
        head = self.numbers(where, HEAD)
        end, kind, n_in, n_out, activation, slope, bias, scale, slab, n_panels = head
        self.need(kind in (SCALE, DENSE, NARROW, WIDE), f"{where} is of unknown kind {kind}")
        self.need(0 <= activation <= GELU, f"{where} has the unknown activation {activation}")
        self.need(n_in >= 1 and n_out >= 1, f"{where} has {n_in} inputs and {n_out} outputs")
        self.take(where, "constants", slope, 1)
        self.take(where, "constants", bias, n_out)
        if kind == SCALE:
            self.need(n_in == n_out and n_panels == 1, f"{where} is no map per feature")
            self.take(where, "constants", scale, n_out)
        largest = {NARROW: 256, WIDE: LARGEST}.get(kind, n_in)
        self.need(1 <= slab <= min(n_in, largest), f"{where} has slabs of {slab} inputs")
        self.need(1 <= n_panels <= n_out, f"{where} has {n_panels} panels")
        panels = self.numbers(where, n_panels)
        first = 0
        for start in panels:
            self.need(start == self.at, f"{where} has a panel in the wrong place")
            first += self.panel(where, kind, first, n_in, slab)
        self.need(first == n_out, f"{where} computes {first} of {n_out} outputs")
        self.need(end == self.at, f"{where} ends in the wrong place (it begins at {begin})")
        return n_in, n_out

    def panel(self, where: str, kind: int, first: int, n_in: int, slab: int) -> int:
        """Check a panel that begins with output `first`; return how many outputs it has."""
        rows = -1
        for base in range(0, n_in, slab) if kind in (NARROW, WIDE) else (0,):
            start, n, outputs, index, values, n_segments = self.numbers(where, BLOCK)
            self.need(
                start == first and n >= 1 and rows in (-1, n), f"{where} has overlapping blocks"
            )
            rows = n
            if kind == DENSE:
                self.take(where, "values", values, n * n_in)
            if kind in (NARROW, WIDE):
                inputs = min(slab, n_in - base)
                self.block(where, kind, (n, outputs, index, values, n_segments), inputs)
            else:
                self.need(n_segments == 0, f"{where} has segments")
        return rows

    def block(self, where: str, kind: int, block: tuple[int, ...], inputs: int) -> None:
        rows, outputs, index, values, n_segments = block
        self.need(0 <= n_segments <= rows <= LARGEST, f"{where} has a block of {rows} outputs")
        pairs = np.array(self.numbers(where, 2 * n_segments), np.int64).reshape(-1, 2)
        counts, sizes = pairs[:, 0], pairs[:, 1]
        good = bool((counts >= 0).all() and (counts <= inputs).all() and (sizes >= 1).all())
        self.need(
            good and bool((sizes <= rows).all()) and int(sizes.sum()) == rows,
            f"{where} has wrong segments",
        )
        nonzeros = int((counts * sizes).sum())
        order = self.take(where, "wide", outputs, rows)
        self.need(
            np.array_equal(np.sort(order), np.arange(rows)),
            f"{where} does not write each output once",
        )
        found = self.take(where, "narrow" if kind == NARROW else "wide", index, nonzeros)
        self.need(not found.size or int(found.max()) < inputs, f"{where} has an index out of range")
        self.take(where, "values", values, nonzeros)
