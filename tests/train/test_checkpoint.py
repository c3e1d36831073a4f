"""`fit(checkpoint=...)`: whatever ends a run, calling it again gives the bits of a run that nothing ended."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import nnsparse as ns
from nnsparse import atomic, data, nn, optim, schedule
from nnsparse.sparsify import (
    Sparsifier,
    agp,
    granet,
    group_lasso,
    lottery_ticket,
    rigl,
    top_kast,
)
from nnsparse.train import (
    Checkpoint,
    EarlyStopping,
    JSONLinesLog,
    NonFiniteLossError,
    SparsityLog,
    fit,
)
from nnsparse.train.settings import data_of, described, differ
from tests.train.test_snapshot import plain

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 8)).astype(np.float32)
Y = (X @ RNG.standard_normal((8, 3))).argmax(1)
WEIGHTS = RNG.random(90)
LOSS = nn.CrossEntropyLoss()
EPOCHS, STEPS = 4, 5  # of an epoch


class KilledError(Exception):
    """Ends a run as a signal would: nothing is saved any more."""


class KillAt:
    """A callback that ends the process, so to say, after a step."""

    def __init__(self, step):
        self.step = step

    def __call__(self, state):
        pass

    def after_step(self, state):
        if state.step == self.step:
            raise KilledError


class Parts:
    """A model with everything that draws random numbers, and what trains it."""

    def __init__(
        self, lr=0.2, seed=3, sparsity=0.5, batch_size=20, weights=False, accumulate=1, eps=1e-5
    ):
        self.model = nn.Sequential(
            nn.SparseLinear(8, 24, sparsity=0.5, rng=0),
            nn.BatchNorm1d(24, eps=eps),
            nn.ReLU(),
            nn.Dropout(0.2, rng=seed),
            nn.SparseLinear(24, 3, sparsity=0.4, rng=1),
        )
        self.optimizer = optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        parts = (X, Y, WEIGHTS) if weights else (X, Y)
        self.loader = data.DataLoader(parts, batch_size=batch_size, rng=seed)
        total = EPOCHS * -(-STEPS // accumulate)
        self.updates = [
            Sparsifier(self.model, self.optimizer, rigl(sparsity, every=3), total),
            optim.LRScheduler(self.optimizer, schedule.cosine(), total),
        ]

    def fit(self, **options):
        given = {"epochs": EPOCHS, "updates": self.updates, "progress": False, "validation": (X, Y)}
        return fit(self.model, LOSS, self.optimizer, self.loader, **{**given, **options})

    def bits(self):
        kept = (
            self.model.state_dict(),
            self.optimizer.state_dict(),
            [u.state_dict() for u in self.updates],
        )
        return repr(plain((*kept, self.loader.state_dict(), self.model[3].rng.bit_generator.state)))


def recorded(history):
    """What a history says, but for times."""
    return plain({k: v for k, v in history.state_dict().items() if "seconds" not in k})


OPTIONS = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "clipped": {"clip_norm": 0.5},
    "a split": {"validation": 0.2},
    "no updates": {"updates": []},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("killed", [1, 2, 3, 4, 5, 6, 8])
def test_a_killed_run_goes_on_bit_for_bit(name, killed, tmp_path):
    """Killed within and at the end of epochs, and at updates, when the last save lies one step back or two."""
    options = OPTIONS[name]
    accumulate = options.get("accumulate", 1)
    make = partial(Parts, accumulate=accumulate)
    whole = make()
    if name == "a split":  # 72 samples: 4 steps of an epoch
        options = {**options, "updates": []}
    history = whole.fit(**options)
    checkpoint = Checkpoint(tmp_path / "run", every_steps=2)
    with pytest.raises(KilledError):
        make().fit(checkpoint=checkpoint, callbacks=[KillAt(killed)], **options)
    assert checkpoint.path.exists() == (killed > 2)  # the callback comes before the save
    again = make()
    resumed = again.fit(checkpoint=checkpoint, **options)
    assert recorded(resumed) == recorded(history)
    assert resumed["step_seconds"].size == history["step_seconds"].size
    assert again.bits() == whole.bits()


KINDS = {  # recipe, density of the layers, options: held weights, full layers, copies to return to, masks
    "held": (lambda: agp(0.8, every=2), 1.0, {"refresh_every": 7}),
    "full": (lambda: agp(0.8, every=2), 1.0, {"swap": True}),
    "rewound": (lambda: lottery_ticket(0.8), 1.0, {}),
    "lasso": (lambda: group_lasso(1e-3), 1.0, {}),
    "masked": (lambda: top_kast(0.8, every=3), 0.5, {}),
    "grown": (lambda: granet(0.8, every=3), 0.5, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_sparsifier_keeps_comes_back(kind, tmp_path):
    recipe, density, options = KINDS[kind]

    def run(killed=None, checkpoint=None):
        model = nn.Sequential(
            nn.SparseLinear(8, 24, density=density, rng=0),
            nn.ReLU(),
            nn.SparseLinear(24, 3, density=density, rng=1),
        )
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        loader = data.DataLoader((X, Y), batch_size=20, rng=0)
        sparsifier = Sparsifier(model, optimizer, recipe(), EPOCHS * STEPS, **options)
        fit(
            model, LOSS, optimizer, loader, epochs=EPOCHS, updates=[sparsifier], progress=False,
            checkpoint=checkpoint, callbacks=[] if killed is None else [KillAt(killed)],
        )  # fmt: skip
        return plain((model.state_dict(), optimizer.state_dict(), sparsifier.state_dict()))

    whole = run()
    for step in (3, 9, 14, 19):
        checkpoint = Checkpoint(tmp_path / str(step), every_steps=1)
        with pytest.raises(KilledError):
            run(step, checkpoint)
        assert run(None, checkpoint) == whole


def test_a_run_killed_after_every_step_comes_to_the_same_end(tmp_path):
    whole = Parts(weights=True)
    history = whole.fit()
    checkpoint = Checkpoint(tmp_path / "run", every_steps=1)
    for step in range(2, EPOCHS * STEPS + 1):
        with pytest.raises(KilledError):
            Parts(weights=True).fit(checkpoint=checkpoint, callbacks=[KillAt(step)])
    last = Parts(weights=True)
    assert recorded(last.fit(checkpoint=checkpoint)) == recorded(history)
    assert last.bits() == whole.bits()


def test_seeds_that_nobody_gave_are_those_of_the_first_call(tmp_path):
    def run(killed=None, saved=None):
        rng = np.random.default_rng()  # fresh entropy
        model = nn.Sequential(nn.Linear(8, 12, rng=rng), nn.Dropout(0.5), nn.Linear(12, 3, rng=rng))
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        loader = data.DataLoader((X, Y), batch_size=20)
        callbacks = [] if killed is None else [KillAt(killed)]
        options = {
            "validation": 0.2,
            "progress": False,
            "checkpoint": saved,
            "callbacks": callbacks,
        }
        return fit(model, LOSS, optimizer, loader, epochs=3, **options), model.state_dict()

    saved = Checkpoint(tmp_path / "run", every_steps=1)
    with pytest.raises(KilledError):
        run(6, saved)
    content = saved.path.read_bytes()
    first = run(None, saved)
    saved.path.write_bytes(content)
    second = run(None, saved)
    assert recorded(first[0]) == recorded(second[0])
    assert plain(first[1]) == plain(second[1])


def test_a_finished_run_returns_its_history_at_once_with_the_weights_it_ended_with(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run")
    first, again = Parts(), Parts()
    stopping = EarlyStopping("validation_accuracy", patience=1)
    history = first.fit(checkpoint=checkpoint, callbacks=[stopping])
    before = checkpoint.path.read_bytes()
    again.model.eval()
    resumed = again.fit(
        checkpoint=checkpoint, callbacks=[EarlyStopping("validation_accuracy", patience=1)]
    )
    assert plain(resumed.state_dict()) == plain(history.state_dict())  # the times too
    assert resumed.stopped == history.stopped
    assert again.bits() == first.bits()
    assert not again.model.training
    assert checkpoint.path.read_bytes() == before


def test_early_stopping_and_logs_go_on_where_they_were(tmp_path):
    def callbacks(folder):
        folder.mkdir(exist_ok=True)
        return [
            EarlyStopping("train_loss", patience=2, min_delta=0.05),
            JSONLinesLog(folder / "lines", every_steps=2),
            SparsityLog(folder / "layers"),
        ]

    whole = Parts()
    expected = whole.fit(callbacks=callbacks(tmp_path / "whole"))
    checkpoint = Checkpoint(tmp_path / "run", every_steps=3)
    for step in (5, 11, 14):
        with pytest.raises(KilledError):
            Parts().fit(
                checkpoint=checkpoint, callbacks=[*callbacks(tmp_path / "killed"), KillAt(step)]
            )
    last = Parts()
    history = last.fit(checkpoint=checkpoint, callbacks=callbacks(tmp_path / "killed"))
    assert recorded(history) == recorded(expected)
    assert last.bits() == whole.bits()

    def lines(folder):
        found = [
            json.loads(line) for line in (tmp_path / folder / "lines").read_text().splitlines()
        ]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in found]

    assert lines("killed") == lines("whole")
    assert (tmp_path / "killed" / "layers").read_text() == (
        tmp_path / "whole" / "layers"
    ).read_text()


class StopAt:
    """A callback that asks for the end, after a step or an epoch, and perhaps is killed at the end."""

    def __init__(self, step, killed):
        self.step, self.killed = step, killed

    def __call__(self, state):
        if state.step == self.step:
            state.request_stop("enough")

    after_step = __call__

    def at_end(self, state):
        if self.killed:
            raise KilledError


@pytest.mark.parametrize(("step", "every"), [(7, 1), (5, 1), (10, None)])
def test_a_run_killed_between_the_wish_to_end_and_the_end_makes_no_further_step(
    step, every, tmp_path
):
    whole, last, checkpoint = Parts(), Parts(), Checkpoint(tmp_path / "run", every_steps=every)
    expected = whole.fit(callbacks=[StopAt(step, False)])
    with pytest.raises(KilledError):
        Parts().fit(checkpoint=checkpoint, callbacks=[StopAt(step, True)])
    for _ in range(2):  # the second time it is finished
        history = last.fit(checkpoint=checkpoint, callbacks=[StopAt(step, False)])
        assert recorded(history) == recorded(expected)
        assert history.step_loss.size == step
        assert last.bits() == whole.bits()


def interrupt(at):
    """A callback that presses Ctrl-C in a step."""

    class Press:
        def __call__(self, state):
            pass

        def after_step(self, state):
            if state.step == at:
                signal.raise_signal(signal.SIGINT)

    return Press()


@pytest.mark.parametrize("step", [4, 5, 7])
def test_after_ctrl_c_the_run_is_saved_and_goes_on_in_the_same_process_or_another(step, tmp_path):
    whole = Parts()
    expected = whole.fit(callbacks=[EarlyStopping(patience=50)])
    checkpoint = Checkpoint(tmp_path / "run", every_steps=1000)
    first, stopping = Parts(), EarlyStopping(patience=50)
    history = first.fit(checkpoint=checkpoint, callbacks=[stopping, interrupt(step)])
    assert history.interrupted
    assert history.step_loss.size == step
    content = checkpoint.path.read_bytes()
    for parts, best in ((first, stopping), (Parts(), EarlyStopping(patience=50))):
        checkpoint.path.write_bytes(content)
        resumed = parts.fit(checkpoint=checkpoint, callbacks=[best])
        assert recorded(resumed) == recorded(expected)
        assert not resumed.interrupted
        assert parts.bits() == whole.bits()


def test_how_often_it_saves(tmp_path, monkeypatch):
    clock, saves = [0.0], []
    monkeypatch.setattr("nnsparse.train.checkpoint.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "nnsparse.train.checkpoint.write",
        lambda path, state: saves.append(
            (state["history"]["step_loss"].size, state["run"]["finished"])
        ),
    )

    class Tick:
        def __call__(self, state):
            pass

        def after_step(self, state):
            clock[0] += 20.0

    def saved_at(**options):
        saves.clear()
        Parts().fit(checkpoint=Checkpoint(tmp_path / "run", **options), callbacks=[Tick()])
        assert saves.pop() == (20, True)
        assert not any(finished for _, finished in saves)
        return [step for step, _ in saves]

    assert saved_at() == [5, 10, 15, 20]
    assert saved_at(every_steps=6) == [6, 12, 18]
    assert saved_at(every_minutes=1) == [3, 6, 9, 12, 15, 18]
    assert saved_at(every_minutes=1.5, every_steps=4) == [4, 8, 12, 16, 20]
    assert saved_at(every_minutes=1, every_steps=4) == [3, 6, 9, 12, 15, 18]


def test_without_resuming_an_older_run_is_replaced(tmp_path):
    Parts().fit(checkpoint=Checkpoint(tmp_path / "run"), epochs=EPOCHS)
    other = Parts(lr=0.1)
    history = other.fit(checkpoint=Checkpoint(tmp_path / "run", resume=False))
    assert recorded(history) == recorded(Parts(lr=0.1).fit())
    assert recorded(ns.load(tmp_path / "run").history) == recorded(history)


def test_it_says_that_it_goes_on(tmp_path, caplog, capsys):
    checkpoint = Checkpoint(tmp_path / "run", every_steps=2)
    with pytest.raises(KilledError):
        Parts().fit(checkpoint=checkpoint, callbacks=[KillAt(7)])
    capsys.readouterr()
    with caplog.at_level(logging.INFO, "nnsparse"):
        Parts().fit(checkpoint=checkpoint, progress=True)
        Parts().fit(checkpoint=checkpoint)
    assert "run: resumed at step 6 of 20" in caplog.text
    assert "run: finished at step 20 of 20" in caplog.text
    assert "resumed at step 6" in capsys.readouterr().err


def test_the_file_is_one_that_load_restores_in_a_program_without_fit(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run")
    first, again = Parts(), Parts()
    first.fit(checkpoint=checkpoint)
    saved = ns.load(checkpoint.path)
    saved.restore(again.model, again.optimizer, updates=again.updates, loader=again.loader)
    assert again.bits() == first.bits()
    assert saved.history.step_loss.size == 20


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("when", ["loss", "weights"])
def test_a_run_that_diverges_leaves_the_last_good_checkpoint(when, tmp_path, caplog):
    checkpoint = Checkpoint(tmp_path / "run", every_steps=1)
    parts = Parts()

    class Break:
        def __call__(self, state):
            pass

        def after_step(self, state):
            if state.step == 6:
                parts.model[4].bias.data[0] = np.nan if when == "weights" else 3e38
                parts.model[4].bias.data[1] = np.nan if when == "weights" else -3e38

    with np.errstate(all="ignore"), pytest.raises(NonFiniteLossError):
        parts.fit(checkpoint=checkpoint, callbacks=[Break()])
    saved = ns.load(checkpoint.path)
    if when == "weights":
        assert (
            "not written after step 6, some weights are not finite; the file of step 5 stays"
            in caplog.text
        )
        assert saved.history.step_loss.size == 5
    assert all(np.isfinite(array).all() for array in saved.weights.values())
    assert np.isfinite(saved.history.step_loss).all()


def test_a_full_disk_ends_the_run_with_the_old_file_and_the_weights_in_memory(
    tmp_path, monkeypatch
):
    checkpoint = Checkpoint(tmp_path / "run", every_steps=3)
    flush, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:  # two saves, each with its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(
        OSError, match=r"No space left on device: .*run was not written; what was there before"
    ):
        Parts().fit(checkpoint=checkpoint)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [checkpoint.path]
    assert ns.load(checkpoint.path).history.step_loss.size == 6
    whole, again = Parts(), Parts()
    whole.fit()
    again.fit(checkpoint=checkpoint)
    assert again.bits() == whole.bits()


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="permissions are POSIX")
def test_a_folder_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    root = os.geteuid() == 0
    tmp_path.chmod(0o555)
    if root:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        with pytest.raises(
            (PermissionError, FileNotFoundError), match=r"permission|no folder|Permission"
        ):
            Checkpoint(tmp_path / "run")
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
        tmp_path.chmod(0o755)


def test_a_folder_without_permission_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("nnsparse.train.checkpoint.os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"Checkpoint: no permission to write into"):
        Checkpoint(tmp_path / "run")


def test_of_several_processes_the_first_one_saves_and_all_go_on(tmp_path):
    def run(rank, checkpoint, **options):
        parts = Parts()
        parts.loader = parts.loader.shard(rank, 2)
        history = parts.fit(checkpoint=checkpoint, **options)
        return history, parts.loader.epoch

    checkpoint = Checkpoint(tmp_path / "run", every_steps=2)
    run(1, checkpoint)
    assert not checkpoint.path.exists()
    with pytest.raises(KilledError):
        run(0, checkpoint, callbacks=[KillAt(8)])
    before = checkpoint.path.read_bytes()
    history, epoch = run(1, checkpoint)
    assert (history.step_loss.size, epoch) == (EPOCHS * STEPS, EPOCHS)
    assert checkpoint.path.read_bytes() == before


def test_leftovers_of_a_killed_save_are_no_checkpoints_and_go_away(tmp_path):
    leftover = tmp_path / ".run.0123456789abcdef"
    leftover.write_bytes(b"half of a checkpoint")
    checkpoint = Checkpoint(tmp_path / "run")
    assert checkpoint.found() is None
    Parts().fit(checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == [checkpoint.path]


class Counter:
    """A callback with a state."""

    def __call__(self, state):
        pass

    def state_dict(self):
        return {"count": 0}

    def load_state_dict(self, state):
        pass


OTHERS = {
    "epochs": ({}, {"epochs": 5, "updates": []}, "epochs is 4 in the file, 5 here"),
    "accumulate": ({"accumulate": 2}, {"accumulate": 2}, "accumulate is 1 in the file, 2 here"),
    "clipping": ({}, {"clip_norm": 1.0}, "clip_norm is None in the file, 1.0 here"),
    "no updates": ({}, {"updates": []}, r"updates is .* in the file, \[\] here"),
    "a sparsity": ({"sparsity": 0.6}, {}, "updates is "),
    "a learning rate": ({"lr": 0.3}, {}, "updates is "),
    "a batch size": ({"batch_size": 18}, {}, "data: batch_size is 20 in the file, 18 here"),
    "weights": ({"weights": True}, {}, "data: weighted is False in the file, True here; data: content is"),
    "early stopping": ({}, {"callbacks": [EarlyStopping()]}, r"callbacks is \[\] in the file, \[\['EarlyStopping'"),
    "a callback with a state": ({}, {"callbacks": [Counter()]}, r"saved with callbacks=\[\]; got \['Counter"),
    "validation data": ({}, {"validation": (X, Y[::-1])}, "validation is .* in the file, .* here"),
    "no validation": ({}, {"validation": None}, "validation is .* in the file, None here"),
    "a layer's setting": ({"eps": 0.1}, {}, r"layers: 1 is .BatchNorm1d\(24, eps=1e-05.*eps=0.1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    Parts().fit(checkpoint=Checkpoint(path))
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_run_is_refused_and_nothing_changes(name, there):
    parts, options, message = OTHERS[name]
    other = Parts(**parts)
    before, content = other.bits(), there.read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        other.fit(checkpoint=Checkpoint(there), **options)
    assert str(there) in str(caught.value)
    assert other.bits() == before
    assert there.read_bytes() == content


def test_a_file_of_another_model_data_set_or_loss_is_refused(there):
    parts = Parts()
    smaller = data.DataLoader((X, Y[::-1].copy()), batch_size=20, rng=0)
    cases = {
        "content is": lambda: fit(
            parts.model, LOSS, parts.optimizer, smaller, epochs=EPOCHS, updates=parts.updates,
            checkpoint=Checkpoint(there), progress=False, validation=(X, Y)),
        "loss: label_smoothing is 0.0 in the file, 0.1 here": lambda: fit(
            parts.model, nn.CrossEntropyLoss(0.1), parts.optimizer, parts.loader, epochs=EPOCHS,
            updates=parts.updates, checkpoint=Checkpoint(there), progress=False),
    }  # fmt: skip
    model = nn.mlp([8, 24, 3], sparsity=0.5, rng=0)
    optimizer = optim.Adam(model.parameters())
    cases["optimizer is .*SGD.*Adam.*layers: 1 is "] = lambda: fit(
        model,
        LOSS,
        optimizer,
        parts.loader,
        epochs=EPOCHS,
        checkpoint=Checkpoint(there),
        progress=False,
    )
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_a_learning_rate_of_its_own_has_to_be_the_same(tmp_path):
    def lower(state):  # what a callback does to it is no reason to refuse
        state.optimizer.lr *= 0.5

    whole = Parts()
    whole.fit(updates=[], callbacks=[lower])
    checkpoint = Checkpoint(tmp_path / "run", every_steps=1)
    first = Parts()
    history = first.fit(updates=[], checkpoint=checkpoint, callbacks=[lower, interrupt(8)])
    assert history.interrupted
    content = checkpoint.path.read_bytes()
    with pytest.raises(ValueError, match=r"learning_rate is 0.2 in the file, 0.3 here"):
        Parts(lr=0.3).fit(updates=[], checkpoint=checkpoint, callbacks=[lower])
    for parts in (first, Parts()):
        checkpoint.path.write_bytes(content)
        parts.fit(updates=[], checkpoint=checkpoint, callbacks=[lower])
        assert plain(parts.model.state_dict()) == plain(whole.model.state_dict())
        assert parts.optimizer.lr == whole.optimizer.lr


def test_a_damaged_file_or_one_of_save_is_refused(there, tmp_path):
    path = tmp_path / "run"
    path.write_bytes(there.read_bytes()[:-100])
    with pytest.raises(ValueError, match="run cannot be loaded"):
        Parts().fit(checkpoint=Checkpoint(path))
    parts = Parts()
    ns.save(path, parts.model, parts.optimizer)
    with pytest.raises(
        ValueError, match=r"was written by nnsparse.save, not by fit\(checkpoint=...\)"
    ):
        parts.fit(checkpoint=Checkpoint(path))


@pytest.mark.parametrize(
    "change",
    [
        {"batches_done": 3},
        {"batches_done": -1},
        {"batches_done": None},
        {"weights": np.zeros(3)},
        {"weights": None},
    ],
    ids=str,
)
def test_a_file_whose_counts_contradict_each_other_is_refused(change, there):
    parts = Parts()
    before = parts.bits()
    checkpoint = Checkpoint(there)
    saved = checkpoint.found()
    saved._state["run"].update(change)
    object.__setattr__(checkpoint, "found", lambda: saved)
    with pytest.raises(ValueError, match=r"does not fit the run"):
        parts.fit(checkpoint=checkpoint)
    assert parts.bits() == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": 3}, TypeError, "Checkpoint expects a path; got 3"),
        ({"every_steps": 0}, ValueError, "Checkpoint expects every_steps >= 1; got 0"),
        ({"every_steps": 1.5}, TypeError, "Checkpoint expects every_steps as an integer; got 1.5"),
        (
            {"every_steps": True},
            TypeError,
            "Checkpoint expects every_steps as an integer; got True",
        ),
        ({"every_minutes": 0}, ValueError, "Checkpoint expects every_minutes above 0; got 0"),
        (
            {"every_minutes": float("nan")},
            ValueError,
            "Checkpoint expects every_minutes above 0; got nan",
        ),
        (
            {"every_minutes": "5"},
            TypeError,
            "Checkpoint expects every_minutes as a number; got '5'",
        ),
        ({"resume": "yes"}, TypeError, "Checkpoint expects resume as True or False; got 'yes'"),
        ({"path": "none/run"}, FileNotFoundError, "Checkpoint: there is no folder none"),
        ({"path": "."}, IsADirectoryError, r"Checkpoint expects a file; \. is a folder"),
    ],
    ids=str,
)
def test_bad_arguments_of_a_checkpoint_are_refused(
    arguments, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        Checkpoint(**{"path": "run", **arguments})


def test_fit_wants_a_checkpoint_not_a_path(tmp_path):
    with pytest.raises(
        TypeError, match=r"fit expects checkpoint as a train.Checkpoint; got '.*run'"
    ):
        Parts().fit(checkpoint=str(tmp_path / "run"))


def test_its_repr_says_what_was_given():
    assert repr(Checkpoint("run", every_minutes=2, resume=False)) == (
        "Checkpoint('run', every_minutes=2.0, resume=False)"
    )


# ---------------------------------------------------------------- settings


class Side(Enum):
    LEFT = object()


def test_settings_are_described_by_what_they_are():
    def closure(strength):
        return lambda x: x * strength

    assert described(closure(0.5)) != described(closure(0.6))
    assert described(closure(0.5)) == described(closure(0.5))
    assert described(rigl(0.5)) != described(rigl(0.6))
    assert described(agp(0.9)) == described(agp(0.9))
    assert described(partial(max, 1, key=len)) == ["max", [1], [["key", "len"]]]
    assert described((np.float32(0.5), Side.LEFT, object(), str)) == [
        0.5,
        "LEFT",
        "object",
        "str",
    ]

    def itself():
        return itself

    assert json.dumps(described(itself))  # comes to an end
    assert json.dumps(described(rigl(0.5, every=3)))


def test_differences_are_named_with_their_place_and_kept_short():
    assert differ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4}) == [
        "b: c is 3 in the file, 2 here",
        "d is 4 in the file, None here",
    ]
    (line,) = differ({"a": "x" * 1000}, {"a": 1})
    assert line.endswith("... (1002 characters) here")


def test_a_sparse_data_set_is_known_by_its_rows_too():
    matrix = sparse.random_array((200, 50), density=0.1, rng=0, format="csr")
    y = np.arange(200) % 3

    def about(x):
        return data_of(data.DataLoader((x, y), batch_size=10, rng=0))

    other = matrix.copy()
    other.data[0] += 1.0  # in the first row, which is looked at
    assert about(matrix) == about(matrix.copy()) != about(other)
    assert about(matrix)["content"] != about(matrix.toarray())["content"]


# ---------------------------------------------------------------- SIGKILL

PROGRAM = """
import sys
import numpy as np
import nnsparse as ns
from nnsparse import data, datasets, nn, optim, schedule, sparsify, train
ns.set_num_threads(1)
(x, y), _ = datasets.digits(320, 10)
model = nn.mlp([784, 32, 10], sparsity=0.8, rng=0)
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = data.DataLoader((x, y), batch_size=32, rng=0)
total = 12 * len(loader)
updates = [sparsify.Sparsifier(model, optimizer, sparsify.rigl(0.8, every=10), total),
           optim.LRScheduler(optimizer, schedule.cosine(), total)]
print("ready", flush=True)
train.fit(model, nn.CrossEntropyLoss(), optimizer, loader, epochs=12, updates=updates, progress=False,
          checkpoint=train.Checkpoint(sys.argv[1], every_steps=1))
print("done", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_process_that_is_killed_at_random_moments_comes_to_the_same_end(tmp_path):
    def start(name):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path / name], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        )  # fmt: skip

    with start("whole") as process:
        assert process.stdout.readline() == "ready\n"
        begin = time.monotonic()
        assert process.stdout.readline() == "done\n"
        duration = time.monotonic() - begin
    rng, killed = np.random.default_rng(0), 0
    for _ in range(2):
        with start("killed") as process:
            process.stdout.readline()
            time.sleep(duration * rng.uniform(0.2, 0.5))
            process.kill()
            killed += process.wait() == -signal.SIGKILL
    with start("killed") as process:
        assert process.stdout.read() == "ready\ndone\n"
    assert killed >= 1
    states = [ns.load(tmp_path / name)._state for name in ("whole", "killed")]
    for state in states:
        state["history"] = {k: v for k, v in state["history"].items() if "seconds" not in k}
    assert plain(states[0]) == plain(states[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed", "whole"]
