"""One thread: nothing here is large enough to share, and threads that wait for each other are slow on busy cores."""

from collections.abc import Iterator

import pytest

import nnsparse as ns


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = ns.get_num_threads()
    ns.set_num_threads(1)
    yield
    ns.set_num_threads(threads)
