"""A program that mpirun starts: trains, fails, or waits to be stopped; rank 0 writes what became of it."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from nnsparse import data, nn, optim, train
from nnsparse.distributed import DataParallel, job
from nnsparse.sparsify import Sparsifier, dynamic

EPOCHS, BATCH = 4, 15


def samples():
    rng = np.random.default_rng(0)
    return rng.standard_normal((50, 20)), rng.integers(0, 3, 50)


class FromRank:
    """A callback that does something on rank 1 at step 3."""

    def __init__(self, comm, act):
        self.rank, self.act = comm.Get_rank(), act

    def __call__(self, state):
        pass

    def after_step(self, state):
        if self.rank == 1 and state.step == 3:
            self.act()


def run(comm, callbacks=(), epochs=EPOCHS, x=None):
    model = nn.mlp([20, 32, 24, 3], sparsity=0.7, dtype=np.float64, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    parallel = DataParallel(model, comm)
    X, y = samples()
    loader = data.DataLoader((X if x is None else x, y), batch_size=BATCH, rng=1)
    history = train.fit(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        parallel.shard(loader),
        epochs=epochs,
        validation=(X, y),
        updates=[
            parallel,
            Sparsifier(model, optimizer, dynamic.rigl(0.8, every=3), epochs * len(loader)),
        ],
        callbacks=callbacks,
        progress=False,
    )
    parallel.check()
    return history, model, parallel.report()


def interrupt():
    signal.raise_signal(signal.SIGINT)


def told(history, model, report):
    """Return what a test looks at, as JSON can hold it."""
    return {
        "state": {name: array.tobytes().hex() for name, array in model.state_dict().items()},
        "loss": history["step_loss"].tolist(),
        "accuracy": history["validation_accuracy"].tolist(),
        "interrupted": history.interrupted,
        "stopped": history.stopped,
        "bytes": [report.gradient_bytes, report.growth_bytes],
    }


def main(what, folder):
    with job() as comm:
        rank = comm.Get_rank()
        if what == "nan":
            x = samples()[0]
            x[int(np.random.default_rng([1, 0]).permutation(50)[40])] = np.nan  # rank 1, step 2
            run(comm, x=x)
        if what == "exit":
            if rank == 1:
                sys.exit(0)
            comm.Barrier()
        found = {
            "pid": os.getpid(),
            "size": comm.Get_size(),
            "whole": told(*run(comm)),
            "interrupted": told(*run(comm, [FromRank(comm, interrupt)])),
        }
        part = Path(folder, f"{rank}.part")
        part.write_text(json.dumps(found))
        part.rename(Path(folder, f"{rank}.json"))
        run(comm, epochs=10**6)  # until somebody presses Ctrl-C


if __name__ == "__main__":
    main(*sys.argv[1:])
