"""The structure that DESIGN §4 and STYLE promise: layers, lazy optional packages, file sizes."""

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nnsparse"
FILES = sorted(PACKAGE.rglob("*.py"))

# DESIGN §4: a module or subpackage of nnsparse -> its layer. Imports never go up.
LAYERS = {
    name: layer
    for layer, names in enumerate(
        [
            "atomic jit npz recorder simd simd_block simd_quads simd_sums space threading_layer tiles trace",
            "kernels machine schedule",
            "autograd topology plan allocation radix row_gradient rows",
            "ops parameter gradcheck jvp",
            "nn optim",
            "sparsify data datasets memory tuning profiling roofline inference",
            "train",
            "estimators distributed graph_challenge interchange testing",
        ]
    )
    for name in names.split()
}
OPTIONAL = {"torch", "sklearn", "matplotlib", "mpi4py", "onnx", "onnxruntime"}
# The exception: a package whose classes derive from those of another is of no use without it, and nothing imports it.
BUILT_ON = {"estimators": "sklearn"}
MAX_LINES = 300


class Import(NamedTuple):
    target: str  # dotted, absolute
    at_load: bool  # runs when the module is imported, not inside a function


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(file) for file in FILES}


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def targets(node: ast.Import | ast.ImportFrom, path: Path) -> list[str]:
    """`from a import b` counts as a.b when that is a module of nnsparse, else as a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = path.relative_to(ROOT).parts[:-1]
        anchor = ".".join(package[: len(package) - node.level + 1])
        base = f"{anchor}.{base}" if base else anchor
    names = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else base for name in names]


@cache
def imports(path: Path) -> tuple[Import, ...]:
    def visit(node: ast.AST, at_load: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in targets(child, path):
                    yield Import(target, at_load)
            elif isinstance(child, ast.stmt) and is_type_checking(child):
                assert isinstance(child, ast.If)
                for other in child.orelse:
                    yield from visit(other, at_load)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, at_load and not inside)

    return tuple(visit(ast.parse(path.read_text(encoding="utf-8")), True))


def layer_of(module: str) -> int:
    part = module.split(".")[1]
    assert part in LAYERS, f"{module} is in no layer: add {part!r} to LAYERS and to the design"
    return LAYERS[part]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=short)
def test_imports_go_down_the_layer_table(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    own = dotted(path)
    for target, _ in imports(path):
        if target.split(".")[0] != "nnsparse":
            continue
        assert target != "nnsparse", f"{own} imports nnsparse itself: name the module it needs"
        assert layer_of(target) <= layer_of(own), f"{own} imports {target}, a higher layer"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        own = dotted(path)
        # A package's __init__ lists what its modules offer; modules never need it.
        graph[own] = {
            target
            for target, at_load in imports(path)
            if at_load and target.startswith("nnsparse.") and target != own
        }
    order = tuple(graphlib.TopologicalSorter(graph).static_order())
    assert set(graph) <= set(order)


@pytest.mark.parametrize("path", FILES, ids=short)
def test_optional_packages_are_imported_only_inside_functions(path: Path) -> None:
    early = {target.split(".")[0] for target, at_load in imports(path) if at_load}
    own = dotted(path).split(".")[1] if path.parent != PACKAGE else ""
    assert not early & OPTIONAL - {BUILT_ON.get(own)}


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_is_short_or_says_why_not(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    header = ast.get_docstring(ast.parse(source)) or ""
    length = source.count("\n")
    assert length <= MAX_LINES or f"{MAX_LINES} lines" in header, (
        f"{short(path)} has {length} lines: split it, or say in its header why it has "
        f"more than {MAX_LINES} lines"
    )


def test_importing_nnsparse_loads_nothing_optional_and_compiles_nothing(tmp_path: Path) -> None:
    program = f"""
import sys
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    import nnsparse
assert not recorder.buffer, [str(e.data["dispatcher"]) for _, e in recorder.buffer]
loaded = sorted({OPTIONAL!r} & set(sys.modules))
assert not loaded, f"import nnsparse loads {{loaded}}"
"""
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not list(tmp_path.iterdir()), "the import wrote compiled code"


def test_no_kernel_has_the_number_of_threads_compiled_in() -> None:
    """Compiled kernels are kept on disk: those of a process with one thread serve one with two."""
    for path in (PACKAGE / "kernels").glob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert "MAX_THREADS" not in code, f"{short(path)}: pass it as an argument"
        assert "get_num_threads" not in code, f"{short(path)}: pass it as an argument"
