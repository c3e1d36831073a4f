"""Schedules of sparsity against tables worked by hand and FORMULAS' figures."""

import math

import pytest

from nnsparse.sparsify.schedules import geometric, one_cycle_pruning, one_shot, staircase

PROGRESS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@pytest.mark.parametrize(
    ("beta", "table"),
    [
        (6.0, (0.0025, 0.0100, 0.0392, 0.142, 0.401, 0.731, 0.917, 0.995, 1.0)),
        (5.0, (0.0067, 0.027, 0.100, 0.310, 0.646, 0.881, 0.968, 0.998, 1.0)),
    ],
)
def test_one_cycle_pruning_follows_the_published_table(beta, table):
    prune = one_cycle_pruning(1.0, beta=beta)
    for p, expected in zip(PROGRESS, table, strict=True):
        digits = len(str(expected).split(".")[1])
        assert prune(p) == pytest.approx(expected, abs=0.51 * 10**-digits)


def test_one_cycle_pruning_ends_exactly_and_begins_a_little_above_the_start():
    prune = one_cycle_pruning(0.9, 0.5)
    assert prune(1.0) == 0.9
    assert 0.5 < prune(0.0) < 0.5 + 0.4 * 0.0026


def test_one_shot_jumps_at_its_moment():
    prune = one_shot(0.8, start=0.2, at=0.5)
    assert [prune(p) for p in (0.0, 0.499, 0.5, 1.0)] == [0.2, 0.2, 0.8, 0.8]
    assert one_shot(0.8)(0.0) == 0.8


@pytest.mark.parametrize("rounds", [1, 2, 3, 7, 10])
def test_a_staircase_takes_its_steps_at_the_ceilings(rounds):
    prune = staircase(0.9, 0.1, rounds)
    for k in range(rounds + 1):
        assert prune(k / rounds) == pytest.approx(0.1 + 0.8 * k / rounds, abs=1e-15)
        if k < rounds:
            assert prune(k / rounds + 1e-6) == prune((k + 1) / rounds)


def test_a_geometric_schedule_multiplies_the_density_by_one_factor():
    prune = geometric(1 - 0.8**5)
    densities = [1 - prune(k / 5) for k in range(6)]
    assert densities == pytest.approx([0.8**k for k in range(6)])
    assert geometric(0.99)(1.0) == 0.99
    assert geometric(0.99, 0.5)(0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("make", [one_shot, staircase, one_cycle_pruning, geometric])
def test_schedules_refuse_what_is_no_sparsity_and_no_progress(make):
    for bad in (-0.1, 1.1, 95, math.nan):
        with pytest.raises(ValueError, match=r"end in \[0, 1\]; got"):
            make(bad)
    for bad in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match="progress in"):
            make(0.9)(bad)


def test_schedules_name_other_arguments_out_of_range():
    with pytest.raises(ValueError, match="no factor leads to density 0"):
        geometric(1.0)
    with pytest.raises(ValueError, match="number of rounds as an integer >= 1; got 0"):
        staircase(0.9, rounds=0)
    for alpha in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha in"):
            one_cycle_pruning(0.9, alpha=alpha)


def test_schedules_can_be_compared_and_printed():
    assert staircase(0.9) == staircase(0.9, 0.0, 3)
    assert "rounds=3" in repr(staircase(0.9))
