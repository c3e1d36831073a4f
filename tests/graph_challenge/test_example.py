"""The example of the challenge runs all variants, from digits and from files, and compares categories."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from nnsparse import datasets, jit
from nnsparse import graph_challenge as gc

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--layers", "12", "--limit", "80", "--data", "digits"]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("NNSPARSE_DATA", "")
    before = jit.get_num_threads()
    yield importlib.import_module("graph_challenge")
    jit.set_num_threads(before)
    for name in ("graph_challenge", "_common"):
        sys.modules.pop(name, None)


def test_all_variants_run_on_the_embedded_digits(example, tmp_path, capsys):
    path = tmp_path / "run.json"
    example.main([*SMALL, "--json", str(path), "--threads", "1"])
    printed = capsys.readouterr().out
    for variant in ("filter", "workspace", "no_workspace", "spgemm"):
        assert f"\n{variant} " in printed
    results = json.loads(path.read_text())["results"]
    assert len({tuple(r["categories"]) for r in results}) == 1
    assert [r["threads"] for r in results] == [1] * 4
    assert results[0]["edges"] == 80 * gc.network(1024, 12).nnz


def test_published_figures_stand_beside_ours(example, capsys):
    example.main(["--layers", "120", "--limit", "64", "--data", "digits", "--variant", "filter"])
    assert "V100" in capsys.readouterr().out


def test_official_files_are_read_and_compared(example, tmp_path, capsys):
    for k, layer in enumerate(gc.network(1024, 3), 1):
        gc.write_layer(tmp_path / f"n1024-l{k}.tsv", layer)
    images = gc.challenge_images(datasets.digits(n_train=70, n_test=1)[0][0], 32)
    gc.write_images(tmp_path / "images.tsv", images)
    gc.write_categories(tmp_path / "categories.tsv", [0, 1, 69])
    files = ["--weights", str(tmp_path), "--images", str(tmp_path / "images.tsv")]
    given = [*files, "--categories", str(tmp_path / "categories.tsv"), "--layers", "3"]
    example.main([*given, "--limit", "69", "--variant", "filter", "spgemm"])
    printed = capsys.readouterr().out
    assert "categories.tsv: 2 official, " in printed
    assert printed.count(" 69 ") == 2


def test_images_of_large_networks_are_read_in_blocks(example, tmp_path, capsys):
    images = gc.challenge_images(datasets.digits(n_train=3, n_test=1)[0][0], 128)
    gc.write_images(tmp_path / "images.tsv", images)
    given = ["--neurons", "16384", "--layers", "2", "--images", str(tmp_path / "images.tsv")]
    example.main([*given, "--limit", "1030", "--variant", "filter"])
    assert " 1,030 " in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["--neurons", "1000"], ["--layers", "0"], ["--variant", "fast"], ["--limit", "x"]]
)
def test_a_bad_option_exits_with_2(example, argv):
    with pytest.raises(SystemExit) as stop:
        example.main(argv)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--weights", "/nowhere"], "FileNotFoundError: .*n1024-l1.tsv"),
        (["--memory", "0.001"], "memory=1000000: .* take at least"),
        (["--threads", "5000"], "set_num_threads"),
    ],
)
def test_what_cannot_run_ends_with_a_message(example, argv, message):
    with pytest.raises(SystemExit, match=message):
        example.main([*SMALL, *argv])
