"""compact: the same function to rounding, smaller layers, nothing left to remove."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import nn
from nnsparse.nn.module import Module
from nnsparse.sparsify.compact import compact, entries
from nnsparse.topology import Topology

ACTIVATIONS = (
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.LeakyReLU,
    lambda: nn.AllReLU(0.6, layer=0),
)


def layer(matrix, bias=None, where=None):
    """Return a sparse float64 layer with a matrix's values where it, or `where`, is not zero."""
    matrix = np.asarray(matrix, float)
    topology = Topology.from_dense(matrix if where is None else where)
    n_out, n_in = matrix.shape
    made = nn.SparseLinear(
        n_in, n_out, bias is not None, topology=topology, dtype=np.float64, rng=0
    )
    made.weight.set_canonical(matrix[topology.coo()])
    if bias is not None:
        made.bias.data[:] = bias
    return made


def shapes(model):
    return [(m.in_features, m.out_features) for m in model if hasattr(m, "in_features")]


def filled(norm, rng):
    """Give a BatchNorm1d statistics and parameters that all differ."""
    norm.running_mean[:] = rng.standard_normal(norm.num_features)
    norm.running_var[:] = rng.uniform(0.5, 2, norm.num_features)
    if norm.weight is not None:
        norm.weight.data[:] = rng.standard_normal(norm.num_features)
        norm.bias.data[:] = rng.standard_normal(norm.num_features)
    return norm


def random_net(rng, dtype=np.float64):
    """Return a network of one to four very sparse or dense layers, with all that may stand between them."""
    sizes = rng.integers(1, 14, rng.integers(2, 6))
    modules = []
    for n_in, n_out in pairwise(sizes):
        if modules:
            modules.append(ACTIVATIONS[rng.integers(len(ACTIVATIONS))]())
            if rng.random() < 0.3:
                modules.append(nn.Dropout(0.5, rng=0))
            if rng.random() < 0.4:
                norm = nn.BatchNorm1d(int(n_in), affine=bool(rng.integers(2)), dtype=dtype)
                modules.insert(len(modules) - int(rng.integers(2)), filled(norm, rng))
        has_bias, n_in, n_out = bool(rng.integers(4)), int(n_in), int(n_out)
        if rng.random() < 0.2:
            kind = (nn.Linear, nn.NumpyLinear)[rng.integers(2)]
            modules.append(kind(n_in, n_out, has_bias, dtype=dtype, rng=rng))
        else:
            density = float(rng.choice([0.0, 0.05, 0.15, 0.4, 1.0]))
            modules.append(
                nn.SparseLinear(n_in, n_out, has_bias, density=density, dtype=dtype, rng=rng)
            )
        if has_bias:
            modules[-1].bias.data[:] = rng.standard_normal(n_out)
    if rng.random() < 0.3:
        modules.append(nn.Sigmoid())
    return nn.Sequential(*modules)


def useless(model):
    """Return how many hidden units have no way in or no way out, in layers of two or more units."""
    affine = [m for m in model if isinstance(m, nn.Linear | nn.NumpyLinear | nn.SparseLinear)]
    count = 0
    for first, second in pairwise(affine):
        n = first.out_features
        rows, columns = entries(first)[0], entries(second)[1]
        missing = (np.bincount(rows, minlength=n) == 0) | (np.bincount(columns, minlength=n) == 0)
        count += int(missing.sum()) if n > 1 else 0
    return count


@given(st.integers(0, 2**32 - 1))
def test_the_function_stays_and_no_useless_unit_is_left(seed):
    rng = np.random.default_rng(seed)
    model = random_net(rng)
    x = rng.standard_normal((5, model[0].in_features))
    before = model.state_dict()
    small = compact(model)
    np.testing.assert_allclose(small.predict(x), model.predict(x), rtol=1e-12, atol=1e-12)
    assert useless(small) == 0
    assert shapes(compact(small)) == shapes(small)
    assert (shapes(small)[0][0], shapes(small)[-1][1]) == (
        shapes(model)[0][0],
        shapes(model)[-1][1],
    )
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@given(st.integers(0, 2**32 - 1))
def test_float32_networks_keep_their_function_to_rounding(seed):
    rng = np.random.default_rng(seed)
    model = random_net(rng, np.float32)
    x = rng.standard_normal((5, model[0].in_features)).astype(np.float32)
    small = compact(model)
    assert small.dtype == np.float32
    expected = model.predict(x)
    np.testing.assert_allclose(
        small.predict(x), expected, rtol=1e-4, atol=1e-4 * max(1, np.abs(expected).max())
    )


def test_a_constant_unit_is_folded_and_an_unread_one_goes():
    # Unit 0 is relu(2) = 2 for every input, unit 1 is relu(x0 + 1), unit 2 is read by nobody.
    first = layer([[0, 0], [1, 0], [3, 4]], bias=[2, 1, 5])
    last = layer([[10, 20, 0], [-1, 0, 0]], bias=[0.5, 0.25])
    small = compact(nn.Sequential(first, nn.ReLU(), last))
    assert shapes(small) == [(2, 1), (1, 2)]
    np.testing.assert_array_equal(small[0].to_scipy().toarray(), [[1, 0]])
    np.testing.assert_array_equal(small[0].bias.data, [1])
    np.testing.assert_array_equal(small[2].to_scipy().toarray(), [[20], [0]])
    np.testing.assert_array_equal(small[2].bias.data, [20.5, -1.75])
    assert small[2].nnz == 1


def test_a_negative_constant_is_cut_by_the_relu_and_makes_no_bias():
    first = layer([[0], [1]], bias=[-2, 0])
    last = layer([[10, 20]])
    small = compact(nn.Sequential(first, nn.ReLU(), last))
    assert shapes(small) == [(1, 1), (1, 1)]
    assert small[2].bias is None


def test_a_missing_bias_is_made_where_a_constant_needs_one():
    small = compact(nn.Sequential(layer([[0], [1]]), nn.Sigmoid(), layer([[10, 20]])))
    np.testing.assert_array_equal(small[2].bias.data, [5])
    assert small[0].bias is None


def test_folding_goes_on_through_the_layers_and_removing_goes_back():
    # Forwards: unit 0 of layer one is constant, so unit 0 of layer two is; backwards: unit 1 of layer two is unread,
    # so unit 1 of layer one is.
    one = layer([[0, 0], [1, 1], [1, 1]], bias=[1, 0, 0])
    two = layer([[2, 0, 0], [0, 3, 0], [0, 0, 4]], bias=[1, 0, 0])
    three = layer([[5, 0, 6]], bias=[0])
    small = compact(nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), three))
    assert shapes(small) == [(2, 1), (1, 1), (1, 1)]
    np.testing.assert_array_equal(small[4].bias.data, [15])


def test_a_layer_that_loses_all_keeps_one_unit_and_the_output_is_the_constant():
    for head in (layer(np.zeros((4, 3)), bias=[1, 2, 3, 4]), layer(np.ones((4, 3)))):
        middle = layer(np.zeros((5, 4)), bias=[1, -1, 2, 0, 0])
        last = nn.Linear(5, 2, dtype=np.float64, rng=0)
        model = nn.Sequential(head, nn.ReLU(), middle, nn.ReLU(), last)
        small = compact(model)
        assert shapes(small) == [(3, 1), (1, 1), (1, 2)]
        assert isinstance(small[4], nn.Linear)
        x = np.random.default_rng(0).standard_normal((4, 3))
        np.testing.assert_allclose(small.predict(x), model.predict(x), rtol=1e-14)


def test_stored_zeros_are_weights_and_stay():
    where = [[1, 1], [1, 1]]
    model = nn.Sequential(layer(np.zeros((2, 2)), where=where), nn.ReLU(), layer([[1, 1]]))
    small = compact(model)
    assert shapes(small) == shapes(model)
    assert small[0].nnz == 4


def test_weights_marked_as_unseen_or_held_are_gone():
    for name in ("forward", "held"):
        first, last = layer([[1, 2], [3, 4], [5, 6]], bias=[1, 1, 1]), layer([[1, 1, 1]], bias=[0])
        mask = np.array([1.0, 0, 0, 0, 1, 1])
        first.weight.buffers[name] = first.weight.planned(mask)
        if name == "held":
            first.weight.data *= first.weight.buffers[name]
        model = nn.Sequential(first, nn.ReLU(), last)
        small = compact(model)
        np.testing.assert_array_equal(small[0].to_scipy().toarray(), [[1, 0], [5, 6]])
        x = np.random.default_rng(0).standard_normal((4, 2))
        np.testing.assert_allclose(small.predict(x), model.predict(x), rtol=1e-14)


def test_batchnorm_is_cut_to_the_units_that_are_left():
    rng = np.random.default_rng(0)
    norm = filled(nn.BatchNorm1d(3, eps=0.1, momentum=0.3, dtype=np.float64), rng)
    model = nn.Sequential(
        layer([[1, 0], [0, 0], [0, 1]], bias=[1, 2, 3]), norm, nn.ReLU(), layer([[1, 1, 1]])
    )
    cut = compact(model)[1]
    assert (cut.num_features, cut.eps, cut.momentum) == (2, 0.1, 0.3)
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(norm, name)[[0, 2]])
    np.testing.assert_array_equal(cut.weight.data, norm.weight.data[[0, 2]])


def test_the_result_shares_nothing_and_trains():
    model = nn.Sequential(
        nn.BatchNorm1d(4),
        nn.SparseLinear(4, 6, density=0.3, rng=1),
        nn.ReLU(),
        nn.Linear(6, 3, rng=2),
        nn.Tanh(),
    )
    model.eval()
    small = compact(model)
    assert not any(module.training for module in small.modules())
    arrays = [p.data for p in model.parameters()] + [model[0].running_mean]
    others = [p.data for p in small.parameters()] + [small[0].running_mean]
    assert not any(np.shares_memory(a, b) for a in arrays for b in others)
    small.train()
    loss = nn.MSELoss()(small(np.ones((5, 4), np.float32)), np.zeros((5, 3), np.float32))
    loss.backward()
    assert all(p.grad is not None for p in small.parameters())


def test_nested_sequentials_are_laid_flat():
    first, last = layer([[0], [1]], bias=[1, 1]), layer([[1, 1]])
    small = compact(nn.Sequential(nn.Sequential(first, nn.ReLU()), last))
    assert [type(m).__name__ for m in small] == ["SparseLinear", "ReLU", "SparseLinear"]
    assert shapes(small) == [(1, 1), (1, 1)]


def test_models_without_hidden_units_are_copied():
    assert len(compact(nn.Sequential())) == 0
    model = nn.Sequential(nn.ReLU(), layer([[0, 0], [0, 1]], bias=[1, 2]))
    np.testing.assert_array_equal(
        compact(model).predict(np.ones((1, 2))), model.predict(np.ones((1, 2)))
    )
    assert shapes(compact(model)) == [(2, 2)]


class Mixer(Module):
    """A layer that mixes the units, as a LayerNorm does."""

    def forward(self, x):
        return x

    def __repr__(self):
        return "Mixer()"


def test_a_layer_that_mixes_units_is_named_unless_it_stands_outside():
    first, last = layer([[1], [1]]), layer([[1, 1]])
    with pytest.raises(
        TypeError, match=r"layer '0\.2', Mixer\(\), stands between two affine layers"
    ):
        compact(nn.Sequential(nn.Sequential(first, nn.ReLU(), Mixer()), last))
    assert len(compact(nn.Sequential(Mixer(), first, nn.ReLU(), last, Mixer()))) == 5
    with pytest.raises(TypeError, match="expects a Sequential; got SparseLinear"):
        compact(first)


def test_of_a_layer_that_nobody_reads_one_unit_remains_without_weights():
    first, last = layer([[1, 2], [3, 4]], bias=[1, 1]), layer([[0, 0]], bias=[5])
    small = compact(nn.Sequential(layer([[1, 1], [1, 1]]), nn.ReLU(), first, nn.ReLU(), last))
    assert shapes(small) == [(2, 1), (1, 1), (1, 1)]
    assert [module.nnz for module in small if isinstance(module, nn.SparseLinear)] == [0, 0, 0]
    assert small.predict(np.ones((1, 2))).tolist() == [[5.0]]
