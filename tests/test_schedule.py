"""Schedules: hand-worked values, exact ends, and refusals."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import schedule
from nnsparse.schedule import Schedule

EVERY = [
    schedule.constant(0.3),
    schedule.linear(1.0, 0.2),
    schedule.cosine(1.0, 0.1),
    schedule.cubic(0.1, 0.9),
    schedule.exponential(1.0, 0.01),
    schedule.step([0.5, 0.75]),
    schedule.chain([schedule.linear(0.0, 1.0), schedule.cosine()], [0.4]),
    schedule.warmup(schedule.step([0.5])),
    schedule.one_cycle(),
]
TABLE = [  # schedule, progress, value worked by hand
    (schedule.constant(), 0.7, 1.0),
    (schedule.linear(1.0, 0.0), 0.25, 0.75),
    (schedule.linear(0.2, 0.6), 0.5, 0.4),
    (schedule.cosine(1.0, 0.0), 1 / 3, 0.75),  # (1 + cos 60°) / 2
    (schedule.cosine(0.3, 0.1), 0.5, 0.2),
    (schedule.cubic(0.0, 0.8), 0.5, 0.7),  # 0.8 (1 − 1/8)
    (schedule.cubic(0.5, 0.9), 0.75, 0.89375),  # 0.9 − 0.4 / 64
    (schedule.exponential(1.0, 0.0001), 0.25, 0.1),
    (schedule.exponential(0.001, 0.1), 0.5, 0.01),
    (schedule.step([0.5, 0.75]), 0.49, 1.0),
    (schedule.step([0.5, 0.75]), 0.5, 0.1),
    (schedule.step([0.5, 0.75]), 1.0, 0.01),
    (schedule.step([0.2], factor=2.0, start=8.0), 0.3, 4.0),
    (schedule.chain([schedule.linear(0.0, 2.0), schedule.constant(5.0)], [0.5]), 0.25, 1.0),
    (schedule.chain([schedule.linear(0.0, 2.0), schedule.constant(5.0)], [0.5]), 0.5, 5.0),
    (schedule.warmup(schedule.linear(1.0, 0.0), 0.2), 0.1, 0.5),
    (schedule.warmup(schedule.linear(1.0, 0.0), 0.2), 0.6, 0.5),
    (schedule.warmup(schedule.constant(2.0), 0.5, start=1.0), 0.25, 1.5),
    (schedule.one_cycle(peak=2.0), 0.0, 0.08),
    (schedule.one_cycle(peak=2.0), 0.15, 1.04),  # half-way up
    (schedule.one_cycle(peak=2.0), 0.3, 2.0),
    (schedule.one_cycle(peak=2.0), 1.0, 8e-6),
]


@pytest.mark.parametrize(("curve", "progress", "value"), TABLE)
def test_value_is_the_one_worked_by_hand(curve: Schedule, progress: float, value: float) -> None:
    assert curve(progress) == pytest.approx(value, rel=1e-12)


@given(start=st.floats(-1e6, 1e6), end=st.floats(-1e6, 1e6))
def test_ramps_reach_both_ends_exactly(start: float, end: float) -> None:
    for ramp in (schedule.linear, schedule.cosine, schedule.cubic):
        assert ramp(start, end)(0.0) == start
        assert ramp(start, end)(1.0) == end


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=10))
def test_ramps_never_turn_back(points: list[float]) -> None:
    for ramp in (schedule.linear, schedule.cosine, schedule.cubic):
        values = [ramp(0.0, 1.0)(p) for p in sorted(points)]
        assert values == sorted(values)


@pytest.mark.parametrize("curve", EVERY, ids=repr)
def test_survives_a_pickle_and_compares_equal(curve: Schedule) -> None:
    copy = pickle.loads(pickle.dumps(curve))
    assert copy == curve
    assert [copy(p / 7) for p in range(8)] == [curve(p / 7) for p in range(8)]


def test_repr_says_how_it_was_made() -> None:
    warm = schedule.warmup(schedule.cosine(1.0, 0.1), 0.25)
    assert "cosine(1.0, 0.1)" in repr(warm)
    assert "0.25" in repr(warm)
    assert " at 0x" not in repr(EVERY)


@pytest.mark.parametrize("curve", EVERY, ids=repr)
@pytest.mark.parametrize("progress", [-0.001, 1.001, math.nan, math.inf])
def test_progress_outside_zero_to_one_is_refused(curve: Schedule, progress: float) -> None:
    with pytest.raises(ValueError, match=r"progress in \[0, 1\]"):
        curve(progress)


@pytest.mark.parametrize(
    "milestones", [[0.0], [0.5, 0.5], [0.7, 0.3], [1.5], [30, 60], [math.nan], [0.5, math.nan]]
)
def test_milestones_must_rise_within_zero_to_one(milestones: list[float]) -> None:
    with pytest.raises(ValueError, match="rise within"):
        schedule.step(milestones)


def test_chain_needs_one_milestone_fewer_than_schedules() -> None:
    with pytest.raises(ValueError, match="one milestone fewer"):
        schedule.chain([schedule.constant()], [0.5])
    with pytest.raises(ValueError, match="one milestone fewer"):
        schedule.chain([], [])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_warmup_must_take_a_part_of_the_whole(fraction: float) -> None:
    with pytest.raises(ValueError, match="rise within"):
        schedule.warmup(schedule.cosine(), fraction)


def test_values_must_be_finite_and_ratios_positive() -> None:
    with pytest.raises(ValueError, match="finite"):
        schedule.linear(math.nan, 0.0)
    with pytest.raises(ValueError, match="finite"):
        schedule.constant(math.inf)
    with pytest.raises(ValueError, match="positive ends"):
        schedule.exponential(1.0, 0.0)
    with pytest.raises(ValueError, match="positive factor"):
        schedule.step([0.5], factor=0.0)
    with pytest.raises(ValueError, match="positive divide"):
        schedule.one_cycle(divide=-1.0)


@pytest.mark.parametrize("make", [schedule.linear, schedule.cosine, schedule.cubic])
def test_a_way_to_where_it_begins_stays_there_exactly(make) -> None:
    for value in (0.9, 0.7, 0.1, 1 / 3):
        assert {make(value, value)(step / 97) for step in range(98)} == {value}
