"""`Tensor` and `tensor`: what goes in, what comes out."""

import numpy as np
import pytest

from nnsparse.autograd import Tensor, tensor
from nnsparse.testing import to_tiles_reference


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], np.float32),
        (np.ones(2, np.float16), np.float32),
        (np.array([True]), np.float32),
        (np.ones(2), np.float64),
        (np.ones(2, np.float32), np.float32),
    ],
)
def test_tensor_copies_and_converts_once(values, dtype) -> None:
    t = tensor(values)
    assert t.dtype == dtype
    assert not np.shares_memory(t.data, values)


def test_a_tensor_of_text_is_refused() -> None:
    with pytest.raises(TypeError, match="real numbers"):
        tensor(["a"])  # type: ignore[list-item]


def test_an_activation_shows_its_samples_only() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    x = Tensor(to_tiles_reference(rows, 16), batch=3)
    assert (x.shape, x.ndim, x.size, len(x)) == ((3, 2), 2, 6, 3)
    np.testing.assert_array_equal(x.numpy(), rows)
    np.testing.assert_array_equal(np.asarray(x), rows)
    assert "shape=(3, 2)" in repr(x)


def test_a_single_number_converts_to_float() -> None:
    assert float(tensor([2.5])) == 2.5
    assert tensor(2.5).item() == 2.5
