"""Parts of which the ops make their `push` rules: how tangents of several inputs come together (see `nnsparse.jvp`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnsparse import tiles
from nnsparse.autograd import Push, Tensor


def total(out: Tensor, *tangents: Tensor | None) -> Tensor:
    """Return the sum of the tangents, None counting as zero, broadcast to the shape of `out`.

    At least one is there: of an op whose inputs have no tangent nobody asks one.
    """
    first, *others = [t.data for t in tangents if t is not None]
    for other in others:
        if first.shape == other.shape == out.data.shape:
            first = np.add(first, other, out=tiles.empty(first.shape, first.dtype))
        else:
            first = np.asarray(first + other)
    if first.shape != out.data.shape:
        first = np.array(np.broadcast_to(first, out.data.shape))
    return Tensor(first, batch=out.batch)


def bilinear(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Push:
    """Return the rule of product(x, y), linear in either: product(dx, y) + product(x, dy)."""

    def push(out: Tensor, dx: Tensor | None, dy: Tensor | None) -> Tensor:
        left = None if dx is None else product(dx, y)
        right = None if dy is None else product(x, dy)
        return total(out, left, right)

    return push
