"""Pictures of sparsity: schedules, densities layer by layer, masks. They need matplotlib: `nnsparse[plot]`.

Each function draws into given axes, or into a new figure of its own, and returns the axes: `axes.figure.savefig(path)`
writes a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnsparse.nn.linear import Affine, SparseLinear
from nnsparse.nn.module import Module
from nnsparse.schedule import Schedule
from nnsparse.sparsify.context import Target
from nnsparse.sparsify.holding import alive_count
from nnsparse.topology import Topology

_POINTS = 1001  # of a schedule's curve


def plot_schedule(schedules: Mapping[str, Schedule], axes: Any = None) -> Any:
    """Draw schedules of the sparsity as curves over progress, jumps as vertical lines.

    Parameters
    ----------
    schedules : mapping of str to Schedule
        Name in the legend, and what returns the fraction of zeros at progress 0 to 1.
    axes : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        If `schedules` is no mapping, or empty.
    """
    named = _named("plot_schedule", "schedules by name, as {'AGP': cubic(0, 0.9)}", schedules)
    axes = _axes(axes)
    progress = np.linspace(0, 1, _POINTS)
    for i, (name, schedule) in enumerate(named.items()):
        percent = [100 * schedule(float(p)) for p in progress]
        axes.plot(progress, percent, _STYLES[i % len(_STYLES)], color=f"C{i % 10}", label=name)
    axes.set(xlabel="progress of training", ylabel="sparsity (%)", xlim=(0, 1), ylim=(-2, 102))
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def layer_densities(model: Module) -> dict[str, float]:
    """Return the fraction of weights that are there, by name of layer; a dense layer has 1.

    Weights that a `Sparsifier` holds at zero until the next refresh of the pattern do not count.

    Parameters
    ----------
    model : Module

    Raises
    ------
    TypeError
        If it is no Module.

    Examples
    --------
    >>> from nnsparse import nn
    >>> layer_densities(nn.mlp([10, 20, 5], sparsity=[0.9, None], rng=0))
    {'0': 0.1, '2': 1.0}
    """
    if not isinstance(model, Module):
        raise TypeError(f"expected a model (nn.Module); got {type(model).__name__}")
    return {
        name: alive_count(Target(name, layer)) / (layer.in_features * layer.out_features)
        if isinstance(layer, SparseLinear)
        else 1.0
        for name, layer in _affine(model)
    }


def plot_densities(models: Mapping[str, Module], axes: Any = None) -> Any:
    """Draw the density of each layer, one line per model, on a logarithmic scale.

    Parameters
    ----------
    models : mapping of str to Module
        Name in the legend, and the model; all with the same names of layers.
    axes : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        If `models` is no mapping, or empty, or the layers have different names.
    """
    named = _named("plot_densities", "models by name, as {'RigL': model}", models)
    series = {name: layer_densities(model) for name, model in named.items()}
    first, *others = series.items()
    for name, densities in others:
        if list(densities) != list(first[1]):
            raise ValueError(
                f"plot_densities expects models with the same layers; {first[0]!r} has {list(first[1])} and "
                f"{name!r} has {list(densities)}. Draw them into axes of their own."
            )
    axes = _axes(axes)
    for i, (name, densities) in enumerate(series.items()):
        percent = [100 * density if density else np.nan for density in densities.values()]
        axes.plot(
            range(len(percent)),
            percent,
            _STYLES[i % len(_STYLES)] + "o",
            color=f"C{i % 10}",
            label=name,
        )
    axes.set_yscale("log")
    labels = [
        f"{name}\n{layer.in_features}→{layer.out_features}"
        for name, layer in _affine(next(iter(named.values())))
    ]
    axes.set_xticks(range(len(labels)), labels)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="layer", ylabel="density (%)")
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def plot_mask(topology: Topology, axes: Any = None, *, cells: int = 256) -> Any:
    """Draw where the weights are, outputs down, inputs across, dark where they are dense.

    Parameters
    ----------
    topology : Topology
        (n_out, n_in), as `layer.weight.topology`.
    axes : matplotlib Axes, optional
    cells : int
        A side longer than this is divided into so many cells, whose density is shown.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError, ValueError
        If `topology` is none or has no positions, or `cells` is below 1.

    Notes
    -----
    Cost: O(nnz + cells²).
    """
    if not isinstance(topology, Topology):
        raise TypeError(
            f"plot_mask expects a Topology; got {type(topology).__name__}. Pass layer.weight.topology."
        )
    density = cell_densities(topology, cells)
    axes = _axes(axes)
    n_out, n_in = topology.shape
    image = axes.imshow(
        density,
        cmap="Greys",
        vmin=0.0,
        vmax=density.max() or 1.0,
        aspect="auto",
        interpolation="nearest",
        extent=(0, n_in, n_out, 0),
    )
    axes.figure.colorbar(image, ax=axes, label="density")
    axes.set(xlabel="input", ylabel="output")
    axes.set_title(f"{n_in} → {n_out}, {topology.nnz:,} weights ({topology.density:.2%})")
    return axes


def cell_densities(topology: Topology, cells: int) -> NDArray[np.float64]:
    """Return the density of each cell of a grid over the matrix, (min(n_out, cells), min(n_in, cells)).

    Parameters
    ----------
    topology : Topology
        With one position or more.
    cells : int
        Most cells on a side, at least 1; they differ by at most one row and column.

    Examples
    --------
    >>> cell_densities(Topology((2, 4), [0, 2, 3], [0, 1, 3]), cells=2)
    array([[1. , 0. ],
           [0. , 0.5]])
    """
    if isinstance(cells, bool) or not isinstance(cells, int | np.integer) or cells < 1:
        raise ValueError(f"expected cells as an integer >= 1; got {cells!r}")
    n_out, n_in = topology.shape
    if n_out * n_in == 0:
        raise ValueError(f"a mask of shape {topology.shape} has no positions to draw")
    sides = min(n_out, int(cells)), min(n_in, int(cells))
    of_row, of_column = (
        np.arange(n, dtype=np.int64) * side // n
        for n, side in zip(topology.shape, sides, strict=True)
    )
    rows, columns = topology.coo()
    counts = np.bincount(
        of_row[rows] * sides[1] + of_column[columns], minlength=sides[0] * sides[1]
    )
    sizes = np.outer(np.bincount(of_row), np.bincount(of_column))
    return np.asarray(counts.reshape(sides) / sizes)


_STYLES = ("-", "--", "-.", ":")


def _affine(model: Module) -> Iterator[tuple[str, Affine]]:
    """Yield (name, layer) for the layers with weights."""
    for name, layer in model.named_modules():
        if isinstance(layer, Affine):
            yield name, layer


def _named(who: str, what: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{who} expects {what}; got {type(given).__name__}")
    if not given:
        raise ValueError(f"{who} expects {what}; got none")
    return dict(given)


def _axes(axes: Any) -> Any:
    """Return the axes given, or those of a new figure that no window knows of."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install 'nnsparse[plot]'") from None
    return Figure(figsize=(6, 4), layout="constrained").subplots() if axes is None else axes
