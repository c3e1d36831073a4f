"""The benchmark of the estimators: a small run, what it reports, what it refuses."""

import json

import pytest

from benchmarks import estimators

SMALL = ["--hidden", "32,16", "--samples", "600", "--test-samples", "200", "--epochs", "4"]


def test_both_estimators_are_fitted_and_compared(tmp_path, capsys):
    path = tmp_path / "estimators.json"
    assert estimators.main([*SMALL, "--sparsity", "0.8", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    ours, theirs, again = result["results"]
    assert [ours["rival"], theirs["rival"]] == [estimators.OURS, estimators.THEIRS]
    assert ours["accuracy"] == again["accuracy"]
    assert ours["weights"] == round(0.2 * theirs["weights"])
    assert len(ours["validation"]) == ours["epochs"] <= 4
    printed = capsys.readouterr().out
    assert "times faster" in printed
    assert "test accuracy" in printed
    pytest.importorskip("matplotlib")
    estimators.plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_goal_is_met_by_speed_and_accuracy_together():
    def row(name, seconds, accuracy):
        return {"rival": name, "seconds": seconds, "accuracy": accuracy, "weights": 1, "epochs": 1}

    results = [row(estimators.OURS, 1.0, 0.98), row(estimators.THEIRS, 12.0, 0.975)]
    faster, better = estimators.gain({"results": [*results, row(estimators.OURS, 2.0, 0.98)]})
    assert faster == 6.0
    assert better == pytest.approx(0.005)


@pytest.mark.parametrize(
    "argv", [["--recipe", "magic"], ["--sparsity", "95"], ["--hidden", "10,0"], ["--epochs", "0"]]
)
def test_a_bad_option_exits_with_2(argv):
    with pytest.raises(SystemExit) as error:
        estimators.main(argv)
    assert error.value.code == 2
