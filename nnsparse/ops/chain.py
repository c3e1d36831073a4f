"""Several affine layers, each perhaps with a ReLU, as one node of the tape: the body of a perceptron.

The same products as in `products`, in fewer passes over the data and with less to do for Python: the gradient of a ReLU
is taken where the layer above writes its input gradient, and a bias gradient where the weight gradient reads the same
numbers. What it brings is in benchmarks/NOTES.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from nnsparse import tiles, trace
from nnsparse.autograd import Tensor, in_forward_mode, record, recording
from nnsparse.kernels import pointwise
from nnsparse.ops.pointwise import relu_gate, sum_samples
from nnsparse.ops.products import sddmm, spmm, spmm_t
from nnsparse.ops.sparse_batch import SparseBatch
from nnsparse.ops.sparse_input import spmm_csr
from nnsparse.ops.structures import Structure

Array = NDArray[Any]


class Link(NamedTuple):
    """One layer of a chain: W·x + bias, then ReLU if `rectify`."""

    weight: Tensor
    bias: Tensor | None
    structure: Structure
    rectify: bool


def chain(x: Tensor, links: Sequence[Link]) -> Tensor:
    """Return the output of the last link, (batch, n_out), tiled; each takes what the one before gives.

    The first takes sparse rows too.
    """
    if isinstance(x, SparseBatch):
        weight, bias, structure, rectify = links[0]
        x, links = spmm_csr(weight, x, structure, bias, rectify), links[1:]
        if not links:
            return x
    if in_forward_mode():  # the tangents of one layer at a time
        for weight, bias, structure, rectify in links:
            x = spmm(weight, x, structure, bias, rectify)
        return x
    batch = x.batch
    assert batch is not None
    inputs, kept = [x], [x.data]
    data = x.data
    for weight, bias, structure, rectify in links:
        forward = trace.product(structure, "forward", batch)
        data = forward(weight.data, data, batch, None if bias is None else bias.data, rectify)
        inputs.append(weight)
        if bias is not None:
            inputs.append(bias)
        if recording():
            kept.append(data)

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> list[Tensor | None]:
        if recording():
            return _differentiable(g, x, links, needs)
        return _fused(g.data, kept, links, needs, batch)

    return record(data, tuple(inputs), rule, batch=batch)


def _fused(
    d: Array, kept: list[Array], links: Sequence[Link], needs: tuple[bool, ...], batch: int
) -> list[Tensor | None]:
    """Return the gradients of x, and of each link's weight and bias; kept[i] is what link i took."""
    found: list[Tensor | None] = []  # last first
    at = len(needs)
    if links[-1].rectify:
        gated = tiles.empty(d.shape, d.dtype)
        pointwise.relu_gate_kernel(kept[-1].reshape(-1), d.reshape(-1), gated.reshape(-1))
        d = gated
    for i in range(len(links) - 1, -1, -1):
        weight, bias, structure, _ = links[i]
        at -= 1 if bias is None else 2
        sums = None
        if bias is not None:
            sums = tiles.empty((structure.n_out,), d.dtype) if needs[at + 1] else None
            found.append(None if sums is None else Tensor(sums))
        if needs[at]:
            gradient = trace.product(structure, "gradient", batch)
            found.append(Tensor(gradient(d, kept[i], sums)))
        else:
            found.append(None)
            if sums is not None:
                pointwise.sum_samples_kernel(d, sums)
        if not any(needs[:at]):
            found += [None] * at
            break
        gate = kept[i] if i and links[i - 1].rectify else None
        transposed = trace.product(structure, "transposed", batch)
        d = transposed(weight.data, d, gate)
    else:
        found.append(Tensor(d, batch=batch))
    found.reverse()
    return found


def _differentiable(
    g: Tensor, x: Tensor, links: Sequence[Link], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Return the same gradients, made of ops on a second forward pass, so that they have gradients themselves."""
    taken = [x]
    for weight, bias, structure, rectify in links:
        taken.append(spmm(weight, taken[-1], structure, bias, rectify))
    found: list[Tensor | None] = []  # last first
    for i in range(len(links) - 1, -1, -1):
        weight, bias, structure, rectify = links[i]
        if rectify:
            g = relu_gate(taken[i + 1], g)
        if bias is not None:
            found.append(sum_samples(g))
        found.append(sddmm(g, taken[i], structure))
        if i or needs[0]:
            g = spmm_t(weight, g, structure)
    found.append(g if needs[0] else None)
    return found[::-1]
