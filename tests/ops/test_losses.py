"""Losses: values and gradients against float64 references and torch, layouts, and bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnsparse import jit
from nnsparse.autograd import Tensor, grad, tensor
from nnsparse.gradcheck import check_gradients
from nnsparse.ops.layout import tile
from nnsparse.ops.losses import bce_with_logits, cross_entropy, mse
from nnsparse.testing import cross_entropy_reference, to_tiles_reference

rng = np.random.default_rng(2)
Z = rng.standard_normal((5, 3)) * 2
LABELS = np.array([0, 2, 1, 1, 2])
SHARES = rng.uniform(0.0, 1.0, (5, 3))
WEIGHTS = np.array([1.0, 0.5, 0.0, 3.0, 2.0])
LOSSES = {
    "cross_entropy": (lambda z: cross_entropy(z, LABELS)),
    "smoothed": (lambda z: cross_entropy(z, LABELS, 0.1)),
    "cross_entropy sum": (lambda z: cross_entropy(z, LABELS, reduction="sum")),
    "mse": (lambda z: mse(z, SHARES)),
    "mse sum": (lambda z: mse(z, SHARES, reduction="sum")),
    "bce": (lambda z: bce_with_logits(z, SHARES)),
    "bce sum": (lambda z: bce_with_logits(z, SHARES, reduction="sum")),
    "weighted cross_entropy": (lambda z: cross_entropy(z, LABELS, 0.1, "mean", WEIGHTS, [1, 2, 0])),
    "weighted mse": (lambda z: mse(z, SHARES, "mean", WEIGHTS)),
    "weighted bce": (lambda z: bce_with_logits(z, SHARES, "sum", WEIGHTS)),
}
each = pytest.mark.parametrize("name", LOSSES)


def activation(z: np.ndarray, lanes: int) -> Tensor:
    return Tensor(to_tiles_reference(z, lanes), requires_grad=True, batch=len(z))


@given(
    batch=st.integers(1, 150),
    n=st.integers(1, 30),
    lanes=st.sampled_from([None, 5, 16, 32, 64, 128]),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_cross_entropy_and_its_gradient_agree_with_the_reference(
    batch, n, lanes, smoothing, dtype
) -> None:
    random = np.random.default_rng([batch, n])
    z = (random.standard_normal((batch, n)) * 5).astype(dtype)
    labels = random.integers(0, n, batch)
    expected, slope = cross_entropy_reference(z, labels, smoothing)
    logits = tensor(z, requires_grad=True) if lanes is None else activation(z, lanes)
    loss = cross_entropy(logits, labels, smoothing)
    rtol = 50 * float(np.finfo(dtype).eps)
    assert (loss.shape, loss.dtype, loss.batch) == ((), dtype, None)
    assert loss.item() == pytest.approx(expected, rel=rtol, abs=rtol)
    np.testing.assert_allclose(grad(loss, [logits])[0], slope, rtol=0, atol=rtol / batch)


@each
def test_gradients_are_right_to_second_order_plain_and_tiled(name) -> None:
    loss = LOSSES[name]
    check_gradients(loss, Z, order=2)
    check_gradients(lambda z: loss(tile(z, 16)), Z, order=2)
    check_gradients(lambda z, w: loss(z) * w * loss(z), Z, 1.5, order=2)


@each
def test_tiles_of_any_width_give_the_plain_loss_and_zero_gradient_in_the_padding(name) -> None:
    plain = tensor(Z, requires_grad=True)
    expected = LOSSES[name](plain)
    expected.backward()
    for lanes in (2, 5, 16, 64):
        z = activation(Z, lanes)
        loss = LOSSES[name](z)
        loss.backward()
        assert loss.item() == expected.item()
        np.testing.assert_array_equal(z.grad, to_tiles_reference(plain.grad, lanes))


@each
def test_what_stands_in_the_padding_never_reaches_a_loss_or_gradient(name) -> None:
    z = activation(Z, 4)
    z.data[1, :, 1:] = np.nan
    loss = LOSSES[name](z)
    loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(z.grad).all()


@each
def test_the_gradient_is_scaled_by_what_comes_in(name) -> None:
    z = activation(Z, 16)
    once, thrice = grad(LOSSES[name](z), [z])[0], grad(3 * LOSSES[name](z), [z])[0]
    np.testing.assert_allclose(thrice, 3 * once)


@each
def test_a_gradient_changed_by_its_owner_does_not_change_the_next_one(name) -> None:
    z = tensor(Z, requires_grad=True)
    loss = LOSSES[name](z)
    first = grad(loss, [z], retain_graph=True)[0]
    kept = first.copy()
    first[...] = 7.0
    np.testing.assert_array_equal(grad(loss, [z])[0], kept)


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    z = (rng.standard_normal((500, 12)) * 3).astype(np.float32)
    labels, shares = rng.integers(0, 12, 500), rng.uniform(0, 1, (500, 12))
    for loss in (
        lambda t: cross_entropy(t, labels, 0.1),
        lambda t: mse(t, shares),
        lambda t: bce_with_logits(t, shares),
    ):
        results = []
        for threads in (1, 2):
            jit.set_num_threads(threads)
            logits = activation(z, 64)
            value = loss(logits)
            value.backward()
            results.append((value.data, logits.grad))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        np.testing.assert_array_equal(results[0][1], results[1][1])


def test_huge_logits_give_finite_losses() -> None:
    z = tensor(np.array([[1e4, -1e4, 0.0]], np.float32), requires_grad=True)
    loss = cross_entropy(z, [1])
    assert loss.item() == 2e4
    assert grad(loss, [z])[0].tolist() == [[1.0, -1.0, 0.0]]
    binary = bce_with_logits(z, [[0.0, 1.0, 1.0]])
    assert binary.item() == pytest.approx((2e4 + np.log(2)) / 3)


@each
def test_a_nan_logit_makes_the_loss_nan(name) -> None:
    for place in ((0, 0), (4, 2), (2, 1)):
        z = Z.copy()
        z[place] = np.nan
        assert np.isnan(LOSSES[name](tensor(z)).item())


def test_one_output_takes_targets_of_shape_batch() -> None:
    column, flat = Z[:, :1], Z[:, 0]
    for loss in (mse, bce_with_logits):
        expected = loss(tensor(column), SHARES[:, :1]).item()
        assert loss(tensor(column), SHARES[:, 0]).item() == expected
        assert loss(tensor(flat), SHARES[:, 0]).item() == expected
        assert loss(tile(tensor(column), 16), SHARES[:, 0]).item() == expected
        check_gradients(lambda z, loss=loss: loss(z, SHARES[:, 0]), flat, order=2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_agrees_with_torch(smoothing, reduction) -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor(Z, requires_grad=True)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=smoothing, reduction=reduction)
    expected = theirs(z, torch.tensor(LABELS))
    expected.backward()
    t = tensor(Z, requires_grad=True)
    loss = cross_entropy(t, LABELS, smoothing, reduction)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(grad(loss, [t])[0], z.grad.numpy(), atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(mse, "MSELoss"), (bce_with_logits, "BCEWithLogitsLoss")]
)
def test_elementwise_losses_agree_with_torch(ours, theirs, reduction) -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor(Z, requires_grad=True)
    expected = getattr(torch.nn, theirs)(reduction=reduction)(z, torch.tensor(SHARES))
    expected.backward()
    t = tensor(Z, requires_grad=True)
    loss = ours(t, SHARES, reduction)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(grad(loss, [t])[0], z.grad.numpy(), rtol=1e-12)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        list(LABELS),
        LABELS.astype(np.uint8),
        LABELS.astype(np.int32),
        np.tile(LABELS, 2)[::2],
    ],
    ids=["int64", "list", "uint8", "int32", "strided"],
)
def test_integers_of_any_kind_are_labels(labels) -> None:
    expected = cross_entropy_reference(Z, labels)[0]
    assert cross_entropy(tensor(Z), labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("labels", [LABELS * 1.0, LABELS > 0, ["a"] * 5], ids=str)
def test_labels_that_are_not_integers_are_refused(labels) -> None:
    with pytest.raises(TypeError, match=r"integer labels \(batch,\); got dtype"):
        cross_entropy(tensor(Z), labels)


@pytest.mark.parametrize(("place", "value"), [(0, 3), (3, -1), (4, 2**40)])
def test_the_first_label_out_of_range_is_named(place, value) -> None:
    labels = LABELS.copy()
    labels[place:] = value
    with pytest.raises(ValueError, match=rf"from 0 to 2; got {value} at index {place}"):
        cross_entropy(tensor(Z), labels)


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (LABELS[:4], r"got \(4,\)\.$"),
        (LABELS[:, None], "labels.ravel"),
        (np.eye(3, dtype=int)[LABELS], r"argmax\(axis=1\)"),
        (3, r"got \(\)"),
    ],
)
def test_labels_of_the_wrong_shape_are_refused_with_the_fix(labels, hint) -> None:
    with pytest.raises(ValueError, match=rf"labels of shape \(5,\).*{hint}"):
        cross_entropy(tensor(Z), labels)


def test_an_empty_batch_is_refused() -> None:
    empty = tensor(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="empty batch"):
        cross_entropy(empty, np.zeros(0, int))
    for loss in (mse, bce_with_logits):
        with pytest.raises(ValueError, match=r"batch > 0; got \(0, 3\)"):
            loss(empty, np.zeros((0, 3)))


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 3, 1), ()])
def test_logits_of_the_wrong_shape_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"logits of shape \(batch, n_classes\)"):
        cross_entropy(tensor(np.zeros(shape)), LABELS)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, np.nan])
def test_a_label_smoothing_out_of_range_is_refused(smoothing) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing in \[0, 1\)"):
        cross_entropy(tensor(Z), LABELS, smoothing)


@pytest.mark.parametrize("loss", [mse, bce_with_logits])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (5, 1), (4, 3), ()])
def test_targets_of_the_wrong_shape_are_refused(loss, shape) -> None:
    with pytest.raises(ValueError, match=r"targets of the outputs' shape \(5, 3\); got"):
        loss(tensor(Z), np.zeros(shape))


@pytest.mark.parametrize("bad", [-0.01, 1.01, 7])
def test_targets_of_bce_out_of_range_are_refused(bad) -> None:
    targets = SHARES.copy()
    targets[2, 1] = bad
    with pytest.raises(ValueError, match="targets from 0 to 1"):
        bce_with_logits(tensor(Z), targets)


def test_arguments_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="Tensor of logits"):
        cross_entropy(Z, LABELS)  # type: ignore[arg-type]
    for loss in (mse, bce_with_logits):
        with pytest.raises(TypeError, match="Tensor of outputs"):
            loss(Z, SHARES)
        with pytest.raises(TypeError, match="real numbers"):
            loss(tensor(Z), SHARES + 1j)
        with pytest.raises(TypeError, match="no gradient of its targets"):
            loss(tensor(Z), tensor(SHARES, requires_grad=True))
    for loss in (
        lambda t, r: cross_entropy(t, LABELS, reduction=r),
        lambda t, r: mse(t, SHARES, r),
    ):
        with pytest.raises(ValueError, match='reduction "mean" or "sum"'):
            loss(tensor(Z), "none")


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("function", [cross_entropy, mse, bce_with_logits])
def test_a_weight_of_two_is_the_sample_twice_and_of_zero_is_none(function) -> None:
    times = np.array([1, 2, 0, 3, 1])
    targets = LABELS if function is cross_entropy else SHARES
    again = np.repeat(np.arange(5), times)
    one, many = tensor(Z, requires_grad=True), tensor(Z[again], requires_grad=True)
    weighted = function(one, targets, sample_weight=times)
    repeated = function(many, targets[again])
    assert weighted.item() == pytest.approx(repeated.item(), rel=1e-12)
    slopes = np.zeros_like(Z)
    np.add.at(slopes, again, grad(repeated, [many])[0])
    np.testing.assert_allclose(grad(weighted, [one])[0], slopes, atol=1e-14)


def test_class_weights_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    weights = [0.5, 2.0, 1.0]
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(Z), torch.tensor(LABELS), weight=torch.tensor(weights, dtype=torch.float64)
    )
    found = cross_entropy(tensor(Z), LABELS, class_weight=weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_whose_weights_are_all_zero_has_loss_and_gradient_zero(reduction) -> None:
    for function, targets in ((cross_entropy, LABELS), (mse, SHARES), (bce_with_logits, SHARES)):
        z = tensor(Z, requires_grad=True)
        loss = function(z, targets, reduction=reduction, sample_weight=np.zeros(5))
        assert loss.item() == 0
        assert not grad(loss, [z])[0].any()


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(4), ValueError, r"sample_weight of shape \(5,\), one per sample; got \(4,\)"),
        (np.ones((5, 1)), ValueError, r"sample_weight of shape \(5,\)"),
        ([1, 1, -2, 1, 1], ValueError, "sample_weight finite and at least 0; got -2 at 2"),
        ([1, 1, 1, 1, np.inf], ValueError, "got inf at 4"),
        (["a"] * 5, TypeError, "sample_weight as real numbers"),
    ],
)
def test_bad_sample_weights_are_refused(weights, error, message) -> None:
    for function, targets in ((cross_entropy, LABELS), (mse, SHARES), (bce_with_logits, SHARES)):
        with pytest.raises(error, match=message):
            function(tensor(Z), targets, sample_weight=weights)


def test_class_weights_need_one_number_per_class() -> None:
    with pytest.raises(
        ValueError, match=r"class_weight of shape \(3,\), one per class; got \(2,\)"
    ):
        cross_entropy(tensor(Z), LABELS, class_weight=[1, 2])
