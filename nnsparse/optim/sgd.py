"""Stochastic gradient descent with momentum, dampening, weight decay and Nesterov's step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from nnsparse import trace
from nnsparse.kernels import optimizer as kernels
from nnsparse.kernels.csr import sgd_rows
from nnsparse.optim._checks import checked
from nnsparse.optim.optimizer import PARALLEL_FROM, Optimizer, buffer
from nnsparse.parameter import Parameter
from nnsparse.row_gradient import RowGradient


@dataclass(frozen=True)
class SGDSettings:
    """What stays the same from step to step; see `SGD`."""

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool

    def __post_init__(self) -> None:
        for name, high, closed in (
            ("momentum", 1.0, False),
            ("dampening", 1.0, True),
            ("weight_decay", float("inf"), False),
        ):
            number = checked("SGD", name, getattr(self, name), 0.0, high, closed)
            object.__setattr__(self, name, number)
        if not isinstance(self.nesterov, bool | np.bool_):
            raise TypeError(f"SGD expects True or False as nesterov; got {self.nesterov!r}.")
        object.__setattr__(self, "nesterov", bool(self.nesterov))
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ValueError(
                "SGD with nesterov=True expects momentum above 0 and dampening 0; got "
                f"momentum={self.momentum:g}, dampening={self.dampening:g}."
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept with each parameter."""
        return ("momentum",) if self.momentum else ()


@final
class SGD(Optimizer):
    """Steps down the gradient: m ← μm + (1 − τ)(g + λp), p ← p − ηm.

    The momentum of a parameter starts as its first g + λp, undampened. With Nesterov's step,
    p ← p − η(g + λp + μm). Without momentum, m = g + λp and nothing is kept.

    Parameters
    ----------
    params : iterable of Parameter
        As `model.parameters()` gives them.
    lr : float
        Learning rate η, at least 0; `optimizer.lr = …` changes it.
    momentum : float
        μ in [0, 1); kept in `param.buffers["momentum"]`.
    dampening : float
        τ in [0, 1].
    weight_decay : float
        λ, at least 0.
    nesterov : bool
        Needs momentum, and no dampening.

    Raises
    ------
    TypeError
        If `params` is not an iterable of parameters or a setting not a number.
    ValueError
        If there are no parameters, one occurs twice, or a setting is out of its range.

    Notes
    -----
    Cost: one pass over p, g and m; without momentum and weight decay, of a `RowGradient`, over its
    rows. Source: Sutskever et al., On the importance of initialization and momentum, 2013, in the
    form and with the first step of `torch.optim.SGD`. Differences: momentum of 1 and more, and
    dampening outside [0, 1], are refused.

    Examples
    --------
    >>> import numpy as np
    >>> weight = Parameter(np.array([1.0, -2.0], np.float32))
    >>> optimizer = SGD([weight], lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     weight.grad = np.array([1.0, 1.0], np.float32)
    ...     optimizer.step()
    >>> weight.data
    array([-0.25, -3.25], dtype=float32)
    """

    settings: SGDSettings

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        settings = SGDSettings(momentum, dampening, weight_decay, nesterov)
        super().__init__(params, lr, settings)

    def _update(self, param: Parameter, p: NDArray[Any], g: NDArray[Any], count: int) -> None:
        s = self.settings
        m, first = buffer(param, "momentum") if s.momentum else (g, True)
        kernel = kernels.sgd if p.size < PARALLEL_FROM else kernels.sgd_parallel
        kernel(p, g, m, self._lr, s.momentum, s.dampening, s.weight_decay, s.nesterov, first)

    def _update_rows(self, param: Parameter, gradient: RowGradient) -> bool:
        if self.settings.momentum or self.settings.weight_decay:
            return False
        update: Callable[..., Any] = sgd_rows
        recorder = None if trace.active is None else trace.current()
        if recorder is not None:
            name = recorder.owner(param)
            recorder.entry(name, "write-back").nbytes += 3 * gradient.nbytes
            update = recorder.call(name, "write-back", sgd_rows)
        update(param.data.reshape(-1), gradient.rows, gradient.values, self._lr)
        return True
