"""The networks of `multicore`, and one forward pass of each as every rival computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnsparse as ns
from benchmarks._networks import dense_twin, torch_model
from benchmarks._plain import PlainLinear
from benchmarks._rivals import Rival
from nnsparse import nn

Array = NDArray[Any]
Predict = Callable[[Array], Array]  # (1, n_in) to (1, n_out)
SPARSITY = 0.995
NETS: Mapping[str, tuple[int, ...]] = {
    "3x2048": (128, *[2048] * 3, 1),
    "7x256": (128, *[256] * 7, 1),
    "24x128": (128, *[128] * 24, 1),
}


# ---------------------------------------------------------------- the networks


def network(sizes: Sequence[int], seed: object) -> nn.Sequential:
    """Return the pruned network, biases drawn from [0, 1), which keep every layer alive."""
    rng = np.random.default_rng(seed)  # type: ignore[arg-type]
    model = nn.mlp(sizes, sparsity=SPARSITY, distribution="uniform", rng=rng)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data[...] = rng.random(parameter.size, np.float32)
    return model


def elements(model: nn.Sequential) -> dict[str, int]:
    """Return the elements of the arrays that COO and CSR keep for the weights."""
    shapes = [layer.weight.topology for layer in model if isinstance(layer, nn.SparseLinear)]
    nnz = sum(topology.nnz for topology in shapes)
    return {"coo": 3 * nnz, "csr": 2 * nnz + sum(t.shape[0] + 1 for t in shapes)}


def reference(model: nn.Sequential, x: Array) -> Array:
    """Return the output for x (1, n_in), computed in float64."""
    h = x[0].astype(np.float64)
    affine = [layer for layer in model if isinstance(layer, nn.SparseLinear)]
    for layer in affine:
        assert layer.bias is not None
        h = layer.weight.to_dense().astype(np.float64) @ h + layer.bias.data
        if layer is not affine[-1]:
            h = np.maximum(h, 0)
    return h[None]


# ---------------------------------------------------------------- rivals


def _compiled(model: nn.Sequential) -> Predict:
    return ns.compile(model).predict


def _dense_compiled(model: nn.Sequential) -> Predict:
    return ns.compile(dense_twin(model, nn.Linear)).predict


def _plain(model: nn.Sequential, layout: str) -> Predict:
    layers = [
        PlainLinear(layer, layout) if isinstance(layer, nn.SparseLinear) else layer
        for layer in model
    ]
    return nn.Sequential(*layers).predict


def _numpy(model: nn.Sequential) -> Predict:
    """Return what one writes in NumPy: a product of a matrix and a vector per layer."""
    states = [
        layer.to_dense().state_dict() for layer in model if isinstance(layer, nn.SparseLinear)
    ]
    weights = [(state["weight"], state["bias"]) for state in states]

    def predict(x: Array) -> Array:
        h = x[0]
        for w, b in weights[:-1]:
            h = w @ h
            h += b
            np.maximum(h, 0, out=h)
        w, b = weights[-1]
        return (w @ h + b)[None]

    return predict


def _torch(model: nn.Sequential) -> Predict:
    torch = import_module("torch")
    twin = torch_model(model)

    def predict(x: Array) -> Array:
        with torch.inference_mode():
            y: Array = twin(torch.from_numpy(x)).numpy()
        return y

    return predict


RIVALS: Mapping[str, Rival] = {
    "nnsparse": Rival(_compiled, "`ns.compile(model).predict`: one compiled call a pass"),
    "predict": Rival(lambda model: model.predict, "`model.predict`, not compiled, layer by layer"),
    "numpy": Rival(_numpy, "dense, one BLAS matrix-vector product per layer"),
    "torch": Rival(_torch, "dense, `nn.Sequential` in inference mode", "torch"),
    "dense": Rival(
        _dense_compiled, "dense full forward: `ns.compile` of the network with `nn.Linear`"
    ),
    **{
        name: Rival(
            partial(_plain, layout=name), f"plain loops over {name.upper()}, layer by layer"
        )
        for name in ("csr", "coo")
    },
}
