"""What `fit` can do beyond the plain loop: accumulation, clipping, weights, validation splits, stopping, reducers."""

import numpy as np
import pytest

from nnsparse import data, nn, optim
from nnsparse.sparsify import Sparsifier, rigl
from nnsparse.train import NonFiniteLossError, fit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 8)).astype(np.float32)
Y = (X @ RNG.standard_normal((8, 3))).argmax(1)
W = RNG.uniform(0.0, 2.0, 90)
LOSS = nn.CrossEntropyLoss()


class Parts:
    """A model in float64, its optimizer and its loader, the same ones each time."""

    def __init__(self, samples=(X, Y), batch_size=20, shuffle=True):
        self.model = nn.mlp([8, 24, 3], sparsity=[0.5, None], dtype=np.float64, rng=0)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)
        self.loader = data.DataLoader(samples, batch_size=batch_size, shuffle=shuffle, rng=0)

    def fit(self, epochs=2, loss=LOSS, **options):
        options.setdefault("progress", False)
        return fit(self.model, loss, self.optimizer, self.loader, epochs=epochs, **options)

    def weights(self):
        return np.concatenate([p.data.ravel() for p in self.model.parameters()])


# ---------------------------------------------------------------- accumulation


@pytest.mark.parametrize("samples", [(X, Y), (X, Y, W)], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", [LOSS, nn.CrossEntropyLoss(class_weight=[1, 5, 0.2])], ids=repr)
def test_small_batches_accumulate_to_the_steps_of_large_ones(samples, loss):
    small, large = Parts(samples, 10), Parts(samples, 30)  # 9 / 3 and 3 mini-batches
    a = small.fit(2, loss, accumulate=3)
    b = large.fit(2, loss)
    np.testing.assert_allclose(small.weights(), large.weights(), rtol=1e-10)
    np.testing.assert_allclose(a["step_loss"], b["step_loss"], rtol=1e-10)
    np.testing.assert_allclose(a["train_loss"], b["train_loss"], rtol=1e-10)
    assert a["steps"].tolist() == [3, 3]


def test_the_last_step_of_an_epoch_takes_the_batches_that_are_left():
    small, large = Parts(batch_size=10, shuffle=False), Parts(batch_size=40, shuffle=False)
    a, b = small.fit(1, accumulate=4), large.fit(1)  # groups of 4, 4 and 1 mini-batches
    assert a["steps"].tolist() == b["steps"].tolist() == [3]
    np.testing.assert_allclose(small.weights(), large.weights(), rtol=1e-10)


def test_a_loss_of_ones_own_is_weighed_by_samples():
    def own(outputs, y):
        return LOSS(outputs, y)

    small, large = Parts(batch_size=10), Parts(batch_size=20)
    small.fit(1, own, accumulate=2)
    large.fit(1)
    np.testing.assert_allclose(small.weights(), large.weights(), rtol=1e-10)


def test_a_sparsifier_counts_steps_and_sees_the_gradient_of_all_accumulated_batches():
    results = []
    for batch_size, accumulate in ((10, 3), (30, 1)):
        parts = Parts(batch_size=batch_size)
        recipe = rigl(0.5, every=2)
        update = Sparsifier(parts.model, parts.optimizer, recipe, total_steps=6)
        parts.fit(2, updates=[update], accumulate=accumulate)
        assert update.steps == 6
        results.append(parts.model[0].weight.topology)
    assert results[0] == results[1]


# ---------------------------------------------------------------- clipping


def test_gradients_are_clipped_after_effects_and_before_the_step():
    class Norms:
        def __init__(self, parameters):
            self.parameters, self.norms = list(parameters), []

        def before_step(self):
            for p in self.parameters:
                p.grad *= 1000

        def step(self):
            squares = sum(float((p.grad**2).sum()) for p in self.parameters)
            self.norms.append(np.sqrt(squares))

    parts = Parts()
    norms = Norms(parts.model.parameters())
    parts.fit(1, updates=[norms], clip_norm=0.25)
    np.testing.assert_allclose(norms.norms, 0.25)


def test_gradients_below_the_limit_stay_bit_for_bit():
    clipped, plain = Parts(), Parts()
    clipped.fit(2, clip_norm=1e9)
    plain.fit(2)
    assert np.array_equal(clipped.weights(), plain.weights())


def test_gradients_that_are_not_finite_stop_the_run_before_the_step():
    class Infinite:
        def before_step(self):
            parts.model[0].bias.grad[0] = np.inf

        def step(self):
            raise AssertionError("not reached")

    parts, fresh = Parts(), Parts()
    with pytest.raises(NonFiniteLossError, match=r"norm of the gradients is inf at step 0, learn"):
        parts.fit(1, updates=[Infinite()], clip_norm=1.0)
    assert np.array_equal(parts.weights(), fresh.weights())


class Reducer:
    """Of one process: what it has is all there is."""

    def begin(self, loss_fn, optimizer, loader, settings):
        pass

    def reduce(self, loss, weight, stop):
        return loss, weight, stop

    def agree(self, stop):
        return stop

    def step(self):
        pass


# ---------------------------------------------------------------- weights and validation


def test_a_weight_of_zero_is_a_sample_that_is_not_there():
    kept = np.arange(90) % 3 != 0
    a = Parts((X, Y, kept.astype(float)), batch_size=90)
    b = Parts((X[kept], Y[kept]), batch_size=60)
    a.fit(3, validation=(X, Y, kept.astype(float)))
    b.fit(3, validation=(X[kept], Y[kept]))
    np.testing.assert_allclose(a.weights(), b.weights(), rtol=1e-9)


def test_an_epoch_whose_weights_are_all_zero_has_no_loss():
    class Nothing(Reducer):
        def reduce(self, loss, weight, stop):
            return 0.0, 0.0, stop

    history = Parts().fit(1, updates=[Nothing()])
    assert np.isnan(history["train_loss"]).all()


def test_a_fraction_for_validation_is_taken_out_of_the_training_data():
    parts = Parts()
    train, held = parts.loader.split(0.2)
    seen = []

    class Watch(Reducer):
        def reduce(self, loss, weight, stop):
            seen.append(weight)
            return loss, weight, stop

    history = parts.fit(1, validation=0.2, updates=[Watch()])
    assert sum(seen) == len(train.y) == 72
    other = Parts()
    other.loader = train
    expected = other.fit(1, validation=held)
    assert history["validation_loss"] == expected["validation_loss"]
    assert np.array_equal(parts.weights(), other.weights())


# ---------------------------------------------------------------- callbacks


class Watcher:
    """A callback of every kind that writes down what is called when."""

    def __init__(self, stop_at_step=0, stop_at_epoch=0):
        self.calls, self.stop_at_step, self.stop_at_epoch = [], stop_at_step, stop_at_epoch

    def after_step(self, state):
        self.calls.append(("step", state.step, state.epoch))
        if state.step == self.stop_at_step:
            state.request_stop("enough steps")

    def __call__(self, state):
        self.calls.append(("epoch", state.step, state.epoch))
        if state.epoch == self.stop_at_epoch:
            state.request_stop("enough epochs")
            state.request_stop("again")

    def at_end(self, state):
        self.calls.append(("end", state.step, state.epoch))


def test_callbacks_are_called_after_steps_epochs_and_at_the_end():
    watcher = Watcher()
    Parts(batch_size=45).fit(2, callbacks=[watcher])
    assert watcher.calls == [
        ("step", 1, 0),
        ("step", 2, 0),
        ("epoch", 2, 1),
        ("step", 3, 1),
        ("step", 4, 1),
        ("epoch", 4, 2),
        ("end", 4, 2),
    ]


def test_a_callback_can_end_the_run_after_an_epoch_or_a_step():
    watcher = Watcher(stop_at_epoch=2)
    history = Parts().fit(9, callbacks=[watcher])
    assert (len(history.epochs), history["step_loss"].size) == (2, 10)
    assert history.stopped == "enough epochs"
    assert not history.interrupted
    assert str(history).endswith("; stopped: enough epochs")
    assert history.to_dict()["stopped"] == "enough epochs"
    watcher = Watcher(stop_at_step=7)
    history = Parts().fit(9, callbacks=[watcher])
    assert (len(history.epochs), history["step_loss"].size) == (1, 7)
    assert watcher.calls[-1] == ("end", 7, 1)


def test_a_state_tells_the_last_loss_and_all_steps():
    states = []

    class Keep(Watcher):
        def after_step(self, state):
            states.append(state)

    history = Parts().fit(2, callbacks=[Keep()])
    assert [state.loss for state in states] == history["step_loss"].tolist()
    assert {state.steps for state in states} == {10}
    assert states[6].history["step_loss"].size == 7


# ---------------------------------------------------------------- several processes


def test_a_reducer_sees_the_gradients_first_and_gives_the_loss_that_is_recorded():
    class Twice(Reducer):
        calls = 0

        def reduce(self, loss, weight, stop):
            self.calls += 1
            for p in parts.model.parameters():
                p.grad *= 2
            return loss + 100, 2 * weight, stop

    parts, plain, twice = Parts(), Parts(), Twice()
    plain.optimizer.lr = 0.4
    a, b = parts.fit(1, updates=[twice]), plain.fit(1)
    np.testing.assert_allclose(parts.weights(), plain.weights(), rtol=1e-12)
    np.testing.assert_allclose(a["step_loss"], b["step_loss"] + 100)
    assert twice.calls == 5


def test_a_reducer_begins_with_what_is_trained_on():
    class Look(Reducer):
        def begin(self, *given):
            self.given = given

    parts, look = Parts(), Look()
    parts.fit(1, updates=[look], clip_norm=2, accumulate=3)
    settings = {"epochs": 1, "accumulate": 3, "clip_norm": 2.0, "steps done": 0}
    assert look.given[1:] == (parts.optimizer, parts.loader, settings)


def test_a_wish_to_stop_is_passed_on_and_the_run_ends_when_the_processes_agree():
    class Later(Reducer):
        wishes: tuple[bool, ...] = ()

        def reduce(self, loss, weight, stop):
            self.wishes = (*self.wishes, stop)
            return loss, weight, sum(self.wishes) == 2  # the others need another step

    class Wish:
        def __call__(self, state):
            pass

        def after_step(self, state):
            if state.step == 1:
                state.request_stop("enough")

    later = Later()
    history = Parts().fit(2, updates=[later], callbacks=[Wish()])
    assert later.wishes == (False, True, True)
    assert history["step_loss"].size == 3
    assert history.stopped == "enough"


@pytest.mark.parametrize("when", ["reduce", "agree"])
def test_a_run_that_another_process_ends_says_so(when):
    class Other(Reducer):
        def reduce(self, loss, weight, stop):
            return loss, weight, when == "reduce"

        def agree(self, stop):
            return True

    history = Parts().fit(3, updates=[Other()])
    assert history["step_loss"].size == (1 if when == "reduce" else 5)
    assert history.stopped == "another process asked for it"
    assert not history.interrupted


def test_an_empty_part_of_a_mini_batch_leaves_gradients_to_the_reducer():
    found = []

    class Empty(data.DataLoader):  # type: ignore[misc]
        def batches(self, epoch, first=0):
            for x, y in super().batches(epoch, first):
                yield x.part(slice(0)), y[:0]

    class Look(Reducer):
        def reduce(self, loss, weight, stop):
            found.append((loss, weight, [p.grad for p in parts.model.parameters()]))
            return loss, weight, stop

    parts, fresh = Parts(), Parts()
    parts.loader = Empty((X, Y), batch_size=45)
    parts.fit(1, updates=[Look()])
    assert found == [(0.0, 0.0, [None] * 4)] * 2
    assert np.array_equal(parts.weights(), fresh.weights())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"accumulate": 0}, ValueError, "accumulate as an integer >= 1; got 0"),
        ({"accumulate": 2.0}, ValueError, "accumulate as an integer >= 1; got 2.0"),
        ({"clip_norm": 0}, ValueError, r"fit \(clip_norm\) expects a largest norm above 0; got 0"),
        ({"clip_norm": float("nan")}, ValueError, "above 0; got nan"),
        ({"clip_norm": "1"}, TypeError, "as a number; got '1'"),
        ({"clip_norm": True}, TypeError, "as a number; got True"),
        ({"validation": 0.0}, ValueError, "a fraction above 0 and below 1; got 0.0"),
        ({"validation": 1.0}, ValueError, "a fraction above 0 and below 1; got 1.0"),
        ({"validation": (X, Y, W[:3])}, ValueError, "one per sample; got"),
    ],
)
def test_a_bad_argument_is_refused_before_the_first_step(options, error, message):
    parts, fresh = Parts(), Parts()
    with pytest.raises(error, match=message):
        parts.fit(1, **options)
    assert np.array_equal(parts.weights(), fresh.weights())
