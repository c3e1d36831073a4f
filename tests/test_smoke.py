"""Runs first, in a few seconds: if this fails, all is broken."""

import numpy as np

import nnsparse as ns
from nnsparse import data, nn, optim


def test_a_small_sparse_network_learns():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 20)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    model = nn.mlp([20, 30, 2], sparsity=0.5, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        for batch, labels in data.DataLoader((x, y), batch_size=64, rng=0):
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(model(batch), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    assert model.predict(x).shape == (64, 2)
    assert ns.memory_report(model).total > 0
