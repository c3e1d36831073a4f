"""Inference of the challenge: every variant finds what a plain SciPy float64 run of the rule finds."""

import numpy as np
import pytest
from scipy import sparse

from nnsparse import datasets, jit
from nnsparse.graph_challenge import Layer, Network, challenge_images, inference, network
from nnsparse.graph_challenge._filtered import DEPTH
from nnsparse.graph_challenge.inference import VARIANTS, run

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def reference(net, images):
    """Return categories, the live images after each layer, and multiplications of values that are not 0."""
    y = sparse.csr_array(images, dtype=np.float64)
    rows, work = [], 0
    for indptr, indices, values in net:
        w = sparse.csr_array(
            (values.astype(np.float64), indices, indptr), shape=(net.n_neurons,) * 2
        )
        y.eliminate_zeros()
        work += int(np.bincount(w.indices, minlength=net.n_neurons)[y.indices].sum())
        y = sparse.csr_array(y @ w.T)
        y.data[y.data != 0] += net.bias
        y.data = np.clip(y.data, 0, 32)
        y.eliminate_zeros()
        rows.append(int((np.diff(y.indptr) > 0).sum()))
    return np.flatnonzero(np.diff(y.indptr)), rows, work


def network_of(layers, n, bias):
    return Network(
        n, len(layers), bias, lambda: iter(layers), lambda: sum(w[1].size for w in layers)
    )


def random_network(n, n_layers, density, bias, seed=0, signed=True):
    """Weights are multiples of 1/16, so that few layers of float32 are exact."""
    rng = np.random.default_rng([seed, n])
    layers = []
    for _ in range(n_layers):
        dense = rng.integers(-6 if signed else 1, 9, (n, n)) / 16
        dense[rng.random((n, n)) >= density] = 0
        w = sparse.csr_array(dense.astype(np.float32))
        layers.append(Layer(w.indptr.astype(np.int64), w.indices.astype(np.int32), w.data))
    return network_of(layers, n, bias)


def random_images(count, n, density=0.2, seed=1):
    rng = np.random.default_rng([seed, n])
    return sparse.random_array((count, n), density=density, rng=rng, dtype=np.float32).tocsr()


def ones(count, n, density=0.2):
    images = random_images(count, n, density)
    images.data[:] = 1
    return images


def fading(n=64, n_layers=DEPTH + 3):
    """A network in which images die at every depth, and some do not."""
    density, bias = {64: (0.1, -0.25), 32: (0.2, -0.1875), 20: (0.2, -0.0625)}[n]
    return random_network(n, n_layers, density, bias, 2, signed=False)


# ---------------------------------------------------------------- results


@every_variant
@pytest.mark.parametrize("n", [1, 3, 20, 64, 131])
@pytest.mark.parametrize("bias", [-0.25, 0.0, 0.5])
def test_categories_and_live_rows_are_those_of_the_rule(variant, n, bias):
    net = random_network(n, 4, 0.15, bias)
    images = ones(333, n)
    categories, rows, work = reference(net, images)
    result = run(net, images, variant=variant, progress=False)
    assert result.categories.tolist() == categories.tolist()
    assert result.categories.dtype == np.int64
    assert result.rows.tolist() == rows
    edges = 333 * net.nnz
    entering = np.array([333, *rows[:-1]])
    nnz = np.array([layer.indices.size for layer in net])
    assert result.edges == edges
    assert result.work == {"filter": entering @ nnz, "spgemm": work}.get(variant, edges)


@every_variant
def test_images_that_die_at_every_depth_are_dropped_there(variant):
    net, images = fading(), ones(700, 64)
    categories, rows, _ = reference(net, images)
    assert len(set(rows)) == len(rows)
    assert len(categories) > 50
    result = run(net, images, variant=variant, progress=False)
    assert result.categories.tolist() == categories.tolist()
    assert result.rows.tolist() == rows


@every_variant
def test_the_challenges_network_agrees_with_scipy_in_float64(variant):
    pictures = datasets.digits(n_train=400, n_test=1)[0][0]
    images = challenge_images(pictures, 32)
    net = network(1024, 24)
    categories, rows, _ = reference(net, images)
    result = run(net, images, variant=variant, progress=False)
    assert result.categories.tolist() == categories.tolist()
    assert result.rows.tolist() == rows
    assert result.rate == pytest.approx(400 * net.nnz / result.seconds)
    assert result.total_rate < result.rate
    assert result.work_rate <= result.rate
    assert result.nbytes > 0


@pytest.mark.slow
def test_the_categories_of_mnist_are_those_of_scipy():
    try:
        pictures = datasets.mnist(download=False)[0][0]
    except datasets.DataUnavailable:
        pytest.skip("needs MNIST")
    images, net = challenge_images(pictures[:4000], 32), network(1024, 120)
    categories, rows, _ = reference(net, images)
    result = run(net, images, progress=False)
    assert result.categories.tolist() == categories.tolist()
    # Where a sum equals the bias but for rounding, an image lives a layer longer in float64, or shorter.
    np.testing.assert_allclose(result.rows, rows, atol=2)


@every_variant
def test_weights_need_not_be_equal(variant):
    rng = np.random.default_rng(5)
    layers = [
        layer._replace(values=rng.random(layer.values.size, np.float32) / 16)
        for layer in network(256, 6, bias=-0.02)
    ]
    net, images = network_of(layers, 256, -0.02), ones(300, 256)
    categories, rows, _ = reference(net, images)
    result = run(net, images, variant=variant, progress=False)
    assert result.categories.tolist() == categories.tolist()
    assert result.rows.tolist() == rows


@pytest.mark.parametrize("variant", ["filter", "workspace", "no_workspace"])
def test_the_order_of_the_neurons_changes_nothing(variant):
    net, images = fading(), ones(200, 64)
    found = [run(net, images, variant=variant, reorder=r, progress=False) for r in (True, False)]
    np.testing.assert_array_equal(found[0].categories, found[1].categories)
    np.testing.assert_array_equal(found[0].rows, found[1].rows)


@every_variant
@pytest.mark.parametrize("batch", [1, 63, 64, 100, 1000])
def test_results_do_not_depend_on_the_batch(variant, batch):
    net = fading(20, 14)
    images = ones(130, 20)
    categories, rows, _ = reference(net, images)
    result = run(net, images, variant=variant, batch=batch, progress=False)
    assert result.categories.tolist() == categories.tolist()
    assert result.rows.tolist() == rows


@every_variant
@pytest.mark.parametrize("blocks", [1, 7, 64, 200])
def test_images_may_come_in_blocks(variant, blocks):
    net = fading(20, 14)
    images = ones(200, 20)
    stream = (images[i : i + blocks] for i in range(0, 200, blocks))
    result = run(net, stream, variant=variant, batch=90, progress=False)
    assert result.n_images == 200
    assert result.categories.tolist() == reference(net, images)[0].tolist()


@pytest.mark.parametrize("n_layers", [5, DEPTH, DEPTH + 1, DEPTH + 9])
def test_the_filter_goes_on_when_more_images_live_than_memory_holds(n_layers):
    n, passes = 16, []
    layers = list(random_network(n, n_layers, 0.3, -0.03125, 3, signed=False))

    def read():
        passes.append(None)
        return iter(layers)

    net = Network(n, n_layers, -0.03125, read, lambda: 0)
    images = ones(20000, n, 0.5)
    categories, rows, _ = reference(net, images)
    assert rows[-1] > 15000
    result = run(net, images, memory=6 << 20, progress=False)
    assert result.categories.tolist() == categories.tolist()
    assert result.rows.tolist() == rows
    assert result.nbytes < 6 << 20


@every_variant
def test_layers_that_do_not_fit_the_memory_are_read_again(variant, monkeypatch):
    monkeypatch.setattr(inference, "_rehearse", lambda n, variant: None)
    for module in ("_plain", "_filtered", "_spgemm"):
        monkeypatch.setattr(f"nnsparse.graph_challenge.{module}.STACK", 1000)
    passes = []
    layers = list(fading(32, 20))

    def read():
        passes.append(None)
        return iter(layers)

    net = Network(32, 20, fading(32).bias, read, lambda: 0)
    images = ones(3000, 32)
    memory = {"filter": 2 << 20, "workspace": 100_000, "no_workspace": 100_000, "spgemm": 70_000}
    result = run(net, images, variant=variant, memory=memory[variant], progress=False)
    assert result.categories.tolist() == reference(fading(32, 20), images)[0].tolist()
    assert len(passes) > 1 or variant == "filter"


@every_variant
def test_the_number_of_threads_changes_nothing(variant):
    net, images = fading(), ones(900, 64)
    found = []
    before = jit.get_num_threads()
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            found.append(run(net, images, variant=variant, progress=False))
    finally:
        jit.set_num_threads(before)
    assert [result.threads for result in found] == [1, 2]
    np.testing.assert_array_equal(found[0].categories, found[1].categories)
    np.testing.assert_array_equal(found[0].rows, found[1].rows)


# ---------------------------------------------------------------- odd input


@every_variant
def test_images_without_a_nonzero_die_at_once(variant):
    result = run(
        network(64, 3, bias=0.5), sparse.csr_array((5, 64)), variant=variant, progress=False
    )
    assert result.categories.size == 0
    assert result.rows.tolist() == [0, 0, 0]


@every_variant
def test_layers_without_a_weight_kill_all(variant):
    empty = Layer(np.zeros(9, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    result = run(network_of([empty] * 2, 8, 1.0), ones(5, 8), variant=variant, progress=False)
    assert result.rows.tolist() == [0, 0]
    assert result.edges == 0


@every_variant
@pytest.mark.parametrize("form", ["csc", "coo", "float64", "bool", "unsorted", "matrix"])
def test_images_of_other_forms_are_converted(variant, form):
    net, images = fading(20, 5), ones(70, 20)
    expected = reference(net, images)[0].tolist()
    if form in ("csc", "coo"):
        images = images.asformat(form)
    elif form in ("float64", "bool"):
        images = images.astype(form)
    elif form == "matrix":
        images = sparse.csr_matrix(images)
    else:
        reverse = np.concatenate(
            [np.arange(a, b)[::-1] for a, b in zip(images.indptr, images.indptr[1:], strict=False)]
        )
        images = sparse.csr_array(
            (images.data, images.indices[reverse], images.indptr), images.shape
        )
        assert not images.has_sorted_indices
    assert run(net, images, variant=variant, progress=False).categories.tolist() == expected


@every_variant
def test_duplicates_of_images_add_up_and_the_callers_matrix_stays(variant):
    net = fading(20, 3)
    indptr, indices = np.array([0, 30, 32]), np.array([3] * 30 + [2, 3])
    images = sparse.csr_array((np.full(32, 0.25, np.float32), indices, indptr), (2, 20))
    plain = images.copy()
    plain.sum_duplicates()
    result = run(net, images, variant=variant, progress=False)
    assert result.categories.tolist() == reference(net, plain)[0].tolist()
    assert images.nnz == 32


def layer_with(indptr=None, indices=None, values=None):
    good = next(iter(network(32, 1, bias=0)))
    given = zip(good, (indptr, indices, values), strict=True)
    return Layer(*(old if new is None else new(old.copy()) for old, new in given))


def at(place, value):
    def change(array):
        array[place] = value
        return array

    return change


def swapped(indices):
    indices[[0, 1]] = indices[[1, 0]]
    return indices


@every_variant
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"indptr": lambda a: a[:-1]}, ValueError, "layer 2: expected indptr of shape"),
        ({"indptr": lambda a: a + 1}, ValueError, "layer 2: expected indptr from 0 to 1024"),
        ({"indptr": at(3, 2000)}, ValueError, "layer 2: expected an indptr that never decreases"),
        ({"indptr": lambda a: a.astype(float)}, TypeError, "layer 2: expected integer indptr"),
        ({"indices": at(40, 32)}, ValueError, "layer 2: output neuron 1 .*outside 0 ... 31"),
        ({"indices": at(0, -1)}, ValueError, "layer 2: output neuron 0 .*outside 0 ... 31"),
        (
            {"indices": lambda a: a.astype(np.int64) + 2**32},
            ValueError,
            "layer 2: output neuron 0 .*outside",
        ),
        ({"indices": swapped}, ValueError, "layer 2: output neuron 0 .*do not increase"),
        ({"indices": at(1, 0)}, ValueError, "layer 2: output neuron 0 .*do not increase"),
        ({"indices": lambda a: a[:-1]}, ValueError, "layer 2: expected flat indices and values"),
        ({"indices": lambda a: a * 1.0}, TypeError, "layer 2: expected integer"),
        ({"values": at(5, np.nan)}, ValueError, "layer 2: output neuron 0 .*not a finite"),
        ({"values": at(1023, np.inf)}, ValueError, "layer 2: output neuron 31 .*not a finite"),
        ({"values": lambda a: a * 1e300}, ValueError, "layer 2: output neuron 0 .*not a finite"),
        ({"values": lambda a: a + 1j}, TypeError, "layer 2: expected real values"),
    ],
)
def test_a_wrong_layer_is_named(variant, changes, error, message):
    if "values" in changes and error is ValueError:
        changes = {"values": lambda a, f=changes["values"]: f(a.astype(np.float64))}
    net = network_of([layer_with(), layer_with(**changes)], 32, -0.1)
    with pytest.raises(error, match=message):
        run(net, ones(3, 32), variant=variant, progress=False)


@pytest.mark.parametrize("n_layers", [2, 4])
def test_a_network_with_another_number_of_layers_than_it_says_is_refused(n_layers):
    net = Network(32, n_layers, -0.1, lambda: iter([layer_with()] * 3), lambda: 0)
    with pytest.raises(ValueError, match=f"says that it has {n_layers} layers"):
        run(net, ones(3, 32), progress=False)


def csr_of(data, indices, indptr, shape):
    """A CSR array that SciPy has not checked."""
    images = sparse.csr_array(shape, dtype=np.float32)
    images.data, images.indices, images.indptr = (np.asarray(a) for a in (data, indices, indptr))
    return images


@every_variant
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (sparse.csr_array((0, 32)), ValueError, "at least one image"),
        ([], ValueError, "at least one image"),
        (iter([sparse.csr_array((0, 32))]), ValueError, "at least one image"),
        (sparse.csr_array((32, 3)), ValueError, r"shape \(n_images, 32\).*got \(32, 3\)"),
        (np.ones((2, 32)), TypeError, "scipy.sparse matrix"),
        ([np.ones((2, 32))], TypeError, "blocks of images"),
        (3, TypeError, "scipy.sparse matrix"),
        (sparse.csr_array((2, 32), dtype=complex), TypeError, "real numbers"),
        (csr_of([np.nan], [0], [0, 1], (1, 32)), ValueError, "NaN or infinity"),
        (csr_of([1e300], [0], [0, 1], (1, 32)), ValueError, "NaN or infinity"),
        (csr_of([1.0], [32], [0, 1], (1, 32)), ValueError, "the SciPy matrix is inconsistent"),
        (csr_of([1.0], [-1], [0, 1], (1, 32)), ValueError, "the SciPy matrix is inconsistent"),
        (csr_of([1.0], [0], [0, 9], (1, 32)), ValueError, "the SciPy matrix is inconsistent"),
        (csr_of([1.0], [0], [0, 5, 1], (2, 32)), ValueError, "the SciPy matrix is inconsistent"),
    ],
)
def test_wrong_images_are_refused(variant, images, error, message):
    with pytest.raises(error, match=message):
        run(network(32, 2, bias=-0.1), images, variant=variant, progress=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"variant": "fast"}, ValueError, "filter, workspace, no_workspace, spgemm; got 'fast'"),
        ({"batch": 0}, ValueError, "batch: expected at least 1; got 0"),
        ({"batch": 1.5}, TypeError, "batch: expected an integer"),
        ({"memory": True}, TypeError, "memory: expected an integer"),
        ({"memory": 1000}, ValueError, "memory=1000: .* take at least"),
        ({"memory": 1000, "variant": "workspace"}, ValueError, "memory=1000: .* take at least"),
        ({"memory": 100, "variant": "spgemm"}, ValueError, "memory=100: .* take at least"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        run(network(32, 2, bias=-0.1), ones(3, 32), progress=False, **arguments)


def test_something_that_is_no_network_is_refused():
    with pytest.raises(TypeError, match="expects a Network; got list"):
        run([layer_with()], ones(3, 32))
    with pytest.raises(ValueError, match="n_layers from 1 to"):
        run(network_of([], 32, 0.0), ones(3, 32))
    with pytest.raises(ValueError, match="finite bias; got nan"):
        run(network_of([layer_with()], 32, float("nan")), ones(3, 32))


@pytest.mark.parametrize("kind", ["csc", "bsr", "csr", "coo", "lil"])
def test_inconsistent_images_are_refused_before_scipy_follows_them(kind):
    images = sparse.random_array((40, 50), density=0.2, rng=0, dtype=np.float32).asformat(kind)
    if kind == "coo":
        images.coords[0][0] = 10**6
    elif kind == "lil":
        images.rows[0], images.data[0] = [10**6], [1.0]
    elif kind == "csr":
        images.indptr = images.indptr[:10]
    else:
        images.indptr[3] = 10**7
    with pytest.raises(ValueError, match="the SciPy matrix is inconsistent"):
        run(random_network(50, 2, 0.2, -0.3), images, progress=False)
