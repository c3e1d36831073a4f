"""When patterns are compressed, and in which form layers are stored: the policy of a `Sparsifier`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnsparse.plan import plan_of
from nnsparse.sparsify.context import Target
from nnsparse.sparsify.holding import Crossover, compress, settle


@dataclass(frozen=True)
class Storage:
    """How layers are stored between and after updates.

    Attributes
    ----------
    refresh_every : int or None
        Patterns are compressed at multiples of so many steps; None: at every step that has an update.
    ends : tuple of int
        Steps at which they are compressed in any case.
    crossover : Crossover or None
        Where given, layers that are faster full are kept full.
    """

    refresh_every: int | None
    ends: tuple[int, ...]
    crossover: Crossover | None

    def refreshes(self, step: int) -> bool:
        """Return whether patterns are compressed at a step."""
        return self.refresh_every is None or step % self.refresh_every == 0 or step in self.ends

    def settle(self, targets: Sequence[Target], step: int) -> bool:
        """Bring the layers into the form that they should have after `step`, and plan their patterns.

        Returns whether a pattern moved.

        A plan would be built in the next forward pass otherwise; here its time is counted.
        """
        before = [target.topology for target in targets]
        for target in targets:
            if self.refreshes(step):
                if self.crossover is None:
                    compress(target)
                else:
                    settle(target, self.crossover)
            if not target.topology.is_full:
                plan_of(target.topology)
        return any(t.topology is not b for t, b in zip(targets, before, strict=True))
