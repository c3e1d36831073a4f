"""SGD: PyTorch's update, in place, the same bits on every run; refusals."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnsparse.jit
from nnsparse import plan
from nnsparse.kernels import optimizer as kernels
from nnsparse.machine import Choices
from nnsparse.optim import SGD
from nnsparse.optim.optimizer import PARALLEL_FROM
from nnsparse.parameter import Parameter, SparseParameter
from nnsparse.plan import positions
from nnsparse.topology import Topology

GRID = [
    {"momentum": 0.0},
    {"momentum": 0.0, "weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}
SHAPES = [(7, 5), (129,), (1, 1)]


@pytest.fixture
def threads() -> Iterator[None]:
    before = nnsparse.jit.get_num_threads()
    yield
    nnsparse.jit.set_num_threads(before)


def draw(shape: tuple[int, ...], dtype: Any, seed: int) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def twin(
    p: NDArray[np.float64],
    grads: list[NDArray[np.float64]],
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> NDArray[np.float64]:
    """torch.optim.SGD's documented algorithm, line by line, in float64."""
    buf: NDArray[np.float64] | None = None
    for g in grads:
        if weight_decay != 0:
            g = g + weight_decay * p
        if momentum != 0:
            buf = g.copy() if buf is None else momentum * buf + (1 - dampening) * g
            g = g + momentum * buf if nesterov else buf
        p = p - lr * g
    return p


def run(optimizer: SGD, grads: list[NDArray[Any]]) -> None:
    (param,) = optimizer.params
    for grad in grads:
        param.grad = grad
        optimizer.step()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("setting", GRID, ids=str)
def test_ten_steps_are_the_documented_update(
    setting: dict[str, Any], dtype: Any, shape: tuple[int, ...]
) -> None:
    start = draw(shape, dtype, 0)
    grads = [draw(shape, dtype, seed) for seed in range(1, 11)]
    param = Parameter(start.copy())
    run(SGD([param], lr=0.05, **setting), grads)
    expected = twin(start.astype(float), [g.astype(float) for g in grads], 0.05, **setting)
    assert param.data.dtype == dtype
    np.testing.assert_allclose(param.data, expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("setting", GRID, ids=str)
def test_ten_steps_are_those_of_torch(setting: dict[str, Any], dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    start = draw((7, 5), dtype, 0)
    grads = [draw((7, 5), dtype, seed) for seed in range(1, 11)]
    param = Parameter(start.copy())
    run(SGD([param], lr=0.05, **setting), grads)
    rival = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([rival], lr=0.05, **setting)
    for grad in grads:
        rival.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_allclose(param.data, rival.detach(), rtol=0, atol=TOLERANCE[dtype])
    if setting["momentum"]:
        buf = optimizer.state[rival]["momentum_buffer"]
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(param.buffers["momentum"], buf, rtol=tolerance, atol=tolerance)


def test_momentum_starts_as_the_first_gradient_undampened() -> None:
    param = Parameter(np.array([1.0, 2.0]))
    optimizer = SGD([param], lr=0.1, momentum=0.5, dampening=0.5)
    assert "momentum" not in param.buffers
    run(optimizer, [np.array([4.0, 8.0])])
    assert param.buffers["momentum"].tolist() == [4.0, 8.0]
    np.testing.assert_allclose(param.data, [0.6, 1.2])
    run(optimizer, [np.array([4.0, 0.0])])
    assert param.buffers["momentum"].tolist() == [4.0, 4.0]  # 0.5·m + 0.5·g


def test_without_momentum_nothing_is_kept() -> None:
    param = Parameter(np.ones(3))
    run(SGD([param], lr=0.1), [np.ones(3)])
    assert param.buffers == {}


def test_arrays_are_updated_in_place() -> None:
    param = Parameter(np.ones((3, 2), np.float32))
    optimizer = SGD([param], lr=0.1, momentum=0.9)
    data = param.data
    run(optimizer, [np.ones((3, 2), np.float32)])
    momentum = param.buffers["momentum"]
    grad = np.ones((3, 2), np.float32)
    run(optimizer, [grad])
    assert param.data is data
    assert param.buffers["momentum"] is momentum
    assert momentum.shape == data.shape
    assert (data < 1).all()
    assert (grad == 1).all()


def test_momentum_moves_with_the_weights_of_a_sparse_parameter() -> None:
    before = Topology.from_coo((2, 2), [0, 1], [0, 1])
    after = Topology.from_coo((2, 2), [0, 1], [1, 1])
    param = SparseParameter(before, np.array([1.0, 2.0]))
    optimizer = SGD([param], lr=1.0, momentum=0.5)
    run(optimizer, [np.array([0.5, 0.5])])
    param.move_to(after)
    run(optimizer, [np.array([0.0, 0.0])])
    # The survivor rolls on by half of 0.5, the newcomer has no momentum yet.
    assert param.to_dense().tolist() == [[0.0, 0.0], [0.0, 1.25]]
    assert param.canonical(param.buffers["momentum"]).tolist() == [0.0, 0.25]


def test_parameters_without_gradient_are_left_alone() -> None:
    frozen, moving = Parameter(np.ones(2)), Parameter(np.ones(2))
    optimizer = SGD([frozen, moving], lr=0.1, momentum=0.9, weight_decay=0.1)
    moving.grad = np.ones(2)
    optimizer.step()
    assert frozen.data.tolist() == [1.0, 1.0]
    assert frozen.buffers == {}
    assert (moving.data < 1).all()


def test_a_late_first_gradient_still_starts_the_momentum_undampened() -> None:
    param, other = Parameter(np.zeros(1)), Parameter(np.zeros(1))
    optimizer = SGD([param, other], lr=1.0, momentum=0.5, dampening=0.5)
    other.grad = np.ones(1)
    optimizer.step()
    param.grad = np.ones(1)
    optimizer.step()
    assert param.data.tolist() == [-1.0]


def test_zero_grad_sets_every_gradient_to_none() -> None:
    param = Parameter(np.ones(2))
    optimizer = SGD([param], lr=0.1)
    param.grad = np.ones(2)
    optimizer.zero_grad()
    assert param.grad is None


def test_learning_rate_can_be_changed_between_steps() -> None:
    param = Parameter(np.zeros(1))
    optimizer = SGD([param], lr=1.0)
    run(optimizer, [np.ones(1)])
    optimizer.lr = 0.25
    run(optimizer, [np.ones(1)])
    assert param.data.tolist() == [-1.25]
    assert optimizer.lr == 0.25


def test_nan_gradient_stays_nan_and_infinite_weight_without_decay_stays_infinite() -> None:
    param = Parameter(np.array([1.0, np.inf, 1.0], np.float32))
    run(SGD([param], lr=0.1, momentum=0.9), [np.array([np.nan, 1.0, 1.0], np.float32)] * 2)
    assert np.isnan(param.data[0])
    assert param.data[1] == np.inf
    assert np.isfinite(param.data[2])


def test_float32_arithmetic_stays_float32() -> None:
    # 16777217 is no float32 and rounds to 16777216: in float64 the result would be -1.
    param = Parameter(np.array([16777216.0], np.float32))
    run(SGD([param], lr=16777217.0), [np.array([1.0], np.float32)])
    assert param.data.tolist() == [0.0]


@pytest.mark.parametrize("setting", GRID, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_parallel_and_serial_kernels_give_the_same_bits(
    setting: dict[str, Any], dtype: Any, threads: None
) -> None:
    full = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, **setting}
    n = 3 * kernels.PIECE + 17
    results = []
    for kernel, count in ((kernels.sgd, 1), (kernels.sgd_parallel, 1), (kernels.sgd_parallel, 2)):
        nnsparse.jit.set_num_threads(count)
        p, g, m = (draw((n,), dtype, seed) for seed in range(3))
        for first in (True, False):
            kernel(p, g, m, 0.1, *full.values(), first)
        results.append((p, m))
    for p, m in results[1:]:
        np.testing.assert_array_equal(p, results[0][0])
        np.testing.assert_array_equal(m, results[0][1])


def test_large_parameters_get_the_same_bits_from_one_and_two_threads(threads: None) -> None:
    results = []
    for count in (1, 2):
        nnsparse.jit.set_num_threads(count)
        param = Parameter(draw((PARALLEL_FROM + 5,), np.float32, 0))
        grads = [draw(param.data.shape, np.float32, seed) for seed in (1, 2, 3)]
        run(SGD([param], lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3), grads)
        results.append(param.data)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("setting", GRID, ids=str)
def test_state_dict_goes_on_bit_for_bit(setting: dict[str, Any]) -> None:
    grads = [draw((4, 3), np.float32, seed) for seed in range(8)]
    whole = Parameter(draw((4, 3), np.float32, 9))
    optimizer = SGD([whole], lr=0.1, **setting)
    run(optimizer, grads[:4])
    resumed = Parameter(whole.data.copy())
    state = optimizer.state_dict()
    run(optimizer, grads[4:])
    other = SGD([resumed], lr=0.7)
    other.load_state_dict(state)
    assert other.lr == 0.1
    run(other, grads[4:])
    np.testing.assert_array_equal(resumed.data, whole.data)


def test_state_dict_is_a_copy_in_both_directions() -> None:
    param = Parameter(np.ones(2))
    optimizer = SGD([param], lr=0.1, momentum=0.9)
    run(optimizer, [np.ones(2)])
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    run(optimizer, [np.ones(2)])
    assert state["0.momentum"].tolist() == [1.0, 1.0]  # type: ignore[union-attr]


def test_state_dict_survives_an_npz_file(tmp_path: Any) -> None:
    param = Parameter(np.ones(2))
    optimizer = SGD([param], lr=0.1, momentum=0.9, nesterov=True)
    run(optimizer, [np.ones(2)])
    np.savez(tmp_path / "state.npz", **optimizer.state_dict())  # type: ignore[arg-type]
    other = SGD([Parameter(param.data.copy())], lr=1.0)
    with np.load(tmp_path / "state.npz") as state:
        other.load_state_dict(state)
    assert other.settings == optimizer.settings
    assert other.state_dict().keys() == optimizer.state_dict().keys()
    for optimizer_ in (optimizer, other):
        run(optimizer_, [np.ones(2)])
    np.testing.assert_array_equal(other.params[0].data, param.data)


def test_a_new_optimizer_starts_without_the_momentum_of_an_old_one() -> None:
    param = Parameter(np.zeros(1))
    run(SGD([param], lr=1.0, momentum=0.9), [np.ones(1)] * 3)
    param.data[:] = 0
    run(SGD([param], lr=1.0, momentum=0.9), [np.ones(1)])
    assert param.data.tolist() == [-1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"momentum": None}, "lacks"),
        ({"0.momentum": None}, "0.momentum"),
        ({"0.momentum": np.ones(3)}, r"shape \(2,\)"),
        ({"0.momentum": np.ones(2, np.float32)}, "float64"),
        ({"0.exp_avg": np.ones(2)}, "no place for"),
        ({"1.momentum": np.ones(2)}, "no place for"),
        ({"lr": -1.0}, "lr in"),
        ({"momentum": 2.0}, "momentum in"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    change: dict[str, Any], message: str
) -> None:
    param = Parameter(np.ones(2))
    optimizer = SGD([param], lr=0.1, momentum=0.9)
    run(optimizer, [np.ones(2)])
    before = optimizer.state_dict()
    state = {key: value for key, value in {**before, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert str(optimizer.state_dict()) == str(before)


@pytest.mark.parametrize(
    "setting",
    [
        {"lr": -0.1},
        {"lr": math.nan},
        {"lr": math.inf},
        {"momentum": -0.1},
        {"momentum": 1.0},
        {"momentum": math.nan},
        {"dampening": 1.1, "momentum": 0.9},
        {"weight_decay": -1e-4},
        {"weight_decay": math.nan},
        {"nesterov": True},
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"SGD .*{next(iter(setting))}"):
        SGD([Parameter(np.ones(2))], **setting)


def test_a_learning_rate_out_of_range_is_refused_later_too() -> None:
    optimizer = SGD([Parameter(np.ones(2))], lr=0.1)
    with pytest.raises(ValueError, match="expects lr in"):
        optimizer.lr = -1.0
    with pytest.raises(TypeError, match="expects a number as lr"):
        optimizer.lr = "0.1"  # type: ignore[assignment]
    assert optimizer.lr == 0.1


def test_parameters_may_come_from_a_generator_but_not_empty_twice_or_of_another_kind() -> None:
    params = [Parameter(np.ones(2)), Parameter(np.ones(3))]
    assert SGD(p for p in params).params == tuple(params)
    with pytest.raises(ValueError, match="at least one"):
        SGD([])
    with pytest.raises(ValueError, match="twice"):
        SGD([params[0], params[1], params[0]])
    for wrong in (params[0], [np.ones(2)], 3, {"params": params}):
        with pytest.raises(TypeError, match=r"model\.parameters\(\)"):
            SGD(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("grad", [np.ones(3), np.ones((2, 1)), np.ones(2, np.float32)])
def test_a_gradient_that_does_not_fit_is_refused(grad: NDArray[Any]) -> None:
    param = Parameter(np.ones(2))
    with pytest.raises(ValueError, match=r"parameter 0 expects a gradient of shape \(2,\)"):
        run(SGD([param]), [grad])
    assert param.data.tolist() == [1.0, 1.0]


def test_data_that_cannot_be_updated_in_place_is_refused() -> None:
    param = Parameter(np.ones((2, 2)))
    optimizer = SGD([param])
    param.data = np.asfortranarray(np.ones((2, 2)))
    with pytest.raises(ValueError, match="C-contiguous"):
        run(optimizer, [np.ones((2, 2))])
    frozen = np.ones((2, 2))
    frozen.flags.writeable = False
    param.data = frozen
    with pytest.raises(ValueError, match="writeable"):
        run(optimizer, [np.ones((2, 2))])


def test_a_buffer_of_another_shape_is_refused() -> None:
    param = Parameter(np.ones(2))
    optimizer = SGD([param], momentum=0.9)
    run(optimizer, [np.ones(2)])
    param.data = np.ones(3)
    with pytest.raises(ValueError, match="move_to"):
        run(optimizer, [np.ones(3)])


def test_gradients_in_any_memory_order_are_read_right() -> None:
    param = Parameter(np.zeros((2, 3)))
    grad = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    run(SGD([param], lr=1.0), [grad])
    np.testing.assert_array_equal(param.data, -grad)


def test_the_state_of_sparse_weights_can_be_loaded_where_the_plans_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topology = Topology.random((30, 400), density=0.2, rng=0)
    values, gradient = np.random.default_rng(0).standard_normal((2, topology.nnz), np.float32)

    def updated(state: Any, steps: int) -> tuple[SparseParameter, SGD]:
        again = Topology(topology.shape, topology.indptr, topology.indices)
        weight = SparseParameter(again, values)
        optimizer = SGD([weight], lr=0.1, momentum=0.9)
        if state is not None:
            weight.set_canonical(state[0])
            optimizer.load_state_dict(state[1])
        for _ in range(steps):
            weight.grad = weight.planned(gradient)
            optimizer.step()
        return weight, optimizer

    weight, optimizer = updated(None, 2)
    state = weight.canonical().copy(), optimizer.state_dict()
    monkeypatch.setattr(plan, "choices", lambda: Choices(base=16, dense_enough=()))
    elsewhere, _ = updated(state, 1)
    assert not np.array_equal(positions(elsewhere.topology), positions(weight.topology))
    straight, _ = updated(None, 3)
    np.testing.assert_array_equal(elsewhere.canonical(), straight.canonical())
