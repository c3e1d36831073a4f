"""Compiled loops. Public here: the plain CSR, CSC and COO products over SciPy's arrays.

They are what the literature describes, the twins that tests compare with, and the rivals that show what tiling buys.
The fast kernels (`spmm`, `sddmm`, `gemm`, ...) work on tiles and plans, check nothing, and are reached through
`nnsparse.ops`.
"""

from nnsparse.kernels.plain import (
    coo_forward,
    coo_input_gradient,
    coo_weight_gradient,
    csc_forward,
    csc_input_gradient,
    csc_weight_gradient,
    csr_forward,
    csr_input_gradient,
    csr_weight_gradient,
)

__all__ = [
    "coo_forward",
    "coo_input_gradient",
    "coo_weight_gradient",
    "csc_forward",
    "csc_input_gradient",
    "csc_weight_gradient",
    "csr_forward",
    "csr_input_gradient",
    "csr_weight_gradient",
]
