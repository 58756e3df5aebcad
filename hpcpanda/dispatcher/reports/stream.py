"""A change stream as it goes over the wire: server-sent events (WHATWG HTML Living Standard, section 9.2)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from fastapi import Response
from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from hpcpanda.dispatcher.clock import Clock
from hpcpanda.dispatcher.reports.changes import Listener
from hpcpanda.domain.changes import Change
from hpcpanda.domain.errors import HpcPandaError

BEAT_SECONDS = 15.0
"""Something is sent at least so often: who hears nothing for twice as long has lost the connection."""
CHECK_SECONDS = 60.0
"""A token is looked at again so often."""
SLOW_SECONDS = 30.0
"""A client that takes longer to read what was sent is cut."""
RETRY_MS = 2000
"""Browsers connect again after so long."""
OLDEST_SECONDS = 86_400.0
"""Streams are resumed within so long."""

_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)
_ID = re.compile(r"\d{1,11}\.\d{3}")


def resume_time(last_event_id: str | None, now: float) -> float | None:
    """The time up to which a client that comes back has heard; None for a new one. An identifier that is not one of
    this dispatcher's, or is a day old, stands for the beginning of time."""
    if not last_event_id:
        return None
    if _ID.fullmatch(last_event_id) is None:
        return 0.0
    when = float(last_event_id)
    return when if now - OLDEST_SECONDS <= when <= now + SLOW_SECONDS else 0.0


class EventStream(Response):
    """Signals of a listener, until either side ends.

    Args:
        listener: what is to be told.
        opened: closed at the end; holds the listener's place.
        begun: from when the client can resume, Unix seconds.
        clock: gives Unix seconds.
        until: when the token ends, Unix seconds; None for never.
        check: raises when the caller may not listen any more.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        listener: Listener,
        opened: ExitStack,
        *,
        begun: float,
        clock: Clock,
        until: float | None,
        check: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._listener = listener
        self._opened = opened
        self._begun = begun
        self._clock = clock
        self._until = until
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send signals until the client goes, the token ends, or the dispatcher stops."""
        with self._opened:
            gone = asyncio.create_task(_gone(receive, self._listener), name=f"{scope['path']} gone")
            try:
                await self._send(send)
            except TimeoutError:
                self._listener.cut = True
            finally:
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._write(send, f"retry: {RETRY_MS}\nid: {self._begun:.3f}\n\n")
        checked = self._clock()
        while not self._listener.ended:
            now = self._clock()
            if self._until is not None and now >= self._until:
                break
            if now - checked >= CHECK_SECONDS:
                checked = now
                if not await self._still_admitted():
                    break
            left = BEAT_SECONDS if self._until is None else min(BEAT_SECONDS, self._until - now)
            at = await self._wait(left, now)
            if not self._listener.ended:
                await self._write(send, self._text(at))
        await self._write(send, "", more=False)

    async def _wait(self, seconds: float, began: float) -> float:
        """Wait for something to tell; gives a time up to which all was told that is known now."""
        try:
            async with asyncio.timeout(seconds):
                await self._listener.any.wait()
        except TimeoutError:
            return began
        return self._clock()

    def _text(self, at: float) -> str:
        changes, everything = self._listener.take()
        events = [f"event: change\ndata: {_CHANGE.dump_json(change).decode()}\n" for change in changes]
        if everything:
            events.append("event: everything\ndata: {}\n")
        # One without data moves the place to resume at and is not seen by programs.
        return "".join(f"{event}id: {at:.3f}\n\n" for event in events or [""])

    async def _write(self, send: Send, text: str, *, more: bool = True) -> None:
        async with asyncio.timeout(SLOW_SECONDS):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

    async def _still_admitted(self) -> bool:
        try:
            await self._check()
        except HpcPandaError:
            return False
        return True


async def _gone(receive: Receive, listener: Listener) -> None:
    """Wait for the client to go."""
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.end()
