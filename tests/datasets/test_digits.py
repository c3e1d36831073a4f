"""The embedded digits: the same bits each time, well formed, and neither trivial nor hopeless."""

import hashlib
import importlib
import inspect
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnsparse.datasets import digits
from nnsparse.datasets._glyphs import glyphs

# The module: the package shows the function under this name.
module = importlib.import_module("nnsparse.datasets.digits")


@pytest.fixture(scope="module")
def small() -> Any:
    return digits(2_000, 500, seed=0)


def test_shapes_types_and_range_are_those_of_mnist(small: Any) -> None:
    for (x, y), n in zip(small, (2_000, 500), strict=True):
        assert x.shape == (n, 784)
        assert x.dtype == np.float32
        assert x.flags.c_contiguous
        assert x.flags.writeable
        assert x.min() == 0
        assert x.max() == 1
        assert y.shape == (n,)
        assert y.dtype == np.int64


def test_the_bits_are_the_same_on_every_machine() -> None:
    (x, y), (x_test, y_test) = digits(300, 100, seed=0)
    pixels = np.round(np.concatenate([x, x_test]) * 255).astype(np.uint8)
    labels = np.concatenate([y, y_test]).astype(np.uint8)
    digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "d8130b84379ae50223e9585e0cd372ff682a532bb341281ac7bbe010a1adc6c5"


def test_the_same_seed_gives_the_same_data_and_another_gives_other_data() -> None:
    first, again, other = digits(50, 20, seed=7), digits(50, 20, seed=7), digits(50, 20, seed=8)
    for part in (0, 1):
        np.testing.assert_array_equal(first[part][0], again[part][0])
        np.testing.assert_array_equal(first[part][1], again[part][1])
        assert (first[part][0] != other[part][0]).mean() > 0.2


def test_the_test_set_does_not_depend_on_the_size_of_the_training_set() -> None:
    few, many = digits(10, 30)[1], digits(40, 30)[1]
    np.testing.assert_array_equal(few[0], many[0])
    np.testing.assert_array_equal(few[1], many[1])


def test_pixels_have_256_levels_like_those_of_mnist(small: Any) -> None:
    levels = small[0][0] * np.float32(255)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)


@pytest.mark.parametrize("n", [1, 7, 10, 123])
def test_classes_are_balanced_to_within_one_sample(n: int) -> None:
    counts = np.bincount(digits(n, 1)[0][1], minlength=10)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


def test_classes_are_shuffled(small: Any) -> None:
    y = small[0][1]
    assert 0.05 < (y[1:] == y[:-1]).mean() < 0.15


def test_no_picture_occurs_twice_within_or_across_the_two_sets(small: Any) -> None:
    pictures = np.concatenate([small[0][0], small[1][0]])
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_train_and_test_use_different_random_streams() -> None:
    (x, y), (x_test, y_test) = digits(200, 200)
    assert (y != y_test).any()
    assert (x != x_test).mean() > 0.2


def test_more_samples_than_are_drawn_at_a_time_are_all_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 16)
    (x, y), _ = digits(35, 1)
    assert ((x > 0.4).sum(axis=1) > 15).all()
    assert len(y) == 35


def test_strokes_stay_in_the_picture(small: Any) -> None:
    x = small[0][0].reshape(-1, 28, 28)
    total = x.sum()
    edge = x[:, [0, -1], :].sum() + x[:, 1:-1, [0, -1]].sum()
    assert edge < 0.01 * total


def test_every_digit_has_several_variants_and_all_fit_the_box() -> None:
    assert len(glyphs()) == 10
    for family in glyphs():
        assert len(family) >= 4
        for glyph in family:
            assert glyph.knots.min() >= 0
            assert glyph.knots.max() <= 20
            np.testing.assert_allclose(glyph.spline.sum(axis=1), 1)
            assert glyph.starts.max() == len(glyph.spline) - 2


def test_a_curve_passes_through_its_knots_and_the_pen_is_lifted_where_told() -> None:
    parse = importlib.import_module("nnsparse.datasets._glyphs")._parse
    glyph = parse("0,0 4,0 | 4,4 ; 10,10 12,10")
    points = glyph.spline @ glyph.knots
    ends = points[glyph.starts], points[glyph.starts + 1]
    for knot in glyph.knots:
        assert min(np.abs(points - knot).sum(axis=1)) < 1e-12
    steps = np.sqrt(((ends[1] - ends[0]) ** 2).sum(axis=1))
    assert steps.max() < 2  # no segment joins (4, 4) to (10, 10)
    assert steps.sum() == pytest.approx(10)


def test_drawing_agrees_with_the_distance_to_each_segment_computed_naively() -> None:
    rng = np.random.default_rng(0)
    n_segments, n, side = 5, 3, module._CANVAS
    x = 20 + rng.uniform(-1, 1, (n_segments + 1, n)).cumsum(axis=0)
    y = 15 + rng.uniform(-1, 1, (n_segments + 1, n)).cumsum(axis=0)
    u = rng.random((n, module._N_SCALARS))
    u[:, 8] = 0.5  # no change of pressure
    distance = np.full((4, side, side), 1e6, np.float32)
    module._stamp(distance, np.array([0, 2, 3]), np.arange(n_segments), x, y, u)
    assert (distance[1] == 1e6).all()
    low, high = module._RADII
    centres = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), axis=-1)
    for i, row in enumerate([0, 2, 3]):
        radius = low + (high - low) * u[i, 7]
        naive = np.full((side, side), np.inf)
        for k in range(n_segments):
            a, b = np.array([x[k, i], y[k, i]]), np.array([x[k + 1, i], y[k + 1, i]])
            t = np.clip((centres - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)[..., None]
            naive = np.minimum(naive, ((centres - a - t * (b - a)) ** 2).sum(axis=-1))
        near = naive < 2.0**2  # beyond the window nothing is promised
        np.testing.assert_allclose(distance[row][near], naive[near] / radius**2, atol=1e-4)


@pytest.mark.parametrize("name", ["n_train", "n_test", "seed"])
@pytest.mark.parametrize("value", [1.0, "1", None, True, np.random.default_rng(0)])
def test_an_argument_that_is_no_integer_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"digits expects an integer {name}; got "):
        digits(**{"n_train": 1, "n_test": 1, name: value})


@pytest.mark.parametrize(
    ("name", "value", "least"), [("n_train", 0, 1), ("n_test", -3, 1), ("seed", -1, 0)]
)
def test_an_argument_that_is_too_small_is_refused(name: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"digits expects {name} >= {least}; got {value}"):
        digits(**{"n_train": 1, "n_test": 1, name: value})


def test_numpy_integers_are_integers() -> None:
    (x, _), _ = digits(np.int32(3), np.uint8(2), seed=np.int64(5))
    assert x.shape == (3, 784)


def dense_accuracy(data: Any, sizes: list[int], epochs: int, lr: float) -> float:
    """Train a plain NumPy ReLU network by SGD (batch 100, momentum 0.9); test accuracy."""
    (x, y), (x_test, y_test) = data
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(0, np.sqrt(2 / n_in), (n_in, n_out)).astype(np.float32)
        for n_in, n_out in itertools.pairwise(sizes)
    ]
    params = weights + [np.zeros(n_out, np.float32) for n_out in sizes[1:]]
    speeds = [np.zeros_like(p) for p in params]
    depth = len(weights)

    def forward(a: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        acts = [a]
        for i in range(depth):
            z = acts[-1] @ params[i] + params[depth + i]
            acts.append(np.maximum(z, 0) if i < depth - 1 else z)
        return acts

    for _ in range(epochs):
        for rows in rng.permutation(len(x)).reshape(-1, 100):
            acts = forward(x[rows])
            e = np.exp(acts[-1] - acts[-1].max(axis=1, keepdims=True))
            delta = e / e.sum(axis=1, keepdims=True)
            delta[np.arange(100), y[rows]] -= 1
            delta /= 100
            for i in reversed(range(depth)):
                gradients = acts[i].T @ delta, delta.sum(axis=0)
                delta = (delta @ params[i].T) * (acts[i] > 0)
                for k, gradient in zip((i, depth + i), gradients, strict=True):
                    speeds[k] = 0.9 * speeds[k] + gradient
                    params[k] -= lr * speeds[k]
    return float((forward(x_test)[-1].argmax(axis=1) == y_test).mean())


@pytest.mark.slow
def test_a_dense_network_errs_on_a_few_percent_and_a_linear_one_on_many() -> None:
    data = digits()
    assert 0.97 <= dense_accuracy(data, [784, 300, 100, 10], epochs=4, lr=0.05) <= 0.995
    assert dense_accuracy(data, [784, 10], epochs=3, lr=0.05) < 0.92


def test_the_default_size_divides_into_batches_of_100_and_is_smaller_than_mnist() -> None:
    sizes = [p.default for p in inspect.signature(digits).parameters.values()]
    assert sizes == [30_000, 5_000, 0]
