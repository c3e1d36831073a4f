"""A whole training step of the networks of `_task` as every rival computes it.

A step draws a mini-batch from a (n, n_features) array, runs forward, loss, backward and the SGD
update, and reads the loss. All rivals start from the same weights: those of the sparse network, its
zeros stored by the dense ones, which then train all of them, or only the nonzeros where they have
masks. How steps are timed is in `training`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks._plain import LAYOUTS, PlainLinear
from benchmarks._rivals import Rival
from benchmarks._task import Array, Task
from nnsparse import jit, nn, optim
from nnsparse.data import DataLoader, Rows

Step = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Loop:
    """A network in training: a call is one step, and returns its loss.

    `predict` gives the outputs of the moment, (n, n_features) to (n, n_classes).
    """

    step: Step
    predict: Callable[[Array], Array]

    def __call__(self) -> float:
        return self.step()


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


def our_loop(task: Task, model: nn.Sequential, masks: Sequence[tuple[Any, Array]] = ()) -> Loop:
    """Return the loop, its body as a user writes it; `masks` are (parameter, mask of its gradient)."""
    optimizer = optim.SGD(model.parameters(), lr=task.lr, momentum=task.momentum)
    loss_fn = nn.CrossEntropyLoss()
    batches = _forever(task.loader)

    def step() -> float:
        x, labels = next(batches)
        loss = loss_fn(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        for parameter, mask in masks:
            parameter.grad *= mask
        optimizer.step()
        return loss.item()

    return Loop(step, model.predict)


def sparse(task: Task) -> Loop:
    """nnsparse: the sparse network, its own copy of the weights."""
    copies = [_copy(layer) for layer in task.model]
    return our_loop(task, nn.Sequential(*copies))


def _copy(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.SparseLinear):
        return nn.SparseLinear.from_scipy(layer.to_scipy(), layer.bias and layer.bias.data)
    if isinstance(layer, nn.Linear):
        return dense_twin(nn.Sequential(layer), nn.Linear)[0]
    return layer


def dense(task: Task) -> Loop:
    """Our dense layers on the same tiles and threads."""
    return our_loop(task, dense_twin(task.model, nn.Linear))


def numpy(task: Task) -> Loop:
    """Our dense layers in NumPy: the batch as one tile, one BLAS call per product.

    BLAS has all threads; what lies between its calls (loss, gate, update) has one. With all threads
    for both, OpenBLAS' workers spin on the cores that ours want: of 50 steps of thesis-64 the
    best took 36 ms, not 1.25.
    """
    loop = our_loop(task, dense_twin(task.model, nn.NumpyLinear))
    threads = jit.get_num_threads()

    def alone(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            jit.set_num_threads(1)
            try:
                return call(*args)
            finally:
                jit.set_num_threads(threads)

        return run

    return Loop(alone(loop.step), alone(loop.predict))


def masked(task: Task) -> Loop:
    """Our dense layers; the gradient of a weight that the sparse network lacks is set to zero."""
    twin = dense_twin(task.model, nn.Linear)
    masks = [
        (copy.weight, layer.weight.topology.to_dense().astype(np.float32))
        for copy, layer in zip(twin, task.model, strict=True)
        if isinstance(copy, nn.Linear) and isinstance(layer, nn.SparseLinear)
    ]
    return our_loop(task, twin, masks)


def plain(task: Task, layout: str) -> Loop:
    """Plain loops over a layout of `_plain`, which is what the documents begin with."""
    layers = [
        PlainLinear(layer, layout) if isinstance(layer, nn.SparseLinear | nn.Linear) else layer
        for layer in task.model
    ]
    return our_loop(task, nn.Sequential(*layers))


# ---------------------------------------------------------------- torch


def torch(task: Task) -> Loop:
    """torch, dense; a mini-batch is `x[indices]` of a tensor, which no DataLoader of its beats."""
    return torch_loop(task, torch_model(task.model))


def torch_model(model: nn.Sequential) -> Any:
    """Return torch's dense network with a copy of the weights."""
    torch = import_module("torch")
    return torch.nn.Sequential(*(_torch_layer(torch, layer) for layer in model))


def torch_masked(task: Task) -> Loop:
    """`torch.nn.utils.prune`: dense weights times a mask in every forward pass."""
    torch = import_module("torch")
    layers = []
    for layer in task.model:
        layers.append(_torch_layer(torch, layer))
        if isinstance(layer, nn.SparseLinear):
            mask = torch.from_numpy(layer.weight.topology.to_dense().astype(np.float32))
            import_module("torch.nn.utils.prune").custom_from_mask(layers[-1], "weight", mask)
    return torch_loop(task, torch.nn.Sequential(*layers))


def torch_loop(task: Task, model: Any) -> Loop:
    """Return the loop, its body as a user of torch writes it."""
    torch = import_module("torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=task.lr, momentum=task.momentum)
    loss_fn = torch.nn.CrossEntropyLoss()
    x, y = torch.from_numpy(task.x), torch.from_numpy(task.y)
    batches = _indices(task.loader)

    def step() -> float:
        indices = torch.from_numpy(next(batches))
        loss = loss_fn(model(x[indices]), y[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def predict(x: Array) -> Array:
        with torch.inference_mode():
            y: Array = model(torch.from_numpy(x)).numpy()
        return y

    return Loop(step, predict)


def _torch_layer(torch: Any, layer: nn.Module) -> Any:
    if not isinstance(layer, nn.SparseLinear | nn.Linear):
        return torch.nn.ReLU()
    linear = torch.nn.Linear(layer.in_features, layer.out_features)
    state = _dense(layer).state_dict()
    linear.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return linear


# ---------------------------------------------------------------- scikit-learn


def sklearn(task: Task) -> Loop:
    """scikit-learn's MLPClassifier, dense, one `partial_fit` a batch."""
    affine = [
        _dense(layer) for layer in task.model if isinstance(layer, nn.SparseLinear | nn.Linear)
    ]
    model = import_module("sklearn.neural_network").MLPClassifier(
        [layer.out_features for layer in affine[:-1]],
        solver="sgd",
        alpha=0.0,
        batch_size=task.batch,
        learning_rate_init=task.lr,
        momentum=task.momentum,
        nesterovs_momentum=False,
        shuffle=False,
    )
    first = slice(task.batch)  # makes the arrays, which then get the weights of all
    model.partial_fit(task.x[first], task.y[first], classes=np.arange(affine[-1].out_features))
    for i, layer in enumerate(affine):
        state = layer.state_dict()
        model.coefs_[i][...] = state["weight"].T
        model.intercepts_[i][...] = state["bias"]
    for velocity in model._optimizer.velocities:
        velocity[...] = 0
    batches = _indices(task.loader)

    def step() -> float:
        indices = next(batches)
        model.partial_fit(task.x[indices], task.y[indices])
        return float(model.loss_)

    return Loop(step, model.predict_proba)


def _indices(loader: DataLoader) -> Iterator[Array]:
    """Yield the rows of the mini-batches that `loader` gives, forever."""
    epoch = 0
    while True:
        order = loader.order(epoch)
        for i in range(len(loader)):
            yield order[i * loader.batch_size : (i + 1) * loader.batch_size]
        epoch += 1


# ---------------------------------------------------------------- the list

RIVALS: Mapping[str, Rival] = {
    "nnsparse": Rival(sparse, "sparse layers, `nn.SparseLinear`"),
    "dense": Rival(dense, "the same network with `nn.Linear`, our dense product on tiles"),
    "numpy": Rival(numpy, "the same with `nn.NumpyLinear`, BLAS on all threads, the rest on one"),
    "torch": Rival(
        torch, "the same in torch, dense; batches are `x[indices]` of a tensor", "torch"
    ),
    "masked": Rival(
        masked, "our `nn.Linear` with gradients times a mask: dense work, sparse weights"
    ),
    "torch-masked": Rival(
        torch_masked, "torch with `torch.nn.utils.prune`: weights times a mask", "torch"
    ),
    "sklearn": Rival(
        sklearn, "scikit-learn's `MLPClassifier`, dense, one `partial_fit` a batch", "sklearn"
    ),
    **{
        layout: Rival(partial(plain, layout=layout), f"plain loops over {layout.upper()}")
        for layout in LAYOUTS
    },
}
# Who trains the same weights, and so has the same losses.
DENSE = ("dense", "numpy", "torch", "sklearn")
SPARSE = tuple(name for name in RIVALS if name not in DENSE)
