"""From a way to ask to a probe: not too often, and never with an exception."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.packing.windows import STEP_S, shorten
from hpcpanda_edge.windows.ports import Sighting, WindowReader


class PacedProbe:
    """Asks at most once in a while; between times tells the last answer, aged.

    The time between two questions counts from the end of the first, so a slow batch system is asked less often.
    """

    def __init__(
        self,
        reader: WindowReader,
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
        step_s: float = STEP_S,
    ) -> None:
        self._reader = reader
        self._every_s = every_s
        self._clock = clock
        self._step_s = step_s
        self._last = Sighting(unknown="the batch system has not been asked yet")
        self._asked: float | None = None
        self._lock = asyncio.Lock()

    async def look(self) -> Sighting:
        """The windows as of now."""
        async with self._lock:
            if self._asked is None or self._clock() - self._asked >= self._every_s:
                self._last = await self._ask()
                self._asked = self._clock()
            age = self._clock() - self._asked
        return Sighting(
            windows=shorten(self._last.windows, by=age, step=self._step_s), unknown=self._last.unknown
        )

    async def _ask(self) -> Sighting:
        try:
            return Sighting(windows=await self._reader.read())
        except HpcPandaError as error:
            return Sighting(unknown=str(error))
