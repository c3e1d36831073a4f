"""The benchmarks of training steps and of start-up, at tiny sizes; see also `test_benchmarks`.

How fast anything is, is not tested here.
"""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import _child, _networks, startup, training  # noqa: E402
from benchmarks._task import NETS, Task  # noqa: E402
from nnsparse import jit, nn  # noqa: E402

TINY = training.Settings(
    nets=("lenet-100", "thesis-64"),
    rows=256,
    threads=1,
    repeats=3,
    calls=2,
    pause=0.0,
    rivals=("nnsparse", "dense", "numpy"),
)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return training.measure(TINY, control_size=64)


# ---------------------------------------------------------------- training


def test_every_rival_has_figures_for_every_network(trained: dict[str, Any]) -> None:
    assert [entry["net"] for entry in trained["results"]] == ["lenet-100", "thesis-64"]
    for entry in trained["results"]:
        assert list(entry["rivals"]) == ["nnsparse", "dense", "numpy"]
        for row in entry["rivals"].values():
            assert 0 < row["min_ms"] <= row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
            assert row["samples"] == 6


def test_all_rivals_start_from_the_same_loss_near_that_of_a_guess(trained: dict[str, Any]) -> None:
    for entry in trained["results"]:
        losses = [row["first_loss"] for row in entry["rivals"].values()]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
        assert losses[0] == pytest.approx(math.log(10), rel=0.5)


def test_ratios_are_relative_to_each_baseline(trained: dict[str, Any]) -> None:
    rivals = trained["results"][0]["rivals"]
    mine, dense = rivals["nnsparse"], rivals["dense"]
    assert list(mine["speedup"]) == ["dense", "numpy"]
    assert dense["speedup"]["dense"] == 1
    assert mine["speedup"]["dense"] == pytest.approx(dense["median_ms"] / mine["median_ms"])


def test_the_report_names_networks_rivals_and_weights(trained: dict[str, Any]) -> None:
    text = training.report(json.loads(json.dumps(trained)))
    assert "## lenet-100: 784-300-100-10, batch 100" in text
    assert "(5.0% of 266200 weights)" in text
    assert "control, before -> after" in text
    for name in trained["notes"]:
        assert text.count(f"\n| {name} ") == 2, name


def test_nnsparse_is_timed_at_sparsities_of_its_own(trained: dict[str, Any]) -> None:
    settings = replace(TINY, rivals=("nnsparse", "numpy"), sparsities=(0.5, 0.99))
    result = training.measure(settings, control_size=64)
    labels = ["nnsparse", "numpy", "nnsparse 50 %", "nnsparse 99 %"]
    assert list(result["notes"]) == labels
    for entry in result["results"]:
        assert list(entry["rivals"]) == labels
        rows = entry["rivals"]
        assert rows["nnsparse"]["first_loss"] == pytest.approx(rows["numpy"]["first_loss"])
        assert rows["nnsparse 50 %"]["first_loss"] != rows["nnsparse 99 %"]["first_loss"]
        assert all(row["samples"] == 6 for row in rows.values())
    assert training.report(result).count("\n| nnsparse 99 % ") == 2
    alone = training.measure(replace(settings, rivals=("numpy",)), control_size=64)
    assert list(alone["notes"]) == ["numpy"]


def test_another_sparsity_is_that_of_the_sparse_layers() -> None:
    assert NETS["thesis-64"].at(0.9).sparsity == (None, 0.9, 0.9, 0.9, None)
    assert NETS["lenet-100"].at(0.9).sparsity == 0.9
    for name in ("thesis-64", "lenet-100"):
        assert not any(isinstance(layer, nn.SparseLinear) for layer in NETS[name].at(None).model(0))


@pytest.mark.parametrize("rival", _networks.RIVALS)
def test_a_rival_predicts_what_its_network_gives(rival: str) -> None:
    if package := _networks.RIVALS[rival].package:
        pytest.importorskip(package)
    task = Task.random(NETS["lenet-100"], 200, lr=0.2)
    loop, ours = _networks.RIVALS[rival].make(task), _networks.sparse(task)
    x = task.x[:7]
    assert loop.predict(x).shape == (7, 10)
    before, wanted = loop.predict(x), ours.predict(x)
    np.testing.assert_array_equal(before.argmax(1), wanted.argmax(1))
    if rival != "sklearn":  # probabilities
        np.testing.assert_allclose(before, wanted, rtol=1e-3, atol=1e-4)
    loop()
    assert not np.array_equal(loop.predict(x), before)


def test_results_stay_small(trained: dict[str, Any]) -> None:
    assert len(json.dumps(trained, indent=1)) < 100_000


@pytest.mark.parametrize("name", NETS)
def test_the_networks_are_sparse_where_they_should_be(name: str) -> None:
    model = NETS[name].model(0)
    found = [layer.sparsity if isinstance(layer, nn.SparseLinear) else 0 for layer in model]
    affine = found[::2]  # every other layer is a ReLU
    if name == "lenet-100":
        assert affine[0] > 0.95 > affine[1] > 0.8
    elif name == "deep-100":
        assert affine[:3] == pytest.approx([0.95] * 3, abs=1e-2)
        assert affine[3] < 0.5
    elif name == "wide-256":
        assert affine == pytest.approx([0.95, 0.95, 0], abs=1e-4)
    elif name.startswith("square-"):
        assert affine == pytest.approx([0.95, 0], abs=1e-4)
    else:
        assert affine == pytest.approx([0, 0.8, 0.8, 0.8, 0], abs=1e-4)


@pytest.mark.parametrize("rival", _networks.RIVALS)
def test_a_rival_learns_and_leaves_the_weights_of_the_others_alone(rival: str) -> None:
    if package := _networks.RIVALS[rival].package:
        pytest.importorskip(package)
    task = Task.random(NETS["lenet-100"], 100, lr=0.1, momentum=0.9)
    before = [p.data.copy() for p in task.model.parameters()]
    step = _networks.RIVALS[rival].make(task)
    losses = [step() for _ in range(30)]
    assert losses[-1] < losses[0] - 0.1
    for p, old in zip(task.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, old)


@pytest.mark.parametrize("rival", _networks.RIVALS)
def test_a_rival_has_the_losses_of_our_network_with_the_same_weights(rival: str) -> None:
    if package := _networks.RIVALS[rival].package:
        pytest.importorskip(package)
    task = Task.random(NETS["lenet-100"], 300, momentum=0.9)
    ours = (_networks.dense if rival in _networks.DENSE else _networks.sparse)(task)
    theirs = _networks.RIVALS[rival].make(task)
    np.testing.assert_allclose([ours() for _ in range(7)], [theirs() for _ in range(7)], rtol=1e-4)


def test_the_numpy_rival_gives_the_threads_back() -> None:
    before = jit.get_num_threads()
    _networks.numpy(Task.random(NETS["lenet-100"], 100))()
    assert jit.get_num_threads() == before


def test_a_rival_with_another_loss_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(task: Task) -> _networks.Step:
        step = _networks.dense(task)
        return lambda: step() * 1.01

    rivals = {**_networks.RIVALS, "dense": _networks.Rival(wrong, "wrong")}
    monkeypatch.setattr(training, "RIVALS", rivals)
    with pytest.raises(training.WrongLossError, match="lenet-100: loss 1 of dense is"):
        training.measure(replace(TINY, nets=("lenet-100",)), control_size=64)


def test_a_dense_rival_that_does_not_learn_is_found() -> None:
    training.check("net", {"nnsparse": [2.0, 1.5, 1.4], "dense": [2.0, 1.6, 1.5]})
    with pytest.raises(training.WrongLossError, match="loss 2 of numpy is 2, of dense"):
        training.check("net", {"dense": [2.0, 1.6, 1.5], "numpy": [2.0, 2.0, 2.0]})
    with pytest.raises(training.WrongLossError, match="nan"):
        training.check("net", {"nnsparse": [2.0], "dense": [math.nan] * 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--nets thesis-64,vgg", "unknown net vgg; choose from thesis-64"),
        ("--nets ,", "no net given"),
        ("--rivals scipy", "unknown rival scipy"),
        ("--momentum 1", "expected a number from 0 to below 1; got '1'"),
        ("--lr fast", "expected a number from 0 to below 1; got 'fast'"),
        ("--repeats 2", "expected an integer from 3 on"),
        ("--threads 4096", "expects an integer from 1 to"),
        ("--json /no/such/folder/out.json", "/no/such/folder is not a folder"),
        ("--plot out.xyz", "--plot draws .png, .svg or .pdf"),
        ("--rows 10 --threads 1 --nets lenet-100", "give no batch of 100"),
        ("--sparsities 0.5,2", "expected a fraction of zeros from 0 to below 1; got '2'"),
    ],
)
def test_a_bad_argument_of_training_ends_with_code_2(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        training.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_training_runs_by_itself_and_writes_json(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "training.py"), "--json", str(path)]
    options = "--nets lenet-100 --rows 200 --threads 1 --repeats 3 --calls 1 --rivals nnsparse"
    run = subprocess.run(
        [*command, *options.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(path.read_text(encoding="utf-8"))["benchmark"] == "training"


# ---------------------------------------------------------------- start-up


@pytest.fixture(scope="module")
def started() -> dict[str, Any]:
    """Start-up as measured, but with processes that only pretend."""

    def pretend(kind: str, threads: int, cache: Path | None = None) -> dict[str, Any]:
        seconds = dict.fromkeys(startup.SECTIONS if cache else startup.SECTIONS[:2], 0.25)
        announced = cache is not None and not cache.exists()
        if cache is not None:
            cache.mkdir(exist_ok=True)
        return {**seconds, "process": 2.0, "announced": announced}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "child", pretend)
        return startup.measure(startup.Settings(repeats=2, empty=2, threads=1), control_size=64)


def test_start_up_has_the_import_and_two_programs_with_two_caches(started: dict[str, Any]) -> None:
    found = [(entry["program"], entry["cache"]) for entry in started["results"]]
    steps = [(name, cache) for name in ("thesis", "example") for cache in ("empty", "warm")]
    assert found == [("import", None), *steps]
    assert all(entry["sections"]["import_nnsparse"]["samples"] == 2 for entry in started["results"])
    assert "the thesis' network, batch 64 | empty |" in startup.report(started)


def test_a_warm_cache_that_compiles_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles(kind: str, threads: int, cache: Path | None = None) -> dict[str, Any]:
        return {"first_step": 0.1, "process": 1.0, "announced": True}

    monkeypatch.setattr(startup, "child", compiles)
    settings = startup.Settings(programs=("thesis",), repeats=1, empty=1, threads=1)
    with pytest.raises(startup.ChildError, match="with a warm cache it said that it compiles"):
        startup.measure(settings, control_size=64)


def test_the_child_times_the_import_and_takes_no_other_kind() -> None:
    found = startup.child("import", 1)
    assert 0 < found["import_nnsparse"] < found["process"]
    with pytest.raises(startup.ChildError, match="KeyError: 'party'"):
        startup.child("party", 1)


@pytest.mark.parametrize("kind", startup.PROGRAMS)
def test_a_child_trains_two_steps(kind: str) -> None:
    found = startup.child(kind, 1)  # with the user's cache
    assert set(startup.SECTIONS) <= set(found)
    assert (startup.ALL in found) == (kind == "example")


def test_the_child_has_the_network_that_training_times() -> None:
    net = NETS["thesis-64"]
    assert (net.sizes, net.sparsity, net.batch) == (_child.SIZES, _child.SPARSITY, _child.BATCH)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--programs party", "unknown program party; choose from thesis, example"),
        ("--repeats 0", "expected an integer from 1 on"),
        ("--threads 4096", "expects an integer from 1 to"),
        ("--plot out.xyz", "--plot draws .png, .svg or .pdf"),
    ],
)
def test_a_bad_argument_of_startup_ends_with_code_2(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        startup.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_plots_are_drawn(
    trained: dict[str, Any], started: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    for module, result in ((training, trained), (startup, started)):
        path = tmp_path / f"{result['benchmark']}.png"
        module.plot(result, path)
        assert path.stat().st_size > 5000
