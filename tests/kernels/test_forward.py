"""The compiled forward passes against one float64 line per layer."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnsparse import jit, tiles
from nnsparse.inference.checking import check
from nnsparse.inference.layers import Layer
from nnsparse.inference.packing import pack
from nnsparse.kernels import forward, gemm
from nnsparse.kernels.forward import GELU, IDENTITY, LEAKY, RELU, SIGMOID, TANH
from nnsparse.kernels.forward_tiles import tiles_parallel, tiles_serial, tiles_split
from nnsparse.testing import odd_topologies, random_topology
from nnsparse.topology import Topology

ODD = {
    name: topology
    for name, topology in odd_topologies(np.random.default_rng(0))
    if min(topology.shape) > 0  # a layer has an input and an output
}
NONE = np.empty(0, np.int64)


def run(kernel, packed, x, room):
    """Return what a kernel writes, its output and scratch memory poisoned before."""
    out = np.full((len(x), packed.sizes()[-1]), np.nan, x.dtype)
    scratch = tiles.aligned(np.full(room, np.nan, x.dtype))
    kernel(*packed.arrays().values(), x, scratch, out)
    return out


def kernels(packed, itemsize, lanes=16):
    """Yield (name, kernel, size of its scratch memory)."""
    width, room = gemm.width(lanes, itemsize), 2 * max(packed.sizes())
    yield "samples", forward.samples, room
    yield "samples_split", forward.samples_split, room
    yield "tiles_serial", tiles_serial(lanes, width), room * lanes
    yield "tiles_parallel", tiles_parallel(lanes, width), room * lanes * jit.MAX_THREADS
    yield "tiles_split", tiles_split(lanes, width), room * lanes


def sparse_layer(topology, rng, activation=IDENTITY, slope=0.0, dtype=np.float32):
    n_out, n_in = topology.shape
    values = (rng.standard_normal(topology.nnz) / math.sqrt(n_in)).astype(dtype)
    bias = rng.standard_normal(n_out).astype(dtype)
    indptr, indices = topology.csr()
    return Layer("sparse", n_in, n_out, values, indptr, indices, bias, activation, slope)


def dense_layer(n_in, n_out, rng, activation=IDENTITY, dtype=np.float32):
    w = (rng.standard_normal((n_out, n_in)) / math.sqrt(n_in)).astype(dtype)
    bias = rng.standard_normal(n_out).astype(dtype)
    return Layer("dense", n_in, n_out, w, NONE, NONE, bias, activation)


def scale_layer(n, rng, activation=IDENTITY, dtype=np.float32):
    a, b = rng.standard_normal((2, n)).astype(dtype)
    return Layer("scale", n, n, a, NONE, NONE, b, activation)


ACTIVATIONS = {
    IDENTITY: lambda z, slope: z,
    RELU: lambda z, slope: np.maximum(z, 0),
    LEAKY: lambda z, slope: np.where(z < 0, slope * z, z),
    TANH: lambda z, slope: np.tanh(z),
    SIGMOID: lambda z, slope: 1 / (1 + np.exp(-z)),
    GELU: lambda z, slope: z * 0.5 * np.vectorize(math.erfc)(-z / math.sqrt(2)),
}


def reference(layers, x):
    """Return the output in float64."""
    y = x.astype(np.float64)
    for layer in layers:
        if layer.kind == "scale":
            z = y * layer.weights + layer.bias
        else:
            w = layer.weights
            if layer.kind == "sparse":
                w = Topology((layer.n_out, layer.n_in), layer.indptr, layer.indices).to_dense(w)
            z = y @ w.T.astype(np.float64) + layer.bias
        y = ACTIVATIONS[layer.activation](z, layer.slope)
    return y


def agree(layers, batch, dtype=np.float32, half=False, lanes=16, only=None):
    packed = pack(layers, np.dtype(dtype), half)
    check(packed)  # what `pack` writes is what `check` lets through
    x = np.random.default_rng(7).standard_normal((batch, layers[0].n_in)).astype(dtype)
    wanted = reference(layers, x)
    tolerance = 3e-5 if dtype == np.float32 else 1e-13
    for name, kernel, room in kernels(packed, x.itemsize, lanes):
        if only is None or name in only:
            found = run(kernel, packed, x, room)
            np.testing.assert_allclose(
                found, wanted, rtol=tolerance, atol=tolerance, err_msg=f"{name} {batch}"
            )


@pytest.mark.parametrize("name", ODD)
def test_every_kernel_matches_its_twin_on_odd_topologies(name):
    rng = np.random.default_rng(1)
    for batch in (1, 16, 19) if max(ODD[name].shape) < 2000 else (2,):
        agree([sparse_layer(ODD[name], rng, RELU)], batch)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_every_kernel_matches_its_twin_on_random_networks(seed, batch):
    rng = np.random.default_rng(seed)
    first = random_topology(rng, 150, 400)
    n_out, n_in = max(1, first.shape[0]), max(1, first.shape[1])
    if first.shape != (n_out, n_in):
        first = Topology.empty((n_out, n_in))
    middle = Topology.random((90, n_out), density=float(rng.random()), rng=rng)
    layers = [
        sparse_layer(first, rng, int(rng.integers(6)), 0.3),
        scale_layer(n_out, rng, int(rng.integers(6))),
        sparse_layer(middle, rng, int(rng.integers(6)), -0.2),
        dense_layer(90, int(rng.integers(1, 20)), rng, int(rng.integers(6))),
    ]
    agree(layers, batch)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_follows_every_kind_of_layer(activation):
    rng = np.random.default_rng(2)
    topology = Topology.random((37, 300), density=0.3, rng=3)  # several slabs
    agree([sparse_layer(topology, rng, activation, 0.25)], 21)
    agree([dense_layer(261, 10, rng, activation)], 21)  # more inputs than fit one pass
    agree([scale_layer(23, rng, activation)], 21)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [16, 32])
def test_every_lane_width_and_dtype_matches_its_twin(lanes, dtype):
    rng = np.random.default_rng(4)
    topology = Topology.random((65, 400), density=0.4, rng=5)
    layers = [
        sparse_layer(topology, rng, RELU, dtype=dtype),
        dense_layer(65, 18, rng, dtype=dtype),
    ]
    for batch in (1, lanes, 2 * lanes + 17):
        agree(layers, batch, dtype, lanes=lanes, only=("samples", "tiles_serial"))


def test_large_layers_have_several_panels_of_about_equal_work():
    rng = np.random.default_rng(6)
    topology = Topology.random((600, 700), density=0.5, rng=7)
    layers = [sparse_layer(topology, rng, RELU), dense_layer(600, 300, rng)]
    packed = pack(layers, np.dtype(np.float32), False)
    assert packed.program[2 + 9] > 2
    second = int(packed.program[2])
    assert packed.program[second + 9] > 2
    for batch in (1, 20):
        agree(layers, batch)


def test_more_outputs_and_inputs_than_two_bytes_count():
    rng = np.random.default_rng(8)
    n = 70_001
    wide = Topology.from_coo((2, n), [0, 0, 1, 1], [3, n - 1, 0, 65_536])
    tall = Topology.from_coo((n, 2), [0, 65_535, 65_536, n - 1], [0, 1, 1, 0])
    agree([sparse_layer(tall, rng), sparse_layer(wide, rng)], 2)
    agree([sparse_layer(wide, rng), dense_layer(2, n, rng)], 2, only=("samples", "tiles_serial"))


def test_the_same_bits_on_one_and_two_threads():
    rng = np.random.default_rng(9)
    topology = Topology.random((300, 500), density=0.4, rng=10)
    layers = [sparse_layer(topology, rng, RELU), dense_layer(300, 70, rng)]
    packed = pack(layers, np.dtype(np.float32), False)
    x = rng.standard_normal((50, 500)).astype(np.float32)
    found, before = [], jit.get_num_threads()
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            found.append([run(k, packed, x, room) for _, k, room in kernels(packed, 4)])
    finally:
        jit.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
    serial, split, tiled, parallel, panels = found[0]
    np.testing.assert_array_equal(serial, split)
    np.testing.assert_array_equal(tiled, parallel)
    np.testing.assert_array_equal(tiled, panels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_stored_as_float16_are_multiplied_as_what_they_round_to(dtype):
    rng = np.random.default_rng(11)
    topology = Topology.random((41, 90), density=0.4, rng=12)
    layers = [
        sparse_layer(topology, rng, RELU, dtype=dtype),
        dense_layer(41, 7, rng, dtype=dtype),
    ]
    packed = pack(layers, np.dtype(dtype), True)
    assert packed.values.dtype == np.uint16
    x = rng.standard_normal((19, 90)).astype(dtype)
    rounded = [
        Layer(**{**vars(layer), "weights": layer.weights.astype(np.float16).astype(dtype)})
        for layer in layers
    ]
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    for name, kernel, room in kernels(packed, x.itemsize):
        if name in ("samples", "tiles_serial"):
            found = run(kernel, packed, x, room)
            np.testing.assert_allclose(found, reference(rounded, x), rtol=0, atol=tolerance)


WIDEN = """
import numpy as np
from nnsparse import jit
from nnsparse.kernels.stored import weight, weights
from nnsparse.simd import put, store

@jit.serial
def widen(stored, single, vector):
    for i in range(stored.size):
        put(single, i, weight(stored, i, single))
    for i in range(0, stored.size, 4):
        store(vector, i, weights(stored, i, vector, 4))

bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
bits = bits[np.isfinite(bits.view(np.float16))]
for dtype in (np.float32, np.float64):
    single, vector = np.empty((2, bits.size), dtype)
    widen(bits, single, vector)
    wanted = bits.view(np.float16).astype(dtype)
    for found in (single, vector):
        assert np.array_equal(found, wanted) and np.array_equal(np.signbit(found), np.signbit(wanted))
"""


@pytest.mark.parametrize("features", [None, "+sse2"], ids=["this CPU", "no instruction for it"])
def test_every_finite_float16_is_widened_exactly(features, tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    if features:
        environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    (tmp_path / "widen.py").write_text(WIDEN)
    subprocess.run([sys.executable, str(tmp_path / "widen.py")], env=environment, check=True)
