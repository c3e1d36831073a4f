"""The networks of `training`, and a whole training step of each as every rival computes it.

A step draws a mini-batch from a (n, n_features) array, runs forward, loss, backward and the SGD
update, and reads the loss. All rivals start from the same weights: those of the sparse network, its
zeros stored by the dense ones, which then train all of them. How steps are timed is in `training`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse import jit, nn, optim
from nnsparse.data import DataLoader, Rows

Array = NDArray[Any]
Step = Callable[[], float]


@dataclass(frozen=True)
class Net:
    """Sizes from input to output, fraction of zeros as `nn.mlp` takes it, samples per batch."""

    sizes: tuple[int, ...]
    sparsity: float | tuple[float | None, ...]
    batch: int
    note: str

    def model(self, seed: object) -> nn.Sequential:
        """Return the sparse network with its initial weights."""
        rng = np.random.default_rng(seed)  # type: ignore[arg-type]
        return nn.mlp(self.sizes, sparsity=self.sparsity, rng=rng)


_THESIS = (784, 256, 256, 256, 256, 10)
_MIDDLE = (None, 0.8, 0.8, 0.8, None)
NETS: Mapping[str, Net] = {
    "thesis-64": Net(_THESIS, _MIDDLE, 64, "middle layers 80 %"),
    "thesis-256": Net(_THESIS, _MIDDLE, 256, "middle layers 80 %"),
    "lenet-100": Net((784, 300, 100, 10), 0.95, 100, "95 % by Erdős-Rényi-kernel shares"),
    "wide-256": Net((784, 4096, 4096, 10), (0.95, 0.95, None), 256, "wide layers 95 %"),
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
        cls, net: Net, rows: int, *, lr: float = 0.01, momentum: float = 0.0, seed: int = 0
    ) -> Task:
        """Draw weights, samples uniform in [0, 1) and labels."""
        rng = np.random.default_rng([seed, 1])
        x = rng.random((rows, net.sizes[0]), np.float32)
        y = rng.integers(net.sizes[-1], size=rows)
        return cls(net.model([seed, 0]), x, y, net.batch, lr, momentum, seed)

    @property
    def loader(self) -> DataLoader:
        """Full mini-batches in the same order for every rival."""
        return DataLoader((self.x, self.y), batch_size=self.batch, drop_last=True, rng=self.seed)


# ---------------------------------------------------------------- ours


def dense_twin(model: nn.Sequential, kind: type[nn.Linear] | type[nn.NumpyLinear]) -> nn.Sequential:
    """Return the network with `kind` for every affine layer and a copy of its weights."""
    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, nn.SparseLinear | nn.Linear):
            twin = kind(layer.in_features, layer.out_features)
            twin.load_state_dict(_dense(layer).state_dict())
            layers.append(twin)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def _dense(layer: nn.SparseLinear | nn.Linear) -> nn.Linear:
    return layer.to_dense() if isinstance(layer, nn.SparseLinear) else layer


def _forever(loader: DataLoader) -> Iterator[tuple[Rows, Array]]:
    while True:
        yield from loader


def _ours(task: Task, model: nn.Sequential) -> Step:
    """Return the loop's body as a user writes it."""
    optimizer = optim.SGD(model.parameters(), lr=task.lr, momentum=task.momentum)
    loss_fn = nn.CrossEntropyLoss()
    batches = _forever(task.loader)

    def step() -> float:
        x, labels = next(batches)
        loss = loss_fn(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def sparse(task: Task) -> Step:
    """nnsparse: the sparse network, its own copy of the weights."""
    copies = [_copy(layer) for layer in task.model]
    return _ours(task, nn.Sequential(*copies))


def _copy(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.SparseLinear):
        return nn.SparseLinear.from_scipy(layer.to_scipy(), layer.bias and layer.bias.data)
    if isinstance(layer, nn.Linear):
        return dense_twin(nn.Sequential(layer), nn.Linear)[0]
    return layer


def dense(task: Task) -> Step:
    """Our dense layers on the same tiles and threads."""
    return _ours(task, dense_twin(task.model, nn.Linear))


def numpy(task: Task) -> Step:
    """Our dense layers in NumPy: the batch as one tile, one BLAS call per product.

    BLAS has all threads; what lies between its calls (loss, gate, update) has one. With all threads
    for both, OpenBLAS' workers spin on the cores that ours want: of 50 steps of thesis-64 the
    best took 36 ms, not 1.25.
    """
    step = _ours(task, dense_twin(task.model, nn.NumpyLinear))
    threads = jit.get_num_threads()

    def alone() -> float:
        jit.set_num_threads(1)
        try:
            return step()
        finally:
            jit.set_num_threads(threads)

    return alone


# ---------------------------------------------------------------- torch


def torch(task: Task) -> Step:
    """torch, dense; a mini-batch is `x[indices]` of a tensor, which no DataLoader of its beats."""
    torch = import_module("torch")
    model = torch.nn.Sequential(*(_torch_layer(torch, layer) for layer in task.model))
    optimizer = torch.optim.SGD(model.parameters(), lr=task.lr, momentum=task.momentum)
    loss_fn = torch.nn.CrossEntropyLoss()
    x, y = torch.from_numpy(task.x), torch.from_numpy(task.y)
    batches = _torch_indices(torch, task.loader)

    def step() -> float:
        indices = next(batches)
        loss = loss_fn(model(x[indices]), y[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def _torch_layer(torch: Any, layer: nn.Module) -> Any:
    if not isinstance(layer, nn.SparseLinear | nn.Linear):
        return torch.nn.ReLU()
    linear = torch.nn.Linear(layer.in_features, layer.out_features)
    state = _dense(layer).state_dict()
    linear.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return linear


def _torch_indices(torch: Any, loader: DataLoader) -> Iterator[Any]:
    """Yield the rows of the mini-batches that `loader` gives, forever."""
    epoch = 0
    while True:
        order = torch.from_numpy(loader.order(epoch))
        for i in range(len(loader)):
            yield order[i * loader.batch_size : (i + 1) * loader.batch_size]
        epoch += 1


# ---------------------------------------------------------------- the list


@dataclass(frozen=True)
class Rival:
    """How to set a rival up, and one line for the reader."""

    make: Callable[[Task], Step]
    note: str


# The names are those of `_rivals.RIVALS`, whose `available` knows what each needs installed.
RIVALS: Mapping[str, Rival] = {
    "nnsparse": Rival(sparse, "sparse layers, `nn.SparseLinear`"),
    "dense": Rival(dense, "the same network with `nn.Linear`, our dense product on tiles"),
    "numpy": Rival(numpy, "the same with `nn.NumpyLinear`, BLAS on all threads, the rest on one"),
    "torch": Rival(torch, "the same in torch, dense; batches are `x[indices]` of a tensor"),
}
DENSE = tuple(name for name in RIVALS if name != "nnsparse")
