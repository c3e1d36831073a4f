"""Units: which weights stay, by hand-worked tables and against obvious twins; exact counts; bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import nn
from nnsparse.sparsify.context import Target
from nnsparse.sparsify.fan_in import ConstantFanIn
from nnsparse.sparsify.units import Block, Neuron, NofM, Weight, subset
from nnsparse.testing import random_topology
from nnsparse.topology import Topology


def target(topology):
    n_out, n_in = topology.shape
    return Target("hidden", nn.SparseLinear(n_in, n_out, topology=topology, rng=0))


def kept(unit, scores, k, topology=None):
    """Keep by a matrix of scores (0 where nothing is stored): return the matrix of what stays."""
    scores = np.asarray(scores, float)
    topology = Topology.full(scores.shape) if topology is None else topology
    mask = unit.keep(target(topology), scores[topology.coo()], k)
    assert mask.dtype == bool
    return subset(topology, mask).to_dense().astype(int).tolist()


# ---------------------------------------------------------------- single weights


def test_weight_keeps_exactly_k_ties_by_position_and_nan_last():
    assert kept(Weight(), [[1, 2, 2], [2, np.nan, 0]], 2) == [[0, 1, 1], [0, 0, 0]]
    assert kept(Weight(), [[1, 2, 2], [2, np.nan, 0]], 5) == [[1, 1, 1], [1, 0, 1]]
    assert kept(Weight(), [[-np.inf, np.nan]], 1) == [[1, 0]]
    assert kept(Weight(), [[1, 2]], 0) == [[0, 0]]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_weight_keeps_the_first_k_of_a_stable_sort(seed, whole):
    rng = np.random.default_rng(seed)
    topology = random_topology(rng, 20, 30)
    scores = rng.integers(-3, 4, topology.nnz) if whole else rng.standard_normal(topology.nnz)
    k = int(rng.integers(0, topology.nnz + 1))
    expected = np.zeros(topology.nnz, bool)
    expected[sorted(range(topology.nnz), key=lambda i: (-scores[i], i))[:k]] = True
    np.testing.assert_array_equal(Weight().keep(target(topology), scores, k), expected)


# ---------------------------------------------------------------- N of M


def test_two_of_four_keeps_the_two_best_of_each_group_and_pads_the_last():
    scores = [[1, 4, 3, 2, 9, 8, 7], [5, 5, 5, 5, 0, 1, 2]]
    expected = [[0, 1, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1, 1]]
    assert kept(NofM(2, 4), scores, 8) == expected
    assert NofM(2, 4).count(Topology.full((2, 7))) == 8
    assert NofM(2, 4).count(Topology.full((3, 5))) == 3 * (2 + 1)


def test_groups_with_n_weights_or_fewer_keep_them_all():
    topology = Topology.from_coo((1, 8), [0, 0, 0, 0], [0, 4, 5, 7])
    assert kept(NofM(2, 4), [[-1, 0, 0, 0, 3, 1, 0, 2]], 3, topology) == [[1, 0, 0, 0, 1, 0, 0, 1]]
    assert NofM(2, 4).count(topology) == 3
    assert NofM(4, 4).count(topology) == topology.nnz
    assert NofM(1, 3).count(Topology.empty((3, 4))) == 0


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_the_count_is_what_keep_keeps_and_no_group_has_more_than_n(n, more, seed):
    rng = np.random.default_rng(seed)
    topology, unit = random_topology(rng, 12, 40), NofM(n, n + more)
    mask = unit.keep(target(topology), rng.standard_normal(topology.nnz), unit.count(topology))
    dense = np.zeros((topology.shape[0], -(-topology.shape[1] // unit.m) * unit.m), int)
    dense[:, : topology.shape[1]] = subset(topology, mask).to_dense()
    assert dense.reshape(-1, unit.m).sum(axis=1).max(initial=0) <= n


def test_n_of_m_refuses_another_count_and_impossible_patterns():
    with pytest.raises(ValueError, match=r"keeps 8 weights of layer 'hidden'; got k=7.*unit.count"):
        kept(NofM(2, 4), np.ones((2, 7)), 7)
    for n, m in ((5, 4), (0, 4), (-1, 4)):
        with pytest.raises(ValueError, match=f"1 <= n <= m.*got n={n}, m={m}"):
            NofM(n, m)
    with pytest.raises(TypeError, match=r"expects n as an integer; got 2\.0"):
        NofM(2.0, 4)


# ---------------------------------------------------------------- neurons and blocks


def test_neuron_keeps_the_best_rows_that_fit_into_k():
    scores = [[1, 1, 1], [9, 0, 0], [2, 2, 2]]  # sums 3, 9, 6
    assert kept(Neuron(), scores, 9) == [[1, 1, 1]] * 3
    assert kept(Neuron(), scores, 8) == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert kept(Neuron(), scores, 6) == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert kept(Neuron(), scores, 5) == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert kept(Neuron(), scores, 1) == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]  # one stays at least
    assert kept(Neuron(), scores, 0) == [[0, 0, 0]] * 3


def test_rows_are_taken_best_first_and_not_beyond_the_first_that_does_not_fit():
    topology = Topology.from_dense([[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0]])
    scores = [[9, 0, 0], [2, 2, 2], [0, 0, 0], [0, 1, 0]]
    assert kept(Neuron(), scores, 3, topology) == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert kept(Neuron(), scores, 4, topology) == [[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_equal_rows_go_by_position_and_a_nan_is_last():
    assert kept(Neuron(), [[1, 2], [2, 1], [3, 0]], 4) == [[1, 1], [1, 1], [0, 0]]
    assert kept(Neuron(), [[np.nan, 99], [-5, -5], [-9, -9]], 4) == [[0, 0], [1, 1], [1, 1]]


def test_blocks_are_kept_whole_and_those_at_the_edge_are_smaller():
    scores = np.array(
        [[1, 1, 5, 5, 0], [1, 1, 5, 5, 9], [3, 3, 0, 0, 2]]
    )  # sums 4, 20, 9 / 6, 0, 2
    assert kept(Block(2, 2), scores, 6) == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert kept(Block(2, 2), scores, 8) == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert kept(Block(2, 2), scores, 9) == kept(Block(2, 2), scores, 8)
    assert kept(Block(3, 1), scores, 3) == [[0, 0, 0, 0, 1]] * 3
    assert kept(Block(1, 1), scores, 3) == kept(Weight(), scores, 3)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_block_is_all_there_or_not_at_all_and_k_is_not_exceeded(rows, cols, seed):
    rng = np.random.default_rng(seed)
    topology = random_topology(rng, 12, 20)
    k = int(rng.integers(0, topology.nnz + 1))
    unit = Block(rows, cols)
    mask = unit.keep(target(topology), rng.standard_normal(topology.nnz), k)
    groups = unit.groups(topology)
    shares = [mask[groups == g].mean() for g in np.unique(groups)]
    assert set(shares) <= {0.0, 1.0}
    assert mask.sum() <= k or sum(shares) == 1
    assert mask.any() == (k > 0)


def test_blocks_without_extent_are_refused():
    with pytest.raises(ValueError, match="cols >= 1; got 0"):
        Block(2, 0)
    with pytest.raises(TypeError, match=r"rows as an integer; got 1\.5"):
        Block(1.5, 2)


# ---------------------------------------------------------------- constant fan-in

SCORES = [[9, 8, 7, 1], [6, 5, 2, 0], [4, 1, 1, 1], [3, 0, 0, 0]]


def test_constant_fan_in_gives_each_neuron_the_same_number():
    # Salient: the 8 best, 3 + 3 + 1 + 1. f = 8 // 4 = 2, needed: max(1, ⌊0.3 · 2⌋) = 1.
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert kept(ConstantFanIn(), SCORES, 8) == expected


def test_neurons_with_too_few_salient_weights_go_and_the_others_share_what_they_had():
    # As above, but two salient weights are needed: rows 2 and 3 have one each, so 8 // 2 = 4 for rows 0 and 1.
    assert kept(ConstantFanIn(1.0), SCORES, 8) == [[1, 1, 1, 1], [1, 1, 1, 1], [0] * 4, [0] * 4]
    # Only the salient ones for growth to fill up, where two rows have room for all 16.
    wide = Topology.from_dense([[1] * 4 + [0] * 4] * 4)
    mask = ConstantFanIn(1.0, uneven=True).keep(target(wide), np.ravel(SCORES), 8)
    assert mask.reshape(4, 4).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0] * 4, [0] * 4]


def test_neurons_come_back_while_the_others_lack_room_for_what_grows():
    unit = ConstantFanIn(1.0, uneven=True)
    # Six inputs, 16 weights: three rows are needed. Rows 2 and 3 have one salient weight each, row 2 the larger one.
    six = Topology.from_dense([[1] * 4 + [0] * 2] * 4)
    mask = unit.keep(target(six), np.ravel(SCORES), 8)
    assert mask.reshape(4, 4).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0] * 4]
    # A full layer needs all of them; row 3, without a salient weight, keeps its best one.
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert kept(unit, SCORES, 6) == expected
    # Row 3 has no salient weight among the six best: 6 // 3.
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert kept(ConstantFanIn(0.0), SCORES, 6) == expected


def test_constant_fan_in_with_less_than_one_weight_per_neuron():
    assert kept(ConstantFanIn(), SCORES, 1) == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert kept(ConstantFanIn(), SCORES, 0) == [[0] * 4] * 4


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_pruning_a_full_layer_gives_one_fan_in_to_all_that_stay(seed, min_salient):
    rng = np.random.default_rng(seed)
    topology = Topology.full((int(rng.integers(1, 12)), int(rng.integers(1, 12))))
    k = int(rng.integers(1, topology.nnz + 1))
    mask = ConstantFanIn(min_salient).keep(target(topology), rng.standard_normal(topology.nnz), k)
    counts = subset(topology, mask).row_counts()
    assert 0 < mask.sum() <= k
    assert len(set(counts[counts > 0])) == 1


def test_the_salient_share_is_a_fraction():
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"min_salient in \[0, 1\]"):
            ConstantFanIn(bad)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("unit", [Weight(), NofM(2, 4), Neuron(), Block(2, 3), ConstantFanIn()])
def test_every_unit_checks_scores_and_count(unit):
    hidden = target(Topology.full((2, 5)))
    with pytest.raises(ValueError, match=r"'hidden' expects one score per stored weight.*\(10,\)"):
        unit.keep(hidden, np.ones((2, 5)), 3)
    with pytest.raises(ValueError, match="one score per stored weight"):
        unit.keep(hidden, np.array(["a"] * 10), 3)
    for k in (-1, 11):
        with pytest.raises(ValueError, match=f"has 10 weights; cannot keep k={k}"):
            unit.keep(hidden, np.ones(10), k)
    with pytest.raises(TypeError, match=r"expects k as an integer; got 3\.0"):
        unit.keep(hidden, np.ones(10), 3.0)


@pytest.mark.parametrize("unit", [Weight(), NofM(2, 4), Neuron(), Block(2, 3), ConstantFanIn()])
def test_every_unit_takes_a_layer_without_weights(unit):
    assert unit.keep(target(Topology.empty((2, 5))), np.ones(0), 0).size == 0


def test_a_subset_is_canonical_and_of_the_right_length():
    topology = Topology.random((7, 9), density=0.5, rng=0)
    mask = np.random.default_rng(0).random(topology.nnz) < 0.5
    rows, columns = topology.coo()
    assert subset(topology, mask) == Topology.from_coo((7, 9), rows[mask], columns[mask])
    with pytest.raises(ValueError, match="one per position; got"):
        subset(topology, mask[1:])
