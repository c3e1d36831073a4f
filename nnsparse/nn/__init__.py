"""Layers, networks and loss functions, under the names that a PyTorch user would guess."""

from nnsparse.nn import init
from nnsparse.nn.activations import GELU, AllReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.embedding import EmbeddingBag
from nnsparse.nn.linear import Linear, NumpyLinear, SparseLinear
from nnsparse.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from nnsparse.nn.module import Module
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.nn.sequence import Embedding, GlobalAveragePooling1D
from nnsparse.nn.sequential import Sequential, mlp

__all__ = [
    "GELU",
    "AllReLU",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "GlobalAveragePooling1D",
    "LeakyReLU",
    "Linear",
    "MSELoss",
    "Module",
    "NumpyLinear",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "SparseLinear",
    "Tanh",
    "init",
    "mlp",
]
