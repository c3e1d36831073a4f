"""Growth rules: the streamed top-k against a sort of the dense gradient, random growth, and what they refuse."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, nn, tiles
from nnsparse.ops.structures import Dense
from nnsparse.sparsify import streaming
from nnsparse.sparsify.context import Context, targets
from nnsparse.sparsify.growth import Gradient, Random
from nnsparse.sparsify.streaming import largest_gradients
from nnsparse.testing import to_tiles_reference
from nnsparse.topology import Topology


def tap(shape, batch, seed=0, lanes=16, dtype=np.float32, whole=False, skewed=False):
    """Return tiled (d, x); `whole` numbers make ties and exact sums, `skewed` norms make blocks worth leaving out."""
    rng = np.random.default_rng(seed)
    pair = []
    for n in shape:
        a = rng.integers(-2, 3, (batch, n)) if whole else rng.standard_normal((batch, n))
        if skewed:
            a = a * np.exp(2.0 * rng.standard_normal(n))
        pair.append(tiles.aligned(to_tiles_reference(a.astype(dtype), lanes)))
    return tuple(pair)


def sorted_dense(gradient, kept, k):
    """Return the k free positions of the largest magnitude; NaN never."""
    size = np.abs(gradient.astype(np.float64)).reshape(-1)
    size[kept.to_dense().reshape(-1) | np.isnan(size)] = -1
    best = np.lexsort((np.arange(size.size), -size))[:k]
    best = best[size[best] >= 0]
    return Topology.from_coo(kept.shape, *np.divmod(best, kept.shape[1]))


def twin(taps, kept, k):
    """The gradient from the dense kernel: the same sums in the same order."""
    return sorted_dense(sum(Dense(*kept.shape).gradient(d, x) for d, x in taps), kept, k)


def layer_context(topology, taps=(), *, step=0, dtype=np.float32):
    n_out, n_in = topology.shape
    layer = nn.SparseLinear(n_in, n_out, topology=topology, dtype=dtype, rng=0)
    return Context(layer, targets(layer), seed=1, step=step, taps=[list(taps)])


# ---------------------------------------------------------------- the streamed top-k


@settings(max_examples=60)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 40),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32 - 1),
)
def test_any_shape_gives_what_a_sort_of_the_dense_gradient_gives(
    n_out, n_in, batch, density, share, whole, dtype, seed
):
    kept = Topology.random((n_out, n_in), density=density, rng=seed)
    k = max(1, round(share * (n_out * n_in - kept.nnz)))
    if k > n_out * n_in - kept.nnz:
        return
    taps = [tap(kept.shape, batch, seed, dtype=dtype, whole=whole)]
    assert largest_gradients(taps, kept, k) == twin(taps, kept, k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("whole", "skewed"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("shape", [(300, 400), (7, 30_000), (30_000, 7), (501, 333)])
def test_large_layers_with_a_guessed_bar_give_the_same(shape, whole, skewed, dtype):
    kept = Topology.random(shape, density=0.1, rng=0)
    taps = [tap(shape, 37, 1, dtype=dtype, whole=whole, skewed=skewed)]
    for k in (1, 3_000, 30_000):
        assert largest_gradients(taps, kept, k) == twin(taps, kept, k)


@pytest.mark.parametrize("lanes", tiles.LANES)
def test_every_lane_width_with_a_part_of_the_last_tile_used(lanes):
    kept = Topology.random((90, 130), density=0.3, rng=0)
    for batch in (1, lanes - 3, lanes, 2 * lanes + 5):
        taps = [tap(kept.shape, batch, lanes=lanes)]
        assert largest_gradients(taps, kept, 700) == twin(taps, kept, 700)


def test_blocks_that_cannot_reach_the_bar_are_left_out():
    shape = (300, 400)
    kept = Topology.empty(shape)
    stream = streaming.Stream.of([tap(shape, 37, skewed=True)], kept)
    bar = streaming._guesses(stream, stream.size, 500)[0]
    assert (stream.limits < bar).mean() > 0.5


@pytest.mark.parametrize(
    ("dtype", "of_d", "of_x"),
    [
        (np.float32, 1.0, 1.0),
        (np.float32, 1e-19, 1e-19),
        (np.float32, 1e-26, 1e20),  # the squares of d are all 0
        (np.float64, 1e-200, 1e180),
        (np.float64, 1e-160, 1e-160),
    ],
)
def test_the_limits_of_blocks_hold_for_the_gradient_as_computed(dtype, of_d, of_x):
    shape = (200, 300)
    d, x = tap(shape, 50, dtype=dtype)
    d, x = d * dtype(of_d), x * dtype(of_x)
    stream = streaming.Stream.of([(d, x)], Topology.empty(shape))
    gradient = np.abs(Dense(*shape).gradient(d, x))[stream.rows][:, stream.cols]
    rows, cols = np.arange(0, 200, 32), np.arange(0, 300, 64)
    most = np.maximum.reduceat(np.maximum.reduceat(gradient, rows, 0), cols, 1).T
    assert most.max() > 0
    assert (most <= stream.limits).all()


@pytest.mark.parametrize("bars", [[1e9, 0.0], [1e-3, 0.0], [0.0]])
def test_any_guess_of_the_bar_gives_the_same(bars, monkeypatch):
    shape = (300, 400)
    kept = Topology.random(shape, density=0.1, rng=0)
    monkeypatch.setattr(streaming, "_guesses", lambda *_: bars)
    for skewed in (False, True):
        taps = [tap(shape, 37, skewed=skewed)]
        assert largest_gradients(taps, kept, 900) == twin(taps, kept, 900)


def test_little_room_makes_more_rounds_and_the_same_result(monkeypatch):
    shape, rounds = (600, 700), []
    kept = Topology.random(shape, density=0.1, rng=0)
    run = streaming.Stream.run

    def counted(self, *arguments):
        rounds.append(1)
        return run(self, *arguments)

    monkeypatch.setattr(streaming.Stream, "run", counted)
    monkeypatch.setattr(streaming, "_guesses", lambda *_: [0.0])
    for whole in (False, True):
        taps = [tap(shape, 20, whole=whole)]
        rounds.clear()
        assert largest_gradients(taps, kept, 50) == twin(taps, kept, 50)
        assert len(rounds) > 1


def test_a_gradient_of_zeros_grows_the_first_free_positions():
    kept = Topology.from_coo((3, 4), [0, 1], [1, 0])
    d, x = (np.zeros((1, n, 16), np.float32) for n in kept.shape)
    grown = largest_gradients([(d, x)], kept, 4)
    assert [(int(o), int(i)) for o, i in zip(*grown.coo(), strict=True)] == [
        (0, 0), (0, 2), (0, 3), (1, 1),
    ]  # fmt: skip


def test_a_step_without_samples_has_a_gradient_of_zeros():
    empty = np.zeros((0, 3, 16), np.float32), np.zeros((0, 4, 16), np.float32)
    for taps in ([empty], [empty, empty]):
        grown = largest_gradients(taps, Topology.empty((3, 4)), 5)
        assert grown == Topology((3, 4), [0, 4, 5, 5], [0, 1, 2, 3, 0])


def test_many_zeros_fill_up_in_order_of_position():
    shape = (300, 400)
    d, x = tap(shape, 20)
    x[:, 10:] = 0
    kept = Topology.random(shape, density=0.1, rng=0)
    assert largest_gradients([(d, x)], kept, 9_000) == twin([(d, x)], kept, 9_000)


def test_two_threads_find_the_same_as_one():
    shape = (400, 500)
    kept = Topology.random(shape, density=0.05, rng=0)
    before, results = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            results += [
                largest_gradients([tap(shape, 40, whole=whole, skewed=True)], kept, 5_000)
                for whole in (False, True)
            ]
    finally:
        jit.set_num_threads(before)
    assert results[:2] == results[2:]


def test_several_taps_are_summed_even_of_different_lanes():
    shape = (60, 50)
    kept = Topology.random(shape, density=0.2, rng=0)
    taps = [
        tap(shape, batch, seed, lanes, whole=True)
        for seed, (batch, lanes) in enumerate([(20, 16), (70, 64), (3, 32)])
    ]
    assert largest_gradients(taps, kept, 200) == twin(taps, kept, 200)
    assert largest_gradients(taps, kept, 200) != twin(taps[:1], kept, 200)


def test_nan_never_grows_and_infinity_does():
    shape = (40, 50)
    kept = Topology.random(shape, density=0.1, rng=0)
    d, x = tap(shape, 20)
    d[0, 3, 5], x[0, 7, 2], x[1, 8, 1] = np.nan, np.nan, np.inf
    grown = largest_gradients([(d, x)], kept, 300)
    assert grown == twin([(d, x)], kept, 300)
    rows, columns = grown.coo()
    assert not (rows == 3).any()
    assert not (columns == 7).any()
    assert (columns == 8).sum() > 30


def test_fewer_come_back_where_all_others_are_nan():
    kept = Topology.empty((10, 10))
    d, x = tap((10, 10), 5)
    d[0, 4:] = np.nan
    assert largest_gradients([(d, x)], kept, 90) == Topology.from_dense(
        np.repeat(np.arange(10) < 4, 10).reshape(10, 10)
    )


def test_memory_grows_with_k_and_not_with_the_size():
    shape = (3_000, 3_000)
    kept = Topology.random(shape, density=0.005, rng=0)
    taps = [tap(shape, 16)]
    largest_gradients(taps, kept, 1_000)
    tiles.pool.clear()
    tracemalloc.start()
    largest_gradients(taps, kept, 1_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * 4 * 3_000 * 3_000


# ---------------------------------------------------------------- Gradient


def trained_context(dtype=np.float32):
    """A layer after a backward pass with taps, in a chain with a ReLU."""
    rng = np.random.default_rng(0)
    layer = nn.SparseLinear(40, 30, sparsity=0.8, dtype=dtype, rng=0)
    model = nn.Sequential(
        layer, nn.ReLU(), nn.SparseLinear(30, 5, sparsity=0.3, dtype=dtype, rng=1)
    )
    layer.taps, layer.weight.grad = [], None
    loss = nn.CrossEntropyLoss()(
        model(rng.standard_normal((37, 40)).astype(dtype)), np.arange(37) % 5
    )
    loss.backward()
    return Context(model, targets(model), taps=[layer.taps, []])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_growth_follows_the_gradient_of_a_real_backward_pass(dtype):
    context = trained_context(dtype)
    target = context.targets[0]
    ((d, x),) = context.taps[0]
    gradient = Dense(30, 40).gradient(d, x)
    np.testing.assert_allclose(
        gradient[target.topology.coo()], target.canonical(target.weight.grad), rtol=1e-4, atol=1e-7
    )
    for k in (1, 100, 1200 - target.nnz):
        grown, _ = Gradient(returning=False)(context, 0, target.topology, k)
        assert grown.nnz == k
        assert (grown & target.topology).nnz == 0
        assert grown == sorted_dense(gradient, target.topology, k)


def test_a_weight_just_dropped_may_return_with_its_value():
    # |dL/dW| is 6 4 2 / 3 2 1 (d = 2, 1; x = 3, 2, 1); the stored weights are the first column and (1, 2).
    topology = Topology.from_coo((2, 3), [0, 1, 1], [0, 0, 2])
    d, x = (np.zeros((1, n, 16), np.float32) for n in (2, 3))
    d[0, :, 0], x[0, :, 0] = [2, -1], [3, 2, 1]
    context = layer_context(topology, [(d, x)])
    context.targets[0].weight.set_canonical([0.5, 0.25, 0.125])
    kept = Topology.from_coo((2, 3), [1], [2])
    grown, values = Gradient()(context, 0, kept, 3)
    assert grown == Topology.from_coo((2, 3), [0, 0, 1], [0, 1, 0])
    np.testing.assert_array_equal(values, np.array([0.5, 0, 0.25], np.float32))
    _, zero = Gradient(returning=False)(context, 0, kept, 3)
    assert zero == 0.0
    _, new_only = Gradient()(context, 0, topology, 2)
    assert new_only == 0.0


def test_values_return_in_canonical_order_in_a_large_layer():
    topology = Topology.random((300, 300), density=0.2, rng=0)
    context = layer_context(topology, [tap((300, 300), 20)])
    old = context.targets[0].weight.to_dense()
    keep = np.random.default_rng(1).random(topology.nnz) < 0.7
    rows, columns = topology.coo()
    kept = Topology.from_coo((300, 300), rows[keep], columns[keep])
    grown, values = Gradient()(context, 0, kept, 6_000)
    np.testing.assert_array_equal(values, old[grown.coo()])
    assert np.count_nonzero(values) > 100


def test_growing_nothing_needs_no_taps():
    context = layer_context(Topology.full((3, 4)))
    for rule in (Gradient(), Random(std=1.0)):
        grown, values = rule(context, 0, Topology.full((3, 4)), 0)
        assert grown == Topology.empty((3, 4))
        assert np.size(values) <= 1


@pytest.mark.parametrize("rule", [Gradient(), Random()])
def test_more_than_the_free_positions_is_refused(rule):
    context = layer_context(Topology.full((3, 4)))
    for kept, k in ((Topology.full((3, 4)), 1), (Topology.empty((3, 4)), 13)):
        with pytest.raises(ValueError, match=r"has \d+ free positions; cannot grow"):
            rule(context, 0, kept, k)


@pytest.mark.parametrize("rule", [Gradient(), Random()])
def test_a_topology_of_another_layer_is_refused(rule):
    with pytest.raises(ValueError, match=r"expects a topology of shape \(3, 4\)"):
        rule(layer_context(Topology.full((3, 4))), 0, Topology.empty((4, 3)), 1)


@pytest.mark.parametrize("taps", [[], [[]]])
def test_a_step_without_taps_is_refused_with_what_to_do(taps):
    layer = nn.SparseLinear(4, 3, sparsity=0.5, rng=0)
    with pytest.raises(ValueError, match=r"set layer\.taps = \[\]"):
        Gradient()(Context(layer, targets(layer), taps=taps), 0, Topology.empty((3, 4)), 1)


def test_a_gradient_of_nan_is_refused_by_the_name_of_the_layer():
    d, x = (np.full((1, n, 16), np.nan, np.float32) for n in (3, 4))
    context = layer_context(Topology.full((3, 4)), [(d, x)])
    with pytest.raises(ValueError, match="only 0 free positions have a gradient that is not NaN"):
        Gradient()(context, 0, Topology.empty((3, 4)), 2)


# ---------------------------------------------------------------- Random


def test_random_growth_is_exact_disjoint_and_a_function_of_seed_and_step():
    topology = Topology.random((30, 40), density=0.2, rng=0)
    contexts = [layer_context(topology, step=step) for step in (5, 5, 6)]
    results = [Random(std=0.1)(context, 0, topology, 77) for context in contexts]
    for grown, values in results:
        assert grown.nnz == 77
        assert values.shape == (77,)
        assert values.dtype == np.float32
        assert (grown & topology).nnz == 0
    assert results[0][0] == results[1][0] != results[2][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_random_values_have_the_mean_and_spread_asked_for():
    topology = Topology.empty((200, 200))
    _, values = Random(mean=2.0, std=0.1)(layer_context(topology), 0, topology, 20_000)
    assert abs(values.mean() - 2.0) < 5 * 0.1 / 20_000**0.5
    assert abs(values.std() - 0.1) < 5 * 0.1 / 40_000**0.5
    assert Random(mean=0.5)(layer_context(topology), 0, topology, 10)[1] == 0.5


def test_every_free_position_is_equally_likely():
    kept = Topology.from_coo((2, 3), [0, 1], [1, 2])
    counts = np.zeros((2, 3))
    for step in range(2_000):
        grown, _ = Random()(layer_context(kept, step=step), 0, kept, 1)
        counts += grown.to_dense()
    assert counts[kept.to_dense()].sum() == 0
    assert (np.abs(counts[~kept.to_dense()] - 500) < 5 * 500**0.5).all()


@pytest.mark.parametrize("arguments", [{"std": -1.0}, {"std": np.nan}, {"mean": np.inf}])
def test_impossible_distributions_are_refused(arguments):
    with pytest.raises(ValueError, match="finite mean and a finite std"):
        Random(**arguments)
