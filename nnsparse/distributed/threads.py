"""Ranks as threads of one process, for tests and for trying out: `in_threads`. For speed there is MPI.

Python runs one thread at a time outside the kernels, so nothing becomes faster; all else is as over MPI.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")


class StoppedError(RuntimeError):
    """Another rank failed, and this one was stopped with it."""


@final
class _Team:
    """What the threads share: a place for each rank's array, and a barrier."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.arrays: list[Any] = [None] * size


@final
class _ThreadCommunicator:
    """One thread's view of a team; see `communicator.Communicator` for the methods."""

    def __init__(self, team: _Team, rank: int) -> None:
        self._team, self._rank = team, rank

    def Get_rank(self) -> int:  # noqa: N802
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        return self._team.size

    def Allreduce(self, sendbuf: Array, recvbuf: Array) -> None:  # noqa: N802
        arrays = self._exchange(sendbuf)
        total = np.array(arrays[0])
        for array in arrays[1:]:
            total += array  # in the order of the ranks: the same bits for all
        self.Barrier()
        np.copyto(recvbuf, total)

    def Allgather(self, sendbuf: Array, recvbuf: Array) -> None:  # noqa: N802
        everyone = np.array(self._exchange(sendbuf))
        self.Barrier()
        np.copyto(recvbuf, everyone)

    def Barrier(self) -> None:  # noqa: N802
        try:
            self._team.barrier.wait()
        except threading.BrokenBarrierError:
            raise StoppedError(f"rank {self._rank} was stopped: another rank failed") from None

    def Abort(self, errorcode: int = 0) -> None:  # noqa: N802
        self._team.barrier.abort()

    def _exchange(self, array: Array) -> list[Array]:
        """Show the others an array; return everybody's, which stay as they are until the next barrier."""
        self._team.arrays[self._rank] = array
        self.Barrier()
        return list(self._team.arrays)

    def __repr__(self) -> str:
        return f"rank {self._rank} of {self._team.size} threads"


def in_threads(size: int, program: Callable[[Any], T]) -> list[T]:
    """Run `program(comm)` on `size` threads at once and return what each rank returned.

    Parameters
    ----------
    size : int
        Ranks, at least 1.
    program : callable
        Called with a `Communicator` on each thread. What it uses of Numba's threads is its own business
        (`ns.set_num_threads` holds for the Python thread that calls it).

    Raises
    ------
    ValueError
        If `size` is no integer >= 1.
    Exception
        Whatever a rank raised, the lowest one's; the other ranks are stopped at their next call of the communicator.

    Examples
    --------
    >>> def total(comm):
    ...     found = np.zeros(1)
    ...     comm.Allreduce(np.array([1.0 + comm.Get_rank()]), found)
    ...     return float(found[0])
    >>> in_threads(3, total)
    [6.0, 6.0, 6.0]
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"in_threads expects the number of ranks as an integer >= 1; got {size!r}")
    team = _Team(size)
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}

    def work(rank: int) -> None:
        try:
            results[rank] = program(_ThreadCommunicator(team, rank))
        except BaseException as error:  # handed on below
            errors[rank] = error
            team.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = {rank: e for rank, e in errors.items() if not isinstance(e, StoppedError)}
    if own or errors:
        raise (own or errors)[min(own or errors)]
    return [results[rank] for rank in range(size)]
