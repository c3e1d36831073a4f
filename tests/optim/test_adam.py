"""Adam: PyTorch's update; what it shares with SGD is tested in test_sgd.py."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnsparse.jit
from nnsparse.kernels import optimizer as kernels
from nnsparse.optim import Adam
from nnsparse.optim.optimizer import PARALLEL_FROM
from nnsparse.parameter import Parameter

GRID = [
    {},
    {"betas": (0.8, 0.99)},
    {"betas": (0.0, 0.9)},
    {"betas": (0.9, 0.0)},
    {"eps": 1e-3},
    {"weight_decay": 0.1},
    {"betas": (0.7, 0.95), "eps": 1e-4, "weight_decay": 0.01},
]
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}


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
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> NDArray[np.float64]:
    """torch.optim.Adam's documented algorithm, line by line, in float64."""
    beta1, beta2 = betas
    m = v = np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        if weight_decay != 0:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p = p - lr * m_hat / (np.sqrt(v_hat) + eps)
    return p


def run(optimizer: Adam, grads: list[NDArray[Any]]) -> None:
    (param,) = optimizer.params
    for grad in grads:
        param.grad = grad
        optimizer.step()


@pytest.mark.parametrize("shape", [(7, 5), (129,), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("setting", GRID, ids=str)
def test_ten_steps_are_the_documented_update(
    setting: dict[str, Any], dtype: Any, shape: tuple[int, ...]
) -> None:
    start = draw(shape, dtype, 0)
    grads = [draw(shape, dtype, seed) for seed in range(1, 11)]
    param = Parameter(start.copy())
    run(Adam([param], lr=0.05, **setting), grads)
    expected = twin(start.astype(float), [g.astype(float) for g in grads], 0.05, **setting)
    assert param.data.dtype == dtype
    # Relative too: with beta2 = 0 a small gradient makes a step far longer than lr.
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(param.data, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("setting", GRID, ids=str)
def test_ten_steps_are_those_of_torch(setting: dict[str, Any], dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    start = draw((7, 5), dtype, 0)
    grads = [draw((7, 5), dtype, seed) for seed in range(1, 11)]
    param = Parameter(start.copy())
    run(Adam([param], lr=0.05, **setting), grads)
    rival = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.Adam([rival], lr=0.05, **setting)
    for grad in grads:
        rival.grad = torch.tensor(grad)
        optimizer.step()
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    np.testing.assert_allclose(param.data, rival.detach(), **tolerance)
    for name in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_allclose(param.buffers[name], optimizer.state[rival][name], **tolerance)


def test_the_first_step_has_the_length_of_the_learning_rate() -> None:
    param = Parameter(np.zeros(3))
    run(Adam([param], lr=0.25, eps=0.0), [np.array([1e-6, -1.0, 1e6])])
    np.testing.assert_allclose(param.data, [-0.25, 0.25, -0.25], rtol=1e-12)


def test_arrays_are_updated_in_place() -> None:
    param = Parameter(np.ones((3, 2), np.float32))
    optimizer = Adam([param], lr=0.1)
    data = param.data
    assert param.buffers == {}
    run(optimizer, [np.ones((3, 2), np.float32)])
    moments = dict(param.buffers)
    run(optimizer, [np.ones((3, 2), np.float32)])
    assert param.data is data
    assert set(moments) == {"exp_avg", "exp_avg_sq"}
    for name, array in moments.items():
        assert param.buffers[name] is array
        assert array.shape == data.shape


def test_frozen_parameters_are_left_alone_and_count_their_own_steps() -> None:
    late, other = Parameter(np.zeros(1)), Parameter(np.zeros(1))
    optimizer = Adam([late, other], lr=0.5, eps=0.0)
    other.grad = np.ones(1)
    for _ in range(3):
        optimizer.step()
    assert late.data.tolist() == [0.0]
    assert late.buffers == {}
    late.grad = np.ones(1)
    optimizer.step()
    np.testing.assert_allclose(late.data, [-0.5])  # a first step, not a fourth


def test_nan_gradient_stays_nan_in_its_own_weight() -> None:
    param = Parameter(np.ones(3, np.float32))
    run(Adam([param]), [np.array([1.0, np.nan, 1.0], np.float32)] * 2)
    assert np.isnan(param.data).tolist() == [False, True, False]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_parallel_and_serial_kernels_give_the_same_bits(
    dtype: Any, decay: float, threads: None
) -> None:
    n = 3 * kernels.PIECE + 17
    results = []
    for kernel, count in (
        (kernels.adam, 1),
        (kernels.adam_parallel, 1),
        (kernels.adam_parallel, 2),
    ):
        nnsparse.jit.set_num_threads(count)
        p, g, m, v = (np.abs(draw((n,), dtype, seed)) for seed in range(4))
        for step in (1, 2):
            kernel(p, g, m, v, 0.1, 0.9, 0.999, 1e-8, decay, step)
        results.append(np.stack([p, m, v]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_large_parameters_get_the_same_bits_from_one_and_two_threads(threads: None) -> None:
    results = []
    for count in (1, 2):
        nnsparse.jit.set_num_threads(count)
        param = Parameter(draw((PARALLEL_FROM + 5,), np.float32, 0))
        run(Adam([param]), [draw(param.data.shape, np.float32, seed) for seed in (1, 2, 3)])
        results.append(param.data)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("setting", GRID, ids=str)
def test_state_dict_goes_on_bit_for_bit(setting: dict[str, Any]) -> None:
    grads = [draw((4, 3), np.float32, seed) for seed in range(8)]
    whole = Parameter(draw((4, 3), np.float32, 9))
    optimizer = Adam([whole], lr=0.1, **setting)
    run(optimizer, grads[:4])
    resumed = Parameter(whole.data.copy())
    state = optimizer.state_dict()
    run(optimizer, grads[4:])
    other = Adam([resumed], lr=0.7)
    other.load_state_dict(state)
    run(other, grads[4:])
    np.testing.assert_array_equal(resumed.data, whole.data)


def test_a_state_without_its_moments_is_refused() -> None:
    param = Parameter(np.ones(2))
    optimizer = Adam([param])
    run(optimizer, [np.ones(2)])
    state = optimizer.state_dict()
    del state["0.exp_avg_sq"]
    with pytest.raises(ValueError, match=r"0\.exp_avg_sq"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"lr": -0.1}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"betas": (1.0, 0.9)}, "beta1"),
        ({"betas": (0.9, -0.1)}, "beta2"),
        ({"betas": (math.nan, 0.9)}, "beta1"),
        ({"eps": -1e-8}, "eps"),
        ({"weight_decay": math.inf}, "weight_decay"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"Adam expects {name} in"):
        Adam([Parameter(np.ones(2))], **setting)
