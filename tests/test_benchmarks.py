"""The kernel benchmark at tiny sizes: it runs, checks its rivals, and refuses bad arguments.

How fast anything is, is not tested here.
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

from benchmarks import _common, _machine, _rivals, kernels  # noqa: E402
from benchmarks._layer import SECTIONS, Problem  # noqa: E402
from nnsparse import jit  # noqa: E402

TINY = kernels.Settings(
    n_in=70, n_out=33, batch=20, sparsity=(0.5, 0.9), threads=1, repeats=3, calls=2, pause=0.0
)
TINY_ARGUMENTS = "--n-in 70 --n-out 33 --batch 20 --sparsity 0.5 0.9 --threads 1 --repeats 3"


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    rivals = tuple(name for name, rival in kernels.RIVALS.items() if rival.package is None)
    return kernels.measure(replace(TINY, rivals=rivals), control_size=64)


# ---------------------------------------------------------------- measuring


def test_every_rival_has_figures_for_every_section_and_sparsity(result: dict[str, Any]) -> None:
    assert [entry["sparsity"] for entry in result["results"]] == [0.5, 0.9]
    for entry in result["results"]:
        assert list(entry["rivals"]) == list(result["settings"]["rivals"])
        for row in entry["rivals"].values():
            assert list(row["sections"]) == [*SECTIONS, "total"]
            for part in row["sections"].values():
                assert 0 < part["min_ms"] <= part["q1_ms"] <= part["median_ms"]
                assert part["samples"] == 6
            assert max(row["errors"].values()) < kernels.MAX_ERROR


def test_gflops_count_two_operations_per_nonzero_and_sample(result: dict[str, Any]) -> None:
    entry = result["results"][0]
    assert entry["nnz"] == 70 * 33 // 2
    part = entry["rivals"]["nnsparse"]["sections"]["forward"]
    assert part["gflops"] == pytest.approx(2 * entry["nnz"] * 20 / part["median_ms"] * 1e-6)
    total = entry["rivals"]["nnsparse"]["sections"]["total"]
    assert total["gflops"] == pytest.approx(6 * entry["nnz"] * 20 / total["median_ms"] * 1e-6)


def test_the_speedup_is_relative_to_numpy(result: dict[str, Any]) -> None:
    rivals = result["results"][0]["rivals"]
    assert rivals["numpy"]["speedup"] == 1
    mine, numpy = (rivals[name]["sections"]["total"]["median_ms"] for name in ("csr", "numpy"))
    assert rivals["csr"]["speedup"] == pytest.approx(numpy / mine)


def test_the_report_has_the_machine_the_control_and_every_rival(result: dict[str, Any]) -> None:
    text = kernels.report(json.loads(json.dumps(result)))
    assert "control, before -> after" in text
    assert f"{jit.vector_bits()}-bit SIMD; 1 threads" in text
    assert "## 0.9 sparse, 231 nonzeros" in text
    for name in result["settings"]["rivals"]:
        assert text.count(f"\n| {name} ") == 3, name  # two sparsities and the overview


@pytest.mark.parametrize("name", ["torch", "torch-sparse"])
@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.99])
def test_torch_computes_the_same_products(name: str, sparsity: float) -> None:
    pytest.importorskip("torch")
    p = Problem.random(33, 70, 20, sparsity, 1)
    errors = kernels.RIVALS[name].make(p).errors(p.reference())
    assert list(errors) == list(SECTIONS)
    assert max(errors.values()) < kernels.MAX_ERROR


@pytest.mark.parametrize("slab", [64, 256, 4096])
def test_a_forced_slab_size_computes_the_same_products(slab: int) -> None:
    p = Problem.random(65, 300, 20, 0.5, 1)
    errors = _rivals.sparse_tiles(p, slab).errors(p.reference())
    assert max(errors.values()) < kernels.MAX_ERROR


def test_slab_mode_compares_forced_sizes_with_the_plans_choice() -> None:
    result = kernels.measure(replace(TINY, slab=True, sparsity=(0.5,)), control_size=64)
    names = list(result["results"][0]["rivals"])
    assert names == ["numpy", "nnsparse", "slab 64", "slab 128"]


def test_a_rival_with_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(p: Problem) -> Any:
        return _rivals.plain_csr(replace(p, values=p.values + 0.01))

    monkeypatch.setattr(kernels, "RIVALS", {"csr": _rivals.Rival(wrong, "wrong")})
    with pytest.raises(kernels.WrongResultError, match="csr: forward is off by"):
        kernels.measure(replace(TINY, rivals=("csr",)), control_size=64)


def test_a_rival_that_is_not_installed_is_skipped_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rival = _rivals.Rival(_rivals.plain_csr, "", "no_such_package")
    monkeypatch.setattr(_rivals, "RIVALS", {**_rivals.RIVALS, "absent": rival})
    present, skipped = _rivals.available(("csr", "absent"))
    assert present == ("csr",)
    assert len(skipped) == 1
    assert skipped[0].startswith("absent skipped")
    assert skipped[0].endswith("pip install no_such_package")


# ---------------------------------------------------------------- timing and threads


def test_rivals_are_interleaved_in_rotating_order() -> None:
    order: list[str] = []
    rivals = [
        _common.Timed("a", {"f": lambda: order.append("a")}),
        _common.Timed("b", {"f": lambda: order.append("b")}),
    ]
    seconds = _common.interleave(rivals, 2, calls=1, pause=0.0)
    assert "".join(order) == "aabb" + "bbaa"  # each block: one untimed step, one timed
    assert seconds["a"]["f"].shape == seconds["a"]["total"].shape == (2,)


def test_sections_of_a_step_add_up_to_its_total() -> None:
    rival = _common.Timed("a", {"f": lambda: sum(range(100)), "g": lambda: sum(range(1000))})
    parts = _common.interleave([rival], 3, calls=2, pause=0.0)["a"]
    np.testing.assert_allclose(parts["f"] + parts["g"], parts["total"])


def test_thread_limits_end_with_their_block() -> None:
    before = jit.get_num_threads()
    with _machine.limit_threads(1):
        assert jit.get_num_threads() == 1
    assert jit.get_num_threads() == before


def test_a_busy_machine_shows_in_the_control() -> None:
    calm = {"gemm_gflops": 200.0, "copy_gbs": 10.0, "others": 0.01}
    assert "not quiet" not in _machine.control_sentence(calm, calm)
    assert "not quiet" in _machine.control_sentence(calm, {**calm, "gemm_gflops": 100.0})
    assert "not quiet" in _machine.control_sentence({**calm, "others": 0.5}, calm)


@pytest.mark.parametrize(
    ("x", "text"), [(0.1873, "0.187"), (1.426, "1.43"), (12.84, "12.8"), (537.2, "537"), (0, "0")]
)
def test_numbers_are_printed_with_three_digits(x: float, text: str) -> None:
    assert _common.number(x) == text


# ---------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rivals nnsparse,magic", "unknown rival magic; choose from nnsparse, dense"),
        ("--rivals ,", "no rival given"),
        ("--sparsity 90", "expected a fraction of zeros from 0 to below 1; got '90'. A percentage"),
        ("--sparsity 1", "expected a fraction of zeros"),
        ("--sparsity half", "expected a fraction of zeros"),
        ("--n-in 0", "expected an integer from 1 on; got '0'"),
        ("--batch many", "expected an integer from 1 on; got 'many'"),
        ("--repeats 2", "expected an integer from 3 on; got '2'"),
        ("--threads 4096", "expects an integer from 1 to"),
        ("--json /no/such/folder/out.json", "/no/such/folder is not a folder"),
        ("--json /", "it is a folder"),
        ("--plot out.xyz", "--plot draws .png, .svg or .pdf"),
        ("--plot out.png --rivals nnsparse", "--plot draws ratios to numpy"),
        ("--n-in 3 --sparsity 0.99 --threads 1 --rivals numpy", "no nonzero is left"),
        ("--frobnicate", "unrecognized arguments"),
    ],
)
def test_a_bad_argument_ends_with_code_2_and_says_why(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        kernels.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_file_runs_by_itself_and_writes_json(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "kernels.py"), *TINY_ARGUMENTS.split()]
    run = subprocess.run(
        [*command, "--rivals", "nnsparse,numpy", "--json", str(path)],
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "# Layer step 70 -> 33, batch 20, float32, 1 threads" in run.stdout
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["benchmark"] == "kernels"
    assert written["machine"]["blas_threads_set_by"] in ("threadpoolctl", "environment")


def test_the_plot_is_drawn(result: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kernels.plot(result, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 5000
