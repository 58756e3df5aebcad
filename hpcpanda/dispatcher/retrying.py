"""Do again what another transaction has undone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from hpcpanda.dispatcher.store.database import Contention

ATTEMPTS = 5
"""Most times that one thing is done."""
PAUSE_SECONDS = 0.02
"""Longest pause before the second; it doubles with each."""

Result = TypeVar("Result")
_log = structlog.get_logger(__name__)


async def again_on_contention(
    act: Callable[[], Awaitable[Result]], *, noted: Callable[[], None] = lambda: None
) -> Result:
    """Do something that is one transaction, again when it was undone, after a short random pause; each time is ``noted``.

    Raises:
        Contention: it was undone ``ATTEMPTS`` times.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return await act()
        except Contention as problem:
            noted()
            _log.info("transaction.again", attempt=attempt, cause=str(problem.__cause__).partition("\n")[0])
            await asyncio.sleep(random.uniform(0, PAUSE_SECONDS * 2**attempt))
    return await act()
