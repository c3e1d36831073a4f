"""What does not fit is refused before it is begun, with how much it needs and how much there is."""

from pathlib import Path

import numpy as np
import pytest

from nnsparse import Topology, nn, space
from nnsparse.plan import plan_of

GB = 10**9


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Writes the files in which Linux tells what there is, in kilobytes and, for a group, bytes."""
    folder = tmp_path / "group"
    folder.mkdir()
    monkeypatch.setattr(space, "_MEMINFO", tmp_path / "meminfo")
    names = "memory.max", "memory.current", "file"
    monkeypatch.setattr(space, "_CGROUPS", ((folder, *names),))

    def write(available=None, swap=0, limit=None, usage=0, files=0):
        if available is not None:
            text = f"MemTotal: 99 kB\nMemAvailable: {available} kB\nSwapFree: {swap} kB\nHugePages: 0\n"
            (tmp_path / "meminfo").write_text(text)
        if limit is not None:
            for name, text in zip(
                (*names[:2], "memory.stat"), (limit, usage, f"anon 1\nfile {files}\n"), strict=True
            ):
                (folder / name).write_text(str(text))

    return write


def test_memory_is_what_linux_has_with_swap_or_what_the_group_has_left(memory):
    memory(available=1000, swap=24)
    assert space.available() == 1024 * 1024
    memory(limit="max")
    assert space.available() == 1024 * 1024
    memory(limit=1_000_000, usage=900_000, files=500_000)  # copies of files make room
    assert space.available() == 600_000
    memory(limit=1_000, usage=2_000)
    assert space.available() == 0


@pytest.mark.parametrize("text", ["", "MemAvailable: many kB\n", "MemAvailable: 5 kB\n"])
def test_where_the_system_does_not_tell_nothing_is_refused(text, memory, tmp_path):
    assert space.available() is None
    (tmp_path / "meminfo").write_text(text)
    assert space.available() is None
    space.check_room("a thing", 10**18, "")


def test_small_things_are_never_refused(memory):
    memory(available=0)
    space.check_room("a thing", space.SMALL - 1, "")
    with pytest.raises(
        ValueError, match=r"a thing needs about 0\.1 GB, 0\.0 GB available\. Take less\."
    ):
        space.check_room("a thing", space.SMALL, "Take less.")


def test_bytes_are_told_in_gigabytes():
    assert space.gigabytes(46_240 * GB) == "46,240 GB"
    assert space.gigabytes(12_340_000_000) == "12.3 GB"


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_this_machine_tells_what_it_has():
    left = space.available()
    assert left is not None
    assert 0 < left < 2**60


MILLION = 10**6
TOO_LARGE = {
    "all positions of a wide matrix": (
        lambda: Topology.full((MILLION, MILLION)),
        r"topology 1000000 x 1000000 with 1000000000000 nonzeros needs about 20,000 GB, .* GB available. "
        r"Take fewer neurons, or a higher sparsity",
    ),
    "one in a hundred of them": (
        lambda: Topology.random((MILLION, MILLION), density=0.01),
        r"with 10000000000 nonzeros needs about 200 GB",
    ),
    "more rows than memory": (lambda: Topology.empty((10**13, 1)), r"needs about 40,000 GB"),
    "a wide layer's mask": (
        lambda: Topology.empty((MILLION, MILLION)).to_dense(),
        r"as a dense array needs about 1,000 GB, .*to_scipy",
    ),
    "a sparse layer with too little sparsity": (
        lambda: nn.SparseLinear(MILLION, MILLION, sparsity=0.5),
        r"topology 1000000 x 1000000 .* needs about 10,000 GB",
    ),
    "a dense layer": (
        lambda: nn.Linear(MILLION, MILLION),
        r"dense weight 1000000 x 1000000 needs about 12,000 GB, .*SparseLinear",
    ),
    "a baseline": (lambda: nn.NumpyLinear(MILLION, MILLION), r"dense weight 1000000 x 1000000"),
    "a dense network": (
        lambda: nn.mlp([10, MILLION, MILLION, 10]),
        r"mlp 10-1000000-1000000-10, 1000020000000 weights, needs about 8,000 GB",
    ),
    "a sparse network in percent": (
        lambda: nn.mlp([MILLION] * 9, sparsity=0.99),
        r"mlp of 9 sizes, 80000000000 weights, needs about 1,920 GB",
    ),
    "more features than memory": (
        lambda: plan_of(Topology((1, 10**13), [0, 1], [10**12])),
        r"the plan of Topology.1 x 10000000000000.* needs about 120,000 GB",
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_absurd_sizes_are_refused_at_once(name):
    call, message = TOO_LARGE[name]
    if space.available() is None:
        pytest.skip("this system does not tell its memory")
    with pytest.raises(ValueError, match=message):
        call()


def test_a_model_that_fits_is_not_refused(memory):
    memory(available=200_000)  # 200 MB
    model = nn.mlp([1000, 100_000, 1000, 10], sparsity=[0.99, 0.99, None], rng=0)
    assert sum(p.size for p in model.parameters()) > 2 * MILLION
    memory(available=20_000)
    with pytest.raises(ValueError, match=r"needs about 0\.1 GB"):
        nn.mlp([1000, 100_000, 1000, 10], sparsity=[0.97, 0.97, None], rng=0)


@pytest.mark.parametrize("width", [10, 100_000, 10**8])
def test_predict_takes_fewer_samples_at_a_time_of_a_wide_model(width):
    layer = nn.Sequential(nn.ReLU())
    layer._n_out = width
    rows = layer._rows(np.zeros((3, 4)))
    assert layer._batch_size(rows) == {10: 1024, 100_000: 656, 10**8: 16}[width]
