"""`DataLoader`: every sample once an epoch, in an order that only the seed and the epoch decide."""

import numpy as np
import pytest
from scipy import sparse

from nnsparse.data import DataLoader, Rows, SparseRows

X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


def labels(loader):
    return np.concatenate([y for _, y in loader])


def test_an_epoch_has_every_sample_once_with_its_own_label():
    for x, y in DataLoader((X, Y), batch_size=3, rng=0):
        assert isinstance(x, Rows)
        np.testing.assert_array_equal(np.asarray(x), X[y])
    np.testing.assert_array_equal(np.sort(labels(DataLoader((X, Y), batch_size=3, rng=0))), Y)


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [
        (3, False, [3, 3, 3, 1]),
        (3, True, [3, 3, 3]),
        (5, False, [5, 5]),
        (5, True, [5, 5]),
        (10, True, [10]),
        (11, False, [10]),
        (np.int64(1), False, [1] * 10),
    ],
)
def test_batches_have_the_size_asked_for_and_the_last_the_rest(batch_size, drop_last, sizes):
    loader = DataLoader((X, Y), batch_size=batch_size, drop_last=drop_last)
    assert [len(x) for x, _ in loader] == sizes
    assert len(loader) == len(sizes)


def test_without_shuffling_the_order_is_that_of_the_data():
    loader = DataLoader((X, Y), batch_size=4, shuffle=False)
    for _ in range(2):
        np.testing.assert_array_equal(labels(loader), Y)


def test_every_epoch_has_another_order_that_the_seed_decides():
    a, b, c = (DataLoader((X, Y), batch_size=4, rng=seed) for seed in (5, 5, 6))
    first, second = labels(a), labels(a)
    assert (first != second).any()
    np.testing.assert_array_equal(labels(b), first)
    np.testing.assert_array_equal(labels(b), second)
    assert (labels(c) != first).any()


def test_setting_the_epoch_repeats_it():
    loader = DataLoader((X, Y), batch_size=4, rng=1)
    epochs = [labels(loader) for _ in range(3)]
    loader.epoch = 1
    np.testing.assert_array_equal(labels(loader), epochs[1])
    assert loader.epoch == 2
    np.testing.assert_array_equal(loader.order(2), epochs[2])


def test_a_generator_gives_the_seed_once():
    a, b = (DataLoader((X, Y), batch_size=4, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(labels(a), labels(b))
    rng = np.random.default_rng(3)
    loader = DataLoader((X, Y), batch_size=4, rng=rng)
    state = rng.bit_generator.state
    labels(loader)
    assert rng.bit_generator.state == state


def test_no_seed_gives_a_new_order_each_time():
    orders = {tuple(labels(DataLoader((X, Y), batch_size=4))) for _ in range(5)}
    assert len(orders) > 1


def test_stopping_in_the_middle_of_an_epoch_does_not_disturb_the_next():
    a, b = (DataLoader((X, Y), batch_size=4, rng=0) for _ in range(2))
    next(iter(a))
    labels(b)
    np.testing.assert_array_equal(labels(a), labels(b))


def test_targets_may_have_two_dimensions():
    loader = DataLoader((X, X + 1), batch_size=4, rng=0)
    for x, y in loader:
        np.testing.assert_array_equal(np.asarray(x) + 1, y)


def test_the_data_is_kept_by_reference():
    loader = DataLoader((X, Y), batch_size=4)
    assert loader.x is X
    assert loader.y is Y


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (X, {}, TypeError, r"expects \(X, y\) or \(X, y, sample_weight\)"),
        ((X,), {}, TypeError, r"expects \(X, y\) or \(X, y, sample_weight\)"),
        ((X, Y[:9]), {}, ValueError, r"one target per row: X has shape \(10, 2\), y has shape"),
        ((X, np.float64(3)), {}, ValueError, "one target per row"),
        ((X, X[None]), {}, ValueError, "one target per row"),
        ((X[:0], Y[:0]), {}, ValueError, "at least one sample"),
        ((X[:, 0], Y), {}, ValueError, r"shape \(batch, n_features\)"),
        ((X.astype(object), Y), {}, TypeError, "dtype object"),
        ((X, Y), {"batch_size": 0}, ValueError, "batch_size >= 1; got 0"),
        ((X, Y), {"batch_size": -3}, ValueError, "batch_size >= 1"),
        ((X, Y), {"batch_size": 2.0}, TypeError, "integer batch_size; got 2.0"),
        ((X, Y), {"batch_size": True}, TypeError, "integer batch_size"),
        ((X, Y), {"batch_size": 11, "drop_last": True}, ValueError, "give no batch of 11"),
        ((X, Y), {"rng": -1}, ValueError, "seed >= 0; got -1"),
        ((X, Y), {"rng": 1.5}, TypeError, "Generator, an integer or None; got 1.5"),
    ],
)
def test_bad_data_and_settings_are_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        DataLoader(data, **{"batch_size": 4, **options})


# ---------------------------------------------------------------- weights, single epochs, splits

W = np.arange(1.0, 11.0)


def test_weights_come_with_their_samples():
    for x, y, w in DataLoader((X, Y, W), batch_size=3, rng=0):
        assert w.dtype == np.float64
        np.testing.assert_array_equal(w, W[y])
        np.testing.assert_array_equal(np.asarray(x), X[y])


def test_batches_of_an_epoch_can_begin_anywhere_and_leave_the_loader_where_it_is():
    loader = DataLoader((X, Y), batch_size=3, rng=0)
    loader.epoch = 5
    whole = [y.tolist() for _, y in loader.batches(2)]
    assert [y.tolist() for _, y in loader.batches(2, first=2)] == whole[2:]
    assert list(loader.batches(2, first=4)) == []
    assert loader.epoch == 5
    loader.epoch = 2
    assert [y.tolist() for _, y in loader] == whole


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.99])
def test_a_split_has_every_sample_on_one_side_the_same_ones_each_time(fraction):
    loader = DataLoader((X, Y, W), batch_size=4, rng=3)
    train, held = loader.split(fraction)
    assert len(held.y) == min(9, max(1, round(10 * fraction)))
    np.testing.assert_array_equal(np.sort(np.concatenate([train.y, held.y])), Y)
    for part in (train, held):
        np.testing.assert_array_equal(part.sample_weight, W[part.y])
        np.testing.assert_array_equal(np.asarray(part.rows), X[part.y])
        assert (part.seed, part.shuffle) == (loader.seed, loader.shuffle)
    again = loader.split(fraction)[1]
    np.testing.assert_array_equal(again.y, held.y)
    assert loader.epoch == 0


def test_a_split_of_sparse_rows_stays_sparse():
    train, held = DataLoader((sparse.csr_array(X), Y), batch_size=4, rng=3).split(0.3)
    for part in (train, held):
        assert isinstance(part.rows, SparseRows)
        np.testing.assert_array_equal(np.asarray(part.rows), X[part.y])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_split_by_no_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match="split expects a fraction"):
        DataLoader((X, Y), batch_size=4, rng=3).split(fraction)


def test_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="two samples or more"):
        DataLoader((X[:1], Y[:1]), batch_size=4).split(0.5)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (W[:9], ValueError, r"sample_weight of shape \(10,\), one per sample; got \(9,\)"),
        (W[:, None], ValueError, "one per sample"),
        (-W, ValueError, "finite and at least 0; got -1 at 0"),
        (W * np.nan, ValueError, "finite and at least 0; got nan at 0"),
        (W * 0, ValueError, "above 0 somewhere; got zeros only"),
        (np.full(10, "a"), TypeError, "sample_weight as real numbers; got dtype <U1"),
    ],
)
def test_bad_weights_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        DataLoader((X, Y, weights), batch_size=2)


# ---------------------------------------------------------------- parts for several processes


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_parts_of_a_mini_batch_are_it_in_order_and_differ_by_one_sample_at_most(size, batch_size):
    X, y = np.arange(23.0).reshape(-1, 1), np.arange(23)
    whole = DataLoader((X, y, y + 1.0), batch_size=batch_size, rng=3)
    parts = [whole.shard(rank, size) for rank in range(size)]
    assert {len(part) for part in parts} == {len(whole)}
    for number, batch in enumerate(whole.batches(2)):
        shares = [list(part.batches(2))[number] for part in parts]
        for k in range(3):
            assert np.array_equal(np.concatenate([s[k] for s in shares]), batch[k])
        counts = [len(s[1]) for s in shares]
        assert max(counts) - min(counts) <= 1


def test_a_part_counts_epochs_for_itself_and_a_split_of_it_is_the_part_of_the_split():
    whole = DataLoader((np.eye(12), np.arange(12)), batch_size=4, rng=0)
    part = whole.shard(1, 2)
    list(part)
    assert (part.epoch, whole.epoch) == (1, 0)
    list(whole)
    train, held = whole.split(0.25)
    own, same = part.split(0.25)
    assert np.array_equal(same.y, held.y)
    got = [y.tolist() for _, y in own]
    assert got == [y.tolist() for _, y in train.shard(1, 2)]


@pytest.mark.parametrize(
    ("rank", "size", "error", "message"),
    [
        (2, 2, ValueError, "shard expects rank from 0 to size - 1; got rank 2 of 2"),
        (-1, 2, ValueError, "got rank -1 of 2"),
        (0, 0, ValueError, "got rank 0 of 0"),
        (0.0, 2, TypeError, "an integer as rank; got 0.0"),
        (True, 2, TypeError, "an integer as rank; got True"),
        (0, "2", TypeError, "an integer as size; got '2'"),
    ],
)
def test_a_part_that_cannot_be_is_refused(rank, size, error, message):
    with pytest.raises(error, match=message):
        DataLoader((np.eye(3), np.arange(3)), batch_size=2).shard(rank, size)


def test_a_part_of_a_part_is_refused():
    part = DataLoader((np.eye(3), np.arange(3)), batch_size=2).shard(1, 2)
    with pytest.raises(ValueError, match="expects a whole loader; this one is part 1 of 2 already"):
        part.shard(0, 2)
