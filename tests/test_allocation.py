"""Counts are exact integers: against the oracles of the formula sheet, and by property."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse.allocation import apportion, draw, erdos_renyi, exact_count, uniform

MLP = [(300, 784), (100, 300), (10, 100)]


@st.composite
def parts(draw_from):
    n = draw_from(st.integers(1, 8))
    share = st.one_of(st.integers(0, 50), st.floats(0, 1e6, allow_subnormal=False))
    shares = draw_from(st.lists(share, min_size=n, max_size=n))
    caps = draw_from(st.lists(st.integers(0, 1000), min_size=n, max_size=n))
    return shares, caps, draw_from(st.integers(0, sum(caps)))


# ---------------------------------------------------------------- the oracles


def test_erdos_renyi_at_sparsity_09_gives_the_printed_counts():
    assert erdos_renyi(MLP, 0.9) == [18714, 6906, 1000]


@pytest.mark.parametrize(
    ("sparsity", "densities"),
    [
        (0.8, [0.162241, 0.469362, 1]),
        (0.95, [0.038484, 0.111334, 0.918507]),
        (0.98, [0.015394, 0.044534, 0.367403]),
        (0.99, [0.007697, 0.022267, 0.183701]),
    ],
)
def test_erdos_renyi_rounds_the_printed_densities_to_a_neighbouring_count(sparsity, densities):
    counts = erdos_renyi(MLP, sparsity)
    assert sum(counts) == round((1 - sparsity) * 266_200)
    for count, density, (n_out, n_in) in zip(counts, densities, MLP, strict=True):
        assert abs(count - density * n_out * n_in) < 1 + 5e-7 * n_out * n_in


def test_erdos_renyi_on_a_wide_network_rounds_the_printed_densities():
    shapes = [(1024, 3072), (512, 1024), (10, 512)]
    counts = erdos_renyi(shapes, 0.99)
    for count, density, (n_out, n_in) in zip(
        counts, [0.00777597, 0.01749594, 0.60885863], shapes, strict=True
    ):
        assert abs(count - density * n_out * n_in) < 1.1


def test_a_layer_that_would_exceed_density_one_is_full_and_the_rest_is_solved_again():
    counts = erdos_renyi(MLP, 0.8)
    assert counts[2] == 1000
    assert counts[0] / counts[1] == pytest.approx(1084 / 400, rel=1e-4)


def test_uniform_gives_every_layer_the_same_density_within_one_weight():
    for sparsity in (0.0, 0.37, 0.9, 0.999, 1.0):
        counts = uniform(MLP, sparsity)
        assert sum(counts) == round((1 - sparsity) * 266_200)
        for count, (n_out, n_in) in zip(counts, MLP, strict=True):
            assert abs(count - (1 - sparsity) * n_out * n_in) <= 1


@pytest.mark.parametrize("rule", [erdos_renyi, uniform])
def test_sparsity_zero_fills_every_layer_and_one_empties_it(rule):
    assert rule(MLP, 0.0) == [235_200, 30_000, 1000]
    assert rule(MLP, 1.0) == [0, 0, 0]
    assert rule([], 0.5) == []
    assert rule([(0, 7), (4, 4)], 0.5) == [0, 8]


# ---------------------------------------------------------------- apportion


@given(parts())
def test_apportion_meets_total_and_caps_exactly(problem):
    shares, caps, total = problem
    counts = apportion(shares, caps, total)
    assert sum(counts) == total
    assert all(type(count) is int for count in counts)
    assert all(0 <= count <= cap for count, cap in zip(counts, caps, strict=True))


@given(parts())
def test_apportion_is_proportional_within_one_below_the_caps(problem):
    shares, caps, total = problem
    counts = apportion(shares, caps, total)
    inside = [i for i in range(len(caps)) if 0 < counts[i] < caps[i] and shares[i]]
    for i in inside:
        for j in range(len(caps)):
            level = Fraction(counts[i] + 1) / Fraction(shares[i])
            # Nobody below the cap lies more than the rounding under somebody else's level.
            if counts[i] < caps[i] and shares[j]:
                assert counts[j] <= level * Fraction(shares[j]) + 1


@given(parts(), st.permutations(range(8)))
def test_apportion_does_not_depend_on_the_order_but_for_ties(problem, order):
    shares, caps, total = problem
    order = [i for i in order if i < len(caps)]
    counts = apportion(shares, caps, total)
    moved = apportion([shares[i] for i in order], [caps[i] for i in order], total)
    assert all(abs(moved[place] - counts[i]) <= 1 for place, i in enumerate(order))


def test_apportion_gives_the_largest_remainders_one_more():
    assert apportion([0.5, 0.3, 0.2], [10, 10, 10], 9) == [4, 3, 2]  # 4.5 2.7 1.8
    assert apportion([1, 1, 1], [10, 10, 10], 4) == [2, 1, 1]  # ties: the first


def test_a_part_without_share_gets_something_only_when_the_others_are_full():
    assert apportion([0, 1], [5, 5], 5) == [0, 5]
    assert apportion([0, 1, 0], [4, 5, 2], 8) == [2, 5, 1]
    assert apportion([0, 0], [30, 10], 4) == [3, 1]


@pytest.mark.parametrize(
    ("shares", "caps", "total", "message"),
    [
        ([1], [1, 2], 1, "1 shares and 2 caps"),
        ([1, float("nan")], [1, 2], 1, "got nan at 1"),
        ([1, float("inf")], [1, 2], 1, "got inf at 1"),
        ([1, -1], [1, 2], 1, "got -1 at 1"),
        ([1, 1], [1, -2], 1, r"caps\[1\] >= 0; got -2"),
        ([1, 1], [1, 2], 4, "total from 0 to 3"),
        ([1, 1], [1, 2], -1, "total from 0 to 3"),
    ],
)
def test_apportion_refuses_what_has_no_answer(shares, caps, total, message):
    with pytest.raises(ValueError, match=message):
        apportion(shares, caps, total)


def test_apportion_takes_shares_of_any_numpy_dtype():
    for dtype in (np.float16, np.float32, np.float64, np.int32, np.uint8):
        assert apportion(np.array([1, 3], dtype), np.array([9, 9]), np.int64(8)) == [2, 6]


def test_apportion_refuses_fractional_totals():
    with pytest.raises(TypeError, match="total to be an integer"):
        apportion([1], [10], 2.5)


# ---------------------------------------------------------------- exact_count


@given(st.integers(0, 10**15), st.floats(0, 1))
def test_density_and_its_sparsity_count_the_same_weights(size, sparsity):
    count = exact_count(size, sparsity=sparsity)
    assert count == round((1 - sparsity) * size)
    assert count == exact_count(size, density=1 - sparsity)
    assert 0 <= count <= size
    assert exact_count(size, nnz=count) == count


def test_exactly_one_of_sparsity_density_and_nnz_is_needed():
    with pytest.raises(TypeError, match=r"exactly one .* got none"):
        exact_count(10)
    with pytest.raises(TypeError, match=r"exactly one .* got sparsity and density"):
        exact_count(10, sparsity=0.5, density=0.5)


@pytest.mark.parametrize("value", [-0.1, 1.1, 80, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["sparsity", "density"])
def test_a_fraction_outside_zero_to_one_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} in \[0, 1\]"):
        exact_count(10, **{name: value})


def test_counts_and_fractions_of_the_wrong_type_are_refused():
    with pytest.raises(TypeError, match="nnz to be an integer"):
        exact_count(10, nnz=2.0)
    with pytest.raises(TypeError, match="sparsity to be a float"):
        exact_count(10, sparsity="0.5")
    with pytest.raises(ValueError, match="nnz from 0 to 10"):
        exact_count(10, nnz=11)


# ---------------------------------------------------------------- draw


@given(st.integers(0, 300), st.data(), st.integers(0, 2**32))
def test_draw_returns_exactly_k_increasing_numbers_in_range(size, data, seed):
    k = data.draw(st.integers(0, size))
    numbers = draw(size, k, np.random.default_rng(seed))
    assert numbers.dtype == np.int64
    assert numbers.shape == (k,)
    assert np.all(np.diff(numbers) > 0)
    assert k == 0 or (numbers[0] >= 0 and numbers[-1] < size)


@pytest.mark.parametrize("size", [10**5, 10**13, 2**63 - 1])
def test_draw_is_exact_on_ranges_of_any_size(size):
    numbers = draw(size, 30_000, np.random.default_rng(0))
    assert numbers.size == 30_000
    assert np.all(np.diff(numbers) > 0)
    assert numbers[0] >= 0
    # Uniform: the mean of 30 000 lies within five standard errors of the middle.
    assert abs(numbers.mean() / size - 0.5) < 5 / np.sqrt(12 * 30_000)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_draw_makes_every_set_equally_likely(k):
    size, rng, times = 6, np.random.default_rng(k), 6000
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(times):
        key = tuple(draw(size, k, rng).tolist())
        seen[key] = seen.get(key, 0) + 1
    n_sets = {1: 6, 3: 20, 5: 6}[k]
    assert len(seen) == n_sets
    expected = times / n_sets
    chi_squared = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_squared < n_sets - 1 + 5 * np.sqrt(2 * (n_sets - 1))


@pytest.mark.parametrize(("dtype", "unit"), [(np.int32, 10**8), (np.int64, 10**9)])
def test_shares_of_numpys_integers_are_exact(dtype, unit):
    caps, expected = [4 * unit, 4 * unit], [2 * unit + 4 * unit // 10, 6 * unit // 10]
    assert apportion([4 * unit, unit], caps, 3 * unit) == expected
    assert apportion(np.array([4 * unit, unit], dtype), caps, 3 * unit) == expected
