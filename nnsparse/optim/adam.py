"""Adam: a step of about the learning rate for every weight, whatever the size of its gradient."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from nnsparse.kernels import optimizer as kernels
from nnsparse.optim._checks import checked
from nnsparse.optim.optimizer import PARALLEL_FROM, Optimizer, buffer
from nnsparse.parameter import Parameter


@dataclass(frozen=True)
class AdamSettings:
    """What stays the same from step to step; see `Adam`."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float

    def __post_init__(self) -> None:
        for name, high in (
            ("beta1", 1.0),
            ("beta2", 1.0),
            ("eps", float("inf")),
            ("weight_decay", float("inf")),
        ):
            object.__setattr__(self, name, checked("Adam", name, getattr(self, name), 0.0, high))

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept with each parameter."""
        return ("exp_avg", "exp_avg_sq")


@final
class Adam(Optimizer):
    """Steps by the ratio of the gradient's mean to its size: p ← p − η·m̂ / (√v̂ + ε).

    With d = g + λp: m ← β₁m + (1 − β₁)d and v ← β₂v + (1 − β₂)d², m̂ = m / (1 − β₁ᵗ) and
    v̂ = v / (1 − β₂ᵗ). t counts the updates of each parameter by itself.

    Parameters
    ----------
    params : iterable of Parameter
        As `model.parameters()` gives them.
    lr : float
        Learning rate η, at least 0; `optimizer.lr = …` changes it.
    betas : (float, float)
        β₁ and β₂ in [0, 1); the moments are kept in `param.buffers["exp_avg"]` and
        `param.buffers["exp_avg_sq"]`.
    eps : float
        ε, at least 0.
    weight_decay : float
        λ, at least 0; added to the gradient (not decoupled as in AdamW).

    Raises
    ------
    TypeError
        If `params` is not an iterable of parameters or a setting not a number.
    ValueError
        If there are no parameters, one occurs twice, or a setting is out of its range.

    Notes
    -----
    Cost: one pass over p, g, m and v. Source: Kingma & Ba, Adam, 2015, algorithm 1, as in
    `torch.optim.Adam` without amsgrad. Difference: m̂ and √v̂ are scaled by factors computed in
    float64, which changes the last bits only.

    Examples
    --------
    >>> import numpy as np
    >>> weight = Parameter(np.array([1.0, -2.0], np.float32))
    >>> optimizer = Adam([weight], lr=0.25)
    >>> weight.grad = np.array([100.0, -0.01], np.float32)
    >>> optimizer.step()
    >>> weight.data.round(4)
    array([ 0.75, -1.75], dtype=float32)
    """

    settings: AdamSettings

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        settings = AdamSettings(*betas, eps, weight_decay)
        super().__init__(params, lr, settings)

    def _update(self, param: Parameter, p: NDArray[Any], g: NDArray[Any], count: int) -> None:
        s = self.settings
        m, _ = buffer(param, "exp_avg")
        v, _ = buffer(param, "exp_avg_sq")
        kernel = kernels.adam if p.size < PARALLEL_FROM else kernels.adam_parallel
        kernel(p, g, m, v, self._lr, s.beta1, s.beta2, s.eps, s.weight_decay, count)
