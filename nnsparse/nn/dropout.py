"""Dropout as a module."""

from __future__ import annotations

from typing import final

import numpy as np

from nnsparse.autograd import Tensor
from nnsparse.nn.module import Module
from nnsparse.ops import pointwise


@final
class Dropout(Module):
    """In training, zero each element with probability p and divide the others by 1 − p.

    In evaluation mode it does nothing. Only the seed of a mask is drawn from `rng`; see
    `ops.pointwise.dropout`.

    Parameters
    ----------
    p : float in [0, 1)
        Probability of dropping.
    rng : numpy.random.Generator, int or None
        Source of the masks; None takes fresh entropy.

    Raises
    ------
    ValueError
        If p is not in [0, 1).

    Notes
    -----
    Source: Srivastava et al., Dropout, 2014, in the inverted form.
    """

    def __init__(self, p: float = 0.5, rng: np.random.Generator | int | None = None) -> None:
        super().__init__()
        self.p = pointwise.drop_probability(p)
        self.rng = np.random.default_rng(rng)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with a fresh mask in training, x itself otherwise, (batch, n)."""
        return pointwise.dropout(x, self.p, self.rng) if self.training else x

    def __repr__(self) -> str:
        return f"Dropout(p={self.p:g})"
