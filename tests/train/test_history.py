"""`History`: arrays by name, a table, JSON and CSV."""

import csv
import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from nnsparse.train import Epoch, History

NAN = float("nan")


def history(**changes):
    epochs = (
        Epoch(3, 0.9, 0.7, 0.625, 0.3, 0.1),
        Epoch(3, 0.5, 0.4, 0.875, 0.6, 0.05),
        Epoch(3, 0.4, 0.45, 0.75, 0.3, 0.025),
    )
    values = {"epochs": epochs, "step_loss": np.arange(9.0), "step_seconds": np.full(9, 0.1)}
    return History(**{**values, **changes})


def test_every_array_is_had_by_its_name():
    h = history()
    table = {
        "epoch": [1, 2, 3],
        "steps": [3, 3, 3],
        "train_loss": [0.9, 0.5, 0.4],
        "validation_loss": [0.7, 0.4, 0.45],
        "validation_accuracy": [0.625, 0.875, 0.75],
        "seconds": [0.3, 0.6, 0.3],
        "learning_rate": [0.1, 0.05, 0.025],
        "step_loss": list(range(9)),
        "step_seconds": [0.1] * 9,
    }
    assert {name: h[name].tolist() for name in h.keys()} == table  # noqa: SIM118
    assert {name: array.tolist() for name, array in dict(h).items()} == table
    assert h["steps"].dtype.kind == "i"


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(KeyError, match="no 'loss'; it has epoch, steps, train_loss"):
        history()["loss"]


def test_a_record_cannot_be_changed_afterwards():
    losses = np.arange(9.0)
    h = history(step_loss=losses)
    losses[0] = 7
    assert h["step_loss"][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        h.step_loss[0] = 1
    with pytest.raises(FrozenInstanceError):
        h.interrupted = True


def test_losses_and_times_of_steps_have_equal_lengths():
    with pytest.raises(ValueError, match=r"one loss and one time per step; got shapes \(9,\)"):
        history(step_seconds=np.ones(8))


def test_the_table_shows_epochs_and_the_best_one():
    lines = str(history()).splitlines()
    assert lines[0].split("  ")[0] == "epoch"
    assert lines[2].split() == ["2", "0.5000", "0.4000", "87.50%", "0.60", "200.00", "0.05"]
    assert lines[4] == (
        "9 steps, 100.00 ms/step (median); best validation accuracy 87.50% after epoch 2"
    )
    assert len({len(line) for line in lines[:4]}) == 1


def test_columns_without_a_measurement_are_left_out_of_the_table():
    h = history(epochs=(Epoch(2, 0.9, NAN, NAN, 0.3, 0.1),), interrupted=True)
    assert "val" not in str(h)
    assert str(h).endswith("; interrupted")


def test_a_run_that_was_stopped_at_once_has_a_summary_too():
    assert str(History()) == "0 steps"
    assert str(History(interrupted=True)) == "0 steps; interrupted"


def test_a_long_run_is_shown_in_twenty_rows_with_its_first_and_last_epoch():
    epochs = [Epoch(1, 0.5, NAN, NAN, 0.1, 0.1)] * 200
    rows = str(history(epochs=epochs)).splitlines()[1:-1]
    assert len(rows) == 20
    assert (rows[0].split()[0], rows[-1].split()[0]) == ("1", "200")


def test_json_holds_all_arrays_and_null_for_what_is_missing(tmp_path):
    path = tmp_path / "run.json"
    h = history(epochs=(Epoch(2, 0.9, NAN, float("inf"), 0.3, 0.1),), interrupted=True)
    h.to_json(path)
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read["validation_loss"] == [None]
    assert read["validation_accuracy"] == [None]
    assert read["train_loss"] == [0.9]
    assert read["step_loss"] == list(range(9))
    assert read["interrupted"] is True
    assert read["stopped"] == ""
    assert set(read) == {*h.keys(), "interrupted", "stopped"}


def test_csv_holds_one_row_per_epoch(tmp_path):
    path = tmp_path / "run.csv"
    history(epochs=(Epoch(2, 0.1 + 0.2, NAN, 0.5, 0.3, 0.1),) * 2).to_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["train_loss"]) == 0.1 + 0.2
    assert rows[0]["validation_loss"] == ""
    assert rows[1]["validation_accuracy"] == "0.5"
