"""The three dense products on tiles, against their float64 twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.kernels import gemm as kernels
from nnsparse.testing import (
    dense_forward,
    dense_input_gradient,
    dense_weight_gradient,
    from_tiles_reference,
    roundoff,
    to_tiles_reference,
)

# (n_out, n_in): single rows and columns, sizes around the register block of 4, the packed block of
# 64 and the depth of 128, and sizes that nothing divides.
SHAPES = [(1, 1), (1, 67), (67, 1), (3, 5), (4, 128), (5, 129), (63, 64), (64, 65), (131, 257)]


class Problem:
    """One weight matrix with activations and gradients; every product writes to a poisoned buffer."""

    def __init__(self, n_out, n_in, batch, dtype=np.float32, lanes=16, seed=0):
        rng = np.random.default_rng(seed)
        self.w, self.x, self.d = (
            rng.standard_normal(shape).astype(dtype)
            for shape in ((n_out, n_in), (batch, n_in), (batch, n_out))
        )
        self.bias = rng.standard_normal(n_out).astype(dtype)
        self.lanes, self.dtype, self.batch = lanes, dtype, batch
        self.width = kernels.width(lanes, self.x.itemsize)

    def tiled(self, array):
        return tiles.aligned(to_tiles_reference(array, self.lanes))

    def forward(self, bias=None, rectify=False, splits=3):
        valid = np.ones(2 * self.lanes, self.dtype)
        if self.batch % self.lanes:
            valid[self.lanes + self.batch % self.lanes :] = 0
        x = self.tiled(self.x)
        out = np.full((len(x), len(self.w), self.lanes), np.nan, self.dtype)
        bias = np.zeros(len(self.w), self.dtype) if bias is None else bias
        kernel = kernels.gemm(self.lanes, self.width)
        kernel(self.w.reshape(-1), splits, bias, valid, rectify, x, out)
        return out

    def transposed(self, gate=None):
        d = self.tiled(self.d)
        out = np.full((len(d), self.w.shape[1], self.lanes), np.nan, self.dtype)
        pack = np.full(jit.get_num_threads() * kernels.ROWS * kernels.DEPTH, np.nan, self.dtype)
        kernel = kernels.gemm_t(self.lanes, self.width)
        gated = gate is not None
        kernel(self.w.reshape(-1), pack, gated, self.tiled(gate) if gated else d, d, out)
        return out

    def gradient(self, splits=3):
        out = np.full(self.w.shape, np.nan, self.dtype)
        width = kernels.width(kernels.ROWS, self.x.itemsize)
        kernel = kernels.gemm_w(self.lanes, width)
        size = jit.get_num_threads() * (self.lanes + 1) * kernels.ROWS
        pack = np.full(size, np.nan, self.dtype)
        sums = np.full(len(self.w), np.nan, self.dtype)
        kernel(splits, pack, self.tiled(self.d), self.tiled(self.x), sums, out.reshape(-1))
        self.sums = sums, self.d.sum(axis=0, dtype=np.float64)
        return out

    def check(self):
        def close(out, twin, a, b):
            atol = roundoff(a, b, dtype=self.dtype)
            np.testing.assert_allclose(out, twin, rtol=0, atol=atol)

        out = from_tiles_reference(self.forward(), self.batch)
        close(out, dense_forward(self.w, self.x.T).T, self.x, self.w.T)
        out = from_tiles_reference(self.transposed(), self.batch)
        close(out, dense_input_gradient(self.w, self.d.T).T, self.d, self.w)
        close(self.gradient(), dense_weight_gradient(self.d.T, self.x.T), self.d.T, self.x)
        close(*self.sums, np.ones((1, self.batch)), self.d)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_three_products_match_their_twins_on_odd_shapes(shape):
    for batch in (1, 16, 37):
        Problem(*shape, batch).check()


@settings(max_examples=40)
@given(st.integers(1, 150), st.integers(1, 300), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_the_three_products_match_their_twins_on_any_shape(n_out, n_in, batch, seed):
    Problem(n_out, n_in, batch, seed=seed).check()


@pytest.mark.parametrize("lanes", tiles.LANES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_lane_width_and_dtype_matches_its_twin(lanes, dtype):
    for batch in (1, lanes, 2 * lanes + 3):
        Problem(70, 133, batch, dtype, lanes).check()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_a_relu_is_taken_in_the_same_pass(shape):
    problem = Problem(*shape, batch=21)
    gate = np.maximum(problem.x - 0.3, 0)
    expected = from_tiles_reference(problem.transposed(), 21) * (gate > 0)
    np.testing.assert_array_equal(from_tiles_reference(problem.transposed(gate), 21), expected)


def test_padded_lanes_are_exactly_zero_also_with_a_bias():
    problem = Problem(21, 130, 21)
    for rectify in (False, True):
        np.testing.assert_array_equal(problem.forward(problem.bias, rectify)[1, :, 21 - 16 :], 0)
    np.testing.assert_array_equal(problem.transposed()[1, :, 21 - 16 :], 0)


def test_bias_and_relu_are_added_in_the_same_pass():
    problem = Problem(41, 300, 33)
    plain = from_tiles_reference(problem.forward(problem.bias), 33)
    twin = dense_forward(problem.w, problem.x.T).T + problem.bias
    np.testing.assert_allclose(plain, twin, rtol=0, atol=1e-4)
    fused = from_tiles_reference(problem.forward(problem.bias, rectify=True), 33)
    np.testing.assert_array_equal(fused, np.maximum(plain, 0))


def test_a_nan_reaches_only_the_sample_and_the_weights_that_have_it():
    problem = Problem(22, 70, 20)
    problem.x[3, 60] = problem.d[5, 21] = np.nan
    expected = np.arange(20)[:, None] == 3
    out = from_tiles_reference(problem.forward(problem.bias, rectify=True), 20)
    np.testing.assert_array_equal(np.isnan(out), np.broadcast_to(expected, out.shape))
    out = from_tiles_reference(problem.transposed(), 20)
    expected = np.arange(20)[:, None] == 5
    np.testing.assert_array_equal(np.isnan(out), np.broadcast_to(expected, out.shape))
    expected = np.zeros((22, 70), np.bool_)
    expected[:, 60] = expected[21] = True
    np.testing.assert_array_equal(np.isnan(problem.gradient()), expected)


def test_threads_and_splits_do_not_change_a_bit():
    problem = Problem(131, 257, 100)
    before, results = jit.get_num_threads(), []
    try:
        for threads, splits in ((1, 1), (2, 2), (2, 8), (1, 1000)):
            jit.set_num_threads(threads)
            results.append(
                (problem.forward(splits=splits), problem.transposed(), problem.gradient(splits))
            )
    finally:
        jit.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
