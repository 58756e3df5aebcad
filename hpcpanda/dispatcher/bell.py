"""The signal that there may be work: it carries no data, and nobody who waits misses a ring."""

from __future__ import annotations

import asyncio
import contextlib


class Bell:
    """Wakes the requests that wait for work.

    Take a ticket, look for work, and only then wait with the ticket: a ring in between is not missed.
    """

    def __init__(self) -> None:
        self._rings = 0
        self._next: asyncio.Event = asyncio.Event()
        self.closed = False

    def ticket(self) -> int:
        """The number of rings so far."""
        return self._rings

    def ring(self) -> None:
        """Wake everybody who waits."""
        self._rings += 1
        self._next.set()
        self._next = asyncio.Event()

    def close(self) -> None:
        """Wake everybody, and let nobody wait any more."""
        self.closed = True
        self.ring()

    async def wait(self, ticket: int, timeout_s: float) -> bool:
        """Wait for a ring after ``ticket``, at most ``timeout_s`` seconds; gives whether to look again."""
        if not self.closed and self._rings == ticket:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._next.wait()
        return self._rings != ticket and not self.closed
