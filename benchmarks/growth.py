"""Times growing weights by their gradient, streamed, against the dense product and against storing it.

    python -m benchmarks.growth --n 1000 2048 --sparsity 0.95

The rivals take turns: the dense product alone, which RigL as published needs anyway; that product and NumPy's
argpartition of it; the streamed growth, for gradients whose neurons are all alike and for such as training makes,
where whole blocks cannot matter and are left out. Peak memory is what Python allocates during one growth.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import _common, _machine, _program
from benchmarks._common import TOTAL, Timed, number, spread, table
from nnsparse import tiles
from nnsparse.kernels.layout import gather_rows
from nnsparse.ops.structures import Dense
from nnsparse.plan import plan_of
from nnsparse.sparsify.stream import Stream, Tap
from nnsparse.sparsify.streaming import _guesses, largest_gradients
from nnsparse.topology import Topology

Array = NDArray[Any]
PRODUCT, STORED = "dense product", "stored, argpartition"
SPREAD = 0.8  # of the logarithm of the neurons' norms
STREAMED, UNEVEN = "streamed", "streamed, uneven"


@dataclass(frozen=True)
class Settings:
    """What to time; the defaults are those of the command line."""

    n: tuple[int, ...] = (1000,)
    batch: int = 100
    sparsity: float = 0.95
    drop: float = 0.3
    threads: int = 1
    repeats: int = 10


class DifferenceError(Exception):
    """Streamed and stored growth chose different weights."""


def tap(n: int, batch: int, uneven: bool, rng: np.random.Generator) -> Tap:
    """Return tiled (d, x) of normal numbers; uneven: as in an MLP on MNIST, where half the blocks matter."""
    d, x = (rng.standard_normal((batch, n)) for _ in range(2))
    if uneven:
        x = np.maximum(x, 0) * np.exp(SPREAD * rng.standard_normal(n))
        d *= np.exp(SPREAD * rng.standard_normal(n))
    lanes = tiles.pick_lanes(batch)

    def tiled(a: Array) -> Array:
        out = tiles.aligned(np.zeros((tiles.n_tiles(batch, lanes), n, lanes), np.float32))
        gather_rows(a.astype(np.float32), np.arange(batch), out)
        return out

    return tiled(d), tiled(x)


def stored(pair: Tap, kept: Topology, k: int) -> Topology:
    """Return the k positions to grow by way of the whole gradient."""
    size = np.abs(Dense(*kept.shape).gradient(*pair))
    size[kept.coo()] = -1
    best = np.argpartition(size.reshape(-1), size.size - k)[size.size - k :]
    return Topology.from_coo(kept.shape, *np.divmod(best, kept.shape[1]))


def peak(call: Callable[[], object]) -> int:
    """Return the most bytes that a call has allocated at a time, the pool empty before."""
    call()
    tiles.pool.clear()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def one(n: int, settings: Settings, progress: Callable[[str], object]) -> dict[str, Any]:
    """Time one square layer; return times, bytes and the share of blocks that were made.

    Raises
    ------
    DifferenceError
        If the streamed growth chose other weights than the stored one.
    """
    rng = np.random.default_rng(0)
    topology = Topology.random((n, n), sparsity=settings.sparsity, rng=rng)
    k = round(settings.drop * topology.nnz)
    rows, columns = topology.coo()
    keep = np.sort(rng.permutation(topology.nnz)[k:])
    kept = Topology.from_coo((n, n), rows[keep], columns[keep])
    even, uneven = (tap(n, settings.batch, kind, rng) for kind in (False, True))
    for pair in (even, uneven):
        if largest_gradients([pair], kept, k) != stored(pair, kept, k):
            raise DifferenceError(f"{n}x{n}: streamed and stored growth differ")
    calls: dict[str, Callable[[], object]] = {
        PRODUCT: lambda: Dense(n, n).gradient(*even),
        STORED: lambda: stored(even, kept, k),
        STREAMED: lambda: largest_gradients([even], kept, k),
        UNEVEN: lambda: largest_gradients([uneven], kept, k),
    }
    rivals = [Timed(name, {"growth": call}) for name, call in calls.items()]
    seconds = _common.interleave(rivals, settings.repeats, progress=progress)
    stream = Stream.of([uneven], kept)
    bar = _guesses(stream, stream.size - kept.nnz, k)[0]
    return {
        "n": n,
        "nnz": topology.nnz,
        "k": k,
        "made": float(1 - (stream.limits < bar).mean()),
        "times": {name: _common.summary(found[TOTAL]) for name, found in seconds.items()},
        "peaks": {name: peak(call) for name, call in calls.items()},
        "layer": 4 * topology.nnz + topology.nbytes + plan_of(topology).nbytes,
    }


def measure(settings: Settings) -> dict[str, Any]:
    """Time all sizes.

    Raises
    ------
    ValueError
        If there are fewer cores than threads.
    DifferenceError
        As `one`.
    """
    with _machine.limit_threads(settings.threads) as told:
        machine = _machine.describe(settings.threads, told)
        with tqdm(settings.n, desc="growth", disable=None) as bar:
            results = [
                one(n, settings, lambda name, n=n: bar.set_postfix_str(f"{n} {name}")) for n in bar
            ]
    return {
        "benchmark": "growth",
        "machine": machine,
        "settings": asdict(settings),
        "results": results,
    }


def report(result: Mapping[str, Any]) -> str:
    """Return a table of times and one of memory."""
    s, names = result["settings"], (PRODUCT, STORED, STREAMED, UNEVEN)
    times, memory = [], []
    for row in result["results"]:
        size = f"{row['n']}², grow {row['k']}"
        cells = [spread(row["times"][name]) for name in names]
        times.append([size, *cells, f"{row['made']:.0%}"])
        peaks = [number(row["peaks"][name] / 1e6) for name in names]
        memory.append([size, *peaks, number(row["layer"] / 1e6)])
    note = (
        f"Medians of {s['repeats']} × 3 calls taking turns, ± half the interquartile range; batch {s['batch']}, "
        f"sparsity {s['sparsity']:g}, float32, {s['threads']} threads. Stored and streamed growth choose alike."
    )
    blocks = [
        "# Growing by gradient",
        _machine.sentence(result["machine"]),
        table(["ms", *names, "blocks made"], times),
        table(["peak MB", *names, "the layer's own"], memory),
        note,
    ]
    return "\n\n".join(blocks) + "\n"


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    d = Settings()
    size = _common.at_least(1)
    p = argparse.ArgumentParser(prog="growth", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--n", type=size, nargs="+", default=d.n, help="inputs and outputs")
    p.add_argument("--batch", type=size, default=d.batch, help="default %(default)s")
    p.add_argument("--sparsity", type=_common.sparsity, default=d.sparsity)
    p.add_argument("--drop", type=_common.fraction, default=d.drop, help="share that moves")
    p.add_argument("--threads", type=size, default=d.threads, help="default %(default)s")
    p.add_argument("--repeats", type=size, default=d.repeats, help="default %(default)s")
    _program.add_outputs(p, plot=False)
    return p


PART = _program.Part("growth", measure, report, None, (DifferenceError,))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, 1 for a wrong result."""

    def settings(given: dict[str, Any]) -> Settings:
        return Settings(**{**given, "n": tuple(given["n"])})

    return _program.run(PART, parser(), settings, argv)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
