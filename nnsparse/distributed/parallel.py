"""`DataParallel`: one model on several ranks, each with its part of every mini-batch, in one all-reduce per step.

What travels is in `gradients`, what growth needs in `taps`, what is compared in `agreement`; the ranks come from
`communicator`, and `job` is the frame around the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, NamedTuple, final

import numpy as np

from nnsparse.autograd import Tensor
from nnsparse.data import DataLoader
from nnsparse.distributed.agreement import (
    Patterns,
    RanksDifferError,
    compare_loaders,
    compare_models,
    compare_optimizers,
    compare_settings,
)
from nnsparse.distributed.communicator import Communicator, checked, world
from nnsparse.distributed.gradients import Trailer, pack, summed, unpack, words
from nnsparse.distributed.job import rank_0_first
from nnsparse.distributed.prepare import part_again, part_dropout, refuse_batch_norm, rehearse
from nnsparse.distributed.report import Report, counted
from nnsparse.distributed.taps import gather_taps
from nnsparse.nn.linear import SparseLinear
from nnsparse.nn.module import Module
from nnsparse.optim.optimizer import Optimizer
from nnsparse.train.evaluation import LossFunction

_N_MARKS = 5  # the patterns, in four words, and how many layers have taps


class Reduced(NamedTuple):
    """What a step was on all ranks together.

    Attributes
    ----------
    loss : float
        Mean over the whole mini-batch, weighted as the gradient is.
    weight : float
        Σ w_i of the whole mini-batch.
    stop : bool
        Whether any rank wants to stop.
    """

    loss: float
    weight: float
    stop: bool


@final
class DataParallel:
    """Joins the gradients of several ranks, so that all of them make the step of a single process.

    Each rank runs the same program on its part of every mini-batch. `reduce`, called between `backward` and the
    optimizer's step, makes every gradient that of the whole mini-batch, Σ_r w_r g_r / Σ_r w_r, on all ranks the same
    bits; w_r is the weight of rank r's samples, their number if they have none. Everything after it, clipping, the
    optimizer, topology updates, then does the same everywhere, and no weights or masks are sent. `train.fit` calls it
    where it finds it among its updates.

    Parameters
    ----------
    model : Module
        The same on all ranks: made with the same seed, or loaded from one file.
    comm : Communicator, optional
        Default: `world()`.

    Attributes
    ----------
    model : Module
    comm : Communicator
    rank, size : int

    Raises
    ------
    TypeError
        If an argument is not of its kind.
    ValueError
        If there is a `BatchNorm1d` in the model: each rank would normalise by its own samples. Or if a `Dropout` has a
        generator that cannot jump ahead.
    RanksDifferError
        If the ranks' models are not the same, bit for bit.

    Notes
    -----
    One step sends one number for each nonzero and each other parameter, and a few more (`report`); a `RowGradient`
    travels as the whole table, for which rows others have used is not known before. Layers with `taps`, which growth
    by gradient sets for its updates, get those of all ranks (`taps.gather_taps`).

    Dropout draws other masks on each rank: rank r continues r jumps ahead of the generator that the model was given.
    So a model with dropout learns as well on two ranks as on one, but not the same numbers. Criteria that look at data
    are to get the same batches everywhere: draw them from the loader before `shard`. Validation runs on all ranks.

    With one rank nothing is sent or changed.

    Examples
    --------
    >>> from nnsparse import data, distributed, nn, optim, train
    >>> X = np.random.default_rng(0).standard_normal((64, 8))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> def program(comm):
    ...     model = nn.mlp([8, 16, 2], sparsity=0.5, rng=0)
    ...     parallel = distributed.DataParallel(model, comm)
    ...     loader = parallel.shard(data.DataLoader((X, y), batch_size=16, rng=0))
    ...     optimizer = optim.SGD(model.parameters(), lr=0.5)
    ...     loss, options = nn.CrossEntropyLoss(), {"updates": [parallel], "progress": False}
    ...     return train.fit(model, loss, optimizer, loader, epochs=9, **options)["train_loss"][-1]
    >>> first, second = distributed.in_threads(2, program)
    >>> bool(first == second < 0.5)
    True
    """

    def __init__(self, model: Module, comm: Communicator | None = None) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"DataParallel expects a model (nn.Module); got {type(model).__name__}")
        self.model = model
        self.comm = checked("DataParallel", world() if comm is None else comm)
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self._params = dict(model.named_parameters())
        if not self._params:
            raise ValueError("DataParallel expects a model with parameters; got none.")
        self._layers = [m for m in model.modules() if isinstance(m, SparseLinear)]
        self._patterns = Patterns(list(self._params.values()))
        self._steps, self._seconds, self._growth_bytes = 0, 0.0, 0
        if self.size > 1:
            refuse_batch_norm(model, self.size)
            self.check()
            part_dropout(model, self.rank)

    # ------------------------------------------------------------ before the training

    def shard(self, loader: DataLoader) -> DataLoader:
        """Return this rank's part of a loader, after a look whether all ranks have the same one. A collective call.

        Raises
        ------
        RanksDifferError
            If data, batch size, seed, epoch or a switch is not the same on all ranks.
        TypeError, ValueError
            If it is no loader, or a part already.
        """
        if not isinstance(loader, DataLoader):
            raise TypeError(f"shard expects a DataLoader; got {type(loader).__name__}")
        compare_loaders(self.comm, loader)
        return loader.shard(self.rank, self.size)

    def begin(
        self,
        loss_fn: LossFunction,
        optimizer: Optimizer,
        loader: DataLoader,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Compile what a training step needs, rank 0 first, and check that all begin alike. A collective call.

        The other ranks wait, and then read the compiled kernels from the cache. The step is rehearsed on copies of
        model and optimizer. `settings` are those of the loop that decide when it ends. `train.fit` calls this.

        Raises
        ------
        RanksDifferError
            If data, optimizer, learning rate, a setting or a weight is not the same on all ranks.
        ValueError
            If the loader is not this rank's part.
        """
        if self.size == 1:
            return
        if loader.part != (self.rank, self.size):
            raise ValueError(
                f"rank {self.rank} of {self.size} expects its own part of the training data; got part "
                f"{loader.part[0]} of {loader.part[1]}. Pass parallel.shard(loader)."
            )
        compare_loaders(self.comm, loader)
        compare_settings(self.comm, settings)
        compare_optimizers(self.comm, optimizer)
        self.check()
        with rank_0_first(self.comm):
            rehearse(self.model, loss_fn, optimizer, loader)
        self.comm.Barrier()

    def check(self) -> None:
        """Compare patterns and weights of all ranks, bit for bit. A collective call; O(parameters).

        Raises
        ------
        RanksDifferError
            On all ranks, naming the first parameter that differs, and where.
        """
        compare_models(self.comm, self._params)

    # ------------------------------------------------------------ in the training

    def reduce(self, loss: Tensor | float, weight: float, stop: bool = False) -> Reduced:
        """Make every gradient that of the whole mini-batch. A collective call, once per step.

        Parameters
        ----------
        loss : Tensor or number
            This rank's, a mean over its samples; anything if it has none.
        weight : float
            Σ w_i of its samples: `loss_fn.total_weight(y, sample_weight)`, or len(y); 0 without samples.
        stop : bool
            Whether this rank wants to stop, as on Ctrl-C.

        Returns
        -------
        Reduced
            The same on all ranks.

        Raises
        ------
        ValueError
            If the weight is negative or not finite, or a gradient does not fit its parameter.
        RanksDifferError
            If patterns have come apart, or some ranks are at an update of theirs and others are not.
        """
        value = loss.item() if isinstance(loss, Tensor) else float(loss)
        if not 0.0 <= weight < np.inf:
            raise ValueError(
                f"reduce expects the weight of this rank's samples, finite and at least 0; got {weight!r}"
            )
        self._steps += 1
        if self.size == 1:
            return Reduced(value, float(weight), bool(stop))
        tapped = [layer for layer in self._layers if layer.taps is not None]
        marks = (*words(self._patterns.mark(), self.size), len(tapped))
        sent = pack(self._params, Trailer(value, float(weight), float(stop), marks))
        start = perf_counter()
        received = summed(self.comm, sent, self._steps)
        self._seconds += perf_counter() - start
        total = unpack(self._params, received, _N_MARKS)
        self._compare_marks(marks, total.marks)
        if tapped:
            part = weight / total.weight if total.weight else 0.0
            self._growth_bytes += gather_taps(self.comm, tapped, part)
        return Reduced(total.loss, total.weight, total.stop > 0)

    def agree(self, stop: bool) -> bool:
        """Return whether any rank wants to stop, after a look at all weights, O(parameters). A collective call.

        Raises
        ------
        RanksDifferError
            On all ranks, if weights have come apart.
        """
        if self.size > 1:
            compare_models(self.comm, self._params, self._steps)
        found = np.zeros(1)
        self.comm.Allreduce(np.array([float(stop)]), found)
        return bool(found[0] > 0)

    def step(self) -> None:
        """Do nothing: all is done before the optimizer's step. For `train.fit`, which calls it of every update."""

    def state_dict(self) -> dict[str, int]:
        """Return the number of ranks, for checkpoints, which rank 0 writes and all ranks read."""
        return {"ranks": self.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: with as many ranks bit for bit, with others to rounding.

        Load the model's state first. Its generators are those of rank 0 then, from which each rank finds its own.

        Raises
        ------
        ValueError
            If the state is not of a DataParallel.
        """
        if set(state) != {"ranks"}:
            raise ValueError(f"DataParallel expects a state with ranks; got {dict(state)}")
        part_again(self.model, self.rank)

    def report(self) -> Report:
        """Return how much was sent and how long it took; the bytes are those of the present patterns."""
        return counted(
            self._params, _N_MARKS, self.size, self._steps, self._growth_bytes, self._seconds
        )

    def __repr__(self) -> str:
        return f"DataParallel(rank {self.rank} of {self.size})"

    # ------------------------------------------------------------ inside

    def _compare_marks(self, own: tuple[int, ...], total: tuple[int, ...]) -> None:
        """Look at the numbers that have to be the same on all ranks."""
        if total == tuple(self.size * mark for mark in own):
            return
        self.check()
        raise RanksDifferError(
            f"at step {self._steps}, rank {self.rank} has {own[-1]} layers at an update of their patterns, and all "
            f"{self.size} ranks together have {total[-1]}; or other weights are held at zero. Call Sparsifier.step() "
            "once per step on all ranks."
        )
