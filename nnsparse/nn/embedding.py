"""`EmbeddingBag`: the mean or the sum of the rows of a table that belong to a sample's tokens.

An embedding stands first in a model, and so decides what it takes: integer tokens, or sparse counts. The products are
those of `ops.sparse_input`, and the gradient has only the rows that a mini-batch used. `sequence` has `Embedding`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import sparse

from nnsparse import trace
from nnsparse.autograd import Tensor
from nnsparse.nn import init
from nnsparse.nn._checks import check_dtype, check_size, is_fit, misfit
from nnsparse.nn.module import Module
from nnsparse.ops.sparse_batch import SparseBatch, Tokens, scaled, to_csr
from nnsparse.ops.sparse_input import sum_rows
from nnsparse.ops.sparse_products import Table
from nnsparse.parameter import Parameter
from nnsparse.rows import AnyRows, Rows, SparseRows

Array = NDArray[Any]
Seed = np.random.Generator | int | None


class Lookup(Module):
    """What embeddings share: the table, and how tokens enter."""

    _takes_tokens: ClassVar[bool] = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        dtype: DTypeLike,
        rng: Seed,
    ) -> None:
        who = type(self).__name__
        super().__init__()
        self.num_embeddings = check_size(who, "num_embeddings", num_embeddings)
        self.embedding_dim = check_size(who, "embedding_dim", embedding_dim)
        if padding_idx is not None:
            if isinstance(padding_idx, bool) or not isinstance(padding_idx, int | np.integer):
                raise TypeError(
                    f"{who} expects padding_idx as an integer or None; got {padding_idx!r}"
                )
            if not 0 <= padding_idx < self.num_embeddings:
                raise ValueError(
                    f"{who} expects padding_idx from 0 to {self.num_embeddings - 1}; got {padding_idx}"
                )
            padding_idx = int(padding_idx)
        self.padding_idx = padding_idx
        kind = check_dtype(dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        values = init.generator(rng).normal(0.0, self.embedding_dim**-0.5, shape).astype(kind)
        if padding_idx is not None:
            values[padding_idx] = 0
        self.weight = Parameter(values)
        self._table = Table(*shape)

    @abstractmethod
    def _refused(self, got: str) -> TypeError:
        """Return the error that says what this layer takes."""

    def _rows(self, x: Any) -> AnyRows:
        if isinstance(x, Tensor):
            raise self._refused(f"a Tensor of {x.dtype}")
        rows = x if isinstance(x, Rows) else self._array_rows(x)
        if isinstance(rows, Rows) and rows.dtype.kind not in "iu":
            raise self._refused(f"an array of {rows.dtype}")
        return rows

    def _array_rows(self, x: Any) -> AnyRows:
        """Return what is no `Rows` yet as rows."""
        try:
            return Rows(x)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self._refused(type(x).__name__)} {error}") from error

    def _entered(self, rows: AnyRows, lanes: int, dtype: np.dtype[Any]) -> Tensor:
        assert isinstance(rows, Rows)
        return Tokens(rows, self.weight.dtype, lanes)

    def _sum(self, bags: SparseBatch) -> Tensor:
        """Return the weighted sum of rows for each sample, (batch, embedding_dim)."""
        shape, dtype = (self.num_embeddings, self.embedding_dim), bags.dtype
        if not is_fit(self.weight.data, shape, dtype):
            raise misfit(type(self).__name__, "weight", self.weight.data, shape, dtype)
        return sum_rows(self.weight, bags, self._table)

    @property
    def _padding(self) -> int:
        return -1 if self.padding_idx is None else self.padding_idx

    def __repr__(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{type(self).__name__}({self.num_embeddings}, {self.embedding_dim}{padding})"


@final
class EmbeddingBag(Lookup):
    """The mean or the sum of the rows of a table that belong to a sample's tokens.

    Parameters
    ----------
    num_embeddings : int
        Rows of the table: tokens are from 0 to num_embeddings - 1.
    embedding_dim : int
        Its columns, the features that come out.
    mode : "mean" or "sum"
        The mean is over the tokens of a sample that are not padding; of counts, divided by their sum.
    padding_idx : int, optional
        A token that counts as none: for arrays that are padded to one length, such as `datasets.imdb`'s (0).
        By default there is none.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        For the initial weights, N(0, 1 / embedding_dim); the row of padding is zero.

    Attributes
    ----------
    weight : Parameter (num_embeddings, embedding_dim)
        Its gradient is a `RowGradient`, with the rows that the mini-batches used. `optim.SGD` without momentum and
        weight decay touches only these; all other optimizers take it as a whole array.

    Raises
    ------
    ValueError, TypeError
        If a size, the mode, padding_idx or dtype is none of these.

    Notes
    -----
    As the first layer it takes a mini-batch, or a data set in `predict` and `DataLoader`, in one of these forms:

    - integers (batch, length), padded;
    - a `scipy.sparse` matrix (batch, num_embeddings) of counts, or of any other weights of the tokens;
    - a pair (indices, offsets): sample i has the tokens indices[offsets[i] : offsets[i + 1]]; for a DataLoader write
      `SparseRows.ragged(indices, offsets, num_embeddings)`.

    A sample without tokens, or whose weights add up to 0, gives zeros (with "mean"). A model of your own that begins
    with an embedding overrides `_first`: `return self.embedding`.

    Source: as `torch.nn.EmbeddingBag`. Differences: rows of length about 1 at first instead of N(0, 1) in each number;
    counts come as a sparse matrix instead of `per_sample_weights`, and "mean" divides by their sum; no "max", no
    `max_norm`. Cost: forward and backward O(tokens · embedding_dim), and once a step O(num_embeddings) simple
    operations to sort the tokens.

    Examples
    --------
    >>> bag = EmbeddingBag(10, 4, padding_idx=0, rng=0)
    >>> bag(np.array([[3, 5, 0], [7, 0, 0]])).shape
    (2, 4)
    >>> np.allclose(bag([[3, 5, 0]]).numpy(), bag.weight.data[[3, 5]].mean(axis=0))
    True
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        mode: str = "mean",
        padding_idx: int | None = None,
        *,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        if mode not in ("mean", "sum"):
            raise ValueError(f"EmbeddingBag expects mode 'mean' or 'sum'; got {mode!r}")
        super().__init__(num_embeddings, embedding_dim, padding_idx, dtype, rng)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean or sum of the embeddings, (batch, embedding_dim)."""
        mean = self.mode == "mean"
        if isinstance(x, Tokens):
            bags = trace.section("layout", x.bags)
            return self._sum(bags(self.num_embeddings, self._padding, mean))
        if not isinstance(x, SparseBatch):
            raise self._refused(
                f"an activation of shape {x.shape}; embeddings come first in a model"
            )
        if x.shape[1] != self.num_embeddings:
            raise ValueError(
                f"{self!r} expects counts of shape (batch, {self.num_embeddings}); got {x.shape}"
            )
        return self._sum(trace.section("layout", scaled)(x, self._padding, mean))

    def _refused(self, got: str) -> TypeError:
        return TypeError(
            f"{self!r} expects integer tokens (batch, length), scipy.sparse counts (batch, {self.num_embeddings}) or a "
            f"pair (indices, offsets); got {got}. Floats? Pass x.astype(np.int32). Different lengths? Pad, or pass "
            "the pair."
        )

    def _array_rows(self, x: Any) -> AnyRows:
        if isinstance(x, SparseRows):
            return x
        if sparse.issparse(x):
            return SparseRows(x)
        if isinstance(x, tuple):
            if len(x) != 2:
                raise self._refused(f"a tuple of {len(x)}")
            return SparseRows.ragged(*x, n_features=self.num_embeddings)
        return super()._array_rows(x)

    def _entered(self, rows: AnyRows, lanes: int, dtype: np.dtype[Any]) -> Tensor:
        if isinstance(rows, SparseRows):
            return to_csr(rows, lanes, self.weight.dtype)
        return super()._entered(rows, lanes, dtype)

    def __repr__(self) -> str:
        mode = "" if self.mode == "mean" else f", mode={self.mode!r}"
        return f"{super().__repr__()[:-1]}{mode})"
