"""The dispatcher's clock: wall time that never steps."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Gives Unix seconds."""


class SteadyClock:
    """Unix seconds as of start plus what the monotonic clock has counted since.

    A correction of the system clock while the dispatcher runs neither ends leases nor prolongs them.
    """

    def __init__(self) -> None:
        self._origin = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Unix seconds now."""
        return self._origin + time.monotonic()
