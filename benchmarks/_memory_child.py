"""What `memory` runs in a fresh process: `python -m benchmarks._memory_child RIVAL SETTINGS`.

SETTINGS is JSON: sizes, sparsity (of all layers but the last), batch, rows, steps, momentum,
threads, seed. Trains a small network of the same layers first, so that code, threads and libraries
are in memory; then the network itself, whose steps, once all is measured, are watched for what they
allocate. Prints one line of JSON, bytes by name.
"""

import json
import sys
from dataclasses import asdict
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import nnsparse as ns
from benchmarks._allocations import steady
from benchmarks._networks import our_loop, torch_loop
from benchmarks._task import Task
from nnsparse import nn

SMALL = 64  # features of the small network's layers, at most
WATCHED, UNWATCHED = 20, 3  # steady steps
KINDS = ("values", "gradient", "state", "indices", "maps", "pointers", "scratch")


def peak() -> int:
    """Return the largest resident size since `reset`, or of the whole process where that fails."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    resource: Any = import_module("resource")
    used: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def resident() -> int:
    """Return the resident size of the moment, or the peak where it is unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak()
    page: int = import_module("resource").getpagesize()
    return pages * page


def reset() -> bool:
    """Let the peak begin anew; return whether the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- training


def ours(
    sizes: list[int], s: dict[str, Any], sparse: bool, kind: Any = nn.Linear
) -> tuple[dict[str, int], nn.Sequential]:
    """Train our network; return its bytes by kind, and itself."""
    sparsity = [*[s["sparsity"]] * (len(sizes) - 2), None] if sparse else None
    model = nn.mlp(sizes, sparsity=sparsity, rng=s["seed"])
    if kind is not nn.Linear:
        affine = [kind(n_in, n_out, rng=s["seed"]) for n_in, n_out in pairwise(sizes)]
        layers = [layer for each in affine for layer in (each, nn.ReLU())]
        model = nn.Sequential(*layers[:-1])
    _train(our_loop(_task(sizes, s, model), model), s)
    report = ns.memory_report(model)
    return {name: sum(getattr(layer, name) for layer in report.layers) for name in KINDS}, model


def torch(sizes: list[int], s: dict[str, Any]) -> tuple[dict[str, int], None]:
    """Train torch's dense network; return its bytes by kind."""
    torch = import_module("torch")
    torch.set_num_threads(s["threads"])
    torch.manual_seed(s["seed"])
    affine = [torch.nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]
    layers = [layer for each in affine for layer in (each, torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers[:-1])
    _train(torch_loop(_task(sizes, s, nn.Sequential()), model), s)
    values = sum(p.nbytes for p in model.parameters())
    state = values if s["momentum"] else 0
    kinds = {**dict.fromkeys(KINDS, 0), "values": values, "gradient": values, "state": state}
    return kinds, None


def _task(sizes: list[int], s: dict[str, Any], model: nn.Sequential) -> Task:
    rng = np.random.default_rng(s["seed"])
    x = rng.random((s["rows"], sizes[0]), np.float32)
    y = rng.integers(sizes[-1], size=s["rows"])
    return Task(model, x, y, s["batch"], 0.01, s["momentum"], s["seed"])


def _train(step: Any, s: dict[str, Any]) -> None:
    for _ in range(s["steps"]):
        step()


def allocations(model: nn.Sequential, s: dict[str, Any]) -> dict[str, Any]:
    """Return what steady steps of our network allocate, all of one epoch: its order is drawn before."""
    n = 2 * (WATCHED + UNWATCHED)
    task = _task(s["sizes"], {**s, "rows": n * s["batch"]}, model)
    found = steady(our_loop(task, model), WATCHED, UNWATCHED)
    return {f"step_{name}": value for name, value in asdict(found).items()}


def main(rival: str, s: dict[str, Any]) -> dict[str, Any]:
    """Return bytes: resident before, peak while training, data, by kind, and of a steady step."""
    train = {
        "nnsparse": lambda sizes: ours(sizes, s, True),
        "dense": lambda sizes: ours(sizes, s, False),
        "numpy": lambda sizes: ours(sizes, s, False, nn.NumpyLinear),
        "torch": lambda sizes: torch(sizes, s),
    }[rival]
    ns.set_num_threads(s["threads"])
    train([min(n, SMALL) for n in s["sizes"]])
    before, exact = resident(), reset()
    kinds, model = train(s["sizes"])
    found = {"before": before, "peak": peak(), "exact": exact}
    found |= {"data": 4 * s["rows"] * s["sizes"][0], **kinds}
    return found if model is None else found | allocations(model, s)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
