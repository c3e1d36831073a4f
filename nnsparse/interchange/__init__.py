"""Networks from and to other libraries: SciPy, torch, ONNX.

How it works: `arrays` reads what a weight may come as, `affine` makes one layer of it, `parts` puts a network together
once all is known to fit. `torch_modules` and `torch_state` say what parts a torch network has, `networks` is SciPy's
side; `torch_export` and `onnx_export` go the other way. Single layers: `nn.SparseLinear.from_scipy`, `.to_scipy`.
"""

from nnsparse.interchange.networks import from_scipy, to_scipy
from nnsparse.interchange.onnx_export import to_onnx
from nnsparse.interchange.torch_export import to_torch
from nnsparse.interchange.torch_import import from_torch

__all__ = ["from_scipy", "from_torch", "to_onnx", "to_scipy", "to_torch"]
