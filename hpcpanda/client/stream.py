"""Follow the change stream of a dispatcher: server-sent events, taken up again where they were cut.

Signals arrive at least once: after a lost connection those of the last half minute may be told again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2
from pydantic import TypeAdapter, ValidationError

from hpcpanda.client import calls
from hpcpanda.domain.changes import Change
from hpcpanda.domain.errors import HpcPandaError, Unavailable

QUIET_S = 40.0
"""A dispatcher says something every 15 s; after so long a silence the connection is taken for lost."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
"""Pauses between attempts to connect again."""
PATIENCE_S = 300.0
"""A dispatcher may be away for so long."""

_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)
_CALL = calls.changes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Nothing has changed for a while, and the stream is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """Some signals were missed: look again at everything."""


Signal = Change | Beat | Everything


class Resumption:
    """Where a stream goes on, and for how long its dispatcher may be away. Pure; times are monotonic seconds."""

    def __init__(self, now: float, patience_s: float) -> None:
        self._last_id = ""
        self._heard = now
        self._patience_s = patience_s
        self._pause_s = FIRST_PAUSE_S

    @property
    def headers(self) -> Mapping[str, str]:
        """To connect with."""
        return {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})

    def heard(self, event: httpx2.ServerSentEvent, now: float) -> Signal | None:
        """What an event says; None when it is of a kind that is not known."""
        self._last_id = event.id or self._last_id
        self._heard, self._pause_s = now, FIRST_PAUSE_S
        if not event.data:
            return Beat()
        if event.event == "everything":
            return Everything()
        if event.event != "change":
            return None
        try:
            return _CHANGE.validate_json(event.data)
        except ValidationError as error:
            raise Unavailable(f"the change stream is not understood: {error}") from error

    def pause(self, problem: HpcPandaError | None, now: float) -> float:
        """How long to wait before connecting again.

        Raises:
            HpcPandaError: the problem, when it does not pass by waiting or has lasted for too long.
        """
        if problem is not None and (
            not isinstance(problem, Unavailable) or now - self._heard > self._patience_s
        ):
            raise problem
        pause_s = self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s


def signals(
    http: httpx2.Client, url: str, task_ids: tuple[int, ...], *, timeout_s: float, patience_s: float
) -> Generator[Signal]:
    """Signals without end, over as many connections as it takes: see ``DispatcherClient.changes``."""
    resumption = Resumption(time.monotonic(), patience_s)
    while True:
        problem: HpcPandaError | None = None
        try:
            with http.stream(**_request(task_ids, resumption, timeout_s)) as response:
                if response.status_code != HTTPStatus.OK:
                    _CALL.read(response.status_code, response.read())
                for event in httpx2.EventSource(response):
                    if (signal := resumption.heard(event, time.monotonic())) is not None:
                        yield signal
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            problem = unreachable(url, error)
        except HpcPandaError as error:
            problem = error
        time.sleep(resumption.pause(problem, time.monotonic()))


async def async_signals(
    http: httpx2.AsyncClient, url: str, task_ids: tuple[int, ...], *, timeout_s: float, patience_s: float
) -> AsyncGenerator[Signal]:
    """The same for asyncio."""
    resumption = Resumption(time.monotonic(), patience_s)
    while True:
        problem: HpcPandaError | None = None
        try:
            async with http.stream(**_request(task_ids, resumption, timeout_s)) as response:
                if response.status_code != HTTPStatus.OK:
                    _CALL.read(response.status_code, await response.aread())
                async for event in httpx2.EventSource(response):
                    if (signal := resumption.heard(event, time.monotonic())) is not None:
                        yield signal
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            problem = unreachable(url, error)
        except HpcPandaError as error:
            problem = error
        await asyncio.sleep(resumption.pause(problem, time.monotonic()))


def unreachable(url: str, error: Exception) -> Unavailable:
    """What a lost connection means."""
    reason = str(error) or type(error).__name__
    return Unavailable(f"no answer from the dispatcher at {url}: {reason}; is it running?")


def _request(task_ids: tuple[int, ...], resumption: Resumption, timeout_s: float) -> dict[str, Any]:
    return {
        "method": _CALL.method,
        "url": _CALL.path,
        "params": [("task_id", str(task_id)) for task_id in task_ids],
        "headers": dict(resumption.headers),
        "timeout": httpx2.Timeout(timeout_s, read=QUIET_S),
    }
