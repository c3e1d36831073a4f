"""Batch normalisation as a module, with running statistics for evaluation."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
from numpy.typing import DTypeLike

from nnsparse.autograd import Tensor
from nnsparse.nn.module import Module
from nnsparse.ops.arithmetic import multiply, subtract
from nnsparse.ops.normalization import Statistics, affine, batch_norm
from nnsparse.parameter import Parameter


@final
class BatchNorm1d(Module):
    """y = weight·(x − mean) / √(variance + eps) + bias, per feature.

    In training, mean and variance are those of the batch (at least two samples), and the running
    ones follow: running ← (1 − momentum)·running + momentum·batch, the variance with the factor
    batch / (batch − 1). In evaluation the running ones are used. All as in PyTorch.

    Parameters
    ----------
    num_features : int
        Features of x (batch, num_features).
    eps : float
        Added to the variance, above 0.
    momentum : float in [0, 1]
        Share of the newest batch in the running statistics.
    affine : bool
        Whether weight (ones) and bias (zeros) are trained; without, they are 1 and 0.
    dtype : float32 or float64
        Of parameters and running statistics.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    Notes
    -----
    Source: Ioffe & Szegedy, Batch Normalization, 2015. Difference to PyTorch: no momentum=None.
    """

    _buffers: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        if isinstance(num_features, bool) or not isinstance(num_features, int | np.integer):
            raise TypeError(f"BatchNorm1d expects num_features as an int; got {num_features!r}.")
        if num_features < 1:
            raise ValueError(f"BatchNorm1d expects num_features >= 1; got {num_features}.")
        for name, value, good in (("eps", eps, "above 0"), ("momentum", momentum, "in [0, 1]")):
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
                raise TypeError(f"BatchNorm1d expects {name} as a number; got {value!r}.")
            if not (value > 0 if name == "eps" else 0 <= value <= 1):
                raise ValueError(f"BatchNorm1d expects {name} {good}; got {value!r}.")
        self.num_features = int(num_features)
        self.eps = float(eps)
        self.momentum = float(momentum)
        self.running_mean = np.zeros(num_features, dtype)
        self.running_var = np.ones(num_features, dtype)
        self._one, self._zero = np.ones(num_features, dtype), np.zeros(num_features, dtype)
        self.weight = Parameter(self._one) if affine else None
        self.bias = Parameter(self._zero) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, (batch, num_features)."""
        weight = Tensor(self._one) if self.weight is None else self.weight
        bias = Tensor(self._zero) if self.bias is None else self.bias
        arrays = weight.data, bias.data, self.running_mean, self.running_var
        if any(a.shape != (self.num_features,) for a in arrays):
            raise ValueError(
                f"BatchNorm1d({self.num_features}) expects weight, bias, running_mean and "
                f"running_var of shape ({self.num_features},); got {[a.shape for a in arrays]}"
            )
        if self.training:
            y, statistics = batch_norm(x, weight, bias, self.eps)
            self._follow(statistics, len(x))
            return y
        factor = 1.0 / np.sqrt(self.running_var + self.eps, dtype=np.float64)
        scale = multiply(weight, factor)
        return affine(x, scale, subtract(bias, multiply(scale, self.running_mean)))

    def _follow(self, statistics: Statistics, batch: int) -> None:
        """Move the running statistics, in place, towards those of a batch."""
        unbiased = statistics.variance * (batch / (batch - 1))
        self.running_mean += self.momentum * (statistics.mean - self.running_mean)
        self.running_var += self.momentum * (unbiased - self.running_var)

    def __repr__(self) -> str:
        return (
            f"BatchNorm1d({self.num_features}, eps={self.eps:g}, momentum={self.momentum:g}, "
            f"affine={self.weight is not None})"
        )
