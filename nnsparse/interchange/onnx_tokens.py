"""Embeddings at the beginning of an ONNX graph: integer tokens (batch, length) to features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnsparse.interchange.onnx_weights import PREFIX, Graph
from nnsparse.nn.dropout import Dropout
from nnsparse.nn.embedding import EmbeddingBag, Lookup
from nnsparse.nn.module import Module
from nnsparse.nn.sequence import GlobalAveragePooling1D
from nnsparse.nn.sequential import Sequential

_NAME = f"{PREFIX}embedding"


def _leaves(module: Module) -> Iterator[Module]:
    """Yield the layers of nested Sequentials, in order."""
    if not isinstance(module, Sequential):
        yield module
        return
    for layer in module:
        yield from _leaves(layer)


def split(model: Module) -> tuple[list[Module], Module]:
    """Return what turns tokens into features, and the network behind it."""
    layers = list(_leaves(model))
    if not layers or not isinstance(layers[0], Lookup):
        return [], model
    n = 2 if len(layers) > 1 and isinstance(layers[1], GlobalAveragePooling1D) else 1
    # Dropout without effect in their place keeps the numbers of layers in messages.
    return layers[:n], Sequential(*(Dropout(0.0) for _ in range(n)), *layers[n:])


def add_tokens(
    graph: Graph, front: Sequence[Module], x: str, n_in: int, dtype: np.dtype[Any]
) -> str:
    """Add an embedding, with its sum or mean, that gives n_in features of a dtype; return its output's name.

    Raises
    ------
    TypeError, ValueError
        If it has another dtype, or gives another number of features.
    """
    lookup = front[0]
    assert isinstance(lookup, Lookup)
    pooled = isinstance(lookup, EmbeddingBag) or len(front) > 1
    _check(lookup, pooled, n_in, dtype)
    table = lookup.weight.data.copy()
    if lookup.padding_idx is not None:
        table[lookup.padding_idx] = 0
    rows = graph.node("Gather", [graph.constant(f"{_NAME}/weight", table), x], f"{_NAME}/rows")
    if not pooled:
        flat = graph.constant(f"{_NAME}/shape", np.array([0, n_in], np.int64))
        return graph.node("Reshape", [rows, flat], f"{_NAME}/output")
    if isinstance(lookup, EmbeddingBag) and lookup.mode == "sum":
        return _summed(graph, rows, f"{_NAME}/output", keep=0)
    if lookup.padding_idx is None:
        return graph.node("ReduceMean", [rows], f"{_NAME}/output", {"axes": [1], "keepdims": 0})
    total = _summed(graph, rows, f"{_NAME}/sum", keep=0)
    count = _count(graph, x, lookup.padding_idx, dtype)
    return graph.node("Div", [total, count], f"{_NAME}/output")


def _check(lookup: Lookup, pooled: bool, n_in: int, dtype: np.dtype[Any]) -> None:
    if lookup.dtype != dtype:
        raise TypeError(
            f"to_onnx: {lookup!r} is {lookup.dtype}, the layers behind it {dtype}. "
            "Give all layers the same dtype."
        )
    width = lookup.embedding_dim
    if n_in != width if pooled else n_in % width:
        raise ValueError(
            f"to_onnx: {lookup!r} gives {'' if pooled else 'a multiple of '}{width} features; the layer behind it "
            f"takes {n_in}"
        )


def _summed(graph: Graph, array: str, output: str, keep: int) -> str:
    """Add the sum over the tokens."""
    axis = graph.constant(f"{output}/axis", np.array([1], np.int64))
    return graph.node("ReduceSum", [array, axis], output, {"keepdims": keep})


def _count(graph: Graph, x: str, padding: int, dtype: np.dtype[Any]) -> str:
    """Add the number of tokens that are not padding, at least 1, (batch, 1)."""
    absent = graph.constant(f"{_NAME}/padding", np.array(padding, np.int64))
    is_absent = graph.node("Equal", [x, absent], f"{_NAME}/is_padding")
    present = graph.node("Not", [is_absent], f"{_NAME}/is_token")
    kind = graph.onnx.helper.np_dtype_to_tensor_dtype(dtype)
    ones = graph.node("Cast", [present], f"{_NAME}/ones", {"to": kind})
    count = _summed(graph, ones, f"{_NAME}/count", keep=1)
    one = graph.constant(f"{_NAME}/one", np.array(1, dtype))
    return graph.node("Max", [count, one], f"{_NAME}/divisor")
