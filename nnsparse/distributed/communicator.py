"""Who takes part: `Communicator`, what is asked of one, and `world`, MPI's own or that of a single process.

An existing MPI does the work, by way of mpi4py: `mpi4py.MPI.COMM_WORLD`, or any communicator made of it, is used as it
is. Whatever has the same six methods serves as well; `in_threads` runs a program on threads of one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# How the launchers of Open MPI, MPICH and Intel MPI, and MPI libraries under them, tell a process of the others.
_SIZES = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"


@runtime_checkable
class Communicator(Protocol):
    """What data-parallel training asks of MPI: six methods, named as in mpi4py.

    All but the first two and `Abort` are collective: every rank calls them, in the same order. Arrays are C-contiguous.
    """

    def Get_rank(self) -> int:  # noqa: N802 - MPI's names
        """Return this process' number, from 0."""

    def Get_size(self) -> int:  # noqa: N802
        """Return the number of processes."""

    def Allreduce(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        """Write the sum of all ranks' `sendbuf` into `recvbuf`, the same bits on each rank."""

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        """Write each rank's `sendbuf` into `recvbuf`, (size, ...), in the order of the ranks."""

    def Barrier(self) -> None:  # noqa: N802
        """Wait until all ranks are here."""

    def Abort(self, errorcode: int = 0) -> Any:  # noqa: N802
        """End all ranks; over MPI it does not return."""


@final
class Alone:
    """The communicator of a single process: nothing to send, nobody to wait for."""

    def Get_rank(self) -> int:  # noqa: D102, N802
        return 0

    def Get_size(self) -> int:  # noqa: D102, N802
        return 1

    def Allreduce(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: D102, N802
        np.copyto(recvbuf, sendbuf)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: D102, N802
        np.copyto(recvbuf, np.reshape(sendbuf, np.shape(recvbuf)))

    def Barrier(self) -> None:  # noqa: D102, N802
        return

    def Abort(self, errorcode: int = 0) -> None:  # noqa: D102, N802
        return

    def __repr__(self) -> str:
        return "Alone()"


def world() -> Communicator:
    """Return MPI's communicator of all processes, or `Alone()` in a process that no MPI launcher started.

    mpi4py is imported only where a launcher started the process, or the program has imported it already.

    Raises
    ------
    ImportError
        If a launcher started several processes and mpi4py, or the MPI library behind it, cannot be loaded.
    RuntimeError
        If mpi4py was built for another MPI than the launcher's, so that each process believes to be alone.

    Examples
    --------
    >>> world()
    Alone()
    """
    launched = _launched(os.environ)
    if launched <= 1 and "mpi4py.MPI" not in sys.modules:
        return Alone()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library to be found
        raise ImportError(
            f"{launched} processes were started to train together, and that needs mpi4py and an MPI library: "
            f"pip install 'nnsparse[mpi]' ({error})"
        ) from error
    comm: Communicator = MPI.COMM_WORLD
    if launched > 1 and comm.Get_size() == 1:
        raise RuntimeError(
            f"the launcher started {launched} processes, but each of them finds itself alone: mpi4py uses another MPI, "
            f"{MPI.Get_library_version().split(',')[0].strip()}. Start the program with that one's mpirun, or install "
            "mpi4py for yours: pip install --no-binary mpi4py mpi4py"
        )
    return comm


def checked(who: str, comm: Any) -> Communicator:
    """Return `comm` if it has a communicator's methods.

    Raises
    ------
    TypeError
        If it has not; the message lists those that are missing.
    """
    if isinstance(comm, Communicator):
        return comm
    wanted = sorted(name for name in vars(Communicator) if name[0].isupper())
    missing = [name for name in wanted if not callable(getattr(comm, name, None))]
    raise TypeError(
        f"{who} expects a communicator, such as distributed.world() or mpi4py.MPI.COMM_WORLD; got "
        f"{type(comm).__name__} without {', '.join(missing)}."
    )


def gathered(comm: Communicator, array: Array) -> Array:
    """Return every rank's array, (size, *shape), of one shape and dtype on all ranks; a collective call."""
    own = np.ascontiguousarray(array)
    everyone = np.empty((comm.Get_size(), *own.shape), own.dtype)
    comm.Allgather(own, everyone)
    return everyone


def _launched(environment: Mapping[str, str]) -> int:
    """Return how many processes the launcher started, 0 if there was none."""
    found = [environment[name] for name in _SIZES if name in environment]
    return max((int(text) for text in found if text.isdecimal()), default=0)
