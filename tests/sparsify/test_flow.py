"""SynFlow against dense float64 NumPy, and what it promises: no layer is emptied, nothing overflows."""

from itertools import pairwise

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import nn
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.criteria import magnitude
from nnsparse.sparsify.flow import synflow
from nnsparse.topology import Topology

N_IN, N_CLASSES = 23, 5


def context_of(model):
    return Context(model, targets(model))


def network(density, dtype):
    """Two targets with a dense layer between them."""
    return nn.Sequential(
        nn.SparseLinear(N_IN, 19, density=density, dtype=dtype, rng=1),
        nn.ReLU(),
        nn.Linear(19, 17, dtype=dtype, rng=2),
        nn.ReLU(),
        nn.SparseLinear(17, N_CLASSES, density=density, dtype=dtype, rng=3),
    )


def absolute(layer):
    """|W| (n_out, n_in), dense float64."""
    weight = layer.weight
    dense = weight.to_dense() if isinstance(layer, nn.SparseLinear) else weight.data
    return np.abs(dense.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("density", [0.4, 1.0])
def test_synflow_is_the_share_of_the_flow_by_finite_differences(density, dtype):
    model = network(density, dtype)
    W = [absolute(model[i]) for i in (0, 2, 4)]

    def flow(first, second, third):
        return (third @ (second @ (first @ np.ones(N_IN)))).sum()

    total = flow(*W)
    for score, (i, layer) in zip(synflow(context_of(model)), [(0, 0), (2, 4)], strict=True):
        rows, columns = model[layer].weight.topology.coo()
        assert score.dtype == np.float64
        np.testing.assert_allclose(score.sum(), 1.0, rtol=1e-12)
        for k in range(0, len(rows), 7):
            without = [w.copy() for w in W]
            without[i][rows[k], columns[k]] = 0.0  # R is linear in each weight
            np.testing.assert_allclose(
                score[k], (total - flow(*without)) / total, rtol=1e-9, atol=1e-13
            )


def rounds(model, score_of, density, n):
    """Prune to `density` of all weights in n rounds by the global rank of the scores; return the counts."""
    found = targets(model)
    size = sum(target.size for target in found)
    for k in range(1, n + 1):
        scores = score_of(Context(model, found))
        flat = np.concatenate(scores)
        keep = np.zeros(flat.size, bool)
        keep[np.argsort(-flat, kind="stable")[: round(size * density ** (k / n))]] = True
        at = 0
        for target, score in zip(found, scores, strict=True):
            rows, columns = target.topology.coo()
            mine = keep[at : at + score.size]
            at += score.size
            target.weight.move_to(
                Topology.from_coo(target.topology.shape, rows[mine], columns[mine])
            )
    return [target.nnz for target in found]


def wide_narrow_wide():
    sizes = [N_IN, 200, 60, 200, N_CLASSES]
    layers = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        shape = (n_out, n_in)
        layers += [nn.SparseLinear(n_in, n_out, topology=Topology.full(shape), rng=i), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_synflow_in_rounds_empties_no_layer_where_magnitude_does():
    # 30 of 29 600 weights: 4 layers, and a path needs one weight in each.
    counts = rounds(wide_narrow_wide(), synflow, 0.001, 100)
    assert sum(counts) == 30
    assert min(counts) >= 1
    assert min(rounds(wide_narrow_wide(), magnitude, 0.001, 100)) == 0


def test_synflow_after_heavy_pruning_still_has_a_path_from_inputs_to_outputs():
    model = wide_narrow_wide()
    rounds(model, synflow, 0.001, 100)
    flow = np.ones(N_IN)
    for layer in list(model)[::2]:
        flow = absolute(layer) @ flow
    assert flow.sum() > 0


def test_synflow_neither_overflows_nor_vanishes_in_a_very_deep_network():
    layers = [nn.SparseLinear(32, 32, density=0.5, rng=i) for i in range(400)]
    for layer in layers:
        layer.weight.data *= 100
    model = nn.Sequential(*layers)
    with np.errstate(over="ignore", invalid="ignore"):
        flow = np.ones(32)
        for layer in layers:
            flow = absolute(layer) @ flow
    assert not np.isfinite(flow).all()  # the plain closed form would fail
    for score in synflow(context_of(model)):
        np.testing.assert_allclose(score.sum(), 1.0, rtol=1e-12)


def test_synflow_of_a_network_without_a_path_is_zero_and_warns_of_nothing():
    model = nn.Sequential(
        nn.SparseLinear(4, 3, topology=Topology.from_coo((3, 4), [0], [1]), rng=0),
        nn.ReLU(),
        nn.SparseLinear(3, 2, topology=Topology.from_coo((2, 3), [0, 1], [1, 2]), rng=0),
    )
    for score, nnz in zip(synflow(context_of(model)), (1, 2), strict=True):
        np.testing.assert_array_equal(score, np.zeros(nnz))


def test_synflow_of_a_layer_used_twice_adds_up_both_uses():
    layer = nn.SparseLinear(6, 6, density=0.6, dtype=np.float64, rng=0)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    W = np.abs(layer.weight.to_dense())
    v, u = W.T @ np.ones(6), W @ np.ones(6)
    R = (W @ u).sum()
    expected = W * (np.outer(v, np.ones(6)) + np.outer(np.ones(6), u)) / R
    (score,) = synflow(Context(model, targets(model)[:1]))
    np.testing.assert_allclose(score, expected[layer.weight.topology.coo()], rtol=1e-12)


def test_synflow_takes_nested_sequentials_dropout_and_every_activation():
    inner = nn.Sequential(nn.SparseLinear(8, 8, density=0.5, rng=1), nn.LeakyReLU())
    flat = [nn.SparseLinear(4, 8, density=0.5, rng=0), nn.SparseLinear(8, 2, density=0.5, rng=2)]
    between = [nn.GELU(), nn.Tanh(), nn.Sigmoid(), nn.AllReLU(0.5, 0), nn.Dropout(0.5)]
    model = nn.Sequential(flat[0], *between, inner, flat[1])
    plain = nn.Sequential(flat[0], inner[0], flat[1])
    nested, expected = (synflow(context_of(m)) for m in (model, plain))
    for a, b in zip(nested, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_synflow_names_the_layer_that_it_cannot_take():
    inner = nn.Sequential(nn.BatchNorm1d(3))
    model = nn.Sequential(nn.SparseLinear(4, 3, density=0.5, rng=0), inner)
    with pytest.raises(TypeError, match=r"layer '1\.0' is BatchNorm1d\(3"):
        synflow(context_of(model))


def test_synflow_of_an_empty_layer_is_empty():
    model = nn.Sequential(
        nn.SparseLinear(N_IN, 8, topology=Topology.empty((8, N_IN)), rng=0),
        nn.ReLU(),
        nn.SparseLinear(8, N_CLASSES, density=0.5, rng=0),
    )
    assert [score.shape for score in synflow(context_of(model))] == [(0,), (20,)]


def test_synflow_has_the_same_bits_on_one_and_two_threads():
    model = nn.mlp([70, 300, 200, 10], sparsity=[0.9, None, 0.5], rng=0)
    before, found = ns.get_num_threads(), []
    try:
        for n in (1, 2):
            ns.set_num_threads(n)
            found.append(synflow(context_of(model)))
    finally:
        ns.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()
