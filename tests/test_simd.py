"""Each vector operation against NumPy, on one vector of every kind of length."""

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from nnsparse import simd, simd_block
from nnsparse.simd import (
    add,
    broadcast,
    item,
    load,
    load_head,
    madd,
    mul,
    put,
    relu,
    splat,
    store,
    store_head,
    where_positive,
    zero,
)
from nnsparse.simd_sums import dot, total, totals

# Tests compile without the cache: its salt does not cover them.
njit = numba.njit(error_model="numpy", fastmath={"contract"})


def make_kernel(n, part):
    @njit
    def kernel(a, b, c, out, sums):
        x, y, z = load(a, 0, n), load(b, 0, n), load(c, 0, n)
        store(out, 0, add(x, y))
        store(out, n, mul(x, y))
        store(out, 2 * n, madd(x, y, z))
        store(out, 3 * n, relu(x))
        store(out, 4 * n, where_positive(x, y))
        store(out, 5 * n, splat(a[1], n))
        store(out, 6 * n, broadcast(b, 2, x))
        store(out, 7 * n, zero(a, n))
        sums[0] = total(x)
        store(sums, 1, totals(x, y, z, x))
        store(sums, 5, dot(x, y, part))

    return kernel


@pytest.mark.parametrize(("n", "dtype"), [(4, np.float64), (16, np.float32), (128, np.float32)])
def test_every_operation_matches_numpy(n, dtype):
    a, b, c = (np.random.default_rng(i).standard_normal(n).astype(dtype) for i in range(3))
    out = np.full((8, n), np.nan, dtype)
    part = max(4, n // 4)
    sums = np.full(5 + part, np.nan, dtype)
    make_kernel(n, part)(a, b, c, out.reshape(-1), sums)
    eps = np.finfo(dtype).eps
    np.testing.assert_array_equal(out[0], a + b)
    np.testing.assert_array_equal(out[1], a * b)
    np.testing.assert_allclose(out[2], a * b + c, rtol=0, atol=8 * eps)
    np.testing.assert_array_equal(out[3], np.maximum(a, 0))
    np.testing.assert_array_equal(out[4], np.where(a > 0, b, 0))
    np.testing.assert_array_equal(out[5:8], np.broadcast_to([[a[1]], [b[2]], [0]], (3, n)))
    atol = n * eps * np.abs([a, b, c]).sum()
    np.testing.assert_allclose(sums[:5], [v.sum() for v in (a, a, b, c, a)], rtol=0, atol=atol)
    folded = (a.astype(np.float64) * b).reshape(-1, part).sum(axis=0)
    np.testing.assert_allclose(sums[5:], folded, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_head_of_a_vector_is_read_and_written_and_nothing_beyond_it(dtype):
    @njit
    def move(a, out, count):
        store_head(out, 1, load_head(a, 2, 4, count), count)
        store(out, 8, load_head(a, 2, 4, count))

    a = np.arange(10).astype(dtype)
    for count in range(5):
        out = np.full(12, -1, dtype)
        move(a, out, count)
        wanted = np.full(12, -1, dtype)
        wanted[1 : 1 + count] = a[2 : 2 + count]
        wanted[8:] = 0
        wanted[8 : 8 + count] = a[2 : 2 + count]
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int64, np.float32])
def test_single_elements_are_read_and_written_by_offset(dtype):
    @njit
    def move(a, out):
        put(out, 1, item(a, 2) + item(a, 0))
        return item(a, 1)

    a, out = np.array([3, 200, 7], dtype), np.zeros(2, dtype)
    assert move(a, out) == 200
    assert list(out) == [0, 10]


def test_nan_infinity_and_minus_zero_go_through_relu_and_its_gate():
    n = 16
    a = np.zeros(n, np.float32)
    a[:5] = np.nan, np.inf, -np.inf, -0.0, 0.0
    b = np.arange(1, n + 1, dtype=np.float32)
    b[5] = np.nan
    a[5] = 1
    out, sums = np.empty((8, n), np.float32), np.empty(9, np.float32)
    make_kernel(n, 4)(a, b, a, out.reshape(-1), sums)
    np.testing.assert_array_equal(out[3, :6], [np.nan, np.inf, 0, 0, 0, 1])
    # The gate is open where the output is NaN, so that a NaN is not hidden.
    np.testing.assert_array_equal(out[4, :6], [1, 2, 0, 0, 0, np.nan])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_block_of_16_by_16_is_transposed(dtype):
    @njit
    def turn(a, index, rows, out):
        block = simd_block.load_rows(a, 3, 20)
        simd_block.store_rows(out, 1, 18, simd_block.transpose(block))
        block = simd_block.load_rows_at(a, index, 2, rows, 20, 1)
        simd_block.store_rows(out, 18 * 16, 18, block)

    a = np.arange(20.0 * 20).astype(dtype)
    index = np.random.default_rng(0).permutation(18).astype(np.int64)
    rows = a.reshape(20, 20)
    for count in (16, 5):
        out = np.full((32, 18), -1, dtype)
        turn(a, index, count, out.reshape(-1))
        np.testing.assert_array_equal(out[:16, 1:17], rows[:16, 3:19].T)
        np.testing.assert_array_equal(out[16 : 16 + count, :16], rows[index[2:]][:count, 1:17])
        assert (out[16 + count :, :16] == 0).all()
        assert (out[:16, [0, 17]] == -1).all()  # nothing beside the block is touched


def test_a_length_that_is_no_constant_is_refused_at_compile_time():
    @njit
    def kernel(a, n):
        return total(load(a, 0, n))

    with pytest.raises(TypingError, match="compile-time constant"):
        kernel(np.ones(16, np.float32), 16)


def test_vectors_of_different_types_do_not_mix():
    @njit
    def kernel(a, b):
        return total(add(load(a, 0, 4), load(b, 0, 4)))

    with pytest.raises(TypingError, match="two equal vector types"):
        kernel(np.ones(4, np.float32), np.ones(4, np.float64))


def test_a_vector_type_is_known_by_dtype_and_length():
    f32, f64 = numba.types.float32, numba.types.float64
    assert simd.Vector(f32, 16) == simd.Vector(f32, 16)
    assert simd.Vector(f32, 16) != simd.Vector(f32, 32)
    assert simd.Vector(f32, 16) != simd.Vector(f64, 16)
