"""`fit`: the same steps as a hand-written loop, with records, hooks and a clean end."""

import signal
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from nnsparse import data, nn, optim, schedule
from nnsparse.sparsify import Sparsifier, rigl, set_
from nnsparse.train import Checkpoint, CSVLog, NonFiniteLossError, TrainState, evaluate, fit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 8)).astype(np.float32)
Y = (X @ RNG.standard_normal((8, 3))).argmax(1)
LOSS = nn.CrossEntropyLoss()


class Parts:
    """A model, its optimizer and its loader, the same ones each time."""

    def __init__(self, lr=0.2):
        self.model = nn.mlp([8, 24, 3], sparsity=[0.5, None], rng=0)
        self.optimizer = optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        self.loader = data.DataLoader((X, Y), batch_size=20, rng=0)  # 5 steps, the last one of 10

    def fit(self, epochs=2, **options):
        options.setdefault("progress", False)
        return fit(self.model, LOSS, self.optimizer, self.loader, epochs=epochs, **options)


class Recorder:
    """An update of every kind that writes down what is called when."""

    def __init__(self, replaced=()):
        self.calls, self.replaced, self.steps = [], replaced, 0

    @property
    def replaces_step(self):
        return self.steps in self.replaced

    def before_step(self):
        self.calls.append("before")

    def step(self):
        self.calls.append("step")
        self.steps += 1


def same_weights(a, b):
    return all(
        np.array_equal(p.data, q.data) for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def test_it_takes_the_very_steps_of_a_hand_written_loop():
    hand, parts = Parts(), Parts()
    losses, scheduler = [], optim.LRScheduler(hand.optimizer, schedule.cosine(), 15)
    for _ in range(3):
        for x, y in hand.loader:
            loss = LOSS(hand.model(x), y)
            losses.append(loss.item())
            hand.optimizer.zero_grad()
            loss.backward()
            hand.optimizer.step()
            scheduler.step()
    update = optim.LRScheduler(parts.optimizer, schedule.cosine(), 15)
    history = parts.fit(3, updates=[update], validation=(X, Y))
    assert history["step_loss"].tolist() == losses
    assert same_weights(hand.model, parts.model)
    assert history["learning_rate"][-1] == parts.optimizer.lr == hand.optimizer.lr


def test_it_learns_and_records_each_epoch():
    parts = Parts()
    history = parts.fit(12, validation=(X, Y))
    assert history["epoch"].tolist() == list(range(1, 13))
    assert history["steps"].tolist() == [5] * 12
    expected = evaluate(parts.model, LOSS, (X, Y))
    assert (history["validation_loss"][-1], history["validation_accuracy"][-1]) == expected
    assert history["validation_accuracy"][-1] > 0.9
    assert history["train_loss"][-1] < history["train_loss"][0] / 2
    assert not history.interrupted


def test_the_loss_of_an_epoch_weighs_samples_alike():
    history = Parts().fit(1)
    assert history["train_loss"][0] == pytest.approx(
        np.average(history["step_loss"], weights=[20, 20, 20, 20, 10])
    )


def test_times_of_steps_lie_within_their_epochs():
    history = Parts().fit(2)
    assert (history["step_seconds"] > 0).all()
    assert (history["step_seconds"].reshape(2, 5).sum(1) <= history["seconds"]).all()


def test_without_validation_nothing_is_claimed_about_it():
    history = Parts().fit(1)
    assert np.isnan(history["validation_loss"]).all()
    assert np.isnan(history["validation_accuracy"]).all()


def test_validation_does_not_change_the_training():
    plain, checked = Parts(), Parts()
    plain.fit(2)
    checked.fit(2, validation=data.DataLoader((X, Y), batch_size=7, rng=3))
    assert same_weights(plain.model, checked.model)


def test_a_split_goes_on_with_the_epochs_of_the_loader_that_it_was_made_of():
    parts, orders = Parts(), []
    for _ in range(2):
        parts.fit(2, validation=0.2)
        orders.append(parts.loader.epoch)
    assert orders == [2, 4]
    with pytest.raises(ZeroDivisionError):
        parts.fit(2, validation=0.2, callbacks=[lambda state: 1 / 0])
    assert parts.loader.epoch == 5


def test_effects_come_before_the_optimizers_step_and_updates_after_it():
    parts, recorder = Parts(), Recorder()
    update = parts.optimizer._update
    parts.optimizer._update = lambda *a: (recorder.calls.append("optimizer"), update(*a))
    parts.fit(1, updates=[recorder])
    n_parameters = len(parts.optimizer.params)
    assert recorder.calls == ["before", *["optimizer"] * n_parameters, "step"] * 5


def test_an_update_that_replaces_the_step_keeps_the_optimizer_out():
    parts, recorder = Parts(), Recorder(replaced=(1, 3))
    parts.fit(1, updates=[recorder, optim.LRScheduler(parts.optimizer, schedule.linear(), 5)])
    assert parts.optimizer._counts == [3] * len(parts.optimizer.params)
    assert recorder.steps == 5


def test_rigl_runs_through_fit_as_through_a_hand_written_loop():
    hand, parts = Parts(), Parts()

    def sparsifier(of):
        return Sparsifier(of.model, of.optimizer, rigl(every=4, end=1.0), total_steps=15)

    update, replaced = sparsifier(hand), 0
    for _ in range(3):
        for x, y in hand.loader:
            loss = LOSS(hand.model(x), y)
            hand.optimizer.zero_grad()
            loss.backward()
            update.before_step()
            replaced += update.replaces_step
            if not update.replaces_step:
                hand.optimizer.step()
            update.step()
    parts.fit(3, updates=[sparsifier(parts)])
    assert replaced == 3
    assert parts.model[0].weight.topology == hand.model[0].weight.topology
    assert same_weights(parts.model, hand.model)
    assert parts.optimizer._counts == [12] * len(parts.optimizer.params)


def test_gradients_changed_before_the_step_are_those_that_are_used():
    class NoGradient:
        def __init__(self, model):
            self.model = model

        def before_step(self):
            for p in self.model.parameters():
                p.grad[...] = 0

        def step(self):
            pass

    parts, fresh = Parts(), Parts()
    parts.fit(1, updates=[NoGradient(parts.model)])
    assert same_weights(parts.model, fresh.model)


def test_callbacks_see_an_immutable_state_after_each_epoch():
    parts, states = Parts(), []
    history = parts.fit(3, validation=(X, Y), callbacks=[states.append])
    assert [(s.epoch, s.epochs, s.step) for s in states] == [(1, 3, 5), (2, 3, 10), (3, 3, 15)]
    assert [len(s.history["train_loss"]) for s in states] == [1, 2, 3]
    assert states[0].history["step_loss"].tolist() == history["step_loss"][:5].tolist()
    assert states[0].model is parts.model
    assert states[0].optimizer is parts.optimizer
    assert isinstance(states[0], TrainState)
    with pytest.raises(FrozenInstanceError):
        states[0].epoch = 7


def test_a_model_in_evaluation_mode_is_trained_and_put_back():
    class Mode(Recorder):
        def step(self):
            self.calls.append(parts.model.training)

    parts, mode = Parts(), Mode()
    parts.model.eval()
    parts.fit(1, updates=[mode])
    assert mode.calls[1::2] == [True] * 5
    assert not parts.model.training


def test_parts_in_evaluation_mode_stay_so_in_a_model_that_trains():
    parts = Parts()
    parts.model[0].eval()
    parts.fit(1)
    assert not parts.model[0].training
    assert parts.model.training


def test_a_diverging_run_stops_with_the_weights_of_the_step_before():
    parts, kept = Parts(lr=1e25), []

    class Keep:
        def step(self):
            kept.append([p.data.copy() for p in parts.model.parameters()])

    with pytest.raises(NonFiniteLossError, match=r"at step \d+, learning rate 1e\+25"):
        parts.fit(3, updates=[Keep()])
    for p, last in zip(parts.model.parameters(), kept[-1], strict=True):
        assert np.array_equal(p.data, last, equal_nan=True)


@pytest.fixture
def ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


class Press:
    """Presses Ctrl-C within step number `at`."""

    def __init__(self, ctrl_c, at, times=1):
        self.ctrl_c, self.at, self.times, self.steps = ctrl_c, at, times, 0

    def step(self):
        self.steps += 1
        for _ in range(self.times if self.steps == self.at else 0):
            self.ctrl_c()


def test_ctrl_c_ends_after_the_present_step_with_the_history_so_far(ctrl_c):
    parts, states = Parts(), []
    history = parts.fit(4, updates=[Press(ctrl_c, 7)], callbacks=[states.append])
    assert history.interrupted
    assert history["step_loss"].size == history["step_seconds"].size == 7
    assert len(history["train_loss"]) == len(states) == 1
    hand = Parts()
    hand.fit(1)
    for i, (x, y) in enumerate(hand.loader):
        if i < 2:
            loss = LOSS(hand.model(x), y)
            hand.optimizer.zero_grad()
            loss.backward()
            hand.optimizer.step()
    assert same_weights(parts.model, hand.model)


def test_ctrl_c_in_the_last_step_of_an_epoch_leaves_that_epoch_whole(ctrl_c):
    history = Parts().fit(4, updates=[Press(ctrl_c, 10)], validation=(X, Y))
    assert history.interrupted
    assert np.isfinite(history["validation_loss"]).tolist() == [True, True]


def test_a_second_ctrl_c_raises_at_once(ctrl_c):
    parts = Parts()
    parts.model.eval()
    with pytest.raises(KeyboardInterrupt):
        parts.fit(4, updates=[Press(ctrl_c, 7, times=2)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not parts.model.training


def test_the_progress_bar_shows_loss_accuracies_and_time(capsys):
    Parts().fit(2, validation=(X, Y), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.splitlines()[-1]
    for part in ("10/10", "epoch 2/2", "loss ", "batch acc ", "val acc ", "ms/step"):
        assert part in last


def test_without_progress_nothing_is_written(capsys):
    Parts().fit(1)
    assert capsys.readouterr() == ("", "")


def test_a_regression_is_fitted_and_shows_no_accuracy(capsys):
    model = nn.Sequential(nn.Linear(8, 1, rng=0))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    loader = data.DataLoader((X, X[:, :1]), batch_size=30, rng=0)
    history = fit(model, nn.MSELoss(), optimizer, loader, epochs=30, validation=loader)
    assert history["validation_loss"][-1] < 1e-2
    assert np.isnan(history["validation_accuracy"]).all()
    assert "acc" not in capsys.readouterr().err
    assert loader.epoch == 30


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": X}, TypeError, "expects a model"),
        ({"loss_fn": "mse"}, TypeError, "loss_fn to be callable"),
        ({"optimizer": None}, TypeError, "expects an optimizer; got NoneType"),
        ({"optimizer": Parts().optimizer}, ValueError, "got one that has none of them"),
        ({"validation": (X[:0], Y[:0])}, ValueError, "at least one sample"),
        ({"train_data": (X, Y)}, TypeError, r"Pass data.DataLoader\(\(X, y\), batch_size=...\)"),
        ({"epochs": 0}, ValueError, "an integer >= 1; got 0"),
        ({"epochs": 1.5}, ValueError, "an integer >= 1; got 1.5"),
        ({"epochs": True}, ValueError, "an integer >= 1; got True"),
        ({"validation": X}, TypeError, r"fit \(validation\) expects data"),
        ({"validation": (X, Y[:3])}, ValueError, "one target per row"),
        ({"updates": Recorder()}, TypeError, r"Pass updates=\[...\]"),
        ({"updates": [print]}, TypeError, r"a method step\(\); got builtin_function"),
        ({"updates": [Parts().optimizer]}, TypeError, "SGD among the updates"),
        ({"callbacks": print}, TypeError, "callbacks as a list"),
        ({"callbacks": [3]}, TypeError, "callbacks as a list"),
        ({"callbacks": [CSVLog]}, TypeError, r"got the class CSVLog. Pass CSVLog\(...\)"),
        ({"updates": [optim.LRScheduler]}, TypeError, "got the class LRScheduler"),
        ({"validation": True}, TypeError, r"fit \(validation\) expects data .*got True"),
        ({"validation": (np.ma.masked_array(X, X > 1), Y)}, ValueError, "without masked entries"),
        ({"validation": (X, [[0], [1, 2]])}, ValueError, "y of .*lists of different lengths"),
        ({"validation": (X[:, 1:], Y)}, ValueError, r"fit \(validation\): .*expects x of shape"),
        ({"validation": (X, np.where(Y == 0, 0, 7))}, ValueError, r"fit \(validation\): .*7"),
        ({"validation": (X, Y + 0.5)}, TypeError, r"fit \(validation\): "),
    ],
)
def test_a_bad_argument_is_refused_before_the_first_step(change, error, message):
    parts = Parts()
    options = {
        "model": parts.model,
        "loss_fn": LOSS,
        "optimizer": parts.optimizer,
        "train_data": parts.loader,
        "epochs": 1,
        "progress": False,
    }
    with pytest.raises(error, match=message):
        fit(**{**options, **change})
    assert parts.optimizer._counts == [0] * len(parts.optimizer.params)


def test_with_a_checkpoint_all_parameters_are_the_models(tmp_path):
    parts, own = Parts(), nn.mlp([2, 2], rng=0)
    parts.optimizer = optim.SGD([*parts.model.parameters(), *own.parameters()], lr=0.1)
    parts.fit(1)  # a part of the loss, say
    with pytest.raises(ValueError, match="2 of its 6 are not the model's"):
        parts.fit(1, checkpoint=Checkpoint(tmp_path / "run"))


def test_a_sparsifier_of_another_model_or_a_shorter_training_is_refused_before_the_first_step():
    x, y = np.random.default_rng(0).standard_normal((40, 6)), np.zeros(40, int)
    loader = data.DataLoader((x, y), batch_size=10, rng=0)
    model, other = (nn.mlp([6, 8, 2], sparsity=0.5, rng=0) for _ in range(2))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = nn.CrossEntropyLoss()
    before = model.state_dict()

    def run(of, steps, epochs):
        made = optim.SGD(of.parameters(), lr=0.1) if of is other else optimizer
        update = Sparsifier(of, made, set_(0.5, every=2), total_steps=steps)
        return fit(model, loss, optimizer, loader, epochs=epochs, updates=[update], progress=False)

    with pytest.raises(ValueError, match="another"):
        run(other, 8, 2)
    with pytest.raises(ValueError, match=r"8 steps.*7 left.*total_steps=8"):
        run(model, 7, 2)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.warns(UserWarning, match="will not have come to its end"):
        run(model, 9, 2)
    assert len(run(model, 8, 2)["step_loss"]) == 8
