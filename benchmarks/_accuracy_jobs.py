"""Runs the tasks of `accuracy`, some at a time, each in a process with one thread, and keeps every finished one.

A record is a file of its own, written when its run is over; who is interrupted goes on where it was.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks._accuracy_run import RunError, Task, run
from benchmarks._common import write_json

Record = dict[str, Any]
_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def path(state: Path, task: Task) -> Path:
    """Return where the record of a task is kept: one folder for each kind of training."""
    kind = f"{task.data.split()[0].lower()}-{task.samples}-{task.epochs}"
    return state / kind / f"{task.name}.json"


def kept(state: Path, task: Task) -> Record | None:
    """Return the record of a task if there is one; other settings or data make it another task."""
    try:
        record = json.loads(path(state, task).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(record, dict) and record.get("task") == asdict(task)
    return record if same else None


def keep(state: Path, task: Task, record: Record) -> None:
    """Write a record; what was there stays whole until it is complete."""
    target = path(state, task)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, record)


def run_all(
    tasks: Sequence[Task], state: Path, jobs: int, commit: str, progress: Callable[[str], object]
) -> list[Record]:
    """Return the records of all tasks, in their order: those kept, and those of new runs.

    Parameters
    ----------
    commit : str
        Of the code, noted in new records.
    progress : callable
        Called with the name of each task that is finished.

    Raises
    ------
    RunError
        If runs failed: after all others, whose records are kept.
    """
    records = {task: record for task in tasks if (record := kept(state, task)) is not None}
    for task in records:
        progress(task.name)
    failed: list[str] = []
    missing = [task for task in tasks if task not in records]
    try:
        for task, future in _finished(missing, jobs):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise error
            if error is None:
                records[task] = {**future.result(), "commit": commit}
                keep(state, task, records[task])
            else:
                failed.append(f"{task.name}: {error or type(error).__name__}")
            progress(task.name)
    except BrokenProcessPool as error:
        raise RunError(f"a process died, what was finished is kept: {error}") from error
    if failed:
        raise RunError(
            f"{len(failed)} of {len(tasks)} runs failed, the others are kept: {'; '.join(failed)}"
        )
    return [records[task] for task in tasks]


def _finished(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Future[Record]]]:
    """Run tasks in `jobs` processes; yield each when it is over. No task waits in a process's queue."""
    if not tasks:
        return
    waiting = list(reversed(tasks))
    running: dict[Future[Record], Task] = {}
    with (
        _one_thread(),
        ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), _begin) as pool,
    ):
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop()
                running[pool.submit(run, task)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future


def _begin() -> None:
    """Let Ctrl-C, which reaches all processes of a terminal, end this one without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have processes that start meanwhile told that they have one thread, before they import anything."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
