"""`Recipe`: what one method of sparse training is made of. The methods themselves are in `recipes` and `dynamic`.

A recipe is a frozen composition of parts that know nothing of each other. `update` carries out one of its updates,
`sparsifier` runs it beside a training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nnsparse.schedule import Schedule
from nnsparse.sparsify.criteria import Criterion
from nnsparse.sparsify.effects import Effect
from nnsparse.sparsify.growth import Growth
from nnsparse.sparsify.shares import Allocation, Share, fixed
from nnsparse.sparsify.units import Unit, Weight
from nnsparse.sparsify.when import At, When, check_count


@dataclass(frozen=True)
class Recipe:
    """A method of sparse training, by its parts.

    At each update all targets together are to hold K weights, by `sparsity`. `allocation` turns K into a count k_l for
    each layer; `unit` keeps the best of each layer's weights by `criterion`: k_l of them, less what is to grow;
    `growth` adds the rest.

    Attributes
    ----------
    name : str
        As the function that made it.
    criterion : Criterion
        Scores what exists.
    sparsity : Schedule or None
        Progress in the window of `when` -> fraction of zeros among the positions of all targets together. None: as
        many weights as there are.
    when : When
        The steps of updates.
    allocation : Allocation
        K -> a count for each layer. Default: the present proportion.
    unit : Unit
        What is kept or dropped together.
    growth : Growth or None
        Adds weights; None for a method that only prunes.
    drop_fraction : Schedule or None
        Step / total steps -> which fraction of each layer's count is dropped and grown again.
    regrowth : Share or None
        In what proportion the layers get what grows; None: each gets what it dropped.
    needs_data : bool
        Whether the criterion asks for loss_fn and batches.
    needs_taps : bool
        Whether growth looks at gradients of missing weights: the layers note what they are made of in that step.
    replaces_step : bool
        Whether an update takes the place of the optimizer's step (the training loop asks).
    rounds : int
        Into how many smaller updates, scored anew, each update is cut.
    start : Recipe or None
        An update of this recipe comes first, when the Sparsifier is made: how the first sparsity is reached.
    effects : tuple of Effect
        What happens at every step beside updates.
    effects_until : float
        The fraction of the training after which the effects stop.
    rewind : float or None
        Fraction of the training to whose weights each update returns the survivors (and all other parameters).
    remember : bool
        Whether to keep a copy of the first weights in `buffers["start"]`, for criteria that compare with them.

    Raises
    ------
    ValueError
        If parts contradict each other.
    """

    name: str
    criterion: Criterion
    sparsity: Schedule | None = None
    when: When = field(default_factory=At)
    allocation: Allocation = fixed
    unit: Unit = field(default_factory=Weight)
    growth: Growth | None = None
    drop_fraction: Schedule | None = None
    regrowth: Share | None = None
    needs_data: bool = False
    needs_taps: bool = False
    replaces_step: bool = False
    rounds: int = 1
    start: Recipe | None = None
    effects: tuple[Effect, ...] = ()
    effects_until: float = 1.0
    rewind: float | None = None
    remember: bool = False

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds)
        if self.growth is None and (self.drop_fraction or self.regrowth or self.needs_taps):
            raise ValueError(
                f"recipe {self.name!r}: drop_fraction, regrowth and needs_taps go with growth=...; got none."
            )
        if self.regrowth is not None and self.drop_fraction is None:
            raise ValueError(
                f"recipe {self.name!r}: regrowth shares out what was dropped, so it goes with drop_fraction=...; got "
                "none."
            )
        if self.rewind is not None and not 0.0 <= self.rewind < 1.0:
            raise ValueError(
                f"recipe {self.name!r}: expected rewind in [0, 1), a fraction of the training; got {self.rewind!r}."
            )
