"""`Module`: parameters and their names, modes, prediction, and state that is checked before use."""

import copy
import pickle
import threading

import numpy as np
import pytest

from nnsparse import nn
from nnsparse.autograd import Tensor
from nnsparse.data import Rows
from nnsparse.nn.dropout import Dropout
from nnsparse.parameter import Parameter
from nnsparse.topology import Topology

RNG = np.random.default_rng(0)
X = RNG.standard_normal((100, 12)).astype(np.float32)


class Residual(nn.Module):
    """A module with a part, a parameter of its own, and buffers."""

    _buffers = ("count", "mean")

    def __init__(self, rng=0):
        super().__init__()
        self.inner = nn.SparseLinear(12, 12, sparsity=0.5, rng=rng)
        self.shift = Parameter(np.zeros(12, np.float32))
        self.same = self.shift
        self.count = np.zeros((), np.int64)
        self.mean = np.zeros(12, np.float32)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.training
        return self.inner.forward(x, rectify=True)


def model():
    return nn.Sequential(Residual(), nn.Linear(12, 5, rng=1))


def state_of(module):
    """Return everything that loading may change, as bytes by name."""
    return {k: (v.dtype, v.shape, v.tobytes()) for k, v in module.state_dict().items()}


# ---------------------------------------------------------------- structure


def test_parameters_are_named_by_their_path_and_listed_once():
    m = model()
    names = [name for name, _ in m.named_parameters()]
    assert names == ["0.shift", "0.inner.weight", "0.inner.bias", "1.weight", "1.bias"]
    assert [id(p) for p in m.parameters()] == [id(p) for _, p in m.named_parameters()]
    assert [name for name, _ in m.named_modules()] == ["", "0", "0.inner", "1"]
    assert list(m.modules())[2] is m[0].inner


def test_the_dtype_is_that_of_the_first_parameter_and_float32_without_any():
    assert nn.Linear(3, 2, dtype=np.float64).dtype == np.float64
    assert nn.ReLU().dtype == np.float32


def test_modes_reach_every_part():
    m = model()
    assert m.eval() is m
    assert not any(part.training for part in m.modules())
    assert m.train() is m
    assert all(part.training for part in m.modules())


def test_zero_grad_forgets_every_gradient():
    m = model()
    m(X).backward(np.ones((100, 5)))
    assert m[1].weight.grad is not None
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())


def test_repr_shows_the_parts():
    assert repr(Residual()) == "Residual(inner=SparseLinear(12 -> 12, nnz=72, sparsity=0.5))"


# ---------------------------------------------------------------- prediction


@pytest.mark.parametrize("batch_size", [1, 7, 64, 100, 1000, np.int64(33)])
def test_predict_gives_the_same_bits_at_any_batch_size(batch_size):
    m = model()
    expected = m(X).numpy()
    out = m.predict(X, batch_size=batch_size)
    assert out.flags.owndata
    np.testing.assert_array_equal(out, expected)


def test_predict_takes_rows_in_their_order():
    m, index = model(), RNG.permutation(100)[:70]
    np.testing.assert_array_equal(m.predict(Rows(X, index), 32), m.predict(X[index]))


def test_predict_evaluates_without_changing_the_mode_or_recording():
    m = model()
    m.predict(X)
    assert not m[0].seen
    assert m.training
    m(X)
    assert m[0].seen
    with_dropout = nn.Sequential(nn.Linear(12, 5, rng=0), Dropout(0.9, rng=0))
    np.testing.assert_array_equal(with_dropout.predict(X), with_dropout[0].predict(X))


def test_an_error_in_predict_leaves_the_mode_as_it_was():
    m = model()
    with pytest.raises(ValueError, match="expects x of shape"):
        m.predict(X[:, :5])
    assert m.training
    assert m(X).requires_grad


@pytest.mark.parametrize(
    ("batch_size", "error", "message"),
    [
        (0, ValueError, ">= 1; got 0"),
        (-5, ValueError, ">= 1"),
        (2.5, TypeError, "integer"),
        (True, TypeError, "integer"),
        ("64", TypeError, "integer"),
    ],
)
def test_a_bad_batch_size_is_refused(batch_size, error, message):
    with pytest.raises(error, match=message):
        model().predict(X, batch_size=batch_size)


def together(*functions):
    """Run the functions at once in one thread each; return their results, or raise."""
    results, start = [None] * len(functions), threading.Barrier(len(functions))

    def run(i):
        start.wait()
        try:
            results[i] = functions[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r in results:
        if isinstance(r, BaseException):
            raise r
    return results


def test_threads_that_predict_at_once_get_what_each_gets_alone():
    m = nn.mlp([12, 40, 30, 5], sparsity=[0.8, 0.5, None], rng=0)
    inputs = [RNG.standard_normal((n, 12)).astype(np.float32) for n in (500, 333, 64, 1)]
    alone = [m.predict(x, batch_size=50) for x in inputs]
    for _ in range(5):
        results = together(*(lambda x=x: m.predict(x, batch_size=50) for x in inputs))
        for a, b in zip(alone, results, strict=True):
            np.testing.assert_array_equal(a, b)


def test_predicting_in_one_thread_does_not_disturb_training_in_another():
    trained, predicting = model(), model()

    def gradients():
        out = []
        for _ in range(30):
            trained.zero_grad()
            y = trained(X)
            assert trained[0].seen
            y.backward(np.ones((100, 5)))
            out.append(trained[0].inner.weight.grad.copy())
        return out

    expected = gradients()[0]
    results, _ = together(gradients, lambda: [predicting.predict(X, 10) for _ in range(30)])
    for gradient in results:
        np.testing.assert_array_equal(gradient, expected)


# ---------------------------------------------------------------- state


def test_the_state_has_every_parameter_and_buffer_as_a_copy():
    m = model()
    state = m.state_dict()
    assert set(state) == {
        "0.shift",
        "0.inner.weight",
        "0.inner.weight.indptr",
        "0.inner.weight.indices",
        "0.inner.bias",
        "1.weight",
        "1.bias",
        "0.count",
        "0.mean",
    }
    topology = m[0].inner.weight.topology
    np.testing.assert_array_equal(state["0.inner.weight"], m[0].inner.weight.canonical())
    np.testing.assert_array_equal(state["0.inner.weight.indptr"], topology.indptr)
    np.testing.assert_array_equal(state["0.inner.weight.indices"], topology.indices)
    before = state_of(m)
    for array in state.values():
        array[...] = 1
    assert state_of(m) == before


def test_loading_a_state_restores_values_topology_and_buffers_in_place():
    m, other = model(), nn.Sequential(Residual(rng=7), nn.Linear(12, 5, rng=8))
    m[0].mean[:], m[0].count[...] = 3, 4
    other[0].inner.weight.move_to(Topology.random((12, 12), density=0.1, rng=5))
    other[0].inner.weight.buffers["momentum"] = np.ones(14, np.float32)
    parameters, arrays = list(other.parameters()), other[1].weight.data
    other.load_state_dict(m.state_dict())
    assert state_of(other) == state_of(m)
    assert [id(p) for p in other.parameters()] == [id(p) for p in parameters]
    assert other[1].weight.data is arrays
    assert other[0].inner.weight.buffers["momentum"].shape == (72,)
    np.testing.assert_array_equal(other(X).numpy(), m(X).numpy())


def test_a_state_may_hold_lists_and_other_dtypes():
    m = nn.Linear(2, 1, rng=0)
    m.load_state_dict({"weight": [[1, 2]], "bias": np.array([0.5])})
    np.testing.assert_array_equal(m([[1, 1]]).numpy(), [[3.5]])
    assert m.weight.dtype == np.float32


def test_a_state_saved_in_plan_order_would_be_wrong_and_is_not_saved():
    a = nn.SparseLinear(300, 40, sparsity=0.5, rng=0)
    assert (a.weight.data != a.state_dict()["weight"]).any()


BROKEN = {
    "a missing array": (lambda s: s.pop("1.bias"), KeyError, r"missing \['1.bias'\]"),
    "an unknown array": (lambda s: s.update(extra=1), KeyError, r"unknown \['extra'\]"),
    "a wrong shape": (
        lambda s: s.update({"1.weight": np.zeros((12, 5))}),
        ValueError,
        r"1.weight expects shape \(5, 12\); got \(12, 5\)",
    ),
    "text": (lambda s: s.update({"1.bias": np.array(["a"] * 5)}), ValueError, "expected numbers"),
    "complex numbers": (
        lambda s: s.update({"1.bias": np.zeros(5, complex)}),
        ValueError,
        "dtype complex128",
    ),
    "a fractional counter": (
        lambda s: s.update({"0.count": np.array(1.5)}),
        ValueError,
        "0.count expects dtype int64",
    ),
    "values of another number": (
        lambda s: s.update({"0.inner.weight": np.zeros(71)}),
        ValueError,
        r"expects \(72,\) values",
    ),
    "an index out of range": (
        lambda s: s["0.inner.weight.indices"].fill(12),
        ValueError,
        "topology of 0.inner.weight",
    ),
    "an unsorted row": (
        lambda s: s.update({"0.inner.weight.indices": s["0.inner.weight.indices"][::-1]}),
        ValueError,
        "topology of 0.inner.weight",
    ),
    "falling pointers": (
        lambda s: s["0.inner.weight.indptr"].__setitem__(3, 60),
        ValueError,
        "never to fall",
    ),
    "pointers of another matrix": (
        lambda s: s.update({"0.inner.weight.indptr": np.array([0, 72])}),
        ValueError,
        "shape",
    ),
    "indices that are no integers": (
        lambda s: s.update({"0.inner.weight.indices": s["0.inner.weight.indices"] + 0.5}),
        ValueError,
        "integer dtype; got float64",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_state_is_refused_and_changes_nothing(name):
    damage, error, message = BROKEN[name]
    m = nn.Sequential(Residual(rng=3), nn.Linear(12, 5, rng=4))
    state, before = model().state_dict(), state_of(m)
    damage(state)
    with pytest.raises(error, match=message):
        m.load_state_dict(state)
    assert state_of(m) == before


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_model_predicts_the_same_and_shares_nothing(duplicate):
    m = model()
    expected = m.predict(X)
    again = duplicate(m)
    np.testing.assert_array_equal(again.predict(X), expected)
    for p in again.parameters():
        p.data[...] = 0
    np.testing.assert_array_equal(m.predict(X), expected)
