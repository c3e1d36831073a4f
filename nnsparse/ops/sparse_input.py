"""Weights times a mini-batch of sparse rows, differentiable by the weights: `spmm_csr` and `sddmm_csr`.

Each is the other's derivative. The mini-batch itself has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from nnsparse import trace
from nnsparse.autograd import Tensor, record, recording
from nnsparse.ops.pointwise import relu_gate, spread, sum_samples
from nnsparse.ops.sparse_batch import SparseBatch
from nnsparse.ops.sparse_products import Table, known_column_view
from nnsparse.ops.structures import Sparse
from nnsparse.ops.tangents import total

Array = NDArray[Any]


class TakesSparse(Protocol):
    """What multiplies with sparse rows: a structure, or a table."""

    n_out: int
    n_in: int

    def forward_csr(self, w: Array, x: SparseBatch, bias: Array | None, rectify: bool) -> Array:
        """Return W·x (+ bias, ReLU) as tiles (n_tiles, n_out, lanes)."""

    def gradient_csr(self, d: Array, x: SparseBatch) -> Array:
        """Return Σ_samples d·xᵀ where the weights are, in their shape."""


def spmm_csr(
    w: Tensor,
    x: SparseBatch,
    structure: TakesSparse,
    bias: Tensor | None = None,
    rectify: bool = False,
) -> Tensor:
    """Return W·x + bias, then ReLU if `rectify`: sparse rows (batch, n_in) to tiles (batch, n_out)."""
    forward = _traced("forward", structure.forward_csr, structure, x)
    data = forward(w.data, x, None if bias is None else bias.data, rectify)

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        d = relu_gate(out, g) if rectify else g
        bias_gradient = sum_samples(d) if len(needs) == 2 and needs[1] else None
        weight_gradient = sddmm_csr(d, x, structure) if needs[0] else None
        return (weight_gradient, bias_gradient)[: len(needs)]

    def push(out: Tensor, dw: Tensor | None, db: Tensor | None = None) -> Tensor:
        if dw is not None:
            t = spmm_csr(dw, x, structure, db)
        else:
            t = total(out, db if db is None else spread(db, out))
        return relu_gate(out, t) if rectify else t

    return record(data, (w,) if bias is None else (w, bias), rule, x.batch, push)


def sddmm_csr(d: Tensor, x: SparseBatch, structure: TakesSparse) -> Tensor:
    """Return Σ_samples d·xᵀ where the weights are: (batch, n_out) and sparse rows to the weights' shape."""
    gradient = _traced("weight gradient", structure.gradient_csr, structure, x)
    return record(
        gradient(d.data, x),
        (d,),
        lambda g, out, needs: (spmm_csr(g, x, structure),),
        push=lambda out, t: sddmm_csr(t, x, structure),
    )


def sum_rows(w: Tensor, x: SparseBatch, table: Table) -> Tensor:
    """Return Σ_k values[k]·w[indices[k]] for each sample, (batch, n_out), tiled: w (n_in, n_out).

    The gradient of a leaf is a `RowGradient`, unless it is to be differentiated again.
    """
    data = _traced("forward", table.forward_csr, table, x)(w.data, x, None, False)

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        if recording() or w.node is not None:
            return (sddmm_csr(g, x, table),)
        gradient = _traced("weight gradient", table.row_gradient, table, x)(g.data, x)
        return (Tensor(cast(Array, gradient)),)

    push = lambda out, dw: spmm_csr(dw, x, table)  # noqa: E731
    return record(data, (w,), rule, x.batch, push)


def _traced(
    section: str, launch: Callable[..., Any], structure: TakesSparse, x: SparseBatch
) -> Callable[..., Any]:
    """Return the method that multiplies; where this thread is profiled, its operations and bytes are recorded."""
    recorder = None if trace.active is None else trace.current()
    if recorder is None:
        return launch
    multiplies = x.nnz * structure.n_out
    view = known_column_view(structure.topology) if isinstance(structure, Sparse) else None
    if view is not None:
        multiplies = int(np.diff(view.pointers)[x.indices].sum())
    itemsize = x.dtype.itemsize
    entry = recorder.entry(recorder.layer, section)
    entry.flops += 2 * multiplies
    entry.work += 2 * multiplies * itemsize // 4
    read = min(multiplies, structure.n_out * structure.n_in)
    entry.nbytes += (read + x.shape[0] * structure.n_out) * itemsize
    entry.nbytes += x.nnz * (itemsize + x.indices.itemsize)
    return recorder.call(recorder.layer, section, launch)
