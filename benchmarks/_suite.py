"""The parts of `python -m benchmarks` and the settings of each, quick and full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from benchmarks import (
    accuracy,
    challenge,
    choices,
    crossover,
    dead_rows,
    estimators,
    fuzz,
    kernels,
    learning,
    memory,
    multicore,
    pruning,
    resume,
    soak,
    startup,
    text,
    thesis,
    training,
    wide,
)
from benchmarks._networks import RIVALS as NETWORK_RIVALS
from benchmarks._program import Part


@dataclass(frozen=True)
class Entry:
    """A part, what it shows, its runs (file name -> settings), and whether it runs without being asked."""

    part: Part
    what: str
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    always: bool = True


@dataclass(frozen=True)
class Job:
    """One run of a part."""

    part: Part
    settings: Any
    quick: bool


# The plain layouts are slower than all others by so much that they are timed in `thesis` only.
_TRAINING = tuple(name for name in NETWORK_RIVALS if name not in ("csr", "csc", "coo"))
_LAYER = tuple(name for name in kernels.RIVALS if name not in ("csc", "coo"))
_SPARSITIES = (0.8, 0.9, 0.95, 0.98)
_SHORT = ("nnsparse", "dense", "numpy", "torch", "torch-sparse", "mkl")

PARTS: Mapping[str, Entry] = {
    "kernels": Entry(
        kernels.PART,
        "one layer's step against every rival, by sparsity",
        {
            "kernels-1024": kernels.Settings(repeats=7, rivals=_LAYER),
            "kernels-2048": kernels.Settings(n_in=2048, n_out=2048, repeats=5, rivals=_SHORT),
            "kernels-4096": kernels.Settings(n_in=4096, n_out=4096, repeats=5, rivals=_SHORT),
        },
        {
            "kernels-1024": kernels.Settings(
                sparsity=(0.5, 0.8, 0.95), repeats=3, calls=2, rivals=_LAYER
            )
        },
    ),
    "crossover": Entry(
        crossover.PART,
        "from which sparsity on sparse is faster: sizes × batches × threads × sparsity",
        {"crossover": crossover.Settings(batches=(64, 256))},
        {
            "crossover": crossover.Settings(
                sizes=(1024,),
                sparsity=(0.0, 0.1, 0.3, 0.7, 0.95, 0.999),
                repeats=3,
                calls=2,
                rivals=("nnsparse", "numpy", "torch"),
            )
        },
    ),
    "choices": Entry(
        choices.PART,
        "what the automatic choices (slabs, quads, lanes, tiles a task) lose against forced settings",
        {"choices": choices.Settings()},
        {
            "choices": choices.Settings(
                sizes=(1024,), sparsity=(0.5, 0.9), lanes=(), tiles=(1, 4), repeats=3
            )
        },
    ),
    "thesis": Entry(
        thesis.PART,
        "the thesis' tables (a pass at 2048, 4096, 8192 features, its sections) and loss curves",
        {"thesis": thesis.Settings()},
        {"thesis": thesis.Settings(features=(2048,), repeats=3, epochs=3, samples=6400)},
    ),
    "multicore": Entry(
        multicore.PART,
        "the multicore paper's networks: one sample through 99.5 % pruned MLPs",
        {"multicore": multicore.Settings()},
        {"multicore": multicore.Settings(repeats=3, passes=20)},
    ),
    "training": Entry(
        training.PART,
        "whole training steps of MLPs",
        {
            "training": training.Settings(
                nets=("thesis-64", "thesis-256", "lenet-100", "deep-100", "wide-256"),
                repeats=9,
                rivals=_TRAINING,
                sparsities=_SPARSITIES,
            ),
            "training-square": training.Settings(
                nets=("square-2048", "square-4096", "square-8192"),
                repeats=5,
                calls=1,
                rivals=_TRAINING,
                sparsities=_SPARSITIES,
            ),
        },
        {
            "training": training.Settings(
                nets=("thesis-64", "lenet-100"),
                repeats=3,
                rows=6400,
                rivals=_TRAINING,
                sparsities=(0.9,),
            )
        },
    ),
    "learning": Entry(
        learning.PART,
        "whole epochs on MNIST: test accuracy over seconds, and the seconds to reach 95 and 97 %",
        {"learning": learning.Settings()},
        {
            "learning": learning.Settings(
                nets=("lenet-100",),
                sparsities=(0.9, 0.98),
                goals=(0.8, 0.9),
                epochs=2,
                checks=2,
                samples=6000,
                test_samples=2000,
                rivals=("nnsparse", "dense", "numpy", "torch"),
            )
        },
    ),
    "pruning": Entry(
        pruning.PART,
        "whole trainings with recipes against the dense one, and what updates cost",
        {"pruning": pruning.Settings()},
        {"pruning": pruning.Settings(sizes=(784, 300, 100, 10), steps=200, every=40, refresh=100)},
    ),
    "text": Entry(
        text.PART,
        "sentiment of film reviews: accuracy, seconds of an epoch and of reading",
        {"text": text.Settings()},
        {
            "text": text.Settings(
                nets=("words", "sparse"),
                seeds=1,
                samples=12_000,
                batch=32,
                data="generated",
                loading=False,
            )
        },
    ),
    "challenge": Entry(
        challenge.PART,
        "inference of the Sparse DNN Graph Challenge's networks, edges per second",
        {"challenge": challenge.Settings()},
        {"challenge": challenge.QUICK},
    ),
    "dead_rows": Entry(
        dead_rows.PART,
        "when it pays to drop dead samples between the layers of a frozen network",
        {"dead_rows": dead_rows.Settings()},
        {
            "dead_rows": dead_rows.Settings(
                neurons=(256,), depths=(4,), dead=(0.0, 0.5, 0.9), repeats=3
            )
        },
    ),
    "estimators": Entry(
        estimators.PART,
        "scikit-learn's classifier and ours on MNIST: accuracy and seconds of fit",
        {"estimators": estimators.Settings()},
        {"estimators": estimators.Settings(hidden=(300, 100), epochs=4, samples=6000)},
    ),
    "memory": Entry(
        memory.PART,
        "bytes by kind and peak resident size of training, each in a fresh process",
        {"memory": memory.Settings()},
        {"memory": memory.Settings(sizes=(2048, 2048, 10), rivals=("nnsparse", "dense"))},
    ),
    "wide": Entry(
        wide.PART,
        "cost against width, up to ten million neurons: 13 GB; --only wide",
        {"wide": wide.Settings(), "wide-64": wide.Settings(batch=64)},
        {"wide": wide.Settings(neurons=(10_000, 100_000), steps=3)},
        always=False,
    ),
    "startup": Entry(
        startup.PART,
        "import and first steps, with an empty and a warm cache of compiled code",
        {"startup": startup.Settings()},
        {"startup": startup.Settings(programs=("thesis",), repeats=3, empty=1)},
    ),
    "resume": Entry(
        resume.PART,
        "trainings killed at random moments, started again, and compared bit for bit",
        {"resume": resume.Settings()},
        {"resume": resume.Settings(kills=2, samples=1280)},
    ),
    "fuzz": Entry(
        fuzz.PART,
        "mutated files for every reader: what is accepted, refused, and why; --only fuzz, an hour",
        {"fuzz": fuzz.Settings()},
        {"fuzz": fuzz.Settings(files=200)},
        always=False,
    ),
    "soak": Entry(
        soak.PART,
        "half an hour of training, saving and predicting: whether memory stays flat; --only soak",
        {"soak": soak.Settings()},
        {"soak": soak.Settings(minutes=1.0, warm_up=0.3, samples=2000)},
        always=False,
    ),
    "accuracy": Entry(
        accuracy.PART,
        "test accuracy of every method by sparsity, beside published figures; --only accuracy, an hour or two",
        {"accuracy": accuracy.Settings()},
        {"accuracy": accuracy.QUICK},
        always=False,
    ),
}


def known_rivals() -> tuple[str, ...]:
    """Return the rivals of all parts."""
    every = (
        name
        for entry in PARTS.values()
        for settings in entry.full.values()
        for name in getattr(settings, "rivals", ())
    )
    return tuple(dict.fromkeys(every))


def jobs(
    only: Sequence[str],
    quick: bool,
    threads: int,
    repeats: int | None = None,
    rivals: Sequence[str] | None = None,
) -> tuple[dict[str, Job], list[str]]:
    """Return the runs by file name, and a line for each that has none of the rivals.

    Parts with several numbers of threads get one thread and `threads`.
    """
    found: dict[str, Job] = {}
    left_out = []
    for name in only:
        entry = PARTS[name]
        for stem, settings in (entry.quick if quick else entry.full).items():
            changed = _changed(settings, threads, repeats, rivals)
            if changed is None:
                left_out.append(f"{stem} left out: of its rivals none is in --rivals")
            else:
                found[stem] = Job(entry.part, changed, quick)
    return found, left_out


def _changed(
    settings: Any, threads: int, repeats: int | None, rivals: Sequence[str] | None
) -> Any | None:
    """Return the settings with what the command line says, None if no rival is left."""
    several = isinstance(settings.threads, tuple)
    known = {field.name for field in fields(settings)}
    changes: dict[str, Any] = {"threads": tuple(sorted({1, threads})) if several else threads}
    if repeats is not None and "repeats" in known:
        changes["repeats"] = repeats
    if rivals is not None and "rivals" in known:
        changes["rivals"] = tuple(name for name in settings.rivals if name in rivals)
        if not changes["rivals"]:
            return None
    return replace(settings, **changes)
