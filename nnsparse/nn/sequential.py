"""`Sequential`, and `mlp`, which builds one with the layer densities that the literature uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import final

import numpy as np
from numpy.typing import DTypeLike

from nnsparse import allocation, trace
from nnsparse.autograd import Tensor
from nnsparse.nn.activations import ReLU
from nnsparse.nn.init import generator
from nnsparse.nn.linear import Affine, Linear, Seed, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.nn.sequence import Embedding, GlobalAveragePooling1D
from nnsparse.ops.chain import chain
from nnsparse.space import check_room
from nnsparse.topology import Topology


@final
class Sequential(Module):
    """Modules applied one after the other; affine layers and the ReLUs between them run as one op (`ops.chain`).

    So do `Embedding` and `GlobalAveragePooling1D` at the beginning.

    Parameters
    ----------
    *layers : Module
        In order of application.

    Raises
    ------
    TypeError
        If an argument is not a Module.
    """

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential expects modules; argument {i} is {layer!r}")
        self._layers = layers
        self._pooled: Embedding | None = None  # the one whose average the second layer takes
        if len(layers) > 1 and isinstance(layers[1], GlobalAveragePooling1D):
            self._pooled = layers[0] if isinstance(layers[0], Embedding) else None
        # Each step is a module, or the affine layers of a chain: (layer, whether a ReLU follows)
        self._steps: list[Module | list[tuple[Affine, bool]]] = []
        for i, layer in enumerate(layers):
            if i < 2 and self._pooled is not None:
                continue
            before = layers[i - 1] if i else None
            last = self._steps[-1] if self._steps else None
            if isinstance(layer, Affine):
                if not isinstance(last, list):
                    self._steps.append(last := [])
                last.append((layer, False))
            elif isinstance(layer, ReLU) and isinstance(before, Affine) and isinstance(last, list):
                last[-1] = (before, True)
            else:
                self._steps.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last layer."""
        if self._pooled is not None:
            forward = self._pooled.forward if trace.active is None else trace.layer(self._pooled)
            x = forward(x, pool=True)
        for step in self._steps:
            if isinstance(step, Module):
                forward = step.forward if trace.active is None else trace.layer(step)
                x = forward(x)
            elif trace.active is None:
                shape, dtype, links = x.shape, x.dtype, []
                for layer, rectify in step:
                    links.append(layer.link(shape, dtype, rectify))
                    shape = shape[0], layer.out_features
                x = chain(x, links)
            else:  # layer by layer: a profile tells them apart
                for layer, rectify in step:
                    x = trace.layer(layer)(x, rectify=rectify)
        return x

    def _first(self) -> Module:
        return self._layers[0]._first() if self._layers else self

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield ("0", first layer), ("1", second layer), ..."""
        for i, layer in enumerate(self._layers):
            yield str(i), layer

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, i: int) -> Module:
        return self._layers[i]

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers)

    def __repr__(self) -> str:
        lines = "".join(f"\n  ({name}) {layer!r}" for name, layer in self.children())
        return f"Sequential({lines}\n)" if lines else "Sequential()"


def mlp(
    sizes: Sequence[int],
    *,
    sparsity: float | Sequence[float | None] | None = None,
    distribution: str = "erk",
    dtype: DTypeLike = np.float32,
    rng: Seed = None,
) -> Sequential:
    """Return a multilayer perceptron: affine layers with ReLU between them.

    Parameters
    ----------
    sizes : sequence of int
        Features from input to output, at least two numbers.
    sparsity : float, sequence, or None
        Of all weights together, shared out by `distribution`; or one number per layer (None or 0: dense); or None for
        a dense network. A layer whose share comes to density 1 is dense.
    distribution : "erk" or "uniform"
        Erdős-Rényi (wide layers sparser: Mocanu et al. 2018, Evci et al. 2020) or the same density everywhere.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None

    Raises
    ------
    ValueError
        If there are fewer than two sizes, sparsity has the wrong length or range, or distribution is unknown. Also,
        before anything is made, if there is no room for the weights, their gradients and the plans.

    Examples
    --------
    >>> mlp([784, 300, 100, 10], sparsity=0.9, rng=0)
    Sequential(
      (0) SparseLinear(784 -> 300, nnz=18714, sparsity=0.9204)
      (1) ReLU()
      (2) SparseLinear(300 -> 100, nnz=6906, sparsity=0.7698)
      (3) ReLU()
      (4) Linear(100 -> 10)
    )
    """
    sizes = list(sizes)
    if len(sizes) < 2:
        raise ValueError(f"mlp expects at least two sizes, input and output; got {sizes}")
    shapes = [(n_out, n_in) for n_in, n_out in pairwise(sizes)]
    counts = _counts(shapes, sparsity, distribution)
    _check_room(sizes, counts, np.dtype(dtype).itemsize)
    random = generator(rng)
    layers: list[Module] = []
    for (n_out, n_in), nnz in zip(shapes, counts, strict=True):
        if layers:
            layers.append(ReLU())
        if nnz == n_out * n_in:
            layers.append(Linear(n_in, n_out, dtype=dtype, rng=random))
        else:
            topology = Topology.random((n_out, n_in), nnz=nnz, rng=random)
            layers.append(SparseLinear(n_in, n_out, topology=topology, dtype=dtype, rng=random))
    return Sequential(*layers)


def _check_room(sizes: list[int], counts: list[int], itemsize: int) -> None:
    """Refuse a network that does not fit: values and gradients, of a sparse weight four integers of 4 bytes too."""
    dense = [n_out * n_in for n_in, n_out in pairwise(sizes)]
    each = [2 * itemsize + 16 * (n < size) for n, size in zip(counts, dense, strict=True)]
    needed = sum(n * size for n, size in zip(counts, each, strict=True)) + 24 * sum(sizes)
    text = "-".join(map(str, sizes)) if len(sizes) <= 8 else f"of {len(sizes)} sizes"
    what = f"mlp {text}, {sum(counts)} weights,"
    check_room(what, needed, "Take fewer neurons, or a higher sparsity.")


def _counts(
    shapes: list[tuple[int, int]],
    sparsity: float | Sequence[float | None] | None,
    distribution: str,
) -> list[int]:
    """Return the nonzeros of each layer."""
    if distribution not in ("erk", "uniform"):
        raise ValueError(f"mlp expects distribution 'erk' or 'uniform'; got {distribution!r}")
    if sparsity is None:
        sparsity = 0.0
    if isinstance(sparsity, Sequence):
        if len(sparsity) != len(shapes):
            raise ValueError(
                f"mlp expects one sparsity per layer, {len(shapes)} of them; got {len(sparsity)}"
            )
        each = zip(shapes, sparsity, strict=True)
        return [allocation.uniform([shape], s or 0.0)[0] for shape, s in each]
    share = allocation.erdos_renyi if distribution == "erk" else allocation.uniform
    return share(shapes, sparsity)
