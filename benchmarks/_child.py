"""What `startup` runs in a fresh process: `python _child.py import|thesis|example THREADS`.

Prints one line of JSON, seconds by name. It imports nothing above the standard library before its
clock runs, which is why it is a file by itself, outside of the `benchmarks` package.
"""

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIZES = (784, 256, 256, 256, 256, 10)
SPARSITY = (None, 0.8, 0.8, 0.8, None)
BATCH = 64


class Clock:
    """Seconds between calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now


def imports(threads: int) -> dict[str, float]:
    """Import Numba, then nnsparse."""
    clock = Clock()
    import numba  # noqa: F401

    clock("import_numba")
    import nnsparse as ns

    clock("import_nnsparse")
    ns.set_num_threads(threads)
    return clock.seconds


def thesis(threads: int) -> dict[str, float]:
    """Build the network of the thesis and train two steps at batch 64."""
    seconds = imports(threads)
    import numpy as np

    from nnsparse import nn, optim
    from nnsparse.data import DataLoader

    rng = np.random.default_rng(0)
    x, y = rng.random((4 * BATCH, 784), np.float32), rng.integers(10, size=4 * BATCH)
    batches = iter(DataLoader((x, y), batch_size=BATCH, rng=0))
    clock = Clock()
    model = nn.mlp(SIZES, sparsity=SPARSITY, rng=0)
    optimizer, loss_fn = optim.SGD(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    clock("build")
    for name in ("first_step", "second_step"):
        batch, labels = next(batches)
        loss = loss_fn(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        clock(name)
    return {**seconds, **clock.seconds}


def example(threads: int) -> dict[str, float]:
    """Run `examples/mnist.py` on 64 samples for two epochs: two steps of each of its networks."""
    seconds = imports(threads)
    sys.path.insert(0, str(ROOT / "examples"))
    import mnist
    import numpy as np
    from tqdm import tqdm

    from nnsparse.data import DataLoader

    rng = np.random.default_rng(0)
    data = rng.random((BATCH, 784), np.float32), rng.integers(10, size=BATCH)
    clock = Clock()
    runs = mnist.networks(mnist.parse(["--batch-size", str(BATCH)]))
    clock("build")
    with tqdm(disable=True) as bar:
        for run in runs:
            for _ in range(2):
                run.epoch(DataLoader(data, batch_size=BATCH, rng=0), data, bar)
    first, second = ([run.seconds[i] for run in runs] for i in range(2))
    steps = {"first_step": first[0], "second_step": second[0], "first_steps_of_all": sum(first)}
    return {**seconds, **clock.seconds, **steps}


KINDS = {"import": imports, "thesis": thesis, "example": example}

if __name__ == "__main__":
    # Not this file's folder: its modules are no concern of a user's program.
    sys.path[0] = str(ROOT)
    print(json.dumps(KINDS[sys.argv[1]](int(sys.argv[2]))))
