"""The dispatcher's clock: wall time that never steps."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

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


class FollowingClock:
    """Unix seconds on another clock, as last asked plus what the monotonic clock has counted since.

    Replicas that follow the clock of one database agree to within half the time that asking takes, whatever the clocks
    of their machines say.
    """

    def __init__(self) -> None:
        self._origin = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Unix seconds now."""
        return self._origin + time.monotonic()

    async def follow(self, ask: Callable[[], Awaitable[float]]) -> None:
        """Ask for the time, and go by it if it is another one. What asking takes bounds the error, as in NTP (RFC 5905,
        section 8): less than that is no difference."""
        began = time.monotonic()
        told = await ask()
        ended = time.monotonic()
        origin = told - (began + ended) / 2
        if abs(origin - self._origin) > (ended - began) / 2:
            self._origin = origin
