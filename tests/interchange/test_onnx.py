"""`to_onnx`: onnxruntime computes from the file what the model computes."""

import builtins
import json

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import Topology, nn
from nnsparse.interchange import onnx_export

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((9, 12)).astype(np.float32)


def session(path):
    """Return an inference session on one thread, silent."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def written(model, path, **arguments):
    ns.to_onnx(model, path, **arguments)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def assert_same(model, path, x=X, tolerance=2e-6, **arguments):
    got = session(written(model, path, **arguments)).run(None, {"x": x})[0]
    want = model.predict(x)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, atol=tolerance * max(1, np.abs(want).max()), rtol=0)


def normed(n, dtype=np.float32):
    layer = nn.BatchNorm1d(n, dtype=dtype)
    layer.running_mean[...], layer.running_var[...] = RNG.normal(size=n), RNG.random(n) + 0.5
    layer.weight.data[...], layer.bias.data[...] = RNG.random(n) + 0.5, RNG.normal(size=n)
    return layer


MODELS = {
    "sparse": lambda t: nn.SparseLinear(12, 5, sparsity=0.5, rng=0, dtype=t),
    "dense": lambda t: nn.Linear(12, 5, rng=0, dtype=t),
    "numpy, no bias": lambda t: nn.NumpyLinear(12, 5, bias=False, rng=0, dtype=t),
    "network": lambda t: nn.mlp([12, 90, 90, 5], sparsity=0.9, rng=0, dtype=t),
    "no weight": lambda t: nn.SparseLinear(12, 90, sparsity=1.0, rng=0, dtype=t),
    "full": lambda t: nn.SparseLinear(12, 5, topology=Topology.full((5, 12)), rng=0, dtype=t),
    "norm": lambda t: nn.Sequential(
        normed(12, t), nn.Linear(12, 8, rng=0, dtype=t), normed(8, t), nn.ReLU(), normed(8, t)
    ),
    "activations first": lambda t: nn.Sequential(
        nn.Tanh(), nn.Sigmoid(), nn.Linear(12, 3, rng=0, dtype=t)
    ),
    "two activations": lambda t: nn.Sequential(
        nn.Linear(12, 3, rng=0, dtype=t), nn.Tanh(), nn.Sequential(nn.Sigmoid(), nn.Dropout(0.9))
    ),
    "leaky": lambda t: nn.Sequential(
        nn.Linear(12, 12, rng=0, dtype=t),
        nn.LeakyReLU(0.3),
        nn.Linear(12, 12, rng=1, dtype=t),
        nn.AllReLU(0.6, 0),
        nn.Linear(12, 3, rng=2, dtype=t),
        nn.AllReLU(0.6, 1),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_computes_the_same(name, compact, dtype, tmp_path):
    model, x = MODELS[name](dtype), X.astype(dtype)
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    assert_same(model, tmp_path / "m.onnx", x, tolerance, compact=compact)


def test_gelu_in_float32_runs_and_in_float64_is_valid(tmp_path):
    from onnx.reference import ReferenceEvaluator

    for dtype in (np.float32, np.float64):
        model = nn.Sequential(nn.Linear(12, 8, rng=0, dtype=dtype), nn.GELU())
        x, path = X.astype(dtype), tmp_path / "m.onnx"
        if dtype == np.float32:
            assert_same(model, path)
        (got,) = ReferenceEvaluator(str(written(model, path))).run(None, {"x": x})
        # This evaluator takes erf of float64 in float32.
        np.testing.assert_allclose(got, model.predict(x), atol=1e-6, rtol=0)


def test_a_trained_network_of_every_kind_of_layer(tmp_path):
    model = nn.Sequential(
        nn.SparseLinear(12, 64, sparsity=0.9, rng=0),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.2, rng=0),
        nn.SparseLinear(64, 3, sparsity=0.5, rng=1),
    )
    optimizer = ns.optim.SGD(model.parameters(), lr=0.1)
    y = RNG.integers(0, 3, len(X))
    for _ in range(10):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(model(X), y).backward()
        optimizer.step()
    assert_same(model, tmp_path / "m.onnx", X * 2)
    assert model.training  # nothing was changed


def test_the_number_of_samples_is_free_and_names_are_the_callers(tmp_path):
    model = nn.mlp([12, 20, 4], sparsity=0.5, rng=0)
    path = written(model, tmp_path / "m.onnx", input_name="pixels", output_name="logits")
    run = session(path)
    (entry,), (out,) = run.get_inputs(), run.get_outputs()
    assert (entry.name, entry.shape, entry.type) == ("pixels", ["batch", 12], "tensor(float)")
    assert (out.name, out.shape) == ("logits", ["batch", 4])
    for batch in (1, 2, 300):
        x = RNG.standard_normal((batch, 12)).astype(np.float32)
        got = run.run(["logits"], {"pixels": x})[0]
        np.testing.assert_allclose(got, model.predict(x), atol=1e-5)


def test_metadata_say_how_sparse_the_network_is(tmp_path):
    model = nn.Sequential(
        nn.SparseLinear(12, 50, density=0.1, rng=0), nn.ReLU(), nn.Linear(50, 4, rng=1)
    )
    loaded = onnx.load(str(written(model, tmp_path / "m.onnx")))
    props = {p.key: p.value for p in loaded.metadata_props}
    assert props["nnsparse.nonzeros"] == "260"
    assert float(props["nnsparse.sparsity"]) == pytest.approx(1 - 260 / 800)
    assert json.loads(props["nnsparse.layers"]) == [
        {"shape": [50, 12], "nonzeros": 60},
        {"shape": [4, 50], "nonzeros": 200},
    ]
    assert loaded.producer_name == "nnsparse"
    assert session(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map == props


@pytest.mark.parametrize(("sparsity", "bytes_each"), [(0.95, 5), (0.9995, 6), (0.5, 5)])
def test_a_compact_file_has_five_or_six_bytes_a_weight(sparsity, bytes_each, tmp_path):
    layer = nn.SparseLinear(500, 400, sparsity=sparsity, rng=0)
    sizes = [
        written(layer, tmp_path / "m.onnx", compact=compact).stat().st_size
        for compact in (True, False)
    ]
    assert layer.nnz * bytes_each + 1600 <= sizes[0] <= layer.nnz * bytes_each + 1600 + 1200
    assert 800_000 < sizes[1] < 802_500


def test_dense_weights_with_many_zeros_are_stored_compactly_too(tmp_path):
    layer = nn.Linear(200, 100, rng=0)
    layer.weight.data[RNG.random((100, 200)) < 0.9] = 0
    x = RNG.standard_normal((4, 200)).astype(np.float32)
    assert_same(layer, tmp_path / "m.onnx", x, 1e-5)
    assert (tmp_path / "m.onnx").stat().st_size < 13_000


def test_weights_far_apart_keep_their_places(tmp_path):
    at = np.array([0, 1, 2, 2]), np.array([5, 0, 69_999, 3])
    topology = Topology.from_coo((3, 70_000), *at)
    layer = nn.SparseLinear(70_000, 3, topology=topology, rng=0)
    x = RNG.standard_normal((2, 70_000)).astype(np.float32)
    got = session(written(layer, tmp_path / "m.onnx")).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, x @ layer.to_scipy().T, atol=1e-6)


def test_onnxruntime_unpacks_when_it_loads(tmp_path):
    path = written(nn.mlp([64, 64, 64], sparsity=0.9, rng=0), tmp_path / "m.onnx")
    assert {n.op_type for n in onnx.load(str(path)).graph.node} > {"CumSum", "ScatterElements"}
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "o.onnx"), 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    left = {n.op_type for n in onnx.load(str(tmp_path / "o.onnx")).graph.node}
    assert left <= {"Gemm", "Relu", "FusedGemm"}


TOKENS = np.array([[3, 5, 0, 2], [7, 0, 0, 0], [0, 0, 0, 0], [1, 1, 2, 9]])
EMBEDDED = {
    "mean": lambda: [nn.EmbeddingBag(10, 4, "mean", 0, rng=0)],
    "mean, all": lambda: [nn.EmbeddingBag(10, 4, "mean", rng=0)],
    "sum": lambda: [nn.EmbeddingBag(10, 4, "sum", 0, rng=0)],
    "pooled": lambda: [nn.Embedding(10, 4, 0, rng=0), nn.GlobalAveragePooling1D()],
    "flat": lambda: [nn.Embedding(10, 4, 0, rng=0)],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EMBEDDED)
def test_embeddings_take_tokens(name, dtype, tmp_path):
    front = EMBEDDED[name]()
    front[0].weight.data[0] = 5.0  # counts where 0 is no padding
    rest = nn.Linear(16 if name == "flat" else 4, 2, rng=1, dtype=dtype)
    front[0].weight.data = front[0].weight.data.astype(dtype)
    model = nn.Sequential(nn.Sequential(*front), nn.ReLU(), rest)
    assert_same(model, tmp_path / "m.onnx", TOKENS)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "m.onnx"
    ns.to_onnx(nn.Linear(3, 2), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        ns.to_onnx(nn.GlobalAveragePooling1D(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        ns.to_onnx(nn.Linear(3, 2), tmp_path / "none" / "m.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        ns.to_onnx(nn.Linear(3, 2), tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "m.onnx"]


class Custom(nn.Module):
    def forward(self, x):
        return x


LINEAR = nn.Linear(4, 2)
REFUSED = {
    "no module": (7, {}, TypeError, "to_onnx expects a Module; got int"),
    "a layer of one's own": (
        nn.Sequential(LINEAR, Custom()),
        {},
        TypeError,
        r"to_onnx cannot take layer 1 \(Custom\): expected Sequential, SparseLinear",
    ),
    "no layer with features": (nn.ReLU(), {}, ValueError, "to_onnx expects at least one affine"),
    "sizes that do not fit": (
        nn.Sequential(LINEAR, nn.Linear(4, 2)),
        {},
        ValueError,
        r"to_onnx: layer 1 \(Linear\) expects 4 features; the layer before it gives 2",
    ),
    "mixed dtypes": (
        nn.Sequential(LINEAR, nn.Linear(2, 2, dtype=np.float64)),
        {},
        TypeError,
        r"to_onnx: layer 1 \(Linear\) is float64",
    ),
    "an empty name": (LINEAR, {"input_name": ""}, ValueError, "two different names, not empty"),
    "one name for both": (LINEAR, {"output_name": "x"}, ValueError, "got 'x' and 'x'"),
    "a name of ours": (
        LINEAR,
        {"output_name": "nnsparse/0/bias"},
        ValueError,
        "without 'nnsparse/'",
    ),
    "a name that is no string": (LINEAR, {"input_name": 3}, TypeError, "names as strings; got 3"),
    "an embedding of another dtype": (
        nn.Sequential(nn.EmbeddingBag(9, 4, dtype=np.float64), LINEAR),
        {},
        TypeError,
        r"EmbeddingBag\(9, 4\) is float64, the layers behind it float32",
    ),
    "a bag of another width": (
        nn.Sequential(nn.EmbeddingBag(9, 3), LINEAR),
        {},
        ValueError,
        r"EmbeddingBag\(9, 3\) gives 3 features; the layer behind it takes 4",
    ),
    "an embedding of another width": (
        nn.Sequential(nn.Embedding(9, 3), LINEAR),
        {},
        ValueError,
        r"gives a multiple of 3 features",
    ),
    "an embedding in the middle": (
        nn.Sequential(LINEAR, nn.Embedding(9, 2)),
        {},
        TypeError,
        r"cannot take layer 1 \(Embedding\)",
    ),
    "a layer of one's own behind an embedding": (
        nn.Sequential(nn.EmbeddingBag(9, 4), LINEAR, Custom()),
        {},
        TypeError,
        r"cannot take layer 2 \(Custom\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_hold_is_refused(name, tmp_path):
    model, arguments, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ns.to_onnx(model, tmp_path / "m.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_more_than_protobuf_takes_is_refused_before_it_is_made_dense(tmp_path):
    wide = 3_000_000
    topology = Topology.from_coo((wide, wide), [1], [2])
    layer = nn.SparseLinear(wide, wide, bias=False, topology=topology, rng=0)
    with pytest.raises(ValueError, match=r"36,000,012,000,000 bytes.*Pass compact=True"):
        ns.to_onnx(layer, tmp_path / "m.onnx", compact=False)
    written(layer, tmp_path / "m.onnx")  # not that a runtime could load it


def test_a_compact_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST", 100)
    with pytest.raises(ValueError, match=r"bytes of weights, but an ONNX file.*Remove weights"):
        ns.to_onnx(nn.Linear(12, 12), tmp_path / "m.onnx")


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"to_onnx needs onnx: pip install 'nnsparse\[onnx\]'"):
        ns.to_onnx(nn.Linear(3, 2), tmp_path / "m.onnx")
