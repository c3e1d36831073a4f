"""Gather and scatter between rows and tiles: copies, so every bit must match."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit
from nnsparse.kernels.layout import gather_rows, scatter_rows
from nnsparse.testing import from_tiles_reference, gather_tiles_reference


def gathered(source, index, lanes):
    n_tiles = -(-len(index) // lanes)
    out = np.full((n_tiles, source.shape[1], lanes), np.nan, source.dtype)
    gather_rows(source, index, out)
    return out


def scattered(tiles, batch):
    out = np.full((batch, tiles.shape[1]), np.nan, tiles.dtype)
    scatter_rows(tiles, out)
    return out


def check(n_samples, n_features, batch, lanes, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((n_samples, n_features)).astype(dtype)
    index = rng.integers(0, n_samples, batch)
    tiles = gathered(source, index, lanes)
    np.testing.assert_array_equal(tiles, gather_tiles_reference(source, index, lanes))
    rows = scattered(tiles, batch)
    np.testing.assert_array_equal(rows, from_tiles_reference(tiles, batch))
    np.testing.assert_array_equal(rows, source[index])


@settings(max_examples=100)
@given(
    st.integers(1, 50),
    st.integers(0, 150),
    st.integers(1, 150),
    # Any number of lanes: a NumPy model takes the whole batch as one tile.
    st.one_of(st.sampled_from([16, 32, 64, 128]), st.integers(1, 150)),
    st.integers(0, 2**32 - 1),
)
def test_rows_go_into_tiles_and_back(n_samples, n_features, batch, lanes, seed):
    check(n_samples, n_features, batch, lanes, seed=seed)


@pytest.mark.parametrize("lanes", [16, 32, 64, 128])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_dtype_and_lane_width_is_copied_bit_for_bit(dtype, lanes):
    for batch in (1, 3, 64, 100, 257):
        check(40, 83, batch, lanes, dtype)


def test_nan_infinity_and_minus_zero_keep_their_bits():
    odd = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 1], np.uint32)
    source = np.tile(odd.view(np.float32), (19, 5))
    tiles = gathered(source, np.arange(19), 16)
    assert scattered(tiles, 19).tobytes() == source.tobytes()
    assert not tiles[1, :, 3:].any()


def test_one_and_two_threads_give_the_same_bits():
    source = np.random.default_rng(0).standard_normal((300, 333)).astype(np.float32)
    index = np.random.default_rng(1).permutation(300)
    before, results = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            tiles = gathered(source, index, 64)
            results.append((tiles, scattered(tiles, 300)))
    finally:
        jit.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
