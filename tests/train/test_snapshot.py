"""`ns.save` and `ns.load`: all of a training comes back, or nothing changes."""

import copy
import errno
import os
import zipfile

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import atomic, data, nn, optim, schedule
from nnsparse.parameter import FORWARD
from nnsparse.sparsify import Sparsifier, agp, rigl, sr_ste
from nnsparse.train import Epoch, History
from nnsparse.train.snapshot import FORMAT

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 12)).astype(np.float32)
Y = RNG.integers(0, 4, 60)
LOSS = nn.CrossEntropyLoss()
TOTAL = 24


class Noise:
    """An update of somebody's own: it draws random numbers and keeps all kinds of things."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.seen = []

    def step(self):
        self.seen.append(float(self.rng.random()))

    def state_dict(self):
        return {
            "rng": self.rng.bit_generator.state,
            "seen": self.seen,
            "odd": (np.nan, -np.inf, None, True, "text", np.float32(0.1), np.arange(3)),
        }

    def load_state_dict(self, state):
        self.rng.bit_generator.state = state["rng"]
        self.seen = list(state["seen"])


class Training:
    """Everything that a hand-written loop has."""

    def __init__(self, seed=0, recipe=None, lr=0.1, optimizer=None):
        self.model = nn.Sequential(
            nn.SparseLinear(12, 20, sparsity=0.6, rng=seed),
            nn.BatchNorm1d(20),
            nn.ReLU(),
            nn.Dropout(0.3, rng=seed),
            nn.SparseLinear(20, 4, sparsity=0.5, rng=seed + 1),
        )
        make = optimizer or (lambda params: optim.SGD(params, lr=lr, momentum=0.9))
        self.optimizer = make(self.model.parameters())
        self.loader = data.DataLoader((X, Y), batch_size=16, rng=seed)
        self.updates = [
            Sparsifier(self.model, self.optimizer, recipe or rigl(0.6, every=3), TOTAL, rng=seed),
            optim.LRScheduler(self.optimizer, schedule.cosine(), TOTAL),
            Noise(seed),
        ]

    def train(self, first, last):
        losses = []
        for step in range(first, last):
            if step % len(self.loader) == 0:
                batches = iter(self.loader)
            elif step == first:
                batches = self.loader.batches(self.loader.epoch - 1, step % len(self.loader))
            x, y = next(batches)
            loss = LOSS(self.model(x), y)
            losses.append(loss.item())
            self.optimizer.zero_grad()
            loss.backward()
            self.updates[0].before_step()
            if not self.updates[0].replaces_step:
                self.optimizer.step()
            for update in self.updates:
                update.step()
        return losses

    def save(self, path, **more):
        ns.save(path, self.model, self.optimizer, updates=self.updates, loader=self.loader, **more)

    def restore(self, path):
        saved = ns.load(path)
        saved.restore(self.model, self.optimizer, updates=self.updates, loader=self.loader)
        return saved

    def bits(self):
        """All that there is, as it is, bit for bit."""
        parameters = [
            (name, p.data.tobytes(), getattr(p, "topology", None), None if p.grad is None else p.grad.tobytes(),
             {n: (b.dtype, b.tobytes()) for n, b in sorted(p.buffers.items())})
            for name, p in self.model.named_parameters()
        ]  # fmt: skip
        others = {n: a.tobytes() for n, a in self.model.state_dict().items()}
        modes = [m._training for m in self.model.modules()]
        dropout = self.model[3].rng.bit_generator.state
        kept = plain(
            (
                self.optimizer.state_dict(),
                [u.state_dict() for u in self.updates],
                self.loader.state_dict(),
            )
        )
        return repr((parameters, others, modes, dropout, self.optimizer.lr, kept))


def plain(value):
    """Return a state as something that can be compared; times of updates are left out."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "history.seconds"}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return (
        (value.dtype.str, value.shape, value.tobytes())
        if isinstance(value, np.ndarray)
        else repr(value)
    )


RECIPES = {
    "rigl": lambda: rigl(0.6, every=3),
    "agp": lambda: agp(0.8, initial=0.6, every=4),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stop", [0, 1, 5, 6, 8, 23])
def test_a_training_goes_on_bit_for_bit_from_any_step(recipe, stop, tmp_path):
    """Update steps, their neighbours, and ends of epochs are among them."""
    whole, first, second = (Training(seed, RECIPES[recipe]()) for seed in (0, 0, 1))
    losses = whole.train(0, TOTAL)
    assert first.train(0, stop) == losses[:stop]
    first.save(tmp_path / "file")
    second.model.eval()  # the file knows better
    second.restore(tmp_path / "file")
    assert second.train(stop, TOTAL) == losses[stop:]
    assert second.bits() == whole.bits()
    assert second.updates[2].seen == whole.updates[2].seen


def test_forward_masks_come_back_with_and_without_their_sparsifier(tmp_path):
    def parts(seed):
        model = nn.Sequential(
            nn.SparseLinear(12, 20, density=1, rng=seed),
            nn.ReLU(),
            nn.SparseLinear(20, 4, density=1, rng=seed),
        )
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, [Sparsifier(model, optimizer, sr_ste(), TOTAL)]

    def train(model, optimizer, updates, steps):
        for _ in range(steps):
            loss = LOSS(model(X), Y)
            optimizer.zero_grad()
            loss.backward()
            updates[0].before_step()
            optimizer.step()
            updates[0].step()

    whole = parts(0)
    train(*whole, 5)
    assert FORWARD in whole[0][0].weight.buffers
    ns.save(tmp_path / "file", whole[0], whole[1], updates=whole[2])
    model, optimizer, updates = parts(1)
    ns.load(tmp_path / "file").restore(model)
    np.testing.assert_array_equal(model.predict(X), whole[0].predict(X))
    ns.load(tmp_path / "file").restore(model, optimizer, updates=updates)
    train(*whole, TOTAL - 5)
    train(model, optimizer, updates, TOTAL - 5)
    for a, b in zip(whole[0].parameters(), model.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    # A file without masks takes them away.
    fresh = parts(2)
    whole[0][0].weight.buffers.clear()
    whole[0][2].weight.buffers.clear()
    ns.save(tmp_path / "plain", whole[0])
    ns.load(tmp_path / "plain").restore(fresh[0])
    assert FORWARD not in fresh[0][0].weight.buffers


def test_saving_changes_nothing_and_equal_states_give_equal_files(tmp_path):
    training = Training()
    training.train(0, 5)
    before = training.bits()
    training.save(tmp_path / "a")
    assert training.bits() == before
    training.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_only_the_model_may_be_restored_and_its_topologies_may_differ(tmp_path):
    training = Training()
    training.train(0, 7)
    training.save(tmp_path / "file")
    other = nn.Sequential(
        nn.SparseLinear(12, 20, sparsity=0.0, rng=5),
        nn.BatchNorm1d(20),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.SparseLinear(20, 4, density=0.1, rng=5),
    )
    saved = ns.load(tmp_path / "file")
    saved.restore(other)
    assert other[0].weight.topology == training.model[0].weight.topology
    np.testing.assert_array_equal(other.predict(X), training.model.predict(X))
    assert saved.weights.keys() == training.model.state_dict().keys()


def test_history_and_extra_come_back(tmp_path):
    history = History(
        (Epoch(2, 0.5, np.nan, 0.875, 0.004, 0.1), Epoch(2, 0.4, np.inf, 0.9, 0.005, 0.05)),
        [0.6, 0.4, 0.3, 0.1], [0.002, 0.002, 0.003, 0.001], True, "why",
    )  # fmt: skip
    extra = {"epoch": 3, "best": (1.5, [np.nan]), "array": np.eye(2), "empty": {}}
    ns.save(tmp_path / "file", nn.mlp([3, 2], rng=0), history=history, extra=extra)
    saved = ns.load(str(tmp_path / "file"))
    assert plain(saved.history.state_dict()) == plain(history.state_dict())
    assert plain(saved.extra) == plain(extra)
    assert saved.seed is None
    bare = tmp_path / "bare"
    ns.save(bare, nn.mlp([3, 2], rng=0))
    assert ns.load(bare).history is None


def test_keys_that_look_alike_as_names_of_arrays_stay_apart(tmp_path):
    extra = {
        "a b": np.zeros(1),
        "a_b": np.ones(2),
        "ä": np.ones(3),
        "../a": np.ones(4),
        "": np.ones(5),
    }
    ns.save(tmp_path / "f", nn.mlp([3, 2], rng=0), extra=extra)
    assert plain(ns.load(tmp_path / "f").extra) == plain(extra)


def test_the_file_is_a_plain_npz_with_readable_names(tmp_path):
    training = Training()
    training.train(0, 2)
    training.save(tmp_path / "file")
    with np.load(tmp_path / "file", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(
            arrays["model/state/0.weight"], training.model[0].weight.canonical()
        )
        assert "optimizer/state/0.momentum" in arrays
    with zipfile.ZipFile(tmp_path / "file") as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


# ---------------------------------------------------------------- all or nothing


def state_of(path):
    return copy.deepcopy(ns.load(path)._state)


class Refusing(Noise):
    """Changes half of itself, then raises."""

    refuses = None

    def load_state_dict(self, state):
        super().load_state_dict(state)
        if self.refuses:
            error, self.refuses = self.refuses, None
            raise error


DAMAGE = {
    "a part of the model": lambda s: s["model"]["classes"].update({"2": "Tanh"}),
    "a missing part": lambda s: s["model"]["classes"].pop("1"),
    "a shape": lambda s: s["model"]["shapes"].update({"0.weight": ["float32", 20, 13]}),
    "a dtype": lambda s: s["model"]["shapes"].update({"0.bias": ["float64", 20]}),
    "a missing array": lambda s: s["model"]["state"].pop("4.bias"),
    "an unsorted topology": lambda s: s["model"]["state"]["4.weight.indices"].sort(),
    "too few values": lambda s: s["model"]["state"].update({"4.weight": np.zeros(3, np.float32)}),
    "a mask": lambda s: s["model"]["masks"].update({"4.weight": np.zeros(3, np.float32)}),
    "no mode": lambda s: s["model"].pop("training"),
    "a mode that is missing": lambda s: s["model"]["training"].pop("4"),
    "a random state": lambda s: s["model"]["generators"]["3.rng"]["state"].update(state="zero"),
    "another generator": lambda s: s["model"]["generators"]["3.rng"].update(bit_generator="MT19937"),
    "no generator": lambda s: s["model"]["generators"].clear(),
    "another optimizer": lambda s: s["optimizer"].update({"class": "Adam"}),
    "no optimizer": lambda s: s.update(optimizer=None),
    "momentum of another shape": lambda s: s["optimizer"]["state"].update(
        {"0.momentum": np.zeros(3, np.float32)}
    ),
    "a setting": lambda s: s["optimizer"]["state"].update(momentum=2.0),
    "a learning rate": lambda s: s["optimizer"]["state"].update(lr=-1.0),
    "another recipe": lambda s: s["updates"][0]["state"].update(recipe="set"),
    "a first topology": lambda s: s["updates"][0]["state"].pop("first.0.indptr"),
    "steps of a schedule": lambda s: s["updates"][1]["state"].update(steps=-1),
    "a state of mine": lambda s: s["updates"][2]["state"].pop("rng"),
    "samples": lambda s: s["loader"].update(samples=61),
    "a batch size": lambda s: s["loader"].update(batch_size=1),
    "an epoch": lambda s: s["loader"].update(epoch=-1),
    "a seed": lambda s: s["loader"].update(seed=-1),
    "no seed": lambda s: s["loader"].pop("seed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "file"
    training = Training()
    training.train(0, 8)  # the topologies have moved
    training.save(path)
    return path


@pytest.mark.parametrize("what", DAMAGE)
def test_whatever_does_not_fit_leaves_every_bit_as_it_was(what, there, monkeypatch):
    other = Training(seed=3)
    other.train(0, 5)  # with gradients, buffers, and a topology of its own
    before = other.bits()
    saved = ns.load(there)
    DAMAGE[what](saved._state)
    with pytest.raises(ValueError, match=r"file does not fit|file was saved with") as caught:
        saved.restore(other.model, other.optimizer, updates=other.updates, loader=other.loader)
    assert other.bits() == before
    assert "Nothing was changed" in str(caught.value)
    assert len(other.train(5, 7)) == 2  # and it goes on


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyError("key"), KeyboardInterrupt()])
def test_an_update_that_raises_sends_all_back_whatever_it_raises(error, tmp_path):
    first, other = Training(), Training(seed=3)
    for training in (first, other):
        training.updates[2] = Refusing()
    first.train(0, 8)
    first.save(tmp_path / "file")
    other.train(0, 5)
    before, arrays = other.bits(), [p.data for p in other.model.parameters()]
    other.updates[2].refuses = error
    kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ValueError
    with pytest.raises(kind):
        other.restore(tmp_path / "file")
    assert other.updates[2].seen == other.updates[2].seen[:5]
    assert other.bits() == before
    assert all(a is p.data for a, p in zip(arrays, other.model.parameters(), strict=True))


def test_an_update_that_refuses_even_its_old_state_does_not_keep_the_others_from_theirs(tmp_path):
    class Stubborn(Noise):
        def load_state_dict(self, state):
            raise RuntimeError("never")

    Stubborn.__name__ = "Noise"
    Training().save(tmp_path / "file")
    other = Training(seed=3)
    other.updates[2] = Stubborn()
    before = other.bits()
    with pytest.raises(
        ValueError, match=r"does not fit updates\[2\] \(Noise\): never Nothing was changed"
    ):
        other.restore(tmp_path / "file")
    assert other.bits() == before


def test_a_sparsifier_whose_layers_were_taken_over_is_refused(there):
    other = Training(seed=3)
    Sparsifier(other.model, other.optimizer, rigl(0.6, every=3), TOTAL)
    before = other.bits()
    with pytest.raises(ValueError, match=r"updates\[0\] \(Sparsifier\): .*another Sparsifier"):
        other.restore(there)
    assert other.bits() == before


# ---------------------------------------------------------------- bad input


def refuse(error, message, call, *args, **options):
    with pytest.raises(error, match=message):
        call(*args, **options)


MODEL = nn.mlp([3, 2], rng=0)
SGD = optim.SGD(MODEL.parameters(), lr=0.1)
LOOP: list = []
LOOP.append(LOOP)
BAD_SAVES = {
    "no model": (("f", "model"), {}, TypeError, r"save expects a model \(nn.Module\); got str"),
    "arguments swapped": (("f", SGD, MODEL), {}, TypeError, "save expects a model"),
    "no optimizer": (("f", MODEL, "sgd"), {}, TypeError, "save expects an optimizer or None; got str"),
    "optimizer of another model": (
        ("f", MODEL, optim.SGD(nn.mlp([3, 2]).parameters(), lr=1.0)),
        {},
        ValueError,
        "save expects an optimizer over the model's parameters",
    ),
    "updates no list": (("f", MODEL), {"updates": Noise()}, TypeError, "save expects updates as a list"),
    "no update": (("f", MODEL), {"updates": [3]}, TypeError, "save expects updates as a list of objects with step"),
    "no loader": (("f", MODEL), {"loader": (X, Y)}, TypeError, "save expects loader as a DataLoader"),
    "no history": (("f", MODEL), {"history": {}}, TypeError, "save expects history as a History; got dict"),
    "an object": (("f", MODEL), {"extra": {"a": [object()]}}, TypeError, "cannot hold object in extra/a/0; expected"),
    "objects": (("f", MODEL), {"extra": np.array([{}], object)}, TypeError, "an array of object in extra"),
    "complex": (("f", MODEL), {"extra": 1j}, TypeError, "cannot hold complex in extra"),
    "masked": (("f", MODEL), {"extra": np.ma.array([1])}, TypeError, "cannot hold MaskedArray in extra"),
    "long floats": (("f", MODEL), {"extra": np.zeros(2, np.longdouble)}, TypeError, "an array of float128|longdouble"),
    "a key": (("f", MODEL), {"extra": {1: 2}}, TypeError, "cannot hold the key 1 in extra"),
    "a reserved key": (("f", MODEL), {"extra": {"$x": 2}}, TypeError, r"cannot hold the key '\$x' in extra"),
    "itself": (("f", MODEL), {"extra": LOOP}, ValueError, "cannot hold what contains itself"),
    "no path": ((5, MODEL), {}, TypeError, "save expects a path; got 5"),
    "no folder": (("none/f", MODEL), {}, FileNotFoundError, "none/f was not written"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SAVES)
def test_bad_arguments_of_save_are_refused_and_nothing_is_written(name, tmp_path, monkeypatch):
    args, options, error, message = BAD_SAVES[name]
    monkeypatch.chdir(tmp_path)
    refuse(error, message, ns.save, *args, **options)
    assert not list(tmp_path.iterdir())


BAD_RESTORES = {
    "no model": (lambda t: ((X,), {}), TypeError, "restore expects a model"),
    "no optimizer": (lambda t: ((t.model, "sgd"), {}), TypeError, "restore expects an optimizer"),
    "another optimizer": (
        lambda t: ((t.model, optim.Adam(t.model.parameters())), {}),
        ValueError,
        "does not fit the optimizer: expected the state of a Adam in the file; it has one of SGD",
    ),
    "another model": (
        lambda t: ((nn.mlp([12, 20, 4], rng=0),), {}),
        ValueError,
        "does not fit the model: its parts differ: 0 is SparseLinear in the file, Linear here",
    ),
    "another shape": (
        lambda t: ((nn.Sequential(nn.SparseLinear(12, 21, sparsity=0.6), *list(t.model)[1:]),), {}),
        ValueError,
        r"parameters differ: 0.weight is \['float32', 20, 12\] in the file, \['float32', 21, 12\] here",
    ),
    "updates no list": (lambda t: ((t.model,), {"updates": t.updates[0]}), TypeError, "restore expects updates as"),
    "fewer updates": (
        lambda t: ((t.model, t.optimizer), {"updates": t.updates[:1]}),
        ValueError,
        r"was saved with updates=\['Sparsifier', 'LRScheduler', 'Noise'\]; got \['Sparsifier'\]",
    ),
    "another order": (
        lambda t: ((t.model, t.optimizer), {"updates": t.updates[::-1]}),
        ValueError,
        "Pass as many, of the same classes, in this order",
    ),
    "no loader": (lambda t: ((t.model,), {"loader": X}), TypeError, "restore expects loader as a DataLoader"),
    "another loader": (
        lambda t: ((t.model,), {"loader": data.DataLoader((X, Y), batch_size=7)}),
        ValueError,
        "does not fit the loader: DataLoader has batch_size=7; the state is of one with batch_size=16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RESTORES)
def test_bad_arguments_of_restore_are_refused_and_nothing_changes(name, there):
    make, error, message = BAD_RESTORES[name]
    training = Training(seed=3)
    training.train(0, 2)
    args, options = make(training)
    before = training.bits()
    refuse(error, message, ns.load(there).restore, *args, **options)
    assert training.bits() == before


def test_what_was_not_saved_cannot_be_restored(tmp_path):
    training = Training()
    ns.save(tmp_path / "file", training.model)
    saved = ns.load(tmp_path / "file")
    refuse(ValueError, "it has none", saved.restore, training.model, training.optimizer)
    refuse(ValueError, "without a loader", saved.restore, training.model, loader=training.loader)
    refuse(
        ValueError,
        r"saved with updates=\[\]",
        saved.restore,
        training.model,
        updates=training.updates,
    )
    ns.save(tmp_path / "file", training.model, updates=[Ticking()])
    Ticking.state_dict = lambda self: {}
    Ticking.load_state_dict = lambda self, state: None
    try:
        refuse(ValueError, "state of a Ticking .* it has none",
               ns.load(tmp_path / "file").restore, training.model, updates=[Ticking()])  # fmt: skip
    finally:
        del Ticking.state_dict, Ticking.load_state_dict


class Ticking:
    """An update without a state."""

    def step(self):
        pass


def test_an_update_without_a_state_is_only_counted(tmp_path):
    model = nn.mlp([3, 2], rng=0)
    ns.save(tmp_path / "file", model, updates=[Ticking()])
    ns.load(tmp_path / "file").restore(model, updates=[Ticking()])


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "f").write_bytes(content)
    refuse(
        ValueError, "f cannot be loaded: .* It is no undamaged checkpoint", ns.load, tmp_path / "f"
    )


@pytest.mark.parametrize("path", [0, True, None, b"file"])
def test_the_number_of_an_open_file_is_no_path(path):
    refuse(TypeError, "load expects a path; got ", ns.load, path)
    refuse(TypeError, "load expects a path; got ", ns.inference.load, path)


def test_compiled_models_and_checkpoints_are_told_apart(tmp_path):
    ns.save(tmp_path / "checkpoint", MODEL)
    ns.compile(MODEL).save(tmp_path / "compiled")
    refuse(
        ValueError,
        f"expected the format '{FORMAT}'.* nnsparse.inference.load",
        ns.load,
        tmp_path / "compiled",
    )
    refuse(ValueError, "nnsparse.load", ns.inference.load, tmp_path / "checkpoint")


STATES = {
    "no state": {},
    "no dict": {"state": [1]},
    "incomplete": {"state": {"model": {}}},
    "an unknown mark": {"state": {"$pickle": "x"}},
    "two marks": {"state": {"$float": "nan", "$tuple": []}},
    "a strange number": {"state": {"$float": "1e5"}},
    "an array that is not there": {"state": {"$array": "x"}},
    "an array by a list": {"state": {"$array": []}},
    "a tuple of nothing": {"state": {"$tuple": None}},
    "a bad history": {
        "state": dict.fromkeys(
            ["model", "optimizer", "updates", "callbacks", "loader", "run", "extra"]
        )
        | {"history": {"steps": []}}
    },
}


@pytest.mark.parametrize("name", STATES)
def test_a_forged_manifest_is_refused(name, tmp_path):
    ns.npz.write(tmp_path / "f", FORMAT, 1, {}, STATES[name])
    refuse(ValueError, "f cannot be loaded", ns.load, tmp_path / "f")


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("model", None),
        ("optimizer", {"class": "SGD", "state": 3}),
        ("updates", None),
        ("updates", [{"class": 3, "state": {}}]),
        ("callbacks", [{"class": "A"}]),
        ("loader", {"seed": "0"}),
        ("run", {"settings": None}),
    ],
    ids=str,
)
def test_a_part_of_another_kind_is_refused_on_loading(part, wrong, tmp_path):
    ns.save(tmp_path / "f", MODEL, SGD, loader=data.DataLoader((X, Y), batch_size=7))
    arrays, manifest = ns.npz.read(tmp_path / "f", FORMAT, 1)
    manifest["state"][part] = wrong
    if part in ("model", "optimizer"):
        arrays = {name: a for name, a in arrays.items() if not name.startswith(part)}
    ns.npz.write(tmp_path / "f", FORMAT, 1, arrays, {"state": manifest["state"]})
    refuse(
        ValueError, f"f cannot be loaded: {part} is not as in a checkpoint", ns.load, tmp_path / "f"
    )


def test_a_newer_format_and_an_array_too_many_are_refused(tmp_path):
    ns.npz.write(tmp_path / "f", FORMAT, 2, {}, {})
    refuse(ValueError, "of a newer nnsparse; this one reads up to 1", ns.load, tmp_path / "f")
    ns.save(tmp_path / "f", MODEL)
    arrays, manifest = ns.npz.read(tmp_path / "f", FORMAT, 1)
    ns.npz.write(tmp_path / "f", FORMAT, 1, {**arrays, "more": X}, {"state": manifest["state"]})
    refuse(ValueError, "its state is incomplete", ns.load, tmp_path / "f")


def test_a_forged_state_of_any_kind_is_refused_on_restoring(tmp_path):
    """Whatever stands where a dict or a list is expected: an error of ours, and nothing changes."""
    training = Training()
    training.train(0, 4)
    training.save(tmp_path / "f")
    before = training.bits()

    def places(value, way=()):
        yield way
        if isinstance(value, dict):
            for key in value:
                yield from places(value[key], (*way, key))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                yield from places(item, (*way, i))

    saved = ns.load(tmp_path / "f")
    ways = [
        way
        for way in places(saved._state)
        if way and way[0] not in ("history", "extra", "run", "callbacks")
    ]
    good, refused = copy.deepcopy(saved._state), 0
    for way in ways:
        for wrong in (None, 7, "text", []):
            broken = copy.deepcopy(good)
            inside = broken
            for key in way[:-1]:
                inside = inside[key]
            inside[way[-1]] = wrong
            object.__setattr__(saved, "_state", broken)
            try:
                saved.restore(
                    training.model,
                    training.optimizer,
                    updates=training.updates,
                    loader=training.loader,
                )
            except ValueError:
                refused += 1
                assert training.bits() == before
            else:  # a number in place of a number
                object.__setattr__(saved, "_state", good)
                saved.restore(
                    training.model,
                    training.optimizer,
                    updates=training.updates,
                    loader=training.loader,
                )
                training.model.zero_grad()
                before = training.bits()
    assert refused > 3 * len(ways)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    training = Training()
    training.save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    training.train(0, 3)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    refuse(
        OSError, "No space left on device: .*file was not written", training.save, tmp_path / "file"
    )
    assert (tmp_path / "file").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
