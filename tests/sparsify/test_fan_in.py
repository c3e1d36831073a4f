"""Constant fan-in: the topology, and growth that evens out, against a dense twin; exact counts; bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import jit, nn, optim
from nnsparse.sparsify import Sparsifier, prunable
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.dynamic import srigl
from nnsparse.sparsify.fan_in import ConstantFanIn, FanInGradient, fan_in_topology
from nnsparse.sparsify.units import subset
from nnsparse.testing import to_tiles_reference
from nnsparse.topology import Topology


def test_every_neuron_gets_as_many_inputs_and_each_equally_often():
    topology = fan_in_topology((2000, 5), 2, rng=0)
    assert set(topology.row_counts()) == {2}
    # 800 expected of 2000 with probability 2/5: four standard deviations are 88.
    assert np.abs(topology.column_counts() - 800).max() < 88
    assert fan_in_topology((3, 4), 4, rng=0) == Topology.full((3, 4))
    assert fan_in_topology((3, 4), 0, rng=0) == Topology.empty((3, 4))
    assert fan_in_topology((0, 4), 2, rng=0).nnz == 0
    assert fan_in_topology((9, 30), 3, rng=1) == fan_in_topology((9, 30), 3, rng=1)
    with pytest.raises(ValueError, match="from 0 to 4"):
        fan_in_topology((3, 4), 5)
    with pytest.raises(TypeError, match="integer"):
        fan_in_topology((3, 4), 1.5)


def context(topology, d, x, lanes=16):
    """Return a context whose only layer has the weight gradient dᵀ·x, d (batch, n_out), x (batch, n_in)."""
    n_out, n_in = topology.shape
    layer = nn.SparseLinear(n_in, n_out, topology=topology, dtype=x.dtype, rng=0)
    model = nn.Sequential(layer)
    tap = to_tiles_reference(d, lanes), to_tiles_reference(x, lanes)
    return Context(model, targets(model), taps=[[tap]])


def with_gradient(topology, gradient):
    """Return a context with a given weight gradient, exactly."""
    gradient = np.asarray(gradient, np.float64)
    return context(topology, np.eye(len(gradient)), gradient)


def test_each_neuron_grows_its_own_largest_gradients():
    kept = Topology.from_dense([[1, 0, 0, 0], [1, 1, 0, 0]])
    c = with_gradient(kept, [[9, -3, 2, 4], [1, 1, 0, -7]])
    grown, values = FanInGradient()(c, 0, kept, 3)  # 3 + 3 weights: fan-in 3 for both
    np.testing.assert_array_equal(grown.to_dense().astype(int), [[0, 1, 0, 1], [0, 0, 0, 1]])
    assert values == 0.0


def test_the_emptiest_are_filled_first_and_the_first_ones_get_what_is_left():
    kept = Topology.from_dense([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    c = with_gradient(kept, np.ones((4, 4)))
    for k, counts in ((1, [0, 1, 0, 0]), (2, [0, 1, 1, 0]), (4, [0, 2, 2, 0]), (7, [1, 3, 3, 0])):
        assert FanInGradient()(c, 0, kept, k)[0].row_counts().tolist() == counts
    # Equal gradients: the lower positions.
    assert FanInGradient()(c, 0, kept, 2)[0].indices.tolist() == [1, 1]


def test_neurons_without_weights_stay_so_unless_there_are_no_others():
    empty = Topology.empty((2, 3))
    c = with_gradient(empty, [[1, 2, 3], [3, 2, 1]])
    grown, _ = FanInGradient()(c, 0, empty, 2)
    np.testing.assert_array_equal(grown.to_dense().astype(int), [[0, 0, 1], [1, 0, 0]])


def test_a_weight_that_was_just_dropped_returns_with_its_value_or_not_at_all():
    stored = Topology.from_dense([[1, 1, 1, 0]])
    kept = Topology.from_dense([[1, 0, 0, 0]])
    c = with_gradient(stored, [[0, 5, 1, 2]])
    c.targets[0].weight.set_canonical([10, 20, 30])
    grown, values = FanInGradient()(c, 0, kept, 2)
    assert (grown.indices.tolist(), values.tolist()) == ([1, 3], [20, 0])
    grown, values = FanInGradient(returning=False)(c, 0, kept, 1)
    assert (grown.indices.tolist(), values) == ([3], 0.0)


def test_a_nan_grows_last():
    kept = Topology.from_dense([[1, 0, 0, 0]])
    c = with_gradient(kept, [[0, np.nan, 0, 1]])
    # A NaN in x reaches only its own column here.
    grown, _ = FanInGradient()(c, 0, kept, 2)
    assert grown.indices.tolist() == [2, 3]


def twin(kept, gradient, k):
    """Give one weight after the other to the emptiest neuron, the first among equals."""
    counts, mask = kept.row_counts().copy(), kept.to_dense()
    alive = counts > 0 if counts.any() else counts >= 0
    for _ in range(k):
        room = alive & (counts < kept.shape[1])
        row = min(np.flatnonzero(room), key=lambda r: counts[r])
        counts[row] += 1
    grown = np.zeros(kept.shape, bool)
    for row in range(kept.shape[0]):
        free = np.flatnonzero(~mask[row])
        order = sorted(free, key=lambda j: (-abs(gradient[row, j]), j))
        grown[row, order[: counts[row] - mask[row].sum()]] = True
    return Topology.from_dense(grown)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_growth_equals_the_twin(seed, single):
    rng = np.random.default_rng(seed)
    n_out, n_in, batch = (int(rng.integers(1, n)) for n in (12, 20, 40))
    kept = Topology.random((n_out, n_in), density=float(rng.uniform(0, 0.8)), rng=rng)
    dtype = np.float32 if single else np.float64
    # Small integers: sums are exact and ties are many.
    d, x = (rng.integers(-1, 2, (batch, n)).astype(dtype) for n in (n_out, n_in))
    alive = kept.row_counts() > 0 if kept.nnz else np.ones(n_out, bool)
    k = int(rng.integers(0, alive.sum() * n_in - kept.nnz + 1))
    c = context(kept, d, x)
    grown, values = FanInGradient()(c, 0, kept, k)
    assert grown == twin(kept, d.T @ x, k)
    assert values == 0.0


def test_dropping_and_growing_keeps_the_fan_in_constant_with_real_gradients():
    topology = fan_in_topology((30, 50), 10, rng=0)
    layer = nn.SparseLinear(50, 30, topology=topology, rng=0)
    model = nn.Sequential(layer)
    layer.taps = []
    x = np.random.default_rng(0).standard_normal((20, 50)).astype(np.float32)
    nn.CrossEntropyLoss()(model(x), np.arange(20) % 30).backward()
    c = Context(model, targets(model), taps=[layer.taps])
    found = []
    for threads in (1, 2):
        jit.set_num_threads(threads)
        mask = ConstantFanIn(uneven=True).keep(c.targets[0], np.abs(c.targets[0].canonical()), 210)
        kept = subset(topology, mask)
        grown, _ = FanInGradient()(c, 0, kept, 300 - kept.nnz)
        assert set((kept | grown).row_counts()) == {10}
        found.append(kept | grown)
    assert found[0] == found[1]
    assert found[0] != topology


def test_missing_gradients_and_missing_room_are_named():
    kept = Topology.from_dense([[1, 0], [0, 0]])
    c = with_gradient(kept, np.ones((2, 2)))
    with pytest.raises(
        ValueError, match=r"layer '0' that have weights have room for 1 more; got k=2"
    ):
        FanInGradient()(c, 0, kept, 2)
    bare = Context(c.model, c.targets)
    with pytest.raises(ValueError, match=r"needs that of layer '0': set layer\.taps"):
        FanInGradient()(bare, 0, kept, 1)


def test_what_belongs_to_another_layer_is_refused_before_a_kernel_sees_it():
    kept = Topology.from_dense([[1, 0, 0], [0, 1, 0]])
    c = with_gradient(kept, np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"expects a topology of shape \(2, 3\)"):
        FanInGradient()(c, 0, Topology.empty((3, 2)), 1)
    d, x = c.taps[0][0]
    for tap in ((x, d), (d, x[:, :, :8]), (d, x[:, :2])):
        with pytest.raises(ValueError, match=r"expects taps \(d, x\) of \(2, 3\) features"):
            FanInGradient()(Context(c.model, c.targets, taps=[[tap]]), 0, kept, 1)


def test_a_full_layer_with_a_weak_output_goes_on_growing():
    model = prunable(nn.mlp([24, 40, 6], rng=0))
    model[2].weight.data[:40] *= 1e-3  # of the first output: none is salient
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, srigl(0.5, every=2), 10)
    assert model[2].nnz == 240
    x, y = np.random.default_rng(0).standard_normal((32, 24)), np.arange(32) % 6
    for _ in range(10):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(model(x.astype(np.float32)), y).backward()
        if not sparsifier.replaces_step:
            optimizer.step()
        sparsifier.step()
    assert sparsifier.report().nnz == 600
    assert model[2].nnz == 240
