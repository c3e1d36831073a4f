"""`job`: the frame around a program that runs on several processes. It shares the cores out and ends all together."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

import numpy as np

from nnsparse import jit
from nnsparse.distributed.communicator import Communicator, checked, gathered, world
from nnsparse.distributed.threads import StoppedError

# Seconds for which other ranks let rank 0 speak first: where all fail alike, one message is enough.
_GRACE = 0.3


@contextmanager
def job(comm: Communicator | None = None, *, threads: int | None = None) -> Iterator[Communicator]:
    """Run the block as one rank of several: cores shared out, all stopped if one fails.

    An exception that leaves the block on one rank is written to stderr, with that rank's number and traceback, and ends
    all ranks; nobody is left waiting. `sys.exit` is one, with code 0 too: it ends all ranks at once, whatever they are
    doing, with that code, for they may be waiting for this one. A rank that has nothing left to do leaves the block
    without. SIGTERM, which mpirun sends on Ctrl-C and batch systems before a time limit, is taken as Ctrl-C:
    `train.fit` returns after the step under way. With one rank, all of this is left to Python.

    Parameters
    ----------
    comm : Communicator, optional
        Default: `world()`.
    threads : int, optional
        Of the kernels in this process. Default: its share of the cores that it may use; what `NUMBA_NUM_THREADS`
        says where that is set.

    Yields
    ------
    Communicator

    Raises
    ------
    TypeError, ValueError
        If `comm` is no communicator, or there are fewer cores than threads.
    ImportError, RuntimeError
        As `world`.

    Examples
    --------
    >>> with job() as comm:
    ...     comm.Get_size()
    1
    """
    team = checked("job", world() if comm is None else comm)
    before = jit.get_num_threads()
    with stop_together(team):
        share_cores(team, threads)
        try:
            yield team
        finally:
            jit.set_num_threads(before)


def share_cores(comm: Communicator, threads: int | None = None) -> int:
    """Use this rank's part of its cores for the kernels; return how many threads that is. A collective call.

    Ranks on one node that may run on the same cores share them equally; a rank that the launcher has bound to cores of
    its own takes all of those.

    Parameters
    ----------
    comm : Communicator
    threads : int, optional
        Instead of the equal part.

    Warns
    -----
    UserWarning
        If the launcher has bound each rank to one core, and there are cores that no rank may use.

    Raises
    ------
    ValueError
        If `threads` is no integer from 1 to the number of cores.
    """
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else range(_cores())
    node, own = zlib.crc32(socket.gethostname().encode()), zlib.crc32(repr(list(cores)).encode())
    everyone = gathered(comm, np.array([node, own], np.int64))
    here = everyone[everyone[:, 0] == node]
    sharing = int((here[:, 1] == own).sum())
    if threads is None and "NUMBA_NUM_THREADS" in os.environ:
        threads = jit.MAX_THREADS
    if threads is None:
        if len(cores) == 1 and _cores() >= 2 * len(here) > 2 and comm.Get_rank() == 0:
            warnings.warn(
                f"the launcher has bound each rank to one of {_cores()} cores. For {_cores() // len(here)} threads a "
                "rank: mpirun --bind-to none ...",
                stacklevel=2,
            )
        threads = min(jit.MAX_THREADS, max(1, len(cores) // sharing))
    jit.set_num_threads(threads)
    return threads


@contextmanager
def rank_0_first(comm: Communicator) -> Iterator[None]:
    """Run the block on rank 0, and only then on the others: for what leaves files that they find, such as downloads.

    The block may not call the communicator. A collective call.
    """
    first = comm.Get_rank() == 0
    if not first:
        comm.Barrier()
    yield
    if first:
        comm.Barrier()


@contextmanager
def stop_together(comm: Communicator) -> Iterator[None]:
    """End all ranks, with this one's message and traceback, if an exception leaves the block."""
    if comm.Get_size() == 1:
        yield
        return
    try:
        with _terminated_as_interrupted():
            yield
    except StoppedError:
        raise
    except BaseException as error:
        # From here on SIGTERM, another rank's doing, ends this one without a word.
        code = error.code if isinstance(error, SystemExit) else 1
        time.sleep(_GRACE if comm.Get_rank() else 0.0)
        _tell(comm, error)
        comm.Abort(code if isinstance(code, int) else int(code is not None))
        raise


def _tell(comm: Communicator, error: BaseException) -> None:
    """Write what ended this rank, in one piece, so that lines of several ranks do not mix."""
    rank = f"rank {comm.Get_rank()} of {comm.Get_size()}"
    if not isinstance(error, SystemExit):
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        text = f"{rank} failed:\n{trace}"
    elif error.code in (None, 0):
        text = f"{rank} called sys.exit({'' if error.code is None else 0}), which ends all ranks.\n"
    else:
        text = f"{rank} failed:\n{error}\n"
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, where the program does not handle it itself."""
    ours = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours or threading.current_thread() is not threading.main_thread():
        with nullcontext():
            yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _cores() -> int:
    """Return the cores of this machine."""
    return os.cpu_count() or 1
