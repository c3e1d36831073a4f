"""Topology: canonical after every operation, round trips, set algebra, exact uniform draws."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from nnsparse.testing import odd_topologies, random_topology
from nnsparse.topology import Topology

ODD = dict(odd_topologies(np.random.default_rng(0)))
SEED = st.integers(0, 2**32 - 1)
TEN_MILLION = 10_000_000


@st.composite
def masks(draw, n=2):
    """n masks of one shape, zero sizes included."""
    shape = draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))
    rng = np.random.default_rng(draw(SEED))
    return [rng.random(shape) < draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1])) for _ in range(n)]


@pytest.fixture(params=ODD.values(), ids=ODD.keys())
def odd(request):
    return request.param


def assert_canonical(topology):
    """Rebuilding through the validating constructor changes nothing."""
    again = Topology(topology.shape, topology.indptr, topology.indices)
    assert again == topology
    assert hash(again) == hash(topology)
    assert again.indptr.dtype == topology.indptr.dtype
    assert again._columns.dtype == topology._columns.dtype
    for array in (topology.indptr, topology.indices, topology._columns):
        assert not array.flags.writeable
        assert array.flags.c_contiguous


# ---------------------------------------------------------------- views and round trips


@given(masks(1))
def test_dense_goes_in_and_comes_out(mask):
    topology = Topology.from_dense(mask[0])
    assert_canonical(topology)
    np.testing.assert_array_equal(topology.to_dense(), mask[0])
    assert topology.to_dense().dtype == np.bool_
    assert topology.nnz == mask[0].sum()


@given(masks(1), SEED)
def test_coo_in_any_order_is_the_same_topology(mask, seed):
    rows, cols = np.nonzero(mask[0])
    order = np.random.default_rng(seed).permutation(rows.size)
    topology = Topology.from_coo(mask[0].shape, rows[order], cols[order])
    assert_canonical(topology)
    assert topology == Topology.from_dense(mask[0])
    np.testing.assert_array_equal(topology.coo(), (rows, cols))


def test_every_view_of_an_odd_topology_agrees_with_scipy(odd):
    assert_canonical(odd)
    twin = sparse.csr_array(odd.to_dense())
    np.testing.assert_array_equal(odd.csr()[0], twin.indptr)
    np.testing.assert_array_equal(odd.csr()[1], twin.indices)
    np.testing.assert_array_equal(odd.row_counts(), odd.to_dense().sum(axis=1))
    np.testing.assert_array_equal(odd.column_counts(), odd.to_dense().sum(axis=0))
    np.testing.assert_array_equal(odd.rows(), np.nonzero(odd.to_dense())[0])
    csc = twin.tocsc()
    indptr, rows, permutation = odd.csc()
    np.testing.assert_array_equal(indptr, csc.indptr)
    np.testing.assert_array_equal(rows, csc.indices)
    np.testing.assert_array_equal(np.sort(permutation), np.arange(odd.nnz))
    assert odd.density + odd.sparsity == 1


def test_csc_permutation_carries_values_from_csr_to_csc_order(odd):
    values = np.arange(1.0, odd.nnz + 1)
    np.testing.assert_array_equal(values[odd.csc()[2]], odd.to_scipy(values).tocsc().data)


def test_transpose_is_its_own_inverse(odd):
    assert_canonical(odd.T)
    np.testing.assert_array_equal(odd.T.to_dense(), odd.to_dense().T)
    assert odd == odd.transpose().T


def test_scipy_goes_out_and_comes_in_with_values(odd):
    values = np.random.default_rng(0).standard_normal(odd.nnz)
    matrix = odd.to_scipy(values)
    assert matrix.dtype == np.float64
    assert Topology.from_scipy(matrix) == odd
    np.testing.assert_array_equal(matrix.toarray(), odd.to_dense(values))
    assert odd.to_scipy().dtype == np.float32
    assert odd.to_scipy(values, np.float32).dtype == np.float32
    assert odd.to_scipy().sum() == odd.nnz


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
def test_from_scipy_takes_every_format_and_leaves_it_alone(kind):
    topology = ODD["empty rows and columns"]
    for matrix in (topology.to_scipy(), sparse.csr_array(topology.to_scipy())):
        given_matrix = matrix.asformat(kind)
        before = given_matrix.copy()
        assert Topology.from_scipy(given_matrix) == topology
        assert (given_matrix != before).nnz == 0


def test_from_scipy_sorts_and_merges_in_a_copy_and_keeps_stored_zeros():
    data = np.array([0.0, 1, 2, -2, 5])
    columns = np.array([2, 0, 1, 1, 0])
    matrix = sparse.csr_array((data, columns, np.array([0, 4, 5])), shape=(2, 3))
    topology = Topology.from_scipy(matrix)
    np.testing.assert_array_equal(topology.to_dense(), [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(matrix.indices, columns)
    np.testing.assert_array_equal(matrix.data, data)


def test_the_slides_csr_fixture_is_read_as_printed():
    topology = Topology((7, 5), [0, 2, 3, 3, 3, 6, 6, 7], [0, 2, 2, 2, 3, 4, 3])
    dense = topology.to_dense([8, 2, 5, 7, 1, 2, 9])
    np.testing.assert_array_equal(
        dense[[0, 1, 4, 6]],
        np.array([[8, 0, 2, 0, 0], [0, 0, 5, 0, 0], [0, 0, 7, 1, 2], [0, 0, 0, 9, 0]]),
    )
    np.testing.assert_array_equal(topology.row_counts(), [2, 1, 0, 0, 3, 0, 1])


def test_membership_is_by_row_and_column(odd):
    dense = odd.to_dense()
    for row in range(-1, min(odd.shape[0], 5) + 1):
        for col in range(-1, min(odd.shape[1], 40) + 1):
            inside = 0 <= row < odd.shape[0] and 0 <= col < odd.shape[1]
            assert ((row, col) in odd) == bool(inside and dense[row, col])


def test_values_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match=r"expects values of shape \(4,\); got \(3,\)"):
        Topology.full((2, 2)).to_scipy(np.ones(3))
    with pytest.raises(ValueError, match=r"expects values of shape \(4,\); got \(2, 2\)"):
        Topology.full((2, 2)).to_dense(np.ones((2, 2)))


# ---------------------------------------------------------------- immutable, hashable, small


def test_nothing_of_a_topology_can_be_changed():
    topology = Topology.full((3, 3))
    for name in ("shape", "nnz", "_indptr", "other"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(topology, name, 1)
    with pytest.raises(AttributeError, match="immutable"):
        del topology.shape
    for array in (topology.indptr, topology.indices):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    matrix = topology.to_scipy()
    matrix.indices[:] = 0
    matrix.indptr[:] = 0
    assert topology == Topology.full((3, 3))


def test_the_arrays_given_may_change_afterwards():
    indptr, indices = np.array([0, 2, 3]), np.array([0, 2, 1], np.uint16)
    topology = Topology((2, 3), indptr, indices)
    indptr[:], indices[:] = 0, 0
    assert topology == Topology((2, 3), [0, 2, 3], [0, 2, 1])


@given(masks(2))
def test_equal_means_same_shape_and_positions(pair):
    a, b = map(Topology.from_dense, pair)
    assert (a == b) == np.array_equal(*pair)
    assert (a.fingerprint == b.fingerprint) == (a == b)
    assert a != a.to_dense().shape


def test_equal_topologies_are_one_key_and_shape_counts():
    assert len({Topology.empty((2, 3)), Topology.empty((2, 3)), Topology.empty((3, 2))}) == 2
    assert Topology.empty((2, 3)) != Topology.empty((2, 4))
    assert Topology.empty((2, 3)).fingerprint != Topology.empty((2, 4)).fingerprint


def test_pickle_and_copy_give_an_equal_topology(odd):
    again = pickle.loads(pickle.dumps(odd))
    assert_canonical(again)
    assert again == odd
    assert copy.copy(odd) is odd
    assert copy.deepcopy(odd) is odd


def test_indices_are_kept_in_the_smallest_width_that_holds_them():
    for n_in, kept, shown in [
        (65_536, np.uint16, np.int32),
        (65_537, np.int32, np.int32),
        (2**31 - 1, np.int32, np.int32),
        (2**31, np.int64, np.int64),
        (2**62, np.int64, np.int64),
    ]:
        topology = Topology.from_coo((1, n_in), [0, 0], [n_in - 1, 0])
        assert topology._columns.dtype == kept
        assert topology.indices.dtype == shown
        assert topology.indptr.dtype == np.int32
        assert topology.indices.tolist() == [0, n_in - 1]
        assert topology.nbytes == 2 * np.dtype(kept).itemsize + 8


def test_the_representation_names_shape_count_and_sparsity():
    topology = Topology.random((300, 784), nnz=18714, rng=0)
    assert repr(topology) == "Topology(300 x 784, nnz=18714, sparsity=0.920434)"


def test_what_is_derived_is_built_once():
    built = []
    build, other = _count_into(built), _count_into(built)
    topology = Topology.full((2, 2))
    assert [topology.derived(build) for _ in range(5)] == [4] * 5
    assert built == [topology]
    assert topology.derived(other) == 4
    assert len(built) == 2


def _count_into(built):
    def build(topology):
        built.append(topology)
        return topology.nnz

    return build


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("shape", "indptr", "indices", "error", "message"),
    [
        ((2.0, 3), [0, 0, 0], [], TypeError, r"two integers; got \(2.0, 3\)"),
        ((2, 3, 4), [0, 0, 0], [], TypeError, "two integers"),
        (5, [0, 0, 0], [], TypeError, "two integers; got 5"),
        ((-1, 3), [0], [], ValueError, r"both >= 0 .*; got \(-1, 3\)"),
        ((2**32, 2**31), [0], [], ValueError, r"< 2\*\*63"),
        ((2, 3), [0, 1], [0], ValueError, "length n_out \\+ 1 = 3; got 2"),
        ((2, 3), [1, 1, 2], [0, 1], ValueError, "from 0 to .* = 2; got 1 to 2"),
        ((2, 3), [0, 1, 1], [0, 1], ValueError, "from 0 to .* = 2; got 0 to 1"),
        ((2, 3), [0, 1, 3], [0, 1], ValueError, "from 0 to .* = 2; got 0 to 3"),
        ((3, 3), [0, 2, 1, 2], [0, 1], ValueError, "never to fall; got 2 then 1 at row 1"),
        ((3, 3), [0, 9, 1, 2], [0, 1], ValueError, "never to fall; got 9 then 1 at row 1"),
        ((3, 3), [0, -1, 1, 2], [0, 1], ValueError, "never to fall; got 0 then -1 at row 0"),
        ((2, 3), [0, 1, 2], [0, 3], ValueError, "n_in - 1 = 2; got 3 at position 1"),
        ((2, 3), [0, 1, 2], [-1, 0], ValueError, "n_in - 1 = 2; got -1 at position 0"),
        ((2, 3), [0, 1, 2], [0, 2**40], ValueError, "got 1099511627776 at position 1"),
        ((2, 3), [0, 0, 3], [0, 2, 1], ValueError, "unsorted: column 1 after 2 in row 1"),
        ((2, 3), [0, 0, 3], [0, 2, 2], ValueError, "duplicate: column 2 after 2 in row 1"),
        ((2, 3), [0, 1, 2], [0.0, 1.0], TypeError, "integer dtype; got float64"),
        ((2, 3), [0.0, 1.0, 2.0], [0, 1], TypeError, "indptr of an integer dtype"),
        ((2, 3), [0, 1, 2], [True, False], TypeError, "integer dtype; got bool"),
        ((2, 3), [0, 1, 2], [[0, 1]], ValueError, r"one-dimensional; got shape \(1, 2\)"),
    ],
)
def test_what_is_not_canonical_csr_is_refused(shape, indptr, indices, error, message):
    with pytest.raises(error, match=message):
        Topology(shape, indptr, indices)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_every_integer_dtype_is_checked_alike(dtype):
    indptr, indices = np.array([0, 2, 2, 4], dtype), np.array([1, 2, 0, 2], dtype)
    assert_canonical(Topology((3, 3), indptr, indices))
    with pytest.raises(ValueError, match="got 2 at position 1"):
        Topology((3, 2), indptr, indices)
    with pytest.raises(ValueError, match="never to fall"):
        Topology((3, 3), indptr[[0, 1, 0, 3]], indices)
    with pytest.raises(ValueError, match="unsorted"):
        Topology((3, 3), indptr, indices[::-1])


def test_strided_and_read_only_arrays_are_taken():
    indices = np.array([1, 9, 2, 9, 0, 9, 2, 9])[::2]
    indptr = np.array([0, 2, 2, 4])
    indptr.flags.writeable = False
    assert_canonical(Topology((3, 3), indptr, indices))


@pytest.mark.parametrize(
    ("rows", "cols", "error", "message"),
    [
        ([0, 1], [0], ValueError, "equal length; got 2 and 1"),
        ([0, 2], [0, 1], ValueError, "rows from 0 to n_out - 1 = 1; got 2 at position 1"),
        ([0, 1], [0, 3], ValueError, "cols from 0 to n_in - 1 = 2; got 3 at position 1"),
        ([1, 0, 1], [2, 0, 2], ValueError, "row 1, column 2 twice"),
        ([0.5], [0], TypeError, "rows of an integer dtype"),
    ],
)
def test_coordinates_out_of_range_or_doubled_are_refused(rows, cols, error, message):
    with pytest.raises(error, match=message):
        Topology.from_coo((2, 3), rows, cols)


def test_what_is_not_sparse_or_not_two_dimensional_is_refused():
    with pytest.raises(TypeError, match=r"got ndarray\. Dense"):
        Topology.from_scipy(np.eye(3))
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        Topology.from_scipy(sparse.coo_array(np.ones(3)))
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        Topology.from_dense(np.ones(3))
    broken = sparse.csr_array(np.eye(3))
    broken.indices[1] = 7
    with pytest.raises(ValueError, match="indices"):
        Topology.from_scipy(broken)


# ---------------------------------------------------------------- random


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0, 1), SEED)
def test_random_has_the_exact_number_asked_for(n_out, n_in, fraction, seed):
    shape = (n_out, n_in)
    topology = Topology.random(shape, density=fraction, rng=seed)
    assert_canonical(topology)
    assert topology.nnz == round(fraction * n_out * n_in)
    assert topology == Topology.random(shape, density=fraction, rng=np.random.default_rng(seed))
    assert topology == Topology.random(shape, nnz=topology.nnz, rng=seed)
    by_sparsity = Topology.random(shape, sparsity=fraction, rng=seed)
    assert by_sparsity.nnz == round((1 - fraction) * n_out * n_in)


def test_full_and_empty_have_everything_and_nothing():
    for shape in [(0, 0), (0, 4), (4, 0), (3, 5)]:
        full, empty = Topology.full(shape), Topology.empty(shape)
        assert_canonical(full)
        assert_canonical(empty)
        assert full == Topology.from_dense(np.ones(shape))
        assert empty == Topology.from_dense(np.zeros(shape))
        assert full == Topology.random(shape, sparsity=0.0)
        assert empty == Topology.random(shape, density=0.0)


@pytest.mark.parametrize("density", [0.1, 0.4, 0.8])
def test_random_takes_every_position_equally_often(density):
    rng, shape, times = np.random.default_rng(1), (6, 7), 4000
    seen = np.zeros(shape)
    for _ in range(times):
        seen += Topology.random(shape, density=density, rng=rng).to_dense()
    p = round(density * 42) / 42
    assert np.abs(seen / times - p).max() < 5 * np.sqrt(p * (1 - p) / times)


def test_random_needs_exactly_one_fraction_in_range():
    with pytest.raises(TypeError, match="exactly one"):
        Topology.random((3, 3))
    with pytest.raises(TypeError, match="exactly one"):
        Topology.random((3, 3), sparsity=0.5, nnz=2)
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"sparsity in \[0, 1\]"):
            Topology.random((3, 3), sparsity=bad)
    with pytest.raises(ValueError, match="nnz from 0 to 9"):
        Topology.random((3, 3), nnz=10)


def test_a_topology_of_ten_million_squared_takes_memory_for_its_nonzeros_only():
    shape, nnz = (TEN_MILLION, TEN_MILLION), 200_000
    tracemalloc.start()
    topology = Topology.random(shape, nnz=nnz, rng=0)
    grown = topology | topology.random_free(nnz, rng=1)
    assert grown.nnz == 2 * nnz
    assert topology.issubset(grown)
    assert grown.T.shape == shape
    np.testing.assert_array_equal(topology.positions_in(grown) >= 0, True)
    assert Topology.from_coo(shape, *grown.coo()) == grown
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * (nnz + 2 * TEN_MILLION)


# ---------------------------------------------------------------- set algebra


@given(masks(2))
def test_set_algebra_is_that_of_the_masks(pair):
    a, b = map(Topology.from_dense, pair)
    for topology, mask in [
        (a | b, pair[0] | pair[1]),
        (a & b, pair[0] & pair[1]),
        (a - b, pair[0] & ~pair[1]),
        (a ^ b, pair[0] ^ pair[1]),
    ]:
        assert_canonical(topology)
        np.testing.assert_array_equal(topology.to_dense(), mask)
    assert a.issubset(b) == bool(np.all(pair[1][pair[0]]))


@given(masks(2))
def test_positions_in_moves_values_to_another_topology(pair):
    a, b = map(Topology.from_dense, pair)
    places = a.positions_in(b)
    values = np.arange(1.0, b.nnz + 1)
    moved = np.where(places >= 0, np.append(values, 0.0)[places], 0.0)
    np.testing.assert_array_equal(a.to_dense(moved), b.to_dense(values) * pair[0])
    np.testing.assert_array_equal(a.positions_in(a), np.arange(a.nnz))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (2, 70_000)])
def test_positions_and_unions_of_empty_and_wide_topologies(shape):
    empty, full = Topology.empty(shape), Topology.full(shape)
    np.testing.assert_array_equal(full.positions_in(empty), np.full(full.nnz, -1))
    np.testing.assert_array_equal(empty.positions_in(full), np.empty(0))
    np.testing.assert_array_equal(full.positions_in(full), np.arange(full.nnz))
    assert empty | full == full | empty == full | full == full
    assert_canonical(empty | full)


@given(masks(1), st.data(), SEED)
def test_random_free_draws_exactly_k_positions_outside(mask, data, seed):
    topology = Topology.from_dense(mask[0])
    k = data.draw(st.integers(0, mask[0].size - topology.nnz))
    free = topology.random_free(k, seed)
    assert_canonical(free)
    assert free.nnz == k
    assert (free & topology).nnz == 0
    assert free == topology.random_free(k, np.random.default_rng(seed))


def test_random_free_takes_every_free_position_equally_often():
    rng, times = np.random.default_rng(3), 4000
    topology = Topology.random((5, 8), nnz=17, rng=rng)
    seen = np.zeros(topology.shape)
    for _ in range(times):
        seen += topology.random_free(6, rng).to_dense()
    p = 6 / 23
    outside = ~topology.to_dense()
    assert seen[~outside].sum() == 0
    assert np.abs(seen[outside] / times - p).max() < 5 * np.sqrt(p * (1 - p) / times)


def test_more_free_positions_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"from 0 to 2.*got 3"):
        Topology.random((2, 3), nnz=4, rng=0).random_free(3, 0)


def test_topologies_of_different_shape_do_not_mix():
    a, b = Topology.full((2, 3)), Topology.full((3, 2))
    for operation in (
        lambda: a | b,
        lambda: a & b,
        lambda: a - b,
        lambda: a ^ b,
        lambda: a.issubset(b),
        lambda: a.positions_in(b),
    ):
        with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3, 2\)"):
            operation()
    with pytest.raises(TypeError):
        a | np.ones((2, 3))


@given(SEED)
def test_random_topologies_for_tests_are_canonical(seed):
    assert_canonical(random_topology(np.random.default_rng(seed)))


def broken(kind):
    """Return a SciPy matrix (3, 4) whose arrays do not fit together: nobody but its owner can do that."""
    matrix = sparse.random_array((3, 4), density=0.5, rng=0, format=kind)
    if kind == "coo":
        matrix.data = matrix.data[:-1]
    else:
        matrix.data[0] = [*matrix.data[0], 1.0]
    return matrix


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("coo", r"inconsistent: 5 values but 6 row indices"),
        ("lil", r"a row has \d values but \d col"),
    ],
)
def test_a_scipy_matrix_whose_arrays_do_not_fit_is_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        Topology.from_scipy(broken(kind))


@pytest.mark.parametrize("combine", [lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a - b])
def test_set_algebra_is_with_topologies_only(combine):
    with pytest.raises(TypeError, match="unsupported operand"):
        combine(Topology.full((2, 2)), {(0, 0)})
