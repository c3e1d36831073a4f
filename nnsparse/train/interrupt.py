"""Ctrl-C between two steps, never within one: `stop_on_interrupt`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final


@final
class Interrupt:
    """Whether somebody has pressed Ctrl-C.

    Attributes
    ----------
    requested : bool
    """

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_interrupt() -> Iterator[Interrupt]:
    """Note the first Ctrl-C instead of raising KeyboardInterrupt; the second one raises it.

    A loop that looks at `requested` between its steps leaves model, optimizer and pattern as a whole step left them.
    Outside the main thread, and where the program has its own handler of SIGINT, nothing changes.

    Yields
    ------
    Interrupt
    """
    interrupt = Interrupt()
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
