"""The wide example learns, reports what it cost, and draws the cost against width."""

import importlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nnsparse import sparsify

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--neurons", "3000", "--samples", "512", "--epochs", "2", "--batch-size", "16"]


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module("wide")
    for name in ("wide", "_wide", "_common"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("recipe", ["none", "set", "rigl"])
def test_the_network_learns_and_its_weights_move_if_they_are_to(
    wide, recipe, tmp_path, capsys, monkeypatch
):
    made = []

    make = sparsify.Sparsifier

    def sparsifier(*arguments, **settings):
        made.append(make(*arguments, **settings))
        return made[-1]

    monkeypatch.setattr(wide, "Sparsifier", sparsifier)
    path = tmp_path / "run.json"
    wide.main([*SMALL, "--recipe", recipe, "--json", str(path)])
    printed = capsys.readouterr().out
    result = json.loads(path.read_text())
    assert result["layers"] == [300, 1000, 1000, 1000, 10]
    assert result["test_accuracy"] > 0.5
    assert result["peak_bytes"] >= result["bytes_before"] > 10**7
    assert printed.count("peak memory") == 2
    assert f"{result['weights']:,} parameters" in printed
    grown = [record.grown for each in made for record in each.history]
    assert len(grown) == {"none": 0, "set": 4, "rigl": 3}[recipe]
    assert all(grown)
    assert len(made) == (recipe != "none")


def test_the_hidden_layers_have_so_many_inputs_a_neuron_and_the_data_so_many_features_a_row(wide):
    layers = wide.sizes(30_000, 3, 5000)
    assert layers == [5000, 10_000, 10_000, 10_000, 100, 10]
    model = wide.network(layers, 7, np.random.default_rng(0))
    topologies = [model[i].weight.topology for i in (0, 2, 4, 6)]
    assert [t.nnz / max(t.shape) for t in topologies] == [7, 7, 7, 7]
    (x, y), (_, y_test) = wide.planted(50, 20, 5000, np.random.default_rng(0))
    assert x.shape == (50, 5000)
    assert np.bincount(x.indices).sum() <= 50 * 100
    np.testing.assert_allclose(x.sum(axis=1), 100 * 50**0.5, rtol=1e-5)
    assert set(y) | set(y_test) <= set(range(10))


def test_the_cost_by_width_is_a_table_and_a_picture_with_one_process_a_width(
    wide, tmp_path, capsys, monkeypatch
):
    calls, peaks = [], iter(range(1, 9))

    def run(command, **settings):
        calls.append(command)
        wide.main(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sys.modules["_wide"].subprocess, "run", run)
    monkeypatch.setattr(wide, "peak_gb", lambda: next(peaks))
    argv = ["--widths", "3000", "900", *SMALL[2:], "--json", str(tmp_path / "cost.json")]
    picture = tmp_path / "cost.png"
    if find_spec("matplotlib"):
        argv += ["--plot", str(picture)]
    wide.main(argv)
    rows = json.loads((tmp_path / "cost.json").read_text())
    assert [row["neurons"] for row in rows] == [900, 3000]
    assert "us/step" in capsys.readouterr().out
    assert len(calls) == 2
    if find_spec("matplotlib"):
        assert picture.stat().st_size > 1000


def test_a_width_that_fails_ends_the_comparison(wide, monkeypatch):
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(sys.modules["_wide"].subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="the run of 900 neurons failed"):
        wide.main(["--widths", "900"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--neurons", "50"], "expected at least 100"),
        (["--neurons", "900", "--hidden-layers", "10"], "--neurons expects 100 for each"),
        (["--lr", "0"], "--lr expects a number above 0"),
        (["--lr", "nan"], "--lr expects a number above 0"),
        (
            ["--plot", "cost.png"],
            "give --widths too" if find_spec("matplotlib") else "needs matplotlib",
        ),
        (["--recipe", "magic"], "invalid choice"),
        (["--batch-size", "0"], "expected at least 1"),
        (["--json", "/no/such/folder/x.json"], "cannot write"),
    ],
)
def test_a_bad_option_exits_with_2_and_says_what_was_expected(
    wide, argv, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        wide.main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_network_that_does_not_fit_says_how_much_it_needs(wide):
    with pytest.raises(SystemExit, match=r"needs about .* GB, .* GB available"):
        wide.main(["--neurons", "3000000000", "--features", "1000", "--samples", "32"])


def test_a_network_that_did_not_learn_is_an_error(wide):
    with pytest.raises(SystemExit, match="did not learn"):
        wide.main([*SMALL, "--lr", "1e-9"])
