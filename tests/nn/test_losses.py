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
    assert repr(CrossEntropyLoss(label_smoothing=0.1)) == "CrossEntropyLoss(label_smoothing=0.1)"
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropyLoss(1.0)


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
