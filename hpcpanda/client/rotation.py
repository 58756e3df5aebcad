"""Exchange an edge's token before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from hpcpanda.client.access import Bearer
from hpcpanda.client.async_sdk import AsyncDispatcherClient
from hpcpanda.domain.errors import HpcPandaError

LOOK_SECONDS = 3600.0
"""Longest time between two looks at how long the token goes on."""
RETRY_SECONDS = 60.0
"""After an attempt that failed."""

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def keeping_token(
    client: AsyncDispatcherClient, shown: Bearer, file: Path | None
) -> AsyncIterator[None]:
    """While the block runs, exchange the token when half of its life is over, and write the new one to ``file``."""
    task = asyncio.create_task(_keep(client, shown, file), name="token-rotation")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _keep(client: AsyncDispatcherClient, shown: Bearer, file: Path | None) -> None:
    while True:
        try:
            wait_s = await exchange_when_due(client, shown, file)
        except (HpcPandaError, OSError) as problem:
            _log.warning("token.rotation.failed", error=str(problem))
            wait_s = RETRY_SECONDS
        if wait_s is None:
            return
        await asyncio.sleep(wait_s)


async def exchange_when_due(client: AsyncDispatcherClient, shown: Bearer, file: Path | None) -> float | None:
    """Exchange the token if half of its life is over; seconds until the next look, None when there is nothing to do:
    the token never ends, or is an identity provider's.

    Raises:
        HpcPandaError: the dispatcher does not answer, or refuses.
        OSError: the file cannot be written; the token in use is the new one all the same.
    """
    me = await client.whoami()
    if me.expires is None or me.created is None:
        return None
    due_s = (me.created + me.expires) / 2 - me.now
    if due_s > 0:
        return min(due_s, LOOK_SECONDS)
    new = await client.rotate_token()
    shown.token = new.token
    if file is not None:
        await asyncio.to_thread(_write, file, new.token)
    _log.info("token.rotated", ends=new.expires)
    return LOOK_SECONDS


def _write(file: Path, token: str) -> None:
    """Replace a file that only its owner reads, whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(token + "\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
