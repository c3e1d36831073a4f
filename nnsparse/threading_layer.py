"""Numba's threading layer: who may call it at once, and what becomes of it in a forked process.

==========  =====================================  =========================================================
layer       several Python threads at once         in a process forked after the first use
==========  =====================================  =========================================================
omp         each has its own team                  GNU's ends the process: one thread, without the layer
tbb         each has its own tasks                 new threads; hangs if other Python threads ran: then as omp
workqueue   ends the process: one after the other  new threads
==========  =====================================  =========================================================

So `jit` asks here before it calls a parallel kernel: `guard` is held meanwhile if there is one, and `alone` says that
the kernel is to run without Numba's threads.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

import numba

_log = logging.getLogger("nnsparse")

known = False  # whether the threads have been started, so that what follows is right
guard: AbstractContextManager[object] | None = None
alone = False
_others = False  # whether other Python threads ran at the latest fork
_finding = threading.Lock()
_calling = threading.Lock()  # the guard of the workqueue layer


def start() -> AbstractContextManager[object] | None:
    """Start Numba's threads if that has not been done, and return the guard: None where none is needed.

    Raises
    ------
    RuntimeError
        If the layer that `NUMBA_THREADING_LAYER` asks for is not there.
    """
    global known, guard
    with _finding:
        if known:
            return guard
        if alone:
            guard = nullcontext()
            _log.warning(
                "nnsparse: this process was forked from one whose threads had been started, and they do not survive a "
                "fork: its kernels run on one thread. For all threads use multiprocessing.get_context('spawn') or "
                "'forkserver', fork before the first use, or set NUMBA_THREADING_LAYER=workqueue."
            )
        else:
            _launch()
            guard = _calling if numba.threading_layer() == "workqueue" else None
        known = True
    return guard


def _launch() -> None:
    from numba.np.ufunc import parallel

    try:
        parallel._launch_threads()
    except ValueError as error:
        raise RuntimeError(
            f"Numba cannot start its threads: {' '.join(str(error).split())} NUMBA_THREADING_LAYER is "
            f"{numba.config.THREADING_LAYER!r}; expected omp, tbb or workqueue, installed. Unset it, and Numba takes "
            "the first that it finds."
        ) from error


# ---------------------------------------------------------------- fork


def _before_fork() -> None:
    """Wait until nobody starts threads or, with the workqueue layer, runs a kernel: the child begins clean."""
    global _others
    _finding.acquire()
    _calling.acquire()
    me = threading.current_thread()
    # A progress bar leaves a thread behind, which only looks at clocks.
    threads = [t for t in threading.enumerate() if type(t).__module__ != "tqdm._monitor"]
    _others = any(thread is not me for thread in threads)


def _after_fork() -> None:
    _calling.release()
    _finding.release()


def _in_child() -> None:
    """Note that the parent's threads are gone, where they do not come back by themselves."""
    global known, guard, alone
    _after_fork()
    layer = _started()
    if layer == "omp":
        vendor = import_module("numba.np.ufunc.omppool").openmp_vendor
        alone = alone or vendor == "GNU"
    elif layer == "tbb":
        alone = alone or _others
    if alone:
        known, guard = False, None


def _started() -> str:
    """Return the layer whose threads run, started by us or by anybody, or ""."""
    try:
        return str(numba.threading_layer())
    except ValueError:  # none yet
        return ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
