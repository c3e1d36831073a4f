"""The k largest scores, and where one pattern lies in another, against sorting and set algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nnsparse.kernels.select import bar, largest


def twin(scores, k, order=None):
    """Return the mask by sorting: NaN last, then by falling score, then by rising order."""
    order = np.arange(scores.size) if order is None else order
    missing = np.isnan(scores)
    mask = np.zeros(scores.size, bool)
    mask[np.lexsort((order, -np.where(missing, 0, scores), missing))[:k]] = True
    return mask


def test_a_small_table_by_hand():
    scores = np.array([0.5, -1.0, 2.0, 0.5, np.nan, 0.5], np.float32)
    for k, chosen in enumerate(([], [2], [0, 2], [0, 2, 3], [0, 2, 3, 5], [0, 1, 2, 3, 5])):
        assert np.flatnonzero(largest(scores, k)).tolist() == chosen
    assert largest(scores, 6).all()


floats = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        st.integers(0, 200),
        elements=st.one_of(
            st.floats(width=32), st.integers(-3, 3).map(float), st.sampled_from([0.0, -0.0])
        ),
    )
)


@settings(max_examples=200)
@given(floats, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_mask_is_that_of_a_sort_for_any_scores(scores, share, seed):
    k = round(share * scores.size)
    order = np.random.default_rng(seed).permutation(scores.size)
    np.testing.assert_array_equal(largest(scores, k), twin(scores, k))
    np.testing.assert_array_equal(largest(scores, k, order), twin(scores, k, order))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", ["normal", "rounded", "equal", "tiny"])
def test_the_mask_is_that_of_a_sort_for_many_scores(values, dtype):
    scores = np.random.default_rng(0).standard_normal(70_001).astype(dtype)
    scores = {
        "normal": scores,
        "rounded": np.round(scores * 2),
        "equal": np.full_like(scores, -2.5),
        "tiny": (scores * np.finfo(dtype).tiny).astype(dtype),
    }[values]
    for k in (1, 13_000, 35_000, 70_000):
        np.testing.assert_array_equal(largest(scores, k), twin(scores, k))


def test_zeros_of_either_sign_are_equal():
    scores = np.array([-0.0, 0.0, -0.0, 0.0])
    assert np.flatnonzero(largest(scores, 2)).tolist() == [0, 1]


def test_nan_comes_behind_minus_infinity():
    scores = np.array([np.nan, -np.inf, -np.nan, np.inf])
    assert np.flatnonzero(largest(scores, 2)).tolist() == [1, 3]
    assert np.flatnonzero(largest(scores, 3)).tolist() == [0, 1, 3]


def test_a_view_with_strides_is_read_as_it_looks():
    scores = np.arange(10.0)[::-2]
    assert np.flatnonzero(largest(scores, 2)).tolist() == [0, 1]


@pytest.mark.parametrize("k", [-1, 4])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match="from 0 to n"):
        largest(np.zeros(3), k)


def test_scores_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="float32 or float64"):
        largest(np.arange(3), 1)
    with pytest.raises(ValueError, match="got shape"):
        largest(np.zeros((2, 2)), 1)


@settings(max_examples=100)
@given(
    arrays.arrays(np.float32, st.integers(1, 100), elements=st.floats(0, 2**100, width=32)),
    st.floats(0, 1),
)
def test_exactly_those_of_the_k_largest_reach_the_bar_or_equal_the_last(magnitudes, share):
    k = max(1, round(share * magnitudes.size))
    last = np.sort(magnitudes)[-k]
    np.testing.assert_array_equal(magnitudes >= bar(magnitudes, k), magnitudes >= last)
