"""The pool of aligned arrays: buffers are reused, but never while anybody can see them."""

import ctypes
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import tiles


@pytest.fixture
def pool(monkeypatch):
    pool = tiles.Pool()
    monkeypatch.setattr(tiles, "pool", pool)
    return pool


def address(array):
    return array.ctypes.data


@given(
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    st.sampled_from([np.uint8, np.int32, np.float32, np.float64]),
)
def test_every_array_starts_at_a_cache_line_and_is_contiguous(shape, dtype):
    for array in (tiles.empty(shape, dtype), tiles.zeros(shape, dtype)):
        # An array without elements has no address of its own.
        assert array.size == 0 or address(array) % tiles.ALIGNMENT == 0
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.carray


def test_a_buffer_that_nobody_refers_to_is_taken_again(pool):
    a = tiles.empty((3, 5))
    first = address(a)
    del a
    assert address(tiles.empty((3, 5))) == first
    assert pool.nbytes() == 60 + tiles.ALIGNMENT


def test_a_steady_loop_asks_for_no_more_memory(pool):
    def step():
        x = tiles.zeros((2, 8, 16))
        y = tiles.zeros((2, 8, 16))
        return x[0] + y[0]

    step()
    before = pool.nbytes()
    for _ in range(50):
        step()
    assert pool.nbytes() == before == 2 * (1024 + tiles.ALIGNMENT)


VIEWS = {
    "the array": lambda a: a,
    "a slice": lambda a: a[1:],
    "a view of a view": lambda a: a[1:].T[::2][:1],
    "another dtype": lambda a: a.view(np.int32),
    "one row": lambda a: a[2],
    "a memoryview": memoryview,
    "a strided trick": lambda a: np.lib.stride_tricks.as_strided(a, (2,), (4,)),
    "a broadcast": lambda a: np.broadcast_to(a[0], (9, 5)),
    "its iterator": iter,
    "its flat iterator": lambda a: a.flat,
    "a ctypes pointer": lambda a: a.ctypes.data_as(ctypes.c_void_p),
}


@pytest.mark.parametrize("name", VIEWS)
def test_no_buffer_is_given_out_while_something_refers_to_it(pool, name):
    view = VIEWS[name](tiles.empty((4, 5)))
    held = [tiles.empty((4, 5)) for _ in range(3)]
    entries = pool._buffers[(4, 5), np.dtype(np.float32)]
    assert len(entries) == 4
    seen = entries[0].array.ctypes.data  # the first to be looked at, and the only one not in `held`
    assert seen not in {address(a) for a in held}
    del view
    assert address(tiles.empty((4, 5))) == seen
    assert len(entries) == 4


def test_shapes_and_dtypes_do_not_share_buffers(pool):
    del_me = tiles.empty((4, 4), np.float32)
    del del_me
    for shape, dtype in [((16,), np.float32), ((4, 4), np.int32), ((2, 8), np.float32)]:
        tiles.empty(shape, dtype)
    assert len(pool._buffers) == 4


def test_buffers_that_nobody_wants_are_given_back_after_a_while(pool, monkeypatch):
    monkeypatch.setattr(tiles, "_KEEP", 10)
    old = tiles.empty((1000,))
    held = tiles.empty((999,))
    del old
    for n in range(1, 20):  # new sizes, as with a changing batch
        tiles.empty((n,))
    sizes = {shape for shape, _ in pool._buffers}
    assert (1000,) not in sizes
    assert (999,) in sizes
    assert held.shape == (999,)


def test_clear_gives_back_what_is_free_and_nothing_else(pool):
    held = tiles.empty((7,))
    held.fill(3)
    tiles.empty((8,))
    pool.clear()
    assert pool.nbytes() == 28 + tiles.ALIGNMENT
    np.testing.assert_array_equal(held, 3)


def test_two_threads_never_get_the_same_buffer(pool):
    wrong = []

    def work(mark):
        for _ in range(3000):
            a = tiles.empty((64,), np.int64)
            a.fill(mark)
            b = tiles.empty((64,), np.int64)
            b.fill(-mark)
            if (a != mark).any() or (b != -mark).any():
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_poison_fills_what_has_to_be_written(monkeypatch):
    monkeypatch.setattr(tiles, "_POISON", True)
    assert np.isnan(tiles.empty((5,), np.float32)).all()
    assert np.isnan(tiles.empty((5,), np.float64)).all()
    assert (tiles.empty((5,), np.int64) == -1).all()
    assert (tiles.empty((5,), np.uint8) == 255).all()
    assert not tiles.zeros((5,)).any()


def test_zeros_are_zeros_also_in_a_used_buffer(pool):
    tiles.empty((6,)).fill(9)
    assert not tiles.zeros((6,)).any()


def test_an_aligned_copy_is_outside_the_pool(pool):
    source = np.asfortranarray(np.arange(12.0).reshape(3, 4))[:, ::2]
    copy = tiles.aligned(source)
    assert address(copy) % tiles.ALIGNMENT == 0
    assert copy.flags.carray
    np.testing.assert_array_equal(copy, source)
    assert not np.shares_memory(copy, source)
    assert pool.nbytes() == 0


def test_tiles_and_lanes_are_counted():
    assert [tiles.n_tiles(batch, 64) for batch in (0, 1, 64, 65, 256)] == [0, 1, 1, 2, 4]
    assert [tiles.pick_lanes(batch) for batch in (1, 16, 17, 32, 33, 64, 1000)] == (
        [16, 16, 32, 32, 64, 64, 64]
    )
    assert all(tiles.pick_lanes(batch) in tiles.LANES for batch in range(1, 300))
