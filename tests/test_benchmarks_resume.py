"""The benchmark of resuming: what it compares, how it reports, what it refuses."""

import copy

import numpy as np
import pytest

from benchmarks import resume
from benchmarks._resume_report import PARTS, good
from nnsparse import data, nn, optim, schedule, train
from nnsparse.sparsify import Sparsifier, rigl


def run(path, seed=0):
    rng = np.random.default_rng(0)
    model = nn.mlp([8, 12, 3], sparsity=0.5, rng=seed)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = data.DataLoader((rng.random((40, 8)), rng.integers(0, 3, 40)), batch_size=10, rng=0)
    updates = [
        Sparsifier(model, optimizer, rigl(0.5, every=3), 8),
        optim.LRScheduler(optimizer, schedule.cosine(), 8),
    ]
    options = {"updates": updates, "checkpoint": train.Checkpoint(path), "progress": False}
    train.fit(model, nn.CrossEntropyLoss(), optimizer, loader, epochs=2, **options)
    return resume.digests(path)


def test_equal_runs_are_equal_in_all_parts_and_others_in_none_that_training_moves(tmp_path):
    first, again, other = run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", seed=1)
    assert tuple(first) == PARTS
    assert first == again
    assert all(first[part] != other[part] for part in PARTS[:-1])


TRIAL = {
    "step": 7,
    "delay": 0.01,
    "in_save": False,
    "had_checkpoint": True,
    "resumed_at": 6,
    "seconds": 1.0,
    "same": dict.fromkeys(PARTS, True),
    "leftovers": 0,
}


def result(*trials):
    return {
        "machine": MACHINE,
        "settings": {"sparsity": 0.9, "save_every": 3},
        "data": "MNIST",
        "steps": 30,
        "updates": 4,
        "bytes": 500_000,
        "seconds_of": {"alone": 1.0, "saving": 1.1},
        "trials": list(trials),
        "failures": [{"name": "disk full", "message": "no space", "intact": True, "same": False}],
    }


MACHINE = {
    "cpu": "CPU", "cores": 2, "caches": {}, "simd_bits": 512, "threads": 1, "threading_layer": "omp",
    "blas_threads_set_by": "x", "load_before": 0.1, "versions": {}, "blas": "b", "python": "3",
    "commit": "c", "time": "t", "system": "s",
}  # fmt: skip


def test_a_run_that_differs_or_leaves_files_is_not_counted(tmp_path):
    differs = copy.deepcopy(TRIAL)
    differs["same"]["topology"] = False
    untidy = {**TRIAL, "leftovers": 1, "in_save": True}
    assert [good(t) for t in (TRIAL, differs, untidy)] == [True, False, False]
    text = resume.report(result(TRIAL, differs, untidy))
    assert "3 random moments: 1 of 3 ended" in text
    assert text.rstrip().endswith("NO |")
    pytest.importorskip("matplotlib")
    resume.plot(result(TRIAL, untidy), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("argv", [["--kills", "0"], ["--sparsity", "2"], ["--save-every", "x"]])
def test_a_bad_option_exits_with_2(argv):
    with pytest.raises(SystemExit) as error:
        resume.main(argv)
    assert error.value.code == 2
