"""The search of very wide gradients finds what a sort of all entries finds, whatever the sizes of its pieces."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import tiles
from nnsparse.kernels import outer
from nnsparse.ops.structures import Dense
from nnsparse.sparsify import staircase
from nnsparse.sparsify.stream import Stream
from nnsparse.sparsify.streaming import largest_gradients
from nnsparse.testing import to_tiles_reference
from nnsparse.topology import Topology


def tap(shape, batch, seed=0, dtype=np.float32, whole=False, skewed=False):
    """Return tiled (d, x); `whole` numbers make ties and exact sums, `skewed` norms make a steep staircase."""
    rng = np.random.default_rng(seed)
    pair = []
    for n in shape:
        a = rng.integers(-2, 3, (batch, n)) if whole else rng.standard_normal((batch, n))
        if skewed:
            a = a * np.exp(2.0 * rng.standard_normal(n))
        pair.append(tiles.aligned(to_tiles_reference(a.astype(dtype), 16)))
    return tuple(pair)


def twin(taps, kept, k):
    """Sort all entries of the gradient that the dense kernel makes: the same sums in the same order."""
    size = np.abs(sum(Dense(*kept.shape).gradient(d, x) for d, x in taps)).reshape(-1)
    size[kept.to_dense().reshape(-1) | np.isnan(size)] = -1
    best = np.lexsort((np.arange(size.size), -size))[:k]
    return Topology.from_coo(kept.shape, *np.divmod(best[size[best] >= 0], kept.shape[1]))


@pytest.fixture(params=[(1, 1), (7, 2), (2**22, 4)])
def small(request, monkeypatch):
    """Makes every gradient a wide one, cut into rectangles of a few blocks."""
    area, few = request.param
    monkeypatch.setattr(staircase, "AREA", area)
    monkeypatch.setattr(staircase, "FEW", few)
    monkeypatch.setattr(staircase, "is_wide", lambda stream: True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("whole", "skewed"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("shape", [(200, 300), (1, 900), (900, 1), (65, 129), (33, 64)])
def test_wide_gradients_give_what_a_sort_of_the_dense_one_gives(small, shape, whole, skewed, dtype):
    kept = Topology.random(shape, density=0.1, rng=0)
    taps = [tap(shape, 37, 1, dtype=dtype, whole=whole, skewed=skewed)]
    for k in (1, 50, kept.shape[0] * kept.shape[1] - kept.nnz):
        assert largest_gradients(taps, kept, k) == twin(taps, kept, k)


@given(st.integers(1, 150), st.integers(1, 200), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_rows_and_columns_of_zeros_win_by_position(n_out, n_in, share, seed):
    rng = np.random.default_rng(seed)
    kept = Topology.random((n_out, n_in), density=0.2, rng=rng)
    d, x = tap(kept.shape, 20, seed)
    d[:, rng.random(n_out) < 0.6] = 0
    x[:, rng.random(n_in) < 0.6] = 0
    k = max(1, round(share * (n_out * n_in - kept.nnz)))
    if k > n_out * n_in - kept.nnz:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staircase, "is_wide", lambda stream: True)
        patch.setattr(staircase, "AREA", 3)
        patch.setattr(staircase, "FEW", 1)
        assert largest_gradients([(d, x)], kept, k) == twin([(d, x)], kept, k)


def test_nan_never_grows_and_infinity_does(small):
    shape = (100, 150)
    kept = Topology.random(shape, density=0.1, rng=0)
    d, x = tap(shape, 20)
    d[0, 3, 0], x[0, 70, 1] = np.nan, np.inf
    grown = largest_gradients([(d, x)], kept, 200)
    assert grown.nnz == 200
    rows, cols = grown.coo()
    assert 3 not in rows
    assert 70 in cols
    d[...] = np.nan
    assert largest_gradients([(d, x)], kept, 200).nnz == 0


def test_the_staircase_reaches_every_block_that_matters_and_few_others():
    tops, fronts = (
        np.sort(np.random.default_rng(i).lognormal(size=n))[::-1] for i, n in ((0, 90), (1, 70))
    )
    limits = np.outer(tops, fronts) + 1e-30
    for wanted in (1, 100, 3000):
        bar = staircase._level(tops, fronts, 1e-30, wanted)
        exact = (limits >= bar).sum(1)
        reached = staircase._reach(tops, fronts, 1e-30, bar)
        assert (reached >= exact).all()
        assert reached.sum() == pytest.approx(wanted, abs=2)
    assert staircase._level(tops, fronts, 1e-30, 90 * 70) == 0.0


def test_rectangles_hold_each_block_between_two_staircases_once(monkeypatch):
    monkeypatch.setattr(staircase, "AREA", 12)
    seen, reached = np.array([3, 1, 0, 0, 0]), np.array([20, 6, 6, 2, 0])
    found = set()
    for first, last, n_panels, blocks in staircase._rectangles(seen, reached):
        assert (last - first) * n_panels <= 12 or last - first == 1
        panels, tiers = np.divmod(blocks, last - first)
        assert (panels < n_panels).all()
        found |= {(first + int(t), int(p)) for t, p in zip(tiers, panels, strict=True)}
    expected = {(t, p) for t in range(5) for p in range(seen[t], reached[t])}
    assert found == expected


def test_what_a_wide_layer_takes_is_in_proportion_to_its_width_not_to_its_square():
    """Beyond 93 000 inputs and outputs the limits of all blocks would be 33 MB or more, times four at each doubling."""
    peaks = []
    for n in (50_000, 200_000):
        rng = np.random.default_rng(0)
        kept = Topology.random((n, n), nnz=5 * n, rng=rng)
        d, x = (
            (rng.standard_normal((1, n, 16)) * rng.lognormal(size=(1, n, 1))).astype(np.float32)
            for _ in range(2)
        )
        stream = Stream.of([(d, x)], kept)
        assert staircase.is_wide(stream) == (n > 100_000)
        tracemalloc.start()
        grown = largest_gradients([(d, x)], kept, n)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert grown.nnz == n
        blocks = -(-n // outer.ROWS) * -(-n // outer.COLUMNS)
    assert peaks[1] < 8 * blocks
    assert peaks[1] < 6 * peaks[0]
