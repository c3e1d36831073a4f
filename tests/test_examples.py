"""The examples run as they stand, and learn."""

import argparse
import importlib
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = "mnist", "pruning", "dynamic_sparse", "forward_gradient", "imdb"
SMALL = ["--data", "digits", "--epochs", "1", "--hidden", "32", "32", "--batch-size", "200"]


@pytest.fixture
def mnist(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module("mnist")
    for name in ("mnist", "_distributed", "_common"):
        sys.modules.pop(name, None)


@pytest.fixture
def example(monkeypatch):
    """Imports an example by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module
    for name in (*NAMES, "_distributed", "_sparse", "_sparse_report", "_common"):
        sys.modules.pop(name, None)


def test_the_mnist_example_learns_and_writes_what_it_printed(mnist, tmp_path, capsys):
    path = tmp_path / "run.json"
    mnist.main([*SMALL, "--lr", "0.1", "--momentum", "0.9", "--json", str(path)])
    result = json.loads(path.read_text())
    assert [r["test_accuracy"] > 0.7 for r in result["results"]] == [True] * 4
    assert result["gap"] < 0.01
    assert f"{result['results'][0]['test_accuracy']:.2%}" in capsys.readouterr().out


def test_without_mpirun_the_mnist_example_trains_distributed_on_one_process(
    mnist, tmp_path, capsys
):
    path = tmp_path / "run.json"
    mnist.main([*SMALL, "--lr", "0.1", "--momentum", "0.9", "--distributed", "--json", str(path)])
    result = json.loads(path.read_text())
    assert result["report"]["ranks"] == 1
    printed = capsys.readouterr().out
    assert f"{result['history']['validation_accuracy'][0]:.2%}" in printed
    assert "1 rank, 150 steps; nothing was sent" in printed


@pytest.mark.parametrize(
    "argv",
    [
        ["--sparsity", "1.5"],
        ["--hidden", "8"],
        ["--epochs", "0"],
        ["--lr", "nan"],
        ["--threads", "0"],
    ],
)
def test_a_bad_option_of_the_mnist_example_exits_with_2(mnist, argv):
    with pytest.raises(SystemExit) as error:
        mnist.main(argv)
    assert error.value.code == 2


SPARSE = ["--data", "digits", "--epochs", "2", "--hidden", "64", "32"]


@pytest.mark.parametrize(
    ("name", "recipes", "others"),
    [
        ("pruning", ["agp", "snip", "iterative"], ["dense"]),
        ("dynamic_sparse", ["rigl", "set", "granet"], ["static", "dense"]),
    ],
)
def test_a_sparse_example_learns_at_the_sparsity_asked_for_and_writes_what_it_printed(
    example, name, recipes, others, tmp_path, capsys
):
    path, plot = tmp_path / "run.json", tmp_path / "run.png"
    argv = [*SPARSE, "--sparsity", "0.8", "--json", str(path)]
    if find_spec("matplotlib"):
        argv += ["--plot", str(plot)]
    example(name).main([*argv, "--recipe", *recipes])
    results = json.loads(path.read_text(), parse_constant=pytest.fail)["results"]
    assert [r["network"] for r in results] == [*recipes, *others]
    assert [r["test_accuracy"] > 0.7 for r in results] == [True] * len(results)
    size = 784 * 64 + 64 * 32 + 32 * 10
    assert [r["nnz"] for r in results] == [round(0.2 * size)] * (len(results) - 1) + [size]
    assert [len(r["updates"]) > 0 for r in results] == [True] * 3 + [False] * len(others)
    printed = capsys.readouterr().out
    for r in results:
        assert f"{r['test_accuracy']:.2%}" in printed
    assert not find_spec("matplotlib") or plot.stat().st_size > 10_000


REVIEWS = [
    "--data",
    "generated",
    "--epochs",
    "1",
    "--hidden",
    "64",
    "--dim",
    "16",
    "--vocabulary",
    "4000",
]


def test_the_imdb_example_learns_and_writes_what_it_printed(example, tmp_path, capsys):
    path, plot = tmp_path / "run.json", tmp_path / "run.png"
    argv = [*REVIEWS, "--sparsity", "0.8", "--lr", "0.01", "--json", str(path)]
    if find_spec("matplotlib"):
        argv += ["--plot", str(plot)]
    example("imdb").main(argv)
    results = json.loads(path.read_text(), parse_constant=pytest.fail)["results"]
    assert [r["network"] for r in results] == ["static", "dense"]
    assert [r["nnz"] for r in results] == [round(0.2 * 64 * 18), 64 * 18]
    assert min(r["test_accuracy"] for r in results) > 0.75
    assert f"{results[0]['test_accuracy']:.2%}" in capsys.readouterr().out
    assert not find_spec("matplotlib") or plot.stat().st_size > 10_000


def test_the_imdb_example_writes_frozen_features(example, tmp_path, capsys):
    path = tmp_path / "features.npz"
    example("imdb").main([*REVIEWS, "--features", "24", "--out", str(path)])
    with np.load(path) as found:
        assert found["x"].shape == (1024, 24)
        assert found["x"].dtype == np.float32
        assert np.abs(found["x"]).max() < 1  # means of many rows
        assert set(found["y"]) == {0, 1}
    assert str(path) in capsys.readouterr().out


STRUCTURED = ["lottery_ticket", "neurons", "n_m", "sr_ste", "group_lasso"]


def test_recipes_of_structures_and_tickets_learn_and_neurons_are_taken_out(
    example, tmp_path, capsys
):
    path, plot = tmp_path / "run.json", tmp_path / "run.png"
    argv = [*SPARSE, "--sparsity", "0.75", "--strength", "0.01", "--json", str(path)]
    if find_spec("matplotlib"):
        argv += ["--plot", str(plot)]
    example("pruning").main([*argv, "--recipe", *STRUCTURED])
    results = json.loads(path.read_text(), parse_constant=pytest.fail)["results"]
    assert [r["network"] for r in results] == [*STRUCTURED, "dense"]
    assert [r["test_accuracy"] > 0.7 for r in results] == [True] * len(results)
    size = 784 * 64 + 64 * 32 + 32 * 10
    ticket, neurons, n_m, sr_ste, group_lasso, dense = (r["nnz"] / size for r in results)
    assert ticket == pytest.approx(0.25, abs=1e-4)
    assert 0.2 < neurons <= 0.25
    assert n_m == sr_ste == pytest.approx(0.25, abs=1e-4)  # 1 of 4
    assert group_lasso < dense == 1
    printed = capsys.readouterr().out
    assert re.search(r"\nneurons, compacted: 784-\d\d-\d\d?-10, [\d.]+ MB", printed)
    assert "dense, compacted" not in printed


def test_n_of_m_is_the_nearest_to_a_sparsity(example):
    pairs = [example("pruning").n_of_m(s) for s in (0.5, 0.75, 0.9, 0.95, 1 / 3, 0.99)]
    assert pairs == [(2, 4), (1, 4), (1, 10), (1, 20), (4, 6), (1, 100)]


def test_the_forward_gradient_learns_by_a_seed(example, capsys, monkeypatch):
    module = example("forward_gradient")
    monkeypatch.setattr(module, "RATES", {"forward gradient": (0.003,), "backpropagation": (1.0,)})
    printed = []
    for seed in ("0", "0", "1"):
        module.main(["--data", "digits", "--epochs", "2", "--seed", seed])
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        printed.append([row[3:5] for row in rows if row[:1] == ["forward"]])
    assert printed[0] == printed[1] != printed[2]


@pytest.mark.parametrize("name", ["mnist", "pruning", "dynamic_sparse", "forward_gradient"])
def test_a_file_that_cannot_be_written_is_refused_before_the_training(
    example, name, tmp_path, capsys
):
    options = ["--plot"] if name == "forward_gradient" else ["--json", "--plot"]
    for option in options:
        for path in (tmp_path / "missing" / "run.png", tmp_path):
            with pytest.raises(SystemExit) as error:
                example(name).main([option, str(path)])
            assert error.value.code == 2
            assert f"argument {option}: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_path_that_can_be_written_is_left_as_it_was(example, tmp_path):
    common = example("_common")
    there, new = tmp_path / "there.png", tmp_path / "new.png"
    there.write_text("old")
    for path in (there, new):
        assert common.output_file(str(path)) == path
    assert there.read_text() == "old"
    assert not new.exists()
    if find_spec("matplotlib"):
        assert common.picture_file(str(new)) == new
        with pytest.raises(argparse.ArgumentTypeError, match=r"draws .*png.*; got 'run\.xyz'"):
            common.picture_file("run.xyz")


def test_a_network_that_is_too_sparse_to_learn_is_reported(example):
    with pytest.raises(SystemExit, match=r"Did not learn: random\."):
        example("pruning").main([*SPARSE, "--recipe", "random", "--sparsity", "0.999"])


def test_a_recipe_that_does_not_fit_the_training_says_so_without_a_traceback(example):
    argv = [*SPARSE, "--batch-size", "10000"]
    with pytest.raises(SystemExit, match="rigl: no update is due: every=100 steps"):
        example("dynamic_sparse").main(argv)


@pytest.mark.parametrize("name", ["pruning", "dynamic_sparse"])
@pytest.mark.parametrize(
    "argv",
    [
        ["--recipe", "magic"],
        ["--sparsity", "0"],
        ["--hidden", "0"],
        ["--epochs", "0"],
        ["--epochs", "many"],
        ["--seed", "-1"],
        ["--refresh-every", "0"],
        ["--lr", "nan"],
        ["--threads", "0"],
    ],
)
def test_a_bad_option_of_a_sparse_example_exits_with_2(example, name, argv):
    with pytest.raises(SystemExit) as error:
        example(name).main(argv)
    assert error.value.code == 2
