"""The README's code and the examples run as they stand, and learn."""

import importlib
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--data", "digits", "--epochs", "1", "--hidden", "32", "32", "--batch-size", "200"]


@pytest.fixture
def mnist(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module("mnist")
    for name in ("mnist", "_common"):
        sys.modules.pop(name, None)


@pytest.fixture
def example(monkeypatch):
    """Imports an example by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module
    for name in ("pruning", "dynamic_sparse", "_sparse", "_common"):
        sys.modules.pop(name, None)


def test_the_readmes_python_blocks_run_one_after_the_other_and_learn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks) == 5
    assert names["accuracy"] > 0.9
    printed = capsys.readouterr().out
    assert "bytes/nnz" in printed
    assert "GFLOP/s" in printed
    x = names["X_test"][:7]
    close = pytest.approx(names["model"].predict(x), abs=1e-4)
    assert names["same"].predict(x) == close


def test_the_mnist_example_learns_and_writes_what_it_printed(mnist, tmp_path, capsys):
    path = tmp_path / "run.json"
    mnist.main([*SMALL, "--lr", "0.1", "--momentum", "0.9", "--json", str(path)])
    result = json.loads(path.read_text())
    assert [r["test_accuracy"] > 0.7 for r in result["results"]] == [True] * 4
    assert result["gap"] < 0.01
    assert f"{result['results'][0]['test_accuracy']:.2%}" in capsys.readouterr().out


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
        ["--refresh-every", "0"],
        ["--lr", "nan"],
        ["--threads", "0"],
    ],
)
def test_a_bad_option_of_a_sparse_example_exits_with_2(example, name, argv):
    with pytest.raises(SystemExit) as error:
        example(name).main(argv)
    assert error.value.code == 2
