"""One layer's training step as each rival computes it: the forward product and both gradients.

Every rival gets the same weights and activations, keeps them in the layout that suits it best
(converted before the clock starts), and gives its results back in one layout for the check against
float64. Bias and activation function are left out: not every rival can fuse them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._layer import LayerStep, Problem
from benchmarks._plain import LAYOUTS, Plain
from nnsparse import plan as plans
from nnsparse import tiles
from nnsparse.ops.structures import Blas, Dense, Sparse, Structure

Array = NDArray[Any]


# ---------------------------------------------------------------- nnsparse and NumPy


def _to_tiles(a: Array, lanes: int) -> Array:
    """Return (n, batch) as zero-padded tiles (n_tiles, n, lanes)."""
    n, batch = a.shape
    n_tiles = tiles.n_tiles(batch, lanes)
    padded = np.zeros((n, n_tiles * lanes), a.dtype)
    padded[:, :batch] = a
    out = tiles.empty((n_tiles, n, lanes), a.dtype)
    out[...] = padded.reshape(n, n_tiles, lanes).transpose(1, 0, 2)
    return out


def _structured(
    p: Problem, structure: Structure, w: Array, lanes: int, weights: Callable[[Array], Array]
) -> LayerStep:
    """Return the calls made in a training step of a layer without bias."""
    batch = p.x.shape[1]
    x, d, w = _to_tiles(p.x, lanes), _to_tiles(p.d, lanes), tiles.aligned(w)

    def plain(result: Array) -> Array:
        rows: Array = result.transpose(1, 0, 2).reshape(result.shape[1], -1)
        return rows[:, :batch]

    return LayerStep(
        partial(structure.forward, w, x, batch, None, False),
        partial(structure.transposed, w, d),
        partial(structure.gradient, d, x),
        plain,
        weights,
    )


def sparse_tiles(
    p: Problem, slab: int | None = None, quads: bool | None = None, lanes: int | None = None
) -> LayerStep:
    """nnsparse: the sparse kernels on tiles, with slabs, quads and lanes as chosen, or forced."""
    structure = Sparse(p.topology)
    if slab is not None or quads is not None:
        structure.plan = plans.build(p.topology, slab, quads)
    order = plans.positions(p.topology, slab)
    values = np.empty_like(p.values)
    values[order] = p.values
    lanes = lanes or tiles.pick_lanes(p.x.shape[1])
    return _structured(p, structure, values, lanes, lambda g: g[order])


def dense_tiles(p: Problem) -> LayerStep:
    """Our dense product on the same tiles."""
    structure = Dense(*p.topology.shape)
    lanes = tiles.pick_lanes(p.x.shape[1])
    return _structured(p, structure, p.dense, lanes, lambda g: g[p.topology.coo()])


def numpy_dense(p: Problem) -> LayerStep:
    """NumPy, one BLAS call per product: the whole batch is one tile."""
    structure = Blas(*p.topology.shape)
    return _structured(p, structure, p.dense, p.x.shape[1], lambda g: g[p.topology.coo()])


# ---------------------------------------------------------------- plain kernels and SciPy


def plain(p: Problem, layout: str) -> LayerStep:
    """Our plain loops over a layout of `_plain`."""
    structure = Plain(p.topology, layout)
    values = p.values[structure.order]
    return _structured(p, structure, values, p.x.shape[1], structure.canonical)


plain_csr, plain_csc, plain_coo = (partial(plain, layout=layout) for layout in LAYOUTS)


def _csr_pair(p: Problem) -> tuple[Any, Any, Callable[[], Any]]:
    """Return W and Wᵀ as SciPy's CSR, and the call that refreshes the values of Wᵀ."""
    w: Any = p.topology.to_scipy(p.values)
    order = p.topology.csc()[2]
    w_t: Any = p.topology.transpose().to_scipy(p.values[order])
    # Mode "raise" would go through a buffer.
    return w, w_t, lambda: np.take(w.data, order, out=w_t.data, mode="clip")


def _dense_weight_gradient(p: Problem) -> Callable[[], Array]:
    """Return NumPy's dense d·xᵀ and its entries at the nonzeros, for who has no sampled product."""
    rows, columns = p.topology.coo()
    flat = rows.astype(np.int64) * p.topology.shape[1] + columns
    product = np.empty(p.topology.shape, np.float32)

    def weight_gradient() -> Array:
        np.matmul(p.d, p.x.T, out=product)
        return product.ravel().take(flat)

    return weight_gradient


def scipy_csr(p: Problem) -> LayerStep:
    """SciPy: CSR for both products, Wᵀ's values refreshed; the weight gradient is NumPy's."""
    w, w_t, refresh = _csr_pair(p)

    def input_gradient() -> Any:
        refresh()
        return w_t @ p.d

    return LayerStep(lambda: w @ p.x, input_gradient, _dense_weight_gradient(p))


def mkl_csr(p: Problem) -> LayerStep:
    """MKL's CSR times dense through sparse_dot_mkl, into ready memory; the rest as for SciPy."""
    dot = import_module("sparse_dot_mkl").dot_product_mkl
    w, w_t, refresh = _csr_pair(p)
    out, dx = np.zeros_like(p.d), np.zeros_like(p.x)

    def input_gradient() -> Any:
        refresh()
        return dot(w_t, p.d, out=dx, out_scalar=0.0)

    return LayerStep(
        lambda: dot(w, p.x, out=out, out_scalar=0.0), input_gradient, _dense_weight_gradient(p)
    )


# ---------------------------------------------------------------- torch


def torch_dense(p: Problem) -> LayerStep:
    """Torch's dense product, results written to ready memory."""
    torch = import_module("torch")
    w, x, d = (torch.from_numpy(a) for a in (p.dense, p.x, p.d))
    out, dx, dw = torch.empty_like(d), torch.empty_like(x), torch.empty_like(w)
    return LayerStep(
        lambda: torch.mm(w, x, out=out),
        lambda: torch.mm(w.T, d, out=dx),
        lambda: torch.mm(d, x.T, out=dw),
        lambda r: r.numpy(),
        lambda r: r.numpy()[p.topology.coo()],
    )


def torch_sparse(p: Problem) -> LayerStep:
    """torch.sparse CSR (MKL where torch has it), Wᵀ's values refreshed, sampled_addmm."""
    torch = import_module("torch")
    x, d = torch.from_numpy(p.x), torch.from_numpy(p.d)
    indptr, rows, order = p.topology.csc()

    def matrix(indptr: Array, indices: Array, values: Array, shape: tuple[int, int]) -> Any:
        # 32 bits are MKL's own width; 64-bit indices measured the same.
        arrays = (np.array(a, np.int32) for a in (indptr, indices))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "CSR tensor support is in beta state"
            return torch.sparse_csr_tensor(
                *map(torch.from_numpy, arrays), torch.from_numpy(values.copy()), shape
            )

    shape = p.topology.shape
    w = matrix(*p.topology.csr(), p.values, shape)
    w_t = matrix(indptr, rows, p.values[order], shape[::-1])
    values, values_t, gather = w.values(), w_t.values(), torch.from_numpy(order)
    out, dx = torch.empty_like(d), torch.empty_like(x)

    def input_gradient() -> Any:
        torch.index_select(values, 0, gather, out=values_t)
        return torch.mm(w_t, d, out=dx)

    return LayerStep(
        lambda: torch.mm(w, x, out=out),
        input_gradient,
        # Into ready memory it is 15 % slower.
        lambda: torch.sparse.sampled_addmm(w, d, x.T, beta=0.0),
        lambda r: r.numpy(),
        lambda r: r.values().numpy(),
    )


# ---------------------------------------------------------------- the list


@dataclass(frozen=True)
class Rival:
    """How to set a rival up from its problem, one line for the reader, and the package it needs."""

    make: Callable[[Any], Any]
    note: str
    package: str | None = None


_TRANSPOSED = "Wᵀ is a second CSR matrix, its values refreshed by one timed gather through an index"
RIVALS: Mapping[str, Rival] = {
    "nnsparse": Rival(sparse_tiles, "sparse kernels on batch tiles, as a training step calls them"),
    "dense": Rival(dense_tiles, "our dense product on the same tiles"),
    "numpy": Rival(numpy_dense, "dense, one BLAS call per product on (features, batch) arrays"),
    "scipy": Rival(
        scipy_csr,
        f"CSR @ dense on one thread (SciPy has no other); {_TRANSPOSED}; SciPy has no sampled "
        "product: the weight gradient is NumPy's dense product, then its entries at the nonzeros",
    ),
    "csr": Rival(plain_csr, "our plain loops over CSR, checks of the arguments included"),
    "csc": Rival(plain_csc, "the same over CSC"),
    "coo": Rival(plain_coo, "the same over COO"),
    "torch": Rival(torch_dense, "dense, torch.mm into ready memory", "torch"),
    "torch-sparse": Rival(
        torch_sparse,
        f"sparse CSR with 32-bit indices; {_TRANSPOSED}; weight gradient by "
        "torch.sparse.sampled_addmm",
        "torch",
    ),
    "mkl": Rival(
        mkl_csr,
        f"MKL's sparse CSR times dense (`sparse_dot_mkl`) into ready memory; {_TRANSPOSED}; weight "
        "gradient as for SciPy",
        "sparse_dot_mkl",
    ),
}
# Where the name to install is not the name to import.
_TO_INSTALL = {
    "sklearn": "scikit-learn",
    "sparse_dot_mkl": "sparse_dot_mkl mkl",
    "graphblas": "python-graphblas[default]",
}


def available(
    names: tuple[str, ...], rivals: Mapping[str, Rival] | None = None
) -> tuple[tuple[str, ...], list[str]]:
    """Return the rivals whose packages can be imported, and a line for each of the others.

    `rivals` is the list that the names are of, by default that of the layer step.
    """
    rivals = RIVALS if rivals is None else rivals
    present, skipped = [], []
    for name in names:
        package = rivals[name].package
        try:
            if package:
                import_module(package)
        except ImportError as error:
            install = _TO_INSTALL.get(package, package)
            skipped.append(f"{name} skipped ({error}); to have it: pip install {install}")
        else:
            present.append(name)
    return tuple(present), skipped


def installed(
    names: tuple[str, ...], rivals: Mapping[str, Rival] | None = None
) -> tuple[dict[str, Rival], list[str]]:
    """Return the rivals that can be imported, by name, and a line for each of the others.

    Raises
    ------
    ValueError
        If there is none.
    """
    present, skipped = available(names, rivals)
    if not present:
        raise ValueError("none of the rivals is installed: " + "; ".join(skipped))
    return {name: (RIVALS if rivals is None else rivals)[name] for name in present}, skipped


def described(rivals: Mapping[str, Rival], skipped: list[str]) -> dict[str, Any]:
    """Return what a result says about its rivals."""
    notes = {name: rival.note for name, rival in rivals.items()}
    return {"notes": notes, "skipped": skipped}
