"""Inference of the Sparse DNN Graph Challenge: which images still live after all layers, and how fast.

`run` checks and chooses; the variants are in `_plain` (with and without a workspace), `_filtered` and `_spgemm`, the
loops in `kernels.challenge*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnsparse import jit

from ._filtered import filtered
from ._job import Job
from ._plain import plain
from ._spgemm import spgemm
from .networks import Layer, Network

__all__ = ["VARIANTS", "Result", "run"]

Variant = Literal["filter", "workspace", "no_workspace", "spgemm"]
VARIANTS: tuple[Variant, ...] = ("filter", "workspace", "no_workspace", "spgemm")


@dataclass(frozen=True)
class Result:
    """What a run found, and what it took.

    Attributes
    ----------
    variant : str
    n_neurons, n_layers, n_images : int
    categories : (n,) int64
        The images whose last activations are not all 0, from 0, increasing.
    rows : (n_layers,) int64
        How many images live after each layer.
    seconds : float
        Of inference: from images in CSR and prepared layers to categories.
    prepare_seconds, read_seconds : float
        Of checking and ordering the layers; of making or reading layers and images.
    edges, work : int
        Images times weights of all layers; multiplications that the variant needs: "filter" those of images that live
        when they enter a layer, "spgemm" those of activations that are not 0, the others all.
    nbytes : int
        Most bytes of weights and activations at a time, as allocated; the images' own are not counted.
    threads : int
    """

    variant: str
    n_neurons: int
    n_layers: int
    n_images: int
    categories: NDArray[np.int64]
    rows: NDArray[np.int64]
    seconds: float
    prepare_seconds: float
    read_seconds: float
    edges: int
    work: int
    nbytes: int
    threads: int

    @property
    def rate(self) -> float:
        """Edges per second of inference: the challenge's figure."""
        return self.edges / self.seconds

    @property
    def work_rate(self) -> float:
        """Multiplications really needed per second of inference."""
        return self.work / self.seconds

    @property
    def total_rate(self) -> float:
        """Edges per second of reading, preparing and inference together."""
        return self.edges / (self.seconds + self.prepare_seconds + self.read_seconds)


def run(
    network: Network,
    images: Any,
    *,
    variant: Variant = "filter",
    batch: int | None = None,
    memory: int = 4 << 30,
    reorder: bool = False,
    progress: bool = True,
) -> Result:
    """Lead images through a network: Y = min(max(Z + bias, 0), 32), Z = Y·W, the bias only where Z is not 0.

    Parameters
    ----------
    network : Network
        Any weights; of `networks.network`, `tsv.folder`, or made from layers of one's own.
    images : scipy.sparse matrix (n_images, n_neurons), or an iterable of such
        Real numbers, each matrix some of the images; duplicates add up.
    variant : str
        - "filter": images whose activations have all become 0 leave, and the others are packed together;
        - "workspace": all images, in memory that is used again for every layer;
        - "no_workspace": all images, new memory for every layer, as the product of a library allocates it;
        - "spgemm": sparse activations times sparse weights.
    batch : int, optional
        The most images at a time; by default what `memory` allows. No result depends on it.
    memory : int
        Bytes for weights and activations.
    reorder : bool
        Whether to compute neurons that have inputs in common side by side, which loads these once for all of them;
        found by comparing the inputs of each neuron with those of the others, in any network ("spgemm" does not care).
        Off, because the challenge wants general sparse matrices: there its networks, of whose neurons 16 each have the
        same inputs, gain a factor of about two from nothing else.
    progress : bool
        Whether to show how far it is, where somebody looks.

    Returns
    -------
    Result
        The same on any number of threads.

    Raises
    ------
    TypeError
        If an argument, a layer's or an image's array is of the wrong type.
    ValueError
        If the variant is unknown, the memory does not suffice for one batch, there is no image or no layer, a shape is
        wrong, an index out of range, inputs of a neuron do not increase, or a number is not finite.

    Notes
    -----
    All arithmetic is float32. Kernels are compiled, or loaded, before anything is timed.

    Source: J. Kepner et al., "Sparse Deep Neural Network Graph Challenge", HPEC 2019; variants as in the GPU study of
    the same challenge that compares them. Differences: activations are tiles of 64 images side by side, which pass
    many layers while they are in cache, and dead images are looked for after every layer.

    Examples
    --------
    >>> from nnsparse.graph_challenge import network
    >>> net = network(64, 4, bias=-0.3)
    >>> picture = sparse.csr_array(np.eye(1, 64, dtype=np.float32))
    >>> run(net, picture, progress=False).rows.tolist()
    [0, 0, 0, 0]
    """
    _check(network, variant, batch, memory)
    _rehearse(network.n_neurons, variant)
    return _run(Job(network, images, batch, memory, progress, reorder), variant)


def _check(network: Network, variant: str, batch: int | None, memory: int) -> None:
    if not isinstance(network, Network):
        raise TypeError(
            f"run expects a Network; got {type(network).__name__}. Make one with network(...), folder(...) or "
            "Network(n_neurons, n_layers, bias, layers, count)."
        )
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}; got {variant!r}.")
    for name, value in (("batch", 1 if batch is None else batch), ("memory", memory)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}: expected an integer; got {value!r}.")
        if value < 1:
            raise ValueError(f"{name}: expected at least 1; got {value}.")
    if network.n_layers < 1 or network.n_neurons < 1:
        raise ValueError(
            f"expected at least one layer and one neuron; got {network.n_layers} layers of "
            f"{network.n_neurons} neurons."
        )
    if not np.isfinite(network.bias):
        raise ValueError(f"expected a finite bias; got {network.bias}.")


def _rehearse(n: int, variant: Variant) -> None:
    """Compile or load the kernels that networks of n neurons need, by a run with one image."""
    size = 4 if n <= 2**16 else 2**16 + 1
    indptr = np.minimum(np.arange(size + 1), 4).astype(np.int64)
    layer = Layer(indptr, np.arange(4, dtype=np.int32), np.ones(4, np.float32))
    tiny = Network(size, 14, 0.0, lambda: iter([layer] * 14), lambda: 56)
    one = sparse.csr_array(([np.float32(1)], ([0], [0])), shape=(1, size))
    _run(Job(tiny, one), variant)


def _run(job: Job, variant: Variant) -> Result:
    if variant == "filter":
        nnz = filtered(job).nnz
    elif variant == "spgemm":
        nnz = spgemm(job).nnz
    else:
        nnz = plain(job, fresh=variant == "no_workspace").nnz
    edges = job.n_images * int(nnz.sum())
    entering = np.concatenate(([job.n_images], job.rows[:-1]))
    work = {"filter": int(entering @ nnz), "spgemm": job.work}.get(variant, edges)
    seconds = job.watch.seconds
    return Result(
        variant=variant,
        n_neurons=job.network.n_neurons,
        n_layers=job.network.n_layers,
        n_images=job.n_images,
        categories=np.sort(np.concatenate(job.categories)).astype(np.int64),
        rows=job.rows,
        seconds=seconds["inference"],
        prepare_seconds=seconds["prepare"],
        read_seconds=seconds["read"],
        edges=edges,
        work=work,
        nbytes=job.nbytes,
        threads=jit.get_num_threads(),
    )
