"""The comparison of instruction sets: real processes on a tiny layer, and its error paths."""

import pytest

from benchmarks import registers


@pytest.mark.slow
def test_processes_for_two_instruction_sets_take_turns(capsys, tmp_path):
    arguments = ["--n", "40", "--batch", "20", "--sparsity", "0.5", "--rounds", "1", "--calls", "2"]
    path = tmp_path / "r.json"
    assert registers.main([*arguments, "--sets", "host,generic", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "generic (128 bits)" in printed
    assert "100%" in printed
    assert path.exists()


def test_an_unknown_instruction_set_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        registers.main(["--sets", "mmx"])
    assert stop.value.code == 2
    assert "unknown instruction set mmx" in capsys.readouterr().err


def test_a_wrong_result_is_an_error():
    row = dict.fromkeys((*registers.SECTIONS, "flops"), 1.0)
    with pytest.raises(registers.ChildError, match="relative error"):
        registers._best("host", [{"bits": 512, "rows": [{**row, "error": 1e-3}]}])


def test_a_process_that_fails_tells_why(monkeypatch, capsys):
    broken = {"host": {"PYTHONHOME": "/nowhere"}}
    monkeypatch.setattr(registers, "instruction_sets", lambda: broken)
    arguments = ["--n", "4", "--rounds", "1", "--sets", "host"]
    assert registers.main(arguments) == 1
    assert "failed" in capsys.readouterr().err
