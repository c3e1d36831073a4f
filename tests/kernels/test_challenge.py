"""The kernels of the Graph Challenge against plain NumPy: preparation, layers on tiles, the filter, sparse rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.graph_challenge._job import LANES, chosen, first_lanes, used_lanes, width
from nnsparse.graph_challenge._stacks import by_input, joined, quads
from nnsparse.graph_challenge.networks import Layer
from nnsparse.kernels import challenge, challenge_filter, challenge_sparse
from nnsparse.kernels.challenge_simd import (
    compress,
    finish,
    lowest,
    nonzero_bits,
    popcount,
)
from nnsparse.kernels.challenge_simd import (
    first_lanes as head,
)
from nnsparse.simd import load, splat, store

SIZES = [1, 2, 3, 4, 5, 16, 37, 130]


def random_layer(n, density, rng, signed=True):
    """A layer whose weights are multiples of 1/16, so that float32 sums of them are exact."""
    dense = rng.integers(-8 if signed else 1, 9, (n, n)) / 16
    dense[rng.random((n, n)) >= density] = 0
    return dense.astype(np.float32)


def as_layer(dense):
    """The weights (to, from) as a Layer."""
    indptr = np.concatenate(([0], np.cumsum((dense != 0).sum(axis=1)))).astype(np.int64)
    return Layer(indptr, np.nonzero(dense)[1].astype(np.int32), dense[dense != 0])


def rule(x, dense, bias, top=32):
    """The next activations of x (n_images, n), in float64."""
    z = x.astype(np.float64) @ dense.astype(np.float64).T
    return np.where(z != 0, np.clip(z + bias, 0, top), 0)


def images(n_images, n, rng, density=0.3):
    return (rng.integers(1, 4, (n_images, n)) * (rng.random((n_images, n)) < density)).astype(
        np.float32
    )


def csr(x):
    indptr = np.concatenate(([0], np.cumsum((x != 0).sum(axis=1)))).astype(np.int64)
    return indptr, np.nonzero(x)[1].astype(np.int32), x[x != 0]


def poisoned(shape, dtype=np.float32):
    out = tiles.aligned(np.empty(shape, dtype))
    out.fill(np.nan)
    return out


def filled(x, extra=0, dtype=np.float32):
    """Tiles of x, NaN in the `extra` ones behind them."""
    n_tiles = -(-len(x) // LANES)
    out = poisoned((n_tiles + extra, x.shape[1], LANES), dtype)
    indptr, indices, data = csr(x)
    challenge.fill(LANES)(indptr, indices, data.astype(dtype), 0, len(x), out, 0)
    return out


def untiled(tiled, count):
    n_tiles, n, lanes = tiled.shape
    return tiled.transpose(0, 2, 1).reshape(n_tiles * lanes, n)[:count]


# ---------------------------------------------------------------- bits and vectors


@jit.serial
def vectors(x, bits, out, numbers):
    v = load(x, 0, 16)
    store(out, 0, compress(v, bits))
    store(out, 16, finish(v, splat(x[16], 16), splat(x[17], 16)))
    numbers[0] = nonzero_bits(v)
    numbers[1] = popcount(bits)
    numbers[2] = lowest(bits, 3)
    numbers[3] = head(64)
    numbers[4] = head(5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_are_chosen_moved_and_counted_as_bits(dtype):
    x = np.array([0, 1, -2, 3, np.nan, 0.5, 40, 32, 0, -0.0, 5, 6, 7, 8, 9, 30, -1, 32], dtype)
    out, numbers = np.empty(32, dtype), np.zeros(5, np.int64)
    bits = 0b1001_0110_1000_1101
    vectors(x, bits, out, numbers)
    lanes = [i for i in range(16) if bits >> i & 1]
    np.testing.assert_array_equal(out[: len(lanes)], x[:16][lanes])
    expected = [0, 0, 0, 2, np.nan, 0, 32, 31, 0, 0, 4, 5, 6, 7, 8, 29]
    np.testing.assert_array_equal(out[16:], expected)
    nonzero = sum(1 << i for i in range(16) if x[i] != 0)
    assert numbers.tolist() == [nonzero, len(lanes), 0b1101, -1, 31]


def test_a_positive_bias_does_not_wake_a_product_that_is_zero():
    x, out = np.zeros(18, np.float32), np.full(32, np.nan, np.float32)
    x[:3], x[16], x[17] = (2, -2, -1), 2, 3
    vectors(x, 0, out, np.zeros(5, np.int64))
    assert out[16:20].tolist() == [3, 0, 1, 0]


@given(st.lists(st.integers(1, LANES), min_size=1, max_size=5))
def test_bits_of_the_first_lanes_are_those_lanes(used):
    bits = first_lanes(np.array(used))
    np.testing.assert_array_equal(chosen(bits), np.arange(LANES) < np.array(used)[:, None])


# ---------------------------------------------------------------- preparation


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("density", [0, 0.2, 1])
@pytest.mark.parametrize("reorder", [False, True])
def test_every_weight_is_in_its_quad_behind_its_input(n, density, reorder):
    rng = np.random.default_rng(n)
    dense = [random_layer(n, density, rng) for _ in range(3)]
    stack = quads(joined([as_layer(d) for d in dense], n), reorder)
    weights, inputs, counts, starts, firsts, outputs = stack.arrays
    outputs = outputs.reshape(3, n)
    assert (np.sort(outputs, axis=1) == np.arange(n)).all()
    assert reorder or (outputs == np.arange(n)).all()
    found = np.zeros((3, n, n))
    per_layer = -(-n // 4)
    for j in range(3 * per_layer):
        k, i = starts[j], firsts[j]
        for mask in range(1, 16):
            for _ in range(counts[j, mask - 1]):
                for r in [r for r in range(4) if mask >> r & 1]:
                    o = outputs[j // per_layer, 4 * (j % per_layer) + r]
                    found[j // per_layer, o, inputs[i]] += weights[k]
                    k += 1
                i += 1
        assert (k, i) == (starts[j + 1], firsts[j + 1])
    np.testing.assert_array_equal(found, dense)
    assert stack.n_layers == 3
    assert stack.nbytes == sum(a.nbytes for a in stack.arrays)


def test_outputs_with_the_same_inputs_become_neighbours():
    rng = np.random.default_rng(0)
    inputs = rng.random((8, 40)) < 0.3
    kinds = rng.permutation(np.repeat(np.arange(8), 5))
    dense = (inputs[kinds] * rng.random((40, 40))).astype(np.float32)
    outputs = quads(joined([as_layer(dense)], 40), reorder=True).arrays[-1]
    assert np.count_nonzero(np.diff(kinds[outputs])) == 7


def test_outputs_with_many_common_inputs_are_often_neighbours():
    rng = np.random.default_rng(1)
    kinds = rng.permutation(np.repeat(np.arange(50), 4))
    inputs = (rng.random((50, 200)) < 0.2)[kinds]
    inputs &= rng.random(inputs.shape) < 0.95
    outputs = quads(joined([as_layer(inputs.astype(np.float32))], 200), reorder=True).arrays[-1]
    together = np.count_nonzero(np.diff(kinds[outputs]) == 0)
    assert together > 75  # of at most 150; 3 by chance


def test_wide_layers_have_wider_indices_and_counts():
    n = 2**16 + 1
    indptr = np.zeros(n + 1, np.int64)
    indptr[1:] = n
    layer = Layer(indptr, np.arange(n, dtype=np.int32), np.ones(n, np.float32))
    weights, inputs, counts, _, firsts, _ = quads(joined([layer], n), reorder=False).arrays
    assert (inputs.dtype, counts.dtype) == (np.uint32, np.uint32)
    assert counts[0].tolist() == [n] + [0] * 14
    np.testing.assert_array_equal(inputs, np.arange(n))
    assert (weights == 1).all()
    assert firsts[-1] == n


@pytest.mark.parametrize("n", SIZES)
def test_layers_by_input_are_the_transposes(n):
    dense = random_layer(n, 0.4, np.random.default_rng(n))
    ((pointers, outputs, weights),) = by_input(joined([as_layer(dense)], n)).layers
    found = np.zeros((n, n))
    found[np.repeat(np.arange(n), np.diff(pointers)), outputs] = weights
    np.testing.assert_array_equal(found, dense.T)


# ---------------------------------------------------------------- layers on tiles


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("count", [1, 20, 64, 150])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiles_pass_a_stack_as_the_rule_says(n, count, dtype):
    rng = np.random.default_rng([n, count])
    dense = [random_layer(n, 0.4, rng) for _ in range(3)]
    x = images(count, n, rng)
    stack = quads(joined([as_layer(d) for d in dense], n))
    arrays = (stack.arrays[0].astype(dtype), *stack.arrays[1:])
    threads = jit.get_num_threads()
    used = used_lanes(count)
    alive = first_lanes(used)
    tiled = filled(x, threads, dtype)
    place, spare = np.arange(used.size), np.arange(used.size, used.size + threads)
    rows = np.zeros((3, used.size), np.int64)
    challenge.advance(LANES, width())(
        *arrays, 0, 3, dtype(-0.25), dtype(32), tiled, place, spare, used, alive, False, rows
    )
    expected = x
    for layer in range(3):
        expected = rule(expected, dense[layer], -0.25)
        assert rows[layer].sum() == (expected != 0).any(axis=1).sum()
    found = untiled(tiled[place], count)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(chosen(alive).reshape(-1)[:count], (expected != 0).any(axis=1))
    assert sorted([*place, *spare]) == list(range(len(tiled)))


@pytest.mark.parametrize("n", [4, 37])
def test_one_layer_into_new_memory_is_the_same(n):
    rng = np.random.default_rng(n)
    dense = [random_layer(n, 0.5, rng) for _ in range(2)]
    x = images(100, n, rng)
    stack = quads(joined([as_layer(d) for d in dense], n))
    used = used_lanes(100)
    alive = first_lanes(used)
    tiled = filled(x)
    for layer in range(2):
        out = poisoned(tiled.shape)
        challenge.step(LANES, width())(
            *stack.arrays, layer, np.float32(0.5), np.float32(2), tiled, out, used, alive
        )
        x, tiled = rule(x, dense[layer], 0.5, 2), out
    np.testing.assert_array_equal(untiled(tiled, 100), x)
    np.testing.assert_array_equal(chosen(alive).reshape(-1)[:100], (x != 0).any(axis=1))


@pytest.mark.parametrize("parts", [(1,), (64,), (10, 60, 7), (64, 64, 2), (130, 1)])
def test_images_fill_tiles_piece_by_piece(parts):
    x = images(sum(parts), 9, np.random.default_rng(0))
    indptr, indices, data = csr(x)
    n_tiles = -(-len(x) // LANES)
    tiled = poisoned((n_tiles, 9, LANES))
    first = 0
    for count in parts:
        challenge.fill(LANES)(indptr, indices, data, first, count, tiled, first)
        first += count
    padded = np.zeros((n_tiles * LANES, 9))
    padded[: len(x)] = x
    np.testing.assert_array_equal(untiled(tiled, n_tiles * LANES), padded)


# ---------------------------------------------------------------- the filter


def test_living_images_of_tiles_are_packed_in_order():
    rng = np.random.default_rng(3)
    x = rng.random((300, 11)).astype(np.float32)
    tiled = filled(x, 1)
    place = np.array([4, 1, 0, 3, 2])
    alive = rng.integers(-(2**63), 2**63, 5)
    alive[1], alive[3] = 0, -1
    alive[place == 4] &= first_lanes(np.array([300 - 256]))
    ids = np.arange(5 * LANES).reshape(5, LANES) + 1000
    mask = chosen(alive)
    before = np.concatenate(([0], np.cumsum(mask.sum(axis=1))))
    n_new = -(-before[-1] // LANES)
    origin = np.searchsorted(before, LANES * np.arange(n_new), "right") - 1
    out, out_ids = poisoned((n_new, 11, LANES)), np.full((n_new, LANES), -1)
    challenge_filter.repack(LANES)(tiled, place, alive, ids, before, origin, out, out_ids)
    expected = untiled(tiled[place], 5 * LANES)[mask.ravel()]
    np.testing.assert_array_equal(untiled(out, before[-1]), expected)
    np.testing.assert_array_equal(out_ids.ravel()[: before[-1]], ids[mask])


def funneled(x, dense, bias, workers, pieces):
    """Lead x through a funnel, and return the ids and activations of what has passed, and the live counts."""
    n, depth = x.shape[1], len(dense)
    stack = quads(joined([as_layer(d) for d in dense], n))
    room = -(-len(x) // LANES) + 1
    tiled = poisoned((workers, 2 * depth + room, n, LANES))
    ids = np.full((workers, 2 * depth + room, LANES), -1)
    state, rows = np.zeros((workers, depth + 1, 2), np.int64), np.zeros((workers, depth), np.int64)
    kernel = challenge_filter.funnel(LANES, width())
    indptr, indices, data = csr(x)
    first = 0
    for count in (*pieces, len(x) - sum(pieces)):
        kernel(
            *stack.arrays, np.float32(bias), np.float32(32), indptr, indices, data, first, count,
            first, tiled, ids, state, rows, first + count == len(x),
        )  # fmt: skip
        first += count
    assert (state[:, 1:depth, 0] == 0).all()
    passed, values = [], []
    for w, count in enumerate(state[:, depth, 0]):
        passed.append(ids[w, 2 * depth :].ravel()[:count])
        values.append(untiled(tiled[w, 2 * depth :], count))
    return np.concatenate(passed), np.concatenate(values), rows.sum(axis=0)


@pytest.mark.parametrize("depth", [1, 2, 6])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("bias", [-0.75, 0.0])
def test_what_passes_the_funnel_are_the_living_images(depth, workers, bias):
    rng = np.random.default_rng([depth, workers])
    n = 19
    dense = [random_layer(n, 0.2, rng) for _ in range(depth)]
    x = images(500, n, rng, density=0.15)
    ids, values, rows = funneled(x, dense, bias, workers, (33, 150, 1))
    expected = x
    for layer in range(depth):
        expected = rule(expected, dense[layer], bias)
        assert rows[layer] == (expected != 0).any(axis=1).sum()
    living = np.flatnonzero((expected != 0).any(axis=1))
    np.testing.assert_array_equal(np.sort(ids), living)
    np.testing.assert_allclose(values, expected[ids], rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- sparse rows


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bias", [-0.25, 0.5])
def test_sparse_rows_times_sparse_weights_follow_the_rule(n, bias):
    rng = np.random.default_rng(n)
    dense = random_layer(n, 0.4, rng)
    x = images(50, n, rng)
    indptr, indices, data = csr(x)
    here, there = (
        (np.full(50, -1), np.full((50, n), 60000, np.uint16), poisoned((50, n))) for _ in range(2)
    )
    challenge_sparse.enter_rows(indptr, indices, data, 0, *here)
    sums, work = np.zeros((jit.get_num_threads(), n), np.float32), np.ones(50, np.int64)
    (layer,) = by_input(joined([as_layer(dense)], n)).layers
    challenge_sparse.multiply_sparse(
        *layer, np.float32(bias), np.float32(1), *here, *there, sums, work
    )
    found = np.zeros((50, n))
    for r in range(50):
        found[r, there[1][r, : there[0][r]]] = there[2][r, : there[0][r]]
    np.testing.assert_array_equal(found, rule(x, dense, bias, 1))
    assert (sums == 0).all()
    np.testing.assert_array_equal(work, 1 + (x != 0) @ (dense != 0).sum(axis=0))
