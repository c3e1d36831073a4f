"""The one place with Numba options, threads and the compilation cache.

Kernels are plain functions decorated with `serial`, `parallel` or `inline`. Compiled code is cached per user and
salted with the content of every file that a kernel can inline, because Numba itself looks only at the file of the
cached function (numba#1833). Nothing is compiled before the first call. Next: `simd`, then `kernels/`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from numba.core import caching, event

from nnsparse import threading_layer, trace

_log = logging.getLogger("nnsparse")

# "contract" lets a multiply and an add become one FMA where the CPU has it. Never `nnan`/`ninf`: a NaN must stay a NaN.
# Nobody calls a kernel through a C function pointer, so none is compiled.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
    "no_cfunc_wrapper": True,
}

# Only explicit prange loops are parallel: Numba need not look for others, which takes compile time.
_PRANGE = dict.fromkeys(
    ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False
)
_PRANGE["prange"] = True


# ---------------------------------------------------------------- cache


def user_cache() -> Path:
    """Return the platform's cache directory of this user (not created).

    `$XDG_CACHE_HOME`, `~/Library/Caches` or `%LOCALAPPDATA%`, followed by `nnsparse`.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "nnsparse"


@lru_cache(maxsize=1)
def cache_directory() -> Path:
    """Return the directory for compiled kernels; it is created when the first one is saved.

    It lies in `$NUMBA_CACHE_DIR` if set, else in `user_cache()/kernels`; where that cannot be written, every process
    compiles for itself. The last path component is a digest of the sources, so that stale code is never loaded.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256(numba.__version__.encode())
    sources = [*here.glob("simd*.py"), here / "jit.py", *(here / "kernels").glob("*.py")]
    for source in sorted(sources):
        digest.update(source.read_bytes())
    home = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(home) if home else user_cache() / "kernels"
    return base / f"nnsparse-{digest.hexdigest()[:16]}"


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Tells Numba to keep every kernel in `cache_directory()`."""

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._disambiguator = str(py_func.__code__.co_firstlineno)

    def get_cache_path(self) -> str:
        return str(cache_directory())

    def get_source_stamp(self) -> str:
        return cache_directory().name

    def get_disambiguator(self) -> str:
        return self._disambiguator

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """A cache that can be missing, unreadable or full: then kernels are compiled anew, and that is all."""

    _impl_class = _Implementation
    _told = False

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Tell the kernels of one factory apart by what they close over, the same way in every process.

        Numba's own key has a random number in it where a kernel closes over another compiled function, and so would
        never be found again.
        """
        return sig, codegen.magic_tuple(), _described(self._py_func)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            load = super().load_overload
            if trace.active is not None:
                load = trace.section("compilation", load)
            return load(sig, target_context)
        except Exception as error:  # a damaged pickle may raise anything
            _log.info("nnsparse: cannot read compiled kernels in %s: %s", cache_directory(), error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            cache_directory().mkdir(parents=True, exist_ok=True)
            try:
                super().save_overload(sig, data)
            except (EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError):
                self.flush()  # the index cannot be read: begin a new one
                super().save_overload(sig, data)
        except OSError as error:
            if not _Cache._told:
                _Cache._told = True
                _log.warning(
                    "nnsparse: cannot save compiled kernels (%s); every process will compile them "
                    "anew. Set NUMBA_CACHE_DIR to a folder that can be written.",
                    error,
                )


class _AloneCache(_Cache):
    """The cache of parallel kernels that were compiled for one thread: other code under the same name."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return *super()._index_key(sig, codegen), "alone"


def _described(function: Callable[..., Any]) -> str:
    """Return a digest of a function's code and of what it closes over: constants, and functions like itself."""
    digest = hashlib.sha256(f"{function.__qualname__} {function.__code__.co_firstlineno}".encode())
    digest.update(function.__code__.co_code)
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        inner = getattr(value, "py_func", None)
        if inner is None and not isinstance(value, int | float | str | tuple | type(None)):
            raise TypeError(
                f"{function.__qualname__} closes over {value!r}: kernels may close over constants only"
            )
        digest.update((repr(value) if inner is None else _described(inner)).encode() + b";")
    return digest.hexdigest()


class _Announcer(event.Listener):  # type: ignore[misc]
    """Says once per process that a kernel has to be compiled, so that nobody wonders about the wait."""

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Any) -> None:
        if trace.active is not None:
            trace.begin("compilation")
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if not self.told and getattr(function, "__module__", "").startswith("nnsparse."):
            self.told = True
            _log.warning(
                "nnsparse: compiling kernels for this CPU; later runs load them from %s",
                cache_directory(),
            )

    def on_end(self, event: Any) -> None:
        if trace.active is not None:
            trace.end()


event.register("numba:compile", _Announcer())


# ---------------------------------------------------------------- decorators


def inline(function: Callable[..., Any]) -> Any:
    """Compile a small function that kernels call inside their loops; LLVM is made to inline it."""
    return numba.njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)(function)


def serial(function: Callable[..., Any]) -> Any:
    """Compile a single-threaded kernel, cached on disk, lazily at the first call."""
    dispatcher = numba.njit(**_OPTIONS)(function)
    dispatcher._cache = _Cache(function)
    return dispatcher


@inline
def _only_thread():  # type: ignore[no-untyped-def]
    """Return the number of the only thread."""
    return 0


class _ParallelKernel:
    """A compiled `prange` kernel, called as the threading layer permits (`threading_layer`).

    Parallel kernels are leaves: they are called from Python only, never from other compiled code
    (numba#4807, numba#8578).
    """

    __slots__ = ("__name__", "_alone", "dispatcher")

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        self._alone: Any = None
        self.__name__ = dispatcher.py_func.__name__

    def __call__(self, *args: Any) -> Any:
        guard = threading_layer.guard if threading_layer.known else threading_layer.start()
        if guard is None and trace.active is None:
            return self.dispatcher(*args)
        chosen = self.alone() if threading_layer.alone else self.dispatcher
        run = trace.kernel(self.__name__, chosen)
        with guard or nullcontext():
            return run(*args)

    def alone(self) -> Any:
        """Return the kernel compiled for one thread, without Numba's threading layer: for forked processes."""
        if self._alone is None:
            original = self.dispatcher.py_func
            # Outside of a parallel loop only omp has a number for the thread; tbb may say -2.
            names = {**original.__globals__, "get_thread_id": _only_thread}
            function = FunctionType(
                original.__code__, names, original.__name__, None, original.__closure__
            )
            function.__qualname__, function.__module__ = original.__qualname__, original.__module__
            dispatcher = numba.njit(**_OPTIONS)(function)
            dispatcher._cache = _AloneCache(function)
            self._alone = dispatcher
        return self._alone


def parallel(function: Callable[..., Any]) -> _ParallelKernel:
    """Compile a `prange` kernel, cached on disk, lazily at the first call."""
    dispatcher = numba.njit(parallel=_PRANGE, **_OPTIONS)(function)
    dispatcher._cache = _Cache(function)
    return _ParallelKernel(dispatcher)


@lru_cache(maxsize=1)
def vector_bits() -> int:
    """Return the width in bits of the SIMD registers that compiled code uses on this CPU: 512, 256 or 128."""
    from numba.core.registry import cpu_target

    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return 512 if "+avx512f" in features else 256 if "+avx2" in features else 128


# ---------------------------------------------------------------- threads

MAX_THREADS: int = numba.config.NUMBA_NUM_THREADS  # what scratch memory is laid out for


def set_num_threads(n: int) -> None:
    """Use `n` threads for the kernels called from this Python thread.

    Parameters
    ----------
    n : int
        From 1 to the number of cores (`NUMBA_NUM_THREADS` if that is set).

    Raises
    ------
    ValueError
        If `n` is not an integer in that range.
    """
    limit = MAX_THREADS
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= limit:
        raise ValueError(f"set_num_threads expects an integer from 1 to {limit} (cores); got {n!r}")
    if not threading_layer.known:
        threading_layer.start()
    numba.set_num_threads(n)


def get_num_threads() -> int:
    """Return how many threads the kernels called from this Python thread use."""
    if not threading_layer.known:
        threading_layer.start()
    return 1 if threading_layer.alone else int(numba.get_num_threads())
