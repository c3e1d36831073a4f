"""What all benchmarks share: a part, how it is measured, its command line, outputs and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import _common, _machine

Result = Mapping[str, Any]
PLOTS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Part:
    """A benchmark: what it measures and how that is shown.

    Attributes
    ----------
    measure : Settings -> result
        Raises ValueError for settings that cannot be run, one of `failures` for a wrong result.
    report : result -> Markdown
    plot : (result, path) -> None; None for a part without a picture
    failures : exceptions that end the program with code 1
    no_plot : Settings -> why these cannot be drawn, or ""
    """

    name: str
    measure: Callable[[Any], Result]
    report: Callable[[Result], str]
    plot: Callable[[Result, Path], None] | None
    failures: tuple[type[Exception], ...] = ()
    no_plot: Callable[[Any], str] = lambda settings: ""


def measured(
    name: str,
    settings: Any,
    work: Callable[[Any], Mapping[str, Any]],
    *,
    blocks: int,
    unit: str = "block",
    control_size: int = 1024,
) -> dict[str, Any]:
    """Run `work` with the threads of the settings, between two controls; return a part's whole result.

    Parameters
    ----------
    work : callable
        Takes the progress bar, of `blocks` units; returns what is special to the part.

    Raises
    ------
    ValueError
        If there are fewer cores than threads.
    """
    threads = of_threads(settings)
    with _machine.limit_threads(threads) as told:
        machine = _machine.describe(threads, told)
        before = _machine.control(control_size)
        with tqdm(total=blocks, desc=name, unit=unit, disable=None) as bar:
            found = work(bar)
        after = _machine.control(control_size)
    return {
        "benchmark": name,
        "machine": machine,
        "settings": asdict(settings),
        "control": {"before": before, "after": after},
        **found,
    }


def add_outputs(p: argparse.ArgumentParser, plot: bool = True) -> None:
    """Add --json, and --plot for a part that has a picture."""
    p.add_argument("--json", type=_common.output_file, metavar="PATH", help="write the result")
    if plot:
        p.add_argument(
            "--plot", type=_common.output_file, metavar="PATH", help=".png, .svg or .pdf"
        )


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def run(
    part: Part,
    p: argparse.ArgumentParser,
    settings: Callable[[dict[str, Any]], Any],
    argv: Sequence[str] | None,
    pin: Callable[[Any], int] | None = None,
) -> int:
    """Parse, measure, print, write; return 0, or 1 for a wrong result (a wrong argument exits with 2).

    Parameters
    ----------
    settings : callable
        Makes the part's settings from the parsed arguments.
    pin : callable, optional
        Settings -> threads that the whole process is told, for programs.
    """
    given = vars(p.parse_args(argv))
    json_path, plot_path = given.pop("json"), given.pop("plot", None)
    chosen = settings(given)
    if plot_path and plot_path.suffix.lower() not in PLOTS:
        p.error(f"--plot draws .png, .svg or .pdf; got {plot_path.name!r}")
    if plot_path and part.no_plot(chosen):
        p.error(f"--plot {part.no_plot(chosen)}")
    if plot_path and not can_plot():
        p.error("--plot needs matplotlib: pip install 'nnsparse[plot]'")
    if pin:
        _machine.pin(pin(chosen))
    try:
        result = part.measure(chosen)
    except part.failures as error:
        print(f"{part.name}: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        p.error(str(error))
    print(part.report(result))
    if json_path:
        _common.write_json(json_path, result)
    if plot_path and part.plot:
        part.plot(result, plot_path)
    return 0


def of_threads(settings: Any) -> int:
    """Return the threads of settings, the most if there are several numbers of them."""
    threads = settings.threads
    return max(threads) if isinstance(threads, tuple) else int(threads)
