"""Learning, whole epochs, at tiny sizes: its records add up, and equal networks learn the same."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import _images, _networks, _rivals, _task, learning, training  # noqa: E402
from nnsparse import datasets  # noqa: E402

LEARNING = learning.Settings(
    nets=("lenet-100",),
    sparsities=(0.5, 0.95),
    goals=(0.11, 0.999),
    epochs=2,
    checks=2,
    samples=1000,
    test_samples=300,
    threads=1,
    pause=0.0,
    rivals=("nnsparse", "masked", "dense", "numpy"),
)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """As it comes back from its JSON file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_images, "images", lambda *n: ("digits", *datasets.digits(*n)))
        return json.loads(json.dumps(learning.measure(LEARNING, control_size=64)))


def test_a_network_is_tested_several_times_an_epoch_and_its_seconds_add_up(
    result: dict[str, Any],
) -> None:
    (entry,) = result["results"]
    labels = ["nnsparse 50 %", "nnsparse 95 %", "masked 95 %", "dense", "numpy"]
    assert sorted(entry["rivals"]) == sorted(labels)
    for row in entry["rivals"].values():
        assert len(row["seconds"]) == len(row["accuracy"]) == len(row["loss"]) == 4
        assert 0 < row["seconds"][0] < row["seconds"][1] < row["seconds"][2] < row["seconds"][3]
        total = row["samples"] * row["median_ms"] * 1e-3  # of two epochs the median is the mean
        assert row["seconds"][-1] == pytest.approx(total, abs=1e-3)
        assert row["loss"][-1] < row["loss"][0]
        assert list(row["speedup"]) == ["dense", "numpy"]


def test_the_seconds_to_a_goal_are_those_of_the_first_test_that_reaches_it(
    result: dict[str, Any],
) -> None:
    for row in result["results"][0]["rivals"].values():
        first = next(i for i, accuracy in enumerate(row["accuracy"]) if accuracy >= 0.11)
        assert row["reached"]["0.11"] == pytest.approx(row["seconds"][first], abs=1e-4)
        assert row["reached"]["0.999"] is None
    text = learning.report(result)
    assert text.count(" never |") == 5
    assert "s to 99.9 %" in text


def test_networks_of_one_sparsity_learn_the_same_whoever_trains_them(
    result: dict[str, Any],
) -> None:
    rivals = result["results"][0]["rivals"]
    for one, other in (("nnsparse 95 %", "masked 95 %"), ("dense", "numpy")):
        assert rivals[one]["sparsity"] == rivals[other]["sparsity"]
        np.testing.assert_allclose(rivals[one]["loss"], rivals[other]["loss"], rtol=1e-3)
        np.testing.assert_allclose(rivals[one]["accuracy"], rivals[other]["accuracy"], atol=0.02)
    assert rivals["nnsparse 50 %"]["loss"] != rivals["nnsparse 95 %"]["loss"]


def test_a_rival_that_learns_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(task: _task.Task) -> _networks.Loop:
        return _networks.dense(replace(task, lr=0.5 * task.lr))

    rivals = {**_networks.RIVALS, "dense": _rivals.Rival(wrong, "")}
    monkeypatch.setattr(learning, "RIVALS", rivals)
    monkeypatch.setattr(_images, "images", lambda *n: ("digits", *datasets.digits(*n)))
    settings = replace(LEARNING, rivals=("numpy", "dense"), lr=0.5)
    with pytest.raises(training.WrongLossError, match="lenet-100: loss 2 of dense is"):
        learning.measure(settings, control_size=64)


def test_the_report_warns_that_the_images_were_not_mnist_s(result: dict[str, Any]) -> None:
    assert "**Not MNIST: this ran on the digits, " in learning.report(result)
    assert "Not MNIST" not in learning.report({**result, "data": "MNIST"})


def test_the_sparsities_are_those_of_nnsparse_and_the_masked_one_of_masked_rivals() -> None:
    data = np.zeros((200, 784), np.float32), np.zeros(200, np.int64)
    rivals = {name: _networks.RIVALS[name] for name in ("nnsparse", "masked", "dense")}
    runs = learning.learners(replace(LEARNING, masked=0.8), _task.NETS["lenet-100"], rivals, data)
    assert [(run.label, run.sparsity) for run in runs] == [
        ("nnsparse 50 %", 0.5),
        ("nnsparse 95 %", 0.95),
        ("masked 80 %", 0.8),
        ("dense", None),
    ]
    assert all(run.n_steps == 2 for run in runs)


def test_the_report_has_the_machine_and_the_control_and_every_rival(result: dict[str, Any]) -> None:
    text = learning.report(result)
    assert result["benchmark"] == "learning"
    assert "control, before -> after: BLAS gemm" in text
    assert "commit" in text
    assert all(f"- {rival}: " in text for rival in result["notes"])


def test_a_plot_is_drawn_and_the_result_stays_small(result: dict[str, Any], tmp_path: Path) -> None:
    assert len(json.dumps(result, indent=1)) < 100_000
    pytest.importorskip("matplotlib")
    learning.plot(result, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--nets square-2048", "unknown net square-2048; choose from thesis-64"),
        ("--sparsities ,", "no sparsity given"),
        ("--sparsities 0.5,90", "expected a fraction of zeros from 0 to below 1; got '90'"),
        ("--goals 97", "expected a number from 0 to below 1; got '97'"),
        ("--epochs 0", "expected an integer from 1 on"),
        ("--samples 300 --threads 1", "300 samples give no 4 batches of 100"),
        ("--threads 4096", "expects an integer from 1 to"),
    ],
)
def test_a_bad_argument_ends_with_code_2_and_says_why(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        learning.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
