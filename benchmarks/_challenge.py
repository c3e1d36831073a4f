"""The Graph Challenge's inference as every rival computes it: from images in CSR to categories, reading excluded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks._rivals import Rival
from nnsparse import jit
from nnsparse.graph_challenge import Network, challenge_blocks, challenge_images
from nnsparse.graph_challenge.inference import run

Array = NDArray[Any]
TOP = 32.0
LARGE = 2**14  # neurons from which on images are made anew, block by block, in every run


@dataclass(frozen=True)
class Once:
    """One run: seconds of inference, of ordering the layers and of making layers and images, and what came out.

    `work` and `nbytes` are None where a rival does not tell.
    """

    seconds: float
    prepare: float
    read: float
    categories: Array
    work: int | None = None
    nbytes: int | None = None


@dataclass(frozen=True)
class Problem:
    """One network, and pictures (n_images, 784) to lead through it."""

    network: Network
    pictures: Array
    progress: bool = False

    def images(self, whole: bool) -> Any:
        """Return the images as one CSR matrix, or, of large networks, in blocks, unless `whole`."""
        side = round(self.network.n_neurons**0.5)
        if whole or self.network.n_neurons < LARGE:
            return challenge_images(self.pictures, side)
        return challenge_blocks(self.pictures, side)

    def part(self, n_images: int) -> Problem:
        """Return the same with the first images only."""
        return Problem(self.network, self.pictures[:n_images], self.progress)


Call = Callable[[], Once]


def ours(p: Problem, variant: Any, reorder: bool = False) -> Call:
    """`graph_challenge.inference.run`."""
    kept = p.images(whole=False) if p.network.n_neurons < LARGE else None

    def call() -> Once:
        images = p.images(whole=False) if kept is None else kept
        r = run(p.network, images, variant=variant, reorder=reorder, progress=p.progress)
        times = (r.seconds, r.prepare_seconds, r.read_seconds)
        return Once(*times, r.categories, r.work, r.nbytes)

    return call


def _weights(network: Network) -> Iterator[Any]:
    """Yield the layers as SciPy matrices (from, to)."""
    for indptr, indices, values in network:
        yield sparse.csc_array((values, indices, indptr), shape=(network.n_neurons,) * 2)


def scipy_csr(p: Problem) -> Call:
    """SciPy's CSR times CSR."""
    images = sparse.csr_array(p.images(whole=True))
    bias, top = np.float32(p.network.bias), np.float32(TOP)

    def call() -> Once:
        start = perf_counter()
        y, seconds = images, 0.0
        for weights in _weights(p.network):
            w = weights.tocsr()
            began = perf_counter()
            y = y @ w
            y.data[y.data != 0] += bias
            np.clip(y.data, 0, top, out=y.data)
            y.eliminate_zeros()
            seconds += perf_counter() - began
        categories = np.flatnonzero(np.diff(y.indptr))
        return Once(seconds, 0.0, perf_counter() - start - seconds, categories)

    return call


def graphblas(p: Problem) -> Call:
    """SuiteSparse:GraphBLAS, the steps of its own solution of the challenge (LAGraph's `LAGraph_dnn`)."""
    gb: Any = import_module("graphblas")
    gb.ss.config["nthreads"] = jit.get_num_threads()
    bias, top = np.float32(p.network.bias), np.float32(TOP)

    def layer(y: Any, w: Any) -> Any:
        y = y.mxm(w, gb.semiring.plus_times).new()
        y << y.apply(gb.binary.plus, right=bias)
        y << y.select(">", 0)
        y << y.apply(gb.binary.min, right=top)
        y.wait()
        return y

    def weights() -> Iterator[Any]:
        return (gb.io.from_scipy_sparse(w.tocsr()) for w in _weights(p.network))

    images = gb.io.from_scipy_sparse(sparse.csr_array(p.images(whole=True)))
    layer(images, next(weights()))  # GraphBLAS compiles what it needs

    def call() -> Once:
        start = perf_counter()
        y, seconds = images, 0.0
        for w in weights():
            began = perf_counter()
            y = layer(y, w)
            seconds += perf_counter() - began
        categories = np.flatnonzero(y.reduce_rowwise(gb.monoid.plus).new().to_dense(0))
        return Once(seconds, 0.0, perf_counter() - start - seconds, categories)

    return call


RIVALS: Mapping[str, Rival] = {
    "filter": Rival(partial(ours, variant="filter"), "images that have died leave; tiles, float32"),
    "reordered": Rival(
        partial(ours, variant="filter", reorder=True),
        "the same, neurons with the same inputs side by side: these networks have 16 each, so it does not count",
    ),
    "workspace": Rival(
        partial(ours, variant="workspace"), "all images through all layers, in tiles made once"
    ),
    "no_workspace": Rival(
        partial(ours, variant="no_workspace"), "the same, new memory for every layer"
    ),
    "spgemm": Rival(
        partial(ours, variant="spgemm"), "our sparse activations times sparse weights, all threads"
    ),
    "scipy": Rival(scipy_csr, "CSR times CSR on one thread (SciPy has no other)"),
    "graphblas": Rival(
        graphblas,
        "SuiteSparse:GraphBLAS through python-graphblas: mxm, apply, select, apply",
        "graphblas",
    ),
}
# Nominal edges after which a rival's run is long enough: it gets as many images as that makes.
EDGES: Mapping[str, float] = {
    "filter": np.inf,
    "reordered": np.inf,
    "workspace": 2.5e11,
    "no_workspace": 1e11,
    "spgemm": 2.5e11,
    "scipy": 2e10,
    "graphblas": 1e11,
}
