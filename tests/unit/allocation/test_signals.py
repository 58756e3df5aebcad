"""Signals that wake a loop which waits on descriptors."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from hpcpanda.allocation.signals import wake_on

NUMBERS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What this process did with signals holds again afterwards."""
    handlers = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGALRM)}
    told = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(told)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_signals_wake_and_do_nothing_else() -> None:
    """The descriptor can be read when signals have come, a byte each, and not before; the process lives on."""
    wake = wake_on(*NUMBERS)
    assert select.select([wake], [], [], 0)[0] == []
    for number in NUMBERS:
        os.kill(os.getpid(), number)
    assert select.select([wake], [], [], 10)[0] == [wake]
    assert sorted(os.read(wake, 64)) == sorted(NUMBERS)
    with pytest.raises(BlockingIOError):
        os.read(wake, 64)
    os.close(wake)


def test_a_signal_with_a_handler_of_its_own_is_handled_and_wakes() -> None:
    """A runner notes signals of the batch system, and wakes for them as for the end of a child."""
    seen: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    wake = wake_on(*NUMBERS)
    os.kill(os.getpid(), signal.SIGALRM)
    assert select.select([wake], [], [], 10)[0] == [wake]
    assert list(os.read(wake, 64)) == seen == [signal.SIGALRM]
    os.close(wake)
