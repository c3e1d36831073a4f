"""The products of a layer: `spmm`, `spmm_t` and `sddmm`, each other's derivatives, for sparse and dense weights alike.

What launches the kernels is a *structure* (`structures`): sparse weights, dense ones, or plain NumPy.
"""

from __future__ import annotations

from nnsparse import tiles, trace
from nnsparse.autograd import Tensor, record, recording
from nnsparse.kernels import pointwise
from nnsparse.ops.pointwise import relu_gate, sum_samples
from nnsparse.ops.structures import Structure


def spmm(
    w: Tensor, x: Tensor, structure: Structure, bias: Tensor | None = None, rectify: bool = False
) -> Tensor:
    """Return W·x + bias, then ReLU if `rectify`: (batch, n_in) to (batch, n_out), tiled."""
    assert x.batch is not None
    bias_data = None if bias is None else bias.data
    if trace.active is None:
        data = structure.forward(w.data, x.data, x.batch, bias_data, rectify)
    else:
        launch = trace.product(structure, "forward", x.batch)
        data = launch(w.data, x.data, x.batch, bias_data, rectify)

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        if recording():
            d = relu_gate(out, g) if rectify else g
            bias_gradient = sum_samples(d) if len(needs) == 3 and needs[2] else None
        else:
            d, bias_gradient = _gate_and_sum(g, out, rectify, len(needs) == 3 and needs[2])
        weight_gradient = sddmm(d, x, structure) if needs[0] else None
        input_gradient = spmm_t(w, d, structure) if needs[1] else None
        return (weight_gradient, input_gradient, bias_gradient)[: len(needs)]

    return record(data, (w, x) if bias is None else (w, x, bias), rule, batch=x.batch)


def _gate_and_sum(
    g: Tensor, out: Tensor, rectify: bool, summed: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient before the ReLU and its sum over samples, in one pass over the data."""
    if not rectify:
        return g, sum_samples(g) if summed else None
    gated = tiles.empty(g.data.shape, g.dtype)
    bias_gradient = tiles.empty((g.data.shape[1],), g.dtype)
    pointwise.bias_backward(out.data, g.data, True, gated, bias_gradient)
    return Tensor(gated, batch=g.batch), Tensor(bias_gradient) if summed else None


def spmm_t(w: Tensor, d: Tensor, structure: Structure) -> Tensor:
    """Return Wᵀ·d: (batch, n_out) to (batch, n_in), tiled."""

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        return (
            sddmm(d, g, structure) if needs[0] else None,
            spmm(w, g, structure) if needs[1] else None,
        )

    if trace.active is None:
        data = structure.transposed(w.data, d.data)
    else:
        data = trace.product(structure, "transposed", len(d))(w.data, d.data)
    return record(data, (w, d), rule, batch=d.batch)


def sddmm(d: Tensor, x: Tensor, structure: Structure) -> Tensor:
    """Return Σ_samples d·xᵀ where the weights are: (batch, n_out), (batch, n_in) to the weights' shape."""

    def rule(g: Tensor, out: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        return (
            spmm(g, x, structure) if needs[0] else None,
            spmm_t(g, d, structure) if needs[1] else None,
        )

    if trace.active is None:
        data = structure.gradient(d.data, x.data)
    else:
        data = trace.product(structure, "gradient", len(d))(d.data, x.data)
    return record(data, (d, x), rule)
