"""Masks of zeros and ones against NumPy: both dtypes, odd sizes, NaN and infinity, any number of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import jit
from nnsparse.kernels.masks import PIECE, best_n_of, clear, clear_parallel, penalize

DTYPES = [np.float32, np.float64]
SIZES = [0, 1, 15, 16, 17, PIECE - 1, PIECE, 3 * PIECE + 5]


def numbers(rng, size, dtype):
    """Return normal numbers, some of them not finite."""
    a = rng.standard_normal(size).astype(dtype)
    a[rng.random(size) < 0.2] = np.nan
    a[rng.random(size) < 0.1] = np.inf
    return a


@pytest.mark.parametrize("kernel", [clear, clear_parallel])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_what_is_masked_becomes_zero_whatever_it_was_and_all_else_keeps_its_bits(
    size, dtype, kernel
):
    rng = np.random.default_rng(size)
    a, mask = numbers(rng, size, dtype), (rng.random(size) < 0.5).astype(dtype)
    expected = np.where(mask != 0, a, dtype(0))
    kernel(a, mask)
    np.testing.assert_array_equal(a, expected)
    assert not np.signbit(a[mask == 0]).any()


@pytest.mark.parametrize("factors", [(0.0, 0.25), (0.5, 0.0), (0.5, 2.0)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_penalty_adds_one_factor_where_the_mask_is_and_the_other_elsewhere(size, dtype, factors):
    rng = np.random.default_rng(size)
    g, w = rng.standard_normal((2, size)).astype(dtype)
    mask = (rng.random(size) < 0.5).astype(dtype)
    factor = np.where(mask != 0, *factors)
    w[(factor == 0) & (rng.random(size) < 0.5)] = np.inf  # a factor of 0 adds nothing of it
    out = np.full(size, np.nan, dtype)
    penalize(g, w, mask, *factors, out)
    added = np.multiply(factor, w, out=np.zeros(size), where=factor != 0)
    np.testing.assert_allclose(out, g + added, rtol=4 * np.finfo(dtype).eps, atol=1e-6)


def twin(w, n, m):
    """Sort each group by (NaN last, |w| falling, position) and keep the first n."""
    kept = np.zeros(w.shape)
    for row, out in zip(w, kept, strict=True):
        for start in range(0, row.size, m):
            group = np.abs(row[start : start + m])
            order = np.lexsort((np.arange(group.size), -np.nan_to_num(group), np.isnan(group)))
            out[start + order[:n]] = 1
    return kept


def ranked(w, n, m):
    out = np.full(w.size, np.nan, w.dtype)
    best_n_of(m)(w.reshape(-1), w.shape[1], n, out)
    return out.reshape(w.shape)


@given(
    st.sampled_from([1, 2, 3, 4, 5, 8, 16, 20]),
    st.integers(1, 20),
    st.tuples(st.integers(1, 9), st.integers(1, 70)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_the_n_largest_of_each_group_are_marked_first_among_equals_nan_last(
    m, n, shape, single, seed
):
    rng = np.random.default_rng(seed)
    w = rng.integers(-3, 4, shape).astype(np.float32 if single else np.float64)
    w[w == 0] *= rng.choice([-1, 1], (w == 0).sum())  # zeros of both signs
    w[rng.random(shape) < 0.2] = np.nan
    w[rng.random(shape) < 0.1] = -np.inf
    np.testing.assert_array_equal(ranked(w, min(n, m), m), twin(w, min(n, m), m))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 10), (3, 16)])
def test_many_rows_are_marked_like_the_twin_on_one_thread_and_two(n, m, dtype):
    w = np.random.default_rng(0).standard_normal((300, 211)).astype(dtype)
    before = jit.get_num_threads()
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            np.testing.assert_array_equal(ranked(w, n, m), twin(w, n, m))
    finally:
        jit.set_num_threads(before)
