"""A small tape: tensors that remember how they were made, and the reverse sweep over them.

Here are `Tensor`, `backward`, `grad` and `no_grad`, nothing that computes: differentiable functions live in `ops`, each
with one gradient rule written in terms of other ops, so that gradients of gradients come for free. The sweep is
iterative (networks with thousands of layers exist) and frees what it has used. `ops.arithmetic` gives `Tensor` its
operators (+, *, ...); read it next. Over 300 lines because the tensor and its sweep are one idea.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnsparse import trace
from nnsparse.row_gradient import RowGradient
from nnsparse.tiles import aligned

Array: TypeAlias = NDArray[Any]
# (gradient of the output, the output, which inputs need one) -> one gradient per input, or None
Rule: TypeAlias = Callable[["Tensor", "Tensor", tuple[bool, ...]], Sequence["Tensor | None"]]
# (the output, one tangent per input, None for zero) -> the tangent of the output; see `nnsparse.jvp`
Push: TypeAlias = Callable[..., "Tensor"]
# What forward mode is told of each op: output, inputs, rule, push, symmetric (see `record`)
Forward: TypeAlias = Callable[["Tensor", tuple["Tensor", ...], Rule, Push | None, bool], None]


class Node:
    """How a tensor was made: its inputs, their arrays, and the rule that turns its gradient into theirs."""

    __slots__ = ("arrays", "inputs", "rule")

    def __init__(self, inputs: tuple[Tensor, ...], rule: Rule) -> None:
        self.inputs = inputs
        self.arrays = tuple([i.data for i in inputs])
        self.rule: Rule | None = rule

    def check_arrays(self) -> None:
        """Refuse a gradient through arrays that are not those of the forward pass: kernels check no bounds."""
        for source, array in zip(self.inputs, self.arrays, strict=True):
            if source.data is not array:
                raise RuntimeError(
                    f"backward: a tensor of shape {source.shape} was given another array, or moved to "
                    "another topology after the forward pass that this gradient belongs to. Call "
                    "backward before; to change values, write into data[...] in place."
                )


class _Mode(threading.local):
    recording = True
    sweeps = 0
    forward: Forward | None = None


_mode = _Mode()


class Tensor:
    """An array that remembers how it was made.

    Parameters
    ----------
    data : array
        Plain: any shape. Tiled (`batch` given): (n_tiles, n_features, lanes), padded lanes zero.
    requires_grad : bool
        Whether `backward` fills `grad`.
    batch : int, optional
        True number of samples of a tiled activation; its `shape` is then (batch, n_features).

    Attributes
    ----------
    grad : array, RowGradient or None
        Filled by `backward` on leaves that require it, in the shape of `data`; `np.asarray` of it is always an array.
    """

    __slots__ = ("__weakref__", "batch", "data", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # `array * tensor` asks the tensor

    def __init__(self, data: Array, requires_grad: bool = False, batch: int | None = None) -> None:
        self.data = data
        self.requires_grad = requires_grad
        self.batch = batch
        self.grad: Any = None
        self.node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape: (batch, n_features) for an activation."""
        return self.data.shape if self.batch is None else (self.batch, self.data.shape[1])

    @property
    def ndim(self) -> int:
        """Number of logical dimensions."""
        return self.data.ndim if self.batch is None else 2

    @property
    def size(self) -> int:
        """Number of logical elements."""
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.data.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def numpy(self) -> Array:
        """Return the values: (batch, n_features) for an activation (a copy), else the array itself."""
        if self.batch is None:
            return self.data
        return self._rows() if trace.active is None else trace.section("write-back", self._rows)()

    def _rows(self) -> Array:
        n_tiles, n_features, lanes = self.data.shape
        rows: Array = self.data.transpose(0, 2, 1).reshape(n_tiles * lanes, n_features)
        return np.array(rows[: self.batch])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> float:
        """Return the only element as a Python number."""
        return float(self.numpy().item())

    def __float__(self) -> float:
        return self.item()

    def detach(self) -> Tensor:
        """Return a tensor with the same data and no history."""
        return Tensor(self.data, batch=self.batch)

    def backward(self, gradient: ArrayLike | None = None, retain_graph: bool = False) -> None:
        """Add d self / d leaf to `grad` of every leaf that requires it.

        Parameters
        ----------
        gradient : array, shape of self, optional
            Gradient of whatever is differentiated with respect to self; may be left out for a single number.
        retain_graph : bool
            Keep what the sweep needs, to sweep again.

        Notes
        -----
        The sweep reads the parameters as they are now: call it before `optimizer.step()`, not after.

        Raises
        ------
        RuntimeError
            If self has no history, or it was already used and freed.
        """
        given: set[int] = set()  # rules may hand one array to two leaves; each gets its own
        for leaf, value in sweep(self, gradient, None, retain_graph, create_graph=False):
            if leaf.grad is not None:
                leaf.grad = _added(leaf.grad, value.data)
            else:
                leaf.grad = np.array(value.data) if id(value.data) in given else value.data
            given.add(id(value.data))

    if TYPE_CHECKING:  # `ops.arithmetic` provides these
        T: Tensor

        def __add__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __radd__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __sub__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __rsub__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __mul__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __rmul__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __truediv__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __rtruediv__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __matmul__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __rmatmul__(self, other: Tensor | ArrayLike) -> Tensor: ...
        def __pow__(self, exponent: float) -> Tensor: ...
        def __neg__(self) -> Tensor: ...

        sum: Callable[..., Tensor]
        mean: Callable[..., Tensor]
        reshape: Callable[..., Tensor]

    def __repr__(self) -> str:
        made = ", requires_grad=True" if self.requires_grad else ""
        body = np.array2string(self.numpy(), threshold=20, precision=4, prefix="Tensor(")
        return f"Tensor({body}, shape={self.shape}, dtype={self.dtype}{made})"


def tensor(a: ArrayLike, requires_grad: bool = False) -> Tensor:
    """Return a plain tensor of a copy of `a`; integers and other floats become float32, float64 stays.

    Parameters
    ----------
    a : array-like of numbers
        For activations (batch, n_features).
    requires_grad : bool
        Whether `backward` should fill `grad`.
    """
    array = np.asarray(a)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor expects real numbers; got dtype {array.dtype}")
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    return Tensor(np.array(array, dtype=dtype, order="C"), requires_grad)


def no_grad() -> AbstractContextManager[None]:
    """Record nothing inside the `with` block (in this thread): no history, no memory kept for it.

    What is computed there counts as constant, in `nnsparse.jvp` too.
    """
    return unrecorded(None)


@contextmanager
def unrecorded(forward: Forward | None) -> Iterator[None]:
    """Record nothing inside the `with` block, but tell `forward` of each op."""
    before = _mode.recording, _mode.forward
    _mode.recording, _mode.forward = False, forward
    try:
        yield
    finally:
        _mode.recording, _mode.forward = before


def in_forward_mode() -> bool:
    """Return whether this thread carries tangents forward."""
    return _mode.forward is not None


def sweeps() -> int:
    """Return how many backward sweeps this thread has begun."""
    return _mode.sweeps


def recording() -> bool:
    """Return whether operations are being recorded in this thread."""
    return _mode.recording


def record(
    data: Array,
    inputs: tuple[Tensor, ...],
    rule: Rule,
    batch: int | None = None,
    push: Push | None = None,
    symmetric: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Return `data` as a tensor made from `inputs`, remembering `rule` if a gradient may be asked for.

    `push` is the same derivative forwards; with `symmetric`, of one input, `rule` itself serves: the Jacobian is its
    own transpose. Neither rule may refer to the new tensor (they receive it), so that no reference cycle arises. The
    new tensor is `out` if somebody has made it of `data` already, being of a kind of its own.
    """
    if out is None:
        out = Tensor(data, batch=batch)
    if _mode.recording:
        for t in inputs:
            if t.requires_grad:
                out.requires_grad = True
                out.node = Node(inputs, rule if trace.active is None else trace.bind(rule))
                break
    elif _mode.forward is not None:
        _mode.forward(out, inputs, rule, push, symmetric)
    return out


def grad(
    loss: Tensor,
    inputs: Sequence[Tensor],
    gradient: ArrayLike | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Any]:
    """Return d loss / d input for each input; touches no `.grad`.

    Parameters
    ----------
    loss : Tensor
        A single number, or give `gradient` of its shape.
    inputs : sequence of Tensor
        Any tensors that `loss` was made from, leaves or not.
    create_graph : bool
        Return tensors that can be differentiated again, instead of arrays.
    retain_graph : bool, optional
        Keep the history of `loss`; by default only with `create_graph`.

    Raises
    ------
    RuntimeError
        If `loss` has no history, it was already freed, or an input was not used in it.
    """
    inputs = list(inputs)
    retain = create_graph if retain_graph is None else retain_graph
    found = {id(t): g for t, g in sweep(loss, gradient, inputs, retain, create_graph)}
    for i, t in enumerate(inputs):
        if id(t) not in found:
            raise RuntimeError(
                f"grad: the loss does not depend on input {i} (shape {t.shape}), or that input "
                "does not require a gradient. Create it with requires_grad=True before use."
            )
    return [found[id(t)] if create_graph else np.asarray(found[id(t)].numpy()) for t in inputs]


def sweep(
    root: Tensor,
    gradient: ArrayLike | None,
    targets: Sequence[Tensor] | None,
    retain: bool,
    create_graph: bool,
) -> list[tuple[Tensor, Tensor]]:
    """Return (tensor, gradient) for the targets, or for all leaves if `targets` is None."""
    if _mode.forward is not None:
        raise RuntimeError(
            "backward: not inside ns.jvp, which keeps no history. For second derivatives call "
            "ns.grad(..., create_graph=True) twice, outside of it."
        )
    if not root.requires_grad:
        raise RuntimeError(
            "backward: this tensor was not made from anything that requires a gradient "
            "(computed under no_grad, or detached?)"
        )
    _mode.sweeps += 1
    wanted = None if targets is None else {id(t) for t in targets}
    found: list[tuple[Tensor, Tensor]] = []
    before = _mode.recording
    _mode.recording = create_graph
    try:
        order = _topological(root)
        gradients: dict[int, Tensor] = {id(root): _seed(root, gradient)}
        while order:
            t = order.pop()
            g = gradients.pop(id(t), None)
            if g is None:
                continue
            node = t.node
            if (node is None) if wanted is None else (id(t) in wanted):
                found.append((t, g))
            if node is None:
                continue
            if node.rule is None:
                raise RuntimeError(
                    "backward: the history of this tensor was already used and freed. "
                    "Compute the loss again, or pass retain_graph=True the first time."
                )
            node.check_arrays()
            needs = tuple([i.requires_grad for i in node.inputs])
            for source, value in zip(node.inputs, node.rule(g, t, needs), strict=True):
                if value is not None and source.requires_grad:
                    key = id(source)
                    present = gradients.get(key)
                    gradients[key] = value if present is None else accumulate(present, value)
            if not retain:
                node.rule, node.inputs, node.arrays = None, (), ()
    finally:
        _mode.recording = before
    return found


def accumulate(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b for two gradients of one tensor: same shape, same layout."""
    return record(_added(a.data, b.data), (a, b), lambda g, out, needs: (g, g), batch=a.batch)


def _added(a: Any, b: Any) -> Any:
    """Return the sum of two arrays or row gradients: of two of these, one of them."""
    total = a + b
    return total if isinstance(total, RowGradient) else np.asarray(total)


def _seed(root: Tensor, gradient: ArrayLike | None) -> Tensor:
    """Return the gradient that a sweep starts from, in the layout of `root`."""
    if gradient is None:
        if root.size != 1:
            raise RuntimeError(
                f"backward: without a gradient the tensor must be a single number; got shape "
                f"{root.shape}. Pass gradient=..., an array of that shape."
            )
        gradient = np.ones(root.shape)
    value = np.asarray(gradient, dtype=root.dtype)
    if value.shape != root.shape:
        raise ValueError(f"backward: expected a gradient of shape {root.shape}; got {value.shape}")
    if root.batch is None:
        return Tensor(np.array(value))
    n_tiles, n_features, lanes = root.data.shape
    rows = np.zeros((n_tiles * lanes, n_features), root.dtype)
    rows[: root.batch] = value
    tiled = aligned(rows.reshape(n_tiles, lanes, n_features).transpose(0, 2, 1))
    return Tensor(tiled, batch=root.batch)


def _topological(root: Tensor) -> list[Tensor]:
    """Return every tensor that `root` depends on and that requires a gradient, inputs before outputs."""
    order: list[Tensor] = []
    seen: set[int] = set()
    stack: list[tuple[Tensor, bool]] = [(root, False)]
    while stack:
        t, done = stack.pop()
        if done:
            order.append(t)
            continue
        if id(t) in seen:
            continue
        seen.add(id(t))
        if t.node is None:
            order.append(t)
            continue
        stack.append((t, True))
        stack.extend((i, False) for i in t.node.inputs if i.requires_grad and id(i) not in seen)
    return order
