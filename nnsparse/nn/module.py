"""`Module`: parameters, modes, state, and the border where user arrays become tiles."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse import tiles, trace
from nnsparse.autograd import Tensor, no_grad
from nnsparse.nn._checks import check_parameter
from nnsparse.nn._state import check_state, entries_of
from nnsparse.ops.layout import from_tiles, tile, to_tiles
from nnsparse.ops.sparse_batch import Entered, to_csr
from nnsparse.parameter import Parameter
from nnsparse.rows import AnyRows, Rows, SparseRows, rows_of

Array = NDArray[Any]

_PREDICTING = 2**28  # bytes of the widest layer's activations, at most


class _Inference(threading.local):
    active = False


_inference = _Inference()


@contextmanager
def _inferring() -> Iterator[None]:
    """Make every module act as in evaluation mode, in this Python thread only."""
    before = _inference.active
    _inference.active = True
    try:
        with no_grad():
            yield
    finally:
        _inference.active = before


class Module(ABC):
    """A layer or a network: attributes that are parameters, modules or named buffers, and a `forward`.

    A subclass calls `super().__init__()`, sets `Parameter` and `Module` attributes, lists arrays that belong to its
    state in `_buffers`, and defines `forward`, which sees tiled activations only.
    """

    _buffers: ClassVar[tuple[str, ...]] = ()
    # Whether the layer multiplies on tiles (True), with BLAS on the whole batch (False), or does not care (None).
    _tiled: ClassVar[bool | None] = None
    # Whether a user's array holds integer tokens for this layer, which `_rows` and `_entered` take as they are.
    _takes_tokens: ClassVar[bool] = False
    # Features of the output, where a layer has a number of its own; 0: as many as come in, or it does not matter.
    _n_out: int = 0

    def __init__(self) -> None:
        self._training = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the output for a tiled activation of logical shape (batch, n_in)."""

    def __call__(self, x: Any) -> Tensor:
        """Return the output for a mini-batch.

        Parameters
        ----------
        x : (batch, n_in) array, scipy.sparse matrix, `Rows`, `SparseRows` or Tensor
            Arrays are converted once to the model's dtype (integers and float64 too) and laid out in tiles. Sparse
            rows stay sparse: the first layer has to be an affine one or `EmbeddingBag`. Where it is an embedding, what
            that takes.

        Raises
        ------
        ValueError
            If x is empty, not 2-D, or has the wrong number of features.
        TypeError
            If x does not hold real numbers, or is sparse and the first layer cannot take that.
        """
        forward = self.forward if trace.active is None else trace.layer(self)
        if not isinstance(x, Tensor) or x.batch is None:
            return forward(self._enter(x))
        if isinstance(x, Entered):
            return forward(x)
        shape = x.data.shape
        if len(shape) != 3 or not 0 < x.batch <= shape[0] * shape[2]:
            raise ValueError(
                f"{type(self).__name__}: a tiled tensor holds (n_tiles, n_features, lanes) and a "
                f"batch from 1 to n_tiles * lanes; got {shape} and batch {x.batch}"
            )
        return forward(x)

    def _first(self) -> Module:
        """Return the layer that sees first what enters: it decides what that may be."""
        return self

    def _rows(self, x: Any) -> AnyRows:
        """Return a user's mini-batch or data set as rows, checked but not yet copied."""
        return rows_of(x.data if isinstance(x, Tensor) else x)

    def _entered(self, rows: AnyRows, lanes: int, dtype: np.dtype[Any]) -> Tensor:
        """Return rows that are not to be laid out in tiles as the first layer takes them."""
        assert isinstance(rows, SparseRows)
        return to_csr(rows, lanes, dtype)

    def _enter(self, x: Any) -> Tensor:
        first = self._first()
        rows = x if isinstance(x, Rows) and not first._takes_tokens else first._rows(x)
        batch = len(rows)
        if batch == 0:
            raise ValueError(
                f"{type(self).__name__}: expected at least one sample; got an empty batch of shape {rows.shape}"
            )
        lanes = batch if self._whole_batch() else tiles.pick_lanes(batch)
        if isinstance(x, Tensor) and x.requires_grad:
            return tile(x, lanes)
        if not isinstance(rows, Rows) or first._takes_tokens:
            return trace.section("layout", first._entered)(rows, lanes, self.dtype)
        convert = to_tiles if trace.active is None else trace.section("layout", to_tiles)
        return Tensor(convert(rows, lanes, self.dtype), batch=batch)

    def _whole_batch(self) -> bool:
        """Whether all products are BLAS calls, so that the batch should be one tile."""
        blas = False
        for module in self.modules():
            if module._tiled:
                return False
            blas = blas or module._tiled is False
        return blas

    # ------------------------------------------------------------ structure

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the direct parts."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all parts, in order."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all parts, in order."""
        yield self
        for _, child in self.children():
            yield from child.modules()

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter), each parameter once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        for _, parameter in self.named_parameters():
            yield parameter

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the first parameter; float32 for a module without any."""
        for name, parameter in self.named_parameters():
            return check_parameter(name, parameter.data)
        return np.dtype(np.float32)

    # ------------------------------------------------------------ modes

    @property
    def training(self) -> bool:
        """Whether the module is in training mode; never inside `predict`."""
        return self._training and not _inference.active

    def train(self, mode: bool = True) -> Module:
        """Put this module and all parts into training (or evaluation) mode; return it."""
        for module in self.modules():
            module._training = mode
        return self

    def eval(self) -> Module:
        """Put this module and all parts into evaluation mode; return it."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget every parameter's gradient."""
        for parameter in self.parameters():
            parameter.zero_grad()

    # ------------------------------------------------------------ prediction

    def predict(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the outputs for many samples, (n, n_out), as in evaluation mode and without recording.

        Safe to call from several Python threads at once.

        Parameters
        ----------
        x : (n, n_in) array, scipy.sparse matrix, `Rows` or `SparseRows`
            Or what the first layer takes if that is an embedding.
        batch_size : int, optional
            Samples at a time; the result does not depend on it beyond rounding. Default: 1024, or as many fewer, down
            to 16, as keep the activations of the widest layer within 256 MB.

        Raises
        ------
        ValueError
            If x is empty or has the wrong shape, or batch_size is below 1.
        """
        rows = self._first()._rows(x)
        if batch_size is None:
            batch_size = self._batch_size(rows)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
            raise TypeError(f"predict expects an integer batch_size; got {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"predict expects batch_size >= 1; got {batch_size}")
        n = len(rows)
        with _inferring():
            first = self(rows.part(slice(batch_size)))
            out = np.empty((n, first.shape[1]), first.dtype)
            from_tiles(first.data, len(first), out[: len(first)])
            for start in range(len(first), n, batch_size):
                y = self(rows.part(slice(start, start + batch_size)))
                from_tiles(y.data, len(y), out[start : start + len(y)])
        return out

    def _batch_size(self, rows: AnyRows) -> int:
        """Return how many samples `predict` takes at a time, a multiple of 16."""
        widest = max([1, *(module._n_out for module in self.modules())])
        if isinstance(rows, Rows):  # laid out in tiles
            widest = max(widest, rows.shape[1])
        fitting = _PREDICTING // (widest * self.dtype.itemsize)
        return max(16, min(1024, fitting // 16 * 16))

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by dotted name.

        A sparse weight `w` gives `w` (values in canonical CSR order), `w.indptr` and `w.indices`.
        """
        return {name: np.array(entry.get()) for name, entry in entries_of(self).items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Take over the arrays of a `state_dict`, topologies included; checks everything before changing anything.

        Raises
        ------
        TypeError, KeyError
            If `state` is no mapping; if a name is missing or unknown.
        ValueError
            If an array has the wrong shape, or a topology is invalid.
        """
        for change in check_state(self, state):
            change()

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={child!r}" for name, child in self.children())
        return f"{type(self).__name__}({parts})"
