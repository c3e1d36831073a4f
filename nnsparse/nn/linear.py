"""Affine layers y = W·x + b: `SparseLinear`, `Linear` on the tile product, and `NumpyLinear`, the plain baseline.

They differ only in the *structure* that multiplies (`ops.structures`). Weights have shape (out_features, in_features).
Over 300 lines because a sparse layer converts to and from everything that holds weights.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import sparse

from nnsparse import trace
from nnsparse.autograd import Tensor
from nnsparse.nn import init
from nnsparse.nn._checks import check_dtype, check_parameter, check_size, is_fit, misfit
from nnsparse.nn.module import Module
from nnsparse.ops.chain import Link, chain
from nnsparse.ops.pointwise import straight_through
from nnsparse.ops.structures import Blas, Dense, Full, Sparse, Structure, Tapped
from nnsparse.parameter import FORWARD, Parameter, SparseParameter
from nnsparse.topology import Topology, check_scipy

Array = NDArray[Any]
Seed = np.random.Generator | int | None


class Affine(Module):
    """What the affine layers share: y = W·x + b, then ReLU where `Sequential` fuses it."""

    in_features: int
    out_features: int
    weight: Parameter
    bias: Parameter | None

    @property
    @abstractmethod
    def structure(self) -> Structure:
        """Where the weights are and what multiplies with them."""

    @property
    def _n_out(self) -> int:  # type: ignore[override]
        return self.out_features

    def forward(self, x: Tensor, rectify: bool = False) -> Tensor:
        """Return W·x + b, (batch, in_features) to (batch, out_features); with `rectify`, its ReLU in the same pass."""
        link = self.link(x.shape, x.dtype, rectify)
        if trace.active is not None:
            link = link._replace(structure=trace.section("plan lookup", lambda: self.structure)())
        return chain(x, [link])

    def link(self, shape: tuple[int, ...], dtype: np.dtype[Any], rectify: bool) -> Link:
        """Return what multiplies an activation of this shape (batch, in_features) and dtype, checked."""
        if shape[1] != self.in_features:
            hint = " Features first? Pass x.T." if shape[0] == self.in_features else ""
            raise ValueError(
                f"{self._name()} expects x of shape (batch, {self.in_features}); got {shape}.{hint}"
            )
        structure, weight, bias = self.structure, self.weight, self.bias
        own = check_parameter(f"{self._name()}: weight", weight.data)
        if dtype != own:
            raise TypeError(
                f"{self._name()} has {weight.dtype} weights; got a {dtype} activation. "
                "Give all layers the same dtype."
            )
        # Somebody may have put other arrays in place of the parameters' own: kernels check no bounds.
        if not is_fit(weight.data, structure.weight_shape, own):
            raise misfit(self._name(), "weight", weight.data, structure.weight_shape, own)
        if bias is not None and not is_fit(bias.data, (structure.n_out,), own):
            raise misfit(self._name(), "bias", bias.data, (structure.n_out,), own)
        return Link(self._weights(), bias, structure, rectify)

    def _weights(self) -> Tensor:
        """Return what the forward pass multiplies with."""
        return self.weight

    def _name(self) -> str:
        return f"{type(self).__name__}({self.in_features} -> {self.out_features})"

    def __repr__(self) -> str:
        return f"{self._name()[:-1]}{'' if self.bias is not None else ', no bias'})"


class _DenseAffine(Affine):
    """A dense weight (out_features, in_features) and what its subclasses multiply it with."""

    _kind: ClassVar[type[Dense] | type[Blas]]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        who = type(self).__name__
        super().__init__()
        self.in_features = check_size(who, "in_features", in_features)
        self.out_features = check_size(who, "out_features", out_features)
        kind = check_dtype(dtype)
        shape = (self.out_features, self.in_features)
        self.weight = Parameter(init.kaiming_uniform(shape, init.generator(rng), kind))
        self.bias = Parameter(np.zeros(self.out_features, kind)) if bias else None
        self._structure = self._kind(self.out_features, self.in_features)

    @property
    def structure(self) -> Structure:
        return self._structure


@final
class Linear(_DenseAffine):
    """Dense layer on our own tile product: the same layout and threads as the sparse layers.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    bias : bool
        Whether to add a trainable bias (out_features,), zero at first.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        For the initial weights (`init.kaiming_uniform`).

    Raises
    ------
    ValueError, TypeError
        If a size is below 1 or not an integer, or the dtype is another.
    """

    _tiled = True
    _kind = Dense


@final
class NumpyLinear(_DenseAffine):
    """The same dense layer in plain NumPy: the baseline of every comparison.

    A model made only of these takes the whole batch as one tile, so that each product is one BLAS call. Parameters as
    for `Linear`.
    """

    _tiled = False
    _kind = Blas


@final
class SparseLinear(Affine):
    """Layer whose weights are sparse in storage and in arithmetic.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    bias : bool
        Whether to add a trainable dense bias (out_features,), zero at first.
    sparsity, density : float in [0, 1]
        Fraction of zeros, or of nonzeros, of a random topology with exactly round(density · size) nonzeros.
    topology : Topology
        Where the weights are, shape (out_features, in_features). Give exactly one of the three.
    dtype : float32 or float64
    rng : numpy.random.Generator, int or None
        For the topology and the initial weights (`init.sparse_kaiming_uniform`).

    Attributes
    ----------
    taps : list or None
        A list here gets what the weight's gradient is made of, pairs (d, x) of tiled arrays; it is emptied when a
        gradient begins after `zero_grad`.

    Notes
    -----
    While the topology is full, the layer runs on the dense kernels and costs what `Linear` does. A buffer
    `weight.buffers["forward"]` of zeros and ones makes the forward pass use weight · buffer, and the gradient go to all
    stored weights as if it did not; `to_dense`, `to_scipy` and `ns.compile` use it too, `state_dict` has all weights.

    Raises
    ------
    TypeError
        If not exactly one of sparsity, density and topology is given.
    ValueError
        If a size, a fraction or the topology's shape is wrong.

    Examples
    --------
    >>> layer = SparseLinear(784, 300, sparsity=0.95, rng=0)
    >>> layer
    SparseLinear(784 -> 300, nnz=11760, sparsity=0.95)
    >>> layer(np.zeros((2, 784))).shape
    (2, 300)
    """

    _tiled = True
    weight: SparseParameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        sparsity: float | None = None,
        density: float | None = None,
        topology: Topology | None = None,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("SparseLinear", "in_features", in_features)
        self.out_features = check_size("SparseLinear", "out_features", out_features)
        given = [
            n for n, v in zip(_HOW, (sparsity, density, topology), strict=True) if v is not None
        ]
        if len(given) != 1:
            raise TypeError(
                "SparseLinear expects exactly one of sparsity, density and topology; "
                f"got {' and '.join(given) or 'none'}"
            )
        kind = check_dtype(dtype)
        shape = (self.out_features, self.in_features)
        random = init.generator(rng)
        if topology is None:
            topology = Topology.random(shape, sparsity=sparsity, density=density, rng=random)
        elif not isinstance(topology, Topology):
            raise TypeError(
                f"SparseLinear expects a Topology; got {type(topology).__name__}. "
                "Topology.from_scipy and Topology.from_dense make one."
            )
        elif topology.shape != shape:
            raise ValueError(
                f"{self._name()} expects a topology of shape (out, in) = {shape}; "
                f"got {topology.shape}"
            )
        topology.sound()
        values = init.sparse_kaiming_uniform(topology, random, kind)
        self.weight = SparseParameter(topology, values)
        self.bias = Parameter(np.zeros(self.out_features, kind)) if bias else None
        self._structure: Sparse | Full | None = None
        self.taps: list[tuple[Array, Array]] | None = None
        self._tapped: Tapped | None = None

    @property
    def structure(self) -> Structure:
        """The kernels' view of the weight's present topology; its plan is built at first use."""
        structure, topology = self._structure, self.weight.topology
        if structure is None or structure.topology is not topology:
            structure = Full(topology) if topology.is_full else Sparse(topology)
            self._structure = structure
        if self.taps is None:
            self._tapped = None  # it holds the activations of a batch
            return structure
        if self._tapped is None or not self._tapped.serves(structure, self.taps):
            self._tapped = Tapped(structure, self.weight, self.taps)
        return self._tapped

    def _weights(self) -> Tensor:
        mask = self.weight.buffers.get(FORWARD)
        return self.weight if mask is None else straight_through(self.weight, mask)

    @property
    def nnz(self) -> int:
        """Number of stored weights."""
        return self.weight.topology.nnz

    @property
    def sparsity(self) -> float:
        """Fraction of weights that are not stored."""
        return self.weight.topology.sparsity

    @classmethod
    def from_dense(
        cls, linear: Linear | NumpyLinear, mask: ArrayLike | None = None
    ) -> SparseLinear:
        """Return the sparse layer with the weights of a dense one where `mask` is nonzero.

        Parameters
        ----------
        linear : Linear or NumpyLinear
            Its weights and bias are copied.
        mask : (out_features, in_features) array, optional
            Which weights to keep; by default those that are not zero.

        Raises
        ------
        TypeError, ValueError
            If `linear` is no dense layer, or the mask has another shape.
        """
        if not isinstance(linear, _DenseAffine):
            raise TypeError(f"from_dense expects Linear or NumpyLinear; got {linear!r}")
        weight = linear.weight.data
        keep = weight != 0 if mask is None else np.asarray(mask) != 0
        if keep.shape != weight.shape:
            raise ValueError(
                f"from_dense expects a mask of shape {weight.shape}, (out_features, in_features); "
                f"got {keep.shape}"
            )
        topology = Topology.from_dense(keep)
        return cls._of(topology, weight[keep], linear.bias and linear.bias.data, weight.dtype)

    @classmethod
    def from_scipy(
        cls, matrix: sparse.csr_matrix[Any] | sparse.csr_array[Any], bias: ArrayLike | None = None
    ) -> SparseLinear:
        """Return the layer with the weights of a SciPy sparse matrix (out_features, in_features).

        Stored zeros stay trainable weights; duplicates are added up. float64 stays, all else becomes float32.
        `bias` is (out_features,); None gives a layer without one.
        """
        if not sparse.issparse(matrix):
            raise TypeError(
                f"from_scipy expects a SciPy sparse matrix; got {type(matrix).__name__}"
            )
        if matrix.dtype.kind not in "fiub":
            raise TypeError(f"from_scipy expects real numbers; got dtype {matrix.dtype}")
        check_scipy(matrix)
        dtype = np.float64 if matrix.dtype == np.float64 else np.float32
        csr = sparse.csr_matrix(matrix, dtype=dtype, copy=True)
        csr.sum_duplicates()
        return cls._of(Topology.from_scipy(csr), csr.data, bias, dtype)

    @classmethod
    def _of(
        cls, topology: Topology, values: Array, bias: ArrayLike | None, dtype: DTypeLike
    ) -> SparseLinear:
        n_out, n_in = topology.shape
        layer = cls(n_in, n_out, bias is not None, topology=topology, dtype=dtype, rng=0)
        layer.weight.set_canonical(values)
        if bias is not None and layer.bias is not None:
            array = np.asarray(bias, dtype=dtype)
            if array.shape != (n_out,):
                raise ValueError(f"expected a bias of shape ({n_out},); got {array.shape}")
            layer.bias.data[:] = array
        return layer

    def to_dense(self) -> Linear:
        """Return a dense layer with the same function (a copy)."""
        layer = Linear(
            self.in_features, self.out_features, self.bias is not None, dtype=self.dtype, rng=0
        )
        layer.weight.data[...] = self.to_scipy().toarray()
        if self.bias is not None and layer.bias is not None:
            layer.bias.data[...] = self.bias.data
        return layer

    def to_scipy(self) -> sparse.csr_matrix[Any]:
        """Return the weights as a SciPy CSR matrix (out_features, in_features), a copy."""
        return self.weight.topology.to_scipy(self.weight.canonical(self._weights().data))

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, nnz={self.nnz}, sparsity={self.sparsity:.4g})"


_HOW = ("sparsity", "density", "topology")
