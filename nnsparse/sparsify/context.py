"""What the parts of a recipe work on: the sparse layers of a model, its data, and reproducible randomness.

Everything in `sparsify` speaks of weights in *canonical order* (by row, then column), which is the same on every
machine; `Target.canonical` and `SparseParameter.set_canonical` lead from and to the order of the kernels. Read
`criteria`, `growth`, `shares` and `units` for the parts, `recipe` for what they make together, `sparsifier` for what
runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnsparse.autograd import Tensor
from nnsparse.nn.linear import SparseLinear
from nnsparse.nn.module import Module
from nnsparse.parameter import SparseParameter
from nnsparse.topology import Topology

Array = NDArray[Any]
LossFunction: TypeAlias = Callable[[Tensor, Any], Tensor]
Batch: TypeAlias = tuple[Any, Any]  # (x, y) as a DataLoader gives them


@dataclass(frozen=True)
class Target:
    """One sparse layer whose weights may come and go.

    Attributes
    ----------
    name : str
        Dotted name of the layer in its model, as `named_modules` gives it ("0", "encoder.2").
    layer : SparseLinear
    """

    name: str
    layer: SparseLinear

    @property
    def weight(self) -> SparseParameter:
        """The layer's trainable values."""
        return self.layer.weight

    @property
    def topology(self) -> Topology:
        """Where the values are at present."""
        return self.layer.weight.topology

    @property
    def size(self) -> int:
        """Number of positions, n_out · n_in."""
        n_out, n_in = self.topology.shape
        return n_out * n_in

    @property
    def nnz(self) -> int:
        """Number of stored weights."""
        return self.topology.nnz

    def canonical(self, array: Array | None = None) -> Array:
        """Return the values, or an array in their order (gradient, buffer), in canonical order, (nnz,)."""
        return self.weight.canonical(array)


@dataclass(frozen=True)
class Context:
    """What a criterion, a growth rule or an allocation may look at.

    Attributes
    ----------
    model : Module
    targets : tuple of Target
        The layers that the recipe works on, in the model's order.
    loss_fn : callable, optional
        (output Tensor, y) -> scalar Tensor, for criteria that need data.
    batches : sequence of (x, y)
        Mini-batches for criteria that need data; may be empty.
    seed, step : int
        Randomness is `rng(i)`, a function of seed, step and target only.
    taps : sequence of lists of (d, x)
        For each target, what the weight gradient of the present step was made of: pairs of tiled arrays
        d (n_tiles, n_out, lanes) and x (n_tiles, n_in, lanes), one for each use of the layer. Empty where nobody
        asked for it.
    """

    model: Module
    targets: tuple[Target, ...]
    loss_fn: LossFunction | None = None
    batches: Sequence[Batch] = ()
    seed: int = 0
    step: int = 0
    taps: Sequence[list[tuple[Array, Array]]] = field(default=())

    def rng(self, index: int) -> np.random.Generator:
        """Return the generator of target `index` at this step: the same in every run and on any number of threads."""
        return np.random.default_rng([self.seed, self.step, index])

    def data(self, who: str) -> tuple[LossFunction, Sequence[Batch]]:
        """Return the loss function and the batches, or say that `who` needs them.

        Raises
        ------
        ValueError
            If either is missing.
        """
        if self.loss_fn is None:
            raise ValueError(
                f"{who} needs data: pass loss_fn=..., for instance nn.CrossEntropyLoss(), and batches=[(x, y)]."
            )
        if not len(self.batches):
            raise ValueError(
                f"{who} needs data: pass batches=[(x, y), ...], for instance list(islice(loader, 10))."
            )
        return self.loss_fn, self.batches


def targets(model: Module, skip: Sequence[str] = ()) -> tuple[Target, ...]:
    """Return the sparse layers of a model, in its order, those in `skip` left out.

    Parameters
    ----------
    model : Module
    skip : sequence of str
        Names of layers to leave alone, as `named_modules` gives them.

    Raises
    ------
    TypeError
        If `model` is not a Module, or `skip` is a single name.
    ValueError
        If no sparse layer is left, `skip` names none, or two layers share one weight parameter.
    """
    if not isinstance(model, Module):
        raise TypeError(f"expected a model (nn.Module); got {type(model).__name__}")
    check_names(skip)
    found: list[Target] = []
    for name, module in model.named_modules():
        # A layer that is used twice is one target.
        if isinstance(module, SparseLinear) and all(t.layer is not module for t in found):
            for other in found:
                if other.weight is module.weight:
                    raise ValueError(
                        f"layers {other.name!r} and {name!r} share one weight parameter, and a pattern would move "
                        "under one of them. Share the layer: put the layer itself twice into the model."
                    )
            found.append(Target(name, module))
    unknown = set(skip) - {target.name for target in found}
    if unknown:
        raise ValueError(
            f"skip names {sorted(unknown)}, which are no sparse layers of this model; its sparse layers are "
            f"{[target.name for target in found]}"
        )
    kept = tuple(target for target in found if target.name not in skip)
    if not kept:
        raise ValueError(
            "the model has no sparse layers to work on. nn.mlp(sizes, sparsity=...) makes some; "
            "sparsify.prunable(model) turns dense layers into sparse ones with all weights, to be pruned."
        )
    return kept


def check_names(skip: Sequence[str]) -> None:
    """Refuse a single name where several are expected: its letters would be taken for names.

    Raises
    ------
    TypeError
        If it is one.
    """
    if isinstance(skip, str):
        raise TypeError(f"expected skip as a list of names; got {skip!r}. Say skip=[{skip!r}].")
