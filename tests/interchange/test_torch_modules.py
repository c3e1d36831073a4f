"""`from_torch` of modules: the same numbers as torch computes, and errors for what has no counterpart."""

import warnings

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import nn

torch = pytest.importorskip("torch")
from torch.nn.utils import parametrize, prune  # noqa: E402

T = torch.nn
X = np.random.default_rng(0).standard_normal((9, 12)).astype(np.float32)


def outputs(module, x=X):
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def assert_same(module, x=X, tolerance=2e-6, **arguments):
    """Convert in evaluation mode; the outputs are those of torch to rounding. Return the network."""
    model = ns.from_torch(module.eval(), **arguments)
    expected = outputs(module, x)
    np.testing.assert_allclose(
        model.predict(x), expected, atol=tolerance * np.abs(expected).max(), rtol=0
    )
    return model


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


ACTIVATIONS = {
    "ReLU": T.ReLU,
    "ReLU in place": lambda: T.ReLU(inplace=True),
    "LeakyReLU": lambda: T.LeakyReLU(0.3),
    "Tanh": T.Tanh,
    "Sigmoid": T.Sigmoid,
    "GELU": T.GELU,
    "Dropout": lambda: T.Dropout(0.4),
    "Identity": T.Identity,
    "Flatten": T.Flatten,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_torch(name):
    assert_same(T.Sequential(T.Linear(12, 7), ACTIVATIONS[name](), T.Linear(7, 3)))


def test_weights_keep_their_bits_and_are_copies():
    module = T.Sequential(T.Linear(12, 7), T.ReLU(), T.Linear(7, 3, bias=False))
    model = ns.from_torch(module)
    np.testing.assert_array_equal(model[0].weight.data, module[0].weight.detach().numpy())
    np.testing.assert_array_equal(model[0].bias.data, module[0].bias.detach().numpy())
    assert model[2].bias is None
    model[0].weight.data[...] = 0
    assert outputs(module).any()


def test_float64_stays_and_smaller_types_become_float32_exactly():
    x = X.astype(np.float64)
    assert assert_same(T.Linear(12, 3).double(), x, 1e-14).dtype == np.float64
    for kind in (torch.float16, torch.bfloat16):
        module = T.Linear(12, 3).to(kind)
        model = ns.from_torch(module)
        assert model.dtype == np.float32
        np.testing.assert_array_equal(model[0].weight.data, module.weight.detach().float().numpy())


def test_nested_sequentials_are_laid_flat():
    inner = T.Sequential(T.Linear(7, 5), T.Tanh())
    model = assert_same(
        T.Sequential(T.Linear(12, 7), T.Sequential(T.ReLU(), inner), T.Linear(5, 2))
    )
    kinds = [nn.Linear, nn.ReLU, nn.Linear, nn.Tanh, nn.Linear]
    assert [type(layer) for layer in model] == kinds


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_keeps_statistics_and_settings(affine):
    module = T.Sequential(T.Linear(12, 7), T.BatchNorm1d(7, eps=1e-3, momentum=0.3, affine=affine))
    for _ in range(3):
        module(torch.randn(20, 12) * 3 + 1)
    model = assert_same(module, tolerance=5e-6)
    norm = model[1]
    np.testing.assert_array_equal(norm.running_mean, module[1].running_mean.numpy())
    np.testing.assert_array_equal(norm.running_var, module[1].running_var.numpy())
    assert (norm.eps, norm.momentum) == (1e-3, 0.3)
    module.train(), model.train()
    batch = X * 2 + 1
    outputs(module, batch), model(batch)
    np.testing.assert_allclose(norm.running_mean, module[1].running_mean.numpy(), rtol=1e-4)
    np.testing.assert_allclose(norm.running_var, module[1].running_var.numpy(), rtol=1e-4)


def test_the_mode_is_taken_over():
    module = T.Sequential(T.Linear(12, 3), T.Dropout(0.5))
    assert ns.from_torch(module).training
    assert not ns.from_torch(module.eval()).training


def test_dropout_draws_its_masks_from_the_given_generator():
    module = T.Sequential(T.Linear(12, 300), T.Dropout(0.5))
    first, second = (ns.from_torch(module, rng=3)(X).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0.4 < np.mean(first == 0) < 0.6


def test_a_layer_in_two_places_is_one_layer():
    shared = T.Linear(12, 12)
    model = assert_same(T.Sequential(shared, T.Tanh(), shared))
    assert model[0] is model[2]
    assert len(list(model.parameters())) == 2


def test_two_layers_that_share_a_weight_are_refused():
    first, second = T.Linear(12, 12), T.Linear(12, 12)
    second.weight = first.weight
    with pytest.raises(ValueError, match=r"layer '2' \(Linear\) shares a parameter with layer '0'"):
        ns.from_torch(T.Sequential(first, T.Tanh(), second))


def test_a_subclass_that_keeps_the_forward_method_is_taken():
    class Network(T.Sequential):
        def __init__(self):
            super().__init__(T.Linear(12, 4), T.ReLU())

    assert_same(Network())


# ---------------------------------------------------------------- pruning


def pruned(sparsity=0.75):
    module = T.Sequential(T.Linear(12, 8), T.ReLU(), T.Linear(8, 3))
    prune.l1_unstructured(module[0], "weight", sparsity)
    return module


def test_a_pruned_layer_becomes_sparse_with_the_topology_of_its_mask():
    module = pruned()
    with torch.no_grad():
        kept = module[0].weight_mask.nonzero()[0]
        module[0].weight_orig[tuple(kept)] = 0.0  # a weight that happens to be zero stays one
    outputs(module)
    model = assert_same(module)
    assert isinstance(model[0], nn.SparseLinear)
    assert isinstance(model[2], nn.Linear)
    mask = module[0].weight_mask.numpy() != 0
    np.testing.assert_array_equal(model[0].weight.topology.to_dense(), mask)
    want = module[0].weight.detach().numpy()
    np.testing.assert_array_equal(model[0].to_scipy().toarray(), want)


def test_a_mask_counts_whatever_lies_under_it():
    module = pruned()
    with torch.no_grad():
        module[0].weight_orig[module[0].weight_mask == 0] = float("inf")
    model = ns.from_torch(module)
    assert model[0].nnz == 24
    assert np.isfinite(model[0].weight.data).all()


def test_weights_changed_since_the_last_forward_pass_are_the_ones_taken():
    module = pruned()
    with torch.no_grad():
        module[0].weight_orig.mul_(2)  # module[0].weight is stale now
    model = ns.from_torch(module)
    np.testing.assert_allclose(model.predict(X), outputs(module), rtol=1e-5, atol=1e-5)


def test_a_mask_of_the_bias_is_multiplied_in():
    module = pruned()
    prune.random_unstructured(module[0], "bias", 0.5)
    model = assert_same(module)
    assert np.count_nonzero(model[0].bias.data) == 4


def test_structured_and_repeated_pruning_are_masks_too():
    module = T.Linear(12, 8)
    prune.ln_structured(module, "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(module, "weight", 0.5)
    assert assert_same(module)[0].nnz == 24


def test_pruning_made_permanent_leaves_zeros_which_choose_a_sparse_layer():
    module = pruned()
    prune.remove(module[0], "weight")
    assert assert_same(module)[0].nnz == 24


def test_the_mask_of_fake_sparsity_is_the_topology():
    from torch.ao.pruning.sparsifier.utils import FakeSparsity

    layer, mask = T.Linear(12, 8), (torch.rand(8, 12) < 0.9).float()
    with torch.no_grad():
        layer.weight[0] = 0
    parametrize.register_parametrization(layer, "weight", FakeSparsity(mask))
    model = assert_same(layer)
    np.testing.assert_array_equal(model[0].weight.topology.to_dense(), mask.numpy() != 0)


def test_another_parametrization_gives_the_weight_that_it_computes():
    class Lower(T.Module):
        def forward(self, weight):
            return weight.tril()

    layer = T.Linear(12, 12)
    parametrize.register_parametrization(layer, "weight", Lower())
    assert assert_same(layer)[0].nnz == 78


# ---------------------------------------------------------------- sparse or dense


def zeroed(density):
    """Return a layer of 10 x 10 with that share of weights."""
    layer = T.Linear(10, 10)
    with torch.no_grad():
        layer.weight.view(-1)[round(density * 100) :] = 0
    return T.Sequential(layer, T.ReLU(), T.Linear(10, 2))


@pytest.mark.parametrize(
    ("density", "arguments", "is_sparse"),
    [
        (0.8, {}, True),
        (0.81, {}, False),
        (0.3, {"max_density": 0.2}, False),
        (0.2, {"max_density": 0.2}, True),
        (0.1, {"sparse": False}, False),
        (0.9, {"sparse": True}, True),
        (0.9, {"sparse": ["0"]}, True),
        (0.1, {"sparse": ["2"]}, False),
        (0.1, {"sparse": ()}, False),
        (0.0, {}, True),
    ],
)
def test_density_or_the_caller_chooses_which_layers_are_sparse(density, arguments, is_sparse):
    x = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
    model = assert_same(zeroed(density), x, **arguments)
    assert isinstance(model[0], nn.SparseLinear) == is_sparse
    assert isinstance(model[2], nn.SparseLinear) == (arguments.get("sparse") in (True, ["2"]))
    if is_sparse:
        assert model[0].nnz == round(density * 100)


def test_a_pruned_layer_can_be_made_dense():
    assert isinstance(assert_same(pruned(), sparse=False)[0], nn.Linear)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr"])
def test_sparse_tensors_keep_their_layout(layout):
    dense = torch.zeros(8, 12)
    dense[::4, ::6] = torch.randn(2, 2)
    module = T.Linear(12, 8)
    arguments = ((2, 3),) if layout == "bsr" else ()
    with torch.sparse.check_sparse_tensor_invariants(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "in beta state"
        module.weight = T.Parameter(getattr(dense, f"to_sparse_{layout}")(*arguments))
    model = ns.from_torch(module)
    assert isinstance(model[0], nn.SparseLinear)
    np.testing.assert_array_equal(model[0].to_scipy().toarray(), dense.numpy())
    assert model[0].nnz == (24 if layout == "bsr" else 4)


# ---------------------------------------------------------------- embeddings

TOKENS = np.array([[3, 5, 0, 2], [7, 0, 0, 0], [1, 1, 2, 9]])


def token_outputs(module):
    with torch.no_grad():
        return module(torch.from_numpy(TOKENS)).numpy()


@pytest.mark.parametrize("mode", ["mean", "sum"])
@pytest.mark.parametrize("padding", [None, 0])
def test_bags_of_embeddings(mode, padding):
    bag = T.EmbeddingBag(10, 4, mode=mode, padding_idx=padding)
    module = T.Sequential(bag, T.Linear(4, 2)).eval()
    model = ns.from_torch(module)
    np.testing.assert_allclose(model.predict(TOKENS), token_outputs(module), atol=1e-6)


@pytest.mark.parametrize("padding", [None, 0])
def test_embeddings_that_are_flattened(padding):
    table = T.Embedding(10, 4, padding_idx=padding)
    module = T.Sequential(table, T.Dropout(0.1), T.Flatten(), T.Linear(16, 2)).eval()
    model = ns.from_torch(module)
    np.testing.assert_allclose(model.predict(TOKENS), token_outputs(module), atol=1e-6)


# ---------------------------------------------------------------- refusals


class Custom(T.Module):
    def __init__(self):
        super().__init__()
        self.net = T.Sequential(T.Linear(3, 3))

    def forward(self, x):
        return self.net(x) + 1


class Shifted(T.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def filled_padding():
    table = T.Embedding(5, 2, padding_idx=1)
    with torch.no_grad():
        table.weight[1] = 3.0
    return T.Sequential(table, T.Flatten())


def spectral():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return T.utils.spectral_norm(T.Linear(3, 3))


def weight_normed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return T.utils.weight_norm(T.Linear(3, 3))


def with_weight(weight):
    layer = T.Linear(3, 3)
    layer.weight = T.Parameter(weight, requires_grad=False)
    return layer


REFUSED = {
    "a convolution": (
        lambda: T.Sequential(T.Conv2d(1, 2, 3), T.Flatten(), T.Linear(8, 2)),
        TypeError,
        r"cannot take layer '0' \(Conv2d\). A convolution has no counterpart; convert the layers behind",
    ),
    "softmax": (
        lambda: T.Sequential(T.Linear(3, 3), T.Sequential(T.Softmax(dim=1))),
        TypeError,
        r"cannot take layer '1.0' \(Softmax\). Leave it out: CrossEntropyLoss",
    ),
    "an activation that is not here": (
        lambda: T.Sequential(T.Linear(3, 3), T.SiLU()),
        TypeError,
        r"cannot take layer '1' \(SiLU\). Replace it.*Taken are Sequential, Linear",
    ),
    "a list of modules": (
        lambda: T.ModuleList([T.Linear(3, 3)]),
        TypeError,
        r"cannot take ModuleList. It has no order.*torch.nn.Sequential\(\*modules\)",
    ),
    "a lazy layer": (lambda: T.LazyLinear(3), TypeError, "LazyLinear. Run one batch"),
    "a module of one's own": (
        Custom,
        TypeError,
        "cannot see what the forward method of Custom does. If that is all that it runs, pass its part 'net'.*layers=",
    ),
    "a subclass with another forward": (
        lambda: T.Sequential(Shifted(3, 3)),
        TypeError,
        r"the forward method of layer '0' \(Shifted\) does. Pass a torch.nn.Sequential",
    ),
    "the approximate GELU": (
        lambda: T.Sequential(T.Linear(3, 3), T.GELU(approximate="tanh")),
        ValueError,
        r"layer '1' \(GELU\) has approximate='tanh'; ours is the exact GELU",
    ),
    "dropping everything": (
        lambda: T.Sequential(T.Linear(3, 3), T.Dropout(1.0)),
        ValueError,
        r"layer '1' \(Dropout\) has p = 1",
    ),
    "flattening the batch": (
        lambda: T.Sequential(T.Flatten(0), T.Linear(3, 3)),
        ValueError,
        r"layer '0' \(Flatten\) has start_dim=0.*expected 1 and -1",
    ),
    "batch norm without statistics": (
        lambda: T.Sequential(T.Linear(3, 3), T.BatchNorm1d(3, track_running_stats=False)),
        ValueError,
        r"layer '1' \(BatchNorm1d\) expects track_running_stats=True",
    ),
    "batch norm with cumulative statistics": (
        lambda: T.Sequential(T.Linear(3, 3), T.BatchNorm1d(3, momentum=None)),
        ValueError,
        "a momentum that is a number",
    ),
    "the maximum of a bag": (
        lambda: T.Sequential(T.EmbeddingBag(5, 3, mode="max")),
        ValueError,
        "mode 'max'; expected 'mean' or 'sum'",
    ),
    "embeddings that are renormalised": (
        lambda: T.Sequential(T.EmbeddingBag(5, 3, max_norm=1.0)),
        ValueError,
        "has max_norm, which has no counterpart",
    ),
    "a layer on each token": (
        lambda: T.Sequential(T.Embedding(5, 3), T.Linear(3, 3)),
        ValueError,
        r"layer '1' \(Linear\) acts on each token of layer '0' \(Embedding\).*Flatten",
    ),
    "an embedding at the end": (
        lambda: T.Sequential(T.Embedding(5, 3)),
        ValueError,
        r"layer '0' \(Embedding\) needs a torch.nn.Flatten\(\) behind it",
    ),
    "padding that is not zero": (filled_padding, ValueError, "other than zero for its padding_idx"),
    "spectral normalisation": (spectral, ValueError, "no weight_mask.*remove_spectral_norm"),
    "weight normalisation": (weight_normed, ValueError, "remove_weight_norm"),
    "sizes that do not fit": (
        lambda: T.Sequential(T.Linear(3, 4), T.ReLU(), T.Linear(3, 2)),
        ValueError,
        "layer '2' takes 3 features, but layer '0' before it gives 4",
    ),
    "nothing with weights": (
        lambda: T.Sequential(T.ReLU()),
        ValueError,
        "at least one layer with weights; got none",
    ),
    "the meta device": (
        lambda: T.Sequential(T.Linear(3, 3, device="meta")),
        ValueError,
        "weight of layer '0'.*meta device has no numbers",
    ),
    "complex weights": (
        lambda: T.Linear(3, 3, dtype=torch.complex64),
        TypeError,
        "weight of Linear: expected floating-point numbers.*got complex64",
    ),
    "integer weights": (
        lambda: with_weight(torch.ones(3, 3, dtype=torch.int8)),
        TypeError,
        "got int8. Quantized\\? Dequantize first",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(name):
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ns.from_torch(make())


BAD_ARGUMENTS = {
    "an unknown layer": (
        {"sparse": ["0", "fc1"]},
        ValueError,
        r"sparse names \['fc1'\]; the affine layers are \['0', '2'\]",
    ),
    "a layer without weights": ({"sparse": ["1"]}, ValueError, r"sparse names \['1'\]"),
    "one name": ({"sparse": "0"}, TypeError, "True, False, None or names of layers; got '0'"),
    "a number": ({"sparse": 0.9}, TypeError, "True, False, None or names of layers; got 0.9"),
    "a density above one": ({"max_density": 1.5}, ValueError, r"max_density in \[0, 1\]; got 1.5"),
    "a density that is text": ({"max_density": "x"}, TypeError, "max_density as a number; got 'x'"),
    "a bool as density": ({"max_density": True}, TypeError, "max_density as a number; got True"),
    "layers of a module": ({"layers": ["0"]}, TypeError, "layers for a state dict only"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused(name):
    arguments, error, message = BAD_ARGUMENTS[name]
    with pytest.raises(error, match=message):
        ns.from_torch(T.Sequential(T.Linear(4, 4), T.ReLU(), T.Linear(4, 2)), **arguments)
