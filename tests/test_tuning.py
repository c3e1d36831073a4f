"""Autotuning: the cuts between kernels, and a real measurement of tiny layers."""

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import jit, machine, plan, tuning
from nnsparse.machine import Choices
from nnsparse.topology import Topology


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(jit, "user_cache", lambda: tmp_path / "cache")
    machine.use(None)
    yield
    machine.use(None)


@pytest.mark.parametrize(
    ("above", "below", "cut"),
    [
        ([1, 1, 2, 2], [2, 2, 1, 1], np.sqrt(0.4 * 0.2)),
        ([1, 1, 1, 1], [2, 2, 2, 2], 0.1),
        ([2, 2, 2, 2], [1, 1, 1, 1], 7.0),
        # One noisy pair in the middle does not move the cut.
        ([1, 1.2, 1, 2], [2, 1, 3, 1], np.sqrt(0.2 * 0.1)),
    ],
)
def test_the_cut_lies_where_the_relative_times_are_least(above, below, cut):
    densities = (0.8, 0.4, 0.2, 0.1)
    found = tuning._cut(densities, np.array(above, float), np.array(below, float), never=7.0)
    assert found == pytest.approx(cut)


@pytest.mark.parametrize("save", [False, True])
def test_measured_choices_are_used_and_saved_on_request(home, save):
    found = ns.autotune(n=256, batch=64, rounds=1, save=save, progress=False)
    assert machine.choices() == found
    machine.use(None)
    assert machine.remembered() == (found if save else None)
    # What was found is a plan that can be built, at every density.
    machine.use(found)
    for density in (0.9, 0.3, 0.05, 0.001):
        topology = Topology.random((100, 3000), density=density, rng=0)
        slab = found.slab(3000, density)
        assert slab * topology.density >= 2 or slab >= 3000
        built = plan.build(topology)
        assert built.forward.slab == slab
        assert (built.quads is not None) == (density >= found.quads)
        assert sorted(built.source) == list(range(topology.nnz))


def test_the_smallest_slab_and_its_cuts_follow_the_times(home, monkeypatch):
    # A machine on which 128 inputs are best above a density of 0.12, and 256 below.
    def best(steps, rounds):
        slabs = [calls[0].func.__self__.plan.forward.slab for calls in steps]
        density = steps[0][0].func.__self__.topology.density
        wanted = 128 if density > 0.12 else 256
        return np.array([[1 + abs(np.log2(s / wanted))] * len(steps[0]) for s in slabs])

    monkeypatch.setattr(tuning, "_best", best)
    monkeypatch.setattr(machine, "model", lambda: Choices())
    found = ns.autotune(n=1024, batch=64, save=False, progress=False)
    assert found.base == 128
    assert found.slab(10**5, 0.2) == 128
    assert found.slab(10**5, 0.09) == found.slab(10**5, 0.02) == 256


@pytest.mark.parametrize("wrong", [{"n": 10}, {"batch": 0}, {"rounds": 0}])
def test_sizes_that_measure_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="autotune expects"):
        ns.autotune(**wrong)


def test_the_smallest_size_works_on_a_machine_with_large_caches(home, monkeypatch):
    monkeypatch.setattr(machine, "model", lambda: Choices(base=256))
    found = ns.autotune(n=64, batch=64, rounds=1, save=False, progress=False)
    assert found.base == 256


@pytest.mark.parametrize("wrong", [{"n": "a"}, {"n": 64.5}, {"rounds": True}])
def test_sizes_that_are_no_integers_are_refused(wrong):
    with pytest.raises(TypeError, match="as an int"):
        ns.autotune(**wrong)
