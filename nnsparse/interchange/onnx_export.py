"""`to_onnx`: a trained network as an ONNX file, for onnxruntime and whatever else reads that."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnsparse.atomic import replaced
from nnsparse.inference.layers import Layer, layers_of
from nnsparse.interchange.onnx_tokens import add_tokens, split
from nnsparse.interchange.onnx_weights import PREFIX, Graph, Nonzeros
from nnsparse.kernels.forward import GELU, IDENTITY, LEAKY, RELU, SIGMOID, TANH
from nnsparse.nn.module import Module

OPSET, IR_VERSION = 17, 8  # of 2022: all that is needed is in it, and older runtimes read it
LARGEST = 2**31 - 2**20  # bytes of constants; protobuf takes 2 GiB in all


def to_onnx(
    model: Module,
    path: str | os.PathLike[str],
    *,
    compact: bool = True,
    input_name: str = "x",
    output_name: str = "y",
) -> None:
    """Write a network, as in evaluation mode, to an ONNX file.

    Parameters
    ----------
    model : Sequential (nested too) or one layer
        What `ns.compile` takes, and at the beginning an Embedding or EmbeddingBag: of integer tokens then. Dropout is
        left out, BatchNorm1d is folded into an affine layer before it, else a product and a sum.
    path : path of the file
        Written under another name in that folder first, and then renamed.
    compact : bool
        Whether a weight matrix is stored as its nonzeros, with one or two bytes for the place of each, where that is
        smaller than all of it. False stores every matrix whole, for readers that know few operators.
    input_name, output_name : str
        Of the input (batch, n_in), in the model's dtype, or (batch, length) int64 tokens; of the output (batch, n_out).
        The number of samples is free.

    Raises
    ------
    ImportError
        If onnx is not installed: pip install 'nnsparse[onnx]'.
    TypeError
        If `model` is no module, a layer is of another class, dtypes differ, or a name is no string.
    ValueError
        If the sizes do not fit, a name is empty, used twice or begins with "nnsparse/", or there are 2 GiB of weights.
    OSError
        If the file cannot be written.

    Notes
    -----
    The file passes `onnx.checker` with full check (opset 17). Its metadata have "nnsparse.sparsity" (of all affine
    weights), "nnsparse.nonzeros" and "nnsparse.layers" (JSON: shape and nonzeros of each). A runtime multiplies with
    dense matrices: onnxruntime unpacks them when it loads the file, which takes n_out · n_in numbers of memory. It
    has no kernel for GELU in float64.

    Examples
    --------
    >>> from nnsparse import nn
    >>> to_onnx(nn.mlp([784, 300, 10], sparsity=0.95, rng=0), "model.onnx")  # doctest: +SKIP
    """
    if not isinstance(model, Module):
        raise TypeError(f"to_onnx expects a Module; got {type(model).__name__}")
    _check_names(input_name, output_name)
    try:
        import onnx
    except ImportError as error:
        raise ImportError("to_onnx needs onnx: pip install 'nnsparse[onnx]'") from error
    content = _content(onnx, model, compact, input_name, output_name)
    with replaced(path) as file:
        file.write(content)


def _content(onnx: Any, model: Module, compact: bool, input_name: str, output_name: str) -> bytes:
    """Return the file."""
    front, rest = split(model)
    layers, dtype = layers_of(rest, "to_onnx")
    matrices = [None if layer.kind == "scale" else Nonzeros.of(layer) for layer in layers]
    _check_size(front, layers, matrices, compact)
    graph = Graph(onnx)
    x = add_tokens(graph, front, input_name, layers[0].n_in, dtype) if front else input_name
    for i, (layer, matrix) in enumerate(zip(layers, matrices, strict=True)):
        end = output_name if i == len(layers) - 1 else f"{PREFIX}{i}/output"
        x = _layer(graph, f"{PREFIX}{i}", layer, matrix, x, end, compact)
    make = onnx.helper
    kind = make.np_dtype_to_tensor_dtype(dtype)
    enter: tuple[Any, list[Any]] = (kind, ["batch", layers[0].n_in])
    if front:
        enter = (onnx.TensorProto.INT64, ["batch", "length"])
    begin = make.make_tensor_value_info(input_name, *enter)
    out = make.make_tensor_value_info(output_name, kind, ["batch", layers[-1].n_out])
    body = make.make_graph(graph.nodes, "nnsparse", [begin], [out], initializer=graph.constants)
    proto = make.make_model(
        body,
        opset_imports=[make.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nnsparse",
    )
    make.set_model_props(proto, _metadata([m for m in matrices if m is not None]))
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


def _check_names(*names: str) -> None:
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"to_onnx expects names as strings; got {name!r}")
        if not name or name.startswith(PREFIX) or names.count(name) > 1:
            raise ValueError(
                f"to_onnx expects two different names, not empty, without {PREFIX!r} in front; "
                f"got {names[0]!r} and {names[1]!r}"
            )


def _check_size(
    front: Sequence[Module],
    layers: Sequence[Layer],
    matrices: Sequence[Nonzeros | None],
    compact: bool,
) -> None:
    """Refuse what protobuf cannot hold, before a matrix is unpacked."""
    total = sum(p.data.nbytes for module in front for p in module.parameters())
    total += sum(layer.bias.nbytes for layer in layers)
    for m in matrices:
        if m is not None:
            total += min(m.dense_bytes, m.packed_bytes) if compact else m.dense_bytes
    if total > LARGEST:
        hint = "Remove weights." if compact else "Pass compact=True."
        raise ValueError(
            f"to_onnx: {total:,} bytes of weights, but an ONNX file holds 2 GiB. {hint}"
        )


def _layer(
    graph: Graph,
    name: str,
    layer: Layer,
    matrix: Nonzeros | None,
    x: str,
    end: str,
    compact: bool,
) -> str:
    """Add one layer that writes `end`; return that."""
    affine_end = end if layer.activation == IDENTITY else f"{name}/sums"
    bias = graph.constant(f"{name}/bias", layer.bias)
    if matrix is None:
        scale = graph.constant(f"{name}/scale", layer.weights)
        scaled = graph.node("Mul", [x, scale], f"{name}/scaled")
        x = graph.node("Add", [scaled, bias], affine_end)
    else:
        weight = matrix.add_to(graph, f"{name}/weight", compact)
        x = graph.node("Gemm", [x, weight, bias], affine_end, {"transB": 1})
    return x if layer.activation == IDENTITY else _activation(graph, name, layer, x, end)


def _activation(graph: Graph, name: str, layer: Layer, x: str, end: str) -> str:
    dtype = layer.bias.dtype
    simple = {RELU: "Relu", TANH: "Tanh", SIGMOID: "Sigmoid"}
    if layer.activation in simple:
        return graph.node(simple[layer.activation], [x], end)
    if layer.activation == LEAKY and dtype == np.float32:
        return graph.node("LeakyRelu", [x], end, {"alpha": layer.slope})
    if layer.activation == LEAKY:  # LeakyRelu's own slope is a float32
        slope = graph.constant(f"{name}/slope", np.array(layer.slope, dtype))
        zero = graph.constant(f"{name}/zero", np.array(0, dtype))
        left = graph.node("Mul", [x, slope], f"{name}/left")
        is_left = graph.node("Less", [x, zero], f"{name}/is_left")
        return graph.node("Where", [is_left, left, x], end)
    assert layer.activation == GELU
    root = graph.constant(f"{name}/root", np.array(math.sqrt(0.5), dtype))
    scaled = graph.node("Mul", [x, root], f"{name}/scaled_sums")
    erf = graph.node("Erf", [scaled], f"{name}/erf")
    half, one = (graph.constant(f"{name}/{v}", np.array(v, dtype)) for v in (0.5, 1))
    twice = graph.node("Add", [erf, one], f"{name}/twice")
    normal = graph.node("Mul", [twice, half], f"{name}/normal")
    return graph.node("Mul", [x, normal], end)


def _metadata(matrices: Sequence[Nonzeros]) -> dict[str, str]:
    nonzeros = sum(m.values.size for m in matrices)
    size = sum(m.shape[0] * m.shape[1] for m in matrices)
    layers = [{"shape": list(m.shape), "nonzeros": m.values.size} for m in matrices]
    return {
        "nnsparse.sparsity": f"{1 - nonzeros / max(size, 1):.6g}",
        "nnsparse.nonzeros": str(nonzeros),
        "nnsparse.layers": json.dumps(layers),
    }
