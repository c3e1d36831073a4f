"""The compilation cache, the message that it compiles, and the number of threads."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numba
import numpy as np
import pytest

import nnsparse
from nnsparse import jit

PACKAGE = Path(nnsparse.__file__).parent
ROOT = PACKAGE.parent

# Compiles the smallest parallel kernel and uses it.
GATHER = """
import numpy as np
from nnsparse.kernels.layout import gather_rows
out = np.empty((1, 1, 16), np.float32)
gather_rows(np.arange(3, dtype=np.float32)[:, None], np.array([2, 0, 1]), out)
assert out[0, 0, :4].tolist() == [2, 0, 1, 0], out
"""


def python(code, root=ROOT, **environment):
    """Run code in a fresh interpreter that finds the package in `root`; return the process."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**inherited, "PYTHONPATH": str(root), **environment},
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


@pytest.fixture
def directory():
    """Forget the cache directory before and after a test that looks for it anew."""
    jit.cache_directory.cache_clear()
    yield jit.cache_directory
    jit.cache_directory.cache_clear()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return a cache directory with the compiled kernel of `GATHER`."""
    cache = tmp_path_factory.mktemp("compiled")
    python(GATHER, NUMBA_CACHE_DIR=str(cache))
    return cache


# ---------------------------------------------------------------- cache


@pytest.mark.parametrize("name", ["simd.py", "jit.py", "kernels/layout.py", "kernels/new.py", None])
def test_the_cache_follows_the_content_of_every_source_that_a_kernel_can_inline(tmp_path, name):
    shutil.copytree(PACKAGE, tmp_path / "nnsparse", ignore=shutil.ignore_patterns("__pycache__"))
    copy = tmp_path / "nnsparse" / "jit.py"
    # Only this module, under another name: importing the whole package once more is slow.
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("copied", {str(copy)!r})
copied = importlib.util.module_from_spec(spec)
spec.loader.exec_module(copied)
print(copied.cache_directory().name)
"""
    cache = str(tmp_path / "cache")
    before = python(code, NUMBA_CACHE_DIR=cache).stdout
    assert before.startswith("nnsparse-")
    if name is None:
        (tmp_path / "nnsparse" / "rows.py").write_text("# no kernel is made of this\n")
        assert python(code, NUMBA_CACHE_DIR=cache).stdout == before
    else:
        with (tmp_path / "nnsparse" / name).open("a") as file:
            file.write("# changed\n")
        assert python(code, NUMBA_CACHE_DIR=cache).stdout != before


def test_the_second_process_loads_what_the_first_compiled_and_says_nothing(tmp_path):
    first = python(GATHER, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.stderr.count("compiling kernels for this CPU") == 1
    assert str(tmp_path) in first.stderr
    (home,) = tmp_path.iterdir()
    files = {f: f.stat().st_mtime_ns for f in home.iterdir()}
    assert any(f.suffix == ".nbc" for f in files)
    second = python(GATHER, NUMBA_CACHE_DIR=str(tmp_path))
    assert second.stderr == ""
    assert {f: f.stat().st_mtime_ns for f in home.iterdir()} == files


def test_the_message_is_said_once_for_several_kernels(tmp_path):
    twice = GATHER + GATHER.replace("np.uint32", "np.int64")
    process = python(twice, NUMBA_CACHE_DIR=str(tmp_path))
    assert process.stderr.count("compiling") == 1


def test_importing_the_package_compiles_nothing_and_imports_no_optional_package(tmp_path):
    code = """
import sys, nnsparse
optional = {"torch", "sklearn", "matplotlib", "mpi4py", "pandas", "hypothesis"}
assert not optional & set(sys.modules), optional & set(sys.modules)
"""
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)).stderr == ""
    assert not list(tmp_path.rglob("*.nbc"))


def test_other_peoples_kernels_are_not_announced():
    announcer = jit._Announcer()

    def function():
        return 1

    class Event:
        data = {"dispatcher": numba.njit(function)}  # noqa: RUF012

    announcer.on_start(Event)
    assert not announcer.told


def test_numba_cache_dir_decides_where_the_cache_is(tmp_path, monkeypatch, directory):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "there"))
    assert directory().parent == tmp_path / "there"
    assert not directory().exists()  # created when the first kernel is saved


def test_without_numba_cache_dir_the_users_cache_is_taken(tmp_path, monkeypatch, directory):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(jit, "user_cache", lambda: tmp_path)
    assert directory().parent == tmp_path / "kernels"


def test_the_users_cache_follows_the_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert jit.user_cache() == tmp_path / "nnsparse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert jit.user_cache() == Path.home() / ".cache" / "nnsparse"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert jit.user_cache() == Path.home() / "Library" / "Caches" / "nnsparse"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert jit.user_cache() == tmp_path / "local" / "nnsparse"


def test_kernels_run_when_the_cache_cannot_be_written(tmp_path):
    (tmp_path / "home").write_text("")  # a file where a folder should be stops root, too
    process = python(GATHER, NUMBA_CACHE_DIR=str(tmp_path / "home"))
    assert "cannot save compiled kernels" in process.stderr
    assert process.stderr.count("Set NUMBA_CACHE_DIR to a folder that can be written") == 1


DAMAGE = {
    "cut short": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_compiled_anew(name, suffix, compiled, tmp_path):
    shutil.copytree(compiled, tmp_path / "cache")
    files = list((tmp_path / "cache").rglob(f"*{suffix}"))
    assert files
    for file in files:
        file.write_bytes(DAMAGE[name](file.read_bytes()))
    python(GATHER, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert python(GATHER, NUMBA_CACHE_DIR=str(tmp_path / "cache")).stderr == ""


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("n", [0, -1, 10**6, 1.0, "2", None, True])
def test_a_bad_number_of_threads_is_refused_and_changes_nothing(n):
    before, limit = jit.get_num_threads(), numba.config.NUMBA_NUM_THREADS
    with pytest.raises(ValueError, match=f"integer from 1 to {limit}.*got {n!r}"):
        jit.set_num_threads(n)
    assert jit.get_num_threads() == before


def test_the_number_of_threads_can_be_set_and_read():
    before = jit.get_num_threads()
    try:
        for n in (1, 2):
            jit.set_num_threads(n)
            assert jit.get_num_threads() == n
    finally:
        jit.set_num_threads(before)


def test_a_kernel_is_known_by_its_name():
    from nnsparse.kernels.layout import gather_rows

    assert gather_rows.__name__ == "gather_rows"
    assert isinstance(gather_rows, jit._ParallelKernel)


def test_many_python_threads_may_call_one_kernel_at_once():
    from nnsparse.kernels.layout import gather_rows

    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    source = np.random.default_rng(1).permutation(50_000)
    wrong = []

    def work():
        for _ in range(50):
            out = np.full((3125, 1, 16), np.nan, np.float32)
            gather_rows(values[:, None], source, out)
            if not np.array_equal(out.reshape(-1), values[source]):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_vector_width_is_one_that_exists():
    assert jit.vector_bits() in (128, 256, 512)


def test_the_package_logs_under_its_own_name():
    assert jit._log is logging.getLogger("nnsparse")


# ---------------------------------------------------------------- other CPUs

PRODUCTS = """
import numpy as np
from nnsparse import jit
from nnsparse.ops.structures import Dense, Sparse
from nnsparse.ops.layout import from_tiles, to_tiles
from nnsparse.plan import positions
from nnsparse.rows import Rows
from nnsparse.topology import Topology
assert jit.vector_bits() == 128, jit.vector_bits()
rng = np.random.default_rng(0)
topology = Topology.random((70, 300), density=0.3, rng=0)
values, bias = (rng.standard_normal(n).astype(np.float32) for n in (topology.nnz, 70))
x, d = (rng.standard_normal((37, n)).astype(np.float32) for n in (300, 70))
w = topology.to_dense(values)
order = positions(topology)
planned = np.empty_like(values)
planned[order] = values
xt, dt = (to_tiles(Rows(a), 16, np.float32) for a in (x, d))
for structure, weights in ((Sparse(topology), planned), (Dense(70, 300), w)):
    y = from_tiles(structure.forward(weights, xt, 37, bias, True), 37)
    np.testing.assert_allclose(y, np.maximum(x @ w.T + bias, 0), rtol=0, atol=1e-4)
    y = from_tiles(structure.transposed(weights, dt), 37)
    np.testing.assert_allclose(y, d @ w, rtol=0, atol=1e-4)
    g = structure.gradient(dt, xt)
    g = g[order] if g.ndim == 1 else g[topology.coo()]
    np.testing.assert_allclose(g, (d.T @ x)[topology.coo()], rtol=0, atol=1e-4)
"""


@pytest.mark.slow
def test_the_products_are_right_on_a_cpu_without_any_extension(tmp_path):
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    python(PRODUCTS, NUMBA_CACHE_DIR=str(tmp_path), **generic)


@pytest.mark.slow
def test_the_products_are_right_with_avx2_only(tmp_path):
    from numba.core.registry import cpu_target

    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx2" not in features:
        pytest.skip("this CPU has no AVX2")
    kept = ",".join(f for f in features if "avx512" not in f and "avx10" not in f)
    code = PRODUCTS.replace("== 128", "== 256")
    python(code, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=kept)


KEYS = """
from nnsparse.kernels import forward_tiles, spmm
for make in (forward_tiles.tiles_serial, forward_tiles.tiles_parallel, forward_tiles.tiles_split):
    kernel = make(16, 16)
    kernel = getattr(kernel, "dispatcher", kernel)
    print(kernel._cache._index_key(None, kernel.targetctx.codegen())[2])
print(spmm.spmm(64).dispatcher._cache._index_key(None, kernel.targetctx.codegen())[2])
print(spmm.spmm(32).dispatcher._cache._index_key(None, kernel.targetctx.codegen())[2])
"""


def test_every_process_finds_a_kernel_under_the_same_key():
    found = [
        subprocess.run([sys.executable, "-c", KEYS], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    keys = found[0].stdout.split()
    assert keys == found[1].stdout.split()
    assert len(set(keys)) == 5
