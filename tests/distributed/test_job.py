"""The frame around a program: cores shared out, one rank's failure is everybody's."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import nnsparse as ns
from nnsparse.distributed import Alone, StoppedError, in_threads, job, share_cores


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)


class Recorder:
    """Rank 1 of two, as far as job can see; notes what it is asked to end with."""

    Allreduce = Alone.Allreduce
    ended: int | None = None

    def Get_rank(self):  # noqa: N802
        return 1

    def Get_size(self):  # noqa: N802
        return 2

    def Allgather(self, sendbuf, recvbuf):  # noqa: N802
        recvbuf[...] = sendbuf

    def Barrier(self):  # noqa: N802
        pass

    def Abort(self, errorcode=0):  # noqa: N802
        self.ended = errorcode


def test_one_rank_uses_all_its_cores_and_raises_as_python_does(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    before = ns.get_num_threads()
    ns.set_num_threads(1)
    seen = []

    def fail():
        seen.append(ns.get_num_threads())
        raise KeyError

    with pytest.raises(KeyError), job(Alone()):
        fail()
    assert seen == [2]
    assert ns.get_num_threads() == 1
    assert capsys.readouterr().err == ""
    ns.set_num_threads(before)


def test_ranks_on_the_same_cores_share_them():
    def program(comm):
        with job(comm):
            return ns.get_num_threads()

    cores = len(os.sched_getaffinity(0))
    assert in_threads(2, program) == [max(1, cores // 2)] * 2


def test_a_rank_with_cores_of_its_own_takes_them_all(monkeypatch):
    cores = {0: {0, 1}, 1: {2, 3}}
    ranks = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores[ranks[threading.get_ident()]])

    def numbered(comm):
        ranks[threading.get_ident()] = comm.Get_rank()
        return share_cores(comm)

    assert in_threads(2, numbered) == [2, 2]


def test_threads_can_be_chosen_and_numbas_own_setting_counts(monkeypatch):
    before = ns.get_num_threads()
    try:
        assert share_cores(Alone(), threads=1) == ns.get_num_threads() == 1
        monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
        assert share_cores(Alone()) == ns.get_num_threads() >= 2
        with pytest.raises(ValueError, match="set_num_threads expects an integer from 1"):
            share_cores(Alone(), threads=0)
    finally:
        ns.set_num_threads(before)


def test_a_rank_bound_to_one_of_many_cores_is_told_how_to_have_more(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    class First(Recorder):
        def Get_rank(self):  # noqa: N802
            return 0

    with pytest.warns(UserWarning, match="one of 8 cores. For 4 threads a rank: mpirun --bind-to"):
        assert share_cores(First()) == 1


def test_an_exception_is_told_with_its_rank_and_traceback_and_ends_all(capsys):
    comm = Recorder()
    with pytest.raises(ZeroDivisionError), job(comm):
        _ = 1 / 0
    assert comm.ended == 1
    told = capsys.readouterr().err
    assert told.startswith("rank 1 of 2 failed:\nTraceback (most recent call last):\n")
    assert told.endswith("ZeroDivisionError: division by zero\n")
    assert "_ = 1 / 0" in told


@pytest.mark.parametrize(
    ("code", "ended", "told"),
    [
        (3, 3, "rank 1 of 2 failed:\n3\n"),
        ("no data", 1, "rank 1 of 2 failed:\nno data\n"),
        (0, 0, "rank 1 of 2 called sys.exit(0), which ends all ranks.\n"),
        (None, 0, "rank 1 of 2 called sys.exit(), which ends all ranks.\n"),
    ],
)
def test_an_exit_ends_all_ranks_with_its_code(code, ended, told, capsys):
    comm = Recorder()
    with pytest.raises(SystemExit), job(comm):
        raise SystemExit(code)
    assert comm.ended == ended
    assert capsys.readouterr().err == told


def test_a_rank_that_others_have_stopped_says_nothing(capsys):
    def program(comm):
        with job(comm):
            if comm.Get_rank() == 1:
                raise KeyError("mine")
            comm.Barrier()

    with pytest.raises(KeyError, match="mine"):
        in_threads(2, program)
    told = capsys.readouterr().err
    assert "rank 1 of 2" in told
    assert "rank 0 of 2" not in told
    assert StoppedError.__name__ not in told


def test_a_rank_that_ends_is_killed_by_sigterm_without_a_word():
    """The others' `Abort` sends it; taken as Ctrl-C it would write a second traceback."""
    handlers = []

    class Last(Recorder):
        def Abort(self, errorcode=0):  # noqa: N802
            handlers.append(signal.getsignal(signal.SIGTERM))

    with pytest.raises(KeyError), job(Last()):
        raise KeyError
    assert handlers == [signal.SIG_DFL]


def test_sigterm_is_taken_as_ctrl_c(capsys):
    comm = Recorder()

    def terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt), job(comm):
        terminated()
    assert comm.ended == 1
    assert "KeyboardInterrupt" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_programs_own_handler_of_sigterm_stays():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with job(Recorder()):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"comm": 3}, TypeError, "job expects a communicator.* got int without Abort"),
        ({"threads": 0}, ValueError, "set_num_threads expects an integer from 1"),
        ({"threads": 10_000}, ValueError, "set_num_threads expects an integer from 1"),
    ],
)
def test_bad_arguments_of_job(options, error, message):
    with pytest.raises(error, match=message), job(**options):
        np.zeros(1)
