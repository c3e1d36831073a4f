"""Several ranks make the steps of one process: gradients, patterns, losses; and what is refused."""

import copy

import numpy as np
import pytest

from nnsparse import data, nn, optim, sparsify
from nnsparse import train as training
from nnsparse.distributed import Alone, DataParallel, RanksDifferError, in_threads
from nnsparse.row_gradient import RowGradient
from nnsparse.sparsify import dynamic, recipes

SIZES = [20, 32, 24, 3]


def samples(n=60, dtype=np.float64):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, SIZES[0])).astype(dtype), rng.integers(0, 3, n)


def network(dtype=np.float64, seed=0):
    return nn.mlp(SIZES, sparsity=0.7, dtype=dtype, rng=seed)


def train(comm, model, loader, loss_fn=None, recipe=None, lr=0.1, momentum=0.9, epochs=1, **more):
    """A hand-written loop; returns the losses, the gradients of the first step, and the parallel."""
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    parallel = DataParallel(model, comm)
    sparsifier = recipe and sparsify.Sparsifier(
        model, optimizer, recipe, epochs * len(loader), **more
    )
    part = parallel.shard(loader)
    losses, first = [], None
    for _ in range(epochs):
        for x, y, *w in part:
            optimizer.zero_grad()
            loss, weight = 0.0, 0.0
            if len(y):
                loss, weight = loss_fn(model(x), y, *w), loss_fn.total_weight(y, *w)
                loss.backward()
            reduced = parallel.reduce(loss, weight)
            first = first or [np.array(p.grad) for p in model.parameters()]
            if not (sparsifier and sparsifier.replaces_step):
                optimizer.step()
            if sparsifier:
                sparsifier.step()
            losses.append(reduced.loss)
    parallel.check()
    return losses, first, parallel


def compare(size, model, loader, tolerance=1e-13, **settings):
    """Train on one process and on `size` ranks; return the models of all."""
    single = copy.deepcopy(model)
    losses, first, _ = train(Alone(), single, copy.deepcopy(loader), **settings)
    models = [copy.deepcopy(model) for _ in range(size)]

    def program(comm):
        return train(comm, models[comm.Get_rank()], copy.deepcopy(loader), **settings)

    for got, gradients, _ in in_threads(size, program):
        assert got == pytest.approx(losses, rel=tolerance)
        for a, b in zip(gradients, first, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    return single, models


def assert_same_bits(models):
    for model in models[1:]:
        for key, array in models[0].state_dict().items():
            assert model.state_dict()[key].tobytes() == array.tobytes(), key


# ------------------------------------------------------------ gradients


@pytest.mark.parametrize(("size", "batch"), [(2, 16), (3, 16), (5, 60), (2, 1)])
def test_gradients_and_losses_are_those_of_the_whole_mini_batch_to_rounding(size, batch):
    # 60 samples: with batches of 16 the last one has 12, and 3 ranks get parts of 5, 5 and 6.
    single, models = compare(size, network(), data.DataLoader(samples(), batch_size=batch, rng=1))
    assert_same_bits(models)
    for a, b in zip(single.parameters(), models[0].parameters(), strict=True):
        np.testing.assert_allclose(b.data, a.data, rtol=0, atol=1e-11)


def test_a_last_mini_batch_smaller_than_the_number_of_ranks_leaves_some_without_samples():
    loader = data.DataLoader(samples(17), batch_size=8, rng=0)
    assert [len(y) for _, y in loader.shard(0, 3)] == [2, 2, 0]
    _, models = compare(3, network(), loader)
    assert_same_bits(models)


def test_in_float32_the_weights_of_all_ranks_have_the_same_bits():
    loader = data.DataLoader(samples(dtype=np.float32), batch_size=16, rng=1)
    _, models = compare(3, network(np.float32), loader, tolerance=1e-5, epochs=3)
    assert_same_bits(models)


def test_sample_and_class_weights_count_as_in_one_process():
    x, y = samples()
    w = np.random.default_rng(3).uniform(0, 2, len(y))
    w[:20] = 0  # a part of a mini-batch without any weight
    loader = data.DataLoader((x, y, w), batch_size=20, shuffle=False)
    loss_fn = nn.CrossEntropyLoss(class_weight=(1.0, 5.0, 0.5))
    compare(2, network(), loader, loss_fn=loss_fn)


def test_tables_of_embeddings_are_joined_as_a_whole():
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 30, (24, 5)), rng.integers(0, 2, 24)

    def gradients(comm):
        model = nn.Sequential(
            nn.EmbeddingBag(30, 4, dtype=np.float64, rng=0),
            nn.SparseLinear(4, 2, density=0.5, dtype=np.float64, rng=1),
        )
        parallel = DataParallel(model, comm)
        part = slice(0, 10) if comm.Get_rank() == 0 else slice(10, 24)
        part = slice(0, 24) if comm.Get_size() == 1 else part
        nn.CrossEntropyLoss()(model(x[part]), y[part]).backward()
        own = model[0].weight.grad
        assert isinstance(own, RowGradient)
        assert own.rows.size < 30
        parallel.reduce(0.0, len(y[part]))
        return [np.asarray(p.grad) for p in model.parameters()]

    whole = gradients(Alone())
    for found in in_threads(2, gradients):
        for a, b in zip(found, whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


def test_a_parameter_that_no_rank_uses_stays_without_gradient():
    def program(comm):
        model = nn.Sequential(nn.SparseLinear(4, 2, density=1, rng=0))
        parallel = DataParallel(model, comm)
        model[0].weight.grad = np.ones(8, np.float32) * comm.Get_rank()
        parallel.reduce(1.0, 1)
        return model[0].weight.grad.tolist(), model[0].bias.grad

    assert in_threads(2, program) == [([0.5] * 8, None)] * 2


def test_clipping_and_decay_after_reduce_act_on_the_gradient_of_the_whole_mini_batch():
    def norm(comm):
        model = network()
        parallel = DataParallel(model, comm)
        loader = parallel.shard(data.DataLoader(samples(), batch_size=60, rng=0))
        x, y = next(iter(loader))
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        parallel.reduce(loss, len(y))
        return np.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters()))

    assert in_threads(3, norm) == [pytest.approx(norm(Alone()), rel=1e-13)] * 3


def test_with_one_rank_gradients_stay_the_very_arrays_and_nothing_is_sent():
    model = network()
    loss = nn.CrossEntropyLoss()(model(samples()[0]), samples()[1])
    loss.backward()
    before = [p.grad for p in model.parameters()]
    parallel = DataParallel(model)
    assert parallel.reduce(loss, 60, stop=True) == (loss.item(), 60.0, True)
    assert all(p.grad is g for p, g in zip(model.parameters(), before, strict=True))
    assert parallel.report().seconds == 0
    assert repr(parallel) == "DataParallel(rank 0 of 1)"


def test_all_stop_if_one_wants_to():
    def program(comm):
        model = network()
        parallel = DataParallel(model, comm)
        wants = comm.Get_rank() == 1
        return [
            parallel.reduce(0.0, 1, stop=wants).stop,
            parallel.reduce(0.0, 1).stop,
            parallel.agree(wants),
            parallel.agree(False),
        ]

    assert in_threads(3, program) == [[True, False, True, False]] * 3


# ------------------------------------------------------------ patterns


@pytest.mark.parametrize(
    "recipe",
    [
        dynamic.rigl(0.8, every=2),
        dynamic.set_(0.8, every=2),
        dynamic.srigl(0.8, every=2),
        recipes.agp(0.9, every=2),
    ],
    ids=lambda recipe: recipe.name,
)
def test_patterns_move_alike_on_all_ranks_and_as_in_one_process(recipe):
    loader = data.DataLoader(samples(), batch_size=15, rng=1)
    single, models = compare(
        3, network(), loader, tolerance=1e-9, recipe=recipe, epochs=4, momentum=0.5, rng=5
    )
    assert_same_bits(models)
    for a, b in zip(single, models[0], strict=True):
        if isinstance(a, nn.SparseLinear):
            assert a.weight.topology == b.weight.topology


def snip(comm, shared):
    """Prune by SNIP, with the same batches on all ranks or each rank's own."""
    model = sparsify.prunable(nn.mlp(SIZES, rng=0))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    parallel = DataParallel(model, comm)
    loader = data.DataLoader(samples(), batch_size=20, rng=0)
    batches = list(loader if shared else parallel.shard(loader))
    sparsify.Sparsifier(
        model, optimizer, recipes.snip(0.8), 10, loss_fn=nn.CrossEntropyLoss(), batches=batches
    )
    return model, parallel


def test_snip_with_the_same_batches_prunes_alike_on_all_ranks():
    models = in_threads(2, lambda comm: snip(comm, True)[0])
    assert_same_bits(models)
    assert models[0][0].sparsity > 0.5


def test_snip_with_each_ranks_own_batches_is_found_out_at_the_first_step():
    def program(comm):
        snip(comm, False)[1].reduce(0.0, 1)

    with pytest.raises(
        RanksDifferError, match=r"parameter 0\.weight on rank 1 differs from rank 0"
    ):
        in_threads(2, program)


def test_growth_that_looks_at_local_gradients_would_differ():
    """The taps do matter: without gathering them, ranks grow other weights."""
    loader = data.DataLoader(samples(), batch_size=30, rng=1)

    def taps(comm):
        model = network()
        parallel = DataParallel(model, comm)
        for layer in model:
            if isinstance(layer, nn.SparseLinear):
                layer.taps = []
        x, y = next(iter(parallel.shard(loader)))
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        local = [d.sum(axis=(0, 2)) for d, _ in model[0].taps]
        parallel.reduce(loss, len(y))
        dense = sum(np.einsum("tol,til->oi", d, x) for d, x in model[0].taps)
        assert parallel.report().growth_bytes > 0
        return local, dense, np.asarray(model[0].weight.to_scipy().astype(bool).toarray())

    (local, dense, mask), (other, same, _) = in_threads(2, taps)
    assert not np.array_equal(local, other)
    assert dense.tobytes() == same.tobytes()
    model = network()
    x, y = next(iter(loader))
    nn.CrossEntropyLoss()(model(x), y).backward()
    gradient = model[0].weight.topology.to_dense(model[0].weight.canonical(model[0].weight.grad))
    np.testing.assert_allclose(dense * mask, gradient, rtol=0, atol=1e-14)
    assert np.abs(dense[~mask]).max() > 0


# ------------------------------------------------------------ fit


def fit(comm, epochs=3, callbacks=(), updates=(), recipe=None, n=60, optimizer=None, **settings):
    model = network()
    optimizer = optimizer or (lambda params, rank: optim.SGD(params, lr=0.1, momentum=0.9))
    optimizer = optimizer(model.parameters(), comm.Get_rank())
    parallel = DataParallel(model, comm)
    loader = data.DataLoader(samples(n), batch_size=16, rng=1)
    kept = loader.split(settings["validation"])[0] if "validation" in settings else loader
    steps = epochs * -(-len(kept) // settings.get("accumulate", 1))
    moves = [sparsify.Sparsifier(model, optimizer, recipe, steps)] if recipe else []
    history = training.fit(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        parallel.shard(loader),
        epochs=epochs,
        updates=[*moves, parallel, *updates],  # in any order
        callbacks=[make(comm) for make in callbacks],
        **{"progress": False, **settings},
    )
    parallel.check()
    return history, model, parallel


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate": 3, "clip_norm": 0.1},
        {"validation": 0.2, "recipe": dynamic.rigl(0.8, every=2)},
        {"n": 49, "clip_norm": 0.5},  # the last mini-batch has one sample
    ],
    ids=["plain", "accumulate, clip", "split, rigl", "empty parts"],
)
def test_fit_on_several_ranks_is_fit_on_one(settings):
    one, model, _ = fit(Alone(), **settings)
    for history, other, _ in in_threads(2, lambda comm: fit(comm, **settings)):
        for name in ("step_loss", "train_loss", "validation_loss", "validation_accuracy"):
            np.testing.assert_allclose(history[name], one[name], rtol=1e-9, err_msg=name)
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            np.testing.assert_allclose(a.data, b.data, rtol=0, atol=1e-9)


def test_the_progress_bar_is_about_the_last_mini_batch_that_has_samples_here(capsys):
    # The fourth mini-batch has one sample, which is not rank 0's.
    in_threads(2, lambda comm: fit(comm, n=49, accumulate=4, progress=comm.Get_rank() == 0))
    assert "batch acc" in capsys.readouterr().err


def wish(rank, at):
    class Wish:
        def __call__(self, state):
            if at == "epoch":
                state.request_stop("mine")

        def after_step(self, state):
            if at == state.step:
                state.request_stop("mine")

    class Other:
        def __call__(self, state):
            pass

    return lambda comm: Wish() if comm.Get_rank() == rank else Other()


@pytest.mark.parametrize(("at", "steps"), [(1, 2), (3, 4), (4, 4), ("epoch", 4), (12, 12)])
def test_one_rank_that_stops_stops_all_after_the_same_step(at, steps):
    results = in_threads(3, lambda comm: fit(comm, callbacks=[wish(1, at)])[0])
    assert [r["step_loss"].size for r in results] == [steps] * 3
    others = "another process asked for it"
    assert [r.stopped for r in results] == [others, "mine", others]


def test_a_loss_that_is_not_finite_on_one_rank_stops_the_others_with_its_message():
    x, y = samples()
    x[59] = np.nan

    def program(comm):
        model = network()
        parallel = DataParallel(model, comm)
        loader = parallel.shard(data.DataLoader((x, y), batch_size=20, shuffle=False, rng=0))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        training.fit(
            model,
            nn.CrossEntropyLoss(),
            optimizer,
            loader,
            epochs=1,
            updates=[parallel],
            progress=False,
        )

    with pytest.raises(training.NonFiniteLossError, match="loss is nan at step 2"):
        in_threads(2, program)


@pytest.mark.parametrize(
    ("name", "values"), [("epochs", (1, 2)), ("accumulate", (1, 2)), ("clip_norm", (None, 1.0))]
)
def test_ranks_whose_loops_would_not_make_the_same_steps_are_stopped_before_the_first(name, values):
    def program(comm):
        model = network()
        parallel = DataParallel(model, comm)
        training.fit(
            model,
            nn.CrossEntropyLoss(),
            optim.SGD(model.parameters()),
            parallel.shard(data.DataLoader(samples(), batch_size=30, rng=0)),
            updates=[parallel],
            progress=False,
            **{"epochs": 2, name: values[comm.Get_rank()]},
        )

    with pytest.raises(RanksDifferError, match=f"fit: {name} on rank 1 differs from rank 0"):
        in_threads(2, program)


def test_a_rehearsal_before_the_first_step_leaves_model_and_optimizer_as_they_are():
    def program(comm):
        model = nn.Sequential(nn.Dropout(0.5, rng=0), *network())
        optimizer = optim.Adam(model.parameters())
        parallel = DataParallel(model, comm)
        before = model.state_dict(), optimizer.state_dict(), model[0].rng.bit_generator.state
        loader = parallel.shard(data.DataLoader(samples(), batch_size=60, rng=0))
        parallel.begin(nn.CrossEntropyLoss(), optimizer, loader)
        empty = parallel.shard(data.DataLoader(samples(1), batch_size=60, rng=0))
        parallel.begin(nn.CrossEntropyLoss(), optimizer, empty)
        after = model.state_dict(), optimizer.state_dict(), model[0].rng.bit_generator.state
        np.testing.assert_equal(after, before)
        assert all(p.grad is None for p in model.parameters())
        return loader.epoch

    assert in_threads(2, program) == [0, 0]


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (lambda params, rank: optim.SGD(params, lr=0.1 * (1 + rank)), "lr"),
        (lambda params, rank: optim.SGD(params, lr=0.1, momentum=0.5 * rank), "momentum"),
        (lambda params, rank: (optim.Adam if rank else optim.SGD)(params, lr=0.1), "class"),
        (lambda params, rank: optim.SGD(list(params)[rank:], lr=0.1), "parameters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ranks_with_other_optimizers_are_stopped_before_the_first_step(optimizer, named):
    with pytest.raises(
        RanksDifferError, match=f"optimizer: {named} on rank 1 differs from rank 0's. Make it alike"
    ):
        in_threads(2, lambda comm: fit(comm, optimizer=optimizer))


def test_weights_that_come_apart_are_told_after_the_epoch():
    def slower(comm):
        def act(state):
            if comm.Get_rank() and state.epoch == 2:
                state.optimizer.lr /= 2

        return act

    with pytest.raises(
        RanksDifferError, match=r"after 12 steps, parameter 0\.weight on rank 1 .* learning rate"
    ):
        in_threads(2, lambda comm: fit(comm, callbacks=[slower], epochs=9))


# ------------------------------------------------------------ dropout


def test_ranks_drop_other_units_and_the_first_those_of_one_process():
    def masks(comm):
        shared = np.random.default_rng(7)
        model = nn.Sequential(nn.Dropout(0.5, shared), nn.Dropout(0.3, shared), *network())
        DataParallel(model, comm)
        assert model[0].rng is model[1].rng
        return model[0](np.ones((4, 20))).numpy()

    first, second, third = in_threads(3, masks)
    assert np.array_equal(first, masks(Alone()))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_one_dropout_in_two_places_jumps_ahead_once():
    def state(comm):
        dropout = nn.Dropout(0.5, rng=7)
        DataParallel(nn.Sequential(dropout, *network(), dropout), comm)
        return dropout.rng.bit_generator.state

    start = np.random.PCG64(7)
    assert in_threads(3, state) == [start.state, start.jumped(1).state, start.jumped(2).state]


# ------------------------------------------------------------ checkpoints


class Halt:
    """Ends the run after a step, without a word to the checkpoint: it was saved before."""

    def __init__(self, step):
        self.step = step

    def __call__(self, state):
        pass

    def after_step(self, state):
        if state.step == self.step:
            raise KeyboardInterrupt


class Twice(nn.Module):
    """Drops twice, of which `modules()` knows nothing."""

    def __init__(self, dropout):
        super().__init__()
        self.dropout = dropout

    def forward(self, x):
        return self.dropout(self.dropout(x))


def dropout_run(comm, folder, halt=None, n=60, places=1):
    """Train with RigL, dropout and early stopping on all ranks, and a log on the first."""
    dropout = nn.Dropout(0.2, rng=3)
    layers = [dropout, *network(), *([Twice(dropout)] if places == 3 else [])]
    model = nn.Sequential(*layers)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parallel = DataParallel(model, comm)
    loader = data.DataLoader(samples(n), batch_size=15, rng=1)
    rigl = sparsify.Sparsifier(model, optimizer, dynamic.rigl(0.8, every=3), 3 * len(loader))
    callbacks = [training.EarlyStopping("train_loss", patience=9)]
    if comm.Get_rank() == 0:
        callbacks += [training.JSONLinesLog(folder / "log.jsonl", every_steps=1)]
    history = training.fit(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        parallel.shard(loader),
        epochs=3,
        updates=[parallel, rigl],
        callbacks=[*callbacks, *([Halt(halt)] if halt else [])],
        progress=False,
        checkpoint=training.Checkpoint(folder / "run.ckpt", every_steps=2),
    )
    parallel.check()
    return history["step_loss"], model.state_dict(), model[0].rng.bit_generator.state


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("n", [60, 61])  # 61: the last mini-batch has no sample for the first rank
def test_a_run_of_several_ranks_goes_on_bit_for_bit_from_the_file_of_the_first(tmp_path, n, places):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    run = {"n": n, "places": places}
    whole = in_threads(2, lambda comm: dropout_run(comm, tmp_path / "whole", **run))
    with pytest.raises(KeyboardInterrupt):
        in_threads(2, lambda comm: dropout_run(comm, tmp_path / "parts", halt=7, **run))
    parts = in_threads(2, lambda comm: dropout_run(comm, tmp_path / "parts", **run))
    np.testing.assert_equal(parts, whole)
    assert parts[0][2] != parts[1][2]  # the ranks' dropout
    logs = [
        (tmp_path / name / "log.jsonl").read_text().count("step") for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]


def test_a_run_can_go_on_with_another_number_of_ranks(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        in_threads(2, lambda comm: dropout_run(comm, tmp_path, halt=7))
    results = in_threads(3, lambda comm: dropout_run(comm, tmp_path))
    assert [loss.size for loss, _, _ in results] == [12] * 3
    states = [state for _, state, _ in results]
    np.testing.assert_equal(states[1:], states[:-1])


def test_a_state_of_something_else_is_refused():
    parallel = DataParallel(network())
    assert parallel.state_dict() == {"ranks": 1}
    with pytest.raises(
        ValueError, match=r"DataParallel expects a state with ranks; got {'size': 2}"
    ):
        parallel.load_state_dict({"size": 2})


# ------------------------------------------------------------ what was sent


def test_all_reduced_are_the_nonzeros_the_biases_and_a_short_trailer_as_the_report_says():
    sent = []

    class Counting:
        """Two ranks of which this is the first; the other has the same gradients."""

        def Get_rank(self):  # noqa: N802
            return 0

        def Get_size(self):  # noqa: N802
            return 2

        def Allreduce(self, sendbuf, recvbuf):  # noqa: N802
            sent.append(sendbuf.nbytes)
            np.multiply(sendbuf, 2, out=recvbuf)

        def Allgather(self, sendbuf, recvbuf):  # noqa: N802
            recvbuf[...] = sendbuf

        def Barrier(self):  # noqa: N802
            pass

        def Abort(self, errorcode=0):  # noqa: N802
            pass

    layers = [
        nn.SparseLinear(40, 64, sparsity=0.75, rng=0),
        nn.SparseLinear(64, 8, sparsity=0.9, rng=1),
    ]
    model = nn.Sequential(*layers)
    parallel = DataParallel(model, Counting())
    loss = nn.CrossEntropyLoss()(model(np.ones((4, 40))), [0, 1, 2, 3])
    loss.backward()
    local = [np.array(p.grad) for p in model.parameters()]
    assert parallel.reduce(loss, 4) == (pytest.approx(loss.item()), 8, False)
    for p, g in zip(model.parameters(), local, strict=True):
        assert np.array_equal(p.grad, g)
    report = parallel.report()
    nnz, biases = sum(layer.nnz for layer in layers), 64 + 8
    assert (layers[0].nnz, layers[1].nnz) == (0.25 * 40 * 64, round(0.1 * 64 * 8))
    assert report.gradient_bytes == 4 * (nnz + biases)
    assert report.weight_bytes == 4 * nnz
    assert report.other_bytes == 4 * biases
    assert report.dense_weight_bytes == 4 * (40 * 64 + 64 * 8)
    assert report.dense_bytes == report.dense_weight_bytes + 4 * biases
    whole = 1 - nnz / (40 * 64 + 64 * 8)  # sparsity of all weights together
    assert report.gradient_bytes <= round((1 - whole) * report.dense_weight_bytes) + 4 * biases
    assert report.trailer_bytes == 4 * (4 + 3 + 5)
    assert sent == [report.gradient_bytes + report.trailer_bytes]
    assert (report.ranks, report.steps, report.growth_bytes) == (2, 1, 0)
    assert str(report).startswith(
        "2 ranks, 1 steps; all-reduced per step 3,100 bytes: gradients 3,052, the rest 48; "
    )
    assert "ms per step" in str(report)


def test_a_report_tells_what_growth_took_and_nothing_before_the_first_step():
    def program(comm):
        parallel = DataParallel(network(), comm)
        before = str(parallel.report())
        parallel.model[0].taps = [(np.ones((1, 32, 16)), np.ones((1, 20, 16)))]
        parallel.reduce(0.0, 1)
        return before, str(parallel.report())

    (before, after), _ = in_threads(2, program)
    assert before.startswith("2 ranks, 0 steps; ")
    assert "ms per step" not in before
    assert "gathered for growth, in all 13,344 bytes" in after
    assert str(DataParallel(network()).report()) == "1 rank, 0 steps; nothing was sent"


# ------------------------------------------------------------ what is refused


def seeded_by_rank(comm):
    DataParallel(network(seed=comm.Get_rank()), comm)


def other_shapes(comm):
    DataParallel(nn.mlp([4, 5 + comm.Get_rank(), 2], rng=0), comm)


def other_layers(comm):
    DataParallel(nn.mlp([4, *[5] * (1 + comm.Get_rank()), 2], rng=0), comm)


def other_order(comm):
    DataParallel(network(), comm).shard(
        data.DataLoader(samples(), batch_size=4, rng=comm.Get_rank())
    )


def other_samples(comm):
    part = samples(20 + comm.Get_rank())
    DataParallel(network(), comm).shard(data.DataLoader(part, batch_size=4, rng=0))


def other_rows(comm):
    x, y = samples()
    x[0, 0] += comm.Get_rank()
    DataParallel(network(), comm).shard(data.DataLoader((x, y), batch_size=4, rng=0))


def other_targets(comm):
    x, y = samples()
    y[7] = comm.Get_rank()
    DataParallel(network(), comm).shard(data.DataLoader((x, y), batch_size=4, rng=0))


def whole_loader(comm):
    model = network()
    training.fit(
        model,
        nn.CrossEntropyLoss(),
        optim.SGD(model.parameters()),
        data.DataLoader(samples(), batch_size=4, rng=0),
        epochs=1,
        updates=[DataParallel(model, comm)],
        progress=False,
    )


def moved_alone(comm):
    model = network()
    parallel = DataParallel(model, comm)
    if comm.Get_rank() == 1:
        weight = model[0].weight
        grown = weight.topology.random_free(3, 0)
        rows, columns = weight.topology.coo()
        kept = type(grown).from_coo(grown.shape, rows[3:], columns[3:])
        weight.move_to(kept | grown)  # as many weights, elsewhere
    parallel.reduce(0.0, 1)


def pruned_alone(comm):
    model = network()
    parallel = DataParallel(model, comm)
    if comm.Get_rank() == 1:
        weight = model[0].weight
        rows, columns = weight.topology.coo()
        weight.move_to(type(weight.topology).from_coo(weight.topology.shape, rows[3:], columns[3:]))
    parallel.reduce(0.0, 1)


def update_alone(comm):
    model = network()
    parallel = DataParallel(model, comm)
    model[0].taps = [] if comm.Get_rank() else None
    parallel.reduce(0.0, 1)


def held_alone(comm):
    model = network()
    parallel = DataParallel(model, comm)
    if comm.Get_rank():
        model[0].weight.buffers["held"] = np.ones(model[0].nnz)
    parallel.reduce(0.0, 1)


def weight_changed_alone(comm):
    model = network()
    parallel = DataParallel(model, comm)
    if comm.Get_rank() == 2:
        model[4].bias.data[0] = np.nextafter(0, 1)
    parallel.check()


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        (
            seeded_by_rank,
            RanksDifferError,
            r"parameter 0\.weight on ranks 1, 2 differs from rank 0's\. Make",
        ),
        (other_shapes, RanksDifferError, r"parameter 0\.weight on ranks 1, 2 differs"),
        (other_layers, RanksDifferError, "rank 0 has other parameters than ranks 1, 2"),
        (other_order, RanksDifferError, "DataLoader: seed on ranks 1, 2 differs .* same rng"),
        (other_samples, RanksDifferError, "DataLoader: samples on ranks 1, 2 differs"),
        (other_rows, RanksDifferError, "DataLoader: content on ranks 1, 2 differs .* same data"),
        (other_targets, RanksDifferError, "DataLoader: content on ranks 1, 2 differs"),
        (whole_loader, ValueError, r"its own part .* got part 0 of 1\. Pass parallel\.shard"),
        (moved_alone, RanksDifferError, r"parameter 0\.weight on rank 1 differs"),
        (pruned_alone, RuntimeError, r"all-reduce of \d+ numbers of step 1 failed .* same recipe"),
        (update_alone, RanksDifferError, r"rank . has . layers at an update .* together have 2"),
        (held_alone, RanksDifferError, "or other weights are held at zero"),
        (weight_changed_alone, RanksDifferError, r"parameter 4\.bias on rank 2 differs"),
    ],
)
def test_ranks_that_do_not_agree_are_told_what_differs_and_where(program, error, message):
    with pytest.raises(error, match=message):
        in_threads(3, program)


def two(make):
    return lambda: in_threads(2, lambda comm: make(comm))


def model_with(*layers):
    return nn.Sequential(*layers, nn.Linear(4, 2, rng=0))


def dropping(bits):
    return model_with(nn.Dropout(0.5, np.random.Generator(bits(0))))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DataParallel("model"), TypeError, r"expects a model \(nn\.Module\); got str"),
        (
            lambda: DataParallel(network(), 3),
            TypeError,
            "expects a communicator.*int without Abort",
        ),
        (lambda: DataParallel(nn.ReLU()), ValueError, "a model with parameters; got none"),
        (
            two(lambda comm: DataParallel(model_with(nn.BatchNorm1d(4)), comm)),
            ValueError,
            "without BatchNorm1d; got one at '0'.*own samples",
        ),
        *(
            (
                two(lambda comm, bits=bits: DataParallel(dropping(bits), comm)),
                ValueError,
                f"can jump ahead at any time in the Dropout at '0'.*got {bits.__name__}",
            )
            for bits in (np.random.SFC64, np.random.Philox, np.random.MT19937)
        ),
        (
            lambda: DataParallel(network()).shard([1]),
            TypeError,
            "shard expects a DataLoader; got list",
        ),
        (lambda: DataParallel(network()).reduce(0.0, -1.0), ValueError, r"at least 0; got -1\.0"),
        (lambda: DataParallel(network()).reduce(0.0, np.nan), ValueError, "finite .* got nan"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
