"""What `resume` starts and kills: one RigL run of LeNet-300-100, `python _resume_child.py DATA SETTINGS [CHECKPOINT]`.

Prints "ready" before the first step, the number of each step once it is done, and at the end one line of JSON. Ends
with code 3 and the message if a checkpoint cannot be written.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import nnsparse as ns
from nnsparse import data, nn, optim, schedule, sparsify, train

SIZES = [784, 300, 100, 10]


class Announce:
    """Says each step when it is done, before it is saved; with `user`, goes on as that one if it may do everything."""

    def __init__(self, user: int | None) -> None:
        self._user = user

    def __call__(self, state: train.TrainState) -> None:
        """Say nothing of epochs."""

    def after_step(self, state: train.TrainState) -> None:
        """Write the number of the step where the parent reads it at once."""
        os.write(1, f"{state.step}\n".encode())
        if self._user is not None and os.geteuid() == 0:
            os.seteuid(self._user)


def main(folder: str, text: str, path: str | None = None) -> int:
    """Train to the end."""
    s: dict[str, Any] = json.loads(text)
    ns.set_num_threads(s["threads"])
    x, y = (np.load(Path(folder) / f"{name}.npy") for name in ("x", "y"))
    model = nn.mlp(SIZES, sparsity=s["sparsity"], rng=s["seed"])
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = data.DataLoader((x, y), batch_size=s["batch"], rng=s["seed"])
    total = s["epochs"] * len(loader)
    sparsifier = sparsify.Sparsifier(
        model, optimizer, sparsify.rigl(s["sparsity"], every=s["update_every"]), total
    )
    updates = [sparsifier, optim.LRScheduler(optimizer, schedule.cosine(), total)]
    os.write(1, b"ready\n")
    if limit := s.get("limit"):  # of the size of a file, in bytes: a disk that is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    start = time.perf_counter()
    try:
        checkpoint = None if path is None else train.Checkpoint(path, every_steps=s["save_every"])
        history = train.fit(
            model, nn.CrossEntropyLoss(), optimizer, loader, epochs=s["epochs"], updates=updates,
            callbacks=[Announce(s.get("user"))], checkpoint=checkpoint, progress=False,
        )  # fmt: skip
    except OSError as error:
        print(error, file=sys.stderr)
        return 3
    found = {
        "seconds": time.perf_counter() - start,
        "steps": history.step_loss.size,
        "updates": len(sparsifier.history),
        "loss": float(history.step_loss[-1]),
        "weights": [float(np.abs(p.data).sum()) for p in model.parameters()],
    }
    os.write(1, json.dumps(found).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
