"""The challenge's inputs: the interpolation against the FFT, the official counts, memory, bad input."""

import tracemalloc

import numpy as np
import pytest
from scipy import signal, sparse

from nnsparse import datasets
from nnsparse.graph_challenge import challenge_blocks, challenge_images, images
from nnsparse.graph_challenge.images import THRESHOLDS, interpolation

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (7, 28, 28))
PICTURES = (GREY / 255).reshape(7, 784).astype(np.float32)


@pytest.fixture(scope="module")
def mnist():
    try:
        return datasets.mnist(download=False)[0][0]
    except datasets.DataUnavailable:
        pytest.skip("MNIST is not in the data home")


@pytest.mark.parametrize("side", [28, 29, 32, 45, 56, 64, 128, 256])
def test_the_interpolation_is_that_of_the_fft(side):
    signals = RNG.standard_normal((28, 5))
    twin = signal.resample(signals, side) if side > 28 else signals
    np.testing.assert_allclose(interpolation(side) @ signals, twin, atol=1e-12)
    np.testing.assert_allclose(interpolation(side).sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("side", [32, 64])
def test_pixels_are_bright_above_the_threshold_and_flattened_column_by_column(side):
    wide = signal.resample(signal.resample(GREY.astype(float), side, axis=1), side, axis=2)
    expected = (wide > THRESHOLDS[side]).transpose(0, 2, 1).reshape(7, -1)
    found = challenge_images(PICTURES, side)
    assert found.format == "csr"
    assert found.dtype == np.float32
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), expected)


def test_a_bright_row_of_a_picture_is_in_that_row_of_every_column():
    picture = np.zeros((1, 28, 28), np.float32)
    picture[0, 14] = 1  # side 56: row 28, and its neighbours by interpolation
    found = challenge_images(picture.reshape(1, -1), 56, threshold=254.9).toarray()
    columns, rows = np.nonzero(found.reshape(56, 56))
    assert set(rows) == {28}
    assert set(columns) == set(range(56))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_dtype_of_pictures_does_not_matter(dtype):
    same = challenge_images((GREY / 255).reshape(7, 784).astype(dtype), 32) != challenge_images(
        PICTURES, 32
    )
    assert same.nnz == 0


def test_blocks_are_the_whole_and_bounded(monkeypatch):
    whole = challenge_images(PICTURES, 64)
    monkeypatch.setattr(images, "_BLOCK_BYTES", 3 * 8 * 64**2)
    blocks = list(challenge_blocks(PICTURES, 64))
    assert [block.shape for block in blocks] == [(3, 4096), (3, 4096), (1, 4096)]
    assert (sparse.vstack(blocks) != whole).nnz == 0


def test_streaming_takes_memory_for_a_block_only():
    pictures = np.tile(PICTURES, (100, 1))
    tracemalloc.start()
    nnz = sum(block.nnz for block in challenge_blocks(pictures, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 8 * nnz > 60e6
    assert peak < 4 * images._BLOCK_BYTES


def test_no_pictures_give_no_rows():
    assert challenge_images(np.zeros((0, 784)), 32).shape == (0, 1024)
    assert challenge_images(np.zeros((3, 784)), 32).nnz == 0


@pytest.mark.parametrize(
    ("pictures", "side", "threshold", "error", "message"),
    [
        (np.zeros((2, 28, 28)), 32, None, ValueError, r"shape \(n, 784\); got \(2, 28, 28\)"),
        (np.zeros((2, 783)), 32, None, ValueError, r"got \(2, 783\)"),
        (GREY.reshape(7, 784), 32, None, ValueError, "from 0 to 1; got 0 to 255. 8 bits"),
        (np.full((1, 784), np.nan), 32, None, ValueError, "from 0 to 1; got nan"),
        (np.full((1, 784), -0.1), 32, None, ValueError, "from 0 to 1; got -0.1"),
        (np.zeros((1, 784), complex), 32, None, TypeError, "real numbers; got complex128"),
        (np.zeros((1, 784)), 33, None, ValueError, "sides 32, 64, 128, 256; got 33"),
        (np.zeros((1, 784)), 0, 100, ValueError, "side from 1 to"),
        (np.zeros((1, 784)), 32.5, 100, TypeError, "side to be an integer; got 32.5"),
        (np.zeros((1, 784)), 32, np.nan, ValueError, "finite threshold; got nan"),
    ],
)
def test_what_cannot_be_enlarged_is_refused(pictures, side, threshold, error, message):
    with pytest.raises(error, match=message):
        challenge_blocks(pictures, side, threshold)  # before the first block is asked for


def test_real_mnist_has_exactly_the_official_number_of_nonzeros_at_side_32(mnist):
    found = challenge_images(mnist, 32)
    assert found.shape == (60_000, 1024)
    assert found.nnz == 6_374_505


@pytest.mark.parametrize(
    ("side", "official"), [(64, 25_019_051), (128, 98_858_913), (256, 392_191_985)]
)
def test_real_mnist_comes_close_to_the_official_number_at_larger_sides(mnist, side, official):
    few = mnist[:: side // 8 - 1]  # odd: pictures of an even number are of other writers
    nnz = sum(block.nnz for block in challenge_blocks(few, side))
    assert nnz == pytest.approx(official * len(few) / 60_000, rel=0.02)
