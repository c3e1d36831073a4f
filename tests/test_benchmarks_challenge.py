"""The benchmark of the Graph Challenge, with few images and layers."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import _challenge, _rivals, challenge  # noqa: E402
from benchmarks._challenge import Problem  # noqa: E402
from nnsparse import datasets  # noqa: E402
from nnsparse.graph_challenge import network  # noqa: E402

TINY = challenge.Settings(
    cases=((1024, 12), (4096, 3)),
    images=70,
    threads=1,
    repeats=2,
    pause=0.0,
    rivals=tuple(name for name in _challenge.RIVALS if name != "graphblas"),
)


@pytest.fixture(scope="module")
def result():
    return challenge.measure(TINY, control_size=64)


def test_every_rival_has_figures_for_every_network(result):
    assert [(e["neurons"], e["layers"]) for e in result["results"]] == list(TINY.cases)
    for entry in result["results"]:
        assert entry["nnz"] == 32 * entry["neurons"] * entry["layers"]
        assert tuple(entry["rivals"]) == TINY.rivals
        found = {row["categories"] for row in entry["rivals"].values()}
        assert len(found) == 1
        for name, row in entry["rivals"].items():
            assert row["images"] == 70
            assert row["samples"] == 2
            assert row["rate"] == pytest.approx(70 * entry["nnz"] / row["median_ms"] * 1e3)
            assert 0 < row["total_rate"] <= row["rate"] <= row["best_rate"]
            assert (row["work_rate"] is None) == (name == "scipy")
        assert entry["rivals"]["filter"]["work_rate"] < entry["rivals"]["filter"]["rate"]


def test_the_report_has_the_machine_the_control_every_rival_and_published_figures(result):
    text = challenge.report(json.loads(json.dumps(result)))
    assert text.startswith("# Sparse DNN Graph Challenge")
    assert "control, before -> after" in text
    assert "## 1024 neurons, 12 layers, 393216 weights" in text
    assert "V100" in text
    for name in TINY.rivals:
        assert text.count(f"\n| {name} ") == 2
        assert f"\n| {name}, here " in text


def test_the_plot_is_written(result, tmp_path):
    pytest.importorskip("matplotlib")
    challenge.plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_slow_rivals_get_fewer_images(monkeypatch):
    monkeypatch.setattr(challenge, "EDGES", {**_challenge.EDGES, "scipy": 32 * 1024 * 6 * 66})
    few = replace(TINY, cases=((1024, 6),), rivals=("filter", "scipy"), repeats=1)
    rows = challenge.measure(few, control_size=64)["results"][0]["rivals"]
    assert {name: row["images"] for name, row in rows.items()} == {"filter": 70, "scipy": 66}


def test_wrong_categories_are_an_error(monkeypatch):
    def wrong(p):
        right = _challenge.scipy_csr(p)
        return lambda: replace(right(), categories=np.arange(5))

    rivals = {**_challenge.RIVALS, "scipy": _rivals.Rival(wrong, "wrong")}
    monkeypatch.setattr(challenge, "RIVALS", rivals)
    few = replace(TINY, cases=((1024, 12),), rivals=("filter", "scipy"), repeats=1)
    with pytest.raises(challenge.WrongCategoriesError, match="scipy and filter differ for"):
        challenge.measure(few, control_size=64)


def test_large_networks_get_their_images_in_blocks(monkeypatch):
    monkeypatch.setattr(_challenge, "LARGE", 1024)
    pictures = datasets.digits(n_train=70, n_test=1)[0][0]
    p = Problem(network(1024, 12), pictures)
    call = _challenge.ours(p, "filter")
    assert call().categories.tolist() == call().categories.tolist()
    assert call().categories.tolist() == _challenge.scipy_csr(p)().categories.tolist()


def test_graphblas_finds_the_same_categories():
    pytest.importorskip("graphblas")
    pictures = datasets.digits(n_train=70, n_test=1)[0][0]
    p = Problem(network(1024, 12), pictures)
    found = _challenge.graphblas(p)().categories.tolist()
    assert found == _challenge.scipy_csr(p)().categories.tolist()


def test_a_missing_graphblas_is_skipped_with_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "graphblas", None)
    _, skipped = _rivals.installed(("filter", "graphblas"), _challenge.RIVALS)
    assert len(skipped) == 1
    assert skipped[0].endswith("pip install python-graphblas[default]")


@pytest.mark.parametrize("text", ["1024", "1000x3", "1024x0", "ax3"])
def test_a_wrong_case_is_refused(text, capsys):
    with pytest.raises(SystemExit) as stop:
        challenge.main(["--cases", text])
    assert stop.value.code == 2
    assert "expected neurons x layers" in capsys.readouterr().err


def test_the_command_line_writes_what_it_measured(tmp_path, capsys):
    path = tmp_path / "r.json"
    options = ["--cases", "1024x3", "--images", "64", "--repeats", "1", "--rivals", "filter"]
    assert challenge.main([*options, "--threads", "1", "--json", str(path)]) == 0
    assert "Graph Challenge" in capsys.readouterr().out
    assert json.loads(path.read_text())["settings"]["images"] == 64
