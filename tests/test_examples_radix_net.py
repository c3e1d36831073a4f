"""`examples/radix_net.py` runs and learns, and refuses what makes no RadiX-Net."""

import importlib
import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = ["--data", "digits", "--epochs", "1", "--batch-size", "100", "--lr", "0.01"]


@pytest.fixture
def radix_net(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("radix_net")
    for name in ("radix_net", "_common"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "options", [[], ["--radices", "4", "4", "--radices", "4", "--hidden", "64", "64", "32"]]
)
def test_the_example_learns_at_the_density_of_its_radices(radix_net, tmp_path, capsys, options):
    path = tmp_path / "run.json"
    radix_net.main([*SMALL, *options, "--json", str(path)])
    results = json.loads(path.read_text())["results"]
    assert [r["network"] for r in results] == ["RadiX-Net", "random", "dense"]
    assert [r["test_accuracy"] > 0.7 for r in results] == [True] * 3
    assert results[0]["parameters"] == results[1]["parameters"] < results[2]["parameters"] / 3
    printed = capsys.readouterr().out
    assert f"{results[0]['test_accuracy']:.2%}" in printed
    assert "Published" in printed
    if not options:
        assert "density 10.0%, 3 paths" in printed
        assert results[0]["parameters"] == 800 * 30 + 300 * 10 + 100 * 10 + 300 + 100 + 10


@pytest.mark.parametrize(
    "options",
    [
        ["--radices", "1", "10"],
        ["--radices", "10"],
        ["--hidden", "301", "100"],
        ["--radices", "10", "10", "--radices", "3"],
        ["--lr", "nan"],
        ["--epochs", "0"],
    ],
)
def test_options_that_make_no_radix_net_exit_with_2(radix_net, options, capsys):
    with pytest.raises(SystemExit) as error:
        radix_net.main(options)
    assert error.value.code == 2
    assert "expects" in capsys.readouterr().err or "--epochs" in options
