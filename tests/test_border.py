"""Arrays, topologies and plans built or changed by hand: compiled loops check no bounds, so the border does.

Everything runs in one other process, so that a crash of the interpreter would be seen: `attacks` is its program.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnsparse
from nnsparse import Topology, nn, optim
from nnsparse.parameter import SparseParameter
from nnsparse.plan import plan_of
from nnsparse.row_gradient import RowGradient

X = np.ones((5, 40), np.float32)


def layer(**how):
    return nn.SparseLinear(40, 30, rng=0, **(how or {"density": 0.3}))


def topology():
    return Topology.random((30, 40), density=0.3, rng=0)


def trained(kind):
    """Return a layer and its optimizer after one step."""
    found = layer()
    optimizer = kind(found.parameters(), lr=0.1)
    found(X).sum().backward()
    optimizer.step()
    return found, optimizer


# ---------------------------------------------------------------- topologies


def change(name, value):
    """Return a topology whose private array was replaced, through a layer that wants to use it."""

    def attack():
        changed = topology()
        object.__setattr__(changed, name, value(getattr(changed, name)))
        return nn.SparseLinear(40, 30, topology=changed, rng=0)(X)

    return attack


def write(name, place, value):
    """Write into a topology's private array after taking its protection away."""

    def attack():
        changed = topology()
        array = getattr(changed, name)
        array.flags.writeable = True
        array[place] = value
        return nn.SparseLinear(40, 30, topology=changed, rng=0)(X)

    return attack


def unmade():
    return nn.SparseLinear(40, 30, topology=object.__new__(Topology), rng=0)(X)


def moved_to_changed():
    changed, own = topology(), layer()
    object.__setattr__(changed, "_columns", changed._columns + np.uint16(60_000))
    own.weight.move_to(changed)


def union_with_changed():
    changed = topology()
    object.__setattr__(changed, "_indptr", changed._indptr * 1000)
    return topology() | changed


def another_plan(make):
    def attack():
        own, other = topology(), make()
        own._derived["plan"] = plan_of(other)
        return nn.SparseLinear(40, 30, topology=own, rng=0)(X)

    return attack


MADE = "somebody has changed a Topology"
PLAN = "another plan in place of that"
ATTACKS = {
    "an index out of range": (change("_columns", lambda a: a + np.uint16(60_000)), MADE),
    "columns of another dtype": (change("_columns", lambda a: a.astype(np.int64)), MADE),
    "columns without an end": (change("_columns", lambda a: a[:-50]), MADE),
    "columns as a list": (change("_columns", lambda a: a.tolist()), MADE),
    "columns from the end": (change("_columns", lambda a: a[::-1]), MADE),
    "sorted backwards": (change("_columns", lambda a: a[::-1].copy()), MADE),
    "pointers that fall": (change("_indptr", lambda a: a[::-1].copy()), MADE),
    "pointers beyond the end": (change("_indptr", lambda a: a * 1000), MADE),
    "negative pointers": (change("_indptr", lambda a: a - 100), MADE),
    "too few pointers": (change("_indptr", lambda a: a[:5].copy()), MADE),
    "a larger shape": (change("shape", lambda s: (30, 4000)), "expects a topology of shape"),
    "an index written": (write("_columns", 0, 65_000), MADE),
    "a duplicate written": (write("_columns", slice(0, 2), 1), MADE),
    "a pointer written": (write("_indptr", 3, 10**6), MADE),
    "never made": (unmade, "it was never made. Call Topology"),
    "a move to a changed one": (moved_to_changed, MADE),
    "a union with a changed one": (union_with_changed, MADE),
    "the plan of a larger one": (another_plan(lambda: Topology.random((60, 80), density=0.5, rng=0)), PLAN),
    "the plan of one with fewer weights": (another_plan(lambda: Topology.random((30, 40), density=0.1, rng=0)), PLAN),
}  # fmt: skip

# ---------------------------------------------------------------- parameters

REPLACEMENTS = {
    "float16": lambda a: a.astype(np.float16),
    "big-endian": lambda a: a.astype(">f4"),
    "integers": lambda a: a.astype(np.int32),
    "objects": lambda a: a.astype(object),
    "complex": lambda a: a.astype(np.complex64),
    "a list": lambda a: a.tolist(),
    "None": lambda a: None,
    "float64": lambda a: a.astype(np.float64),
    "too short": lambda a: a[:2].copy(),
    "too long": lambda a: np.resize(a, 2 * a.size),
    "empty": lambda a: a[:0],
    "two-dimensional": lambda a: a[None],
    "every other one of more": lambda a: np.repeat(a, 2)[::2],
    "misaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype),
}


def replaced(name, use, first=False):
    """Return an attack that replaces the weights of a layer by another array and uses it."""

    def attack():
        model = nn.Sequential(layer(), nn.ReLU(), nn.Linear(30, 3, rng=0))
        affine = model.modules()
        target = [m for m in affine if hasattr(m, "weight")][0 if first else 1]
        target.weight.data = REPLACEMENTS[name](target.weight.data)
        return use(model)

    return attack


DATA = r"\.data|data of|SparseParameter expects|has float|weights; got"
for _name in REPLACEMENTS:
    ATTACKS[f"first weights {_name}, called"] = replaced(_name, lambda m: m(X), first=True), DATA
    ATTACKS[f"first weights {_name}, predict"] = replaced(_name, lambda m: m.predict(X), first=True), DATA  # fmt: skip
    ATTACKS[f"last weights {_name}, called"] = replaced(_name, lambda m: m(X)), DATA
    if _name in ("a list", "None", "too short", "too long", "empty", "two-dimensional"):
        ATTACKS[f"{_name}, state_dict"] = (
            replaced(_name, lambda m: m.state_dict(), first=True),
            DATA,
        )


def moved(change_):
    def attack():
        own = layer()
        own.weight.buffers["momentum"] = np.zeros_like(own.weight.data)
        change_(own.weight)
        own.weight.move_to(Topology.random((30, 40), density=0.3, rng=1))

    return attack


def stepped(kind, change_):
    def attack():
        own, optimizer = trained(kind)
        own(X).sum().backward()
        change_(own.weight)
        optimizer.step()

    return attack


def set_buffer(value):
    def attack(weight):
        for name, buffer in weight.buffers.items():
            weight.buffers[name] = value(buffer)

    return attack


def set_data(value):
    def attack(weight):
        weight.data = value(weight.data)

    return attack


BUFFER = "expects buffers|is expected to have its parameter's shape"
ATTACKS |= {
    "a short buffer, moved": (moved(set_buffer(lambda a: a[:3])), BUFFER),
    "a list as buffer, moved": (moved(set_buffer(lambda a: a.tolist())), BUFFER),
    "short data, moved": (moved(set_data(lambda a: a[:3])), DATA),
    "moved to no topology": (lambda: layer().weight.move_to(X), "move_to expects a Topology"),
    "a short buffer, a step": (stepped(optim.Adam, set_buffer(lambda a: a[:3])), BUFFER),
    "a float64 buffer, a step": (stepped(optim.Adam, set_buffer(lambda a: a.astype(np.float64))), BUFFER),
    "a read-only buffer, a step": (stepped(optim.Adam, set_buffer(lambda a: np.broadcast_to(a[:1], a.shape))), BUFFER),
    "a list as buffer, a step": (stepped(optim.Adam, set_buffer(lambda a: a.tolist())), BUFFER),
    "a list as data, a step": (stepped(optim.SGD, set_data(lambda a: a.tolist())), DATA),
    "float16 data, a step": (stepped(optim.SGD, set_data(lambda a: a.astype(np.float16))), DATA),
    "short data, a step": (stepped(optim.SGD, set_data(lambda a: a[:3])), "expects a gradient of shape"),
}  # fmt: skip


def attacks():
    """Run all attacks; return the type and the text of what each raises."""
    found = {}
    for name, (attack, _) in ATTACKS.items():
        try:
            found[name] = ["accepted", repr(attack())]
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    return found


PROGRAM = """
import importlib.util, json, sys, warnings
warnings.simplefilter("error")
spec = importlib.util.spec_from_file_location("test_border", sys.argv[1])
border = importlib.util.module_from_spec(spec)
spec.loader.exec_module(border)
print(json.dumps(border.attacks()))
"""


@pytest.fixture(scope="module")
def outcomes():
    root = Path(nnsparse.__file__).parents[1]
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, __file__],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ATTACKS)
def test_what_was_changed_by_hand_is_refused_with_a_message(name, outcomes):
    kind, text = outcomes[name]
    assert kind in ("ValueError", "TypeError", "AttributeError"), (kind, text)
    assert kind != "AttributeError" or "never made" in name
    assert re.search(ATTACKS[name][1], text), text


def test_nobody_can_write_into_what_a_topology_lends():
    made = Topology.random((3, 70_000), nnz=50, rng=0)
    for lent in (made.indptr, made.indices, *made.csr(), Topology.full((2, 2)).indptr):
        with pytest.raises(ValueError, match="WRITEABLE"):
            lent.flags.writeable = True


def test_a_protection_taken_away_and_nothing_changed_is_no_error():
    made = topology()
    made._columns.flags.writeable = True
    np.testing.assert_array_equal(made.sound()[1], made.indices)
    assert isinstance(SparseParameter(made, np.ones(made.nnz)), SparseParameter)


# ---------------------------------------------------------------- optimizers

STATES = {
    "a word": ("nesterov", "x", "True or False as nesterov; got 'x'"),
    "a number for a choice": ("nesterov", 1.0, "True or False as nesterov"),
    "an array of one choice": ("nesterov", np.array([True]), "True or False as nesterov"),
    "a choice for a number": ("momentum", True, "a number as momentum; got True"),
    "an array of one number": ("momentum", np.array([0.9]), "a number as momentum"),
    "an array as rate": ("lr", np.array([0.1]), "a number as lr"),
    "nothing": ("weight_decay", None, "a number as weight_decay; got None"),
    "a negative count": ("0.count", -1, r"0.count, updates so far, to be an integer >= 0; got -1"),
    "a fraction as count": ("0.count", 1.5, "updates so far, to be an integer"),
    "a choice as count": ("0.count", True, "updates so far, to be an integer"),
    "an array as count": ("0.count", np.array([1]), "updates so far, to be an integer"),
    "a huge count": ("0.count", 2**70, "updates so far, to be an integer"),
}


@pytest.mark.parametrize("name", STATES)
def test_an_odd_number_in_an_optimizers_state_is_refused(name):
    _, optimizer = trained(lambda params, lr: optim.SGD(params, lr, momentum=0.9))
    before = optimizer.state_dict()
    key, value, message = STATES[name]
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.load_state_dict({**before, key: value})
    assert str(optimizer.state_dict()) == str(before)


def test_a_state_read_back_from_a_file_is_taken(tmp_path):
    _, optimizer = trained(lambda params, lr: optim.SGD(params, lr, momentum=0.9, nesterov=True))
    np.savez(tmp_path / "state.npz", **optimizer.state_dict())
    with np.load(tmp_path / "state.npz") as state:
        optimizer.load_state_dict(state)
    assert optimizer.settings.nesterov is True


@pytest.mark.parametrize(
    ("setting", "value"),
    [("momentum", True), ("nesterov", "no"), ("nesterov", 1), ("lr", True), ("dampening", "0")],
)
def test_a_setting_of_the_wrong_type_is_refused(setting, value):
    with pytest.raises(TypeError, match=setting):
        optim.SGD(layer().parameters(), **{"momentum": 0.5, setting: value})


def test_a_row_gradient_can_be_negated_subtracted_and_looked_into():
    gradient = RowGradient([1, 3], np.arange(4.0).reshape(2, 2), (4, 2))
    whole = np.asarray(gradient)
    np.testing.assert_array_equal(-gradient, -whole)
    assert isinstance(-gradient, RowGradient)
    assert isinstance(gradient - 2 * gradient, RowGradient)
    np.testing.assert_array_equal(gradient - 2 * gradient, -whole)
    np.testing.assert_array_equal(gradient - 1, whole - 1)
    np.testing.assert_array_equal(1 - gradient, 1 - whole)
    np.testing.assert_array_equal(gradient[3], whole[3])
    np.testing.assert_array_equal(gradient[:, 1], whole[:, 1])
    assert len(gradient) == 4
