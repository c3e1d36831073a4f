"""The three products of training in plain CSR, CSC and COO: what the documents describe.

Arrays as SciPy keeps them, activations as plain (features, batch) arrays, batch innermost. These
are the naive twins that the tiled kernels (`spmm`, `sddmm`) are measured against, not a fast path.
Public functions check, compiled loops compute; the loops come first.

With W of shape (n_out, n_in): forward O = W X, input gradient dX = W^T dO, and the weight gradient
at the nonzeros only, dW[k] = sum over b of dO[row k, b] X[column k, b]. The CSC arrays of W are the
CSR arrays of W^T, so gather, scatter and inner products serve both.

Every public function takes float32 or float64 throughout and indices of any integer dtype, in any
order; duplicates count twice. It raises TypeError for a wrong dtype, ValueError for a wrong shape,
inconsistent pointers, an index out of range, or an `out` that is read-only, not C-contiguous or
overlaps an input. `out` is allocated if None and always written in full. Strided inputs are copied.
Cost: O(nnz * batch); the same bits on any number of threads.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import prange
from numpy.typing import NDArray

from nnsparse import jit

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, int]

# Samples per task where rows collide and only the batch can be split: four cache lines of float32.
_BLOCK = 64


@jit.inline
def _axpy(w: Any, x: Any, out: Any) -> Any:
    """Add w x to out, both (batch,)."""
    for b in range(out.size):
        out[b] += w * x[b]


@jit.inline
def _dot(x: Any, y: Any) -> Any:
    """Return x . y, both (batch,), in four partial sums: 2.6x one sum, which waits for itself."""
    t = u = v = w = x.dtype.type(0)
    for q in range(x.size // 4):
        b = 4 * q
        t += x[b] * y[b]
        u += x[b + 1] * y[b + 1]
        v += x[b + 2] * y[b + 2]
        w += x[b + 3] * y[b + 3]
    for b in range(x.size // 4 * 4, x.size):
        t += x[b] * y[b]
    return (t + u) + (v + w)


@jit.parallel
def _gather(indptr: Any, indices: Any, data: Any, x: Any, out: Any) -> None:
    """out[i] = sum over the run of i of data[k] x[indices[k]]; a task owns rows of out."""
    for i in prange(out.shape[0]):
        own = out[i]
        own[:] = 0
        for k in range(indptr[i], indptr[i + 1]):
            _axpy(data[k], x[indices[k]], own)


@jit.parallel
def _scatter(indptr: Any, indices: Any, data: Any, x: Any, out: Any) -> None:
    """out[indices[k]] += data[k] x[i] for the run of each i; a task owns blocks of samples."""
    batch = out.shape[1]
    for block in prange((batch + _BLOCK - 1) // _BLOCK):
        first, last = block * _BLOCK, min((block + 1) * _BLOCK, batch)
        out[:, first:last] = 0
        for i in range(indptr.size - 1):
            for k in range(indptr[i], indptr[i + 1]):
                _axpy(data[k], x[i, first:last], out[indices[k], first:last])


@jit.parallel
def _scatter_coo(target: Any, source: Any, data: Any, x: Any, out: Any) -> None:
    """out[target[k]] += data[k] x[source[k]]; a task owns blocks of samples."""
    batch = out.shape[1]
    for block in prange((batch + _BLOCK - 1) // _BLOCK):
        first, last = block * _BLOCK, min((block + 1) * _BLOCK, batch)
        out[:, first:last] = 0
        for k in range(data.size):
            _axpy(data[k], x[source[k], first:last], out[target[k], first:last])


@jit.parallel
def _inner(indptr: Any, indices: Any, x: Any, y: Any, out: Any) -> None:
    """out[k] = x[i] . y[indices[k]] for the run of each i; a task owns runs."""
    for i in prange(indptr.size - 1):
        for k in range(indptr[i], indptr[i + 1]):
            out[k] = _dot(x[i], y[indices[k]])


@jit.parallel
def _inner_coo(rows: Any, cols: Any, dout: Any, x: Any, out: Any) -> None:
    """out[k] = dout[rows[k]] . x[cols[k]]; a task owns nonzeros."""
    for k in prange(out.size):
        out[k] = _dot(dout[rows[k]], x[cols[k]])


def csr_forward(
    shape: Shape, indptr: Array, indices: Array, data: Array, x: Array, out: Array | None = None
) -> Array:
    """Return O = W X.

    Parameters
    ----------
    shape : (n_out, n_in)
        Of W.
    indptr, indices, data : (n_out + 1,), (nnz,) and (nnz,) arrays
        W in CSR: pointers, columns, values.
    x : (n_in, batch) array
        Features first.
    out : (n_out, batch) array, optional
        Where to write O.

    Returns
    -------
    (n_out, batch) array
        `out`.
    """
    n_out, n_in = _check_shape(shape)
    layout = _compressed(indptr, indices, n_out, n_in)
    return _product(_gather, layout, data, _activations("x", x, n_in), n_out, out)


def csr_input_gradient(
    shape: Shape, indptr: Array, indices: Array, data: Array, dout: Array, out: Array | None = None
) -> Array:
    """Return dX = W^T dO: W as in `csr_forward`, `dout` (n_out, batch), `out` (n_in, batch)."""
    n_out, n_in = _check_shape(shape)
    layout = _compressed(indptr, indices, n_out, n_in)
    return _product(_scatter, layout, data, _activations("dout", dout, n_out), n_in, out)


def csr_weight_gradient(
    shape: Shape, indptr: Array, indices: Array, dout: Array, x: Array, out: Array | None = None
) -> Array:
    """Return dW at the nonzeros: `dout` (n_out, batch), `x` (n_in, batch), `out` (nnz,)."""
    n_out, n_in = _check_shape(shape)
    layout = _compressed(indptr, indices, n_out, n_in)
    dout, x = _pair(dout, x, n_out, n_in)
    return _run(_inner, (*layout, dout, x), layout[1].shape, out)


def csc_forward(
    shape: Shape, indptr: Array, indices: Array, data: Array, x: Array, out: Array | None = None
) -> Array:
    """Return O = W X as `csr_forward`, with `indptr` (n_in + 1,) and the rows of the nonzeros."""
    n_out, n_in = _check_shape(shape)
    layout = _compressed(indptr, indices, n_in, n_out)
    return _product(_scatter, layout, data, _activations("x", x, n_in), n_out, out)


def csc_input_gradient(
    shape: Shape, indptr: Array, indices: Array, data: Array, dout: Array, out: Array | None = None
) -> Array:
    """Return dX = W^T dO: W as in `csc_forward`, `dout` (n_out, batch), `out` (n_in, batch)."""
    n_out, n_in = _check_shape(shape)
    layout = _compressed(indptr, indices, n_in, n_out)
    return _product(_gather, layout, data, _activations("dout", dout, n_out), n_in, out)


def csc_weight_gradient(
    shape: Shape, indptr: Array, indices: Array, dout: Array, x: Array, out: Array | None = None
) -> Array:
    """Return dW in CSC order: `dout` (n_out, batch), `x` (n_in, batch), `out` (nnz,)."""
    n_out, n_in = _check_shape(shape)
    layout = _compressed(indptr, indices, n_in, n_out)
    dout, x = _pair(dout, x, n_out, n_in)
    return _run(_inner, (*layout, x, dout), layout[1].shape, out)


def coo_forward(
    shape: Shape, rows: Array, cols: Array, data: Array, x: Array, out: Array | None = None
) -> Array:
    """Return O = W X: `rows`, `cols`, `data` (nnz,), `x` (n_in, batch), `out` (n_out, batch)."""
    n_out, n_in = _check_shape(shape)
    layout = _coordinates(rows, cols, n_out, n_in)
    return _product(_scatter_coo, layout, data, _activations("x", x, n_in), n_out, out)


def coo_input_gradient(
    shape: Shape, rows: Array, cols: Array, data: Array, dout: Array, out: Array | None = None
) -> Array:
    """Return dX = W^T dO: W as in `coo_forward`, `dout` (n_out, batch), `out` (n_in, batch)."""
    n_out, n_in = _check_shape(shape)
    layout = _coordinates(rows, cols, n_out, n_in)[::-1]
    return _product(_scatter_coo, layout, data, _activations("dout", dout, n_out), n_in, out)


def coo_weight_gradient(
    shape: Shape, rows: Array, cols: Array, dout: Array, x: Array, out: Array | None = None
) -> Array:
    """Return dW at the nonzeros: `dout` (n_out, batch), `x` (n_in, batch), `out` (nnz,)."""
    n_out, n_in = _check_shape(shape)
    layout = _coordinates(rows, cols, n_out, n_in)
    dout, x = _pair(dout, x, n_out, n_in)
    return _run(_inner_coo, (*layout, dout, x), layout[0].shape, out)


def _product(
    kernel: Any, layout: tuple[Array, Array], data: Array, x: Array, n: int, out: Array | None
) -> Array:
    """Check the values against the checked layout and activations, and write (n, batch)."""
    data = np.ascontiguousarray(data)
    if data.dtype != x.dtype:
        raise TypeError(f"expected data of dtype {x.dtype}; got {data.dtype}. Convert one of them.")
    if data.shape != layout[1].shape:
        raise ValueError(f"expected data of shape {layout[1].shape}; got {data.shape}.")
    return _run(kernel, (*layout, data, x), (n, x.shape[1]), out)


def _run(
    kernel: Any, inputs: tuple[Array, ...], shape: tuple[int, ...], out: Array | None
) -> Array:
    """Check or allocate `out` of `shape` and the activations' dtype, and call the kernel."""
    dtype = inputs[-1].dtype
    if out is None:
        out = np.empty(shape, dtype)
    elif not isinstance(out, np.ndarray) or out.dtype != dtype:
        got = getattr(out, "dtype", type(out).__name__)
        raise TypeError(f"expected out of dtype {dtype}; got {got}. Pass np.empty of that dtype.")
    elif out.shape != shape or not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(
            f"expected out writeable, C-contiguous, of shape {shape}; got shape {out.shape}, "
            f"strides {out.strides}, writeable={out.flags.writeable}. Pass np.empty{shape}."
        )
    elif any(np.may_share_memory(out, array) for array in inputs):
        raise ValueError("expected out apart from the inputs; got overlapping memory. Copy one.")
    kernel(*inputs, out)
    return out


def _check_shape(shape: Shape) -> Shape:
    if len(shape) != 2 or not all(isinstance(n, int | np.integer) and n >= 0 for n in shape):
        raise ValueError(f"expected shape (n_out, n_in) of two integers >= 0; got {shape!r}.")
    return int(shape[0]), int(shape[1])


def _indices(name: str, array: Array, limit: int) -> Array:
    """Return a contiguous (nnz,) int32 or int64 array with all entries in 0 .. limit - 1."""
    array = np.ascontiguousarray(array)
    if array.ndim != 1:
        raise ValueError(f"expected {name} of shape (nnz,); got {array.shape}. Flatten it.")
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"expected {name} of an integer dtype; got {array.dtype}. Pass {name}.astype(np.int64)."
        )
    if array.size and (array.min() < 0 or array.max() >= limit):
        raise ValueError(
            f"expected {name} from 0 to {limit - 1}; got {array.min()} to {array.max()}. "
            "Counted from one? Subtract 1. Transposed? shape is (n_out, n_in)."
        )
    return array if array.dtype in (np.int32, np.int64) else array.astype(np.int64)


def _compressed(indptr: Array, indices: Array, n_runs: int, limit: int) -> tuple[Array, Array]:
    indices = _indices("indices", indices, limit)
    indptr = _indices("indptr", indptr, indices.size + 1)
    if indptr.size != n_runs + 1 or indptr[0] != 0 or indptr[-1] != indices.size:
        raise ValueError(
            f"expected indptr of length {n_runs + 1} from 0 to nnz = {indices.size}; got length "
            f"{indptr.size}. CSR has one pointer per row of W, CSC one per column."
        )
    if np.any(indptr[1:] < indptr[:-1]):
        raise ValueError("expected indptr never to fall; got a falling one. Counts? Use np.cumsum.")
    return indptr, indices


def _coordinates(rows: Array, cols: Array, n_out: int, n_in: int) -> tuple[Array, Array]:
    rows, cols = _indices("rows", rows, n_out), _indices("cols", cols, n_in)
    if rows.size != cols.size:
        raise ValueError(f"expected rows and cols of one length; got {rows.size} and {cols.size}.")
    return rows, cols


def _activations(name: str, array: Array, n: int) -> Array:
    array = np.asarray(array)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"expected {name} float32 or float64; got {array.dtype}. Pass .astype.")
    if array.ndim != 2 or array.shape[0] != n:
        raise ValueError(
            f"expected {name} of shape ({n}, batch); got {array.shape}. Samples first? Pass .T."
        )
    return np.ascontiguousarray(array)


def _pair(dout: Array, x: Array, n_out: int, n_in: int) -> tuple[Array, Array]:
    dout, x = _activations("dout", dout, n_out), _activations("x", x, n_in)
    if dout.dtype != x.dtype:
        raise TypeError(f"expected one dtype; got dout {dout.dtype}, x {x.dtype}. Convert one.")
    if dout.shape[1] != x.shape[1]:
        raise ValueError(f"expected one batch; got dout {dout.shape} and x {x.shape}.")
    return dout, x
