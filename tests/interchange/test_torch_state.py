"""`from_torch` of state dicts: plain mappings of arrays, in which torch need not exist."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import nnsparse as ns
from nnsparse import nn

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4)).astype(np.float32)


def w(n_out, n_in, dtype=np.float32):
    return RNG.standard_normal((n_out, n_in)).astype(dtype)


def affine(name, n_out, n_in):
    return {f"{name}.weight": w(n_out, n_in), f"{name}.bias": w(1, n_out)[0]}


def norm(name, n):
    parts = {"weight": w(1, n)[0], "bias": w(1, n)[0], "running_mean": w(1, n)[0]}
    parts |= {"running_var": w(1, n)[0] ** 2, "num_batches_tracked": np.array(3)}
    return {f"{name}.{part}": array for part, array in parts.items()}


def kinds(model):
    return [type(layer).__name__ for layer in model]


RELUS = ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
ORDERS = {
    "a Sequential": (("0", "2", "4"), ("0", "2", "4")),
    "a Sequential with Dropout": (("0", "3", "6"), ("0", "3", "6")),
    "a part of a module": (("net.0", "net.2", "net.4"), ("net.0", "net.2", "net.4")),
    "sorted by name, as safetensors may be": (("0", "12", "2"), ("0", "2", "12")),
    "names with numbers, sorted": (("fc1", "fc10", "fc2"), ("fc1", "fc2", "fc10")),
    "nested": (("0.0", "1.0.2", "1.3"), ("0.0", "1.0.2", "1.3")),
    "names": (("encoder", "body", "head"), ("encoder", "body", "head")),
    "blocks": (("a.0.fc", "a.10.fc", "a.9.fc"), ("a.0.fc", "a.9.fc", "a.10.fc")),
    "under torch.compile": (("_orig_mod.0", "_orig_mod.2", "_orig_mod.5"),) * 2,
}


@pytest.mark.parametrize("name", ORDERS)
def test_names_tell_the_order_and_relus_stand_between(name):
    given, order = ORDERS[name]
    sizes = {layer: (3 + i, 4 if i == 0 else 2 + i) for i, layer in enumerate(order)}
    state = {key: value for layer in given for key, value in affine(layer, *sizes[layer]).items()}
    model = ns.from_torch(state)
    assert kinds(model) == RELUS
    x = X
    for layer in order:
        x = x if layer == order[0] else np.maximum(x, 0)
        x = x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
    np.testing.assert_allclose(model.predict(X), x, rtol=1e-4, atol=1e-4)


def test_the_place_of_a_relu_beside_batch_norm_is_where_numbers_leave_room():
    before = affine("0", 3, 4) | norm("1", 3) | affine("3", 2, 3)
    assert kinds(ns.from_torch(before)) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    behind = affine("0", 3, 4) | norm("2", 3) | affine("3", 2, 3)
    assert kinds(ns.from_torch(behind)) == ["Linear", "ReLU", "BatchNorm1d", "Linear"]
    ends = norm("0", 4) | affine("1", 3, 4) | norm("2", 3)
    assert kinds(ns.from_torch(ends)) == ["BatchNorm1d", "Linear", "BatchNorm1d"]


def test_layers_tell_order_and_activations():
    state = affine("out", 2, 3) | affine("first", 3, 4) | norm("bn", 3)
    told = ["first", nn.Tanh(), "bn", nn.LeakyReLU(0.2), "out", nn.Sigmoid]
    model = ns.from_torch(state, layers=told)
    want = ["Linear", "Tanh", "BatchNorm1d", "LeakyReLU", "Linear", "Sigmoid"]
    assert kinds(model) == want
    assert kinds(ns.from_torch(affine("0", 3, 4) | affine("1", 2, 3), layers=["0", "1"])) == [
        "Linear",
        "Linear",
    ]


def test_batch_norm_takes_its_arrays():
    state = affine("0", 3, 4) | norm("1", 3)
    layer = ns.from_torch(state)[1]
    for what in ("weight", "bias"):
        np.testing.assert_array_equal(getattr(layer, what).data, state[f"1.{what}"])
    for what in ("running_mean", "running_var"):
        np.testing.assert_array_equal(getattr(layer, what), state[f"1.{what}"])
    for what in ("weight", "bias", "num_batches_tracked"):
        del state[f"1.{what}"]
    assert ns.from_torch(state)[1].weight is None


MASKED = {
    "prune": ("weight_orig", "weight_mask"),
    "fake sparsity": ("parametrizations.weight.original", "parametrizations.weight.0.mask"),
}


@pytest.mark.parametrize("kind", [np.float32, np.bool_, np.int64])
@pytest.mark.parametrize("name", MASKED)
def test_masks_are_the_topology(name, kind):
    original, mask = w(3, 4), RNG.random((3, 4)) < 0.5
    original[mask.nonzero()[0][0], mask.nonzero()[1][0]] = 0  # stays a weight
    state = {f"0.{MASKED[name][0]}": original, f"0.{MASKED[name][1]}": mask.astype(kind)}
    layer = ns.from_torch(state)[0]
    np.testing.assert_array_equal(layer.weight.topology.to_dense(), mask)
    np.testing.assert_array_equal(layer.to_scipy().toarray(), original * mask)
    assert layer.bias is None


def test_a_mask_that_scales_is_multiplied_in_and_one_of_the_bias_too():
    mask = np.array([[0.5, 0, 1, 2]] * 3)
    state = {"weight_orig": w(3, 4), "weight_mask": mask}
    state |= {"bias_orig": np.ones(3, np.float32), "bias_mask": np.array([1, 0, 1])}
    layer = ns.from_torch(state)[0]
    want = state["weight_orig"] * mask.astype(np.float32)
    np.testing.assert_array_equal(layer.to_scipy().toarray(), want)
    np.testing.assert_array_equal(layer.bias.data, [1, 0, 1])


def test_sparse_matrices_and_lists_are_weights_too():
    made = sparse.random_array((3, 4), density=0.5, rng=0, format="coo", dtype=np.float32)
    state = {"0.weight": made, "2.weight": [[1.0, 2, 3]], "2.bias": [0.5]}
    model = ns.from_torch(state)
    np.testing.assert_array_equal(model[0].to_scipy().toarray(), made.toarray())
    assert model.dtype == np.float64  # the lists are
    assert isinstance(model[2], nn.Linear)


def test_half_precision_becomes_float32_and_mixed_precision_the_wider_one():
    state = {"0.weight": w(3, 4, np.float16), "2.weight": w(2, 3, np.float32)}
    assert ns.from_torch(state).dtype == np.float32
    state["2.weight"] = w(2, 3, np.float64)
    model = ns.from_torch(state)
    assert [layer.dtype for layer in (model[0], model[2])] == [np.float64] * 2
    np.testing.assert_array_equal(model[0].weight.data, state["0.weight"])


def test_bfloat16_arrays_become_float32_exactly():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    state = {"weight": w(3, 4).astype(ml_dtypes.bfloat16)}
    model = ns.from_torch(state)
    np.testing.assert_array_equal(model[0].weight.data, state["weight"].astype(np.float32))


def test_the_caller_chooses_which_layers_are_sparse():
    state = affine("fc1", 3, 4) | affine("fc2", 2, 3)
    model = ns.from_torch(state, sparse=["fc2"])
    assert kinds(model) == ["Linear", "ReLU", "SparseLinear"]


def test_what_is_made_shares_no_memory_with_the_arrays():
    state = affine("0", 3, 4)
    before = ns.from_torch(state)
    out = before.predict(X)
    state["0.weight"][:], state["0.bias"][:] = 0, 0
    np.testing.assert_array_equal(before.predict(X), out)


def test_a_state_dict_is_read_where_torch_does_not_exist(tmp_path):
    program = """
import sys
sys.modules["torch"] = None  # an import of it fails
import numpy as np
import nnsparse as ns
model = ns.from_torch({"0.weight": np.eye(3, dtype="f"), "2.weight": np.ones((2, 3), "f")})
assert [type(layer).__name__ for layer in model] == ["SparseLinear", "ReLU", "Linear"]
try:
    ns.to_torch(model)
except ImportError as error:
    assert str(error) == "to_torch needs torch: pip install 'nnsparse[torch]'", error
else:
    raise AssertionError("there is no torch")
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_state_dict_of_a_pruned_torch_network():
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    prune.l1_unstructured(module[0], "weight", 0.5)
    model = ns.from_torch(module.state_dict())
    assert kinds(model) == ["SparseLinear", "ReLU", "Linear"]
    with torch.no_grad():
        want = module(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(model.predict(X), want, atol=1e-6)


def test_quantized_tensors_are_refused_with_the_way_out():
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has other plans for them
        weight = torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match=r"weight of layer '0': got a quantized.*dequantize\(\)"):
        ns.from_torch({"0.weight": weight})


# ---------------------------------------------------------------- refusals

A, B = w(3, 4), w(2, 3)
BAD_STATES = {
    "a path": ("model.pt", {}, TypeError, r"got str. A file\? Pass torch.load\(path"),
    "a list": ([A], {}, TypeError, "a torch.nn.Module or a state dict; got list"),
    "nothing": ({}, {}, ValueError, "at least one layer with weights; got none"),
    "a checkpoint": (
        {"epoch": {}, "model": {}},
        {},
        TypeError,
        r"'epoch' is itself a mapping: a checkpoint\? Pass checkpoint\['epoch'\]",
    ),
    "keys that are no names": ({0: A}, {}, TypeError, "names as the keys of a state dict; got 0"),
    "an entry that is no weight": (
        {"0.weight": A, "0.alpha": A},
        {},
        ValueError,
        "cannot use '0.alpha': expected weight, bias.*Leave it out if the network works without",
    ),
    "weight normalisation": (
        {"0.weight_g": A, "0.weight_v": A},
        {},
        ValueError,
        "cannot use '0.weight_g'.*Remove the normalisation",
    ),
    "weight normalisation, parametrized": (
        {"0.parametrizations.weight.original0": A},
        {},
        ValueError,
        "cannot use '0.parametrizations.weight.original0'.*Remove the normalisation",
    ),
    "a bias alone": ({"0.bias": A[0]}, {}, ValueError, r"expects weight, or weight_orig with"),
    "a weight without its mask": (
        {"0.weight_orig": A},
        {},
        ValueError,
        "weight_orig with weight_m",
    ),
    "a mask without its weight": (
        {"0.weight_mask": A},
        {},
        ValueError,
        "weight_orig with weight_m",
    ),
    "a weight and a mask": (
        {"0.weight": A, "0.weight_mask": A},
        {},
        ValueError,
        r"layer '0' expects weight, or weight_orig with weight_mask; got \['weight', 'weight_mask'\]",
    ),
    "a bias mask without bias": (
        {"0.weight": A, "0.bias_mask": A[0]},
        {},
        ValueError,
        "layer '0' expects bias_orig with bias_mask",
    ),
    "a mask of another shape": (
        {"0.weight_orig": A, "0.weight_mask": A.T},
        {},
        ValueError,
        r"mask of weight of layer '0': expected shape \(3, 4\); got \(4, 3\)",
    ),
    "a sparse mask": (
        {"0.weight_orig": A, "0.weight_mask": sparse.eye(3, 4, format="csr")},
        {},
        TypeError,
        "mask of weight of layer '0': expected a dense array; got a sparse one",
    ),
    "a mask on a sparse weight": (
        {"0.weight_orig": sparse.csr_matrix(A), "0.weight_mask": A},
        {},
        TypeError,
        "weight of layer '0': a sparse matrix with a mask; multiply them first",
    ),
    "a convolution": (
        {"0.weight": np.ones((2, 3, 5, 5))},
        {},
        ValueError,
        r"weight of layer '0': expected a matrix .*got shape \(2, 3, 5, 5\). Convolutions",
    ),
    "no inputs": ({"0.weight": A[:, :0]}, {}, ValueError, r"got shape \(3, 0\)"),
    "integers": (
        {"0.weight": np.ones((3, 4), np.int8)},
        {},
        TypeError,
        "weight of layer '0': expected floating-point numbers .*got int8. Quantized",
    ),
    "long doubles": (
        {"0.weight": A.astype(np.longdouble)},
        {},
        TypeError,
        "weight of layer '0': expected floating-point numbers",
    ),
    "text": ({"0.weight": "A"}, {}, TypeError, "expected floating-point numbers .*got str"),
    "nothing for a weight": ({"0.weight": None}, {}, TypeError, "expected floating-point.*object"),
    "a short bias": (
        {"0.weight": A, "0.bias": A[0]},
        {},
        ValueError,
        r"bias of layer '0': expected shape \(3,\); got \(4,\)",
    ),
    "sizes that do not fit": (
        {"0.weight": A, "2.weight": A},
        {},
        ValueError,
        "layer '2' takes 4 features, but layer '0' before it gives 3. Is this their order",
    ),
    "no room for an activation": (
        {"0.weight": A, "1.weight": B},
        {},
        ValueError,
        r"stands where between '0', '1'.*Pass layers=\[\"0\", nn.ReLU\(\), \"1\"\]",
    ),
    "batch norm between names": (
        {"fc1.weight": A} | norm("bn", 3) | {"fc2.weight": B},
        {},
        ValueError,
        "cannot tell which activation stands where between 'fc1', 'bn', 'fc2'",
    ),
    "room on both sides of batch norm": (
        {"0.weight": A} | norm("2", 3) | {"4.weight": B},
        {},
        ValueError,
        "between '0', '2', '4'",
    ),
    "room before batch norm at the end": (
        {"0.weight": A} | norm("2", 3),
        {},
        ValueError,
        "between '0', '2'",
    ),
    "room behind batch norm at the beginning": (
        norm("0", 4) | {"2.weight": A},
        {},
        ValueError,
        "between '0', '2'",
    ),
    "names in alphabetical order": (
        {"enter.bias": A[:, 0], "enter.weight": A, "body.bias": B[:, 0], "body.weight": B},
        {},
        ValueError,
        r"cannot tell the order.*bias stands before weight in 'enter'.*Pass layers=\[\"enter\"",
    ),
    "half a batch norm": (
        {"0.weight": A, "1.running_mean": A[:, 0], "1.weight": A[:, 0]},
        {},
        ValueError,
        r"layer '1' expects running_mean and running_var.*got \['running_mean', 'weight'\]",
    ),
    "a batch norm of images": (
        {"0.running_mean": A, "0.running_var": A},
        {},
        ValueError,
        r"running_mean of layer '0': expected shape \(n,\); got \(3, 4\)",
    ),
    "a batch norm of two sizes": (
        {"0.running_mean": A[0], "0.running_var": A[:, 0]},
        {},
        ValueError,
        r"running_var of layer '0': expected shape \(4,\); got \(3,\)",
    ),
    "layers in one string": (
        {"0.weight": A},
        {"layers": "0"},
        TypeError,
        "layers as a list of names and activations; got '0'",
    ),
    "an unknown name in layers": (
        {"0.weight": A},
        {"layers": ["0", "2"]},
        ValueError,
        r"layers names '2'; the state dict has \['0'\]",
    ),
    "a name left out of layers": (
        {"0.weight": A, "2.weight": B},
        {"layers": ["0", nn.ReLU()]},
        ValueError,
        r"layers leaves out \['2'\]. Take them out of the mapping",
    ),
    "a function in layers": (
        {"0.weight": A},
        {"layers": ["0", np.tanh]},
        TypeError,
        "names and nnsparse modules without parameters, such as nn.ReLU",
    ),
    "a layer with weights in layers": (
        {"0.weight": A},
        {"layers": ["0", nn.Linear(3, 2)]},
        TypeError,
        "modules without parameters",
    ),
    "nothing with weights in layers": (
        {"0.weight": A},
        {"layers": []},
        ValueError,
        r"layers leaves out \['0'\]",
    ),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_bad_state_dicts_are_refused(name):
    source, arguments, error, message = BAD_STATES[name]
    with pytest.raises(error, match=message):
        ns.from_torch(source, **arguments)
