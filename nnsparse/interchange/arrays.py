"""What a weight may come as: NumPy arrays, SciPy matrices and torch tensors, dense or sparse, as arrays of ours.

Nothing here imports torch: where it has not been imported already, nothing can be a tensor.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnsparse.topology import check_scipy

Array = NDArray[Any]

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def loaded_torch() -> Any:
    """Return the module torch if the program has imported it, else None."""
    return sys.modules.get("torch")


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor."""
    torch = loaded_torch()
    return torch is not None and isinstance(value, torch.Tensor)


def as_floats(where: str, value: Any) -> Array | sparse.csr_matrix[Any]:
    """Return an array or tensor of floating-point numbers as float32 or float64, sparse ones as CSR.

    float16, bfloat16 and torch's other small types become float32, which holds each of their numbers exactly. What is
    returned may share memory with `value`.

    Parameters
    ----------
    where : str
        For messages: the name of the value.
    value : array, SciPy sparse matrix or torch tensor (also sparse CSR, CSC, BSR and COO)

    Raises
    ------
    TypeError
        If it does not hold floating-point numbers.
    ValueError
        If it is a tensor without data.
    """
    if is_tensor(value):
        value = _from_tensor(where, value)
    if sparse.issparse(value):
        matrix: Any = value
        check_scipy(matrix)
        csr: sparse.csr_matrix[Any] = sparse.csr_matrix(matrix)
        csr.data = _as_floats(where, csr.data)
        return csr
    return _as_floats(where, np.asarray(value))


def as_dense(where: str, value: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Return a dense array as `as_floats` does; refuse a sparse one, or one of another shape."""
    array = as_floats(where, value)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{where}: expected a dense array; got a sparse one. Pass its to_dense().")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{where}: expected shape {shape}; got {array.shape}")
    return array


def as_mask(where: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return a mask of this shape, of any real numbers or bool, as floating-point numbers."""
    if is_tensor(value):
        value = value if value.is_floating_point() else value.float()
    elif not sparse.issparse(value):
        array = np.asarray(value)
        value = array.astype(np.float32) if array.dtype.kind in "biu" else array
    return as_dense(f"mask of {where}", value, shape)


def masked(values: Array, mask: Array) -> Array:
    """Return values · mask in the dtype of `values`: zero where the mask is, whatever the value is there."""
    out = np.zeros_like(values)
    np.multiply(values, mask, out=out, where=mask != 0, casting="same_kind")
    return out


def _as_floats(where: str, array: Array) -> Array:
    name = array.dtype.name
    if name not in _FLOATS:
        raise TypeError(
            f"{where}: expected floating-point numbers ({', '.join(_FLOATS)}); got {name}. "
            "Quantized? Dequantize first."
        )
    kind = np.float64 if name == "float64" else np.float32
    return array.astype(kind, copy=False)


def _from_tensor(where: str, tensor: Any) -> Array | sparse.csr_matrix[Any]:
    """Return a torch tensor as a NumPy array or a SciPy matrix."""
    torch = loaded_torch()
    if tensor.is_meta:
        raise ValueError(
            f"{where}: a tensor on the meta device has no numbers. Load the weights first."
        )
    if tensor.is_quantized:
        raise TypeError(f"{where}: got a quantized tensor. Pass its dequantize().")
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    tensor = tensor.cpu()
    if tensor.layout == torch.strided:
        dense: Array = tensor.numpy()
        return dense
    if tensor.layout == torch.sparse_csr:
        parts = tensor.values(), tensor.col_indices(), tensor.crow_indices()
        return sparse.csr_matrix(tuple(p.numpy() for p in parts), tuple(tensor.shape))
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        tensor = tensor.to_sparse_coo()
    coo = tensor.coalesce()
    rows, columns = coo.indices().numpy()
    return sparse.coo_matrix((coo.values().numpy(), (rows, columns)), tuple(tensor.shape)).tocsr()
