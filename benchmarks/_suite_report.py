"""REPORT.md: the tables and plots of all results in a folder, behind one page about the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._common import number, table
from benchmarks._suite import PARTS

Result = Mapping[str, Any]


def load(results: Path) -> dict[str, tuple[Path, Result | Exception]]:
    """Read what the parts have written, by file name, in the order of the parts.

    A file that is no result stands as the error that says so.
    """
    found: dict[str, tuple[Path, Result | Exception]] = {}
    for entry in PARTS.values():
        for stem in {**entry.full, **entry.quick}:
            path = results / f"{stem}.json"
            if path.exists():
                found[stem] = path, _read(path, entry.part.name)
    return found


def _read(path: Path, part: str) -> Result | Exception:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return error
    if not isinstance(result, dict) or result.get("benchmark") != part:
        return ValueError(f"not a result of {part}")
    return result


def joined(found: Mapping[str, tuple[Path, Result | Exception]]) -> tuple[str, list[str]]:
    """Return the report as Markdown, and a line for each file that is not in it."""
    parts = {entry.part.name: entry.part for entry in PARTS.values()}
    sections, rows, unread, machines = [], [], [], {}
    for stem, (path, result) in found.items():
        try:
            if isinstance(result, Exception):
                raise result
            text = parts[result["benchmark"]].report(result)
            rows.append(_row(stem, result))
            machines[_about(result["machine"])] = None
        except (OSError, ValueError, KeyError, TypeError) as error:
            unread.append(f"{path} is not in the report: {error!r}; run its benchmark again")
            continue
        picture = path.with_suffix(".png")
        image = f"![{stem}]({picture.name})\n\n" if picture.exists() else ""
        title, _, rest = _deeper(text).partition("\n\n")
        sections.append(f"{title}\n\n{image}{rest.strip()}")
    blocks = [
        "# Benchmarks of nnsparse",
        "Made by `python -m benchmarks`; each part says when, at which commit and with how many "
        "threads it ran. The control, a BLAS product and a memory copy before and after each part, "
        "tells a slow machine from slow code.",
        *machines,
        table(["part", "run", "threads", "commit", "seconds", "control GFLOP/s", "GB/s"], rows)
        if rows
        else "No results yet.",
        *sections,
        *unread,
    ]
    return "\n\n".join(blocks) + "\n", unread


def _deeper(text: str) -> str:
    """Return Markdown with every heading one level down."""
    lines = text.splitlines()
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in lines)


def _about(machine: Mapping[str, Any]) -> str:
    """Return the part of the machine's description that all runs on it share."""
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"- {machine['cpu']}, {machine['cores']} cores, {caches or 'caches unknown'}, "
        f"{machine['simd_bits']}-bit SIMD, {machine['system']}; Python {machine['python']}, "
        f"{versions}; BLAS {machine['blas']}"
    )


def _row(stem: str, result: Result) -> list[str]:
    m, control = result["machine"], result["control"]
    both = (control["before"], control["after"])
    ends = [" -> ".join(number(c[name]) for c in both) for name in ("gemm_gflops", "copy_gbs")]
    noisy = len(_machine.control_sentence(*both).splitlines()) > 1
    seconds = number(result["seconds"]) if "seconds" in result else ""
    run = m["time"][:10] + (", quick" if result.get("quick") else "")
    return [
        f"{stem}{' (not quiet)' if noisy else ''}",
        run,
        str(m["threads"]),
        m["commit"],
        seconds,
        *ends,
    ]
