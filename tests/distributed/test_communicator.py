"""Who takes part: MPI's world, one process alone, and what is no communicator."""

import subprocess
import sys
import types

import numpy as np
import pytest

from nnsparse.distributed import Alone, in_threads, world
from nnsparse.distributed.communicator import _launched, checked, gathered

LAUNCHER = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)


def test_a_process_that_no_launcher_started_is_alone_and_loads_no_mpi():
    program = (
        "import sys; from nnsparse import distributed as d; assert repr(d.world()) == 'Alone()'; "
        "assert 'mpi4py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_alone_hands_back_what_it_is_given():
    comm, out = Alone(), np.empty(2)
    comm.Allreduce(np.array([1.0, 2.0]), out)
    assert out.tolist() == [1, 2]
    assert gathered(comm, np.arange(4).reshape(2, 2)).tolist() == [[[0, 1], [2, 3]]]
    assert (comm.Get_rank(), comm.Get_size(), comm.Barrier(), comm.Abort(1)) == (0, 1, None, None)
    assert repr(comm) == "Alone()"


@pytest.mark.parametrize("name", LAUNCHER)
def test_several_processes_without_mpi4py_are_told_which_extra_to_install(monkeypatch, name):
    monkeypatch.setenv(name, "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # import fails
    with pytest.raises(ImportError, match=r"^2 processes .* pip install 'nnsparse\[mpi\]'"):
        world()


class World:
    """Alone, but of another size."""

    Get_rank, Allreduce, Allgather = Alone.Get_rank, Alone.Allreduce, Alone.Allgather
    Barrier, Abort = Alone.Barrier, Alone.Abort

    def __init__(self, size):
        self.size = size

    def Get_size(self):  # noqa: N802
        return self.size


def fake_mpi(monkeypatch, size):
    module = types.ModuleType("mpi4py.MPI")
    module.COMM_WORLD = World(size)
    module.Get_library_version = lambda: "Open MPI v5.0.11, package: here"
    package = types.ModuleType("mpi4py")
    package.MPI = module
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    return module


def test_under_a_launcher_the_world_is_that_of_mpi(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    module = fake_mpi(monkeypatch, 2)
    assert world() is module.COMM_WORLD


def test_a_program_that_has_imported_mpi_gets_its_world(monkeypatch):
    module = fake_mpi(monkeypatch, 1)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", module)
    assert world() is module.COMM_WORLD


def test_a_launcher_of_another_mpi_than_mpi4pys_is_refused(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    fake_mpi(monkeypatch, 1)
    with pytest.raises(RuntimeError, match=r"4 processes, .* alone: .* Open MPI v5\.0\.11\. Start"):
        world()


def test_the_number_of_processes_is_what_the_launcher_says():
    assert _launched({}) == 0
    assert _launched({"PMI_SIZE": "3", "OMPI_COMM_WORLD_SIZE": "x"}) == 3


def test_what_lacks_methods_is_no_communicator():
    assert checked("f", Alone())
    with pytest.raises(
        TypeError,
        match=r"f expects a communicator.* got object without Abort, Allgather, Allreduce",
    ):
        checked("f", object())


def test_threads_sum_and_gather_in_the_order_of_the_ranks():
    def program(comm):
        rank, total = comm.Get_rank(), np.empty(2, np.float32)
        comm.Allreduce(np.float32([rank, 1]), total)
        comm.Barrier()
        return total.tolist(), gathered(comm, np.array([rank])).tolist(), repr(comm)

    results = in_threads(3, program)
    assert [r[0] for r in results] == [[3, 3]] * 3
    assert [r[1] for r in results] == [[[0], [1], [2]]] * 3
    assert results[1][2] == "rank 1 of 3 threads"


def test_a_thread_that_fails_stops_the_others_and_its_error_is_raised():
    def program(comm):
        if comm.Get_rank() == 1:
            raise KeyError("mine")
        comm.Barrier()

    with pytest.raises(KeyError, match="mine"):
        in_threads(3, program)


@pytest.mark.parametrize("size", [0, True, 1.0, "2"])
def test_in_threads_expects_a_number_of_ranks(size):
    with pytest.raises(ValueError, match="in_threads expects the number of ranks"):
        in_threads(size, print)
