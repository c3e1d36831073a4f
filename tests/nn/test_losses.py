"""Loss objects: each calls its function, checks its settings, and trains a layer."""

import numpy as np
import pytest

from nnsparse.autograd import tensor
from nnsparse.nn.linear import Linear
from nnsparse.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from nnsparse.ops import losses as ops

rng = np.random.default_rng(5)
Z = rng.standard_normal((6, 3))
LABELS = rng.integers(0, 3, 6)
SHARES = rng.uniform(0.0, 1.0, (6, 3))


def test_a_loss_object_is_its_function() -> None:
    z = tensor(Z)
    pairs = [
        (CrossEntropyLoss()(z, LABELS), ops.cross_entropy(z, LABELS)),
        (CrossEntropyLoss(0.1)(z, LABELS), ops.cross_entropy(z, LABELS, 0.1)),
        (MSELoss()(z, SHARES), ops.mse(z, SHARES)),
        (BCEWithLogitsLoss()(z, SHARES), ops.bce_with_logits(z, SHARES)),
    ]
    for ours, expected in pairs:
        assert ours.shape == ()
        assert ours.item() == expected.item()


def test_settings_are_checked_at_once_and_printed() -> None:
    loss = CrossEntropyLoss(label_smoothing=0.1, class_weight=[1, 2])
    assert repr(loss) == "CrossEntropyLoss(label_smoothing=0.1, class_weight=(1.0, 2.0))"
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropyLoss(1.0)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([0, 0], ValueError, "class_weight with at least one number above 0"),
        ([1, -1], ValueError, "class_weight finite and at least 0; got -1 at 1"),
        ([1, np.nan], ValueError, "class_weight finite and at least 0; got nan at 1"),
        ([[1, 2]], ValueError, r"class_weight of shape \(n,\), one per class; got \(1, 2\)"),
        (["a"], TypeError, "class_weight as real numbers; got dtype <U1"),
    ],
)
def test_bad_class_weights_are_refused_at_once(weights, error, message) -> None:
    with pytest.raises(error, match=message):
        CrossEntropyLoss(class_weight=weights)


def test_a_whole_batch_is_the_mean_of_its_parts_by_their_total_weight() -> None:
    weight = rng.uniform(0, 2, 6)
    for loss, y in [
        (CrossEntropyLoss(class_weight=[1, 3, 0.5]), LABELS),
        (CrossEntropyLoss(), LABELS),
        (MSELoss(), SHARES),
        (BCEWithLogitsLoss(), SHARES),
    ]:
        for w in (None, weight):
            parts = [slice(0, 2), slice(2, 6)]
            own = [None if w is None else w[part] for part in parts]
            values = [loss(tensor(Z[p]), y[p], o).item() for p, o in zip(parts, own, strict=True)]
            totals = [loss.total_weight(y[p], o) for p, o in zip(parts, own, strict=True)]
            assert sum(totals) == pytest.approx(loss.total_weight(y, w))
            assert np.average(values, weights=totals) == pytest.approx(loss(tensor(Z), y, w).item())


@pytest.mark.parametrize(
    ("loss", "targets"),
    [(CrossEntropyLoss(), LABELS), (MSELoss(), SHARES), (BCEWithLogitsLoss(), SHARES)],
    ids=repr,
)
def test_every_loss_trains_a_layer(loss, targets) -> None:
    x = rng.standard_normal((6, 8)).astype(np.float32)
    layer = Linear(8, 3, rng=0)
    before = loss(layer(x), targets).item()
    for _ in range(60):
        layer.zero_grad()
        loss(layer(x), targets).backward()
        for parameter in layer.parameters():
            assert parameter.grad is not None
            parameter.data -= 0.1 * parameter.grad
    assert loss(layer(x), targets).item() < 0.9 * before


def test_a_total_of_labels_beyond_the_class_weights_is_refused() -> None:
    loss = CrossEntropyLoss(class_weight=(1.0, 2.0))
    assert loss.total_weight([1, 1, 0]) == 5.0
    with pytest.raises(ValueError, match="one number per class; got 2, and the label 2"):
        loss.total_weight([0, 2])
    with pytest.raises(TypeError, match=r"expects integer labels .*; got dtype float64"):
        loss.total_weight([0.0, 1.0])
