"""The benchmark of width, on tiny networks: it runs, adds up, and refuses bad arguments."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import wide  # noqa: E402

TINY = wide.Settings(neurons=(6000, 3000), batch=16, warm=1, steps=2, threads=1)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(wide.measure(TINY, control_size=64)))
    return found


def test_each_width_has_times_of_steps_parts_and_updates_and_bytes(result: dict[str, Any]) -> None:
    assert [row["layers"] for row in result["results"]] == [
        [300, 1000, 1000, 1000, 10],
        [600, 2000, 2000, 2000, 20, 10],
    ]
    for row in result["results"]:
        assert row["neurons"] == sum(row["layers"][1:-1])
        assert len(row["steps"]) == 2
        assert min(row["steps"]) > 0
        assert set(row["updates"]) == {"set", "rigl"}
        assert row["sections"]["forward"] > 0
        assert row["before"] <= row["peak_training"] <= row["peak"]
        assert row["model_bytes"] > 8 * row["weights"]


def test_the_report_compares_what_a_neuron_costs(result: dict[str, Any]) -> None:
    text = wide.report(result)
    rows = result["results"]
    first = wide.costs(rows[0])["construction, µs"]
    assert first == pytest.approx(1e6 * rows[0]["build"] / 3000)
    assert "| most / least |" in text
    assert "rigl update, µs" in text
    assert "commit" in text
    found = [{"cost": 3.0}, {"cost": 12.0}]
    assert wide._apart(found, "cost") == 4.0


def test_the_plot_is_drawn(result: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "wide.png"
    wide.plot(result, path)
    assert path.stat().st_size > 5000


def test_a_process_that_fails_ends_the_benchmark(monkeypatch: Any, capsys: Any) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no memory")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(wide.ChildError, match=r"(?s)the process of 5000 neurons failed.*no memory"):
        wide.child(5000, TINY)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--neurons", "10"], "expected an integer from 1000 on"),
        (["--updates", "magic"], "unknown recipe magic"),
        (["--threads", "1000"], "set_num_threads"),
        (["--plot", "wide.txt"], "--plot draws .png"),
    ],
)
def test_a_bad_argument_exits_with_2(
    argv: list[str], message: str, capsys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        wide.main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_widths_are_trained_one_after_the_other_from_narrow_to_ten_million(
    monkeypatch: Any,
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(wide, "child", lambda neurons, settings: seen.append(neurons) or {})
    given = vars(wide.parser().parse_args(["--batch", "16"]))
    settings = wide.Settings(**{k: v for k, v in given.items() if k not in ("json", "plot")})
    assert settings == wide.Settings(batch=16)
    wide.measure(settings, control_size=64)
    assert seen == [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
