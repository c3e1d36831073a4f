"""`EarlyStopping` and the logs: hand-made runs, real runs, saved states, bad input."""

import csv
import json
import math
import warnings

import numpy as np
import pytest

from nnsparse import data, nn, optim
from nnsparse.sparsify import Sparsifier, agp, prunable, set_, sr_ste, top_kast
from nnsparse.train import CSVLog, EarlyStopping, JSONLinesLog, SparsityLog, fit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 8)).astype(np.float32)
Y = (X @ RNG.standard_normal((8, 3))).argmax(1)
HELD = RNG.standard_normal((40, 8)).astype(np.float32), RNG.integers(0, 3, 40)  # noise


class Run:
    """A model that learns noise beside what is true, so that validation gets worse."""

    def __init__(self, lr=0.05):
        self.model = nn.mlp([8, 64, 3], sparsity=[0.5, None], rng=0)
        self.optimizer = optim.Adam(self.model.parameters(), lr=lr)
        self.loader = data.DataLoader((X, Y), batch_size=20, rng=0)

    def fit(self, epochs, **options):
        loss = nn.CrossEntropyLoss()
        return fit(
            self.model, loss, self.optimizer, self.loader, epochs=epochs, progress=False, **options
        )


# ---------------------------------------------------------------- early stopping


def test_it_stops_after_the_patience_and_returns_to_the_best_weights():
    run, stopping, kept = Run(), EarlyStopping(patience=4), []
    history = run.fit(
        60, validation=HELD, callbacks=[lambda s: kept.append(s.model.state_dict()), stopping]
    )
    losses = history["validation_loss"]
    best = int(np.argmin(losses))
    assert (stopping.best, stopping.best_epoch) == (losses[best], best + 1)
    assert len(losses) == best + 1 + 4 < 60
    assert history.stopped.startswith("validation loss has not improved on")
    for name, array in run.model.state_dict().items():
        np.testing.assert_array_equal(array, kept[best][name])


def test_accuracy_is_to_rise_and_small_gains_do_not_count():
    figures = [0.5, 0.6, 0.605, 0.61, 0.9]
    stopping = EarlyStopping("validation_accuracy", patience=2, min_delta=0.02, restore_best=False)
    assert follow(stopping, "validation_accuracy", figures) == 4
    assert (stopping.best, stopping.best_epoch) == (0.6, 2)


def follow(stopping, name, figures):
    """Return at which epoch it stops, for a run of these figures."""
    from nnsparse.train import Epoch, History, TrainState

    epochs, stops = [], []
    stopping.begin(validated=True)
    for figure in figures:
        values = dict.fromkeys(("train_loss", "validation_loss", "validation_accuracy"), math.nan)
        epochs.append(Epoch(1, **{**values, name: figure}, seconds=0.0, learning_rate=0.1))
        n = len(epochs)
        state = TrainState(
            None, None, n, 99, n, 99, 0.0, lambda e, s: History(tuple(epochs[:e])), stops.append
        )
        stopping(state)
        if stops:
            return n
    return None


def test_it_stops_by_the_training_loss_without_validation_data():
    stopping = EarlyStopping("train_loss", patience=1, restore_best=False)
    assert follow(stopping, "train_loss", [3.0, 2.0, 2.0]) == 3


def test_best_weights_come_back_also_where_the_run_goes_to_its_end():
    run, stopping, kept = Run(), EarlyStopping(patience=100), []
    history = run.fit(
        25, validation=HELD, callbacks=[stopping, lambda s: kept.append(s.model.state_dict())]
    )
    best = int(np.argmin(history["validation_loss"]))
    assert best < 24
    assert history.stopped == ""
    for name, array in run.model.state_dict().items():
        np.testing.assert_array_equal(array, kept[best][name])


def test_best_topologies_come_back_too():
    run, kept = Run(), []
    update = Sparsifier(run.model, run.optimizer, set_(0.5, every=3), total_steps=75)
    stopping = EarlyStopping(patience=100)
    history = run.fit(
        25,
        validation=HELD,
        updates=[update],
        callbacks=[stopping, lambda s: kept.append(s.model.state_dict())],
    )
    best = int(np.argmin(history["validation_loss"]))
    assert (kept[best]["0.weight.indices"] != kept[-1]["0.weight.indices"]).any()
    np.testing.assert_array_equal(
        run.model.state_dict()["0.weight.indices"], kept[best]["0.weight.indices"]
    )


RECIPES = {
    "sr_ste": (sr_ste(2, 4), {}),
    "top_kast": (top_kast(0.8, backward_sparsity=0.5, every=3), {}),
    "agp, held": (agp(0.9, every=3), {"refresh_every": 1000}),
    "agp, swapped": (agp(0.9, every=3), {"swap": True}),
}


@pytest.mark.parametrize("patience", [2, 100], ids=["stopped", "to the end"])
@pytest.mark.parametrize("name", RECIPES)
def test_best_masks_come_back_and_what_they_hide_goes_with_the_end_of_the_recipe(name, patience):
    recipe, options = RECIPES[name]
    run, outputs, stopping = Run(lr=0.3), [], EarlyStopping(patience=patience)
    run.model = prunable(nn.mlp([8, 64, 3], rng=0))
    run.optimizer = optim.SGD(run.model.parameters(), lr=0.3, momentum=0.9)
    update = Sparsifier(run.model, run.optimizer, recipe, total_steps=75, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = run.fit(
            25,
            validation=HELD,
            updates=[update],
            callbacks=[stopping, lambda s: outputs.append(s.model.predict(X))],
        )
    assert (len(history.epochs) < 25) == (patience == 2)
    expected = outputs[stopping.best_epoch - 1]
    np.testing.assert_allclose(run.model.predict(X), expected, rtol=1e-5, atol=1e-5)
    weight = run.model[0].weight
    held = weight.buffers.get("held")
    assert held is None or not weight.data[held == 0].any()
    if patience == 100:
        assert not {"held", "forward"} & weight.buffers.keys()
        expected_nnz = {"sr_ste": 256}.get(name)  # two of four
        assert expected_nnz is None or run.model[0].nnz == expected_nnz


def test_of_a_run_that_failed_nothing_comes_into_the_next_one():
    stopping, first = EarlyStopping("train_loss"), Run()

    def fail(state):
        if state.epoch == 2:
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        first.fit(3, callbacks=[stopping, fail])
    second = Run(lr=1e-9)
    second.model[0].weight.data[...] = 1.0

    class Stop:
        def __call__(self, state):
            pass

        def after_step(self, state):
            state.request_stop("at once")

    second.fit(3, callbacks=[stopping, Stop()])
    np.testing.assert_allclose(second.model[0].weight.data, 1.0, rtol=1e-6)


def test_a_figure_that_is_no_number_is_told_as_such():
    bad = HELD[0].copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="is NaN after epoch 1: look at the validation data"):
        Run().fit(1, validation=(bad, HELD[1]), callbacks=[EarlyStopping()])
    run = Run()
    with pytest.raises(ValueError, match="NaN after epoch 1: accuracy means nothing"):
        fit(
            run.model, nn.MSELoss(), run.optimizer, data.DataLoader((X, np.eye(3)[Y]), batch_size=20),
            epochs=1, validation=(X, np.eye(3)[Y]), progress=False,
            callbacks=[EarlyStopping("validation_accuracy")],
        )  # fmt: skip


def test_without_restoring_the_last_weights_stay():
    run, last = Run(), []
    stopping = EarlyStopping(patience=2, restore_best=False)
    run.fit(
        60, validation=HELD, callbacks=[stopping, lambda s: last.append(s.model[0].weight.data)]
    )
    assert run.model[0].weight.data is last[-1]


def test_used_for_a_second_run_it_begins_anew():
    stopping = EarlyStopping("train_loss", patience=2, restore_best=False)
    assert follow(stopping, "train_loss", [1.0, 0.1, 0.2, 0.3]) == 4
    assert follow(stopping, "train_loss", [5.0, 4.0, 3.0]) is None
    assert (stopping.best, stopping.best_epoch) == (3.0, 3)


def test_its_state_can_be_saved_and_put_back():
    first, second = EarlyStopping(patience=4), EarlyStopping(patience=4)
    Run().fit(3, validation=HELD, callbacks=[Restless(first)])
    state = first.state_dict()
    second.load_state_dict(state)
    assert second.state_dict().keys() == state.keys()
    assert (second.best, second.best_epoch) == (first.best, first.best_epoch)
    assert any(key.startswith("weights.") for key in state)


class Restless:
    """Passes epochs on, but not the end."""

    def __init__(self, stopping):
        self.stopping = stopping

    def __call__(self, state):
        self.stopping(state)


def test_a_figure_that_the_run_does_not_measure_is_an_error():
    with pytest.raises(ValueError, match=r"watches validation_loss, which this run does not"):
        Run().fit(1, callbacks=[EarlyStopping()])
    run = Run()
    with pytest.raises(ValueError, match=r"Pass validation=... to fit, or monitor=\"train_loss\""):
        run.fit(1, callbacks=[EarlyStopping("validation_accuracy")])
    assert run.loader.epoch == 0  # not only after an epoch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "loss"}, "monitor as one of .*'train_loss'.*; got 'loss'"),
        ({"monitor": ["loss"]}, r"monitor as one of .*'train_loss'.*; got \['loss'\]"),
        ({"restore_best": "no"}, "restore_best as True or False; got 'no'"),
        ({"patience": 0}, "patience as an integer >= 1; got 0"),
        ({"patience": 2.5}, "patience as an integer >= 1; got 2.5"),
        ({"patience": True}, "patience as an integer >= 1; got True"),
        ({"min_delta": -1e-3}, "min_delta as a number from 0 on; got -0.001"),
        ({"min_delta": float("nan")}, "min_delta as a number from 0 on; got nan"),
        ({"min_delta": "0"}, "min_delta as a number from 0 on; got '0'"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**options)


def test_numbers_of_numpy_are_numbers():
    stopping = EarlyStopping(patience=np.int64(3), min_delta=np.float32(0.5))
    assert (stopping.patience, stopping.min_delta) == (3, 0.5)
    assert type(stopping.patience) is int


def test_a_strange_state_is_refused():
    with pytest.raises(ValueError, match=r"a state with best, best_epoch and weights; got \['x'\]"):
        EarlyStopping().load_state_dict({"x": 1})


# ---------------------------------------------------------------- logs


def test_the_csv_log_is_the_history_after_every_epoch(tmp_path):
    path, sizes = tmp_path / "log.csv", []

    def look(state):
        sizes.append(len(path.read_text().splitlines()))

    history = Run().fit(3, validation=HELD, callbacks=[CSVLog(path), look])
    assert sizes == [2, 3, 4]
    history.to_csv(tmp_path / "expected.csv")
    assert path.read_text() == (tmp_path / "expected.csv").read_text()
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_the_json_log_has_lines_for_epochs_and_for_every_so_many_steps(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("from an earlier run\n")
    history = Run().fit(2, callbacks=[JSONLinesLog(path, every_steps=2)])  # 3 steps an epoch
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 6]
    steps = [line for line in lines if "epoch" not in line]
    assert [line["loss"] for line in steps] == history["step_loss"][[1, 3, 5]].tolist()
    epochs = [line for line in lines if "epoch" in line]
    assert [line["train_loss"] for line in epochs] == history["train_loss"].tolist()
    assert epochs[0]["validation_loss"] is None


def test_the_sparsity_log_counts_stored_weights_or_writes_the_sparsifiers_report(tmp_path):
    path, run = tmp_path / "sparsity.csv", Run()
    run.fit(2, callbacks=[SparsityLog(path)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["epoch"], row["step"], row["layer"]) for row in rows] == [
        ("1", "3", "0.weight"),
        ("2", "6", "0.weight"),
    ]
    assert {(row["size"], row["nnz"], row["density"]) for row in rows} == {("512", "256", "0.5")}
    run = Run()
    update = Sparsifier(run.model, run.optimizer, set_(0.5, every=2), total_steps=6)
    run.fit(2, updates=[update], callbacks=[SparsityLog(path, update)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    layer = update.report().layers[0]
    assert (rows[-1]["layer"], int(rows[-1]["nnz"])) == (layer.name, layer.nnz)
    assert float(rows[-1]["overlap"]) == layer.overlap < 1
    assert float(rows[-1]["explored"]) == layer.explored > 0.5


@pytest.mark.parametrize("kind", [JSONLinesLog, SparsityLog])
def test_a_log_goes_on_where_a_checkpoint_was_taken(tmp_path, kind):
    path, run = tmp_path / "log", Run()
    log = kind(path)
    run.fit(2, callbacks=[log])
    state, before = log.state_dict(), path.read_text()
    run.fit(1, callbacks=[log])
    assert path.read_text() != before
    other = kind(path)
    other.load_state_dict(state)
    Run().fit(1, callbacks=[other])
    text = path.read_text()
    assert text.startswith(before)
    assert len(text.splitlines()) == len(before.splitlines()) + 1


@pytest.mark.parametrize("kind", [JSONLinesLog, SparsityLog])
def test_a_log_that_was_cut_off_since_the_checkpoint_is_refused(tmp_path, kind):
    log = kind(tmp_path / "log")
    (tmp_path / "log").write_text("short")
    with pytest.raises(ValueError, match=r"had 10 bytes; it has 5. .* a log at another path"):
        log.load_state_dict({"size": 10})
    with pytest.raises(ValueError, match="a state with size"):
        log.load_state_dict({"length": 10})


@pytest.mark.parametrize("kind", [JSONLinesLog, SparsityLog])
def test_a_log_whose_file_is_gone_begins_anew_and_says_so(tmp_path, kind):
    log = kind(tmp_path / "log")
    with pytest.warns(UserWarning, match="had 10 bytes .* is not there. It begins anew"):
        log.load_state_dict({"size": 10})
    Run().fit(1, callbacks=[log])
    assert len((tmp_path / "log").read_text().splitlines()) == (1 if kind is JSONLinesLog else 2)
    assert log.state_dict()["size"] == (tmp_path / "log").stat().st_size


@pytest.mark.parametrize("kind", [CSVLog, JSONLinesLog, SparsityLog])
def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        kind(tmp_path / "missing" / "log")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        kind(tmp_path)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_the_json_log_wants_a_number_of_steps(tmp_path, every):
    with pytest.raises(ValueError, match="every_steps as an integer >= 1"):
        JSONLinesLog(tmp_path / "log", every_steps=every)


def test_the_sparsity_log_wants_a_sparsifier(tmp_path):
    with pytest.raises(TypeError, match="expects a Sparsifier; got str"):
        SparsityLog(tmp_path / "log", "rigl")
