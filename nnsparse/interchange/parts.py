"""A network on its way in: parts that know their sizes and arrays, put together once all of them are known to fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.interchange.affine import Choice, Weight, affine
from nnsparse.nn.embedding import EmbeddingBag
from nnsparse.nn.module import Module
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.nn.sequence import Embedding
from nnsparse.nn.sequential import Sequential

Array = NDArray[Any]


@dataclass(frozen=True)
class Part:
    """One layer to be.

    Attributes
    ----------
    name : str
        What it is called where it comes from.
    build : function of a Choice and a dtype
        Makes the layer.
    dtype : dtype or None
        Of its arrays; None where it has none.
    n_in, n_out : int or None
        Features; None where it takes any number, or tokens.
    is_affine : bool
    """

    name: str
    build: Callable[[Choice, np.dtype[Any]], Module]
    dtype: np.dtype[Any] | None = None
    n_in: int | None = None
    n_out: int | None = None
    is_affine: bool = False


def plain_part(name: str, make: Callable[[], Module]) -> Part:
    """Return a layer without arrays."""
    return Part(name, lambda choice, dtype: make())


def affine_part(name: str, weight: Weight, bias: Array | None) -> Part:
    """Return a dense or sparse affine layer; weight (n_out, n_in), bias (n_out,)."""
    n_out, n_in = weight.shape
    dtype = np.result_type(weight.values.dtype, weight.values.dtype if bias is None else bias.dtype)
    return Part(
        name,
        lambda choice, dtype: affine(name, weight, bias, choice, dtype),
        dtype,
        n_in,
        n_out,
        is_affine=True,
    )


def normalization_part(
    name: str,
    statistics: tuple[Array, Array],
    scale_and_shift: tuple[Array, Array] | None,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> Part:
    """Return batch normalisation with these running means and variances, weights and biases, (n,) each."""
    n = statistics[0].size

    def build(choice: Choice, dtype: np.dtype[Any]) -> Module:
        layer = BatchNorm1d(n, eps, momentum, scale_and_shift is not None, dtype=dtype)
        layer.running_mean[...], layer.running_var[...] = statistics
        if scale_and_shift is not None and layer.weight is not None and layer.bias is not None:
            layer.weight.data[...], layer.bias.data[...] = scale_and_shift
        return layer

    return Part(name, build, statistics[0].dtype, n, n)


def table_part(name: str, table: Array, padding_idx: int | None, mode: str | None) -> Part:
    """Return an `EmbeddingBag` of this mode, or (None) an `Embedding`; table (num_embeddings, embedding_dim)."""
    n, width = table.shape

    def build(choice: Choice, dtype: np.dtype[Any]) -> Module:
        layer: Embedding | EmbeddingBag
        if mode is None:
            layer = Embedding(n, width, padding_idx, dtype=dtype, rng=0)
        else:
            layer = EmbeddingBag(n, width, mode, padding_idx, dtype=dtype, rng=0)
        layer.weight.data[...] = table
        return layer

    return Part(name, build, table.dtype, None, None if mode is None else width)


def assemble(parts: Sequence[Part], choice: Choice) -> Sequential:
    """Return the network of these parts, all in the widest dtype among theirs; a part that occurs twice is shared.

    Raises
    ------
    ValueError
        If there is no part with weights, sizes do not fit, or the choice names a layer that is not affine.
    """
    dtypes = [part.dtype for part in parts if part.dtype is not None]
    if not dtypes:
        raise ValueError("from_torch expects at least one layer with weights; got none")
    choice.check_names([part.name for part in parts if part.is_affine])
    before: Part | None = None
    for part in parts:
        if before is not None and part.n_in is not None and part.n_in != before.n_out:
            raise ValueError(
                f"from_torch: layer {part.name!r} takes {part.n_in} features, but layer "
                f"{before.name!r} before it gives {before.n_out}. Is this their order?"
            )
        before = part if part.n_out is not None else before
    dtype = np.result_type(*dtypes)
    built: dict[int, Module] = {}
    for part in parts:
        if id(part) not in built:
            built[id(part)] = part.build(choice, dtype)
    return Sequential(*(built[id(part)] for part in parts))
