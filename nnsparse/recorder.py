"""`Recorder`: charges the time of one Python thread to layers and sections, for `ns.profile`.

It keeps one clock that always runs for exactly one (layer, section), so that the sections add up to the time that
passed; what it does itself is charged to `overhead`. The hooks that call it are in `trace`; what is shown, in
`profiling`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
Function = Callable[..., Any]
# (structure, name of the product, samples, bytes of a number) -> floating-point operations, bytes
Cost = Callable[[Any, str, int, int], tuple[int, int]]

PYTHON = "python"  # what is in no other section
PRODUCTS = {
    "forward": "forward",
    "transposed": "input gradient",
    "gradient": "weight gradient",
}
# Kernels that read a part of an array: the bytes they move, by their arguments.
_TRAFFIC: dict[str, Callable[..., int]] = {
    "gather_rows": lambda source, index, out: 2 * out.nbytes + index.nbytes,
    "scatter_rows": lambda tiles, out: 2 * out.nbytes,
}


class Entry:
    """What was recorded for one (layer, section); `work` are the operations, a float64 one counted as two."""

    __slots__ = ("calls", "flops", "nbytes", "seconds", "work")

    def __init__(self) -> None:
        self.calls = self.flops = self.nbytes = self.work = 0
        self.seconds = 0.0

    def add(self, other: Entry) -> None:
        """Add what another entry holds."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Recorder:
    """Charges the time of one Python thread to layers and sections.

    Parameters
    ----------
    cost : function
        Operations and bytes of a product.
    """

    def __init__(self, cost: Cost) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}
        self.overhead = 0.0
        self.layer, self.section = "", PYTHON
        self._cost = cost
        self._entry = self.entry("", PYTHON)
        self._product: Entry | None = None  # which the next kernel belongs to
        self._launched = False
        self._stack: list[tuple[str, str, Entry]] = []
        self._names: dict[int, str] = {}
        self._owners: dict[int, str] = {}
        self._roots: list[tuple[str, Any]] = []
        self._kept: list[Any] = []  # so that no id is used twice
        self._mark = perf_counter()

    # ------------------------------------------------------------ clock

    def entry(self, layer: str, section: str) -> Entry:
        """Return the entry of a layer and section, made at first use."""
        found = self.entries.get((layer, section))
        if found is None:
            found = self.entries[layer, section] = Entry()
        return found

    def resume(self) -> float:
        """Begin to count anew, after time that belongs to nobody; return the present time."""
        self._mark = perf_counter()
        return self._mark

    def pause(self) -> float:
        """Stop the clock: what follows, until `go`, is the recorder's own work. Return the present time."""
        now = perf_counter()
        self._entry.seconds += now - self._mark
        self._mark = now
        return now

    def go(self) -> None:
        """Let the clock run for the present entry."""
        now = perf_counter()
        self.overhead += now - self._mark
        self._mark = now

    def begin(self, layer: str, section: str, entry: Entry | None = None) -> Entry:
        """Charge what follows to another entry, until `end`."""
        self.pause()
        self._stack.append((self.layer, self.section, self._entry))
        entry = self.entry(layer, section) if entry is None else entry
        entry.calls += entry is not self._entry
        self.layer, self.section, self._entry = layer, section, entry
        self.go()
        return entry

    def end(self) -> None:
        """Go back to what was charged before the last `begin`."""
        self.pause()
        self.layer, self.section, self._entry = self._stack.pop()
        self.go()

    # ------------------------------------------------------------ what is recorded

    def call(self, layer: str, section: str, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function, its time charged to a layer and section."""

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            self.begin(layer, section)
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return run

    def kernel(self, name: str, dispatcher: Function) -> Function:
        """Return a compiled kernel, charged to the section that it serves, or to its own name."""
        own = self.section == PYTHON and self._product is None
        traffic = _TRAFFIC.get(name)

        def run(*args: Any) -> Any:
            self.pause()
            self._launched = True
            section = name.removesuffix("_kernel") if own else self.section
            entry = self._product
            if entry is None:
                entry = self.entry(self.layer, section)
                if traffic is not None:
                    entry.nbytes += traffic(*args)
                elif own:
                    arrays = {id(a): a.nbytes for a in args if isinstance(a, np.ndarray)}
                    entry.nbytes += sum(arrays.values())
            entry.calls -= entry is self._product  # counted when the product began
            self.go()
            self.begin(self.layer, section, entry)
            try:
                return dispatcher(*args)
            finally:
                self.end()

        return run

    def product(self, structure: Any, name: str, batch: int) -> Function:
        """Return the method of a structure that multiplies, its kernel charged to the product.

        What it does around its kernel is Python; a product without a kernel of ours is charged as a whole.
        """
        launch = getattr(structure, name)

        def run(*args: Any) -> Any:
            self.pause()
            itemsize = args[0].itemsize
            flops, nbytes = self._cost(structure, name, batch, itemsize)
            entry, around = self.entry(self.layer, PRODUCTS[name]), Entry()
            entry.calls += 1
            entry.flops += flops
            entry.nbytes += nbytes
            entry.work += flops * itemsize // 4
            self._product, self._launched = entry, False
            self.go()
            self.begin(self.layer, PRODUCTS[name], around)
            try:
                return launch(*args)
            finally:
                self.end()
                self._product = None
                whole = self.entry(self.layer, PYTHON) if self._launched else entry
                whole.seconds += around.seconds

        return run

    def whole(
        self, name: str, forward: Function, flops: int, nbytes: int, itemsize: int
    ) -> Function:
        """Return a pass through a whole network, charged as one forward product of a layer of this name."""

        def run(*args: Any) -> Any:
            self.pause()
            entry = self.entry(name, PRODUCTS["forward"])
            entry.flops += flops
            entry.nbytes += nbytes
            entry.work += flops * itemsize // 4
            self.go()
            self.begin(name, PRODUCTS["forward"], entry)
            try:
                return forward(*args)
            finally:
                self.end()

        return run

    # ------------------------------------------------------------ layers

    def name_of(self, module: Any) -> str:
        """Return the dotted name of a module in the first model that was called, and "" for that model itself."""
        name = self._names.get(id(module))
        if name is None:
            for label, root in self._roots:  # it may have been put in later
                self._scan(root, label)
            name = self._names.get(id(module))
        return self.add(module) if name is None else name

    def add(self, model: Any) -> str:
        """Learn the names of a model's modules and parameters; return its own."""
        label = ""
        if self._roots:
            label = f"{type(model).__name__}#{len(self._roots) + 1}"
            label = f"{self.layer}.{label}" if self.layer else label
        self._roots.append((label, model))
        self._scan(model, label)
        return self._names[id(model)]

    def layers(self) -> list[str]:
        """Return all names, in the order of the models, then as they occurred."""
        return list(dict.fromkeys([*self._names.values(), *(layer for layer, _ in self.entries)]))

    def _scan(self, root: Any, label: str) -> None:
        for name, module in root.named_modules(label):
            self._names.setdefault(id(module), name)
            self._kept.append(module)
        for name, parameter in root.named_parameters():
            owner = ".".join(part for part in (label, name.rpartition(".")[0]) if part)
            self._owners.setdefault(id(parameter), owner)
            self._kept.append(parameter)

    def owner(self, parameter: Any) -> str:
        """Return the name of a parameter's layer, "" if unknown."""
        return self._owners.get(id(parameter), "")
