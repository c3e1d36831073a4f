"""The documentation holds: its code runs, its commands parse, its links lead somewhere, nothing public is left out.

How a page is read: its ```python blocks run from top to bottom in one namespace, in an empty folder. A ```text block
after `<!-- output -->` must be what the block before it printed (`...` stands for anything). What machines disagree
about stands after `<!-- printed -->`, and pictures that a page's code writes in docs/assets: both are written by
`NNSPARSE_WRITE_DOCS=1 python -m pytest tests/test_docs.py -k tutorial`, and a picture carries a hash of the code that
drew it. Of ```sh blocks, each `python -m X` and `python FILE` is taken as far as its argument parser, and paths and
extras must exist.
"""

import argparse
import ast
import doctest
import hashlib
import importlib
import io
import os
import re
import runpy
import shlex
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nnsparse as ns

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
OPTIONAL = "matplotlib", "sklearn", "torch", "onnx", "onnxruntime", "mpi4py", "joblib"
OUTPUT, PRINTED = "<!-- output -->", "<!-- printed -->"
WRITE = os.environ.get("NNSPARSE_WRITE_DOCS", "") not in ("", "0")


class Block(NamedTuple):
    language: str
    line: int  # of the first line of code, from 1
    code: str
    mark: str  # the line before it


def short(value: object) -> str:
    inside = isinstance(value, Path) and ROOT in value.parents
    return value.relative_to(ROOT).as_posix() if inside else str(value)


def blocks(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start, before = [], None, ""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if start is None and text.startswith("```"):
            start, language = number, text[3:].split(" ")[0]
        elif start is not None and text == "```":
            code = textwrap.dedent("\n".join(lines[start : number - 1])) + "\n"
            found.append(Block(language, start + 1, code, before))
            start = None
        before = text or before if start is None else before
    assert start is None, f"{short(page)}:{start}: the block is not closed"
    return found


def missing(page: Path) -> list[str]:
    """Return the optional packages that the page's own code imports and that are not installed."""
    trees = [ast.parse(b.code) for b in blocks(page) if b.language == "python"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    roots = {name.split(".")[0] for name in names}
    return [name for name in OPTIONAL if name in roots and find_spec(name) is None]


class Ran(NamedTuple):
    printed: str  # all of it
    outputs: dict[int, str]  # of the block before each `<!-- printed -->`, by line


def run(page: Path, namespace: dict[str, Any]) -> Ran:
    """Run the page's Python and compare marked output."""
    printed, everything, outputs = "", [], {}
    checker = doctest.OutputChecker()
    for block in blocks(page):
        where = f"{short(page)}:{block.line}"
        if block.mark == OUTPUT:
            assert block.language == "text", f"{where}: output goes into a text block"
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(block.code, printed, flags), (
                f"{where} shows\n{block.code}\nprinted was\n{printed}"
            )
        elif block.mark == PRINTED:
            assert block.code.count("\n") == printed.count("\n") or WRITE, f"{where} is old"
            outputs[block.line] = printed
        elif block.language == "python":
            stream = io.StringIO()
            with redirect_stdout(stream):  # padded, so that tracebacks name the page's own lines
                padding = "\n" * (block.line - 1)
                exec(compile(padding + block.code, short(page), "exec"), namespace)
            printed = stream.getvalue()
            everything.append(printed)
    return Ran("".join(everything), outputs)


def pictures(page: Path, folder: Path) -> dict[Path, Path]:
    """Return what the page's code has drawn and the page shows: the file drawn, the one committed."""
    shown = re.findall(r"!\[[^\]]*\]\((assets/[^)]+)\)", page.read_text(encoding="utf-8"))
    pairs = {folder / Path(name).name: page.parent / name for name in shown}
    return {drawn: kept for drawn, kept in pairs.items() if drawn.exists()}


def digest(page: Path) -> str:
    code = "".join(block.code for block in blocks(page) if block.language == "python")
    return hashlib.sha256(code.encode()).hexdigest()


def write(page: Path, ran: Ran, folder: Path) -> None:
    """Put what was printed and drawn into the documentation."""
    from PIL import Image, PngImagePlugin

    lines = page.read_text(encoding="utf-8").splitlines()
    for block in reversed(blocks(page)):
        if block.line in ran.outputs:
            length = block.code.rstrip("\n").count("\n") + 1 if block.code.strip() else 0
            at = block.line - 1
            lines[at : at + length] = [x.rstrip() for x in ran.outputs[block.line].splitlines()]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for drawn, kept in pictures(page, folder).items():
        note = PngImagePlugin.PngInfo()
        note.add_text("Comment", digest(page))
        Image.open(drawn).save(kept, pnginfo=note, optimize=True)


def readme_learned(names: dict[str, Any], printed: str) -> None:
    assert names["accuracy"] > 0.9
    assert "bytes/nnz" in printed


def tutorial_learned(names: dict[str, Any], printed: str) -> None:
    last = {name: curve[-1] for name, curve in names["curves"].items()}
    dense, static, moved = last.values()
    assert dense > 0.95
    assert static + 0.05 < moved < dense
    seen = [
        names[t].column_counts().reshape(28, 28)[names["edge"]].sum() for t in ("before", "after")
    ]
    assert seen[1] < 0.9 * seen[0]


LEARNED = {"README.md": readme_learned, "docs/tutorial.md": tutorial_learned}
RUN = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", RUN, ids=short)
def test_the_python_blocks_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNSPARSE_DATA", str(tmp_path / "data"))
    if find_spec("matplotlib"):
        importlib.import_module("matplotlib").use("Agg")
    main = types.ModuleType("__main__")  # so that classes and functions of the page can be pickled
    monkeypatch.setitem(sys.modules, "__main__", main)
    threads = ns.get_num_threads()
    ns.set_num_threads(1)  # small networks: no thread waits for another on a busy machine
    try:
        ran = run(page, vars(main))
    except ImportError as error:
        absent = [n for n in OPTIONAL if n in str(error) and find_spec(n) is None]
        if absent or (absent := missing(page)):
            pytest.skip(f"without {', '.join(absent)}")
        raise
    finally:
        ns.set_num_threads(threads)
    if WRITE:
        write(page, ran, tmp_path)
    stale = [
        short(kept)
        for kept in pictures(page, tmp_path).values()
        if not kept.exists() or digest(page).encode() not in kept.read_bytes()
    ]
    assert not stale, f"drawn by other code; see the head of this file: {stale}"
    LEARNED.get(short(page), lambda names, printed: None)(vars(main), ran.printed)


SHOWING = "```python\nprint(1)\n```\n\n{mark}\n```text\n{shown}```\n"


@pytest.mark.parametrize(
    ("mark", "shown", "message"),
    [
        (OUTPUT, "2\n", r"page\.md:7 shows\s+2\s+printed was\s+1"),
        (PRINTED, "1\n1\n", r"page\.md:7 is old"),
    ],
)
@pytest.mark.skipif(WRITE, reason="old output is to be replaced")
def test_a_page_that_shows_what_it_does_not_print_is_noticed(
    mark: str, shown: str, message: str, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(SHOWING.format(mark=mark, shown=shown), encoding="utf-8")
    with pytest.raises(AssertionError, match=message):
        run(page, {})
    page.write_text(SHOWING.format(mark=mark, shown="1\n"), encoding="utf-8")
    assert run(page, {}).printed == "1\n"


def test_a_block_that_is_not_closed_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="the block is not closed"):
        blocks(page)


# ---------------------------------------------------------------- commands


class Command(NamedTuple):
    page: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{short(self.page)}:{self.line}"


def commands() -> Iterator[Command]:
    for page in PAGES:
        for block in blocks(page):
            if block.language not in ("sh", "bash"):
                continue
            text = block.code.replace("\\\n", "  ")
            for number, line in enumerate(text.splitlines(), block.line):
                for part in re.split(r"&&|\|", line):
                    words = shlex.split(part, comments=True)
                    while words and re.match(r"\w+=", words[0]):
                        del words[0]
                    if words:
                        yield Command(page, number, tuple(words))


def is_python(word: str) -> bool:
    return word.split("/")[-1] in ("python", "python3")


COMMANDS = list(commands())
PROGRAMS = [  # what Python runs: a file or a module of ours
    command
    for command in COMMANDS
    for at, word in enumerate(command.words[:-1])
    if is_python(word)
    and (
        command.words[at + 1].endswith(".py")
        or (command.words[at + 1] == "-m" and command.words[at + 2].startswith(("benchm", "nnsp")))
    )
]


class Parsed(BaseException):
    """Stops a program once it has understood its arguments."""


def start(words: list[str]) -> None:
    """Run `-m module ...` or `file.py ...` in this process."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


@pytest.mark.parametrize("command", PROGRAMS, ids=str)
def test_a_program_named_in_the_documentation_takes_the_options_given_to_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = list(command.words)
    if "--plot" in words:
        pytest.importorskip("matplotlib")
    at = next(i for i, word in enumerate(words) if is_python(word)) + 1
    understand = argparse.ArgumentParser.parse_args

    def parse_args(*args: Any, **kwargs: Any) -> None:
        try:
            understand(*args, **kwargs)
        except SystemExit as stop:
            if stop.code != 0:  # 0: --help
                raise
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT if words[at] == "-m" else (ROOT / words[at]).parent))
    if words[at] == "-m":
        for name in (words[at + 1], f"{words[at + 1]}.__main__"):
            monkeypatch.delitem(sys.modules, name, raising=False)  # it is run anew
    loaded = set(sys.modules)
    try:
        with pytest.raises(Parsed):
            start(words[at:])
    finally:
        for name in set(sys.modules) - loaded:
            if str(ROOT / "examples") in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_paths_and_extras_of_a_command_exist(command: Command) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", table, re.M))
    for word in command.words:
        if named := re.fullmatch(r"(?:\.|nnsparse|.*\.whl)\[([\w,-]+)\]", word):
            assert set(named[1].split(",")) <= extras, f"no such extra: {word}"
        if re.match(r"(tests|examples|benchmarks|docs|\.ci)/", word) and "*" not in word:
            assert (ROOT / word.split("::")[0]).exists(), f"no such path: {word}"


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_tests_that_are_named_exist(page: Path) -> None:
    """As `tests/x.py::test_name`, or by the sentence: `tests/x.py`: name."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", text))
    for path, sentence in re.findall(r"`(tests/[\w/]+\.py)`: ([\w ]+?)(?= *(?:<br>|\|))", text):
        named.add((path, "test_" + sentence.replace(" ", "_")))
    absent = []
    for path, name in sorted(named):
        file = ROOT / path
        if not file.exists() or f"def {name}(" not in file.read_text(encoding="utf-8"):
            absent.append(f"{path}::{name}")
    assert not absent


def test_every_module_is_in_contributings_table_of_layers() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = "".join(re.findall(r"^\| \d \|([^|]*)\|", text, re.M))
    named = set(re.findall(r"`([\w/]+)`", files))
    package = ROOT / "nnsparse"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    folders = {path.parent.name + "/" for path in package.glob("*/__init__.py")}
    assert modules | folders == named


# ---------------------------------------------------------------- links


def without_code(page: Path) -> str:
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    heads = re.findall(r"^#+ +(.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", without_code(page)):
        target, _, anchor = (link[0] or link[1]).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (
            anchor
            and path.suffix == ".md"
            and "api" not in path.parts
            and anchor not in anchors(path)
        ):
            dead.append(link[0] or link[1])
    assert not dead


# ---------------------------------------------------------------- the reference


def reference() -> dict[str, Any]:
    """Return what the reference pages show: dotted path to object."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "api").glob("*.md"))
    return {path: resolve(path) for path in re.findall(r"^::: (\S+)$", text, re.M)}


def resolve(path: str) -> Any:
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for name in parts[n:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


def public_modules() -> list[str]:
    package = ROOT / "nnsparse"
    files = {*package.rglob("__init__.py"), *package.glob("*.py")}
    parts = (
        p.relative_to(ROOT).with_suffix("").parts for p in files if "\n__all__ = " in p.read_text()
    )
    return sorted(".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts)


def test_the_reference_shows_functions_not_the_modules_of_the_same_name() -> None:
    """MkDocs takes `sparsify.n_m` for the module: such a function is shown by where it is defined."""
    wrong = [
        path
        for path, value in reference().items()
        if (ROOT / Path(*path.split("."))).with_suffix(".py").exists()
        and not isinstance(value, types.ModuleType)
    ]
    assert not wrong


@pytest.mark.parametrize("module", public_modules())
def test_every_public_name_is_in_the_reference(module: str) -> None:
    shown = reference()
    objects = {id(value) for value in shown.values()}
    found = importlib.import_module(module)
    absent = []
    for name in found.__all__:
        value = getattr(found, name)
        if isinstance(
            value, types.ModuleType
        ):  # its own names are looked for, or it is shown whole
            fine = value.__name__ in shown or hasattr(value, "__all__")
        else:
            home = getattr(value, "__module__", None)
            fine = (
                f"{module}.{name}" in shown or id(value) in objects or {module, home} & set(shown)
            )
        absent += [] if fine else [name]
    assert not absent, f"docs/api does not show {', '.join(absent)} of {module}"
