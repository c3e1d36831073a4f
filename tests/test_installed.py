"""The package as its users have it: `.ci/run` copies this file elsewhere and runs it on the installed wheel.

Nothing here knows the repository. With `NNSPARSE_INSTALLED_IN=DIR`, the package has to lie there.
"""

import importlib
import importlib.metadata
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnsparse as ns
from nnsparse import data, datasets, graph_challenge, inference, nn, optim, sparsify, train

HOME = Path(ns.__file__).parent
OPTIONAL = "torch", "sklearn", "onnx", "onnxruntime", "mpi4py", "matplotlib", "joblib"


def test_the_package_is_the_one_that_was_installed():
    if place := os.environ.get("NNSPARSE_INSTALLED_IN"):
        assert HOME.is_relative_to(place), HOME
        assert importlib.metadata.version("nnsparse") == ns.__version__
    assert (HOME / "py.typed").is_file()


def test_every_module_is_there_and_needs_no_optional_package(tmp_path):
    program = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))  # an import of these fails
import nnsparse
found = list(pkgutil.walk_packages(nnsparse.__path__, "nnsparse."))
closed = []  # packages that are built on an optional one: their modules are not walked through
for module in found:
    try:
        importlib.import_module(module.name)
    except ImportError as error:  # only to say what to install
        assert "pip install 'nnsparse[" in str(error), (module.name, error)
        closed.append(module.name)
print(len(found), *closed)
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(HOME.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    n_found, *closed = run.stdout.split()
    inside = [len(list((HOME / name.split(".", 1)[1]).glob("*.py"))) - 1 for name in closed]
    assert int(n_found) + sum(inside) == len(list(HOME.rglob("*.py"))) - 1  # but for its __init__


PACKAGES = ["nnsparse"] + [
    module.name for module in pkgutil.walk_packages(ns.__path__, "nnsparse.") if module.ispkg
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_that_a_package_lists_is_in_it(name):
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    listed = getattr(package, "__all__", ())
    assert len(set(listed)) == len(listed)
    assert not [item for item in listed if not hasattr(package, item)]


def test_from_data_to_a_file_that_predicts(tmp_path):
    (x, y), test = datasets.digits(600, 200)
    model = nn.mlp([784, 100, 10], sparsity=0.9, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = data.DataLoader((x, y), batch_size=50, rng=0)
    before = model[0].weight.topology
    recipe = sparsify.rigl(every=10)
    moving = sparsify.Sparsifier(model, optimizer, recipe, total_steps=6 * len(loader), rng=0)
    history = train.fit(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        loader,
        epochs=6,
        validation=test,
        updates=[moving],
        progress=False,
    )
    assert model[0].weight.topology != before
    assert model[0].nnz == before.nnz
    assert history["validation_accuracy"][-1] > 0.5  # a tenth by chance
    ns.compile(model).save(tmp_path / "model.bin")
    again = inference.load(tmp_path / "model.bin").predict(test[0])
    np.testing.assert_allclose(again, model.predict(test[0]), atol=1e-4)


def test_the_graph_challenge_in_small():
    assert graph_challenge.network(1024, 2).nnz == 2 * 32 * 1024


@pytest.mark.parametrize(
    ("use", "extra"),
    [
        (lambda: ns.to_torch(nn.Linear(2, 2)), "torch"),
        (lambda: ns.to_onnx(nn.Linear(2, 2), "unwritten.onnx"), "onnx"),
    ],
)
def test_what_needs_an_extra_says_which(use, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match=rf"pip install 'nnsparse\[{extra}\]'"):
        use()
