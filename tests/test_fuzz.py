"""Every reader of files against mutated ones, a few hundred each; and that the fuzzer notices what it is there for.

The whole run, 100 000 files and more for each reader, is `python -m benchmarks.fuzz`.
"""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `benchmarks` is no part of the installed package

from benchmarks import _fuzz_targets, _fuzz_worker, fuzz, soak  # noqa: E402
from benchmarks._fuzz_targets import TARGETS, Target  # noqa: E402
from benchmarks._program import can_plot  # noqa: E402

FILES = 150


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_are_refused_in_words_or_read(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _, tally in _fuzz_worker.run(name, 1, range(FILES), 60.0, tmp_path):
        assert not tally.failures, [_fuzz_worker.content(name, 1, f["case"]) for f in tally.failures]  # fmt: skip
    assert tally.files == FILES
    assert tally.accepted > 0
    assert sum(tally.refused.values()) + tally.remade > FILES / 3


def test_a_mutated_file_is_a_function_of_seed_and_number():
    for name in TARGETS:
        assert _fuzz_worker.content(name, 3, 7) == _fuzz_worker.content(name, 3, 7)
    many = {_fuzz_worker.content("idx", 3, i) for i in range(50)}
    assert len(many) > 40


# ---------------------------------------------------------------- what must be noticed


def raising(error):
    def read(path):
        raise error(path)

    return read


BAD_READERS = {
    "no name": (raising(lambda path: ValueError("it is bad")), "ValueError that does not name"),
    "another exception": (raising(lambda path: KeyError(str(path))), "!KeyError"),
    "no memory": (raising(lambda path: MemoryError()), "!MemoryError"),
    "a recursion": (raising(lambda path: RecursionError(str(path))), "!RecursionError"),
    "a broken promise": (raising(lambda path: AssertionError("accepted, but")), "!AssertionError"),
    "an exit": (raising(lambda path: SystemExit(0)), "!SystemExit"),
    "a warning": (lambda path: warnings.warn("odd", stacklevel=1), "!UserWarning"),
}


@pytest.mark.parametrize("name", BAD_READERS)
def test_an_error_that_is_not_ours_is_a_failure(name, tmp_path):
    read, expected = BAD_READERS[name]
    target = Target("fake", tuple, lambda *_: b"", read)
    assert expected in _fuzz_worker.read_once(target, tmp_path / "file")


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_an_error_of_ours_is_a_refusal_by_its_reason(error, tmp_path):
    path = tmp_path / "file"
    read = raising(lambda path: error(f"{path}, line 3: expected 7 words; got 'a'"))
    target = Target("fake", tuple, lambda *_: b"", read)
    assert _fuzz_worker.read_once(target, path) == "expected # words"


def test_more_memory_than_the_file_explains_is_a_failure():
    tally = _fuzz_worker.Tally()
    tally.note(0, "", 0.0, _fuzz_worker.MEMORY + 1000, 100)
    tally.note(1, "", 0.0, _fuzz_worker.MEMORY + 1000, 1)
    assert [f["case"] for f in tally.failures] == [1]


FAKE = """
import ctypes, sys
from benchmarks import _fuzz_targets, _fuzz_worker
def mutate(suffix, content, rng):
    return b"%d" % rng.integers(4)
def read(path):
    word = path.read_bytes()
    if word == b"0":
        ctypes.string_at(0)  # the interpreter crashes
    while word == b"1":
        pass
    if word == b"2":
        raise ValueError(f"{path} is 2")
    return True
_fuzz_targets.TARGETS["fake"] = _fuzz_targets.Target("fake", lambda: (("", b"good"),), mutate, read)
"""


def test_crashes_and_hangs_are_counted_and_the_rest_is_read_all_the_same(tmp_path, monkeypatch):
    code = FAKE + "sys.exit(_fuzz_worker.main(sys.argv[1:]))"
    monkeypatch.setattr(fuzz, "_WORKER", ("-c", code))
    scope = {}
    exec(FAKE, scope)
    monkeypatch.setattr(_fuzz_targets, "TARGETS", dict(TARGETS))
    words = [_fuzz_worker.content("fake", 0, case)[1] for case in range(7)]
    assert len(set(words)) >= 3
    settings = fuzz.Settings(
        targets=("fake",), files=7, workers=1, seconds=0.5, keep=str(tmp_path / "kept")
    )
    try:
        result = fuzz.measure(settings, control_size=64)
    finally:
        TARGETS.pop("fake", None)
    (found,) = result["results"]
    counts = {word: words.count(b"%d" % word) for word in range(4)}
    assert found["files"] == 7
    assert found["accepted"] == counts[3]
    assert sum(found["refused"].values()) == counts[2]
    assert len(found["failures"]) == counts[0] + counts[1]
    kept = {p.name for p in (tmp_path / "kept").iterdir()} if found["failures"] else set()
    assert kept == {f"fake-{f['case']}" for f in found["failures"]}
    for failure in found["failures"]:
        hangs = words[failure["case"]] == b"1"
        assert ("Timeout" in failure["what"]) == hangs


def test_a_small_run_prints_and_draws(tmp_path, capsys):
    arguments = ["--targets", "idx,cache", "--files", "30", "--workers", "2"]
    written = ["--json", str(tmp_path / "f.json")]
    if can_plot():
        written += ["--plot", str(tmp_path / "f.png")]
    assert fuzz.main([*arguments, *written]) == 0
    printed = capsys.readouterr().out
    assert "idx, raw and .gz" in printed
    assert "is not a good idx file" in printed
    assert not can_plot() or (tmp_path / "f.png").stat().st_size > 1000


# ---------------------------------------------------------------- soak


def test_a_short_soak_does_everything_once(tmp_path):
    settings = soak.Settings(minutes=0.0005, warm_up=0.0, samples=1200, epochs=3, every=10)
    result = soak.measure(settings, control_size=64)
    counts = result["results"]["counts"]
    assert counts["trainings"] == counts["checkpoints"] == counts["compiled"] == 1
    assert counts["updates"] > 0
    assert "MiB per hour" in soak.report(result)
    if can_plot():
        soak.plot(result, tmp_path / "soak.png")


def test_a_slope_is_found_with_its_error():
    settings = soak.Settings(minutes=30, warm_up=5)
    rng = np.random.default_rng(0)
    samples = [{"minutes": m, "rss": 1e8 + 6e5 * m + rng.normal(0, 1e4)} for m in range(31)]
    samples[0]["rss"] = 0  # the warm-up does not count
    found = soak.slope(samples, settings)
    assert abs(found["slope"] - 3.6e7) < 4 * found["slope_error"]
    assert 0 < found["slope_error"] < 1e5
    assert math.isnan(soak.slope(samples[:6], settings)["slope"])


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match="a warm-up shorter than the run of 3 minutes; got 5"):
        soak.measure(soak.Settings(minutes=3.0, warm_up=5.0))
