"""What the loops of a running edge have in common: how they wake one another, and what a disk that refuses is to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from hpcpanda.domain.errors import Unavailable

_log = structlog.get_logger("hpcpanda.edge")


@dataclass(slots=True)
class Bells:
    """Events by which the loops wake one another."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """The next round is due."""
    planned: asyncio.Event = field(default_factory=asyncio.Event)
    """A round has been made."""
    say: asyncio.Event = field(default_factory=asyncio.Event)
    """There may be something to tell the dispatcher."""
    eased: asyncio.Event = field(default_factory=asyncio.Event)
    """An allocation has ended."""

    def round_made(self) -> None:
        """Those who pull and those who report have a new plan before them."""
        self.planned.set()
        self.say.set()


@contextlib.contextmanager
def retried(event: str) -> Iterator[None]:
    """A disk that refuses is reported as ``event``; nothing has changed, and the same comes up again."""
    try:
        yield
    except (OSError, Unavailable) as problem:
        _log.error(event, error=str(problem))


async def rings(bell: asyncio.Event, *, within_s: float) -> None:
    """Wait until a bell rings, or for so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await bell.wait()
