"""What `wide` runs in a fresh process: `python -m benchmarks._wide_child SETTINGS NEURONS`.

SETTINGS is JSON: hidden, inputs, batch, warm, steps, updates, threads, seed. Builds and trains the network of
`examples/wide.py`, then lets SET and RigL move its weights once each. Prints one line of JSON: seconds and bytes.
"""

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import nnsparse as ns
from benchmarks._memory_child import peak, reset, resident
from nnsparse import nn, optim, sparsify
from nnsparse.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import _wide

RECIPES = {"set": sparsify.set_, "rigl": sparsify.rigl}
SECTIONS = ("forward", "input gradient", "weight gradient", "write-back")


class Run:
    """A network in training; `step` is one step."""

    def __init__(self, neurons: int, s: dict[str, Any]) -> None:
        rng = np.random.default_rng(s["seed"])
        self.layers = _wide.sizes(neurons, s["hidden"], max(200, neurons // 10))
        data, _ = _wide.planted(32 * s["batch"], 1, self.layers[0], rng)
        start = perf_counter()
        self.model = _wide.network(self.layers, s["inputs"], rng)
        self.report = ns.memory_report(self.model)  # builds the plans
        self.build = perf_counter() - start
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.loader = DataLoader(data, batch_size=s["batch"], rng=s["seed"])
        self.batches = iter(self.loader)
        self.loss_fn = nn.CrossEntropyLoss()

    def step(self) -> float:
        """Make a step; return its seconds."""
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        start = perf_counter()
        loss = self.loss_fn(self.model(batch[0]), batch[1])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return perf_counter() - start

    def update(self, recipe: str, seed: int) -> float:
        """Let a recipe replace weights after a step; return the seconds of the update."""
        chosen = RECIPES[recipe](every=1)
        sparsifier = sparsify.Sparsifier(self.model, self.optimizer, chosen, 4, rng=seed)
        self.step()
        start = perf_counter()
        sparsifier.step()
        self.report = ns.memory_report(self.model)  # builds the plans
        return perf_counter() - start


def parts(run: Run, steps: int) -> dict[str, float]:
    """Return the seconds of a step by section."""
    with ns.profile(run.model) as profile:
        for _ in range(steps):
            run.step()
    rows = profile.rows()
    seconds = {
        section: sum(row["seconds"] for row in rows if row["section"] == section) / steps
        for section in SECTIONS
    }
    return {**seconds, "other": profile.seconds / steps - sum(seconds.values())}


def gathered(run: Run, s: dict[str, Any]) -> float:
    """Return 10⁹ bytes per second that the forward product of the second layer reads of its input, lane by lane."""
    weight = run.model[2].weight
    structure = run.model[2].structure
    x = np.ones((1, run.layers[1], 16 * -(-s["batch"] // 16)), np.float32)
    seconds = []
    for _ in range(3):
        start = perf_counter()
        structure.forward(weight.data, x, s["batch"], None, False)
        seconds.append(perf_counter() - start)
    return 1e-9 * weight.size * x.shape[2] * x.itemsize / min(seconds)


def main(s: dict[str, Any], neurons: int) -> dict[str, Any]:
    """Return what a network of so many neurons costs."""
    ns.set_num_threads(s["threads"])
    small = Run(1000, s)
    small.step()
    for recipe in s["updates"]:
        small.update(recipe, s["seed"])
    before, exact = resident(), reset()
    run = Run(neurons, s)
    for _ in range(s["warm"]):
        run.step()
    seconds = [run.step() for _ in range(s["steps"])]
    trained = peak()
    sections = parts(run, max(1, s["steps"] // 2))
    return {
        "neurons": sum(run.layers[1:-1]),
        "layers": run.layers,
        "weights": sum(p.size for p in run.model.parameters()),
        "model_bytes": run.report.total,
        "build": run.build,
        "steps": seconds,
        "sections": sections,
        "gather_gbps": gathered(run, s),
        "updates": {recipe: run.update(recipe, s["seed"]) for recipe in s["updates"]},
        "before": before,
        "exact": exact,
        "peak_training": trained,
        "peak": peak(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]), int(sys.argv[2]))))
