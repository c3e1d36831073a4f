"""Activation layers: the functions of `ops.pointwise` as modules, without parameters."""

from __future__ import annotations

from typing import final

from nnsparse.autograd import Tensor
from nnsparse.nn.module import Module
from nnsparse.ops import pointwise


@final
class ReLU(Module):
    """y = max(x, 0). After an affine layer `Sequential` runs both as one kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return max(x, 0), (batch, n)."""
        return pointwise.relu(x)


@final
class LeakyReLU(Module):
    """y = x where x >= 0, slope·x elsewhere.

    Parameters
    ----------
    slope : float
        Derivative on the left.
    """

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = float(slope)

    def forward(self, x: Tensor) -> Tensor:
        """Return the leaky ReLU of x, (batch, n)."""
        return pointwise.leaky_relu(x, self.slope)

    def __repr__(self) -> str:
        return f"LeakyReLU(slope={self.slope:g})"


@final
class AllReLU(Module):
    """y = x where x >= 0; elsewhere −slope·x in even hidden layers and slope·x in odd ones.

    Parameters
    ----------
    slope : float
        α of the paper.
    layer : int
        Number of the hidden layer, the first one 0.

    Notes
    -----
    Source: Curci, Mocanu & Pechenizkiy, Truly Sparse Neural Networks at Scale, 2021, eq. 4; see
    `ops.pointwise.all_relu` for where counting starts.

    Examples
    --------
    >>> AllReLU(0.6, layer=0)([[-1.0, 2.0]]).numpy()
    array([[0.6, 2. ]], dtype=float32)
    """

    def __init__(self, slope: float, layer: int) -> None:
        super().__init__()
        self.slope = float(slope)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the All-ReLU of x, (batch, n)."""
        return pointwise.all_relu(x, self.slope, self.layer)

    def __repr__(self) -> str:
        return f"AllReLU(slope={self.slope:g}, layer={self.layer})"


@final
class Tanh(Module):
    """y = tanh(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return tanh(x), (batch, n)."""
        return pointwise.tanh(x)


@final
class Sigmoid(Module):
    """y = 1 / (1 + e^−x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logistic sigmoid of x, (batch, n)."""
        return pointwise.sigmoid(x)


@final
class GELU(Module):
    """y = x·Φ(x), exact (by the error function, as torch's default), not the tanh approximation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the GELU of x, (batch, n)."""
        return pointwise.gelu(x)
