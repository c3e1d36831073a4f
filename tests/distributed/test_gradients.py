"""Gradients as one flat array: what is in it, and what comes back."""

import numpy as np
import pytest

from nnsparse.distributed.gradients import Trailer, pack, trailer_size, unpack, words
from nnsparse.parameter import Parameter, SparseParameter
from nnsparse.row_gradient import RowGradient
from nnsparse.topology import Topology


def parameters(dtype=np.float32):
    topology = Topology.from_coo((2, 3), [0, 1, 1], [1, 0, 2])
    return {
        "weight": SparseParameter(topology, [1.0, 2.0, 3.0], dtype),
        "bias": Parameter(np.zeros(2), dtype),
        "table": Parameter(np.zeros((3, 2)), dtype),
    }


def trailer(weight=2.0, loss=0.5):
    return Trailer(loss, weight, 1.0, (7, 8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nonzeros_biases_and_tables_lie_one_after_the_other_then_the_trailer(dtype):
    params = parameters(dtype)
    params["weight"].grad = np.array([1, 2, 3], dtype)
    params["table"].grad = RowGradient([1], np.array([[5, 6]], dtype), (3, 2))
    flat = pack(params, trailer())
    assert flat.dtype == dtype
    assert flat.ctypes.data % 64 == 0
    assert flat.tolist() == [
        *(2, 4, 6),
        *(0, 0),
        *(0, 0, 10, 12, 0, 0),
        *(1, 0, 1),
        *(1.0, 2.0, 1.0, 7, 8),
    ]
    assert flat.size == 11 + trailer_size(params, 2)


def test_what_comes_back_is_the_sum_over_the_weight_and_a_parameter_without_gradient_stays_so():
    params = parameters()
    params["weight"].grad = np.float32([1, 2, 3])
    params["table"].grad = np.ones((3, 2), np.float32)
    total = pack(params, trailer(2.0, 0.5)) + pack(params, trailer(6.0, 1.5))
    found = unpack(params, total, 2)
    assert found == Trailer(1.25, 8.0, 2.0, (14, 16))
    assert params["weight"].grad.tolist() == [1, 2, 3]
    assert params["bias"].grad is None
    assert params["table"].grad.tolist() == [[1, 1]] * 3
    assert params["table"].grad.flags.carray


def test_a_rank_without_samples_adds_nothing_whatever_its_gradients_and_loss_are():
    params = parameters()
    for p in params.values():
        p.grad = np.full(p.shape, np.nan, np.float32)
    flat = pack(params, trailer(0.0, np.nan))
    assert flat[:11].tolist() == [0] * 11
    assert flat[14:].tolist() == [0, 0, 1, 7, 8]
    found = unpack(params, flat, 2)
    assert (found.loss, found.weight) == (0, 0)
    assert params["weight"].grad.tolist() == [0, 0, 0]


def test_nan_and_infinity_of_a_rank_with_samples_reach_all():
    params = parameters()
    params["weight"].grad = np.float32([np.nan, np.inf, 1])
    unpack(params, pack(params, trailer()), 2)
    assert np.isnan(params["weight"].grad[0])
    assert params["weight"].grad[1:].tolist() == [np.inf, 1]


def test_mixed_dtypes_travel_as_the_widest_and_come_back_as_their_own():
    params = parameters() | {"scale": Parameter(np.zeros(1))}
    for p in params.values():
        p.grad = np.full(p.shape, 0.1, p.dtype)
    flat = pack(params, trailer(3.0))
    assert flat.dtype == np.float64
    unpack(params, flat, 2)
    assert [p.grad.dtype for p in params.values()] == [np.float32] * 3 + [np.float64]
    assert params["bias"].grad[0] == np.float32(0.1)


def test_a_gradient_of_another_shape_is_refused_by_name():
    params = parameters()
    params["weight"].grad = np.zeros(4, np.float32)
    with pytest.raises(
        ValueError, match=r"'weight' expects a gradient of shape \(3,\); got \(4,\)"
    ):
        pack(params, trailer())


@pytest.mark.parametrize("size", [2, 255, 256, 4000])
def test_sums_of_words_over_the_ranks_are_exact_in_float32(size):
    for word in words(bytes([255] * 8), size):
        assert float(np.float32(word) * np.float32(size)) == word * size <= 2**24
