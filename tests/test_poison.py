"""NNSPARSE_POISON=1: every pooled buffer begins as NaN, and whole trainings come out the same, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import nnsparse
from nnsparse import tiles

# Every layer and product, sparse and dense input, both dtypes, updates of the pattern, prediction, a frozen model.
PROGRAM = """
import hashlib, warnings
import numpy as np
from scipy import sparse
import nnsparse as ns
from nnsparse import nn, optim, sparsify, tiles
warnings.simplefilter("error")
digest, rng = hashlib.sha256(), np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    X = rng.standard_normal((70, 90)).astype(dtype)
    X[X < 0.5] = 0
    y = rng.integers(0, 5, 70)
    model = nn.Sequential(
        nn.SparseLinear(90, 40, sparsity=0.8, rng=0, dtype=dtype), nn.BatchNorm1d(40, dtype=dtype), nn.ReLU(),
        nn.SparseLinear(40, 30, sparsity=0.3, rng=1, dtype=dtype), nn.GELU(), nn.Dropout(0.2, rng=0),
        nn.Linear(30, 20, rng=2, dtype=dtype), nn.Tanh(), nn.SparseLinear(20, 5, density=1, rng=3, dtype=dtype),
    )
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    rigl = sparsify.Sparsifier(model, optimizer, sparsify.rigl(every=2), 8)
    for step in range(6):
        rows = rng.permutation(70)[: 70 - 9 * step]
        x = sparse.csr_array(X[rows]) if step % 3 == 2 else X[rows]
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)(model(x), y[rows])
        optimizer.zero_grad()
        loss.backward()
        if not rigl.replaces_step:
            optimizer.step()
        rigl.step()
    frozen = ns.compile(model)
    for array in (*model.state_dict().values(), model.predict(X), frozen.predict(X), frozen.predict(X[:1])):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert np.isfinite(model.predict(X)).all()
print(tiles._POISON, digest.hexdigest())
"""


def run(poison):
    environment = {**os.environ, "PYTHONPATH": str(Path(nnsparse.__file__).parents[1])}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "NNSPARSE_POISON": poison},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout.split()


def test_a_training_in_poisoned_memory_has_the_same_bits():
    (on, poisoned), (off, clean) = run("1"), run("0")
    assert (on, off) == ("True", "False")
    assert poisoned == clean


def test_poison_is_in_every_pooled_buffer(monkeypatch):
    monkeypatch.setattr(tiles, "_POISON", True)
    assert np.isnan(tiles.empty((3, 5))).all()
    assert (tiles.empty((7,), np.int32) == -1).all()
    assert (tiles.empty((7,), np.uint8) == 255).all()
    assert not tiles.zeros((3, 5)).any()
