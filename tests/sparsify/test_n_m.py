"""N:M topologies, and 2:4 weights packed with two bits each: by hand, round trips, sizes, bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import nn, optim
from nnsparse.sparsify import Sparsifier, prunable
from nnsparse.sparsify.dynamic import sr_ste
from nnsparse.sparsify.n_m import n_m_topology, pack_2_4, unpack_2_4
from nnsparse.sparsify.units import Block, NofM
from nnsparse.topology import Topology


def test_the_largest_of_each_group_first_among_equals():
    topology = n_m_topology(
        [[1, 4, 3, 2, 5], [0, 0, 0, 0, -1], [np.nan, 1, np.nan, np.nan, np.nan]], 2, 4
    )
    expected = [[0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [1, 1, 0, 0, 1]]
    np.testing.assert_array_equal(topology.to_dense().astype(int), expected)


@given(st.integers(0, 9), st.integers(0, 20), st.integers(1, 4), st.integers(0, 4))
def test_every_group_has_n_positions_or_all_it_has(n_out, n_in, n, more):
    m = n + more
    mask = n_m_topology(np.random.default_rng(0).random((n_out, n_in)), n, m).to_dense()
    for start in range(0, n_in, m):
        assert (mask[:, start : start + m].sum(axis=1) == min(n, n_in - start)).all()


def test_scores_are_a_matrix_of_numbers():
    for bad in (np.ones(4), np.ones((2, 2), complex), [["a", "b"]]):
        with pytest.raises(ValueError, match=r"numbers of shape \(n_out, n_in\)"):
            n_m_topology(bad, 2, 4)
    with pytest.raises(ValueError, match="1 <= n <= m"):
        n_m_topology(np.ones((2, 4)), 5, 4)


def test_two_bits_per_weight_in_order_from_the_lowest():
    # Columns 1 3 | 0 2 give the codes 01 11 00 10, lowest first: 0b10_00_11_01.
    topology = Topology.from_coo((1, 8), [0, 0, 0, 0], [1, 3, 4, 6])
    packed = pack_2_4(topology, np.array([1, 2, 3, 4], np.float32))
    assert packed.metadata.tolist() == [0b10001101]
    assert packed.values.tolist() == [1, 2, 3, 4]
    assert packed.nbytes == 4 * 4 + 1


def test_a_short_last_group_is_padded_with_zeros():
    topology = n_m_topology([[1, 2, 3, 4, 5]], 2, 4)  # columns 2 3 | 4
    packed = pack_2_4(topology, np.array([7.0, 8, 9]))
    assert packed.values.tolist() == [7, 8, 9, 0]
    assert packed.metadata.tolist() == [0b01001110]
    unpacked, values = unpack_2_4(packed)
    assert unpacked == topology
    assert values.tolist() == [7, 8, 9]


@given(st.integers(0, 9), st.integers(1, 40), st.booleans(), st.integers(0, 2**32 - 1))
def test_packing_and_unpacking_is_the_identity_zeros_included(n_out, n_in, single, seed):
    rng = np.random.default_rng(seed)
    topology = n_m_topology(rng.random((n_out, n_in)), 2, 4)
    values = rng.integers(-1, 2, topology.nnz).astype(np.float32 if single else np.float64)
    packed = pack_2_4(topology, values)
    assert packed.values.dtype == values.dtype
    groups = n_out * -(-n_in // 4)
    assert packed.nbytes == groups * 2 * values.itemsize + -(-groups // 2)
    found, back = unpack_2_4(packed)
    assert found == topology
    np.testing.assert_array_equal(back, values)


def test_a_matrix_takes_half_its_values_and_two_bits_for_each():
    topology = n_m_topology(np.random.default_rng(0).random((64, 128)), 2, 4)
    assert (
        pack_2_4(topology, np.ones(topology.nnz, np.float32)).nbytes
        == 64 * 128 // 2 * 4 + 64 * 128 // 8
    )


def test_other_patterns_are_refused_with_the_place():
    topology = Topology.from_coo((2, 6), [0, 0, 0, 0, 1, 1, 1], [0, 1, 4, 5, 0, 1, 4])
    with pytest.raises(ValueError, match="2 weights in row 1, columns 4 to 5; got 1"):
        pack_2_4(topology, np.ones(7))
    with pytest.raises(ValueError, match="2 weights in row 0, columns 0 to 3; got 4"):
        pack_2_4(Topology.full((1, 4)), np.ones(4))
    with pytest.raises(ValueError, match=r"one value per position, \(2,\); got \(3,\)"):
        pack_2_4(n_m_topology(np.ones((1, 4)), 2, 4), np.ones(3))


def test_numpys_integers_will_do():
    unit = NofM(np.int64(2), np.int64(4))
    assert type(unit.n) is type(unit.m) is int
    model = prunable(nn.mlp([8, 4], rng=0))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, sr_ste(np.int64(2), np.int64(4)), 10)
    assert sparsifier.targets[0].weight.buffers["forward"].sum() == 16
    assert type(Block(np.int32(2), np.int32(3)).rows) is int
