"""The pictures show the figures they are made from."""

import numpy as np
import pytest

from nnsparse import Topology, nn
from nnsparse.schedule import cubic, linear
from nnsparse.sparsify import plots

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def agg():
    matplotlib.use("Agg")


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_schedules_are_drawn_in_percent_over_progress():
    axes = plots.plot_schedule({"cubic": cubic(0.0, 0.8), "linear": linear(0.5, 0.9)})
    drawn = lines(axes)
    assert list(drawn) == ["cubic", "linear"]
    assert drawn["cubic"][[0, 500, -1]].tolist() == [
        [0.0, 0.0],
        [0.5, pytest.approx(70)],
        [1.0, pytest.approx(80)],
    ]
    assert drawn["linear"][500, 1] == pytest.approx(70)
    assert axes.get_ylabel() == "sparsity (%)"


def test_densities_are_those_of_the_layers():
    model = nn.mlp([10, 20, 5], sparsity=[0.9, None], rng=0)
    dense = nn.mlp([10, 20, 5], rng=0)
    axes = plots.plot_densities({"sparse": model, "dense": dense})
    drawn = lines(axes)
    assert drawn["sparse"].tolist() == [[0, pytest.approx(10)], [1, 100]]
    assert drawn["dense"].tolist() == [[0, 100], [1, 100]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0\n10→20", "2\n20→5"]
    assert axes.get_yscale() == "log"


def test_weights_held_at_zero_do_not_count():
    model = nn.Sequential(nn.SparseLinear(4, 2, density=1.0, rng=0))
    model[0].weight.buffers["held"] = np.array([1, 0, 0, 1, 0, 0, 0, 0], np.float32)
    assert plots.layer_densities(model) == {"0": 0.25}


def test_a_layer_without_weights_leaves_a_gap_on_the_logarithmic_scale():
    model = nn.Sequential(nn.SparseLinear(4, 2, density=0.0, rng=0), nn.Linear(2, 2, rng=0))
    drawn = lines(plots.plot_densities({"net": model}))["net"]
    assert np.isnan(drawn[0, 1])
    assert drawn[1, 1] == 100


def test_a_small_mask_is_drawn_position_by_position():
    topology = Topology((2, 3), [0, 2, 3], [0, 2, 1])
    axes = plots.plot_mask(topology)
    assert axes.get_images()[0].get_array().tolist() == [[1, 0, 1], [0, 1, 0]]
    assert axes.get_title() == "3 → 2, 3 weights (50.00%)"


def test_cells_are_the_densities_of_their_blocks_even_where_sizes_do_not_divide():
    rng = np.random.default_rng(0)
    mask = rng.random((7, 11)) < 0.4
    found = plots.cell_densities(Topology.from_dense(mask), 3)
    of_row, of_column = np.arange(7) * 3 // 7, np.arange(11) * 3 // 11
    expected = [
        [mask[np.ix_(of_row == i, of_column == j)].mean() for j in range(3)] for i in range(3)
    ]
    assert found == pytest.approx(np.array(expected))


def test_an_empty_mask_is_white():
    image = plots.plot_mask(Topology.empty((4, 5))).get_images()[0]
    assert image.get_array().max() == 0
    assert image.get_clim() == (0, 1)


def test_everything_goes_into_axes_that_are_given(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots(1, 3)
    model = nn.mlp([30, 20, 5], sparsity=0.8, rng=0)
    assert plots.plot_schedule({"s": cubic(0, 0.9)}, axes[0]) is axes[0]
    assert plots.plot_densities({"m": model}, axes[1]) is axes[1]
    assert plots.plot_mask(model[0].weight.topology, axes[2]) is axes[2]
    path = tmp_path / "all.png"
    figure.savefig(path)
    assert path.stat().st_size > 1000


def test_no_window_is_opened():
    from matplotlib import pyplot

    plots.plot_mask(Topology.full((2, 2)))
    assert pyplot.get_fignums() == []


MODEL = nn.mlp([4, 3, 2], rng=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.plot_schedule(cubic(0, 1)), TypeError, "expects schedules by name"),
        (lambda: plots.plot_schedule({}), ValueError, "got none"),
        (lambda: plots.plot_densities(MODEL), TypeError, "expects models by name"),
        (lambda: plots.plot_densities({"a": 3}), TypeError, r"expected a model \(nn.Module\)"),
        (
            lambda: plots.plot_densities({"a": MODEL, "b": nn.mlp([4, 2], rng=0)}),
            ValueError,
            r"'a' has \['0', '2'\] and 'b' has \['0'\]",
        ),
        (lambda: plots.plot_mask(MODEL[0].weight), TypeError, "Pass layer.weight.topology"),
        (lambda: plots.plot_mask(Topology.empty((0, 3))), ValueError, "no positions to draw"),
        (lambda: plots.cell_densities(Topology.full((2, 2)), 0), ValueError, ">= 1; got 0"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'nnsparse\[plot\]'"):
        plots.plot_mask(Topology.full((2, 2)))
