"""What `distributed` runs on each rank: `[mpirun -n 2] python -m benchmarks._distributed_child SETTINGS FOLDER`.

Trains with RigL, and compares gradients and patterns with those of a single process. Rank 0 writes FOLDER/result.json
and FOLDER/patterns.npz.
"""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._images import Split, images
from nnsparse import data, nn, optim, sparsify, train
from nnsparse.distributed import Communicator, DataParallel, job

Array = NDArray[Any]


class Patterns:
    """A callback that notes, after each step that moved a pattern, what all patterns together are."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = [
            layer.weight for layer in model.modules() if isinstance(layer, nn.SparseLinear)
        ]
        self.seen = [weight.topology for weight in self.weights]
        self.marks: list[int] = []

    def __call__(self, state: train.TrainState) -> None:
        """Nothing is due after an epoch."""

    def after_step(self, state: train.TrainState) -> None:
        present = [weight.topology for weight in self.weights]
        if any(a is not b for a, b in zip(present, self.seen, strict=True)):
            together = "".join(topology.fingerprint for topology in present)
            self.marks.append(zlib.crc32(together.encode()))
            self.seen = present


def network(s: dict[str, Any], dtype: str) -> nn.Sequential:
    """Return the network, the same in every process."""
    return nn.mlp([784, *s["hidden"], 10], sparsity=s["sparsity"], dtype=dtype, rng=s["seed"])


def gradient_gap(comm: Communicator, s: dict[str, Any], dtype: str, samples: Split) -> float:
    """Return the largest difference of the reduced gradient from that of one process, relative to its largest entry."""
    model, loss_fn = network(s, dtype), nn.CrossEntropyLoss()
    loader = data.DataLoader(samples, batch_size=s["batch"], rng=s["seed"])
    x, y = next(loader.batches(0))
    loss_fn(model(x), y).backward()
    whole = [np.array(p.grad) for p in model.parameters()]
    model.zero_grad()
    parallel = DataParallel(model, comm)
    x, y = next(parallel.shard(loader).batches(0))
    loss = loss_fn(model(x), y)
    loss.backward()
    parallel.reduce(loss, len(y))
    gaps = [
        np.abs(p.grad - g).max() / np.abs(g).max()
        for p, g in zip(model.parameters(), whole, strict=True)
    ]
    return float(max(gaps))


def training(
    comm: Communicator, s: dict[str, Any], dtype: str, samples: Split, test: Split
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Train; return what it was like, and where the weights are in the end."""
    model = network(s, dtype)
    optimizer = optim.SGD(model.parameters(), lr=s["lr"], momentum=s["momentum"])
    parallel = DataParallel(model, comm)
    loader = data.DataLoader(samples, batch_size=s["batch"], rng=s["seed"])
    steps = s["epochs"] * len(loader)
    rigl = sparsify.Sparsifier(
        model, optimizer, sparsify.rigl(every=s["every"]), steps, rng=s["seed"]
    )
    patterns = Patterns(model)
    history = train.fit(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        parallel.shard(loader),
        epochs=s["epochs"],
        validation=test,
        updates=[parallel, rigl],
        callbacks=[patterns],
        progress=comm.Get_rank() == 0,
    )
    parallel.check()
    marks = np.array(patterns.marks, np.int64)
    everyone = np.empty((comm.Get_size(), marks.size), np.int64)
    comm.Allgather(marks, everyone)
    layers = [m for m in model.modules() if isinstance(m, nn.SparseLinear)]
    result = {
        "accuracy": history["validation_accuracy"].tolist(),
        "train_loss": history["train_loss"].tolist(),
        "ms_per_step": 1e3 * float(np.median(history["step_seconds"])),
        "marks": patterns.marks,
        "ranks_agree": bool((everyone == marks).all()),
        "report": asdict(parallel.report()),
    }
    keys = {}
    for index, layer in enumerate(layers):
        rows, columns = layer.weight.topology.coo()
        keys[f"{dtype}.{index}"] = rows.astype(np.int64) * layer.in_features + columns
    return result, keys


def main(settings: str, folder: str) -> None:
    """Run all dtypes on this rank."""
    s = json.loads(settings)
    with job(threads=s["threads"]) as comm:
        what, samples, test = images(s["samples"], s["test"])
        found: dict[str, Any] = {"data": what, "ranks": comm.Get_size()}
        keys: dict[str, Array] = {}
        for dtype in s["dtypes"]:
            gap = gradient_gap(comm, s, dtype, samples)
            result, where = training(comm, s, dtype, samples, test)
            found[dtype] = {"gradient_gap": gap, **result}
            keys |= where
        if comm.Get_rank() == 0:
            Path(folder, "result.json").write_text(json.dumps(found))
            np.savez(Path(folder, "patterns.npz"), **keys)


if __name__ == "__main__":
    main(*sys.argv[1:])
