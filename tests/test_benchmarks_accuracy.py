"""`benchmarks.accuracy` at tiny sizes: what runs, what is kept, what is said; not how accurate anything is."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import (  # noqa: E402
    _accuracy_jobs,
    _accuracy_methods,
    _accuracy_run,
    _accuracy_targets,
    _suite,
    _suite_report,
    accuracy,
)
from benchmarks._accuracy_methods import METHODS  # noqa: E402
from benchmarks._accuracy_run import RunError, Task  # noqa: E402
from nnsparse import jit  # noqa: E402
from nnsparse.allocation import exact_count  # noqa: E402

TINY = replace(accuracy.QUICK, samples=1000, test_samples=200, epochs=3)


def task(method: str = "random", sparsity: float = 0.9, **changes: Any) -> Task:
    settings = METHODS[method].settings()
    base = Task(method, settings, sparsity, 0, 3, "embedded digits", 1000, 200)
    return replace(base, **changes)


@pytest.fixture
def threads() -> Iterator[None]:
    """Run in this process; a run takes one thread for good."""
    before = jit.get_num_threads()
    yield
    jit.set_num_threads(before)


def record(
    method: str, sparsity: float, seed: int, test: float, validation: float
) -> dict[str, Any]:
    """Return a record as a run makes it, with these accuracies."""
    return {
        "task": asdict(task(method, sparsity, seed=seed)),
        "accuracy": test,
        "validation": [[10, 0.5], [20, validation]],
        "counts": [1, 2, 3],
        "steps": 20,
        "seconds": 2.0,
        "updates": 1,
        "update_seconds": 0.5,
        "explored": 0.1,
        "warnings": [],
        "time": "2024-01-01",
        "commit": "abc",
    }


def result(*records: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return the result of a whole run on MNIST that found these records."""
    control = {"gemm_gflops": 1.0, "copy_gbs": 1.0, "others": 0.0}
    runs = [accuracy.condensed(r) for r in records]
    names = dict.fromkeys(run["method"] for run in runs)
    machine = accuracy._machine.describe(1, "")
    return {
        "benchmark": "accuracy",
        "machine": machine,
        "settings": {**asdict(accuracy.Settings()), **settings},
        "control": {"before": control, "after": control},
        "data": "MNIST",
        "methods": {name: METHODS[name].about() for name in names},
        "runs": runs,
        "timing": None,
        "skipped": [],
    }


# ---------------------------------------------------------------- what runs


def test_every_method_runs_at_every_sparsity_and_seed_but_dense_and_n_m_at_their_own() -> None:
    settings = accuracy.Settings(seeds=2, sparsities=(0.9, 0.99))
    found = accuracy.tasks(settings, "MNIST")
    assert len(set(found)) == len(found) == 2 * (2 * (len(METHODS) - 3) + 3)
    assert {t.sparsity for t in found if t.method == "dense"} == {0.0}
    assert {t.sparsity for t in found if t.method in ("n_m", "sr_ste")} == {0.5}
    assert {t.seed for t in found[: len(found) // 2]} == {0}
    assert len({t.name for t in found}) == len(found)


def test_the_learning_rate_falls_after_25_000_and_50_000_of_54_000_steps() -> None:
    assert _accuracy_run.drops(54_000) == {25_000, 50_000}
    assert _accuracy_run.drops(54_000, search=27_000) == {52_000, 77_000}
    assert 54_000 == _accuracy_methods.FULL_STEPS == 60_000 * 0.9 / _accuracy_methods.BATCH * 100


@pytest.mark.parametrize("name", METHODS)
def test_a_run_ends_with_exactly_the_weights_that_are_wanted(name: str, threads: None) -> None:
    own = METHODS[name].own
    found = _accuracy_run.run(task(name, 0.95 if own is None else own))
    assert sum(found["counts"]) == exact_count(266_200, sparsity=found["task"]["sparsity"])
    assert found["steps"] == 27 + round(27 * METHODS[name].search)
    assert found["validation"][-1][0] == found["steps"]
    assert 0 <= found["update_seconds"] <= found["seconds"]
    assert json.loads(json.dumps(found))["task"] == asdict(task(name, found["task"]["sparsity"]))


def test_a_run_is_the_same_every_time_and_another_with_another_seed(threads: None) -> None:
    def accuracies(seed: int) -> list[float]:
        found = _accuracy_run.run(task("rigl", seed=seed))
        return [found["accuracy"], *(a for _, a in found["validation"])]

    assert accuracies(0) == accuracies(0) != accuracies(1)


def test_a_wrong_number_of_weights_is_an_error(threads: None) -> None:
    with pytest.raises(RunError, match=r"133100 weights were to be left; there are \[235200"):
        _accuracy_run.run(task("dense", 0.5))


def test_validation_images_are_no_training_images() -> None:
    train, validation, test = _accuracy_run.images("embedded digits", 1000, 200)
    assert [len(y) for _, y in (train, validation, test)] == [900, 100, 200]
    assert not {x.tobytes() for x in train[0]} & {x.tobytes() for x in validation[0]}


def test_a_shorter_training_has_shorter_intervals_but_not_at_every_step() -> None:
    set_ = METHODS["set"]
    intervals = {n: set_.make(0.9, n).when.interval for n in (54_000, 5_400, 40)}  # type: ignore[union-attr]
    assert intervals == {54_000: set_.every, 5_400: set_.every // 10, 40: _accuracy_methods.FEWEST}


# ---------------------------------------------------------------- processes, and what is kept


def test_finished_runs_are_kept_also_beside_one_that_fails_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = task(), task("dense", 0.5)
    seen: list[str] = []
    with pytest.raises(
        RunError, match=r"1 of 2 runs failed, the others are kept: dense-50-0: 133100"
    ):
        _accuracy_jobs.run_all([bad, good], tmp_path, 2, "abc", seen.append)
    assert sorted(seen) == ["dense-50-0", "random-90-0"]
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.setattr(_accuracy_jobs, "ProcessPoolExecutor", None)  # none may be asked for
    (found,) = _accuracy_jobs.run_all([good], tmp_path, 2, "def", seen.append)
    assert found["commit"] == "abc"
    assert found["task"] == asdict(good)


def test_a_record_of_other_settings_or_one_that_is_broken_counts_for_nothing(
    tmp_path: Path,
) -> None:
    one = task()
    assert _accuracy_jobs.kept(tmp_path, one) is None
    _accuracy_jobs.keep(tmp_path, one, {"task": asdict(one)})
    assert _accuracy_jobs.kept(tmp_path, one) == {"task": asdict(one)}
    assert _accuracy_jobs.kept(tmp_path, replace(one, settings="random(), other")) is None
    assert _accuracy_jobs.kept(tmp_path, replace(one, epochs=4)) is None
    for text in ("", "{", "[]"):
        _accuracy_jobs.path(tmp_path, one).write_text(text)
        assert _accuracy_jobs.kept(tmp_path, one) is None


def test_processes_are_told_one_thread_and_this_one_is_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with _accuracy_jobs._one_thread():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert dict(os.environ) == before


# ---------------------------------------------------------------- what is said


def test_the_quick_command_line_runs_and_says_that_its_figures_compare_with_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert accuracy.main(["--quick", "--methods", "random", "--json", str(out)]) == 0
    text, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "**Shortened: on the embedded digits, not on MNIST; 2 of 100 epochs; 2000" in text
    assert "**6" not in text
    assert "Targets" not in text
    assert [run["method"] for run in found["runs"]] == ["random"]
    assert "state" not in found["settings"]


def test_the_table_has_mean_and_deviation_and_marks_the_best_and_what_misses_a_target() -> None:
    found = result(
        record("dense", 0.0, 0, 0.984, 0.98),
        record("set", 0.9, 0, 0.9865, 0.98),
        record("set", 0.9, 1, 0.9871, 0.98),
        record("snip", 0.95, 0, 0.9839, 0.98),
        seeds=2,
    )
    text = accuracy.report(found)
    first = text.partition("## ")[0]
    cells = {row.split("|")[1].strip(): row for row in first.splitlines() if row.startswith("|")}
    assert "98.40 ✗" in cells["dense"]
    assert "**98.68 ±0.04**" in cells["set"]
    assert "98.39 ✗" in cells["snip"]
    assert "98.67" in cells["SNFS, published"]
    assert "Targets: 2 of 4 met" in text


def test_the_best_dynamic_method_is_picked_by_validation_not_by_test_accuracy() -> None:
    found = result(
        record("random", 0.98, 0, 0.96, 0.99),
        record("rigl", 0.98, 0, 0.981, 0.985),
        record("snfs", 0.98, 0, 0.983, 0.984),
        record("set", 0.98, 0, 0.959, 0.97),
    )
    goals = {goal.what: goal for goal in _accuracy_targets.goals(found)}
    assert list(goals) == [
        "rigl, best dynamic by validation",
        "set",
        "rigl against random",
        "snfs against random",
        "set against random",
    ]
    assert [goal.met for goal in goals.values()] == [False, False, True, True, False]


def test_a_target_is_met_where_it_is_just_reached() -> None:
    wanted = _accuracy_targets.Goal("set", "set", 0.9, 98.39, 100 * ((0.9838 + 0.9840) / 2))
    assert wanted.met
    assert not replace(wanted, found=98.3899).met


@pytest.mark.parametrize("change", [{"epochs": 10}, {"samples": 5000}, {"test_samples": 100}])
def test_a_shortened_run_is_called_so_and_nothing_in_it_is_bold_or_missed(
    change: dict[str, int],
) -> None:
    found = result(record("set", 0.9, 0, 0.999, 0.98), record("dense", 0.0, 0, 0.5, 0.5), **change)
    text = accuracy.report(found)
    assert "**Shortened: " in text
    assert "**99.9" not in text
    assert "✗" not in text
    assert "published" not in text


def test_warnings_of_recipes_and_several_commits_are_reported() -> None:
    warned = {**record("snip", 0.99, 0, 0.9, 0.9), "warnings": ["nothing left"], "commit": "def"}
    text = accuracy.report(result(warned, record("snip", 0.9, 0, 0.9, 0.9)))
    assert "- snip 99 %: nothing left" in text
    assert "several commits: abc, def" in text


def test_steps_are_timed_beside_ours_and_torch_s_dense_network(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    settings = replace(TINY, sparsities=(0.98,), repeats=3, threads=1, pause=0.0)
    rivals, _ = accuracy._rivals.installed(accuracy.TIMED, accuracy.RIVALS)
    timing = accuracy.timed(settings, rivals)
    assert list(timing["rivals"]) == ["dense", "torch", "nnsparse 98 %"]
    text = accuracy.report({**result(record("set", 0.9, 0, 0.9, 0.9)), "timing": timing})
    row = timing["rivals"]["torch"]
    assert f"{accuracy._common.number(row['median_ms'] * 54)} |" in text


@pytest.mark.parametrize("settings", [{}, {"epochs": 2}])
def test_a_plot_is_drawn_also_of_a_single_method(settings: dict[str, int], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    every = [record(name, s, 0, 0.97, 0.9) for name in METHODS for s in (0.9, 0.99)]
    for index, records in enumerate((every, [record("dense", 0.0, 0, 0.97, 0.9)])):
        path = tmp_path / f"{index}.png"
        accuracy.plot(result(*records, **settings), path)
        assert path.stat().st_size > 5000


def test_the_suite_s_report_takes_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _suite.Entry(accuracy.PART, "", {"accuracy": accuracy.Settings()}, {})
    monkeypatch.setitem(_suite.PARTS, "accuracy", entry)  # type: ignore[arg-type]
    found = {**result(record("set", 0.9, 0, 0.9865, 0.98)), "seconds": 1.0, "quick": False}
    (tmp_path / "accuracy.json").write_text(json.dumps(found))
    text, unread = _suite_report.joined(_suite_report.load(tmp_path))
    assert not unread
    assert "## Accuracy: LeNet-300-100" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--methods magic", "unknown method magic; choose from dense, random"),
        ("--sparsities 90", "expected a fraction of zeros from 0 to below 1; got '90'"),
        ("--seeds 0", "expected an integer from 1 on; got '0'"),
        ("--epochs 0", "expected an integer from 1 on"),
        ("--jobs 0", "expected an integer from 1 on"),
        ("--quick --threads 4096", "expects an integer from 1 to"),
        ("--quick --state /dev/null/x", "cannot keep runs in '/dev/null/x'"),
        ("--json /no/such/folder/out.json", "/no/such/folder is not a folder"),
    ],
)
def test_a_bad_argument_ends_with_code_2_and_says_why(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        accuracy.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_list_has_every_method_with_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and method.settings() in text for name, method in METHODS.items())
