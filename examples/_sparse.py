"""What `pruning.py`, `dynamic_sparse.py` and `imdb.py` share: options, and training networks one after the other."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from _common import Split, at_least, output_file, picture_file

import nnsparse as ns
from nnsparse import nn, optim, schedule, sparsify, train
from nnsparse.data import DataLoader
from nnsparse.sparsify import plots

Data = tuple[Split, Split]


@dataclass(frozen=True)
class Network:
    """What to train: a name, how to make the model, its recipe for so many steps per epoch, if any, its optimizer."""

    name: str
    make: Callable[[], nn.Sequential]
    recipe: Callable[[int], sparsify.Recipe] | None = None
    optimizer: Callable[[nn.Sequential], optim.Optimizer] | None = None  # None: SGD


@dataclass(frozen=True)
class Trained:
    """One network after training; a dense one, or one whose pattern stays, has no sparsifier."""

    name: str
    model: nn.Sequential
    history: train.History
    sparsifier: sparsify.Sparsifier | None

    def summary(self) -> dict[str, Any]:
        """Return what tables and JSON files show; times of updates are within the training time."""
        densities = plots.layer_densities(self.model)
        sizes = [m.in_features * m.out_features for m in affine(self.model)]
        nnz = round(sum(d * n for d, n in zip(densities.values(), sizes, strict=True)))
        report = self.sparsifier.report() if self.sparsifier else None
        last = self.history["step_seconds"][-int(self.history["steps"][-1]) :]
        return {
            "network": self.name,
            "test_accuracy": float(self.history["validation_accuracy"][-1]),
            "nnz": nnz,
            "sparsity": 1.0 - nnz / sum(sizes),
            "bytes": ns.memory_report(self.model).weights_and_state,
            "ms_per_step": 1e3 * float(np.median(last)),
            "seconds": float(self.history["seconds"].sum()),
            "updates": report.updates if report else 0,
            "update_seconds": report.pruning + report.refreshing if report else 0.0,
            "layers": densities,
        }


def affine(model: nn.Sequential) -> list[nn.Linear | nn.SparseLinear]:
    """Return the layers with weights."""
    return [layer for layer in model if isinstance(layer, nn.Linear | nn.SparseLinear)]


def compare(networks: Sequence[Network], args: argparse.Namespace, data: Data) -> list[Trained]:
    """Train all networks, one after the other, after a rehearsal on little data that compiles the kernels."""
    print("Rehearsal, which compiles the kernels unless an earlier run did ...", flush=True)
    small = argparse.Namespace(**{**vars(args), "batch_size": min(args.batch_size, 128)})
    few = 10 * small.batch_size
    (x, y), (x_test, y_test) = data
    little = (x[:few], y[:few]), (x_test[:few], y_test[:few])
    for network in networks:  # 150 steps, updates are due at 100
        learn(network, small, little, epochs=15, progress=False)
    return [learn(network, args, data, args.epochs) for network in networks]


def learn(
    network: Network, args: argparse.Namespace, data: Data, epochs: int, progress: bool = True
) -> Trained:
    """Train a network with its optimizer (SGD with momentum), a cosine schedule, and its recipe, if it has one."""
    train_data, test = data
    name, model = network.name, network.make()
    loader = DataLoader(train_data, batch_size=args.batch_size, rng=args.seed)
    total = epochs * len(loader)
    if network.optimizer is None:
        optimizer: optim.Optimizer = optim.SGD(model.parameters(), args.lr, args.momentum)
    else:
        optimizer = network.optimizer(model)
    loss_fn = nn.CrossEntropyLoss()
    updates: list[train.Update] = [optim.LRScheduler(optimizer, schedule.cosine(), total)]
    sparsifier = None
    if network.recipe is not None:
        other = DataLoader(train_data, batch_size=args.batch_size, rng=args.seed + 1)
        try:
            sparsifier = sparsify.Sparsifier(
                model,
                optimizer,
                network.recipe(len(loader)),
                total,
                loss_fn=loss_fn,
                batches=list(islice(other, 10)),
                rng=args.seed,
                refresh_every=args.refresh_every,
                swap=args.swap,
            )
        except ValueError as error:
            raise SystemExit(f"{name}: {error}") from None
        updates.insert(0, sparsifier)
    if progress:
        print(f"{name}:", flush=True)
    try:
        history = train.fit(
            model,
            loss_fn,
            optimizer,
            loader,
            epochs=epochs,
            validation=test,
            updates=updates,
            progress=progress,
        )
    except train.NonFiniteLossError as error:
        raise SystemExit(f"{name}: {error}") from None
    if history.interrupted:
        print(history)
        raise SystemExit(130)
    return Trained(name, model, history, sparsifier)


def parse(
    argv: list[str] | None,
    about: str,
    recipes: Iterable[str],
    default: str,
    more: Sequence[argparse.ArgumentParser] = (),
    data: Sequence[str] = ("auto", "mnist", "digits"),
    defaults: Mapping[str, Any] | None = None,
) -> argparse.Namespace:
    """Read and check the options, those of the parsers in `more` too; `defaults` take the place of those here."""
    p = argparse.ArgumentParser(
        description=about,
        parents=more,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument(
        "--recipe",
        nargs="+",
        choices=recipes,
        default=[default],
        metavar="NAME",
        help="one or more of: " + ", ".join(recipes),
    )
    p.add_argument("--sparsity", type=float, default=0.9, help="of all weights together")
    p.add_argument("--data", choices=data, default=data[0])
    p.add_argument(
        "--hidden", type=at_least(1), nargs="+", default=[300, 100], help="hidden layers' sizes"
    )
    p.add_argument("--epochs", type=at_least(1), default=5)
    p.add_argument("--batch-size", type=at_least(1), default=100)
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument(
        "--refresh-every",
        type=at_least(1),
        metavar="R",
        help="compress patterns every R steps only (default: at each update)",
    )
    p.add_argument(
        "--swap", action="store_true", help="keep layers on the dense kernels while that is faster"
    )
    p.add_argument("--seed", type=at_least(0), default=0)
    p.add_argument("--threads", type=int, help="default: all cores")
    p.add_argument("--json", type=output_file, help="write options, results and every loss there")
    p.add_argument("--plot", type=picture_file, help="draw curves there (needs matplotlib)")
    p.set_defaults(**(defaults or {}))
    args = p.parse_args(argv)
    if not 0 < args.sparsity < 1:
        p.error(f"--sparsity expects a fraction between 0 and 1; got {args.sparsity:g}")
    if not (0 < args.lr < float("inf") and 0 <= args.momentum < 1):
        p.error("--lr expects a number above 0, --momentum one from 0 to below 1")
    try:
        ns.set_num_threads(ns.get_num_threads() if args.threads is None else args.threads)
    except ValueError as error:
        p.error(f"--threads: {error}")
    return args
