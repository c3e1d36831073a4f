"""`ns.profile`: what it records, that it adds up, and that it costs nothing while nobody records."""

import csv
import io
import json
import threading
import time
import timeit
from collections import Counter
from pathlib import Path

import numba
import numpy as np
import pytest

import nnsparse as ns
from nnsparse import jit, nn, optim, plan, roofline, trace
from nnsparse.profiling import COLUMNS, SECTIONS, Profile

BATCH = 50  # not a multiple of a tile's lanes
PRODUCTS = ("forward", "input gradient", "weight gradient")
MACHINE = roofline.Roof(2, 200.0, 20.0)


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes half a second; one test does."""
    monkeypatch.setattr("nnsparse.profiling.roof", lambda: MACHINE)


class Training:
    """A small net, and one step of training it."""

    def __init__(self, dtype: type = np.float32, hidden: type | None = None) -> None:
        rng = np.random.default_rng(0)
        self.first = nn.SparseLinear(200, 120, sparsity=0.9, rng=rng, dtype=dtype)
        self.last = (hidden or nn.Linear)(120, 10, rng=rng, dtype=dtype)
        self.model = nn.Sequential(self.first, nn.ReLU(), self.last)
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.x = rng.standard_normal((BATCH, 200)).astype(dtype)
        self.y = rng.integers(0, 10, BATCH)

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


@pytest.fixture(scope="module")
def training() -> Training:
    made = Training()
    made.step()
    return made


def profiled(training: Training, steps: int) -> Profile:
    with ns.profile() as p:
        for _ in range(steps):
            training.step()
    return p


def table(p: Profile, what: str) -> dict[tuple[str, str], float]:
    return {(row["layer"], row["section"]): row[what] for row in p.rows()}


def test_sections_and_overhead_add_up_to_the_wall_time(training: Training) -> None:
    start = time.perf_counter()
    p = profiled(training, 20)
    wall = time.perf_counter() - start
    assert p.seconds <= wall
    assert p.seconds == pytest.approx(wall, rel=0.05, abs=0.03)  # the machine may be busy
    assert sum(p.sections().values()) + p.overhead == pytest.approx(p.seconds, rel=1e-6)
    assert p.overhead < 0.5 * p.seconds
    assert sum(row["seconds"] for row in p.rows()) == pytest.approx(sum(p.sections().values()))
    assert all(row["seconds"] >= 0 for row in p.rows())


def test_time_spent_in_a_known_place_is_charged_there(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = training.optimizer._update

    def slow(*args: object) -> None:
        time.sleep(0.005)
        update(*args)

    monkeypatch.setattr(training.optimizer, "_update", slow)
    with ns.profile() as p:
        training.step()
        time.sleep(0.03)
    seconds = table(p, "seconds")
    assert seconds["0", "write-back"] >= 0.01  # weight and bias
    assert seconds["2", "write-back"] >= 0.01
    assert seconds["", "python"] >= 0.03
    assert p.sections()["write-back"] >= 0.02


def test_operations_are_exact_and_counted_where_the_weights_are(training: Training) -> None:
    flops, calls = (table(profiled(training, 3), what) for what in ("flops", "calls"))
    nnz = {"0": training.first.nnz, "2": 120 * 10}
    assert nnz["0"] == 2400
    for layer, section in [(a, b) for a in nnz for b in PRODUCTS]:
        if (layer, section) == ("0", "input gradient"):  # nobody asks for that of the data
            assert (layer, section) not in flops
        else:
            assert flops[layer, section] == 3 * 2 * nnz[layer] * BATCH
            assert calls[layer, section] == 3
    counted = {section for (_, section), n in flops.items() if n}
    assert counted == set(PRODUCTS)


def test_bytes_are_values_indices_and_activations_once(training: Training) -> None:
    nbytes = table(profiled(training, 1), "bytes")
    layout = training.first.structure.plan.forward
    assert layout.nbytes >= 2400
    activations = BATCH * (200 + 120) * 4
    for product in ("forward", "weight gradient"):
        assert nbytes["0", product] == 2400 * 4 + layout.nbytes + activations
        assert nbytes["2", product] == 4 * (1200 + BATCH * 130)
    assert nbytes["2", "write-back"] == 4 * 5 * (1200 + 10)  # p and m twice, g once
    tiles = 4 * 200 * 64  # 50 samples in one tile of 64
    assert nbytes["", "layout"] == 2 * tiles + BATCH * 8


def test_the_input_gradient_also_reads_the_map_to_its_order() -> None:
    model = nn.Sequential(*(nn.SparseLinear(64, 64, sparsity=0.9, rng=i) for i in range(2)))
    with ns.profile() as p:
        model(np.ones((BATCH, 64))).sum().backward()
    layer = model[1]
    assert isinstance(layer, nn.SparseLinear)
    made = layer.structure.plan
    expected = made.transposed.nbytes + made.source.nbytes + 4 * (layer.nnz + BATCH * 128)
    assert table(p, "bytes")["1", "input gradient"] == expected


def test_rates_are_amounts_over_seconds(training: Training) -> None:
    for row in profiled(training, 2).rows():
        assert tuple(row) == COLUMNS
        assert row["gflops"] == pytest.approx(row["flops"] / row["seconds"] / 1e9)
        assert row["gbps"] == pytest.approx(row["bytes"] / row["seconds"] / 1e9)


def test_layers_are_named_as_in_named_modules(training: Training) -> None:
    rows = profiled(training, 1).rows()
    layers = {row["layer"] for row in rows}
    assert layers <= {name for name, _ in training.model.named_modules()}
    owners = {name.rpartition(".")[0] for name, _ in training.model.named_parameters()}
    assert layers - {""} == owners == {"0", "2"}
    assert [row["layer"] for row in rows] == sorted(
        (row["layer"] for row in rows), key=["0", "2", ""].index
    )
    assert {(r["layer"], r["section"]) for r in rows} >= {
        ("0", "relu_gate"), ("2", "write-back"), ("", "cross_entropy"), ("", "layout")
    }  # fmt: skip


class Branches(nn.Module):
    """Attributes instead of a Sequential, one part inside another."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.SparseLinear(20, 16, sparsity=0.5, rng=0)
        self.inner = nn.Sequential(nn.Linear(16, 16, rng=0), nn.Tanh())

    def forward(self, x: ns.Tensor) -> ns.Tensor:
        return self.inner(self.left(x))


def test_nested_modules_have_dotted_names_forward_and_backward() -> None:
    model = Branches()
    with ns.profile() as p:
        model(np.ones((4, 20))).sum().backward()
    flops, calls = table(p, "flops"), table(p, "calls")
    assert flops["left", "weight gradient"] == 2 * 160 * 4
    assert flops["inner.0", "input gradient"] == 2 * 256 * 4
    assert calls["inner.1", "tanh"] == calls["inner.1", "tanh_backward"] == 1


def test_a_second_model_does_not_mix_with_the_first() -> None:
    one, two = (nn.mlp([8, 6, 4], sparsity=0.5, rng=0) for _ in range(2))
    with ns.profile() as p:
        two(one(np.ones((3, 8))).numpy().repeat(2, axis=1))
    forward = {row["layer"] for row in p.rows() if row["section"] == "forward"}
    assert forward == {"0", "2", "Sequential#2.0", "Sequential#2.2"}


def test_a_model_given_names_layers_that_are_called_alone() -> None:
    model = Branches()
    with ns.profile(model) as p:
        model.inner[0](np.ones((2, 16)))
    assert ("inner.0", "forward") in table(p, "calls")
    with pytest.raises(TypeError, match="expects a Module or nothing; got list"):
        ns.profile([model])  # type: ignore[arg-type]


def test_plan_build_and_lookup_are_apart() -> None:
    training = Training()
    before = plan.plans_built()
    first, second = profiled(training, 1), profiled(training, 1)
    assert plan.plans_built() == before + 1
    assert table(first, "calls")["0", "plan build"] == 1
    assert first.sections()["plan build"] > 0
    assert second.sections()["plan build"] == 0
    assert 0 < second.sections()["plan lookup"] < first.sections()["plan build"]


def test_every_section_of_the_thesis_is_there_even_if_empty() -> None:
    with ns.profile() as p:
        pass
    assert tuple(p.sections()) == SECTIONS
    assert sum(p.sections().values()) == p.sections()["python"] >= 0
    assert "forward" not in str(p)


def test_data_that_leaves_is_write_back(training: Training) -> None:
    for leave in (
        lambda: training.model.predict(training.x),
        lambda: training.model(training.x).numpy(),
    ):
        with ns.profile() as p:
            leave()
        assert p.sections()["write-back"] > 0
        assert table(p, "calls")["", "write-back"] == 1


def test_a_numpy_layer_is_charged_as_a_whole() -> None:
    training = Training(hidden=nn.NumpyLinear)
    training.step()
    p = profiled(training, 2)
    assert table(p, "flops")["2", "input gradient"] == 2 * 2 * 1200 * BATCH
    assert all(table(p, "seconds")["2", product] > 0 for product in PRODUCTS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 200])  # one by one on one thread, tiles on all
def test_a_compiled_model_is_one_forward_product(batch: int, dtype: type) -> None:
    model = nn.mlp([300, 200, 100, 10], sparsity=0.7, dtype=dtype, rng=0)
    fast = ns.compile(model)
    assert 200 * fast.n_weights >= 2**20
    x = np.zeros((batch, 300), dtype)
    with ns.profile() as p:
        for _ in range(3):
            fast.predict(x)
    name, itemsize = "CompiledModel(300 -> 200 -> 100 -> 10)", np.dtype(dtype).itemsize
    assert table(p, "calls")[name, "forward"] == 3
    assert table(p, "flops")[name, "forward"] == 3 * 2 * fast.n_weights * batch
    assert table(p, "bytes")[name, "forward"] == 3 * (fast.nbytes + batch * 310 * itemsize)
    assert table(p, "seconds")[name, "forward"] > 0
    assert p._recorder.entry(name, "forward").work == 6 * fast.n_weights * batch * itemsize // 4
    assert sum(p.sections().values()) + p.overhead == pytest.approx(p.seconds, rel=1e-6)
    assert name in str(p)


def test_a_compiled_model_gives_the_same_bits_while_recorded() -> None:
    fast = ns.compile(nn.mlp([30, 20, 10], sparsity=0.5, rng=0))
    x = np.random.default_rng(0).random((7, 30), np.float32)
    with ns.profile():
        recorded = fast.predict(x)
    assert np.array_equal(recorded, fast.predict(x))


def test_compiling_is_not_charged_to_the_kernel() -> None:
    def fill(out):  # type: ignore[no-untyped-def]
        for i in numba.prange(out.size):
            out[i] = 1.0

    kernel = jit._ParallelKernel(numba.njit(parallel=True)(fill))  # never cached
    out = np.zeros(4)
    with ns.profile() as p:
        kernel(out)
    seconds = p.sections()
    assert seconds["compilation"] > 0.05
    assert seconds["compilation"] > seconds["fill"] > 0
    assert out.tolist() == [1.0] * 4


def test_loading_a_compiled_kernel_is_compilation_too() -> None:
    def load_me(out):  # type: ignore[no-untyped-def]
        for i in numba.prange(out.size):
            out[i] = 2.0

    first, second = jit.parallel(load_me), jit.parallel(load_me)
    out = np.zeros(4)
    first(out)  # saves it
    with ns.profile() as p:
        second(out)
    assert p.sections()["compilation"] > 0
    assert table(p, "calls")["", "load_me"] == 1


def test_results_are_the_same_bits_with_and_without() -> None:
    plain, recorded = Training(), Training()
    with ns.profile():
        losses = [recorded.step() for _ in range(3)]
    assert losses == [plain.step() for _ in range(3)]
    assert np.array_equal(plain.first.weight.data, recorded.first.weight.data)


def test_only_the_thread_that_entered_is_recorded(training: Training) -> None:
    inside, done = threading.Event(), threading.Event()
    other = Training()
    found: list[Profile] = []

    def work() -> None:
        inside.wait()
        for _ in range(5):
            other.step()
        found.append(profiled(other, 4))  # a thread of its own may have a profile of its own
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    with ns.profile() as p:
        inside.set()
        assert done.wait(60)
        training.step()
    thread.join()
    assert table(p, "calls")["0", "forward"] == 1
    assert table(found[0], "calls")["0", "forward"] == 4
    assert trace.active is None


def test_nested_profiles_are_refused_and_leave_the_outer_one_running(training: Training) -> None:
    with ns.profile() as p:
        with pytest.raises(RuntimeError, match="being profiled already"), ns.profile():
            pass
        with pytest.raises(RuntimeError, match="being profiled already"), p:
            pass
        training.step()
    assert table(p, "calls")["0", "forward"] == 1


def test_one_profile_cannot_record_two_threads() -> None:
    errors: list[str] = []

    def enter(p: Profile) -> None:
        try:
            p.__enter__()
        except RuntimeError as error:
            errors.append(str(error))

    with ns.profile() as p:
        thread = threading.Thread(target=enter, args=(p,))
        thread.start()
        thread.join()
    assert errors == ["profile: this profile is recording another thread. Make one per thread."]


def test_entering_again_adds_up_and_time_between_is_nobodys(training: Training) -> None:
    p = ns.profile()
    for _ in range(3):
        with p:
            training.step()
        time.sleep(0.02)
    assert table(p, "calls")["2", "forward"] == 3
    assert sum(p.sections().values()) + p.overhead == pytest.approx(p.seconds, rel=1e-6)


def test_an_exception_ends_the_recording_and_keeps_what_was_recorded(training: Training) -> None:
    p = ns.profile()
    with p:
        training.step()
    with pytest.raises(ValueError, match="expects x of shape"), p:
        training.model(np.ones((2, 3)))
    assert trace.active is None
    assert table(p, "calls")["0", "forward"] == 1
    assert p._recorder._stack == []


def test_a_graph_made_inside_can_be_used_outside(training: Training) -> None:
    with ns.profile() as p:
        loss = training.loss(training.model(training.x), training.y)
    training.model.zero_grad()
    loss.backward()
    assert training.first.weight.grad is not None
    assert ("0", "weight gradient") not in table(p, "calls")


def test_the_table_shows_every_row_its_share_and_its_roof(training: Training) -> None:
    p = profiled(training, 3)
    lines = str(p).splitlines()
    assert "200 GFLOP/s float32, 20.0 GB/s" in lines[0]
    assert " ".join(lines[1].split()) == "layer section calls ms share GFLOP/s GB/s of roof"
    body = lines[3 : lines.index("")]
    assert len(body) == len(p.rows())
    shares = [float(line.split(" %")[0].split()[-1]) for line in body]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(body) + 0.01)
    assert len({line.rstrip().find("%") for line in body}) == 1, "the columns are aligned"
    assert sum(line.startswith("(model)") for line in body) == 1
    assert lines[lines.index("") + 1].startswith("all ")
    assert max(map(len, lines)) <= 120


def test_the_roof_is_the_lower_one_of_peak_and_memory() -> None:
    from nnsparse.profiling import _of_roof
    from nnsparse.recorder import Entry

    def entry(gflop: int, work: int, gbyte: int) -> Entry:
        made = Entry()
        made.seconds = 1.0
        made.flops, made.work, made.nbytes = (n * 10**9 for n in (gflop, work, gbyte))
        return made

    def shown(made: Entry) -> str:
        return _of_roof(made, 1e-9 * made.nbytes, MACHINE)

    assert shown(entry(100, 100, 5)) == "50 %"  # of 200 GFLOP/s
    assert shown(entry(10, 10, 10)) == "50 %"  # of what 20 GB/s feed
    assert shown(entry(50, 100, 5)) == "50 %"  # float64
    assert shown(entry(100, 100, 40)) == "50 %"  # memory was not the limit
    assert shown(entry(0, 0, 10)) == "50 %"
    assert shown(entry(0, 0, 40)) == "cache"
    assert shown(entry(0, 0, 0)) == ""


def test_float64_counts_the_same_operations_and_twice_the_bytes() -> None:
    training = Training(np.float64)
    p = profiled(training, 1)
    assert table(p, "flops")["2", "forward"] == 2 * 1200 * BATCH
    assert table(p, "bytes")["2", "forward"] == 8 * (1200 + BATCH * 130)
    assert p._recorder.entry("2", "forward").work == 2 * table(p, "flops")["2", "forward"]


def test_json_and_csv_hold_the_rows(training: Training, tmp_path: Path) -> None:
    p = profiled(training, 2)
    text = p.to_json(tmp_path / "p.json")
    assert (tmp_path / "p.json").read_text(encoding="utf-8") == text
    content = json.loads(text)
    assert content["rows"] == p.rows()
    assert content["sections"] == p.sections()
    assert content["roof"] == {"threads": 2, "gflops": 200.0, "gbps": 20.0}
    assert (content["seconds"], content["overhead"]) == (p.seconds, p.overhead)

    text = p.to_csv(str(tmp_path / "p.csv"))
    assert (tmp_path / "p.csv").read_text(encoding="utf-8") == text
    read = list(csv.DictReader(io.StringIO(text)))
    assert tuple(read[0]) == COLUMNS
    assert [int(row["flops"]) for row in read] == [row["flops"] for row in p.rows()]


def test_the_machine_is_measured_once_and_gives_its_threads_back() -> None:
    before = ns.get_num_threads()
    found = roofline.roof()
    assert found is roofline.roof()
    assert found.threads == ns.get_num_threads() == before
    # A core does billions of operations a second; no memory gives a terabyte per core.
    assert 1 < found.gflops < 1000 * before
    assert 0.2 < found.gbps < 1000 * before


# ---------------------------------------------------------------- cost while nobody records


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often each hook is reached, in a thread that nobody records."""
    counts: Counter[str] = Counter()
    for name in ("section", "kernel", "product", "layer", "bind", "update"):
        original = getattr(trace, name)

        def counted(*args: object, name: str = name, original: object = original) -> object:
            counts[name] += 1
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(trace, name, counted)
    monkeypatch.setattr(trace, "active", {-1: None})
    return counts


def step_of_four_layers() -> Training:
    training = Training()
    training.model = nn.mlp([200, 64, 64, 64, 10], sparsity=0.8, rng=0)
    training.optimizer = optim.SGD(training.model.parameters(), lr=0.1, momentum=0.9)
    training.step()
    return training


def extra(statement: str, plain: str) -> float:
    """Return the seconds that one statement takes longer than another: fastest of many short runs, in turn."""
    timers = [
        timeit.Timer(s, "def work(): pass", globals={"trace": trace}) for s in (statement, plain)
    ]
    runs = [[timer.timeit(1000) for timer in timers] for _ in range(1500)]
    slow, fast = (min(column) / 1000 for column in zip(*runs, strict=True))
    return slow - fast


def test_the_hooks_of_a_step_cost_less_than_a_microsecond(hooks: Counter[str]) -> None:
    training = step_of_four_layers()
    hooks.clear()
    training.step()
    assert hooks["product"] == 4 + 3 + 4
    assert hooks["update"] == 8
    assert hooks["kernel"] >= 16
    assert hooks["section"] >= 20  # buffers
    trace.active = None
    ask = extra("f = work if trace.active is None else work", "f = work")
    cost = sum(hooks.values()) * ask
    assert cost < 1e-6, f"{sum(hooks.values())} hooks of {1e9 * ask:.1f} ns: {1e6 * cost:.2f} µs"
