"""Connections that are too slow: a request has to come, not to trickle."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

PATIENCE_SECONDS = 20.0
"""How long the head of a request may take; from the connection's start, or from its first byte."""
MAX_HEAD = 64 * 1024
"""Largest head of a request, bytes. Not every parser has a limit of its own."""
SLOWEST = 4096
"""A body comes at so many bytes a second at least, over ``PATIENCE_SECONDS``."""


class _Impatient(asyncio.Protocol):
    """What a server protocol of uvicorn lacks: connections that say nothing, heads that do not end, bodies that dribble
    and what is still sent long after a refusal are cut off.

    A request that arrives whole costs one comparison.
    """

    cycle: Any
    """The request under way, or the last one; uvicorn's."""
    flow: Any
    """Whether reading was paused; uvicorn's."""
    _transport: Any
    """asyncio's, or uvloop's, which is none of its classes."""
    _timer: asyncio.TimerHandle | None = None
    _came = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport = transport
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_in_body = self.cycle is not None and self.cycle.more_body
        super().data_received(data)
        if was_in_body and not self.cycle.more_body:
            self._rest()  # a body has ended, refused or not: what was counted is none of the next head
        elif self._incomplete:
            if self._timer is None:
                self._watch()
            self._came += len(data)
            if self._came > MAX_HEAD and self._in_head:
                self._cut()
        else:
            self._rest()

    @property
    def _incomplete(self) -> bool:
        """Whether something of a request has come, and something is missing."""
        return self.cycle is None or self.cycle.more_body or self.cycle.response_complete

    def on_message_complete(self) -> None:
        """Called by the one parser that has no limit for heads; of a body that was refused, uvicorn does not note the
        end, where the next head begins."""
        super().on_message_complete()  # type: ignore[misc]
        if self.cycle is not None:
            self.cycle.more_body = False

    @property
    def _in_head(self) -> bool:
        return self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)

    @property
    def _in_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _watch(self) -> None:
        self._came = 0
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._judge)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._timer = None
        waits_for_us = self._in_body and self.flow.read_paused
        if waits_for_us or (self._in_body and self._came >= SLOWEST * PATIENCE_SECONDS):
            self._watch()
        else:
            self._cut()

    def _cut(self) -> None:
        self._transport.abort()


ImpatientHttp: type[asyncio.Protocol] = type("ImpatientHttp", (_Impatient, AutoHTTPProtocol), {})
"""uvicorn's HTTP, by whichever parser is installed, with an end to patience."""


def allow_many_files() -> None:
    """Let this process have as many connections as the system allows it: edges that wait for work hold one each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
