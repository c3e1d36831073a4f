"""The networks of `training` and the task that every rival gets; how they solve it is in `_networks`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import nn
from nnsparse.data import DataLoader

Array = NDArray[Any]


@dataclass(frozen=True)
class Net:
    """A network and its data.

    Attributes
    ----------
    sizes : features from input to output
    sparsity : fraction of zeros as `nn.mlp` takes it; None for a dense network
    batch : samples per batch
    rows : samples that batches are drawn from, at most
    """

    sizes: tuple[int, ...]
    sparsity: float | tuple[float | None, ...] | None
    batch: int
    note: str
    rows: int = 60000

    def model(self, seed: object) -> nn.Sequential:
        """Return the sparse network with its initial weights."""
        rng = np.random.default_rng(seed)  # type: ignore[arg-type]
        return nn.mlp(self.sizes, sparsity=self.sparsity, rng=rng)

    def at(self, sparsity: float | None) -> Net:
        """Return the network with another sparsity of what is sparse in it; None: with all of it dense."""
        if sparsity is None or not isinstance(self.sparsity, tuple):
            return replace(self, sparsity=sparsity)
        return replace(self, sparsity=tuple(s and sparsity for s in self.sparsity))


_THESIS = (784, 256, 256, 256, 256, 10)
_MIDDLE = (None, 0.8, 0.8, 0.8, None)
NETS: Mapping[str, Net] = {
    "thesis-64": Net(_THESIS, _MIDDLE, 64, "middle layers 80 %"),
    "thesis-256": Net(_THESIS, _MIDDLE, 256, "middle layers 80 %"),
    "lenet-100": Net((784, 300, 100, 10), 0.95, 100, "95 % by Erdős-Rényi-kernel shares"),
    "wide-256": Net((784, 4096, 4096, 10), (0.95, 0.95, None), 256, "wide layers 95 %"),
    "deep-100": Net((784, 1000, 1000, 1000, 10), 0.95, 100, "95 % by Erdős-Rényi-kernel shares"),
    # The thesis' timing: 1024 reviews, 256 of them at a time.
    **{
        f"square-{n}": Net((n, n, 10), (0.95, None), 256, "square layer 95 %", rows=1024)
        for n in (2048, 4096, 8192)
    },
}


@dataclass(frozen=True, eq=False)
class Task:
    """What every rival gets.

    Attributes
    ----------
    model : nn.Sequential
        The sparse network; dense rivals copy its weights.
    x, y : (n, n_features) float32 and (n,) int64
        Samples and labels.
    """

    model: nn.Sequential
    x: Array
    y: Array
    batch: int
    lr: float
    momentum: float
    seed: int

    @classmethod
    def random(
        cls,
        net: Net,
        rows: int,
        *,
        lr: float = 0.01,
        momentum: float = 0.0,
        seed: int = 0,
        features_from: str = "",
    ) -> Task:
        """Draw weights, samples uniform in [0, 1), `rows` at most, and labels; or take samples from a file.

        Raises
        ------
        ValueError
            If the file's "x" is no float32 array of the network's features, or has fewer rows than a batch.
        """
        rows = min(rows, net.rows)
        rng = np.random.default_rng([seed, 1])
        if features_from:
            x = _features(features_from, net)[:rows]
            rows = len(x)
        else:
            x = rng.random((rows, net.sizes[0]), np.float32)
        y = rng.integers(net.sizes[-1], size=rows)
        return cls(net.model([seed, 0]), x, y, net.batch, lr, momentum, seed)

    @property
    def loader(self) -> DataLoader:
        """Full mini-batches in the same order for every rival."""
        return DataLoader((self.x, self.y), batch_size=self.batch, drop_last=True, rng=self.seed)


def _features(path: str, net: Net) -> Array:
    """Read what `examples/imdb.py --features N` writes."""
    try:
        with np.load(path, allow_pickle=False) as found:
            x: Array = found["x"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read features from {path!r}: {error}") from None
    if x.ndim != 2 or x.shape[1] != net.sizes[0] or x.dtype != np.float32 or len(x) < net.batch:
        raise ValueError(
            f"{path!r}: expected float32 features (n, {net.sizes[0]}) with n >= {net.batch}; got {x.dtype} {x.shape}. "
            f"Write them with examples/imdb.py --features {net.sizes[0]}."
        )
    return np.ascontiguousarray(x)
