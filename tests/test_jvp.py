"""Forward mode: what `jvp` returns for every op and for networks, what it keeps, and what it refuses."""

import ast
import gc
import importlib
import re
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import nn, tiles
from nnsparse.autograd import Tensor, record, recording, tensor
from nnsparse.jvp import jvp
from nnsparse.ops import arithmetic as ar
from nnsparse.ops import losses, normalization, pointwise
from nnsparse.ops.layout import tile, untile
from nnsparse.ops.products import sddmm, spmm, spmm_t
from nnsparse.ops.structures import Blas, Dense, Sparse
from nnsparse.topology import Topology

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OPS = Path(ns.__file__).parent / "ops"
TOPOLOGY = Topology.random((5, 7), nnz=13, rng=0)
STRUCTURES = {"sparse": Sparse(TOPOLOGY), "dense": Dense(5, 7), "blas": Blas(5, 7)}


@pytest.fixture(autouse=True)
def _poisoned_buffers(monkeypatch):
    """Fill every new buffer with NaN, so that whatever a kernel forgets to write shows."""
    monkeypatch.setattr(tiles, "_POISON", True)


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


# ---------------------------------------------------------------- every op
# name -> (function of tensors, shapes of its inputs)

X = (19, 7)  # two tiles of 16 lanes, the last one with padding
LABELS = np.arange(19) % 7
ELEMENTWISE = {
    "relu": pointwise.relu,
    "leaky_relu": lambda x: pointwise.leaky_relu(x, 0.3),
    "all_relu": lambda x: pointwise.all_relu(x, 0.3, 0),
    "tanh": pointwise.tanh,
    "sigmoid": pointwise.sigmoid,
    "gelu": pointwise.gelu,
    "dropout": lambda x: pointwise.dropout(x, 0.4, 1),
    "negative": ar.negative,
    "cross_entropy": lambda x: losses.cross_entropy(x, LABELS, 0.1),
    "mse, summed": lambda x: losses.mse(x, np.ones(X), "sum"),
    "bce_with_logits": lambda x: losses.bce_with_logits(x, np.full(X, 0.25)),
    "sum_samples": pointwise.sum_samples,
}
TWO = {
    "add": ar.add,
    "subtract": ar.subtract,
    "multiply": ar.multiply,
    "divide": lambda a, b: ar.divide(a, ar.add(ar.multiply(b, b), 1.0)),
}
CASES = {
    **{name: (f, [X]) for name, f in ELEMENTWISE.items()},
    **{f"{n}, tiled": ((lambda x, f=f: f(tile(x, 16))), [X]) for n, f in ELEMENTWISE.items()},
    **{name: (f, [(3, 1), (2, 1, 4)]) for name, f in TWO.items()},
    **{
        f"{n}, tiled": ((lambda a, b, f=f: f(tile(a, 16), tile(b, 16))), [X, X])
        for n, f in TWO.items()
    },
    "a tensor with itself": (lambda x: ar.multiply(x, ar.add(x, x)), [(4,)]),
    "exp": (ar.exp, [(3, 2)]),
    "log": (lambda x: ar.log(ar.add(ar.multiply(x, x), 1.0)), [(3, 2)]),
    "power": (lambda x: ar.power(x, 3), [(3, 2)]),
    "power 0": (lambda x: ar.add(ar.power(x, 0), x), [(3, 2)]),
    "Φ": (pointwise._normal, [(3, 2)]),
    "gate": (lambda x: pointwise.relu_gate(Tensor(np.ones((3, 2))), x), [(3, 2)]),
    "leaky gate": (lambda x: pointwise._leaky_gate(-np.ones((3, 2)), 0.3, x), [(3, 2)]),
    "matmul": (ar.matmul, [(3, 4), (4, 2)]),
    "sum": (lambda x: ar.sum(x, (0, 2), keepdims=True), [(2, 3, 4)]),
    "mean": (lambda x: ar.mean(x, 1), [(2, 3)]),
    "reshape": (lambda x: ar.reshape(x, 3, -1), [(2, 3)]),
    "transpose": (ar.transpose, [(2, 3)]),
    "tanh of a transpose": (lambda x: pointwise.tanh(ar.transpose(x)), [(2, 3)]),
    "broadcast_to": (lambda x: ar.broadcast_to(x, (4, 2, 3)), [(2, 1)]),
    "tile": (lambda x: tile(x, 16), [X]),
    "untile": (lambda x: untile(ar.negative(tile(x, 16))), [X]),
    "spread": (lambda v, x: pointwise.spread(v, tile(x, 16).detach()), [(7,), X]),
    "batch_norm": (lambda x, w, b: normalization.batch_norm(x, w, b)[0], [X, (7,), (7,)]),
    "affine": (lambda x, w, b: normalization.affine(tile(x, 16), w, b), [X, (7,), (7,)]),
}
for _kind, _s in STRUCTURES.items():
    for _rectify in (False, True):
        CASES[f"spmm, {_kind}, bias, rectify={_rectify}"] = (
            lambda w, x, b, s=_s, r=_rectify: spmm(w, tile(x, 16), s, b, r),
            [_s.weight_shape, X, (5,)],
        )
    CASES[f"spmm, {_kind}"] = (
        lambda w, x, s=_s: spmm(w, tile(x, 16), s),
        [_s.weight_shape, X],
    )
    CASES[f"spmm_t, {_kind}"] = (
        lambda w, d, s=_s: spmm_t(w, tile(d, 16), s),
        [_s.weight_shape, (19, 5)],
    )
    CASES[f"sddmm, {_kind}"] = (
        lambda d, x, s=_s: sddmm(tile(d, 16), tile(x, 16), s),
        [(19, 5), X],
    )


def differences(f, leaves, directions, eps=1e-6):
    """Return (f(x + eps v) − f(x − eps v)) / 2 eps; the arrays are put back."""
    ends = []
    before = [leaf.data.copy() for leaf in leaves]
    for step in (eps, -eps):
        for leaf, array, v in zip(leaves, before, directions, strict=True):
            leaf.data[...] = array + step * v
        with ns.no_grad():
            ends.append(f().numpy().copy())
    for leaf, array in zip(leaves, before, strict=True):
        leaf.data[...] = array
    return (ends[0] - ends[1]) / (2 * eps)


def twice_backwards(f, leaves, directions):
    """Return the tangent by two reverse sweeps: the derivative by u of ⟨d⟨f, u⟩/dx, v⟩."""
    out = f()
    u = tensor(np.zeros(out.shape), requires_grad=True)
    gradients = ns.grad(ar.sum(ar.multiply(out, u)), leaves, create_graph=True)
    along = Tensor(np.zeros(()))
    for gradient, v in zip(gradients, directions, strict=True):
        along = ar.add(along, ar.sum(ar.multiply(gradient, v)))
    return ns.grad(along, [u])[0]


@pytest.mark.parametrize("name", CASES)
def test_the_tangent_of_every_op_is_that_of_differences_and_of_two_reverse_sweeps(name):
    function, shapes = CASES[name]
    leaves = [Tensor(a, requires_grad=True) for a in draw(*shapes)]
    if name == "spread":
        leaves[1].requires_grad = False
    primals = [leaf for leaf in leaves if leaf.requires_grad]
    directions = draw(*[p.shape for p in primals], seed=1)

    def f():
        return function(*leaves)

    value, tangent = jvp(f, primals, directions)
    with ns.no_grad():
        expected = f()
    np.testing.assert_array_equal(value.numpy(), expected.numpy())
    assert tangent.shape == value.shape
    assert tangent.dtype == value.dtype
    np.testing.assert_allclose(tangent, differences(f, primals, directions), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        tangent, twice_backwards(f, primals, directions), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("name", [name for name in CASES if len(CASES[name][1]) > 1])
def test_tangents_of_single_inputs_add_up_to_the_tangent_of_all(name):
    function, shapes = CASES[name]
    leaves = [Tensor(a, requires_grad=True) for a in draw(*shapes)]
    primals = leaves[:1] if name == "spread" else leaves
    directions = draw(*[p.shape for p in primals], seed=1)
    whole = jvp(lambda: function(*leaves), primals, directions)[1]
    parts = [
        jvp(lambda: function(*leaves), [p], [v])[1]
        for p, v in zip(primals, directions, strict=True)
    ]
    assert {part.shape for part in parts} == {whole.shape}
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-10, atol=1e-12)


def test_a_tangent_follows_a_cast_in_the_dtype_of_the_result():
    x = tensor([1.0, 2.0], requires_grad=True)
    value, tangent = jvp(lambda: ar.cast(x, np.float64), [x], [[0.5, -3.0]])
    assert value.dtype == tangent.dtype == np.float64
    assert tangent.tolist() == [0.5, -3.0]


def test_tangents_pass_a_straight_through_mask_as_gradients_do():
    w = tensor([1.0, 2.0, 3.0], requires_grad=True)
    mask = np.array([1.0, 0.0, 1.0], np.float32)
    value, tangent = jvp(lambda: pointwise.straight_through(w, mask), [w], [[1.0, 2.0, 3.0]])
    assert value.numpy().tolist() == [1.0, 0.0, 3.0]
    assert tangent.tolist() == [1.0, 2.0, 3.0]


def test_every_op_that_records_has_a_forward_rule():
    without = []
    for path in sorted(OPS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "record"):
                continue
            named = {k.arg for k in node.keywords} & {"push", "symmetric"}
            if not named and len(node.args) < 5:
                without.append(path.stem)
    assert without == ["chain"]  # which takes its layers one by one in forward mode


# ---------------------------------------------------------------- networks


def network(kind, dtype=np.float64):
    rng = np.random.default_rng(3)
    if kind == "sparse mlp":
        return nn.mlp([7, 12, 9, 4], sparsity=0.6, dtype=dtype, rng=rng)
    if kind == "dense mlp":
        return nn.mlp([7, 12, 4], dtype=dtype, rng=rng)
    if kind == "numpy":
        layers = [nn.NumpyLinear(7, 12, dtype=dtype, rng=rng), nn.ReLU()]
        return nn.Sequential(*layers, nn.NumpyLinear(12, 4, dtype=dtype, rng=rng))
    first = nn.SparseLinear(7, 12, bias=False, sparsity=0.5, dtype=dtype, rng=rng)
    last = nn.SparseLinear(12, 4, topology=Topology.full((4, 12)), dtype=dtype, rng=rng)
    norm = nn.BatchNorm1d(12, dtype=dtype)
    model = nn.Sequential(first, norm, nn.GELU(), last)
    if kind == "batch norm, evaluated":
        model(rng.standard_normal((50, 7)))
        model.eval()
    return model


KINDS = ["sparse mlp", "dense mlp", "numpy", "batch norm", "batch norm, evaluated"]
LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(0.1), np.arange(90) % 4),
    "mse": (nn.MSELoss(), draw((90, 4), seed=9)[0]),
    "bce": (nn.BCEWithLogitsLoss(), np.full((90, 4), 0.3)),
}


def problem(kind="sparse mlp", loss="cross-entropy", dtype=np.float64):
    """Return the loss as a function, the parameters and a random direction for each."""
    model, (loss_fn, targets) = network(kind, dtype), LOSSES[loss]
    x = draw((90, 7), seed=4)[0]
    parameters = list(model.parameters())
    for p, noise in zip(parameters, draw(*[p.shape for p in parameters], seed=6), strict=True):
        p.data += 0.1 * noise  # a bias of 0 puts neurons without inputs on the kink of the ReLU
    directions = [v.astype(dtype) for v in draw(*[p.shape for p in parameters], seed=5)]
    return (lambda: loss_fn(model(x), targets)), parameters, directions


def dot(gradients, directions):
    return sum(float(np.sum(g * v)) for g, v in zip(gradients, directions, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_slope_of_a_loss_is_the_gradient_times_the_direction(kind, loss):
    f, parameters, directions = problem(kind, loss)
    value, slope = jvp(f, parameters, directions)
    again = f()
    assert value.item() == pytest.approx(again.item(), rel=1e-12)
    assert slope == pytest.approx(dot(ns.grad(again, parameters), directions), rel=1e-9)
    assert slope == pytest.approx(differences(f, parameters, directions), rel=1e-5)


def test_a_float32_network_has_a_float32_slope_near_that_of_float64():
    slopes = [jvp(*problem(dtype=dtype))[1] for dtype in (np.float32, np.float64)]
    assert slopes[0].dtype == np.float32
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)


def test_a_direction_of_one_weight_gives_that_weights_gradient():
    f, parameters, _ = problem()
    weight = parameters[2]
    gradient = ns.grad(f(), [weight])[0]
    unit = np.zeros((weight.topology.nnz,))
    unit[5] = 1.0  # in canonical order
    slope = jvp(f, [weight], [weight.planned(unit)])[1]
    assert slope == pytest.approx(weight.canonical(gradient)[5], rel=1e-9)


def test_the_input_and_what_stands_between_two_models_carry_tangents_too():
    first, second = network("sparse mlp"), nn.mlp([4, 6, 2], sparsity=0.3, dtype="f8", rng=0)
    x = Tensor(draw((20, 7))[0], requires_grad=True)
    v = draw((20, 7), seed=1)

    def f():
        return second(ar.multiply(first(x).reshape((20, 4)), 2.0))

    value, tangent = jvp(f, [x], v)
    assert tangent.shape == value.shape == (20, 2)
    np.testing.assert_allclose(tangent, differences(f, [x], v), rtol=1e-5, atol=1e-8)


def test_a_tiled_primal_takes_its_tangent_in_rows():
    x = Tensor(tile(Tensor(draw(X)[0]), 16).data, requires_grad=True, batch=19)
    v = draw(X, seed=1)[0]
    np.testing.assert_array_equal(jvp(lambda: ar.negative(x), [x], [v])[1], -v)


def test_running_statistics_follow_once_and_dropout_draws_once():
    models = [
        nn.Sequential(nn.BatchNorm1d(7, dtype="f8"), nn.Dropout(0.5, rng=0)) for _ in range(2)
    ]
    x = draw((40, 7))[0]
    plain = models[0](x).numpy()
    weight = models[1][0].weight
    value, tangent = jvp(lambda: models[1](x), [weight], [np.ones(7)])
    np.testing.assert_array_equal(value.numpy(), plain)
    np.testing.assert_allclose(tangent, plain)  # bias 0, weight 1: out is linear in the weight
    np.testing.assert_array_equal(models[0][0].running_mean, models[1][0].running_mean)
    assert models[0][1].rng.random() == models[1][1].rng.random()


def test_what_is_computed_under_no_grad_or_detached_is_constant():
    x = tensor([3.0], requires_grad=True)

    def f():
        with ns.no_grad():
            square = x * x
        return x * square + x.detach() + x * 2.0

    assert jvp(f, [x], [[1.0]])[1].tolist() == ns.grad(f(), [x])[0].tolist() == [11.0]


# ---------------------------------------------------------------- the forward gradient


def test_the_forward_gradient_is_unbiased_with_the_variance_of_the_paper():
    # E (g·v)v = g, and its component i has variance |g|² + g_i²: so E |(g·v)v|² = (n + 2)|g|².
    f, parameters, _ = problem()
    exact = np.concatenate([g.ravel() for g in ns.grad(f(), parameters)])
    rng = np.random.default_rng(0)
    n, trials = exact.size, 1500
    estimates = np.empty((trials, n))
    for k in range(trials):
        directions = [rng.standard_normal(p.shape) for p in parameters]
        slope = jvp(f, parameters, directions)[1]
        estimates[k] = slope * np.concatenate([v.ravel() for v in directions])
    square = float(exact @ exact)
    z = (estimates.mean(0) - exact) / np.sqrt((square + exact**2) / trials)
    assert np.abs(z).max() < 4.5
    assert 0.7 < z.std() < 1.3
    assert (estimates**2).sum(1).mean() == pytest.approx((n + 2) * square, rel=0.15)


def test_steps_along_the_forward_gradient_lower_the_loss():
    f, parameters, _ = problem()
    rng = np.random.default_rng(0)
    optimizer = ns.optim.SGD(parameters, lr=0.003)
    first = f().item()
    for _ in range(300):
        directions = [rng.standard_normal(p.shape) for p in parameters]
        _, slope = jvp(f, parameters, directions)
        for p, v in zip(parameters, directions, strict=True):
            p.grad = slope * v
        optimizer.step()
    assert f().item() < 0.9 * first


def test_the_example_learns_by_both_methods_and_says_which_is_slower(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(tiles, "_POISON", False)
    example = importlib.import_module("forward_gradient")
    for name in ("forward_gradient", "_common"):
        monkeypatch.delitem(sys.modules, name)
    small = {"forward gradient": (0.01,), "backpropagation": (0.3,)}
    monkeypatch.setattr(example, "RATES", small)
    example.main(["--data", "digits", "--epochs", "1", "--plot", str(tmp_path / "plot.png")])
    printed = capsys.readouterr().out
    rows = {m: re.search(rf"{m} .*", printed).group()[len(m) :].split() for m in small}
    (_, loss, test, _, *memory), (_, best, score, _, *kept) = rows.values()
    assert float(best) < 1.5 < float(loss) < 2.3
    assert float(test.rstrip("%")) < float(score.rstrip("%"))
    assert float(memory[2]) / float(memory[0]) < 2 < float(kept[2]) / float(kept[0])
    assert "learn far slower" in printed
    assert (tmp_path / "plot.png").stat().st_size > 1000


# ---------------------------------------------------------------- what is kept


def test_nothing_is_recorded_and_no_gradient_is_touched():
    f, parameters, directions = problem()
    seen = []
    value, _ = jvp(lambda: (seen.append(recording()), f())[1], parameters, directions)
    assert seen == [False]
    assert value.node is None
    assert not value.requires_grad
    assert all(p.grad is None and p.node is None for p in parameters)
    assert recording()


def test_primals_and_tangents_are_not_changed_and_the_result_is_a_copy():
    x = tensor([1.0, 2.0], requires_grad=True)
    v = np.array([3.0, 4.0], np.float32)
    value, tangent = jvp(lambda: x, [x], [v])
    tangent[...] = 0
    assert value.numpy().tolist() == x.numpy().tolist() == [1.0, 2.0]
    assert v.tolist() == [3.0, 4.0]


def peak(depth, run):
    """Return the bytes that a pass over `depth` layers takes at most, beside what there was."""
    layers = [nn.SparseLinear(64, 64, sparsity=0.9, rng=i) for i in range(depth)]
    model = nn.Sequential(*(m for layer in layers for m in (layer, nn.Tanh(), nn.ReLU())))
    x = draw((512, 64))[0].astype(np.float32)
    parameters = list(model.parameters())
    directions = [np.ones(p.shape, np.float32) for p in parameters]
    run(model, x, parameters, directions)  # plans, compiled kernels
    gc.collect()
    tiles.pool.clear()
    tracemalloc.start()
    run(model, x, parameters, directions)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_does_not_grow_with_depth_as_that_of_backward_does():
    activation = 512 * 64 * 4

    def forwards(model, x, parameters, directions):
        jvp(lambda: losses.mse(model(x), x), parameters, directions)

    def backwards(model, x, parameters, directions):
        ns.grad(losses.mse(model(x), x), parameters)

    shallow, deep = peak(4, forwards), peak(24, forwards)
    assert deep - shallow < activation  # the tangents of the weights, which are given
    assert deep < 12 * activation
    assert peak(24, backwards) - peak(4, backwards) > 40 * activation  # two or three a layer


def test_another_thread_may_train_the_same_model_meanwhile():
    f, parameters, directions = problem()
    expected = ns.grad(f(), parameters)
    found = []

    def with_a_thread():
        other = threading.Thread(target=lambda: found.extend(ns.grad(f(), parameters)))
        other.start()
        other.join()
        return f()

    slope = jvp(with_a_thread, parameters, directions)[1]
    assert slope == pytest.approx(dot(expected, directions))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- bad input


def leaf(*values):
    return tensor(np.array(values), requires_grad=True)


@pytest.mark.parametrize(
    ("primals", "tangents", "error", "message"),
    [
        ([], [], ValueError, "at least one"),
        ([leaf(1.0)], [], ValueError, "got 1 and 0"),
        ([leaf(1.0, 2.0)], [[1.0]], ValueError, r"tangent 0 in the shape .* \(2,\); got \(1,\)"),
        ([leaf(1.0, 2.0)], [1.0], ValueError, r"\(2,\); got \(\)"),
        ([leaf(1.0)], [[1.0j]], TypeError, "real numbers; tangent 0 has dtype complex128"),
        ([np.ones(1)], [[1.0]], TypeError, "primal 0 is a ndarray"),
        ([tensor([1.0])], [[1.0]], ValueError, "requires no gradient"),
        ([nn.Linear(2, 2)], [[1.0]], TypeError, "primal 0 is a Linear"),
    ],
)
def test_bad_primals_and_tangents_are_refused_before_f_runs(primals, tangents, error, message):
    with pytest.raises(error, match=message):
        jvp(lambda: pytest.fail("f ran"), primals, tangents)


def test_the_same_primal_twice_is_refused():
    x = leaf(1.0)
    with pytest.raises(ValueError, match="primal 1 came before"):
        jvp(lambda: x, [x, x], [[1.0], [1.0]])


def test_f_must_return_a_tensor():
    x = leaf(1.0)
    with pytest.raises(TypeError, match="f to return a Tensor; got float"):
        jvp(lambda: x.item(), [x], [[1.0]])


def test_a_value_that_does_not_depend_on_the_primals_is_refused():
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match="does not depend on any primal"):
        jvp(lambda: y * y, [x], [[1.0]])


def test_backward_grad_and_another_jvp_inside_are_refused():
    x = leaf(2.0)
    before = ar.sum(x * x)
    for f in (before.backward, lambda: ns.grad(ar.sum(x * x), [x])):
        with pytest.raises(RuntimeError, match=r"not inside ns\.jvp"):
            jvp(f, [x], [[1.0]])
    with pytest.raises(RuntimeError, match="not inside another jvp"):
        jvp(lambda: jvp(lambda: x, [x], [[1.0]])[0], [x], [[1.0]])
    before.backward()
    assert x.grad.tolist() == [4.0]


def test_an_op_without_a_forward_rule_is_named():
    x = leaf(2.0)

    def cube(a):
        return record(a.data**3, (a,), lambda g, out, needs: (g * a * a * 3.0,))

    with pytest.raises(NotImplementedError, match=r"test_jvp\..*cube has no push rule"):
        jvp(lambda: cube(x), [x], [[1.0]])
    assert ns.grad(cube(x), [x])[0].tolist() == [12.0]
    constant = tensor([2.0])
    assert jvp(lambda: x * cube(constant), [x], [[1.0]])[1].tolist() == [8.0]


def test_an_error_in_f_leaves_the_tape_recording():
    x = leaf(1.0)
    with pytest.raises(ZeroDivisionError):
        jvp(lambda: 1 / 0, [x], [[1.0]])
    assert recording()
    assert (x * x).requires_grad


@pytest.mark.parametrize("nnz", [13, 20])
def test_a_weight_that_moves_inside_f_is_refused(nnz):
    layer = nn.SparseLinear(7, 5, topology=TOPOLOGY, dtype="f8")
    weight = layer.weight

    def f():
        weight.move_to(Topology.random((5, 7), nnz=nnz, rng=5))
        return layer(np.ones((2, 7)))

    with pytest.raises(RuntimeError, match="moved it to another topology"):
        jvp(f, [weight], [np.ones(13)])
