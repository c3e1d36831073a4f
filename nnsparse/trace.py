"""The hooks of `ns.profile`: where the library says what it is doing, if anybody in this thread records it.

While nobody records, `active` is None, and a hook costs its caller one comparison: `f = work if trace.active is None
else trace.section("layout", work)`. What is recorded, and how, is in `recorder`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from nnsparse.recorder import PYTHON, Recorder

P = ParamSpec("P")
R = TypeVar("R")
Function = Callable[..., Any]

active: dict[int, Recorder] | None = None  # by thread; replaced, never changed
_changing = threading.Lock()


def current() -> Recorder | None:
    """Return the recorder of this Python thread."""
    recorders = active
    return None if recorders is None else recorders.get(threading.get_ident())


def install(recorder: Recorder | None) -> None:
    """Record this Python thread from now on; with None, no longer."""
    global active
    with _changing:
        others = dict(active or {})
        others.pop(threading.get_ident(), None)
        if recorder is not None:
            others[threading.get_ident()] = recorder
        active = others or None


# ---------------------------------------------------------------- hooks
# Each may be called at any time; what is called often first looks whether `active` is None.


def section(name: str, function: Callable[P, R]) -> Callable[P, R]:
    """Return the function; where this thread is recorded, its time goes to this section of the present layer."""
    recorder = current()
    return function if recorder is None else recorder.call(recorder.layer, name, function)


def timed(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes a function a section, for functions that are called about once a step."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            chosen = function if active is None else section(name, function)
            return chosen(*args, **kwargs)

        return run

    return decorate


def kernel(name: str, dispatcher: Function) -> Function:
    """Return the compiled kernel; where this thread is recorded, its time goes to the section that it serves."""
    recorder = current()
    return dispatcher if recorder is None else recorder.kernel(name, dispatcher)


def product(structure: Any, name: str, batch: int) -> Function:
    """Return the method `name` of a structure; where this thread is recorded, its operations and bytes are, too."""
    launch: Function = getattr(structure, name)
    recorder = current()
    return launch if recorder is None else recorder.product(structure, name, batch)


def whole(name: str, forward: Function, flops: int, nbytes: int, itemsize: int) -> Function:
    """Return a pass through a whole network; where this thread is recorded, so are its operations and bytes."""
    recorder = current()
    return forward if recorder is None else recorder.whole(name, forward, flops, nbytes, itemsize)


def layer(module: Any) -> Function:
    """Return a module's `forward`; where this thread is recorded, all that it does belongs to that layer."""
    recorder = current()
    forward: Function = module.forward
    return forward if recorder is None else recorder.call(recorder.name_of(module), PYTHON, forward)


def bind(rule: Callable[P, R]) -> Callable[P, R]:
    """Return a gradient rule that belongs to the layer that is being computed now."""
    recorder = current()
    if recorder is None or not recorder.layer:
        return rule
    name = recorder.layer

    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        present = current()
        run = rule if present is None else present.call(name, PYTHON, rule)
        return run(*args, **kwargs)

    return bound


def update(function: Callable[P, R], parameter: Any, n_buffers: int) -> Callable[P, R]:
    """Return an optimizer's update of one parameter: it reads a gradient, and reads and writes values and buffers."""
    recorder = current()
    if recorder is None:
        return function
    name = recorder.owner(parameter)
    recorder.entry(name, "write-back").nbytes += (3 + 2 * n_buffers) * parameter.data.nbytes
    return recorder.call(name, "write-back", function)


def begin(name: str) -> None:
    """Begin a section of the present layer, where this thread is recorded."""
    recorder = current()
    if recorder is not None:
        recorder.begin(recorder.layer, name)


def end() -> None:
    """End the section that `begin` began."""
    recorder = current()
    if recorder is not None:
        recorder.end()
