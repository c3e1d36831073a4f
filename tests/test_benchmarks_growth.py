"""The benchmark of growth, on a tiny layer."""

import pytest

from benchmarks import growth
from nnsparse.topology import Topology


def test_streamed_and_stored_growth_are_timed_and_compared(capsys, tmp_path):
    path = tmp_path / "r.json"
    assert growth.main(["--n", "40", "50", "--repeats", "1", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "40², grow 24" in printed
    assert "peak MB" in printed
    assert path.exists()


def test_a_wrong_choice_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(growth, "stored", lambda pair, kept, k: Topology.empty(kept.shape))
    assert growth.main(["--n", "20", "--repeats", "1"]) == 1
    assert "differ" in capsys.readouterr().err


def test_more_threads_than_cores_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        growth.main(["--n", "20", "--threads", "1000"])
    assert stop.value.code == 2
    assert "set_num_threads" in capsys.readouterr().err
