"""Signals for loops that wait on descriptors."""

from __future__ import annotations

import os
import signal


def wake_on(*numbers: signal.Signals) -> int:
    """Have these signals do nothing but wake; call it in the main thread.

    Gives a descriptor, not blocking, that can be read when one has come: a byte each, the signal's number. Signals with a
    handler of another kind are told there, too, see :func:`signal.set_wakeup_fd`.
    """
    wake, wake_end = os.pipe()
    for end in (wake, wake_end):
        os.set_blocking(end, False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    return wake
