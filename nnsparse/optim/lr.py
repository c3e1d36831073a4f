"""Learning rates that follow a schedule. The schedules themselves are in `nnsparse.schedule`."""

from collections.abc import Mapping
from typing import Any, final

from nnsparse.optim.optimizer import Optimizer
from nnsparse.schedule import Schedule


@final
class LRScheduler:
    """Sets an optimizer's learning rate to (its first rate) × schedule(steps / total_steps).

    Call `step()` once after each `optimizer.step()`. The rate of the first step, schedule(0), is
    set at once; training step k of N (from 0) runs at progress k / N.

    Parameters
    ----------
    optimizer : Optimizer
        Its present `lr` is what the schedule multiplies.
    schedule : Schedule
        A function of progress in [0, 1], such as `schedule.cosine()`.
    total_steps : int
        Steps of the whole training, at least 1.

    Attributes
    ----------
    base_lr : float
        What the schedule multiplies.
    steps : int
        How many times `step` was called.

    Raises
    ------
    TypeError
        If `schedule` cannot be called (were the last two arguments swapped?).
    ValueError
        If `total_steps` is not a positive integer, or schedule(0) is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from nnsparse.optim import SGD
    >>> from nnsparse.parameter import Parameter
    >>> from nnsparse.schedule import linear
    >>> optimizer = SGD([Parameter(np.ones(3, np.float32))], lr=0.5)
    >>> scheduler = LRScheduler(optimizer, linear(1.0, 0.0), total_steps=4)
    >>> scheduler.step()
    >>> optimizer.lr
    0.375
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, total_steps: int) -> None:
        if not callable(schedule):
            raise TypeError(
                "LRScheduler expects a schedule that can be called with progress in [0, 1]; got "
                f"{schedule!r}. Pass for instance schedule.cosine()."
            )
        self.optimizer = optimizer
        self.schedule = schedule
        self.base_lr = optimizer.lr
        self._go_to(0, _checked_total(total_steps))

    def step(self) -> None:
        """Go one step on and set the optimizer's learning rate.

        Raises
        ------
        ValueError
            After `total_steps` calls, or if the schedule's value is negative or not finite.
        """
        if self.steps >= self.total_steps:
            raise ValueError(
                f"LRScheduler expects at most total_steps={self.total_steps} calls of step(). "
                "Pass epochs × batches per epoch."
            )
        self._go_to(self.steps + 1, self.total_steps)

    def state_dict(self) -> dict[str, float | int]:
        """Return `base_lr`, `steps` and `total_steps`; the schedule itself is not included."""
        return {"base_lr": self.base_lr, "steps": self.steps, "total_steps": self.total_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state_dict` was taken, and set the optimizer's learning rate accordingly.

        Raises
        ------
        ValueError
            If a key is missing or unknown, or `steps` is not from 0 to `total_steps`.
        """
        if set(state) != set(self.state_dict()):
            raise ValueError(
                f"LRScheduler expects a state with {sorted(self.state_dict())}; got "
                f"{sorted(state)}."
            )
        steps, total = int(state["steps"]), _checked_total(int(state["total_steps"]))
        if not 0 <= steps <= total:
            raise ValueError(f"LRScheduler expects steps from 0 to {total}; got {steps}.")
        self.base_lr = float(state["base_lr"])
        self._go_to(steps, total)

    def _go_to(self, steps: int, total_steps: int) -> None:
        self.optimizer.lr = self.base_lr * self.schedule(steps / total_steps)
        self.steps = steps
        self.total_steps = total_steps


def _checked_total(total_steps: int) -> int:
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        raise ValueError(
            f"LRScheduler expects total_steps as a positive integer; got {total_steps!r}. "
            "Pass epochs × batches per epoch."
        )
    return total_steps
