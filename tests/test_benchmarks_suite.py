"""`python -m benchmarks` and its parts at tiny sizes: they run, add up, and refuse bad arguments.

How fast anything is, is not tested here; see also `test_benchmarks` and `test_benchmarks_training`.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import (  # noqa: E402
    __main__ as suite,
)
from benchmarks import (  # noqa: E402
    _images,
    _memory_child,
    _multicore,
    _program,
    _rivals,
    _suite,
    _suite_report,
    _task,
    challenge,
    crossover,
    kernels,
    memory,
    multicore,
    pruning,
    startup,
    thesis,
    training,
)
from benchmarks._allocations import steady  # noqa: E402
from benchmarks._plain import LAYOUTS, Plain, PlainLinear  # noqa: E402
from nnsparse import Topology, datasets, nn  # noqa: E402

CROSSOVER = crossover.Settings(
    sizes=(40,),
    batches=(20,),
    threads=(1,),
    sparsity=(0.9, 0.0),
    repeats=3,
    calls=1,
    pause=0.0,
    rivals=("nnsparse", "numpy", "dense"),
)
MULTICORE = multicore.Settings(
    nets=("7x256",),
    threads=(1,),
    passes=2,
    repeats=3,
    pause=0.0,
    rivals=("nnsparse", "predict", "numpy", "dense", "csr", "coo"),
)
THESIS = thesis.Settings(
    features=(64,),
    epochs=2,
    samples=128,
    threads=1,
    repeats=3,
    pause=0.0,
    rivals=("nnsparse", "csr", "csc", "coo", "numpy"),
)
MEMORY = memory.Settings(sizes=(80, 70, 10), batch=20, rows=40, steps=1, threads=1)
PRUNING = pruning.Settings(
    sizes=(784, 12, 10), sparsity=0.5, batch=20, steps=10, every=2, refresh=4, threads=1
)
TINY = {
    "crossover": CROSSOVER,
    "multicore": MULTICORE,
    "thesis": THESIS,
    "memory": MEMORY,
    "pruning": PRUNING,
}
MODULES = {
    "crossover": crossover,
    "multicore": multicore,
    "thesis": thesis,
    "memory": memory,
    "pruning": pruning,
}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """A result of each part, as it comes back from its JSON file; processes only pretend."""

    def pretend(rival: str, settings: memory.Settings) -> dict[str, Any]:
        size = {"nnsparse": 10, "torch": 100}.get(rival, 80) * 10**6
        kinds = {**dict.fromkeys(_memory_child.KINDS, 0), "values": size}
        found = {"before": 10**8, "peak": 10**8 + 2 * size, "exact": True, "data": 1000, **kinds}
        steps = {"step_largest": 3210, "step_where": "cross, empty", "step_growth": 32}
        return found if rival == "torch" else {**found, **steps}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "child", pretend)
        patch.setitem(_task.NETS, "square-64", _task.Net((64, 64, 10), (0.9, None), 16, "tiny"))
        patch.setattr(_images, "images", lambda *n: ("digits", *datasets.digits(*n)))
        return {
            name: json.loads(json.dumps(MODULES[name].measure(settings, control_size=64)))
            for name, settings in TINY.items()
        }


# ---------------------------------------------------------------- every part


@pytest.mark.parametrize("name", TINY)
def test_a_report_has_the_machine_the_control_and_every_rival(
    name: str, found: dict[str, dict[str, Any]]
) -> None:
    result = found[name]
    text = MODULES[name].report(result)
    assert result["benchmark"] == name
    assert "control, before -> after: BLAS gemm" in text
    assert "commit" in text
    if name != "memory":
        assert all(f"- {rival}: " in text for rival in result["notes"])


@pytest.mark.parametrize("name", TINY)
def test_a_plot_is_drawn(name: str, found: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "out.png"
    MODULES[name].plot(found[name], path)
    assert path.stat().st_size > 5000


@pytest.mark.parametrize("name", TINY)
def test_results_stay_small(name: str, found: dict[str, dict[str, Any]]) -> None:
    assert len(json.dumps(found[name], indent=1)) < 100_000


def test_a_rival_that_is_not_installed_is_skipped_and_the_report_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = _rivals.Rival(_multicore.RIVALS["numpy"].make, "", "no_such_package")
    monkeypatch.setattr(multicore, "RIVALS", {**multicore.RIVALS, "torch": absent})
    settings = replace(MULTICORE, rivals=("numpy", "torch"))
    result = multicore.measure(settings, control_size=64)
    assert list(result["results"][0]["threads"]["1"]) == ["numpy"]
    assert "torch skipped" in multicore.report(result)
    assert "pip install no_such_package" in multicore.report(result)
    with pytest.raises(ValueError, match="none of the rivals is installed: torch skipped"):
        multicore.measure(replace(settings, rivals=("torch",)), control_size=64)


def test_what_to_install_can_have_another_name_than_what_to_import() -> None:
    rivals = {"mkl": _rivals.Rival(_rivals.mkl_csr, "", "sparse_dot_mkl.no_such_module")}
    (line,) = _rivals.available(("mkl",), rivals)[1]
    assert line.startswith("mkl skipped")
    assert _rivals._TO_INSTALL["sklearn"] == "scikit-learn"


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (crossover, "--rivals numpy,torch", "the crossover needs the rivals nnsparse"),
        (crossover, "--sparsity 0.5", "a curve needs two sparsities or more"),
        (crossover, "--sparsity 0.5 90", "expected a fraction of zeros"),
        (crossover, "--threads 1 4096", "expects an integer from 1 to"),
        (crossover, "--repeats 2", "expected an integer from 3 on; got '2'"),
        (crossover, "--rivals magic", "unknown rival magic"),
        (multicore, "--nets 5x5", "unknown net 5x5; choose from 3x2048, 7x256, 24x128"),
        (multicore, "--rivals magic", "unknown rival magic; choose from nnsparse, predict"),
        (multicore, "--repeats 2", "expected an integer from 3 on"),
        (multicore, "--threads 4096", "expects an integer from 1 to"),
        (multicore, "--plot out.xyz", "--plot draws .png, .svg or .pdf"),
        (thesis, "--features 100", "invalid choice: 100"),
        (thesis, "--rivals dense", "unknown rival dense"),
        (thesis, "--samples 10 --threads 1", "10 samples give no batch of 64"),
        (thesis, "--repeats 2", "expected an integer from 3 on"),
        (memory, "--sizes 10 10", "--sizes expects three numbers or more"),
        (memory, "--rows 10 --threads 1", "10 rows give no batch of 256"),
        (memory, "--rivals scipy", "unknown rival scipy"),
        (memory, "--json /no/such/folder/out.json", "/no/such/folder is not a folder"),
    ],
)
def test_a_bad_argument_of_a_part_ends_with_code_2_and_says_why(
    module: Any, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        module.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_a_plot_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(_program, "can_plot", lambda: False)
    with pytest.raises(SystemExit) as stop:
        kernels.main(["--plot", str(tmp_path / "out.png")])
    assert stop.value.code == 2
    assert "pip install 'nnsparse[plot]'" in capsys.readouterr().err


# ---------------------------------------------------------------- crossover


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((0.5, 2.0, 4.0), 0.25),  # the same distance below and above 1, in the logarithm
        ((2.0, 0.5, 2.0), 0.7),  # the last crossing counts
        ((1.0, 2.0, 4.0), 0.0),
        ((0.5, 0.6, 0.9), None),
    ],
)
def test_the_crossing_is_interpolated(ratios: tuple[float, ...], expected: float | None) -> None:
    assert crossover.crossing((0.0, 0.5, 0.9), np.array(ratios)) == pytest.approx(expected)


def test_a_curve_has_its_points_in_order_and_a_crossing_per_dense_rival(
    found: dict[str, dict[str, Any]],
) -> None:
    (entry,) = found["crossover"]["results"]
    assert [p["sparsity"] for p in entry["points"]] == [0.0, 0.9]
    assert list(entry["crossings"]) == ["numpy", "dense"]
    rivals = entry["points"][1]["rivals"]
    assert list(rivals) == ["nnsparse", "numpy", "dense"]
    assert all(0 < row["forward"] < row["total"] for row in rivals.values())
    ratio = rivals["numpy"]["total"] / rivals["dense"]["total"]
    text = crossover.report(found["crossover"])
    assert f"{crossover._common.number(ratio)}×" in text
    assert "40 × 40, batch 20, 1 thread" in text


def test_every_size_batch_and_number_of_threads_is_a_configuration() -> None:
    settings = replace(CROSSOVER, sizes=(32, 64), batches=(8, 16), threads=(1, 2))
    runs = list(crossover.configurations(settings))
    assert len({(run.n_in, run.batch, run.threads) for run in runs}) == len(runs) == 8
    assert all(run.n_in == run.n_out for run in runs)


# ---------------------------------------------------------------- multicore


@pytest.mark.parametrize(
    ("net", "coo", "csr"),
    [("3x2048", 129_792, 92_677), ("7x256", 6_393, 6_063), ("24x128", 5_901, 7_032)],
)
def test_the_pruned_networks_have_the_papers_sizes_in_elements(
    net: str, coo: int, csr: int
) -> None:
    model = _multicore.network(_multicore.NETS[net], 0)
    assert _multicore.elements(model) == {"coo": coo, "csr": csr}


@pytest.mark.parametrize("rival", multicore.RIVALS)
def test_a_rival_computes_the_paper_s_forward_pass(rival: str) -> None:
    if package := multicore.RIVALS[rival].package:
        pytest.importorskip(package)
    model = _multicore.network((20, 40, 40, 30), 3)
    x = np.random.default_rng(0).random((1, 20), np.float32)
    wanted = _multicore.reference(model, x)
    assert np.abs(wanted).min() > 0
    np.testing.assert_allclose(multicore.RIVALS[rival].make(model)(x), wanted, rtol=1e-5)


def test_a_rival_with_another_output_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(model: nn.Sequential) -> _multicore.Predict:
        return lambda x: model.predict(x) * np.float32(1.001)

    monkeypatch.setattr(multicore, "RIVALS", {"numpy": _rivals.Rival(wrong, "wrong")})
    code = multicore.main(
        ["--nets", "7x256", "--rivals", "numpy", "--threads", "1", "--repeats", "3"]
    )
    assert code == 1
    assert "multicore: 7x256: the output of numpy is off by" in capsys.readouterr().err


def test_all_rivals_are_timed_on_every_network(found: dict[str, dict[str, Any]]) -> None:
    (entry,) = found["multicore"]["results"]
    assert (entry["nnz"], entry["weights"]) == (2131, 426_240)
    assert tuple(entry["threads"]["1"]) == MULTICORE.rivals
    assert all(row["samples"] == 3 for row in entry["threads"]["1"].values())


# ---------------------------------------------------------------- thesis


def test_a_pass_is_timed_for_every_rival_and_split_into_sections(
    found: dict[str, dict[str, Any]],
) -> None:
    (entry,) = found["thesis"]["results"]
    assert tuple(entry["rivals"]) == THESIS.rivals
    assert entry["sections"]["first"]["plan build"] > 0
    assert entry["sections"]["later"]["plan build"] == 0
    assert entry["sections"]["later"]["forward"] > 0


def test_the_sparse_network_has_the_losses_of_the_masked_one(
    found: dict[str, dict[str, Any]],
) -> None:
    curves = found["thesis"]["curves"]
    losses = curves["losses"]
    assert len(losses["nnsparse"]) == THESIS.epochs
    assert losses["nnsparse"][1] < losses["nnsparse"][0]
    assert curves["difference"]["masked"] < 1e-4
    np.testing.assert_allclose(losses["nnsparse"], losses["masked"], rtol=1e-4)


def test_the_thesis_figures_stand_beside_ours(found: dict[str, dict[str, Any]]) -> None:
    settings = replace(THESIS, features=(2048,))
    (entry,) = found["thesis"]["results"]
    text = thesis.report(
        {
            **found["thesis"],
            "settings": {**found["thesis"]["settings"], "features": settings.features},
            "results": [{**entry, "features": 2048}],
            "curves": None,
        }
    )
    rows = {
        cells[1].strip(): cells[2].strip()
        for line in text.splitlines()
        if (cells := line.split("|"))[1:]
    }
    assert rows["published: original"] == "57.8"
    assert rows["published: torch dense"] == "0.0569"


def test_without_mnist_the_embedded_digits_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(download: bool = True) -> Any:
        raise datasets.DataUnavailable("no file")

    monkeypatch.setattr(datasets, "mnist", absent)
    name, (x, y), (x_test, y_test) = _images.images(30, 20)
    assert name.startswith("embedded digits")
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((30, 784), (30,), (20, 784), (20,))


def test_of_mnist_the_first_images_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros((50, 784), np.float32), np.arange(50)
    monkeypatch.setattr(datasets, "mnist", lambda download: (data, data))
    name, (x, y), (x_test, y_test) = _images.images(30, 20)
    assert name == "MNIST"
    assert (len(x), len(x_test)) == (30, 20)
    assert (y.tolist(), y_test.tolist()) == ([*range(30)], [*range(20)])


def test_a_report_warns_that_the_images_were_not_mnist_s(
    found: dict[str, dict[str, Any]],
) -> None:
    result = json.loads(json.dumps(found["thesis"]))
    assert "**Not MNIST: this ran on the digits, " in thesis.report(result)
    result["curves"]["data"] = "MNIST"
    assert "Not MNIST" not in thesis.report(result)


# ---------------------------------------------------------------- plain layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plain_layer_is_the_sparse_layer_in_another_order(layout: str) -> None:
    layer = nn.SparseLinear(30, 20, sparsity=0.7, rng=0)
    layer.bias.data[...] = np.arange(20)
    x = np.random.default_rng(1).standard_normal((7, 30)).astype(np.float32)
    plain = PlainLinear(layer, layout)
    np.testing.assert_allclose(plain(x).numpy(), layer(x).numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        plain.structure.canonical(plain.weight.data), layer.weight.canonical()
    )


def test_csc_has_an_order_of_its_own() -> None:
    topology = Topology.random((20, 30), sparsity=0.7, rng=0)
    orders = {layout: Plain(topology, layout).order for layout in LAYOUTS}
    np.testing.assert_array_equal(orders["csr"], orders["coo"])
    assert (orders["csc"] != orders["csr"]).any()


# ---------------------------------------------------------------- memory


def test_memory_is_the_growth_less_samples_and_activations(
    found: dict[str, dict[str, Any]],
) -> None:
    pytest.importorskip("torch")
    result = found["memory"]
    assert result["activations"] == 4 * 20 * (80 + 2 * 70 + 2 * 10)
    row = result["results"]["nnsparse"]
    assert row["growth"] == 2 * 10**7
    assert row["weights_and_state"] == 2 * 10**7 - 1000 - result["activations"]
    ratio = (2 * 10**8 - 1000 - 19200) / (2 * 10**7 - 1000 - 19200)
    assert f"{memory._common.number(ratio)}×" in memory.report(result)


def test_what_a_steady_step_allocates_is_reported_where_it_was_watched(
    found: dict[str, dict[str, Any]],
) -> None:
    result = json.loads(json.dumps(found["memory"]))
    _, watched = memory.report(result).split("## Allocations of a steady step")
    assert "| nnsparse |                 3210 | cross, empty |" in watched
    assert "| torch" not in watched
    for row in result["results"].values():
        for name in ("step_largest", "step_where", "step_growth"):
            row.pop(name, None)
    assert "steady" not in memory.report(result)  # a result of an older version


def test_a_block_that_lives_for_a_moment_is_seen_and_what_stays_is_counted() -> None:
    kept: list[Any] = []

    def step() -> None:
        np.empty(50_000, np.uint8)[0]
        kept.append(np.empty(1000, np.uint8))

    seen = steady(step, 10, 2)
    assert 50_000 <= seen.largest < 51_000
    assert seen.where.startswith("step, ")
    assert 10_000 <= seen.growth < 14_000
    assert sys.getprofile() is None


@pytest.mark.parametrize("rival", ["nnsparse", "torch"])
def test_a_child_trains_and_counts_its_bytes(rival: str) -> None:
    if rival == "torch":
        pytest.importorskip("torch")
    found = memory.child(rival, MEMORY)
    dense = 4 * (80 * 70 + 70 + 70 * 10 + 10)
    assert found["peak"] >= found["before"] > 0
    assert found["data"] == 4 * 40 * 80
    if rival == "nnsparse":
        assert 0 < found["step_largest"] < 16_384
        assert found["step_growth"] < 4096
    else:
        assert "step_largest" not in found
    assert found["gradient"] == found["state"] == found["values"]
    assert found["values"] == (dense if rival == "torch" else dense - 4 * round(0.95 * 80 * 70))


def test_a_child_that_fails_ends_the_program_with_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    arguments = "--sizes 80 70 10 --batch 20 --rows 40 --threads 1 --rivals nnsparse"
    assert memory.main(arguments.split()) == 1
    assert "memory: /bin/false" in capsys.readouterr().err


# ---------------------------------------------------------------- python -m benchmarks


def test_every_part_is_listed_with_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--list"]) == 0
    text = capsys.readouterr().out
    for name in _suite.PARTS:
        assert f"\n{name} " in f"\n{text}"
    assert {"choices", "learning"} < set(_suite.PARTS)
    assert "kernels-4096.json" in text


def test_what_takes_an_hour_runs_by_name_only() -> None:
    assert "accuracy" not in suite.parser().parse_args([]).only
    assert suite.parser().parse_args(["--only", "accuracy"]).only == ("accuracy",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--only kernels,party",
            "unknown benchmark party; choose from kernels, crossover, choices",
        ),
        ("--only ,", "no benchmark given"),
        ("--rivals magic", "unknown rival magic; choose from nnsparse"),
        ("--repeats 2", "expected an integer from 3 on; got '2'"),
        ("--threads 0", "expected an integer from 1 on"),
        ("--threads 4096", "expects an integer from 1 to"),
        ("--results /dev/null/x", "cannot write results into '/dev/null/x': "),
        ("--only multicore --rivals scipy", "nothing to run: multicore left out"),
        ("--frobnicate", "unrecognized arguments"),
    ],
)
def test_a_bad_argument_ends_with_code_2_and_says_why(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "--results" not in arguments:
        arguments += f" --results {tmp_path}"
    with pytest.raises(SystemExit) as stop:
        suite.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SystemExit) as stop:
        suite.main(["--results", str(tmp_path)])
    assert stop.value.code == 2
    assert "cannot write results into" in capsys.readouterr().err


def test_threads_repeats_and_rivals_reach_the_parts() -> None:
    found, left_out = _suite.jobs(tuple(_suite.PARTS), False, 3, 4, ("numpy", "nnsparse"))
    assert left_out == ["challenge left out: of its rivals none is in --rivals"]
    assert found["multicore"].settings.threads == (1, 3)
    assert found["kernels-1024"].settings.threads == 3
    has_none = {name for name, job in found.items() if not hasattr(job.settings, "repeats")}
    assert has_none == {
        "learning", "text", "resume", "estimators", "wide", "wide-64", "fuzz", "soak",
    }  # fmt: skip
    assert all(job.settings.repeats == 4 for name, job in found.items() if name not in has_none)
    assert found["learning"].settings.rivals == ("nnsparse", "numpy")
    assert found["training"].settings.rivals == ("nnsparse", "numpy")
    assert found["startup"].settings.programs == startup.Settings().programs


def test_quick_has_a_part_of_every_full_one() -> None:
    quick = _suite.jobs(tuple(_suite.PARTS), True, 1)[0]
    assert {job.part.name for job in quick.values()} == {e.part.name for e in _suite.PARTS.values()}
    assert all(job.quick for job in quick.values())


@pytest.mark.parametrize("name", _suite.PARTS)
def test_the_names_in_the_settings_exist(name: str) -> None:
    entry = _suite.PARTS[name]
    known: dict[str, Any] = {
        "kernels": kernels.RIVALS,
        "crossover": kernels.RIVALS,
        "multicore": multicore.RIVALS,
        "challenge": challenge.RIVALS,
    }
    for settings in (*entry.full.values(), *entry.quick.values()):
        rivals = getattr(settings, "rivals", ())
        assert set(rivals) <= set(known.get(name, training.RIVALS))
        if name in ("training", "multicore", "learning"):
            nets: Any = _multicore.NETS if name == "multicore" else _task.NETS
            assert set(settings.nets) <= set(nets)


def job(failures: tuple[type[Exception], ...] = ()) -> _suite.Job:
    """A run of the multicore part that takes no time, or fails."""

    def measure(settings: multicore.Settings) -> dict[str, Any]:
        if failures:
            raise failures[0]("no luck")
        return multicore.measure(settings, control_size=64)

    part = replace(multicore.PART, measure=measure, failures=failures)
    return _suite.Job(part, replace(MULTICORE, rivals=("nnsparse", "numpy")), True)


def test_a_run_writes_results_plots_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite.run({"multicore": job()}, [], tmp_path) == []
    result = json.loads((tmp_path / "multicore.json").read_text(encoding="utf-8"))
    assert result["quick"] is True
    assert result["seconds"] > 0
    text = (tmp_path / "REPORT.md").read_text(encoding="utf-8")
    assert "# Benchmarks of nnsparse" in text
    assert "\n## The multicore paper's networks" in text
    assert "\n### 7x256, 1 thread" in text
    assert result["machine"]["cpu"] in text
    assert result["machine"]["commit"] in text
    if _program.can_plot():
        assert (tmp_path / "multicore.png").stat().st_size > 5000
        assert "![multicore](multicore.png)" in text
    assert "report: " in capsys.readouterr().err


def test_a_part_that_fails_does_not_keep_the_others_from_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"thesis": job((multicore.WrongOutputError,)), "multicore": job()}
    assert suite.run(runs, ["memory left out: why"], tmp_path) == ["thesis"]
    err = capsys.readouterr().err
    assert "thesis failed: no luck" in err
    assert "memory left out: why" in err
    assert (tmp_path / "multicore.json").exists()


def test_without_matplotlib_there_is_a_report_without_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_program, "can_plot", lambda: False)
    (tmp_path / "multicore.png").write_bytes(b"of another run")
    suite.run({"multicore": job()}, [], tmp_path)
    assert "pip install 'nnsparse[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "multicore.png").exists()
    assert "![" not in (tmp_path / "REPORT.md").read_text(encoding="utf-8")


def test_the_report_leaves_out_what_is_no_result_and_says_so(
    tmp_path: Path, found: dict[str, dict[str, Any]]
) -> None:
    for name, result in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    (tmp_path / "training.json").write_text("{", encoding="utf-8")
    (tmp_path / "startup.json").write_text('{"benchmark": "party"}', encoding="utf-8")
    (tmp_path / "kernels-1024.json").write_text('{"benchmark": "kernels"}', encoding="utf-8")
    (tmp_path / "notes.json").write_text("[]", encoding="utf-8")
    text, unread = _suite_report.joined(_suite_report.load(tmp_path))
    assert [line.split("/")[-1].split(" ")[0] for line in unread] == [
        "kernels-1024.json",
        "training.json",
        "startup.json",
    ]
    assert all("run its benchmark again" in line for line in unread)
    assert text.index("## From which") < text.index("## The thesis") < text.index("## Memory")


def test_committed_results_make_a_report() -> None:
    found = _suite_report.load(ROOT / "benchmarks" / "results")
    text, unread = _suite_report.joined(found)
    assert unread == []
    assert text.count("\n## ") == len(found)


def test_the_program_runs_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "multicore"]
    run = subprocess.run(
        [*command, "--rivals", "nnsparse", "--threads", "1", "--results", str(tmp_path / "new")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "# The multicore paper's networks" in run.stdout
    assert (tmp_path / "new" / "REPORT.md").exists()
