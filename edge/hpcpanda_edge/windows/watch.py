"""What is free now, kept at hand: a loop of its own asks, so that nobody waits for the batch system."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from hpcpanda.packing.windows import BackfillWindow, shorten
from hpcpanda_edge.windows.ports import Sighting, WindowProbe

STALE_AFTER: Final = 5.0
"""A look older than so many times the pace tells nothing any more,"""
STALE_LEAST_S: Final = 60.0
"""unless it is younger than this: a batch system may take its time to answer."""

_log = structlog.get_logger("hpcpanda.edge")


class WindowWatch:
    """Looks again and again; a batch system that hangs only makes what is known older.

    Args:
        probe: what to ask.
        every_s: seconds from one answer to the next question.
        clock: seconds that only go forward.
    """

    def __init__(
        self, probe: WindowProbe, *, every_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe = probe
        self._every_s = every_s
        self._clock = clock
        self._windows: tuple[BackfillWindow, ...] | None = None
        self._asked = 0.0
        self._unknown: str | None = None
        self.looked = asyncio.Event()
        """Set once the batch system has answered, or failed to, for the first time."""

    @property
    def known(self) -> tuple[BackfillWindow, ...] | None:
        """The windows as of now: those of the last look that succeeded, less the time since it was begun.

        None when nothing is known: no look has succeeded, or the last that did is older than five times the pace
        and than a minute.
        """
        age = self._clock() - self._asked
        if self._windows is None or age > max(STALE_AFTER * self._every_s, STALE_LEAST_S):
            return None
        return shorten(self._windows, by=age)

    @property
    def age_s(self) -> float | None:
        """Seconds since the question that was answered last; None when nothing is known."""
        return self._clock() - self._asked if self._windows is not None else None

    @property
    def unknown(self) -> str | None:
        """Why the last look has told nothing, if so."""
        return self._unknown

    async def run(self) -> None:
        """Look until cancelled. Whatever goes wrong is logged, and tried again."""
        while True:
            await self._look()
            await asyncio.sleep(self._every_s)

    async def _look(self) -> None:
        asked = self._clock()
        try:
            sighting = await self._probe.look()
        except Exception:  # noqa: BLE001 - a fault of a probe costs windows, not the edge
            _log.exception("window-probe-failed")
            sighting = Sighting(unknown="the window probe failed, see the edge's log")
        if sighting.known is not None:
            self._windows, self._asked = sighting.known, asked
        if sighting.unknown != self._unknown:
            self._unknown = sighting.unknown
            if sighting.unknown is not None:
                _log.warning("windows-unknown", reason=sighting.unknown)
        self.looked.set()
