"""The largest entries of each row of a gradient that is never stored, against a sort of the dense one."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.ops.structures import Dense
from nnsparse.sparsify.streaming import largest_per_row
from nnsparse.testing import to_tiles_reference
from nnsparse.topology import Topology


def tap(shape, batch, seed=0, lanes=16, dtype=np.float32, whole=False, skewed=False):
    """Return tiled (d, x); `whole` numbers make ties and exact sums, `skewed` norms make blocks worth leaving out."""
    rng = np.random.default_rng(seed)
    pair = []
    for n in shape:
        a = rng.integers(-2, 3, (batch, n)) if whole else rng.standard_normal((batch, n))
        if skewed:
            a = a * np.exp(2.0 * rng.standard_normal(n))
        pair.append(tiles.aligned(to_tiles_reference(a.astype(dtype), lanes)))
    return tuple(pair)


def twin(taps, kept, numbers):
    """Sort each row by (-magnitude, position), NaN behind all numbers; the gradient is the dense kernel's."""
    gradient = sum(Dense(*kept.shape).gradient(d, x) for d, x in taps)
    size = np.abs(gradient.astype(np.float64))
    size[np.isnan(size)] = -1
    size[kept.to_dense()] = -2
    grown = np.zeros(kept.shape, bool)
    for row, n in enumerate(numbers):
        order = np.lexsort((np.arange(kept.shape[1]), -size[row]))
        grown[row, order[:n]] = True
    return Topology.from_dense(grown)


def some(rng, kept, most=1.0):
    """Return a number of free positions for each row, none for some rows."""
    free = kept.shape[1] - kept.row_counts()
    return np.floor(rng.random(free.size) * most * (free + 1)).astype(np.int64) * (
        rng.random(free.size) < 0.8
    )


@settings(max_examples=60)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 40),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32 - 1),
)
def test_any_shape_gives_what_a_sort_of_each_row_gives(
    n_out, n_in, batch, density, most, whole, dtype, seed
):
    kept = Topology.random((n_out, n_in), density=density, rng=seed)
    numbers = some(np.random.default_rng(seed), kept, most)
    taps = [tap(kept.shape, batch, seed, dtype=dtype, whole=whole)]
    assert largest_per_row(taps, kept, numbers) == twin(taps, kept, numbers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("whole", "skewed"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("shape", [(300, 400), (7, 30_000), (3_000, 70), (501, 333)])
def test_large_layers_give_the_same(shape, whole, skewed, dtype):
    rng = np.random.default_rng(0)
    kept = Topology.random(shape, density=0.1, rng=rng)
    taps = [tap(shape, 37, 1, dtype=dtype, whole=whole, skewed=skewed)]
    few = np.minimum(rng.integers(0, 9, shape[0]), shape[1] - kept.row_counts())
    for numbers in (few, some(rng, kept)):
        assert largest_per_row(taps, kept, numbers) == twin(taps, kept, numbers)


@pytest.mark.parametrize("lanes", tiles.LANES)
def test_every_lane_width_with_a_part_of_the_last_tile_used(lanes):
    kept = Topology.random((90, 130), density=0.3, rng=0)
    numbers = np.full(90, 7)
    for batch in (1, lanes - 3, lanes, 2 * lanes + 5):
        taps = [tap(kept.shape, batch, lanes=lanes)]
        assert largest_per_row(taps, kept, numbers) == twin(taps, kept, numbers)


def test_a_gradient_of_zeros_grows_the_first_free_positions_of_each_row():
    kept = Topology.random((40, 300), density=0.1, rng=0)
    d, x = (np.zeros((1, n, 16), np.float32) for n in kept.shape)
    d[0, ::2], x[0, ::2] = 1, 1  # half of the rows are zero, and half of the columns
    numbers = some(np.random.default_rng(0), kept)
    assert largest_per_row([(d, x)], kept, numbers) == twin([(d, x)], kept, numbers)


def test_a_step_without_samples_has_a_gradient_of_zeros():
    empty = np.zeros((0, 3, 16), np.float32), np.zeros((0, 4, 16), np.float32)
    for taps in ([empty], [empty, empty]):
        grown = largest_per_row(taps, Topology.empty((3, 4)), np.array([2, 0, 1]))
        assert grown == Topology((3, 4), [0, 2, 2, 3], [0, 1, 0])


def test_rows_that_ask_for_nothing_get_nothing():
    taps = [tap((5, 6), 3)]
    assert largest_per_row(taps, Topology.empty((5, 6)), np.zeros(5, int)).nnz == 0


def test_several_taps_are_summed_even_of_different_lanes():
    shape = (60, 50)
    kept = Topology.random(shape, density=0.2, rng=0)
    taps = [
        tap(shape, batch, seed, lanes, whole=True)
        for seed, (batch, lanes) in enumerate([(20, 16), (70, 64), (3, 32)])
    ]
    numbers = np.full(60, 5)
    assert largest_per_row(taps, kept, numbers) == twin(taps, kept, numbers)
    assert largest_per_row(taps, kept, numbers) != twin(taps[:1], kept, numbers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_grows_last_and_infinity_first(dtype):
    shape = (40, 150)
    kept = Topology.random(shape, density=0.1, rng=0)
    d, x = tap(shape, 20, dtype=dtype)
    d[0, 3, 5], x[0, 7:100, 2], x[1, 108, 1] = np.nan, np.nan, np.inf
    for n in (1, 30, 60, 120):
        numbers = np.full(40, n)
        assert largest_per_row([(d, x)], kept, numbers) == twin([(d, x)], kept, numbers)


@pytest.mark.parametrize(
    ("dtype", "of_d", "of_x"),
    [
        (np.float32, 1e-19, 1e-19),
        (np.float32, 1e-26, 1e20),  # the squares of d are all 0
        (np.float32, 1e25, 1e-20),  # those of d overflow
        (np.float64, 1e-160, 1e-160),
    ],
)
def test_the_bounds_of_blocks_hold_for_very_large_and_small_numbers(dtype, of_d, of_x):
    shape = (200, 300)
    d, x = tap(shape, 50, dtype=dtype, skewed=True)
    taps, numbers = [(d * dtype(of_d), x * dtype(of_x))], np.full(200, 9)
    kept = Topology.random(shape, density=0.1, rng=0)
    assert largest_per_row(taps, kept, numbers) == twin(taps, kept, numbers)


def test_two_threads_find_the_same_as_one():
    shape = (400, 500)
    kept = Topology.random(shape, density=0.05, rng=0)
    numbers = some(np.random.default_rng(1), kept, 0.2)
    before, results = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            results += [
                largest_per_row([tap(shape, 40, whole=whole, skewed=True)], kept, numbers)
                for whole in (False, True)
            ]
    finally:
        jit.set_num_threads(before)
    assert results[:2] == results[2:]


def test_memory_grows_with_what_is_found_and_not_with_the_size():
    shape = (1_000, 20_000)
    kept = Topology.random(shape, density=0.001, rng=0)
    taps, numbers = [tap(shape, 16)], np.full(1_000, 5)
    largest_per_row(taps, kept, numbers)
    tiles.pool.clear()
    tracemalloc.start()
    largest_per_row(taps, kept, numbers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * 4 * 1_000 * 20_000
