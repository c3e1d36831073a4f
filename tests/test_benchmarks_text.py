"""The benchmarks of text and of dead samples: small runs, what they report, what they refuse."""

import json

import pytest

from benchmarks import dead_rows, text
from benchmarks._text_report import goal

FEW = ["--data", "generated", "--samples", "8000", "--batch", "32", "--seeds", "2", "--no-loading"]


def test_a_sparse_and_a_dense_network_learn_and_are_reported(tmp_path, capsys):
    path = tmp_path / "text.json"
    assert text.main(["--nets", "hidden,sparse", *FEW, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["data"] == "generated reviews"
    assert [len(entry["runs"]) for entry in result["results"]] == [2, 2]
    assert all(run["accuracy"][-1] > 0.6 for entry in result["results"] for run in entry["runs"])
    assert goal(result["results"][0], result) == ""  # nothing is asked of generated reviews
    assert "95 % sparse" in capsys.readouterr().out


def test_the_sparse_network_is_measured_by_the_dense_one():
    def entry(name, *accuracy):
        return {"net": name, "runs": [{"accuracy": [0.5, a]} for a in accuracy]}

    result = {"data": "IMDb", "settings": {"validation": False}}
    result["results"] = [entry("hidden", 0.88, 0.89), entry("sparse", 0.882, 0.883)]
    assert goal(result["results"][1], result) == "88.20 ✓"
    result["results"][1] = entry("sparse", 0.881, 0.8819)
    assert goal(result["results"][1], result) == "88.20 ✗"
    assert goal(entry("bigrams", 0.9), result) == "90.00 ✓"


@pytest.mark.parametrize("argv", [["--nets", "poems"], ["--seeds", "0"], ["--data", "books"]])
def test_a_bad_option_exits_with_2(argv):
    with pytest.raises(SystemExit) as error:
        text.main(argv)
    assert error.value.code == 2


SMALL = ["--neurons", "64", "--depths", "2", "--dead", "0", "0.5", "--batch", "64"]


def test_dead_samples_are_dropped_and_the_gain_is_reported(tmp_path, capsys):
    path = tmp_path / "dead.json"
    assert dead_rows.main([*SMALL, "--repeats", "3", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["results"][0]["rows"]
    assert [row["dead"] for row in rows] == [0.0, 0.5]
    assert "pays from" in capsys.readouterr().out


def test_where_the_filter_begins_to_pay_lies_between_two_measured_shares():
    def row(dead, whole, filtered):
        return {"dead": dead, "whole": {"median_ms": whole}, "filtered": {"median_ms": filtered}}

    rows = [row(0.0, 1.0, 2.0), row(0.5, 2.0, 1.0)]
    assert dead_rows.pays_from(rows) == pytest.approx(0.25)
    assert dead_rows.pays_from(rows[:1]) is None
    assert dead_rows.pays_from([row(0.1, 2.0, 1.0)]) == 0.1
