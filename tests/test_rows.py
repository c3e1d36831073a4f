"""`Rows`: a mini-batch that is gathered only when somebody asks for it."""

import numpy as np
import pytest
from scipy import sparse

from nnsparse.data import Rows
from nnsparse.row_gradient import RowGradient
from nnsparse.rows import SparseRows

X = np.arange(12.0).reshape(4, 3)


def test_rows_are_those_of_the_index_in_its_order():
    rows = Rows(X, [2, 0, 2])
    np.testing.assert_array_equal(np.asarray(rows), X[[2, 0, 2]])
    np.testing.assert_array_equal(list(rows), X[[2, 0, 2]])
    assert rows.shape == (3, 3)
    assert rows.ndim == 2
    assert rows.dtype == np.float64
    assert len(rows) == 3
    assert repr(rows) == "Rows(shape=(3, 3), dtype=float64)"


def test_without_an_index_all_rows_are_there():
    np.testing.assert_array_equal(Rows(X), X)
    assert Rows(X).shape == (4, 3)


def test_no_row_is_copied_before_it_is_asked_for():
    x = X.copy()
    rows = Rows(x, [1])
    assert rows.array is x
    x[1] = 7
    np.testing.assert_array_equal(np.asarray(rows), [[7, 7, 7]])


def test_an_array_made_of_rows_shares_nothing_with_them():
    x = X.copy()
    np.asarray(Rows(x))[...] = -1
    np.testing.assert_array_equal(x, X)


def test_numpy_functions_convert_the_dtype():
    assert np.asarray(Rows(X), dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="have to be gathered"):
        Rows(X).__array__(copy=False)


@pytest.mark.parametrize("index", [[], np.empty(0, np.int64), range(0)])
def test_an_empty_selection_has_no_rows(index):
    assert Rows(X, index).shape == (0, 3)
    assert np.asarray(Rows(X, index)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i8"])
def test_any_integer_dtype_is_an_index(dtype):
    rows = Rows(X, np.array([3, 1], dtype))
    np.testing.assert_array_equal(np.asarray(rows), X[[3, 1]])
    assert rows.index.dtype == np.int64


@pytest.mark.parametrize(
    ("array", "index", "error", "message"),
    [
        (X[0], None, ValueError, r"shape \(batch, n_features\); got \(3,\). One sample\?"),
        (X[None], None, ValueError, r"got \(1, 4, 3\)"),
        (3.0, None, ValueError, r"got \(\)"),
        (X.astype(complex), None, TypeError, "real numbers; got dtype complex128"),
        (X.astype(object), None, TypeError, "got dtype object"),
        (np.ma.masked_array(X, X > 5), None, ValueError, r"masked entries; .* a.filled\(0\)"),
        ([["a"]], None, TypeError, "got dtype <U1"),
        (X, [4], ValueError, "out of range: expected 0 to 3"),
        (X, [-1], ValueError, "out of range"),
        (X, np.array([2**64 - 1], np.uint64), ValueError, "out of range"),
        (X, [0.0], TypeError, "integers as index; got float64"),
        (X, [True, False, True, True], TypeError, "got bool"),
        (X, [[0]], TypeError, r"got int64 \(1, 1\)"),
    ],
)
def test_bad_rows_are_refused(array, index, error, message):
    with pytest.raises(error, match=message):
        Rows(array, index)


def test_sparse_rows_add_duplicates_in_a_copy():
    given = sparse.csr_matrix((np.array([1.0, 2.0, 4.0]), [2, 0, 2], [0, 3]), shape=(1, 3))
    rows = SparseRows(given)
    np.testing.assert_array_equal(rows.indices, [0, 2])
    np.testing.assert_array_equal(rows.values, [2.0, 5.0])
    np.testing.assert_array_equal(given.data, [1.0, 2.0, 4.0])


def test_a_gradient_of_rows_is_added_to_an_array_from_either_side():
    gradient = RowGradient(np.array([1]), np.ones((1, 3), np.float32), (4, 3))
    want = X + np.asarray(gradient)
    np.testing.assert_array_equal(gradient.__radd__(X), want)
    np.testing.assert_array_equal(gradient + X, want)
    assert repr(gradient) == "RowGradient(1 of 4 rows, shape=(4, 3), dtype=float32)"
