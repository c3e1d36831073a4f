"""What automatic choices lose, at tiny sizes: forced settings are forced, and compute the same."""

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import choices, kernels  # noqa: E402
from benchmarks._layer import Problem  # noqa: E402
from nnsparse import Topology, plan  # noqa: E402
from nnsparse.ops import structures  # noqa: E402

CHOICES = choices.Settings(
    sizes=(130,),
    batch=70,
    sparsity=(0.95, 0.6),
    lanes=(32, 64),
    tiles=(1, 2),
    threads=1,
    repeats=3,
    calls=1,
)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """As it comes back from its JSON file."""
    return json.loads(json.dumps(choices.measure(CHOICES, control_size=64)))


@pytest.mark.parametrize("sparsity", [0.3, 0.75, 0.97])
def test_every_forced_setting_computes_the_same_products(sparsity: float) -> None:
    p = Problem.random(130, 130, 150, sparsity, 0)
    tried = choices.candidates(replace(CHOICES, batch=150, tiles=(1, 3)), 130, sparsity)
    assert len({str(forced) for forced in tried}) == len(tried)
    assert any(forced.quads for forced in tried) == (sparsity < 0.9)
    reference = p.reference()
    for forced in tried:
        errors = forced.step(p).errors(reference)
        assert max(errors.values()) < kernels.MAX_ERROR, forced


def test_forced_settings_are_those_that_the_kernels_get(monkeypatch: pytest.MonkeyPatch) -> None:
    p = Problem.random(600, 600, 300, 0.9, 0)
    groups: list[int] = []
    original = structures.spmm_runs

    def spy(lanes: int) -> Any:
        kernel = original(lanes)
        names = list(inspect.signature(kernel.dispatcher.py_func).parameters)

        def run(*args: Any) -> None:
            groups.append(args[names.index("group")])
            kernel(*args)

        return run

    monkeypatch.setattr(structures, "spmm_runs", spy)
    before = structures.TILES, structures.BLOCK
    for n in (1, 3):
        choices.Forced(tiles=n).step(p).input_gradient()
    assert groups == [1, 3]
    assert before == (structures.TILES, structures.BLOCK)
    with pytest.raises(ZeroDivisionError), choices._tiles_a_task(2):
        _ = 1 / 0
    assert before == (structures.TILES, structures.BLOCK)
    assert choices.Forced(lanes=32).step(p).forward().shape == (10, 600, 32)


@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.97])
def test_the_chosen_plan_is_told_in_words(sparsity: float) -> None:
    p = plan.plan_of(Topology.random((300, 300), sparsity=sparsity, rng=0))
    words = {
        name: f"{'quads' if isinstance(order, plan.Quads) else 'runs'}, {order.slab}"
        for name, order in (("forward", p.quads or p.forward), ("transposed", p.transposed))
    }
    told = choices.chosen_plan(300, sparsity).split("; transposed ")
    assert told[0] == words["forward"]
    assert told[-1] == words["transposed"]


def test_the_loss_is_against_the_best_and_the_noise_against_itself() -> None:
    ms = {"chosen": 11.0, "runs, slabs of 64": 10.0, "32 lanes": 12.0, "chosen, again": 10.0}
    lost = choices._loss({name: {"median_ms": value} for name, value in ms.items()})
    assert lost["best"] == "runs, slabs of 64"
    assert lost["loss"] == pytest.approx(0.05)
    assert lost["noise"] == pytest.approx(1 / 10.5)


def test_a_loss_above_the_goal_stands_out(result: dict[str, Any]) -> None:
    result = json.loads(json.dumps(result))
    for entry, loss in zip(result["results"], (0.049, 0.123), strict=True):
        entry["loss"] = loss
    text = choices.report(result)
    row = next(line for line in text.splitlines() if line.startswith("| 130 × 130 "))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["**+12.3**", "+4.9"]  # 60 %, 95 %
    assert "above it: 1 of 2; worst: 130 × 130 at 60 %, +12.3 %" in text


def test_the_fastest_settings_meet_the_choice_twice(result: dict[str, Any]) -> None:
    assert [entry["sparsity"] for entry in result["results"]] == [0.95, 0.6]
    for entry in result["results"]:
        assert "chosen" in entry["tried"]
        assert set(entry["ms"]) - {"chosen", "chosen, again"} < set(entry["tried"])
        assert len(entry["ms"]) == 5
        assert entry["best"] in entry["ms"]
        assert f"| {entry['plan']} |".replace(" ", "") in choices.report(result).replace(" ", "")


def test_the_report_has_the_machine_and_the_control(result: dict[str, Any]) -> None:
    text = choices.report(result)
    assert result["benchmark"] == "choices"
    assert "control, before -> after: BLAS gemm" in text
    assert "commit" in text


def test_a_plot_is_drawn_and_the_result_stays_small(result: dict[str, Any], tmp_path: Path) -> None:
    assert len(json.dumps(result, indent=1)) < 100_000
    pytest.importorskip("matplotlib")
    choices.plot(result, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--lanes 48", "invalid choice: 48"),
        ("--tiles 0", "expected an integer from 1 on; got '0'"),
        ("--repeats 2", "expected an integer from 3 on"),
        ("--threads 4096", "expects an integer from 1 to"),
        ("--sizes 3 --sparsity 0.99 --threads 1", "no nonzero is left"),
    ],
)
def test_a_bad_argument_ends_with_code_2_and_says_why(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        choices.main(arguments.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
