"""The signal that there may be work: it carries no data, and nobody who waits misses a ring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
        self._last_rites: list[Callable[[], None]] = []
        self.closed = False
        self.waiting = 0
        """Requests that wait now."""

    def join(self, wire: Wire) -> None:
        """Ring together with the bells on the other ends."""
        self._wire = wire
        wire.listen(CHANNEL, lambda _: self._wake())

    def when_closed(self, act: Callable[[], None]) -> None:
        """Have something else ended together with the waiting."""
        self._last_rites.append(act)

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
        for act in self._last_rites:
            act()

    async def wait(self, ticket: int, timeout_s: float) -> bool:
        """Wait for a ring after ``ticket``, at most ``timeout_s`` seconds; gives whether to look again."""
        if not self.closed and self._rings == ticket:
            self.waiting += 1
            try:
                async with asyncio.timeout(timeout_s):
                    await self._next.wait()
            except TimeoutError:
                pass
            finally:
                self.waiting -= 1
        return self._rings != ticket and not self.closed

    def _wake(self) -> None:
        self._rings += 1
        self._next.set()
        self._next = asyncio.Event()
