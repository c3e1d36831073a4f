"""Python threads, forked and spawned processes, on each of Numba's threading layers; each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnsparse
from nnsparse import threading_layer

ROOT = Path(nnsparse.__file__).parents[1]
LAYERS = ("omp", "tbb", "workqueue")

# Trains a network with RigL, and returns the bits of its weights and predictions.
TRAINING = """
import multiprocessing, os, sys, threading, time
import numpy as np, numba
import nnsparse as ns
from nnsparse import data, nn, optim, sparsify, threading_layer, train

def training(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((300, 40)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
    model = nn.mlp([40, 200, 30, 2], sparsity=0.8, rng=seed)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = data.DataLoader((X, y), batch_size=50, rng=seed)
    rigl = sparsify.Sparsifier(model, optimizer, sparsify.rigl(every=4), total_steps=18, rng=seed)
    train.fit(model, nn.CrossEntropyLoss(), optimizer, loader, epochs=3, updates=[rigl], progress=False)
    state = model.state_dict()
    return model, X, b"".join(state[name].tobytes() for name in sorted(state))

def together(*calls):
    found = [None] * len(calls)
    def run(i):
        found[i] = calls[i]()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    [t.start() for t in threads]; [t.join() for t in threads]
    return found

def child_of(work):
    '''Fork, work in the child, return its exit code; a hanging child is killed.'''
    pid = os.fork()
    if pid == 0:
        try:
            code = work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            code = 99
        os._exit(code)
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hangs"
"""

THREADS = """
alone = [training(seed) for seed in (1, 2)]
pair = together(lambda: training(1), lambda: training(2))
assert [p[2] for p in pair] == [a[2] for a in alone], "two trainings at once disturb each other"
model, X, _ = alone[0]
wanted, frozen = model.predict(X), ns.compile(model)
def ask(i):
    def run():
        return all(np.array_equal(m.predict(X[: 100 + i]), w[: 100 + i]) for m, w in asked * 10)
    return run
asked = [(model, wanted), (frozen, frozen.predict(X))]
assert all(together(*(ask(1) for _ in range(4)))), "predictions at once differ"
"""

FORK = """
def predicts():
    same = np.allclose(model.predict(X), wanted, rtol=1e-5, atol=1e-6)
    # Alone, a training would have to compile a dozen kernels.
    again = threading_layer.alone or training(1)[2] == alone[0][2]
    return 10 * (not same) + (not again) + 5
assert child_of(predicts) == 5, "a forked child computes something else"
assert np.array_equal(model.predict(X), wanted)
over = threading.Event()
def busy():
    while not over.is_set():
        model.predict(X)
other = threading.Thread(target=busy)
other.start()
codes = [child_of(predicts) for _ in range(2)]
over.set()
other.join()
assert codes == [5, 5], codes
"""


def run(code, layer, check=True, **environment):
    """Run code in a fresh interpreter on a layer; skip if that layer is not installed."""
    places = [str(Path(sys.prefix) / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]  # pip's tbb
    process = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NUMBA_THREADING_LAYER": layer,
            "NUMBA_NUM_THREADS": "2",
            "LD_LIBRARY_PATH": ":".join(filter(None, places)),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if "Numba cannot start its threads: No threading layer could be loaded" in process.stderr:
        pytest.skip(f"the layer {layer} is not installed")
    if check:
        assert process.returncode == 0, process.stderr
    return process


@pytest.mark.parametrize("layer", LAYERS)
def test_trainings_and_predictions_at_once_and_in_forked_children_are_as_alone(layer):
    code = TRAINING + THREADS + (FORK if hasattr(os, "fork") else "")
    code += f"assert numba.threading_layer() == {layer!r}\n"
    process = run(code, layer)
    told = process.stderr.count("its kernels run on one thread")
    if sys.platform == "linux":  # of one fork while nothing else ran, two while a thread did
        assert told == {"omp": 3, "tbb": 2, "workqueue": 0}[layer], process.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU's OpenMP does not survive a fork")
def test_a_child_of_a_process_in_which_others_used_numba_runs_alone_too():
    code = TRAINING + (
        "numba.set_num_threads(1)\n"  # starts the threads, and we know nothing of it
        "def work():\n"
        "    ns.set_num_threads(2)\n"
        "    nn.Linear(4, 4, rng=0).predict(np.ones((2, 4)))\n"
        "    return 7 if ns.get_num_threads() == 1 and threading_layer.alone else 1\n"
        "assert child_of(work) == 7\n"
        "assert child_of(lambda: child_of(work)) == 7  # a child's child\n"
        "assert not threading_layer.alone\n"
    )
    assert run(code, "omp").stderr.count("one thread") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_forked_before_the_first_use_has_all_threads():
    code = TRAINING + (
        "def work():\n"
        "    nn.Linear(4, 4, rng=0).predict(np.ones((2, 4)))\n"
        "    return 2 + ns.get_num_threads()\n"
        "assert child_of(work) == 4\n"
    )
    assert "one thread" not in run(code, "omp").stderr


def test_a_spawned_process_predicts(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "import numpy as np\n"
        "from nnsparse import nn\n"
        "model = nn.mlp([4, 3, 2], sparsity=0.5, rng=0)\n"
        "def ask(x):\n"
        "    return model.predict(x)\n"
        "if __name__ == '__main__':\n"
        "    x = np.ones((5, 4), np.float32)\n"
        "    wanted = ask(x)\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        assert np.array_equal(pool.apply(ask, (x,)), wanted)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script], env=environment, check=True, timeout=300)


@pytest.mark.parametrize("layer", ["quatsch", "tbb"])
def test_a_layer_that_is_not_there_is_refused_with_its_name(layer):
    code = "import nnsparse; nnsparse.get_num_threads()"
    broken = {"LD_LIBRARY_PATH": ""} if layer == "tbb" else {}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_THREADING_LAYER": layer, **broken},
        capture_output=True,
        text=True,
        check=False,
    )
    if layer == "tbb" and process.returncode == 0:
        pytest.skip("tbb is installed where it is found without help")
    assert "RuntimeError: Numba cannot start its threads" in process.stderr
    assert f"NUMBA_THREADING_LAYER is '{layer}'; expected omp, tbb or workqueue" in process.stderr


def test_this_process_knows_its_layer_and_is_not_alone():
    guard = threading_layer.start()
    assert threading_layer.known
    assert not threading_layer.alone
    assert (guard is not None) == (threading_layer._started() == "workqueue")
