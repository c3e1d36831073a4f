"""What `wide.py` trains and shows: a network of constant fan-in, data with few informative directions, and its cost.

Nothing here takes more than so many bytes per weight, per neuron and per entry of the data: neither n_in x n_out, nor
a dense copy of a sample.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from _common import table
from scipy import sparse

from nnsparse import nn
from nnsparse.train import TrainState

CLASSES, ACTIVE, INFORMATIVE, SIGNAL = 10, 100, 32, 0.2
NARROW = 100  # times, from the last hidden layer to the next one of the funnel
Samples = tuple[sparse.csr_array, np.ndarray]


def sizes(neurons: int, hidden: int, features: int) -> list[int]:
    """Return the layers' sizes: features, `hidden` wide layers of together `neurons`, a funnel, the classes."""
    found = [features, *[neurons // hidden] * hidden]
    while found[-1] > 10 * NARROW:
        found.append(found[-1] // NARROW)
    return [*found, CLASSES]


def network(layers: Sequence[int], inputs: int, rng: np.random.Generator) -> nn.Sequential:
    """Return a network with random connections, `inputs` for each neuron of the wider side of a layer, the last dense.

    Every fan-in is bounded, so the rate that suits a thousand neurons suits ten million.
    """
    densities = [min(1.0, inputs / min(a, b)) for a, b in pairwise(layers[:-1])]
    return nn.mlp(layers, sparsity=[*(1.0 - density for density in densities), None], rng=rng)


def planted(n_train: int, n_test: int, features: int, rng: np.random.Generator) -> list[Samples]:
    """Return training and test data (X, y), X sparse with ACTIVE features of `features` in each row.

    One in five is of the INFORMATIVE features of the sample's class, the others are any: noise. Features have mean
    square 1.
    """
    telling = rng.integers(features, size=(CLASSES, INFORMATIVE))
    found = []
    for n in (n_train, n_test):
        y = rng.integers(CLASSES, size=n)
        signal = telling[y[:, None], rng.integers(INFORMATIVE, size=(n, ACTIVE))]
        noise = rng.integers(features, size=(n, ACTIVE))
        columns = np.where(rng.random((n, ACTIVE)) < SIGNAL, signal, noise)
        values = np.full(n * ACTIVE, np.sqrt(features / ACTIVE), np.float32)
        starts = np.arange(n + 1) * ACTIVE
        x = sparse.csr_array((values, columns.ravel(), starts), shape=(n, features))
        x.sum_duplicates()
        found.append((x, y))
    return found


def peak_gb() -> float:
    """Return the most memory that this process has had, in 10^9 bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def tell(state: TrainState) -> None:
    """Print a line for each epoch: a callback of `train.fit`."""
    last = state.history.epochs[-1]
    print(
        f"epoch {state.epoch}: {last.seconds:.1f} s, loss {last.train_loss:.3f}, "
        f"test {last.validation_accuracy:.1%}, peak memory {peak_gb():.2f} GB",
        flush=True,
    )


# ---------------------------------------------------------------- cost against width


def scaling(widths: Sequence[int], options: Sequence[str]) -> list[dict[str, Any]]:
    """Train each width in a process of its own, narrow ones first; return what each wrote."""
    found = []
    for neurons in sorted(widths):
        print(f"{neurons:,} neurons ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.json"
            script = str(Path(__file__).with_name("wide.py"))
            command = [sys.executable, script, "--neurons", str(neurons), "--json", str(path)]
            run = subprocess.run([*command, *options], stdout=subprocess.DEVNULL, check=False)
            if run.returncode:
                raise SystemExit(f"the run of {neurons} neurons failed")
            found.append(json.loads(path.read_text()))
    return found


def per_neuron(row: dict[str, Any]) -> dict[str, float]:
    """Return what one neuron costs: microseconds of a step and of the construction, bytes at the peak."""
    n = row["neurons"]
    return {
        "step_us": 1e3 * row["ms_per_step"] / n,
        "build_us": 1e6 * row["build_seconds"] / n,
        "bytes": (row["peak_bytes"] - row["bytes_before"]) / n,
    }


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of the cost by width."""
    lines = [["neurons", "weights", "build s", "s/step", "peak GB", "us/step", "us build", "bytes"]]
    for row in rows:
        each = per_neuron(row)
        lines.append(
            [f"{row['neurons']:,}", f"{row['weights']:,}", f"{row['build_seconds']:.2f}"]
            + [f"{row['ms_per_step'] / 1e3:.3f}", f"{row['peak_bytes'] / 1e9:.2f}"]
            + [f"{each['step_us']:.3f}", f"{each['build_us']:.2f}", f"{each['bytes']:.0f}"]
        )
    return (
        table(lines)
        + "\nThe last three columns are per neuron; bytes without those before the network."
    )


def plot_cost(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw step time and memory against width, beside lines through the widest network and the origin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    x = np.array([row["neurons"] for row in rows], float)
    for axes, key, unit in zip(
        figure.subplots(1, 2), ("step_us", "bytes"), ("s a step", "GB"), strict=True
    ):
        scale = 1e-6 if key == "step_us" else 1e-9
        y = np.array([per_neuron(row)[key] for row in rows]) * x * scale
        axes.plot(x, y[-1] * x / x[-1], "--", color="0.6", label="in proportion")
        axes.plot(x, y, "o-", label="measured")
        axes.set(xscale="log", yscale="log", xlabel="neurons", ylabel=unit)
        axes.legend()
    figure.suptitle("Cost of training against width")
    figure.savefig(path, dpi=120)
