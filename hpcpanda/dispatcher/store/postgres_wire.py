"""Notes between replicas by PostgreSQL's LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine

import psycopg
import structlog

from hpcpanda.dispatcher.wire import MAX_NOTE, Heard

CHANNEL = "hpcpanda"
"""The one channel of the server that is used; each note names its own."""
GATHER_SECONDS = 0.02
"""Notes are gathered for so long and sent together: a NOTIFY takes a lock that all of them in a server share."""
AGAIN_SECONDS = 1.0
"""Pause before a lost connection is made again."""
MAX_WAITING = 1000
"""Most notes that wait to be sent; more of them become one that says that some were missed."""

_SEND = "SELECT pg_notify(%s, note) FROM unnest(%s::text[]) AS note"
_log = structlog.get_logger(__name__)


class PostgresWire:
    """Two connections: one listens, one sends. Either is made again when it is lost."""

    def __init__(self, connect: Callable[[], Awaitable[psycopg.AsyncConnection]]) -> None:
        self._connect = connect
        self._me = secrets.token_hex(8)
        self._heard: dict[str, list[Heard]] = defaultdict(list)
        self._waiting: dict[tuple[str, str], None] = {}
        self._any = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def send(self, channel: str, text: str) -> None:
        """Tell the other dispatchers; comes back at once."""
        assert len(text) <= MAX_NOTE, "a note is short"
        assert text.isascii(), "a note is ASCII"
        if len(self._waiting) >= MAX_WAITING:
            self._waiting = {(channel, ""): None for channel, _ in self._waiting}
        self._waiting[channel, text] = None
        self._any.set()

    def listen(self, channel: str, heard: Heard) -> None:
        """Call ``heard`` for every note of the channel; with an empty text when some may have been missed."""
        self._heard[channel].append(heard)

    async def open(self) -> None:
        """Begin to listen and to send."""
        self._tasks = [
            asyncio.create_task(self._keep(self._listen), name="wire-listening"),
            asyncio.create_task(self._keep(self._send), name="wire-sending"),
        ]

    async def close(self) -> None:
        """Stop both."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def _keep(self, carry: Callable[[psycopg.AsyncConnection], Coroutine[None, None, None]]) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await connection.set_autocommit(True)
                    await carry(connection)
            except (psycopg.Error, OSError) as problem:
                _log.warning("wire.lost", error=str(problem).strip())
                await asyncio.sleep(AGAIN_SECONDS)

    async def _listen(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        for channel in list(self._heard):
            self._tell(channel, "")
        async for note in connection.notifies():
            sender, _, rest = note.payload.partition(" ")
            channel, _, text = rest.partition(" ")
            if sender != self._me:
                self._tell(channel, text)

    def _tell(self, channel: str, text: str) -> None:
        for heard in self._heard.get(channel, ()):
            heard(text)

    async def _send(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            if not self._waiting:
                self._any.clear()
                await self._any.wait()
            await asyncio.sleep(GATHER_SECONDS)
            taken = list(self._waiting)
            notes = [f"{self._me} {channel} {text}" for channel, text in taken]
            await connection.execute(_SEND, (CHANNEL, notes))
            for note in taken:  # not before they are sent: a connection that is lost loses none
                self._waiting.pop(note, None)
