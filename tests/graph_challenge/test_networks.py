"""The challenge's networks: the official files' sha256, their sizes, and what is refused."""

import hashlib
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from scipy import sparse

from nnsparse.graph_challenge import BIAS, Layer, Network, network
from nnsparse.graph_challenge.networks import bias_of, check_layer
from nnsparse.graph_challenge.tsv import layer_text

# Beginnings of the sha256 of n1024-l{k}.tsv in column-major order, and of all 120 one after the other.
OFFICIAL = {1: "48f8c5363f7f6579", 6: "fe114f5984385992", 7: "2c63b12ddca93f26"}
OFFICIAL[120] = "c37c426fefe34411"
ALL = "275d0937d95ec98b267e1f3d4751655f1d3bb5f944ecd6e458b390e15d9df07e"


def matrix(layer):
    """W (from, to)."""
    n = layer.indptr.size - 1
    return sparse.csc_array((layer.values, layer.indices, layer.indptr), shape=(n, n))


def test_all_120_layers_of_1024_neurons_are_the_official_ones():
    together = hashlib.sha256()
    for k, layer in enumerate(network(1024, 120), 1):
        text = b"".join(layer_text(layer))
        together.update(text)
        if k in OFFICIAL:
            assert hashlib.sha256(text).hexdigest().startswith(OFFICIAL[k]), k
    assert k == 120
    assert together.hexdigest() == ALL


@pytest.mark.parametrize(
    ("n_neurons", "edges"),
    [
        (1024, (3_932_160, 15_728_640, 62_914_560)),
        (4096, (15_728_640, 62_914_560, 251_658_240)),
        (16384, (62_914_560, 251_658_240, 1_006_632_960)),
        (65536, (251_658_240, 1_006_632_960, 4_026_531_840)),
    ],
)
def test_networks_have_the_official_numbers_of_edges(n_neurons, edges):
    for n_layers, nnz in zip((120, 480, 1920), edges, strict=True):
        net = network(n_neurons, n_layers)
        assert net.nnz == nnz
        assert (net.n_neurons, net.n_layers, len(net)) == (n_neurons, n_layers, n_layers)
        assert net.bias == BIAS[n_neurons]


@pytest.mark.parametrize("n_neurons", [32, 64, 1024, 4096, 16384, 65536])
def test_every_neuron_has_32_inputs_and_32_outputs_of_weight_a_sixteenth(n_neurons):
    net = network(n_neurons, 14, bias=-0.1)
    for layer in islice(net, 0, None, 13 if n_neurons > 4096 else 1):
        assert layer.indptr.dtype == np.int64
        assert layer.indices.dtype == np.int32
        assert layer.values.dtype == np.float32
        np.testing.assert_array_equal(np.diff(layer.indptr), 32)
        np.testing.assert_array_equal(np.bincount(layer.indices, minlength=n_neurons), 32)
        assert (layer.values == 1 / 16).all()
        assert (np.diff(layer.indices.reshape(n_neurons, 32), axis=1) > 0).all()
    assert net.nnz == 14 * 32 * n_neurons


def test_the_first_block_joins_every_input_with_every_output_alike():
    first, second, third = islice(map(matrix, network(128, 6, bias=0)), 3)
    np.testing.assert_array_equal((first @ second @ third).toarray() * 16**3, 32**3 / 128)


def test_later_blocks_permute_the_inputs_of_the_first_with_one_permutation_each():
    layers = [matrix(layer).toarray() for layer in network(64, 6, bias=0)]
    rng = np.random.RandomState(5489)
    for block in (1, 2):
        p = np.argsort(rng.random_sample(64))
        for k in range(2):
            permuted = np.empty_like(layers[k])
            permuted[p] = layers[k]
            np.testing.assert_array_equal(layers[2 * block + k], permuted)


def test_a_network_can_be_gone_through_again_and_a_short_one_begins_a_long_one():
    net = network(64, 5, bias=0)
    first, second = list(net), list(net)
    longer = list(network(64, 9, bias=0))
    for a, b, c in zip(first, second, longer[:5], strict=True):
        for x, y, z in zip(a, b, c, strict=True):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(x, z)
            assert not np.shares_memory(x, y)
    first[0].indptr[:] = 0  # a caller who spoils a layer spoils no other
    assert first[1].indptr[-1] == 2048


def test_layers_are_made_one_at_a_time_in_constant_memory():
    layers = iter(network(16384, 1920))
    next(layers)
    tracemalloc.start()
    for _ in range(30):
        next(layers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # two layers take 9e6 bytes


@pytest.mark.parametrize(
    ("n_neurons", "n_layers", "bias", "error", "message"),
    [
        (1000, 120, None, ValueError, r"16·2\^r neurons per layer, r >= 1; got 1000"),
        (48, 120, 0.0, ValueError, "got 48"),
        (16, 1, 0.0, ValueError, "got 16"),
        (0, 120, None, ValueError, "n_neurons from 1 to"),
        (1024, 0, None, ValueError, "n_layers from 1 to"),
        (1024.0, 120, None, TypeError, "n_neurons to be an integer; got 1024.0"),
        (1024, "120", None, TypeError, "n_layers to be an integer; got '120'"),
        (2048, 120, None, ValueError, r"1024, 4096, 16384, 65536 neurons; got 2048 .* bias="),
        (1024, 120, np.nan, ValueError, "finite bias; got nan"),
        (2**40, 120, 0.0, ValueError, "n_neurons from 1 to"),
    ],
)
def test_networks_that_do_not_exist_are_refused(n_neurons, n_layers, bias, error, message):
    with pytest.raises(error, match=message):
        network(n_neurons, n_layers, bias)


def test_a_bias_given_is_taken_and_the_official_one_is_the_default():
    assert bias_of(1024) == -0.30
    assert bias_of(1024, -1) == -1.0
    assert network(2048, 3, bias=0.5).bias == 0.5


def test_counting_happens_once_and_only_when_asked_for():
    counted = []
    net = Network(3, 1, 0.0, lambda: iter([]), lambda: counted.append(1) or 7)
    assert not counted
    assert (net.nnz, net.nnz, counted) == (7, 7, [1])


def test_a_good_layer_of_other_dtypes_is_converted():
    layer = check_layer(Layer([0, 1, 3], [1, 0, 1], [1, 2, 3]), 2)
    assert [array.dtype for array in layer] == [np.int64, np.int32, np.float32]
    np.testing.assert_array_equal(matrix(layer).toarray(), [[0, 2], [1, 3]])


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (([0, 1], [0], [1.0]), ValueError, "indptr of length"),
        (([0, 1, 3], [0, 1], [1.0, 1.0]), ValueError, "run from 0 to"),
        (([0, 2, 1], [0], [1.0]), ValueError, "never to fall"),
        (([0, 1, 1], [2], [1.0]), ValueError, "indices from 0 to"),
        (([0, 1, 1], [-1], [1.0]), ValueError, "indices from 0 to"),
        (([0, 2, 2], [1, 1], [1.0, 1.0]), ValueError, "a duplicate"),
        (([0, 2, 2], [1, 0], [1.0, 1.0]), ValueError, "unsorted"),
        (([0, 1, 1], [0.5], [1.0]), TypeError, "integer dtype"),
        (([0, 1, 1], [0], [1.0, 2.0]), ValueError, "one value per index"),
        (([0, 1, 1], [0], [np.nan]), ValueError, "finite float32 numbers; got nan at 0"),
        (([0, 1, 1], [0], [1e39]), ValueError, "finite float32"),
        (([0, 1, 1], [0], ["x"]), TypeError, "values are numbers"),
    ],
)
def test_a_layer_that_kernels_could_not_take_is_refused(layer, error, message):
    with pytest.raises(error, match=message):
        check_layer(layer, 2)
