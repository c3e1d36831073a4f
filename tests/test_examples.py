"""The README's code and the examples run as they stand, and learn."""

import importlib
import json
import re
import sys
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


def test_the_readmes_python_blocks_run_one_after_the_other_and_learn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks) == 3
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
