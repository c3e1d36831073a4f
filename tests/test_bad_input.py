"""What users get wrong, in one table: an error that says what to do, or the right result.

Never a crash, never a wrong number. Files that are corrupt or missing are in `datasets/`.
"""

import copy

import numpy as np
import pytest
from scipy import sparse

from nnsparse import Tensor, Topology, data, nn, optim, tensor
from nnsparse.inference import compile as compile_model
from nnsparse.inference import load as load_model
from nnsparse.nn.normalization import BatchNorm1d
from nnsparse.train import NonFiniteLossError, check_finite

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 12)).astype(np.float32)
Y = RNG.integers(0, 5, 40)

MODELS = {
    "sparse": lambda: nn.SparseLinear(12, 5, sparsity=0.5, rng=0),
    "dense": lambda: nn.Linear(12, 5, rng=0),
    "numpy": lambda: nn.NumpyLinear(12, 5, rng=0),
    "network": lambda: nn.mlp([12, 20, 5], sparsity=0.5, rng=0),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


# ---------------------------------------------------------------- the input of a model

BAD_INPUT = {
    "too few features": (
        X[:, :11],
        ValueError,
        r"expects x of shape \(batch, 12\); got \(40, 11\)",
    ),
    "too many features": (
        X.repeat(2, 1),
        ValueError,
        r"expects x of shape \(batch, 12\); got \(40, 24\)",
    ),
    "features first": (
        X.T,
        ValueError,
        r"12 -> .*expects x of shape \(batch, 12\); got \(12, 40\). Features first\? Pass x.T",
    ),
    "no features": (X[:, :0], ValueError, r"got \(40, 0\)"),
    "an empty batch": (
        X[:0],
        ValueError,
        r"at least one sample; got an empty batch of shape \(0, 12\)",
    ),
    "an empty list": ([], ValueError, r"shape \(batch, n_features\); got \(0,\)"),
    "one sample": (X[0], ValueError, r"got \(12,\). One sample\? Pass x\[None, :\]"),
    "a number": (np.float32(3), ValueError, r"shape \(batch, n_features\); got \(\)"),
    "0-d": (np.array(3.0), ValueError, r"shape \(batch, n_features\); got \(\)"),
    "images": (X.reshape(40, 3, 4), ValueError, r"shape \(batch, n_features\); got \(40, 3, 4\)"),
    "objects": (X.astype(object), TypeError, "real numbers; got dtype object"),
    "text": (np.full((40, 12), "a"), TypeError, "real numbers; got dtype <U1"),
    "complex numbers": (X + 1j, TypeError, "real numbers; got dtype complex"),
    "dates": (np.zeros((40, 12), "M8[s]"), TypeError, "real numbers; got dtype datetime64"),
    "nothing": (None, TypeError, "real numbers; got dtype object"),
    "a sparse matrix of the wrong shape": (
        sparse.csr_array(X[:, :3]),
        ValueError,
        r"got \(40, 3\)",
    ),
    "a plain tensor of the wrong shape": (tensor(X[:, :3]), ValueError, r"got \(40, 3\)"),
    "a plain tensor of one sample": (tensor(X[0]), ValueError, "One sample"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_a_bad_batch_is_refused_in_calls_and_predictions(name, model):
    x, error, message = BAD_INPUT[name]
    with pytest.raises(error, match=message):
        model(x)
    if not name.startswith("a plain tensor"):
        with pytest.raises(error, match=message):
            model.predict(x)
    assert model(X).shape == (40, 5)  # and nothing is broken


def unaligned(x):
    """Return x at an address that no float may have."""
    raw = np.zeros(x.nbytes + 1, np.uint8)
    out = raw[1:].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def read_only(x):
    out = x.copy()
    out.flags.writeable = False
    return out


WHOLE = np.round(X * 3)
ODD_INPUT = {
    "read-only": (read_only(X), X),
    "read-only, from bytes": (np.frombuffer(X.tobytes(), np.float32).reshape(40, 12), X),
    "fortran-ordered": (np.asfortranarray(X), X),
    "strided rows": (X.repeat(2, 0)[::2], X),
    "strided columns": (X.repeat(2, 1)[:, ::2], X),
    "reversed": (X[::-1, ::-1], X[::-1, ::-1].copy()),
    "broadcast": (np.broadcast_to(X[3], (40, 12)), np.tile(X[3], (40, 1))),
    "a transposed view": (np.ascontiguousarray(X.T).T, X),
    "unaligned": (unaligned(X), X),
    "big-endian": (X.astype(">f4"), X),
    "float64": (X.astype(np.float64), X),
    "big-endian float64": (X.astype(">f8"), X),
    "float16": (X.astype(np.float16), X.astype(np.float16).astype(np.float32)),
    "int64": (WHOLE.astype(np.int64), WHOLE),
    "int8": (WHOLE.astype(np.int8), WHOLE),
    "uint8": (np.abs(WHOLE).astype(np.uint8), np.abs(WHOLE)),
    "bool": (X > 0, (X > 0).astype(np.float32)),
    "lists": (X.tolist(), X),
    "a masked array without a mask": (np.ma.array(X), X),
    "a float64 tensor": (tensor(X.astype(np.float64)), X),
}


@pytest.mark.parametrize("name", ODD_INPUT)
def test_an_odd_but_good_batch_gives_what_its_plain_copy_gives(name, model):
    x, plain = ODD_INPUT[name]
    plain = np.ascontiguousarray(plain)
    out, expected = model(x), model(plain)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.numpy(), expected.numpy())
    if not name.endswith("tensor"):
        np.testing.assert_array_equal(model.predict(x), expected.numpy())


@pytest.mark.parametrize("name", ["read-only", "fortran-ordered", "strided columns", "uint8"])
def test_an_odd_array_in_a_data_loader_trains_like_its_plain_copy(name):
    x, plain = ODD_INPUT[name]
    results = []
    for array in (x, np.ascontiguousarray(plain)):
        model = MODELS["network"]()
        for batch, labels in data.DataLoader((array, Y), batch_size=16, rng=0):
            nn.CrossEntropyLoss()(model(batch), labels).backward()
        results.append([p.grad for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_keeps_its_hands_off_the_users_array(model):
    x = X.copy()
    out = model(x)
    out.backward(np.ones(out.shape))
    np.testing.assert_array_equal(x, X)


# ---------------------------------------------------------------- labels and targets

BAD_LABELS = {
    "floats": (Y.astype(float), TypeError, "integer labels .*got dtype float64"),
    "booleans": (Y > 2, TypeError, "integer labels .*got dtype bool"),
    "text": (Y.astype(str), TypeError, "integer labels"),
    "one too large": (
        np.where(np.arange(40) == 7, 5, Y),
        ValueError,
        "from 0 to 4; got 5 at index 7",
    ),
    "counted from one": (Y + 1, ValueError, "Counted from one"),
    "negative": (Y - 1, ValueError, "from 0 to 4; got -1"),
    "far out of range": (Y + 2**40, ValueError, "from 0 to 4; got 109951162777"),
    "too few": (Y[:39], ValueError, r"shape \(40,\) .*got \(39,\)"),
    "none": (Y[:0], ValueError, r"got \(0,\)"),
    "one for all": (2, ValueError, r"got \(\)"),
    "one-hot": (
        np.eye(5, dtype=int)[Y],
        ValueError,
        r"got \(40, 5\). One-hot\? Pass labels.argmax",
    ),
    "a column": (Y[:, None], ValueError, r"got \(40, 1\). A column\? Pass labels.ravel"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels_are_refused(name):
    labels, error, message = BAD_LABELS[name]
    model = MODELS["network"]()
    with pytest.raises(error, match=message):
        nn.CrossEntropyLoss()(model(X), labels)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i4"])
def test_labels_of_any_integer_dtype_are_taken(dtype):
    logits = tensor(X[:, :5])
    expected = nn.CrossEntropyLoss()(logits, Y).item()
    strided = Y.astype(dtype).repeat(2)[::2]
    assert nn.CrossEntropyLoss()(logits, strided).item() == expected


# ---------------------------------------------------------------- NaN and infinity


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_sample_trains_on_and_the_check_names_step_and_layer(value, model):
    x = X.copy()
    x[3, 7] = value
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def train(*batches):
        for step, batch in enumerate(batches):
            loss = nn.CrossEntropyLoss()(model(batch), Y)
            optimizer.zero_grad()
            loss.backward()
            check_finite(loss, model, step, optimizer)
            optimizer.step()

    # Minus infinity may leave the loss finite (the class has probability 0), but not the weights.
    with pytest.raises(NonFiniteLossError, match=r"at step [12]") as caught:
        train(X, x, x)
    blamed = "data that enters" if "at step 1" in str(caught.value) else "not finite is"
    assert f"{blamed} {next(model.named_parameters())[0]}" in str(caught.value)


def test_the_other_samples_of_a_broken_batch_are_predicted_as_without_it(model):
    x = X.copy()
    x[0], x[39] = np.nan, np.inf
    out, clean = model.predict(x), model.predict(X)
    np.testing.assert_array_equal(out[1:39], clean[1:39])
    assert np.isnan(out[0]).any()


# ---------------------------------------------------------------- topologies

BIG = 2**62
BAD_TOPOLOGIES = {
    "an index too large": ((2, 3), [0, 1, 2], [0, 3], ValueError, "from 0 to n_in - 1 = 2; got 3"),
    "an index far too large": ((2, 3), [0, 1, 2], [0, 2**32], ValueError, "n_in - 1 = 2"),
    "a negative index": ((2, 3), [0, 1, 2], [-1, 0], ValueError, "got -1 at position 0"),
    "an unsigned index that would wrap": (
        (2, 3),
        [0, 1, 2],
        np.array([0, 2**64 - 1], np.uint64),
        ValueError,
        "n_in - 1 = 2",
    ),
    "an unsorted row": ((2, 3), [0, 2, 2], [2, 0], ValueError, "unsorted"),
    "a duplicate": ((2, 3), [0, 2, 2], [1, 1], ValueError, "duplicate"),
    "falling pointers": ((2, 3), [0, 2, 1], [0], ValueError, "never to fall"),
    "pointers that fall and rise": ((3, 3), [0, 2, 1, 3], [0, 1, 2], ValueError, "never to fall"),
    "pointers beyond the end": ((2, 3), [0, 1, 5], [0, 1], ValueError, r"len\(indices\) = 2"),
    "pointers that start late": ((2, 3), [1, 1, 2], [0, 1], ValueError, "run from 0"),
    "negative pointers": ((2, 3), [0, -1, 2], [0, 1], ValueError, "never to fall|expects indptr"),
    "huge pointers": ((2, 3), [0, BIG, 2], [0, 1], ValueError, "never to fall"),
    "too few pointers": ((2, 3), [0, 2], [0, 1], ValueError, "n_out . 1 = 3"),
    "no pointers": ((0, 3), [], [], ValueError, "n_out . 1 = 1"),
    "the shape of the transpose": ((3, 2), [0, 1, 2], [0, 2], ValueError, "n_out . 1 = 4"),
    "indices that are no integers": ((2, 3), [0, 1, 2], [0.0, 1.0], TypeError, "integer dtype"),
    "a mask": ((2, 3), [0, 1, 2], [True, False], TypeError, "integer dtype"),
    "two-dimensional indices": ((2, 3), [0, 1, 2], [[0, 1]], ValueError, "one-dimensional"),
    "a negative shape": ((-2, 3), [0], [], ValueError, "shape"),
    "a fractional shape": ((2.0, 3), [0, 0, 0], [], TypeError, "shape|integer"),
    "a shape of three": ((2, 3, 4), [0, 0, 0], [], (TypeError, ValueError), "shape"),
    "a shape beyond 64 bits": ((2**40, 2**40), [0], [], ValueError, "2\\*\\*63|shape"),
}


@pytest.mark.parametrize("name", BAD_TOPOLOGIES)
def test_a_bad_topology_is_refused(name):
    shape, indptr, indices, error, message = BAD_TOPOLOGIES[name]
    with pytest.raises(error, match=message):
        Topology(shape, indptr, indices)


def test_a_topology_of_another_layer_is_refused():
    with pytest.raises(ValueError, match=r"\(out, in\) = \(5, 12\); got \(12, 5\)"):
        nn.SparseLinear(12, 5, topology=Topology.full((12, 5)))


@pytest.mark.parametrize("value", [-0.01, 1.01, 95, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["sparsity", "density"])
def test_a_fraction_outside_0_to_1_is_refused_everywhere(name, value):
    for make in (
        lambda **k: nn.SparseLinear(12, 5, **k),
        lambda **k: Topology.random((5, 12), **k),
    ):
        with pytest.raises(ValueError, match=rf"{name}.*\[0, 1\]"):
            make(**{name: value})
    if name == "sparsity":
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            nn.mlp([12, 20, 5], sparsity=value)


def test_both_fractions_or_none_are_refused():
    for make in (
        lambda **k: nn.SparseLinear(12, 5, **k),
        lambda **k: Topology.random((5, 12), **k),
    ):
        with pytest.raises(TypeError, match="exactly one"):
            make(sparsity=0.5, density=0.5)
        with pytest.raises(TypeError, match="exactly one"):
            make()


# ---------------------------------------------------------------- adversarial, yet legal


def adversarial():
    """Yield (name, dense mask): legal patterns that concentrate the work where nobody expects it."""
    mask = np.zeros((200, 400), np.bool_)
    mask[:, 399] = True
    yield "all in the last column", mask
    mask = np.zeros((200, 400), np.bool_)
    mask[199] = True
    yield "all in the last row", mask
    mask = np.zeros((200, 400), np.bool_)
    mask[0] = mask[:, 0] = True
    yield "an arrow", mask
    yield "a diagonal", np.eye(300, dtype=np.bool_)
    yield "the other diagonal", np.eye(300, dtype=np.bool_)[::-1]
    yield "every 128th column", np.arange(600)[None, :] % 128 == np.zeros((150, 1))
    yield "every other row full", np.tile(np.arange(130)[:, None] % 2 == 0, 260)
    yield "a triangle", np.tri(180, 390, dtype=np.bool_)
    mask = np.zeros((130, 1030), np.bool_)
    mask[:, 1024:] = True
    yield "only the last incomplete slab", mask
    mask = np.zeros((257, 257), np.bool_)
    mask[256, 256] = True
    yield "one weight in the last corner", mask


ADVERSARIAL = dict(adversarial())


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_an_adversarial_topology_trains_like_the_dense_layer_with_its_zeros(name):
    mask = ADVERSARIAL[name]
    n_out, n_in = mask.shape
    layer = nn.SparseLinear(n_in, n_out, topology=Topology.from_dense(mask), rng=0)
    x = RNG.standard_normal((37, n_in)).astype(np.float32)
    d = RNG.standard_normal((37, n_out)).astype(np.float32)
    w = layer.weight.to_dense().astype(np.float64)
    inputs = tensor(x, requires_grad=True)
    out = layer(inputs)
    out.backward(d)
    close = {"rtol": 1e-4, "atol": 1e-3}
    np.testing.assert_allclose(out.numpy(), x @ w.T, **close)
    np.testing.assert_allclose(inputs.grad, d @ w, **close)
    gradient = layer.weight.canonical(layer.weight.grad)
    np.testing.assert_allclose(gradient, (d.T @ x)[mask], **close)


# ---------------------------------------------------------------- normalisation at the border


def test_a_batch_of_the_wrong_width_is_refused_by_a_first_layer_that_is_not_affine():
    model = nn.Sequential(BatchNorm1d(12), nn.Linear(12, 5, rng=0))
    with pytest.raises(ValueError, match=r"12"):
        model(X[:, :11])
    with pytest.raises(ValueError, match="empty batch"):
        model(X[:0])


# ---------------------------------------------------------------- what a hostile reader tried


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize(
    "layer", [nn.Linear(20, 30, rng=0), nn.SparseLinear(20, 30, density=1, rng=0)]
)
@pytest.mark.parametrize(
    "replace",
    [
        lambda a: a[:1].copy(),
        lambda a: a.astype(np.float64),
        lambda a: np.zeros((*a.shape, 2), a.dtype)[..., 0],
    ],
)
def test_a_parameters_array_that_was_replaced_by_another_is_refused(layer, name, replace):
    layer = copy.deepcopy(layer)
    parameter = getattr(layer, name)
    parameter.data = replace(parameter.data)
    with pytest.raises((ValueError, TypeError), match=r"expects|weights"):
        layer(np.ones((2, 20), np.float32))


def test_a_transposed_dense_weight_is_refused():
    layer = nn.Linear(20, 30, rng=0)
    layer.weight.data = np.ascontiguousarray(layer.weight.data.T)
    with pytest.raises(ValueError, match=r"weight.data of shape \(30, 20\)"):
        layer(np.ones((2, 20), np.float32))


def _coo(rows):
    matrix = sparse.coo_matrix(np.eye(3))
    matrix.row = np.array(rows, np.int32)
    return matrix


def _csr(field, values):
    matrix = sparse.csr_matrix(np.eye(3))
    setattr(matrix, field, np.array(values, np.int32))
    return matrix


@pytest.mark.parametrize(
    "matrix",
    [
        _coo([0, 1, 10**9]),
        _coo([0, 1, -1]),
        _csr("indptr", [0, 50, 2, 3]),
        _csr("indices", [0, 1, 99]),
        _csr("indices", [0, 1, -1]),
    ],
)
@pytest.mark.parametrize("make", [Topology.from_scipy, nn.SparseLinear.from_scipy])
def test_a_scipy_matrix_with_inconsistent_indices_is_refused(make, matrix):
    with pytest.raises(ValueError, match="the SciPy matrix is inconsistent"):
        make(matrix)


def test_a_complex_scipy_matrix_is_refused():
    with pytest.raises(TypeError, match="real numbers; got dtype complex128"):
        nn.SparseLinear.from_scipy(sparse.csr_matrix(np.eye(3) * 1j))


def test_backward_through_a_weight_that_has_moved_is_refused():
    layer = nn.SparseLinear(20, 30, sparsity=0.5, rng=0)
    out = layer(np.ones((2, 20), np.float32))
    layer.weight.move_to(Topology.random((30, 20), sparsity=0.5, rng=1))
    with pytest.raises(RuntimeError, match="moved to another topology after the forward pass"):
        out.backward(np.ones((2, 30)))


def test_a_tiled_tensor_whose_batch_does_not_fit_is_refused():
    tiled = Tensor(np.ones((1, 20, 16), np.float32), batch=50)
    with pytest.raises(ValueError, match="batch from 1 to n_tiles"):
        nn.Linear(20, 30, rng=0)(tiled)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Linear(40, 40, rng=0),
        lambda: nn.SparseLinear(40, 40, density=0.6, rng=0),
        lambda: nn.SparseLinear(40, 40, density=0.1, rng=0),
        lambda: nn.BatchNorm1d(40),
    ],
    ids=["dense", "quads", "runs", "batch norm"],
)
@pytest.mark.parametrize("change", [lambda a: a[:1].copy(), lambda a: np.repeat(a, 2)[::2]])
def test_an_array_replaced_between_forward_and_backward_is_refused(layer, change):
    model = layer()
    x = Tensor(np.ones((64, 40), np.float32), requires_grad=True)
    y = model(x)
    model.weight.data = change(model.weight.data)
    with pytest.raises(RuntimeError, match="was given another array"):
        y.backward(np.ones((64, 40), np.float32))


def test_an_activation_replaced_between_forward_and_backward_is_refused():
    model = nn.Sequential(nn.SparseLinear(20, 30, density=0.5, rng=0), nn.ReLU(), nn.Linear(30, 2))
    x = Tensor(np.ones((8, 20), np.float32), requires_grad=True)
    y = model(x)
    x.data = np.ones((1, 20), np.float32)
    with pytest.raises(RuntimeError, match="was given another array"):
        y.backward(np.ones((8, 2), np.float32))


def test_values_written_in_place_between_forward_and_backward_are_fine():
    model = nn.SparseLinear(20, 30, density=0.5, rng=0)
    y = model(np.ones((8, 20), np.float32))
    model.weight.data[...] = 0
    model.weight.data *= 2
    y.backward(np.ones((8, 30), np.float32))
    assert model.weight.grad is not None


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_a_refused_optimizer_step_has_changed_nothing(kind):
    model = nn.mlp([4, 3, 2], rng=0)
    optimizer = kind(model.parameters(), lr=0.1)
    model(np.ones((5, 4), np.float32)).sum().backward()
    params = list(model.parameters())
    before = [p.data.copy() for p in params]
    for wrong, error in ((params[2].grad[:1].copy(), ValueError), (1.0, TypeError)):
        params[2].grad = wrong
        with pytest.raises(error, match="parameter 2"):
            optimizer.step()
        for p, wanted in zip(params, before, strict=True):
            np.testing.assert_array_equal(p.data, wanted)


@pytest.mark.parametrize("name", ["weight", "running_mean", "running_var"])
@pytest.mark.parametrize("training", [False, True])
def test_a_replaced_array_of_batch_norm_is_refused(name, training):
    model = nn.BatchNorm1d(50)
    model.train(training)
    if name == "weight":
        model.weight.data = np.ones(1, np.float32)
    else:
        setattr(model, name, np.ones(1, np.float32))
    with pytest.raises(ValueError, match="of shape \\(50,\\)"):
        model(np.ones((2, 50), np.float32))


def test_a_compiled_file_with_a_damaged_directory_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    compile_model(nn.mlp([20, 10, 3], sparsity=0.5, rng=0)).save(path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 6] ^= 255
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(path)
