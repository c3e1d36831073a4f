"""RadiX-Nets: the construction written out densely, the theory's counts, and what is refused."""

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import radix
from nnsparse.radix import RadixNet
from nnsparse.topology import Topology


def by_definition(net):
    """The matrices W (from, to) as the paper writes them: powers of P, sums, Kronecker products."""
    n = net.n_nodes
    shift = np.roll(np.eye(n, dtype=int), -1, axis=1)  # node a to node a - 1
    copies = [width // n for width in net.widths]
    layer = 0
    for numbers in net.radices:
        for i, radix_ in enumerate(numbers):
            place = math.prod(numbers[:i])
            total = sum(np.linalg.matrix_power(shift, k * place) for k in range(radix_))
            yield np.kron(np.ones((copies[layer], copies[layer + 1]), int), total)
            layer += 1


def factored(n, draw):
    """A list of radices with product n."""
    numbers = []
    while n > 1:
        numbers.append(draw(st.sampled_from([k for k in range(2, n + 1) if n % k == 0])))
        n //= numbers[-1]
    return numbers


@st.composite
def nets(draw):
    n = draw(st.integers(2, 16))
    lists = [factored(n, draw) for _ in range(draw(st.integers(1, 3)))]
    if len(lists) > 1:
        lists[-1] = factored(
            draw(st.sampled_from([k for k in range(2, n + 1) if n % k == 0])), draw
        )
    depth = sum(map(len, lists))
    copies = draw(st.lists(st.integers(1, 3), min_size=depth + 1, max_size=depth + 1))
    return RadixNet(lists, [n * b for b in copies])


@given(nets())
def test_layers_are_the_sums_of_shifts_and_kronecker_products_of_the_paper(net):
    matrices = list(by_definition(net))
    layers = Topology.radix_net(net.radices, net.widths)
    assert len(layers) == len(matrices) == len(net)
    for layer, matrix in zip(layers, matrices, strict=True):
        np.testing.assert_array_equal(layer.to_dense().T, matrix)
        assert Topology(layer.shape, layer.indptr, layer.indices) == layer  # canonical


@given(nets())
def test_every_input_reaches_every_output_by_the_same_number_of_paths(net):
    paths = np.eye(net.widths[0], dtype=object)
    for layer in Topology.radix_net(net.radices, net.widths):
        paths = paths @ layer.to_dense().T.astype(object)
    assert (paths == net.n_paths).all()


@given(nets())
def test_degrees_and_density_are_those_of_the_formulas(net):
    layers = Topology.radix_net(net.radices, net.widths)
    flat = [number for numbers in net.radices for number in numbers]
    copies = [width // net.n_nodes for width in net.widths]
    for i, (layer, number) in enumerate(zip(layers, flat, strict=True)):
        assert set(layer.row_counts()) == {number * copies[i]}
        assert set(layer.column_counts()) == {number * copies[i + 1]}
        assert layer.density == pytest.approx(number / net.n_nodes)
    pairs = [a * b for a, b in pairwise(copies)]
    by_paper = sum(n * ab for n, ab in zip(flat, pairs, strict=True)) / (net.n_nodes * sum(pairs))
    assert net.density == pytest.approx(by_paper)
    assert net.nnz == sum(layer.nnz for layer in layers)


def test_a_small_net_by_hand():
    first, second = Topology.radix_net([2, 2])
    # Radix 2, places 1 and 2: inputs a and a + 1, then a and a + 2, modulo 4.
    np.testing.assert_array_equal(first.indices.reshape(4, 2), [[0, 1], [1, 2], [2, 3], [0, 3]])
    np.testing.assert_array_equal(second.indices.reshape(4, 2), [[0, 2], [1, 3], [0, 2], [1, 3]])


def test_a_flat_list_is_one_list_and_numpy_integers_are_integers():
    assert RadixNet([2, 3]) == RadixNet([[2, 3]]) == RadixNet(np.array([[2, 3]]))
    assert RadixNet((2, 3), np.array([6, 12, 6])).widths == (6, 12, 6)
    assert RadixNet([[2, 3], [3]]).n_paths == 3


def test_a_large_net_takes_memory_for_its_nonzeros_only():
    tracemalloc.start()
    (layer,) = Topology.radix_net([[2] * 16, [2]])[-1:]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert layer.nnz == 2 * 65536
    assert peak < 40e6  # a dense mask would take 4.3e9


def test_inputs_wrap_around_and_increase():
    for place in (1, 3, 9):
        rows = radix.inputs(27, 3, place, 2)
        assert rows.shape == (27, 6)
        assert (np.diff(rows, axis=1) > 0).all()
        assert set(rows[20]) == {
            (20 + k * place) % 27 + 27 * copy for k in range(3) for copy in (0, 1)
        }


@pytest.mark.parametrize(
    ("radices", "widths", "error", "message"),
    [
        ([], None, ValueError, r"lists of radices >= 2; got \[\]"),
        ([[2, 2], []], None, ValueError, r"got \[\]"),
        ([2, 1], None, ValueError, r"got \[2, 1\]"),
        ([-2], None, ValueError, r">= 2"),
        (4, None, TypeError, "radices to be a list; got 4"),
        ("22", None, TypeError, "to be a list; got '22'"),
        ([[2], 2], None, TypeError, "each list of radices to be a list; got 2"),
        ([2.0, 2], None, TypeError, "each radix to be an integer; got 2.0"),
        ([[2, 2], [6]], None, ValueError, r"radices\[1\] to divide N' = 4, .* got 6"),
        ([[2, 2], [2], [4]], None, ValueError, r"radices\[1\] to be N' = 4, .* got 2"),
        ([2, 2], [4, 4], ValueError, "3 widths for 2 radices, .* got 2"),
        ([2, 2], [4, 6, 4], ValueError, "multiples of N' = 4; got 6 at 1. Take 8"),
        ([2, 2], [4, 0, 4], ValueError, "got 0 at 1. Take 4"),
        ([2, 2], [4, -4, 4], ValueError, "got -4 at 1"),
        ([2, 2], [4, 4.5, 4], TypeError, "each width to be an integer; got 4.5"),
        ([2, 2], 4, TypeError, "widths to be a list; got 4"),
    ],
)
def test_what_is_no_radix_net_is_refused(radices, widths, error, message):
    with pytest.raises(error, match=message):
        Topology.radix_net(radices, widths)
