"""`stop_on_interrupt`: the first Ctrl-C is noted, the second one raises."""

import signal
import threading

import pytest

from nnsparse.train.interrupt import stop_on_interrupt


@pytest.fixture
def python_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handler")
def test_the_first_is_noted_and_the_second_raises():
    with stop_on_interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("python_handler")
def test_pythons_handler_is_back_afterwards_even_on_errors():
    with pytest.raises(ZeroDivisionError), stop_on_interrupt():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("python_handler")
def test_a_programs_own_handler_stays():
    calls = []

    def own(number, frame):
        calls.append(number)

    signal.signal(signal.SIGINT, own)
    with stop_on_interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
    assert calls == [signal.SIGINT]
    assert not interrupt.requested
    assert signal.getsignal(signal.SIGINT) is own


def test_another_thread_than_the_main_one_is_left_alone():
    seen = []

    def work():
        with stop_on_interrupt() as interrupt:
            seen.append(interrupt.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
