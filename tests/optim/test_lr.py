"""LRScheduler: which step runs at which learning rate, and going on from a checkpoint."""

import numpy as np
import pytest

from nnsparse import schedule
from nnsparse.optim import SGD, LRScheduler
from nnsparse.parameter import Parameter


def sgd(lr: float = 0.8) -> SGD:
    return SGD([Parameter(np.zeros(1))], lr=lr)


def test_each_step_runs_at_base_times_schedule() -> None:
    optimizer = sgd()
    scheduler = LRScheduler(optimizer, schedule.linear(1.0, 0.0), total_steps=4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.lr)
        scheduler.step()
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert optimizer.lr == 0.0


def test_the_first_step_is_already_warmed_up_from_zero() -> None:
    optimizer = sgd()
    LRScheduler(optimizer, schedule.warmup(schedule.cosine(), 0.5), total_steps=10)
    assert optimizer.lr == 0.0


def test_it_is_the_cosine_annealing_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rival = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(rival, T_max=20)
    optimizer = sgd()
    ours = LRScheduler(optimizer, schedule.cosine(), total_steps=20)
    for _ in range(20):
        assert optimizer.lr == pytest.approx(rival.param_groups[0]["lr"], abs=1e-12)
        rival.step()
        theirs.step()
        ours.step()


def test_it_is_the_one_cycle_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rival = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        rival, max_lr=0.8, total_steps=21, pct_start=0.35, cycle_momentum=False
    )
    # torch counts to the last step run, total_steps − 1 = 20, and rises over 0.35·21 − 1 steps.
    optimizer = sgd()
    ours = LRScheduler(optimizer, schedule.one_cycle(fraction=6.35 / 20), total_steps=20)
    for _ in range(20):
        assert optimizer.lr == pytest.approx(rival.param_groups[0]["lr"], rel=1e-9)
        rival.step()
        theirs.step()
        ours.step()


def test_state_dicts_of_both_go_on_where_they_were() -> None:
    optimizer = sgd()
    scheduler = LRScheduler(optimizer, schedule.cosine(), total_steps=10)
    for _ in range(3):
        scheduler.step()
    resumed = sgd(lr=5.0)
    other = LRScheduler(resumed, schedule.cosine(), total_steps=7)
    resumed.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    for _ in range(7):
        assert resumed.lr == optimizer.lr
        scheduler.step()
        other.step()


def test_stepping_past_the_end_is_refused() -> None:
    scheduler = LRScheduler(sgd(), schedule.cosine(), total_steps=1)
    scheduler.step()
    with pytest.raises(ValueError, match="at most total_steps=1"):
        scheduler.step()


@pytest.mark.parametrize("total", [0, -1, 2.0, True])
def test_total_steps_must_be_a_positive_integer(total: int) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        LRScheduler(sgd(), schedule.cosine(), total)


def test_arguments_that_cannot_work_are_refused() -> None:
    with pytest.raises(TypeError, match="can be called"):
        LRScheduler(sgd(), 100, schedule.cosine())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expects lr in"):
        LRScheduler(sgd(), schedule.constant(-1.0), 10)


@pytest.mark.parametrize(
    "change", [{"steps": 11}, {"steps": -1}, {"total_steps": 0}, {"momentum": 0.9}]
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    change: dict[str, float],
) -> None:
    scheduler = LRScheduler(sgd(), schedule.cosine(), total_steps=10)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match="LRScheduler expects"):
        scheduler.load_state_dict({**before, **change})
    assert scheduler.state_dict() == before
