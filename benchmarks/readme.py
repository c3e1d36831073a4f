"""Writes the figures of the README and of the guide from the JSON files of the benchmarks, so that none is typed.

    python -m benchmarks.readme benchmarks/results/*.json

What stands between `<!-- figures -->` and `<!-- /figures -->` is replaced, in README.md by three short tables
(`_readme_summary`), in docs/guide/benchmarks.md by all of them; the rest stays. The README's plot is drawn from the
crossover's file. Everything measured is in the files, and printed by each benchmark itself.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:  # run as a file: the folder above holds the packages, this one does not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import (
    _accuracy_report,
    _challenge_report,
    _common,
    _machine,
    _readme_summary,
    _text_report,
    startup,
)
from benchmarks._command import SETTINGS, command
from benchmarks._common import TOTAL, number, spread, table

ROOT = Path(__file__).resolve().parents[1]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "guide" / "benchmarks.md"
PLOT = ROOT / "docs" / "assets" / "speed.png"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
LABELS = {
    "nnsparse": "**nnsparse**",
    "dense": "`nn.Linear`",
    "numpy": "NumPy",
    "torch": "torch",
    "torch-sparse": "torch sparse",
}
# Measured too, but shown in the suite's report only.
ELSEWHERE = (
    "choices",
    "crossover",
    "dead_rows",
    "learning",
    "memory",
    "multicore",
    "pruning",
    "registers",
    "thesis",
)
# What a program can be trusted with: their own reports are shown in the guide, as they are.
REPORTED = "resume", "distributed", "estimators", "wide", "fuzz", "soak"
Result = Mapping[str, Any]


class ReadmeError(ValueError):
    """The README has no place for figures, or a file has none to give."""


# ---------------------------------------------------------------- tables


def kernel_table(results: Sequence[Result]) -> str:
    """Return how many times faster than NumPy dense a layer step is, by size and sparsity.

    Other rivals than nnsparse are shown at the smallest size only.
    """
    results = sorted(results, key=lambda r: (r["settings"]["n_in"], r["settings"]["n_out"]))
    columns = sorted({entry["sparsity"] for r in results for entry in r["results"]})
    rows = []
    for result in results:
        by_sparsity = {entry["sparsity"]: entry["rivals"] for entry in result["results"]}
        names = [name for name in LABELS if name not in ("nnsparse", "numpy")]
        for name in ["nnsparse", *(names if result is results[0] else ())]:
            found = [by_sparsity.get(column, {}).get(name) for column in columns]
            if any(found):
                cells = [f"{number(row['speedup'])}×" if row else "" for row in found]
                rows.append([f"{_layer(result)}, {LABELS[name]}", *cells, _numpy_ms(result)])
    s = results[0]["settings"]
    intro = (
        "**Layer step** (forward, input gradient, weight gradient): times faster than NumPy dense, "
        f"by sparsity; batch {s['batch']}, float32, {s['threads']} threads."
    )
    header = ["layer", *(f"{100 * column:.4g} %" for column in columns), "NumPy dense, ms"]
    return _block(intro, table(header, rows), results)


def _layer(result: Result) -> str:
    return "{n_in} → {n_out}".format(**result["settings"])


def _numpy_ms(result: Result) -> str:
    rows = [entry["rivals"]["numpy"]["sections"][TOTAL] for entry in result["results"]]
    return number(median(row["median_ms"] for row in rows))


def training_table(results: Sequence[Result]) -> str:
    """Return milliseconds per training step of the rivals that all results have, and ours against each."""
    results = sorted(results, key=lambda r: r["results"][0]["sizes"])
    s, notes = results[0]["settings"], [result["notes"] for result in results]
    names = [name for name in LABELS if all(name in found for found in notes)]
    others = [name for name in names if name != "nnsparse"]
    rows = []
    for entry in [entry for result in results for entry in result["results"]]:
        rivals = entry["rivals"]
        shape = _readme_summary.network(entry["sizes"])
        ratios = [f"{number(rivals['nnsparse']['speedup'][name])}×" for name in others]
        rows.append(
            [
                f"{shape}, {entry['note']}",
                str(entry["batch"]),
                *(spread(rivals[name]) for name in names),
                *ratios,
            ]
        )
    optimizer = f"SGD with momentum {s['momentum']:g}" if s["momentum"] else "SGD"
    intro = (
        f"**Training step** (batch, forward, loss, backward, {optimizer}), Python overhead and "
        f"all: ms, median ± half the interquartile range, and × how many times faster nnsparse is; "
        f"{s['threads']} threads. NumPy is `nn.NumpyLinear`, "
        "BLAS on all threads and the rest on one."
    )
    header = ["network", "batch", *(LABELS[name] for name in names)]
    compared = [f"× {LABELS[name]}" for name in others]
    return _block(intro, table([*header, *compared], rows), results)


def startup_table(result: Result) -> str:
    """Return the seconds of import and of first steps."""
    rows = []
    for entry in result["results"]:
        parts = {name: part["median_ms"] * 1e-3 for name, part in entry["sections"].items()}
        if entry["program"] == "import":
            rows.append(["`import nnsparse`, after Numba's own", number(parts["import_nnsparse"])])
            continue
        what = f"first training step of {startup.PROGRAMS[entry['program']]}"
        rows.append([f"{what}, {entry['cache']} cache", number(parts["first_step"])])
    intro = "**Start of a program**, in processes of its own: seconds, median."
    return _block(intro, table(["", "s"], rows), [result])


def accuracy_table(result: Result) -> str:
    """Return the test accuracies by method and sparsity, and published ones."""
    intro = f"**Accuracy**, LeNet-300-100 on MNIST. {_accuracy_report.legend(result)}"
    return _block(intro, _accuracy_report.accuracies(result), [result])


def text_table(result: Result) -> str:
    """Return the accuracies on film reviews."""
    intro = f"**Film reviews** ({result['data']}). {_text_report.legend(result)}"
    return _block(intro, _text_report.accuracies(result), [result])


def challenge_table(result: Result) -> str:
    """Return edges per second in the Graph Challenge's networks, ours and published ones."""
    intro = (
        f"**Sparse DNN Graph Challenge** on {result['data']}, {result['settings']['threads']} threads: edges per "
        f"second of inference, by neurons × layers. {_challenge_report.LEGEND}"
    )
    return _block(intro, _challenge_report.rates(result), [result])


def own_report(result: Result) -> str:
    """Return what a benchmark's own report says, as a part of a page: its headings two levels down."""
    kind = result["benchmark"]
    own = find_spec(f"benchmarks._{kind}_report")
    text: str = import_module(own.name if own else f"benchmarks.{kind}").report(result)
    return re.sub(r"^(#+) ", r"##\1 ", text.strip(), flags=re.M)


def _block(intro: str, rows: str, results: Sequence[Result]) -> str:
    commands = ", ".join(f"`{command(result)}`" for result in results)
    return f"{_wrap(intro)}\n\n{rows}\n\n{_wrap(f'Made by {commands}.')}"


def _wrap(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


# ---------------------------------------------------------------- where they come from


def machines(results: Sequence[Result]) -> str:
    """Return each machine with its versions, then commits and dates, and what was not quiet."""
    lines: dict[str, dict[str, None]] = {}
    warnings = []
    for result in results:
        m, control = result["machine"], result["control"]
        caches = ", ".join(f"{level} {size}" for level, size in m["caches"].items())
        versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
        line = (
            f"Measured on {m['cpu']}, {m['cores']} cores, {caches or 'caches unknown'}, "
            f"{m['simd_bits']}-bit SIMD; Python {m['python']}, {versions}; BLAS {m['blas']}"
        )
        when = f"{result['benchmark']} at commit {m['commit']}, {m['time'][:10]}"
        lines.setdefault(line, {})[when] = None
        if result["benchmark"] == "accuracy" and not result["settings"]["timing"]:
            continue  # nothing was timed
        warning = _machine.control_sentence(control["before"], control["after"]).splitlines()[1:]
        warnings += [_wrap(f"{text} (`{command(result)}`)") for text in warning]
    return "\n\n".join([_wrap(f"{a}; {'; '.join(b)}.") for a, b in lines.items()] + warnings)


def figures(results: Sequence[Result]) -> str:
    """Return all tables as Markdown; nothing for no results.

    Raises
    ------
    ReadmeError
        If a result has not the form that its benchmark writes.
    """
    by_kind = sorted_by_kind(results)
    try:
        blocks = [kernel_table(by_kind["kernels"])] if by_kind["kernels"] else []
        blocks += [training_table(by_kind["training"])] if by_kind["training"] else []
        blocks += [startup_table(result) for result in by_kind["startup"]]
        blocks += [accuracy_table(result) for result in by_kind["accuracy"]]
        blocks += [text_table(result) for result in by_kind["text"]]
        blocks += [challenge_table(result) for result in by_kind["challenge"]]
        ordered = [result for kind in SETTINGS for result in by_kind[kind]]
        reports = [own_report(result) for kind in REPORTED for result in by_kind[kind]]
        return "\n\n".join([*blocks, machines(ordered), *reports]).strip()
    except (KeyError, TypeError) as error:
        raise ReadmeError(f"a result lacks {error}: run its benchmark again") from None


def summary(results: Sequence[Result]) -> str:
    """Return the README's tables as Markdown; nothing for no results.

    Raises
    ------
    ReadmeError
        If a result has not the form that its benchmark writes.
    """
    try:
        return _readme_summary.summary(sorted_by_kind(results))
    except (KeyError, TypeError) as error:
        raise ReadmeError(f"a result lacks {error}: run its benchmark again") from None


def sorted_by_kind(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each benchmark that has a table or is reported, in the order of the page."""
    by_kind: dict[str, list[Result]] = {kind: [] for kind in (*SETTINGS, *REPORTED)}
    for result in results:
        by_kind[result["benchmark"]].append(result)
    return by_kind


def load(paths: Sequence[Path]) -> list[Result]:
    """Read results, in the order of the file names; leave out what is shown elsewhere.

    Raises
    ------
    ReadmeError
        If a file cannot be read or is not a result of a benchmark.
    """
    results = []
    for path in sorted(paths, key=lambda path: path.name):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ReadmeError(f"cannot read {path}: {error}") from None
        kind = result.get("benchmark") if isinstance(result, dict) else None
        shown = *SETTINGS, *REPORTED
        if kind not in shown and kind not in ELSEWHERE:
            raise ReadmeError(f"{path} is not a result of one of {', '.join(shown)}")
        if kind in shown:
            results.append(result)
    return results


# ---------------------------------------------------------------- the README


def split(text: str) -> tuple[str, str, str]:
    """Return what stands before, between and after the markers.

    Raises
    ------
    ReadmeError
        If there is not exactly one of each, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    between, end, after = rest.partition(END)
    if not begin or not end or any(mark in before + between + after for mark in (BEGIN, END)):
        raise ReadmeError(f"expected one {BEGIN} and, behind it, one {END} in the page")
    return before, between, after


def rewrite(text: str, tables: str) -> str:
    """Return the README's text with `tables` between the markers."""
    before, _, after = split(text)
    return f"{before}{BEGIN}\n{tables}{chr(10) if tables else ''}{END}{after}"


def crossover(paths: Sequence[Path]) -> Result | None:
    """Return the crossover's result, which the README's plot is drawn from, if it is among the files."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]
    return next((result for result in found if result["benchmark"] == "crossover"), None)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 2 for a wrong argument, file or page."""
    p = argparse.ArgumentParser(prog="readme", description=(__doc__ or "").split("\n")[0])
    p.add_argument("results", type=Path, nargs="+", metavar="JSON", help="what benchmarks wrote")
    p.add_argument("--readme", type=_common.output_file, default=README, metavar="PATH")
    p.add_argument("--page", type=_common.output_file, default=PAGE, metavar="PATH")
    p.add_argument("--plot", type=_common.output_file, default=PLOT, metavar="PATH")
    args = p.parse_args(argv)
    try:
        results = load(args.results)
        tables = figures(results), summary(results)
        pages = args.page, args.readme
        texts = [
            rewrite(page.read_text(encoding="utf-8"), text)
            for page, text in zip(pages, tables, strict=True)
        ]
        drawn = crossover(args.results)
    except (ReadmeError, OSError) as error:
        p.error(str(error))
    for page, text in zip(pages, texts, strict=True):
        _replace(page, text)
    if drawn is not None:
        _readme_summary.plot(drawn, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
