"""nnsparse trains neural networks whose weights are sparse in storage and in arithmetic, on a CPU, without torch.

>>> import nnsparse as ns
>>> from nnsparse import nn, optim
>>> model = nn.mlp([784, 300, 100, 10], sparsity=0.95, rng=0)
>>> optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
"""

from nnsparse import (
    data,
    datasets,
    inference,
    interchange,
    kernels,
    nn,
    optim,
    schedule,
    sparsify,
    train,
)
from nnsparse.autograd import Tensor, grad, no_grad, tensor
from nnsparse.gradcheck import check_gradients
from nnsparse.inference import compile
from nnsparse.interchange import from_torch, to_onnx, to_torch
from nnsparse.jit import get_num_threads, set_num_threads
from nnsparse.jvp import jvp
from nnsparse.memory import memory_report
from nnsparse.parameter import Parameter, SparseParameter
from nnsparse.profiling import profile
from nnsparse.topology import Topology
from nnsparse.train.snapshot import load, save
from nnsparse.tuning import autotune

__version__ = "0.1.0"

__all__ = [
    "Parameter",
    "SparseParameter",
    "Tensor",
    "Topology",
    "autotune",
    "check_gradients",
    "compile",
    "data",
    "datasets",
    "from_torch",
    "get_num_threads",
    "grad",
    "inference",
    "interchange",
    "jvp",
    "kernels",
    "load",
    "memory_report",
    "nn",
    "no_grad",
    "optim",
    "profile",
    "save",
    "schedule",
    "set_num_threads",
    "sparsify",
    "tensor",
    "to_onnx",
    "to_torch",
    "train",
]
