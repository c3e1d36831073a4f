"""What growth looks at: the taps of all ranks, on every rank, in one order."""

import numpy as np
import pytest

from nnsparse import nn
from nnsparse.distributed import in_threads
from nnsparse.distributed.taps import gather_taps


def tap(n_tiles, lanes, value):
    """(d, x) of a layer 3 -> 2, all of one value."""
    return np.full((n_tiles, 2, lanes), value), np.full((n_tiles, 3, lanes), 10.0 * value)


def gather(taps_of_ranks):
    def program(comm):
        layer = nn.SparseLinear(3, 2, density=1, dtype=np.float64, rng=0)
        layer.taps = list(taps_of_ranks[comm.Get_rank()])
        received = gather_taps(comm, [layer], 0.5)
        return layer.taps, received

    return in_threads(len(taps_of_ranks), program)


def test_tiles_of_all_ranks_lie_one_after_the_other_d_times_each_ranks_part():
    (first, received), (second, _) = gather([[tap(1, 16, 1.0)], [tap(2, 16, 3.0)]])
    ((d, x),) = first
    assert d[:, 0, 0].tolist() == [0.5, 1.5, 1.5]
    assert x[:, 0, 0].tolist() == [10, 30, 30]
    for a, b in zip(first[0], second[0], strict=True):
        assert a.tobytes() == b.tobytes()
    assert received == 2 * 2 * 8 + 2 * (2 * 2 * 16 * 8) + 2 * (2 * 3 * 16 * 8)


def test_fewer_lanes_are_filled_up_with_zeros():
    (taps, _), _ = gather([[tap(1, 16, 1.0)], [tap(1, 32, 1.0)]])
    d, x = taps[0]
    assert d.shape == (2, 2, 32)
    assert not d[0, :, 16:].any()
    assert not x[0, :, 16:].any()
    assert np.einsum("tol,til->oi", d, x)[0, 0] == pytest.approx(0.5 * 10 * 48)


def test_several_uses_of_a_layer_and_ranks_without_samples_are_joined():
    (taps, _), (same, _) = gather([[tap(1, 16, 1.0), tap(1, 16, 2.0)], []])
    d, _ = taps[0]
    assert d[:, 0, 0].tolist() == [0.5, 1.0]
    assert same[0][0].tobytes() == d.tobytes()


def test_a_layer_that_no_rank_has_used_keeps_an_empty_list():
    assert [taps for taps, _ in gather([[], []])] == [[], []]
