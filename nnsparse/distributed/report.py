"""What data-parallel training sent, in numbers: `Report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from nnsparse.distributed.gradients import dtype_of, trailer_size
from nnsparse.parameter import Parameter, SparseParameter


@final
@dataclass(frozen=True)
class Report:
    """Bytes and seconds of the all-reduces of one rank.

    Attributes
    ----------
    ranks : int
    steps : int
        Training steps so far.
    gradient_bytes : int
        Of one step's all-reduce, the gradients: one number for each nonzero and for each other parameter, such as
        biases, at present.
    trailer_bytes : int
        Of the same all-reduce, what follows the gradients: loss, weight, marks, one number per parameter.
    dense_bytes : int
        What the gradients of a dense network of the same shape would be, biases included.
    weight_bytes, dense_weight_bytes : int
        The part of sparse weights in `gradient_bytes` and `dense_bytes`; the rest is the same in both.
    growth_bytes : int
        Received in all for the growth of weights by gradient.
    seconds : float
        Spent in all-reduces, in all, waiting for slower ranks included.
    """

    ranks: int
    steps: int
    gradient_bytes: int
    trailer_bytes: int
    dense_bytes: int
    weight_bytes: int
    dense_weight_bytes: int
    growth_bytes: int
    seconds: float

    @property
    def other_bytes(self) -> int:
        """Gradients of biases and of all other parameters that are not sparse, per step."""
        return self.gradient_bytes - self.weight_bytes

    def __str__(self) -> str:
        if self.ranks == 1:
            return f"1 rank, {self.steps:,} steps; nothing was sent"
        total = self.gradient_bytes + self.trailer_bytes
        share = self.dense_bytes / max(1, self.gradient_bytes)
        parts = [
            f"{self.ranks} ranks, {self.steps:,} steps",
            f"all-reduced per step {total:,} bytes: gradients {self.gradient_bytes:,}, the rest {self.trailer_bytes:,}",
            f"a dense network's gradients {self.dense_bytes:,} bytes, {share:.1f}x as many",
        ]
        if self.growth_bytes:
            parts.append(f"gathered for growth, in all {self.growth_bytes:,} bytes")
        if self.steps:
            mean = 1e3 * self.seconds / self.steps
            parts.append(f"in all-reduce {mean:.3f} ms per step, waiting included")
        return "; ".join(parts)


def counted(
    params: Mapping[str, Parameter],
    n_marks: int,
    ranks: int,
    steps: int,
    growth_bytes: int,
    seconds: float,
) -> Report:
    """Return the report of a model with its present patterns."""
    item = dtype_of(params).itemsize
    sparse = [p for p in params.values() if isinstance(p, SparseParameter)]
    total, weights = sum(p.size for p in params.values()), sum(p.size for p in sparse)
    dense = sum(p.topology.shape[0] * p.topology.shape[1] for p in sparse)
    return Report(
        ranks,
        steps,
        item * total,
        item * trailer_size(params, n_marks),
        item * (total - weights + dense),
        item * weights,
        item * dense,
        growth_bytes,
        seconds,
    )
