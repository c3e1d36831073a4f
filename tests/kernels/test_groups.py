"""N of M against the obvious loop: odd rows, ties, NaN, both dtypes, any number of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import jit
from nnsparse.kernels.groups import best_n_of_m
from nnsparse.testing import odd_topologies, random_topology


def twin(topology, scores, n, m):
    """Sort each group by (NaN last, score falling, position) and keep the first n."""
    kept = np.zeros(topology.nnz, bool)
    groups = {}
    for k, (row, column) in enumerate(zip(*topology.coo(), strict=True)):
        groups.setdefault((row, column // m), []).append(k)
    for members in groups.values():
        members.sort(key=lambda k: (np.isnan(scores[k]), -np.nan_to_num(scores[k]), k))
        kept[members[:n]] = True
    return kept


def kernel(topology, scores, n, m):
    kept = np.ones(topology.nnz, bool)
    best_n_of_m(*topology.csr(), scores, n, m, kept)
    return kept


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_the_n_best_of_each_group_are_marked_first_among_equals_nan_last(n, more, seed, single):
    rng = np.random.default_rng(seed)
    topology = random_topology(rng, 12, 40)
    scores = rng.integers(-2, 3, topology.nnz).astype(np.float32 if single else np.float64)
    scores[rng.random(topology.nnz) < 0.2] = np.nan
    expected = twin(topology, scores, n, n + more)
    np.testing.assert_array_equal(kernel(topology, scores, n, n + more), expected)


@pytest.mark.parametrize("m", [1, 4, 7, 2000])
def test_odd_topologies_are_marked_like_the_twin(m):
    rng = np.random.default_rng(0)
    for name, topology in odd_topologies(rng):
        scores = rng.standard_normal(topology.nnz).astype(np.float32)
        n = min(2, m)
        assert (kernel(topology, scores, n, m) == twin(topology, scores, n, m)).all(), name


def test_one_and_two_threads_mark_the_same():
    rng = np.random.default_rng(0)
    topology = random_topology(rng, 100, 300)
    scores = rng.integers(0, 3, topology.nnz).astype(np.float32)
    before = jit.get_num_threads()
    found = []
    for threads in (1, 2):
        jit.set_num_threads(threads)
        found.append(kernel(topology, scores, 2, 4))
    jit.set_num_threads(before)
    np.testing.assert_array_equal(*found)
