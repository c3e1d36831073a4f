"""`Embedding`, a row of a table for each token, and `GlobalAveragePooling1D`: together what `EmbeddingBag` is."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnsparse import trace
from nnsparse.autograd import Tensor, record
from nnsparse.nn.embedding import Lookup, Seed
from nnsparse.nn.module import Module
from nnsparse.ops.arithmetic import multiply, reshape
from nnsparse.ops.arithmetic import sum as sum_of
from nnsparse.ops.layout import tile, untile
from nnsparse.ops.sparse_batch import Tokens

Array = NDArray[Any]


@final
class Embedded(Tensor):
    """What `Embedding` gives, (batch, length · embedding_dim), with what its average has to know.

    Attributes
    ----------
    width : int
        Numbers of a token.
    counts : (batch,) array
        Tokens of each sample that are not padding.
    """

    __slots__ = ("counts", "width")

    def __init__(self, data: Array, batch: int, width: int, counts: Array) -> None:
        super().__init__(data, batch=batch)
        self.width, self.counts = width, counts


@final
class Embedding(Lookup):
    """A row of a table for each token: (batch, length) integers to (batch, length · embedding_dim).

    Feature t · embedding_dim + i is number i of token t. Before `GlobalAveragePooling1D`, at the beginning of a
    `Sequential`, both run as one pass and the rows of single tokens are never stored.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table; tokens are from 0 to num_embeddings - 1.
    padding_idx : int, optional
        A token that stands for none: zeros, without gradient, and no part of an average.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        For the initial weights, N(0, 1 / embedding_dim); the row of padding is zero.

    Attributes
    ----------
    weight : Parameter (num_embeddings, embedding_dim)
        Its gradient is a `RowGradient`, as that of `EmbeddingBag`.

    Raises
    ------
    ValueError, TypeError
        If a size, padding_idx or dtype is none of these.

    Examples
    --------
    >>> layer = Embedding(10, 4, rng=0)
    >>> layer([[3, 5, 3]]).shape
    (1, 12)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, dtype, rng)

    def forward(self, x: Tensor, pool: bool = False) -> Tensor:
        """Return the embeddings, (batch, length · embedding_dim); with `pool` their means, (batch, embedding_dim)."""
        if not isinstance(x, Tokens):
            raise self._refused(
                f"an activation of shape {x.shape}; embeddings come first in a model"
            )
        gather = trace.section("layout", x.bags)
        if pool:
            return self._sum(gather(self.num_embeddings, self._padding, mean=True))
        batch, length = x.shape
        bags = gather(self.num_embeddings, self._padding, mean=False, each=True)
        rows = untile(self._sum(bags))
        y = tile(reshape(rows, (batch, length * self.embedding_dim)), x.lanes)
        counts = np.diff(bags.indptr).reshape(batch, length).sum(axis=1)
        out = Embedded(y.data, batch, self.embedding_dim, counts)
        return record(y.data, (y,), lambda g, out, needs: (g,), batch, symmetric=True, out=out)

    def _refused(self, got: str) -> TypeError:
        return TypeError(
            f"{self!r} expects integer tokens (batch, length); got {got}. Floats? Pass x.astype(np.int32). Counts? "
            "Use EmbeddingBag."
        )


@final
class GlobalAveragePooling1D(Module):
    """The mean of a sample's embeddings: (batch, length · embedding_dim) to (batch, embedding_dim).

    Behind an `Embedding` with padding_idx the mean is over the other tokens, of none it is zero; without one it is over
    all of them, as in Keras without masking. Both together are `EmbeddingBag` with mode "mean".

    Examples
    --------
    >>> from nnsparse.nn.sequential import Sequential
    >>> model = Sequential(Embedding(10, 4, rng=0), GlobalAveragePooling1D())
    >>> model([[3, 5, 3]]).shape
    (1, 4)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the means, (batch, embedding_dim)."""
        if not isinstance(x, Embedded):
            raise TypeError(
                "GlobalAveragePooling1D expects what Embedding gives, from directly before it; got an activation of "
                f"shape {x.shape}"
            )
        batch, features = x.shape
        shape = (batch, features // x.width, x.width)
        scale = 1.0 / np.maximum(1, x.counts)[:, None]
        means = multiply(sum_of(reshape(untile(x), shape), 1), scale)
        return tile(means, x.data.shape[2])
