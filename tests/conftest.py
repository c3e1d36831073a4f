"""What every test shares: where the data is, how hypothesis behaves, and which file runs first.

The naive twins of the kernels are not here but in `nnsparse.testing`.
"""

import os
import signal
from pathlib import Path

# Both must stand before the first import of Numba or nnsparse. Two threads even on one core, so
# that "the same bits on 1 and 2 threads" is always tested.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: threads that wait must not spin
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
if _SHARED_DATA.is_dir():
    os.environ.setdefault("NNSPARSE_DATA", str(_SHARED_DATA))

# A shell starts `command &` with Ctrl-C ignored; tests press it all the same.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# The first example of a property compiles kernels, so no deadline.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the smoke file first: it tells in seconds that all is broken."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")
