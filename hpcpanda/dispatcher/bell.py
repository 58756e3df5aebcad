"""The signal that there may be work: it carries no data, and nobody who waits misses a ring."""

from __future__ import annotations

import asyncio
import contextlib

from hpcpanda.dispatcher.wire import NoWire, Wire

CHANNEL = "bell"
"""Of the notes that ring the bells of other replicas."""


class Bell:
    """Wakes the requests that wait for work, here and at the other replicas.

    Take a ticket, look for work, and only then wait with the ticket: a ring in between is not missed. One at another
    replica is heard a little later; that replica may die before it has told, and then a request waits its time out.
    """

    def __init__(self) -> None:
        self._rings = 0
        self._next: asyncio.Event = asyncio.Event()
        self._wire: Wire = NoWire()
        self.closed = False

    def join(self, wire: Wire) -> None:
        """Ring together with the bells on the other ends."""
        self._wire = wire
        wire.listen(CHANNEL, lambda _: self._wake())

    def ticket(self) -> int:
        """The number of rings so far."""
        return self._rings

    def ring(self) -> None:
        """Wake everybody who waits."""
        self._wake()
        self._wire.send(CHANNEL, "")

    def close(self) -> None:
        """Wake everybody, and let nobody wait any more."""
        self.closed = True
        self._wake()

    async def wait(self, ticket: int, timeout_s: float) -> bool:
        """Wait for a ring after ``ticket``, at most ``timeout_s`` seconds; gives whether to look again."""
        if not self.closed and self._rings == ticket:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._next.wait()
        return self._rings != ticket and not self.closed

    def _wake(self) -> None:
        self._rings += 1
        self._next.set()
        self._next = asyncio.Event()
