"""`CompiledModel`: a frozen network that is called with plain arrays."""

from __future__ import annotations

from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse import jit, tiles, trace
from nnsparse.inference.packing import Packed
from nnsparse.kernels import forward, forward_tiles, gemm
from nnsparse.rows import Rows

Array = NDArray[Any]

# Measured on 2 cores of Zen 4, nets from 784-300-100-10 to 4096³, 60 to 99.5 % sparse.
FEW = 4  # samples from which on a tile, most of it padding, beats one by one; 3 on all threads
LANES = 16, 32  # of a tile: the fewer, the smaller a tile in cache; 64 were 1.0-1.1x slower than 32
SPLIT = (
    2**18
)  # weights from which on all threads share one sample or tile: a pass of 100 µs becomes one of 60
PARALLEL = 2**20  # multiply-adds from which on tiles go to all threads: 100 µs for one thread


@final
class CompiledModel:
    """A frozen network, made by `compile` or `load`; its whole forward pass is one compiled call.

    It holds copies: training the model further changes nothing here. Several Python threads may call it at once.

    Attributes
    ----------
    sizes : tuple of int
        Features from input to output.
    dtype : float32 or float64
        Of the arithmetic and the output.
    storage : float16, float32 or float64
        Of the weights in memory and on disk.
    n_weights : int
        Stored weights, biases not counted.
    storage_error : float
        The largest change of a weight by its storage as float16, |stored − exact|; 0 without.
    """

    __slots__ = (
        "_arrays", "_dtype", "_packed", "_scratch", "n_in", "n_out", "n_weights", "sizes",
        "storage_error",
    )  # fmt: skip

    def __init__(self, packed: Packed, storage_error: float = 0.0) -> None:
        """Take checked arrays; users call `compile` or `load`."""
        self._packed = packed
        self._arrays = tuple(packed.arrays().values())
        self._dtype: np.dtype[Any] = packed.constants.dtype
        self.sizes = packed.sizes()
        self.n_in, self.n_out = self.sizes[0], self.sizes[-1]
        self.n_weights = packed.values.size
        self.storage_error = storage_error
        self._scratch = 2 * max(self.sizes)

    def predict(self, x: ArrayLike | Rows) -> Array:
        """Return the outputs, (batch, n_out), equal to the model's own `predict` but for rounding.

        The result for a sample does not depend on the others; how many there are shows in the last digits only.

        Parameters
        ----------
        x : (batch, n_in) array or `Rows`
            Integers and other floats are converted; what is C-contiguous and of the right dtype is not copied.

        Raises
        ------
        TypeError, ValueError
            If x is not a 2-D array of real numbers with `n_in` columns, or is empty.

        Notes
        -----
        Below 4 samples (3 in large networks) one after the other, else tiles of 16 or 32; on several threads where that
        pays.
        """
        if (
            type(x) is not np.ndarray
            or x.dtype is not self._dtype
            or x.ndim != 2
            or x.shape[1] != self.n_in
            or not x.flags.carray
        ):
            x = self._checked(x)
        batch = len(x)
        out = np.empty((batch, self.n_out), self._dtype)
        if batch >= FEW or self.n_weights >= SPLIT or not batch:
            self._many(x, out)
        else:
            run = forward.samples if trace.active is None else self._traced(forward.samples, batch)
            run(*self._arrays, x, np.empty(self._scratch, self._dtype), out)
        return out

    __call__ = predict

    def _many(self, x: Array, out: Array) -> None:
        """Write the outputs of more or larger samples than one thread should take one by one."""
        batch, threads = len(x), jit.get_num_threads()
        if not batch:
            raise ValueError(
                f"{self._name()}: expected at least one sample; got an empty batch of shape {x.shape}"
            )
        split = threads > 1 and self.n_weights >= SPLIT
        lanes = LANES[batch > LANES[0] * threads]
        width = gemm.width(lanes, self._dtype.itemsize)
        room = self._scratch * lanes
        if batch < FEW - split:
            kernel = forward.samples_split if split else forward.samples
            room = self._scratch
        elif split and batch <= lanes:
            kernel = forward_tiles.tiles_split(lanes, width)
        elif threads > 1 and batch > lanes and batch * self.n_weights >= PARALLEL:
            kernel = forward_tiles.tiles_parallel(lanes, width)
            room *= jit.MAX_THREADS
        else:
            kernel = forward_tiles.tiles_serial(lanes, width)
        run = kernel if trace.active is None else self._traced(kernel, batch)
        run(*self._arrays, x, tiles.empty((room,), self._dtype), out)

    def _traced(self, kernel: Any, batch: int) -> Any:
        """Return a kernel as `ns.profile` records it: its operations, and every array's bytes once."""
        itemsize = self._dtype.itemsize
        nbytes = self._packed.nbytes + batch * (self.n_in + self.n_out) * itemsize
        return trace.whole(self._name(), kernel, 2 * self.n_weights * batch, nbytes, itemsize)

    def _checked(self, x: ArrayLike | Rows) -> Array:
        """Return x as a C-contiguous, writeable array of our dtype, or say what is wrong with it."""
        rows = x if isinstance(x, Rows) else Rows(x)
        if rows.shape[1] != self.n_in:
            hint = " Features first? Pass x.T." if len(rows) == self.n_in else ""
            raise ValueError(
                f"{self._name()} expects x of shape (batch, {self.n_in}); got {rows.shape}.{hint}"
            )
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, as in NumPy
            return np.array(rows, dtype=self._dtype, order="C")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arithmetic and the output, float32 or float64."""
        return self._dtype

    @property
    def storage(self) -> np.dtype[Any]:
        """Dtype in which the weights are stored: `dtype` or float16."""
        return np.dtype(np.float16) if self._packed.half else self._dtype

    @property
    def nbytes(self) -> int:
        """Bytes of everything held: weights, indices, biases, program; scratch memory comes with each call."""
        return self._packed.nbytes

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file that `load` reads: arrays and a JSON manifest, no pickle.

        The file appears under its name complete or not at all, and replaces an older one.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        from nnsparse.inference.files import write

        write(path, self._packed, self.storage_error)

    def _name(self) -> str:
        sizes = self.sizes if len(self.sizes) < 10 else (*self.sizes[:4], "...", *self.sizes[-2:])
        return f"CompiledModel({' -> '.join(map(str, sizes))})"

    def __repr__(self) -> str:
        kept = "" if self.storage == self._dtype else f" stored as {self.storage}"
        return f"{self._name()[:-1]}, {self.n_weights:,} weights, {self._dtype}{kept}, {self.nbytes:,} bytes)"
