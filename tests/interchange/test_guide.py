"""The guide's blocks run, those with torch and ONNX too (`py` instead of `python`: not everybody has them)."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "interchange.md"


def test_all_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(?:py|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert "(0) SparseLinear(784 -> 300, nnz=11760, sparsity=0.95)\n  (1) ReLU()" in shown
