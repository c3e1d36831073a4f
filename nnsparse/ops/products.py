"""The products of a layer: `spmm`, `spmm_t` and `sddmm`, each other's derivatives, for sparse and dense weights alike.

What launches the kernels is a *structure* (`structures`): sparse weights, dense ones, or plain NumPy. These are for
second derivatives and forward mode; layers call `chain`, which takes the same products in fewer passes.
"""

from __future__ import annotations

from nnsparse import trace
from nnsparse.autograd import Tensor, record
from nnsparse.ops.pointwise import relu_gate, spread, sum_samples
from nnsparse.ops.structures import Structure
from nnsparse.ops.tangents import bilinear, total


def spmm(
    w: Tensor, x: Tensor, structure: Structure, bias: Tensor | None = None, rectify: bool = False
) -> Tensor:
    """Return W·x + bias, then ReLU if `rectify`: (batch, n_in) to (batch, n_out), tiled."""
    assert x.batch is not None
    bias_data = None if bias is None else bias.data
    forward = trace.product(structure, "forward", x.batch)
    data = forward(w.data, x.data, x.batch, bias_data, rectify)

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        d = relu_gate(out, g) if rectify else g
        bias_gradient = sum_samples(d) if len(needs) == 3 and needs[2] else None
        weight_gradient = sddmm(d, x, structure) if needs[0] else None
        input_gradient = spmm_t(w, d, structure) if needs[1] else None
        return (weight_gradient, input_gradient, bias_gradient)[: len(needs)]

    def push(out: Tensor, dw: Tensor | None, dx: Tensor | None, db: Tensor | None = None) -> Tensor:
        if dw is not None:
            t = spmm(dw, x, structure, db)
            if dx is not None:  # in place: nobody else has seen t
                t.data += spmm(w, dx, structure).data
        elif dx is not None:
            t = spmm(w, dx, structure, db)
        else:
            t = total(out, db if db is None else spread(db, out))
        return relu_gate(out, t) if rectify else t

    return record(data, (w, x) if bias is None else (w, x, bias), rule, x.batch, push)


def spmm_t(w: Tensor, d: Tensor, structure: Structure) -> Tensor:
    """Return Wᵀ·d: (batch, n_out) to (batch, n_in), tiled."""

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        return (
            sddmm(d, g, structure) if needs[0] else None,
            spmm(w, g, structure) if needs[1] else None,
        )

    data = trace.product(structure, "transposed", len(d))(w.data, d.data)
    push = bilinear(lambda a, b: spmm_t(a, b, structure), w, d)
    return record(data, (w, d), rule, d.batch, push)


def sddmm(d: Tensor, x: Tensor, structure: Structure) -> Tensor:
    """Return Σ_samples d·xᵀ where the weights are: (batch, n_out), (batch, n_in) to the weights' shape."""

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        return (
            spmm(g, x, structure) if needs[0] else None,
            spmm_t(g, d, structure) if needs[1] else None,
        )

    data = trace.product(structure, "gradient", len(d))(d.data, x.data)
    return record(data, (d, x), rule, push=bilinear(lambda a, b: sddmm(a, b, structure), d, x))
