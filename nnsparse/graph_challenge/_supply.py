"""The layers of a network in prepared stacks, as often as they are wanted, and the time that this takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._stacks import Joined, joined
from .networks import Layer, Network


class Stopwatch:
    """Adds up seconds by what was done: "read", "prepare" and "inference"."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("read", "prepare", "inference"), 0.0)

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Add the seconds that a block takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += perf_counter() - start


class Stack(Protocol):
    """Prepared layers."""

    @property
    def n_layers(self) -> int:
        """How many they are."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""


S = TypeVar("S", bound=Stack)


class Supply(Generic[S]):
    """Reads layers, prepares them in stacks, and keeps the first stacks for later passes.

    Parameters
    ----------
    network : Network
    prepare : function
        `_stacks.quads` or `_stacks.by_input`.
    head : int
        Layers of the first stack; 0: as many as `size` says.
    size : int
        Bytes of layers as they were read from which on a stack is full.
    keep : int
        Bytes of prepared stacks, from the first layer on, that are kept; the first stack is kept in any case.

    Attributes
    ----------
    nnz : (n_layers,) int64
        Weights of each layer that has been read.
    largest : int
        Bytes of the largest stack so far, as read and prepared together.
    """

    def __init__(
        self,
        network: Network,
        watch: Stopwatch,
        prepare: Callable[[Joined], S],
        *,
        head: int,
        size: int,
        keep: int,
    ) -> None:
        self.network, self.watch, self.prepare = network, watch, prepare
        self.head, self.size, self.keep = head, size, keep
        self.nnz: NDArray[np.int64] = np.zeros(network.n_layers, np.int64)
        self.largest = 0
        self._kept: list[S] = []
        self._full = False
        self._layers: Iterator[Layer] = iter(())
        self._position = network.n_layers + 1  # beyond the end: the next reader begins anew

    @property
    def kept_bytes(self) -> int:
        """Bytes of the stacks that are kept."""
        return sum(stack.nbytes for stack in self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of the stacks that are kept, and of the largest one while it is made."""
        return self.kept_bytes + self.largest

    def first(self) -> S:
        """Return the first stack.

        Raises
        ------
        TypeError, ValueError
            As `stacks`.
        """
        return next(self.stacks())

    def stacks(self, skip: int = 0) -> Iterator[S]:
        """Yield all stacks but the first `skip`, which are 0 or have been had before.

        Raises
        ------
        TypeError, ValueError
            If a layer is wrong (see `_stacks.joined`), or the network has another number of layers than it says.
        """
        kept = list(self._kept)
        yield from kept[skip:]
        number = sum(stack.n_layers for stack in kept)
        while number < self.network.n_layers:
            stack = self._stack(number)
            self._full |= bool(self._kept) and self.kept_bytes + stack.nbytes > self.keep
            if not self._full:
                self._kept.append(stack)
            number += stack.n_layers
            yield stack

    def _stack(self, number: int) -> S:
        """Read and prepare the stack that begins with a layer."""
        layers: list[Layer] = []
        nbytes, last = 0, self.network.n_layers
        head = self.head if number == 0 else 0
        while number + len(layers) < last and (
            len(layers) < head if head else not layers or nbytes < self.size
        ):
            layers.append(self._read(number + len(layers)))
            nbytes += sum(array.nbytes for array in layers[-1])
        with self.watch.measure("prepare"):
            checked = joined(layers, self.network.n_neurons, number)
            self.nnz[number : number + len(layers)] = np.diff(checked.bases)
            stack = self.prepare(checked)
        self.largest = max(self.largest, 2 * nbytes + stack.nbytes)
        return stack

    def _read(self, number: int) -> Layer:
        """Return a layer; only those from the last one read on cost no new pass over the network."""
        with self.watch.measure("read"):
            if self._position > number:
                self._layers, self._position = iter(self.network), 0
            n_layers = self.network.n_layers
            while True:
                layer = next(self._layers, None)
                if layer is None:
                    raise ValueError(
                        f"the network says that it has {n_layers} layers; it ended after {self._position}."
                    )
                self._position += 1
                if self._position > number:
                    break
            if self._position == n_layers and next(self._layers, None) is not None:
                raise ValueError(f"the network says that it has {n_layers} layers; it has more.")
            return Layer(*layer)
