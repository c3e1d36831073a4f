"""The figures of the README and of the guide: tables of the committed results, and only where they belong.

Only the form is tested here, not how fast anything is.
"""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import _readme_summary, readme  # noqa: E402

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def timed(ms: float, **speedup: float) -> dict[str, Any]:
    """A row of figures, spread 20 %."""
    return {"median_ms": ms, "q1_ms": 0.8 * ms, "q3_ms": 1.2 * ms, "speedup": speedup}


def result(kind: str, results: list[Any], **settings: Any) -> dict[str, Any]:
    """A result of a benchmark run with the default settings and these, on a quiet machine."""
    calm = {"gemm_gflops": 200.0, "copy_gbs": 10.0, "others": 0.0}
    machine: dict[str, Any] = {"cpu": "abacus", "cores": 2, "simd_bits": 8, "python": "3.14"}
    machine |= {"caches": {}, "versions": {}, "blas": "none", "commit": "abc", "time": "2030-01-02"}
    return {
        "benchmark": kind,
        "machine": machine,
        "settings": {**json.loads(json.dumps(asdict(readme.SETTINGS[kind]()))), **settings},
        "control": {"before": calm, "after": calm},
        "results": results,
    }


def kernel_result(n: int) -> dict[str, Any]:
    """A result of `kernels` at one sparsity."""
    speedups = {"nnsparse": 3.7, "torch-sparse": 0.5, "numpy": 1.0}
    rivals = {
        name: {"sections": {"total": timed(2.0)}, "speedup": speedup}
        for name, speedup in speedups.items()
    }
    entry = {"sparsity": 0.5, "rivals": rivals}
    return result("kernels", [entry], n_in=n, n_out=n, sparsity=[0.5], threads=2)


def cells(text: str) -> list[list[str]]:
    """Return the cells of all tables, row by row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


HINT = "run: python -m benchmarks.readme benchmarks/results/*.json"


def test_the_guide_shows_all_committed_results() -> None:
    text = readme.PAGE.read_text(encoding="utf-8")
    assert readme.split(text)[1].strip() == readme.figures(readme.load(RESULTS)), HINT


def test_the_readme_shows_the_committed_results_in_short() -> None:
    text = readme.README.read_text(encoding="utf-8")
    short = readme.summary(readme.load(RESULTS))
    assert readme.split(text)[1].strip() == short, HINT
    assert len(short) < 5000


def test_the_readmes_plot_is_that_of_the_committed_crossover() -> None:
    drawn = readme.crossover(RESULTS)
    assert drawn is not None
    assert _readme_summary.digest(drawn).encode() in readme.PLOT.read_bytes(), HINT


def test_committed_results_are_small() -> None:
    # The largest has 213 runs of the accuracy table.
    assert [path.name for path in RESULTS if path.stat().st_size > 150_000] == []


def test_other_rivals_are_shown_at_the_smallest_size_only() -> None:
    header, _, *rows = cells(readme.kernel_table([kernel_result(2048), kernel_result(1024)]))
    assert header == ["layer", "50 %", "NumPy dense, ms"]
    assert rows == [
        ["1024 → 1024, **nnsparse**", "3.70×", "2.00"],
        ["1024 → 1024, torch sparse", "0.500×", "2.00"],
        ["2048 → 2048, **nnsparse**", "3.70×", "2.00"],
    ]


def test_the_command_has_what_differs_from_the_defaults_and_the_threads() -> None:
    assert readme.command(kernel_result(2048)) == (
        "python -m benchmarks.kernels --n-in 2048 --sparsity 0.5 --threads 2"
    )


def test_an_option_that_a_result_is_older_than_is_left_out_of_its_command() -> None:
    old = kernel_result(2048)
    del old["settings"]["slab"]
    assert readme.command(old) == readme.command(kernel_result(2048))


def test_the_machine_is_named_once_and_noise_is_not_hidden() -> None:
    quiet, noisy = kernel_result(1024), kernel_result(2048)
    assert "not quiet" not in readme.machines([quiet])
    noisy["control"]["after"] = {**noisy["control"]["after"], "others": 0.5}
    text = readme.machines([quiet, noisy])
    assert text.count("Measured on abacus") == text.count("commit abc, 2030-01-02") == 1
    assert text.count("The machine was not quiet") == 1


def test_tables_come_in_order_whatever_the_order_of_files() -> None:
    rows = {"nnsparse": timed(0.5, numpy=4.0), "numpy": timed(2.0, numpy=1.0)}
    net = {"sizes": [7, 5, 3], "note": "all 90 %", "batch": 8, "rivals": rows}
    training = {**result("training", [net]), "notes": dict.fromkeys(rows, "")}
    step = {"program": "thesis", "cache": "warm", "sections": {"first_step": timed(250.0)}}
    start = {"program": "import", "cache": None, "sections": {"import_nnsparse": timed(150.0)}}
    startup = result("startup", [start, step])
    text = readme.figures([startup, training, kernel_result(64)])
    assert text.index("**Layer step**") < text.index("**Training step**") < text.index("**Start of")
    assert [row for row in cells(text) if row[0].startswith(("7-5-3", "first", "`import"))] == [
        ["7-5-3, all 90 %", "8", "0.500 ±20%", "2.00 ±20%", "4.00×"],
        ["`import nnsparse`, after Numba's own", "0.150"],
        ["first training step of the thesis' network, batch 64, warm cache", "0.250"],
    ]


def test_what_has_a_report_of_its_own_is_shown_behind_the_tables_with_lower_headings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = importlib.import_module("benchmarks._resume_report")
    monkeypatch.setattr(
        module, "report", lambda result: f"# Went on\n\n{result['found']}\n\n## More\n"
    )
    text = readme.figures([{"benchmark": "resume", "found": "50 of 50"}, kernel_result(64)])
    assert text.startswith("**Layer step**")
    assert text.endswith("### Went on\n\n50 of 50\n\n#### More")


@pytest.mark.parametrize("kind", readme.REPORTED)
def test_what_is_reported_is_a_benchmark_that_can_report(kind: str) -> None:
    module = importlib.import_module(f"benchmarks.{kind}")
    own = f"benchmarks._{kind}_report"
    reporting = importlib.import_module(own) if find_spec(own) else module
    assert callable(reporting.report)
    assert module.main


def test_no_results_give_no_figures() -> None:
    assert readme.figures([]) == ""


def test_a_network_of_many_equal_layers_has_a_short_name() -> None:
    assert _readme_summary.network([784, 256, 256, 256, 10]) == "784-3×256-10"
    assert _readme_summary.network([4096, 4096, 10]) == "4096-4096-10"


def test_a_summary_says_whether_the_machine_was_quiet_but_not_for_what_was_not_timed() -> None:
    quiet, noisy = kernel_result(1024), kernel_result(2048)
    assert "not quiet" not in readme.summary([quiet])
    noisy["control"]["after"] = {**noisy["control"]["after"], "others": 0.5}
    text = readme.summary([quiet, noisy])
    assert text.count("not quiet") == text.count("Measured on abacus") == 1
    assert cells(text) == [
        ["layer", "50 %"],
        [":" + "-" * 28, "-----:"],
        ["1024 × 1024, **nnsparse**", "3.70×"],
        ["1024 × 1024, torch sparse CSR", "0.500×"],
        ["2048 × 2048, **nnsparse**", "3.70×"],
    ]


def test_only_what_lies_between_the_markers_is_rewritten() -> None:
    text = "a\n<!-- figures -->\nold\n<!-- /figures -->\nb\n"
    new = readme.rewrite(text, "new")
    assert new == "a\n<!-- figures -->\nnew\n<!-- /figures -->\nb\n"
    assert readme.rewrite(new, "new") == new
    assert readme.rewrite(new, "") == "a\n<!-- figures -->\n<!-- /figures -->\nb\n"


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- figures --> only",
        "only <!-- /figures -->",
        "<!-- /figures --><!-- figures -->",
        "<!-- figures --><!-- /figures --><!-- figures --><!-- /figures -->",
    ],
)
def test_missing_markers_end_with_code_2_and_leave_the_readme_alone(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, result = tmp_path / "README.md", tmp_path / "k.json"
    page.write_text(text, encoding="utf-8")
    result.write_text(json.dumps(kernel_result(64)), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        readme.main([str(result), "--readme", str(page), "--page", str(page)])
    assert stop.value.code == 2
    assert "expected one <!-- figures -->" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read"),
        ("[]", "is not a result of one of kernels, training, startup"),
        ('{"benchmark": "party"}', "is not a result of one of"),
        ('{"benchmark": "startup"}', "a result lacks 'results': run its benchmark again"),
        ('{"benchmark": "kernels"}', "a result lacks 'settings': run its benchmark again"),
    ],
)
def test_a_file_without_figures_ends_with_code_2(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, result = tmp_path / "README.md", tmp_path / "k.json"
    page.write_text("<!-- figures --><!-- /figures -->", encoding="utf-8")
    result.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        readme.main([str(result), "--readme", str(page), "--page", str(page)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_both_pages_are_written_from_the_command_line_and_the_plot(tmp_path: Path) -> None:
    page, guide, result = tmp_path / "README.md", tmp_path / "guide.md", tmp_path / "k.json"
    for path in (page, guide):
        path.write_text("# x\n<!-- figures -->\n<!-- /figures -->\n", encoding="utf-8")
    result.write_text(json.dumps(kernel_result(64)), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.readme", str(result)]
    if find_spec("matplotlib"):
        command.append(str(ROOT / "benchmarks" / "results" / "crossover.json"))
    command += ["--readme", str(page), "--page", str(guide), "--plot", str(tmp_path / "speed.png")]
    subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True)
    assert readme.figures([kernel_result(64)]) in guide.read_text(encoding="utf-8")
    assert readme.summary([kernel_result(64)]) in page.read_text(encoding="utf-8")
    assert not find_spec("matplotlib") or (tmp_path / "speed.png").stat().st_size > 10_000
