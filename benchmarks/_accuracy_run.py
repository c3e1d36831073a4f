"""One run of `accuracy`: a network, trained from beginning to end with one thread by one method and seed.

Which methods there are is in `_accuracy_methods`; what runs when, and where it is kept, in `_accuracy_jobs`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _images
from benchmarks._accuracy_methods import BATCH, METHODS, Method, size
from nnsparse import datasets, jit, nn, optim
from nnsparse.allocation import exact_count
from nnsparse.data import DataLoader
from nnsparse.sparsify import Sparsifier, targets
from nnsparse.train import evaluate

Array = NDArray[Any]
Split = tuple[Array, Array]
EPOCHS = 100
LR, FACTOR, DROP_AT = 0.1, 0.1, 25_000 / 54_000  # the rate × FACTOR after every such part
MOMENTUM, DECAY = 0.9, 5e-4
MEAN, STD = 0.1307, 0.3081
VALIDATION = 0.1  # of the training images, the last
CHECKS = 10


class RunError(Exception):
    """A run diverged, or its network has not exactly as many weights as it should."""


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes
    ----------
    settings : str
        Of the method (`Method.settings`): a record with others is none of this task.
    data : str
        `_images.MNIST` or else the embedded digits.
    samples, test_samples : int
        Training images, those for validation included, and test images.
    """

    method: str
    settings: str
    sparsity: float
    seed: int
    epochs: int = EPOCHS
    data: str = _images.MNIST
    samples: int = 60_000
    test_samples: int = 10_000

    @property
    def name(self) -> str:
        """What it is called, "rigl-90-0": method, percent of zeros, seed."""
        return f"{self.method}-{100 * self.sparsity:.4g}-{self.seed}"


@lru_cache(maxsize=1)
def images(data: str, samples: int, test_samples: int) -> tuple[Split, Split, Split]:
    """Return training, validation and test images, standardised once for all runs of a process."""
    if data == _images.MNIST:
        (x, y), (x_test, y_test) = datasets.mnist(download=False)
    else:
        (x, y), (x_test, y_test) = datasets.digits(n_train=samples, n_test=test_samples)
    x, x_test = (
        ((a - MEAN) / STD).astype(np.float32) for a in (x[:samples], x_test[:test_samples])
    )
    n = round(len(x) * (1 - VALIDATION))
    return (x[:n], y[:n]), (x[n:], y[n:samples]), (x_test, y_test[:test_samples])


def drops(steps: int, search: int = 0) -> set[int]:
    """Return after which steps the learning rate falls: 25 000 and 50 000 of 54 000, behind a search."""
    return {search + round(k * DROP_AT * steps) for k in (1, 2)} - {0}


class Training:
    """A network in training by a method; the clock runs while it is trained, not while it is tested.

    Attributes
    ----------
    total : int
        Steps, those of a search before the training included.
    drops : set of int
        After which of them the learning rate falls.
    """

    def __init__(self, task: Task, method: Method, data: Split) -> None:
        loader = DataLoader(data, batch_size=BATCH, rng=task.seed)
        steps = task.epochs * len(loader)
        search = round(method.search * steps)
        self.total = search + steps
        self.drops = drops(steps, search)
        self.loss_fn = nn.CrossEntropyLoss()
        self.model = method.model(task.sparsity, task.seed)
        parameters = self.model.parameters()
        self.optimizer = optim.SGD(parameters, LR, MOMENTUM, weight_decay=DECAY, nesterov=True)
        self.sparsifier: Sparsifier | None = None
        self.steps = 0
        start = time.perf_counter()
        recipe = method.make(task.sparsity, self.total)
        if recipe is not None:
            batches = list(islice(loader, method.batches))
            self.sparsifier = Sparsifier(
                self.model,
                self.optimizer,
                recipe,
                self.total,
                loss_fn=self.loss_fn,
                batches=batches,
                rng=task.seed,
                swap=True,
            )
        self.seconds = time.perf_counter() - start
        self._batches = _forever(loader)

    def until(self, last: int) -> None:
        """Train up to step `last`.

        Raises
        ------
        RunError
            If the loss of that step is not finite.
        """
        model, loss_fn, optimizer = self.model, self.loss_fn, self.optimizer
        sparsifier = self.sparsifier
        effects = sparsifier is not None and bool(sparsifier.recipe.effects)
        start = time.perf_counter()
        for x, y in islice(self._batches, last - self.steps):
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            if sparsifier is None:
                optimizer.step()
                continue
            if effects:
                sparsifier.before_step()
            if not sparsifier.replaces_step:
                optimizer.step()
            sparsifier.step()
        self.seconds += time.perf_counter() - start
        self.steps = last
        if not np.isfinite(loss.item()):
            raise RunError(f"the loss is {loss.item()} after step {last}")


def _forever(loader: DataLoader) -> Iterator[tuple[Any, Array]]:
    while True:
        yield from loader


def run(task: Task) -> dict[str, Any]:
    """Train and test one network; return its record, ready for JSON.

    Raises
    ------
    RunError
        If it diverged, or its network has not exactly the number of weights that the sparsity says.
    """
    jit.set_num_threads(1)
    train, validation, test = images(task.data, task.samples, task.test_samples)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training = Training(task, METHODS[task.method], train)
        checks = {round(training.total * k / CHECKS) for k in range(1, CHECKS + 1)} - {0}
        found: list[list[float]] = []
        for step in sorted(training.drops | checks):
            training.until(step)
            if step in training.drops:
                training.optimizer.lr *= FACTOR
            if step in checks:
                accuracy = evaluate(training.model, None, validation).accuracy
                found.append([step, round(accuracy, 5)])
    counts = [target.nnz for target in targets(training.model)]
    wanted = exact_count(size(), sparsity=task.sparsity)
    if sum(counts) != wanted:
        raise RunError(f"{wanted} weights were to be left; there are {counts}, {sum(counts)}")
    return {
        "task": asdict(task),
        "accuracy": evaluate(training.model, None, test).accuracy,
        "validation": found,
        "counts": counts,
        "steps": training.total,
        "seconds": round(training.seconds, 3),
        **_updates(training.sparsifier),
        "warnings": sorted({str(warning.message) for warning in caught}),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _updates(sparsifier: Sparsifier | None) -> dict[str, Any]:
    """Return what the updates cost and how much of the network they have seen."""
    if sparsifier is None:
        return {"updates": 0, "update_seconds": 0.0, "explored": 1.0}
    found = sparsifier.report()
    spent = round(found.pruning + found.refreshing, 3)
    return {"updates": found.updates, "update_seconds": spent, "explored": round(found.explored, 4)}
