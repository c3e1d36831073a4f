"""`FilteredModel`: a frozen network that stops computing a sample once its activation is all zero.

Behind a ReLU a sample may be dead: zero in every feature. From there on its output is the same for all such samples and
known beforehand, so only the others go on, packed closely. It is the *filter* of the Sparse DNN Graph Challenge
(`nnsparse.graph_challenge`), for any network of `compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse.inference.model import CompiledModel
from nnsparse.rows import Rows

Array = NDArray[Any]

BLOCK = 4096  # samples at a time: bounds what lies between two stages, and is enough work for all threads


@final
class FilteredModel:
    """A frozen network in stages, made by `compile(model, skip_dead=True)`; dead samples leave after each stage.

    Several Python threads may call it at once.

    Attributes
    ----------
    stages : tuple of CompiledModel
        Each but the last ends with a ReLU.

    Notes
    -----
    It pays where many samples die early; otherwise looking for them and laying out each stage's samples anew costs
    more than it saves (benchmarks/dead_rows.py measures it).
    """

    __slots__ = ("_dead", "stages")

    def __init__(self, stages: Sequence[CompiledModel]) -> None:
        """Take stages whose sizes fit; users call `compile`."""
        self.stages = tuple(stages)
        self._dead: dict[int, Array] = {}

    @property
    def n_in(self) -> int:
        """Features of a sample."""
        return self.stages[0].n_in

    @property
    def n_out(self) -> int:
        """Features of the output."""
        return self.stages[-1].n_out

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return sum(stage.nbytes for stage in self.stages)

    def predict(self, x: ArrayLike | Rows) -> Array:
        """Return the outputs, (batch, n_out), equal to those of the same model compiled whole but for rounding.

        Parameters
        ----------
        x : (batch, n_in) array or `Rows`

        Raises
        ------
        TypeError, ValueError
            As `CompiledModel.predict`.
        """
        return self._run(x)[0]

    __call__ = predict

    def count_live(self, x: ArrayLike | Rows) -> list[int]:
        """Return how many samples enter each stage: what the filter leaves to be done."""
        return self._run(x)[1]

    def _run(self, x: ArrayLike | Rows) -> tuple[Array, list[int]]:
        """Return the outputs and how many samples entered each stage."""
        rows = x if isinstance(x, Rows) else Rows(x)
        out = np.empty((len(rows), self.n_out), self.stages[0].dtype)
        live = np.zeros(len(self.stages), np.int64)
        for start in range(0, max(1, len(rows)), BLOCK):
            part = slice(start, start + BLOCK)
            block = Rows(x.array, x.index[part]) if isinstance(x, Rows) else rows.array[part]
            self._block(block, out[part], live)
        return out, live.tolist()

    def _block(self, x: Rows | Array, out: Array, live: Array) -> None:
        """Write the outputs of a block of samples, and add to the numbers of those that enter each stage."""
        where: Array | None = None  # the rows of `out` that are still alive; None: all
        for i, stage in enumerate(self.stages):
            live[i] += len(x)
            y = stage.predict(x)
            if i == len(self.stages) - 1:
                out[slice(None) if where is None else where] = y
                return
            alive = y.any(axis=1)
            if not alive.all():
                rows = np.arange(len(out)) if where is None else where
                out[rows[~alive]] = self._output_of_dead(i)
                where, y = rows[alive], y[alive]
                if not len(where):
                    return
            x = y

    def _output_of_dead(self, stage: int) -> Array:
        """Return the output of a sample that is zero after a stage, (n_out,); worked out when first needed."""
        output = self._dead.get(stage)
        if output is None:
            y = np.zeros((1, self.stages[stage].n_out), self.stages[stage].dtype)
            for after in self.stages[stage + 1 :]:
                y = after.predict(y)
            output = self._dead[stage] = y[0]
        return output

    def __repr__(self) -> str:
        sizes = " -> ".join(str(n) for n in (self.n_in, *(stage.n_out for stage in self.stages)))
        return f"FilteredModel({sizes}, {self.nbytes:,} bytes)"
