"""The model of the machine and what is remembered of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import jit, machine
from nnsparse.machine import Choices


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(jit, "user_cache", lambda: tmp_path / "cache")
    machine.use(None)
    yield tmp_path / "cache"
    machine.use(None)


@given(st.integers(0, 10**7), st.floats(0, 1))
def test_a_slab_is_a_power_of_two_with_two_nonzeros_a_run_unless_it_is_the_whole_matrix(
    n_in, density
):
    slab = Choices().slab(n_in, density)
    assert slab & (slab - 1) == 0
    assert slab * density >= 2 or slab >= n_in


@pytest.mark.parametrize(
    ("density", "slab"),
    [(1.0, 128), (0.1, 128), (0.05, 256), (0.02, 512), (0.01, 1024), (1e-3, 2048)],
)
def test_sparser_patterns_take_longer_slabs(density, slab):
    assert Choices().slab(10**6, density) == slab


@pytest.mark.parametrize(
    ("cache", "bits", "base", "quads"),
    [(32, 512, 128, True), (48, 512, 128, True), (64, 128, 256, False), (16, 256, 64, False)],
)
def test_the_model_fills_the_first_cache_and_asks_for_wide_registers(
    cache, bits, base, quads, monkeypatch
):
    monkeypatch.setattr(machine, "cache_sizes", lambda: {1: cache * 1024})
    monkeypatch.setattr(jit, "vector_bits", lambda: bits)
    found = machine.model()
    assert found.base == base
    assert (found.quads < 1) == (found.quads_gathered < 1) == quads


def test_without_cache_sizes_32_kilobytes_are_assumed(monkeypatch):
    monkeypatch.setattr(machine, "cache_sizes", dict)
    assert machine.model().base == 128


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": 100},
        {"base": 8},
        {"dense_enough": (0.01,)},
        {"quads": 0.0},
        {"quads": float("nan")},
    ],
)
def test_choices_that_would_break_a_plan_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Choices(**wrong)


def test_measured_choices_are_remembered_for_this_machine_only(home, monkeypatch):
    assert machine.choices() == machine.model()
    mine = Choices(base=64, dense_enough=(0.25,), quads=0.5, quads_gathered=0.3)
    machine.remember(mine)
    machine.use(None)
    assert machine.choices() == mine
    monkeypatch.setattr(machine, "key", lambda: "another machine")
    machine.use(None)
    assert machine.choices() == machine.model()
    machine.remember(Choices())
    assert len(json.loads(machine.path().read_text())) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"K": 3}', '{"K": {"base": 100}}', "\x00"])
def test_a_damaged_file_counts_as_none(home, content, monkeypatch):
    monkeypatch.setattr(machine, "key", lambda: "K")
    home.mkdir()
    machine.path().write_text(content)
    assert machine.choices() == machine.model()
    machine.remember(Choices())
    assert machine.remembered() == Choices()


def test_what_gains_nothing_from_a_cache_takes_all_inputs_as_one_slab():
    choices = machine.Choices()
    for n_in in (machine.LARGEST, 10**6, 3_400_000):
        n_slabs = -(-n_in // choices.slab(n_in, 10 / n_in))
        assert n_slabs == (1 if 2 * n_in / 10 > machine.LARGEST else 4)
    assert choices.slab(10**6, 1e-3) <= machine.LARGEST


def test_what_linux_does_not_tell_is_left_out(tmp_path, monkeypatch):
    """A cache without a size, one of instructions, one whose size is no number of kilobytes."""
    caches = {
        "index0": {"type": "Data", "level": "1", "size": "48K"},
        "index1": {"type": "Instruction", "level": "1", "size": "32K"},
        "index2": {"type": "Unified", "level": "2"},
        "index3": {"type": "Unified", "level": "3", "size": "?"},
    }
    for name, facts in caches.items():
        (tmp_path / name).mkdir()
        for fact, text in facts.items():
            (tmp_path / name / fact).write_text(text + "\n")
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path)
    machine.cache_sizes.cache_clear()
    try:
        assert machine.cache_sizes() == {1: 48 * 1024}
    finally:
        machine.cache_sizes.cache_clear()


def test_a_machine_without_proc_has_a_name_all_the_same(tmp_path, monkeypatch):
    known = machine.cache_sizes()
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / "none")
    monkeypatch.setattr(machine, "cache_sizes", lambda: known)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "riscv64")
    assert machine.key().startswith("riscv64, ")
