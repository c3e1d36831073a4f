"""What the examples share: choosing data and files, training one network with records, tables and plots."""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nnsparse as ns
from nnsparse import datasets, nn, optim, tiles
from nnsparse.data import DataLoader
from nnsparse.train import NonFiniteLossError, check_finite

Split = tuple[np.ndarray, np.ndarray]


def load_digits(name: str) -> tuple[str, Split, Split]:
    """Return (what it is, (X_train, y_train), (X_test, y_test)) for "auto", "mnist" or "digits"."""
    if name != "digits":
        try:
            train, test = datasets.mnist()
            return "MNIST", train, test
        except datasets.DataUnavailable as error:
            if name == "mnist":
                raise SystemExit(str(error)) from None
            print(
                "MNIST cannot be had, so the embedded digits are used instead. Why, and how to get it:"
            )
            print("".join(f"  | {line}\n" for line in str(error).splitlines()))
    train, test = datasets.digits()
    return "digits (embedded, drawn by nnsparse)", train, test


def load_reviews(name: str, **settings: int) -> tuple[str, Split, Split]:
    """Return (what it is, train, test) for "auto", "imdb" or "generated", as `datasets.imdb` encodes reviews."""
    if name != "generated":
        try:
            return "IMDb", *datasets.imdb(**settings)
        except datasets.DataUnavailable as error:
            if name == "imdb":
                raise SystemExit(str(error)) from None
            print(
                "IMDb cannot be had, so generated reviews are used instead. Why, and how to get it:"
            )
            print("".join(f"  | {line}\n" for line in str(error).splitlines()))
    return "generated reviews", *datasets.reviews(**settings)


def at_least(lowest: int) -> Callable[[str], int]:
    """Return what reads an integer from `lowest` on, for argparse."""

    def count(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"expected at least {lowest}; got {number}")
        return number

    return count


def input_file(text: str) -> Path:
    """Return the path of a file that is there, for argparse."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text!r}")
    return path


def output_file(text: str) -> Path:
    """Return a path that can be written, for argparse: what is wrong with it shows before the training."""
    path = Path(text)
    exists = path.exists()
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
    if not exists:
        path.unlink()
    return path


def picture_file(text: str) -> Path:
    """Return the path of a picture that matplotlib can draw and that can be written, for argparse."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise argparse.ArgumentTypeError("needs matplotlib: pip install 'nnsparse[plot]'") from None
    kinds = FigureCanvasBase.get_supported_filetypes()
    if Path(text).suffix[1:].lower() not in kinds:
        raise argparse.ArgumentTypeError(f"draws {', '.join(kinds)}; got {text!r}")
    return output_file(text)


def peak_bytes(step: Callable[[], object]) -> int:
    """Return how many bytes a step takes at most, when all that is made once is there."""
    for _ in range(2):
        tiles.pool.clear()
        tracemalloc.start()
        step()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return most


class Run:
    """One network in training, with its records."""

    def __init__(self, name: str, model: nn.Sequential, lr: float, momentum: float) -> None:
        self.name, self.model = name, model
        self.optimizer = optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        self.masks: list[tuple[ns.Parameter, np.ndarray]] = []  # dense weights with zeros that stay
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.accuracy: list[float] = []

    def epoch(self, loader: DataLoader, test: Split, bar: Any) -> None:
        """Train for one epoch, then measure the test accuracy."""
        loss_fn = nn.CrossEntropyLoss()
        threads = ns.get_num_threads()
        if any(isinstance(layer, nn.NumpyLinear) for layer in self.model):
            ns.set_num_threads(1)  # BLAS has its own threads; ours would fight them for the cores
        for x, y in loader:
            start = time.perf_counter()
            loss = loss_fn(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            for parameter, mask in self.masks:
                parameter.grad *= mask
            self.optimizer.step()
            self.seconds.append(time.perf_counter() - start)
            step = len(self.losses)
            try:
                self.losses.append(check_finite(loss, self.model, step, self.optimizer))
            except NonFiniteLossError as error:
                raise SystemExit(f"{self.name}: {error}") from None
            bar.update()
        ns.set_num_threads(threads)
        self.accuracy.append(float((self.model.predict(test[0]).argmax(1) == test[1]).mean()))
        bar.set_postfix_str(
            f"{self.name}: loss {self.losses[-1]:.3f}, test {self.accuracy[-1]:.2%}"
        )

    def summary(self) -> dict[str, Any]:
        """Return what tables and JSON files show; the loss is the mean of the last epoch."""
        steps = len(self.losses) // len(self.accuracy)
        return {
            "network": self.name,
            "loss": float(np.mean(self.losses[-steps:])),
            "test_accuracy": self.accuracy[-1],
            "ms_per_step": 1e3 * float(np.median(self.seconds)),
            "bytes": ns.memory_report(self.model).weights_and_state,
            "parameters": sum(p.size for p in self.model.parameters()),
        }


def results_table(runs: Sequence[Run]) -> str:
    """Return the summaries as a table; speed is relative to the last run."""
    rows = [["network", "loss", "test", "ms/step", "speed", "weights + state", "parameters"]]
    summaries = [run.summary() for run in runs]
    for r in summaries:
        speed = summaries[-1]["ms_per_step"] / r["ms_per_step"]
        rows.append(
            [r["network"], f"{r['loss']:.4f}", f"{r['test_accuracy']:.2%}"]
            + [f"{r['ms_per_step']:.3f}", f"{speed:.2f}x"]
            + [f"{r['bytes'] / 1e6:.3f} MB", f"{r['parameters']:,}"]
        )
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first one a header, as aligned text: first column left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def plot_runs(runs: Sequence[Run], title: str, path: Path) -> None:
    """Draw loss curves, test accuracy and time per step into an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for i, run in enumerate(runs):
        color, style = f"C{i}", ("-", "--", "-.", ":")[i % 4]
        window = max(1, len(run.losses) // 100)
        kept = len(run.losses) // window * window
        smooth = np.reshape(run.losses[:kept], (-1, window)).mean(1)
        axes[0].plot(np.arange(len(smooth)) * window, smooth, style, color=color, label=run.name)
        epochs = np.arange(1, len(run.accuracy) + 1)
        axes[1].plot(epochs, np.multiply(run.accuracy, 100), style, color=color, marker=".")
        bars = axes[2].barh(run.name, 1e3 * np.median(run.seconds), color=color)
        axes[2].bar_label(bars, fmt="%.2f ms", padding=3)
    axes[0].set(xlabel="step", ylabel="training loss (cross-entropy)", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="test accuracy (%)")
    axes[1].set_xticks(np.unique(np.linspace(1, len(runs[0].accuracy), 6).round()))
    axes[2].set(xlabel="median time per training step (ms)")
    axes[2].invert_yaxis()
    axes[2].margins(x=0.25)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
