"""Frozen models: equal to the model they come from, strict at the border, safe on disk and between threads."""

import copy
import io
import json
import threading
import zipfile

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import atomic, nn, npz
from nnsparse.inference import files
from nnsparse.inference.checking import check
from nnsparse.rows import Rows


def network(dtype=np.float32):
    """Return a trained-looking model with every kind of layer."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Dropout(0.3),
        nn.Tanh(),
        nn.BatchNorm1d(37, dtype=dtype),
        nn.SparseLinear(37, 301, density=0.3, dtype=dtype, rng=0),
        nn.BatchNorm1d(301, dtype=dtype),
        nn.ReLU(),
        nn.Sequential(
            nn.SparseLinear(301, 530, sparsity=0.95, dtype=dtype, rng=1),
            nn.AllReLU(0.4, layer=0),
            nn.BatchNorm1d(530, affine=False, dtype=dtype),
            nn.Sequential(nn.GELU(), nn.Dropout(0.5)),
            nn.NumpyLinear(530, 61, dtype=dtype, rng=2),
        ),
        nn.BatchNorm1d(61, dtype=dtype),
        nn.LeakyReLU(0.1),
        nn.Sigmoid(),
        nn.Linear(61, 7, bias=False, dtype=dtype, rng=3),
    )
    for parameter in model.parameters():
        parameter.data += (0.1 * rng.standard_normal(parameter.data.shape)).astype(dtype)
    for _ in range(3):  # running statistics
        model(rng.standard_normal((50, 37)))
    return model


MODEL, FROZEN = network(), ns.compile(network())


def data(batch, n=37, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, n)).astype(dtype)


# ---------------------------------------------------------------- the same function


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_batch_gives_what_the_model_predicts(dtype):
    model = network(dtype)
    frozen = ns.compile(model)
    assert frozen.dtype == dtype
    tolerance = 5e-6 if dtype == np.float32 else 1e-13
    for batch in (*range(1, 36), 63, 64, 65, 130):
        x = data(batch, dtype=dtype, seed=batch)
        y = frozen.predict(x)
        assert y.shape == (batch, 7)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, model.predict(x), rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(frozen(x), y)


def test_a_large_network_is_the_same_on_all_threads():
    model = nn.mlp([600, 1100, 900, 10], sparsity=0.8, rng=0)
    frozen = ns.compile(model)
    before, found = ns.get_num_threads(), []
    try:
        for threads in (1, 2):
            ns.set_num_threads(threads)
            found.append([frozen(data(batch, 600)) for batch in (1, 3, 4, 20, 33, 130)])
    finally:
        ns.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
        wanted = model.predict(data(len(one), 600))
        np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("n_in", "n_out", "nnz"),
    [(1, 1, 0), (1, 1, 1), (67, 1, 9), (1, 67, 9), (5, 9, 45), (300, 3, 0)],
)
def test_a_single_layer_of_any_shape_can_be_compiled(n_in, n_out, nnz):
    topology = ns.Topology.random((n_out, n_in), nnz=nnz, rng=0)
    layer = nn.SparseLinear(n_in, n_out, topology=topology, rng=1)
    layer.bias.data[:] = data(1, n_out)[0]
    for batch in (1, 3, 20):
        x = data(batch, n_in)
        np.testing.assert_allclose(ns.compile(layer)(x), layer.predict(x), rtol=1e-5, atol=1e-5)


def test_batch_normalisation_behind_a_linear_layer_costs_nothing():
    plain = nn.SparseLinear(20, 30, density=0.3, rng=0)
    norm = nn.BatchNorm1d(30)
    norm.running_mean[:], norm.running_var[:] = 0.5, 4.0
    frozen, bare = ns.compile(nn.Sequential(plain, norm)), ns.compile(plain)
    assert frozen.nbytes == bare.nbytes
    np.testing.assert_allclose(
        frozen(data(5, 20)), (bare(data(5, 20)) - 0.5) / 2, rtol=1e-4, atol=1e-6
    )


def test_a_frozen_model_does_not_follow_the_training():
    model = nn.mlp([9, 8, 3], sparsity=0.5, rng=0)
    frozen = ns.compile(model)
    before = frozen(data(4, 9))
    for parameter in model.parameters():
        parameter.data[...] = 7
    np.testing.assert_array_equal(frozen(data(4, 9)), before)


def test_a_nan_in_one_sample_stays_there():
    for batch in (1, 3, 4, 40):
        x = data(batch)
        x[batch - 1, 5] = np.nan
        y, wanted = FROZEN(x), MODEL.predict(x)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
        assert np.isnan(y[-1]).all()
        assert not np.isnan(y[:-1]).any()


@pytest.mark.parametrize("batch", [1, 40])
def test_infinite_inputs_go_where_the_model_sends_them(batch):
    model = nn.Sequential(
        nn.SparseLinear(30, 20, density=0.2, rng=0), nn.ReLU(), nn.Linear(20, 5, rng=1)
    )
    x = data(batch, 30)
    x[:, 3], x[:, 7] = np.inf, -np.inf
    np.testing.assert_allclose(ns.compile(model)(x), model.predict(x), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- the border


def test_integers_strides_and_other_dtypes_are_converted():
    x = data(6)
    wanted = FROZEN(x)
    big = np.zeros((12, 74), np.float32)
    big[::2, ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    swapped = x.astype(x.dtype.newbyteorder())
    same = (big[::2, ::2], np.asfortranarray(x), x.astype(np.float64), read_only, swapped)
    for y in (*same, x.tolist(), Rows(x), Rows(np.concatenate([x, x]), np.arange(6, 12))):
        np.testing.assert_array_equal(FROZEN(y), wanted)
    ones = np.ones((2, 37), np.int64)
    np.testing.assert_array_equal(FROZEN(ones), FROZEN(ones.astype(np.float32)))
    np.testing.assert_array_equal(x, data(6))  # the input is not written


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 36)), ValueError, r"\(batch, 37\); got \(2, 36\)"),
        (np.zeros((37, 2)), ValueError, r"Features first\? Pass x.T"),
        (np.zeros(37), ValueError, r"One sample\? Pass x\[None, :\]"),
        (np.zeros((1, 1, 37)), ValueError, "shape"),
        (np.zeros((0, 37), np.float32), ValueError, "at least one sample"),
        (np.zeros((2, 37), complex), TypeError, "real numbers"),
        (np.full((2, 37), "a"), TypeError, "real numbers"),
        (None, TypeError, "real numbers"),
    ],
)
def test_a_wrong_input_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        FROZEN.predict(x)


def test_a_layer_that_cannot_be_compiled_is_named_with_index_and_class():
    class Square(nn.Module):
        def forward(self, x):
            return x

    inner = nn.Sequential(nn.ReLU(), Square())
    with pytest.raises(TypeError, match=r"layer 1\.1 \(Square\)"):
        ns.compile(nn.Sequential(nn.Linear(3, 4, rng=0), inner))
    with pytest.raises(TypeError, match="Square"):
        ns.compile(Square())
    with pytest.raises(TypeError, match="expects a Module; got list"):
        ns.compile([nn.ReLU()])


def test_sizes_and_dtypes_that_do_not_fit_are_refused():
    a, b = nn.Linear(3, 4, rng=0), nn.Linear(5, 2, rng=0)
    with pytest.raises(ValueError, match=r"layer 1 \(Linear\) expects 5 features; .* 4"):
        ns.compile(nn.Sequential(a, b))
    with pytest.raises(TypeError, match=r"layer 1 \(Linear\) is float64"):
        ns.compile(nn.Sequential(a, nn.Linear(4, 2, dtype=np.float64, rng=0)))
    for empty in (nn.Sequential(), nn.Sequential(nn.ReLU())):
        with pytest.raises(ValueError, match="number of features"):
            ns.compile(empty)
    with pytest.raises(ValueError, match="float16 or None"):
        ns.compile(a, dtype=np.float32)
    a.weight.data = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match=r"weight\.data of shape"):
        ns.compile(a)


# ---------------------------------------------------------------- float16 and bytes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float16_storage_keeps_its_stated_error(dtype):
    layer = nn.SparseLinear(400, 90, density=0.2, dtype=dtype, rng=0)
    layer.weight.data[:50] *= 1e-6  # subnormal in float16
    frozen = ns.compile(layer, dtype=np.float16)
    assert (frozen.storage, frozen.dtype) == (np.float16, dtype)
    weights = np.abs(layer.weight.data.astype(np.float64))
    assert 0 < frozen.storage_error <= max(2.0**-11 * weights.max(), 2.0**-25)
    w = np.abs(layer.weight.to_dense().astype(np.float64))
    for batch in (1, 20):
        x = data(batch, 400, dtype)
        bound = 2.0**-11 * np.abs(x) @ w.T + 2.0**-25 * np.abs(x).sum(axis=1, keepdims=True)
        error = np.abs(frozen(x) - layer.predict(x))
        assert (error <= bound + 1e-5).all()
        assert error.max() > 1e-5  # it was rounded
    plain = ns.compile(layer)
    assert plain.storage_error == 0
    assert plain.nbytes - frozen.nbytes == layer.nnz * (np.dtype(dtype).itemsize - 2)


@pytest.mark.parametrize("bad", [1e5, np.inf, np.nan])
def test_a_weight_that_float16_cannot_hold_is_refused(bad):
    layer = nn.SparseLinear(9, 5, density=0.5, rng=0)
    layer.weight.data[3] = bad
    with pytest.raises(ValueError, match="float16 holds up to 65504"):
        ns.compile(layer, dtype=np.float16)
    ns.compile(layer)


def test_the_bytes_are_counted_exactly_and_indices_take_one_or_two():
    for n_in, size in ((200, 1), (5000, 2)):
        layer = nn.SparseLinear(
            n_in, 64, topology=ns.Topology.random((64, n_in), nnz=640, rng=0), rng=0
        )
        frozen = ns.compile(layer)
        arrays = frozen._packed.arrays()
        assert frozen.nbytes == sum(a.nbytes for a in arrays.values())
        slabs = 1 if n_in == 200 else -(-n_in // int(frozen._packed.program[2 + 8]))
        indices = arrays["narrow"].nbytes + arrays["wide"].nbytes
        assert indices == 640 * size + 64 * 2 * slabs
        assert frozen.n_weights == 640
    assert (
        repr(frozen) == f"CompiledModel(5000 -> 64, 640 weights, float32, {frozen.nbytes:,} bytes)"
    )


# ---------------------------------------------------------------- threads


def test_several_python_threads_may_call_at_once():
    inputs = [data(batch, seed=i) for i, batch in enumerate((1, 1, 2, 5, 40, 90))]
    wanted = [FROZEN(x) for x in inputs]
    wrong, start = [], threading.Barrier(len(inputs))

    def work(x, y):
        start.wait()
        for _ in range(100):
            if not np.array_equal(FROZEN(x), y):
                wrong.append(len(x))
                return

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("storage", [None, np.float16])
def test_a_saved_model_comes_back_bit_for_bit(storage, tmp_path):
    frozen = ns.compile(MODEL, dtype=storage)
    path = tmp_path / "model.nns"
    path.write_text("an older file")
    frozen.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.nns"]
    again = ns.inference.load(str(path))
    assert repr(again) == repr(frozen)
    assert again.storage_error == frozen.storage_error
    for batch in (1, 20):
        np.testing.assert_array_equal(again(data(batch)), frozen(data(batch)))
    np.load(path, allow_pickle=False)["manifest"]  # a plain .npz


def test_a_model_can_be_copied(tmp_path):
    np.testing.assert_array_equal(copy.deepcopy(FROZEN)(data(3)), FROZEN(data(3)))


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model"
    FROZEN.save(path)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        FROZEN.save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        ns.inference.load(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be loaded"):
        ns.inference.load(path)


def test_damage_anywhere_in_the_file_is_noticed(tmp_path):
    path = tmp_path / "model"
    ns.compile(nn.mlp([9, 8, 3], sparsity=0.5, rng=0)).save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in rng.integers(0, len(good), 40):  # cut short
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match="cannot be loaded"):
            ns.inference.load(path)
    arrays = np.load(io.BytesIO(good))
    for name in arrays.files:  # one bit in each array
        start = good.index(arrays[name].tobytes()) if arrays[name].size else None
        if start is None:
            continue
        broken = bytearray(good)
        broken[start + int(rng.integers(arrays[name].nbytes))] ^= 4
        path.write_bytes(bytes(broken))
        with pytest.raises(ValueError, match="cannot be loaded"):
            ns.inference.load(path)


def forge(path, change, frozen=FROZEN):
    """Save a model whose arrays and manifest were changed, with hashes that fit."""
    arrays = {name: array.copy() for name, array in frozen._packed.arrays().items()}
    manifest = {"format": files.FORMAT, "version": files.VERSION, "storage_error": 0.0}
    change(arrays, manifest)
    manifest["arrays"] = {
        name: npz._describe(array, npz._digest(array))
        for name, array in arrays.items()
        if array.dtype != object
    }
    text = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, manifest=text, **arrays)


def set_to(name, where, value):
    def change(arrays, manifest):
        arrays[name][where] = value

    return change


def replace(name, array):
    def change(arrays, manifest):
        arrays[name] = array

    return change


def manifest_says(name, value):
    def change(arrays, manifest):
        manifest[name] = value

    return change


FORGERIES = {
    "version": manifest_says("version", 2),
    "format": manifest_says("format", "checkpoint"),
    "storage error": manifest_says("storage_error", -1.0),
    "unknown array": replace("more", np.zeros(3)),
    "no array": lambda arrays, manifest: arrays.pop("wide"),
    "objects": replace("wide", np.array([{}], object)),
    "dtype": lambda arrays, manifest: arrays.update(values=arrays["values"].astype(np.float64)),
    "matrix": lambda arrays, manifest: arrays.update(values=arrays["values"][None]),
    "empty program": replace("program", np.empty(0, np.int64)),
    "too short": lambda arrays, manifest: arrays.update(program=arrays["program"][:-1]),
    "too long": lambda arrays, manifest: arrays.update(values=np.append(arrays["values"], [0, 0])),
    "large index": set_to("wide", -1, 65_535),
    "large narrow index": set_to("narrow", 0, 255),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_file_is_refused(name, tmp_path):
    path = tmp_path / "model"
    if name == "dtype":  # float64 weights, float32 biases
        forge(path, lambda a, m: a.update(values=a["values"].astype(np.float64)))
    else:
        forge(path, FORGERIES[name])
    with pytest.raises(ValueError, match="cannot be loaded"):
        ns.inference.load(path)


def test_an_unforged_file_of_the_same_making_is_loaded(tmp_path):
    forge(tmp_path / "model", lambda arrays, manifest: None)
    np.testing.assert_array_equal(ns.inference.load(tmp_path / "model")(data(3)), FROZEN(data(3)))


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("values.npy", bytes(10**6))
    with pytest.raises(ValueError, match="compressed"):
        ns.inference.load(tmp_path / "bomb")


def test_no_changed_number_of_a_program_makes_a_kernel_read_elsewhere(tmp_path):
    frozen = ns.compile(
        nn.Sequential(
            nn.SparseLinear(300, 20, density=0.2, rng=0),
            nn.Tanh(),
            nn.BatchNorm1d(20),
            nn.Tanh(),
            nn.Linear(20, 3, rng=0),
        )
    )
    packed = copy.deepcopy(frozen._packed)
    passed = []
    for i, value in enumerate(packed.program.tolist()):
        for other in (value + 1, value - 1, -1, 2**40, 2**62):
            packed.program[i] = other
            try:
                check(packed)
            except ValueError:
                pass
            else:
                passed.append((i, other))
            packed.program[i] = value
    check(packed)
    headers, at = [], 2
    for _ in range(int(packed.program[0])):
        headers.append(at)
        at = int(packed.program[at])
    activations = {header + 4 for header in headers}
    assert activations & {i for i, _ in passed}  # another function, computed within bounds
    # Elsewhere only numbers may pass that kernels do not use for this kind of layer.
    x = data(20, 300)
    wanted = frozen(x), frozen(x[:1])
    for i, other in passed:
        if i not in activations:
            forged = copy.deepcopy(packed)
            forged.program[i] = other
            model = ns.inference.CompiledModel(forged)
            np.testing.assert_array_equal(model(x), wanted[0], err_msg=str(i))
            np.testing.assert_array_equal(model(x[:1]), wanted[1], err_msg=str(i))
