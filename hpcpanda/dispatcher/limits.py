"""What the dispatcher lets in: bodies of bounded size, and JSON that means what it says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpcpanda.dispatcher.problems import problem_response
from hpcpanda.dispatcher.retrying import again_on_contention

DRAIN = 4
"""So many times the limit is read of a body that is too large, before the connection is given up."""

_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
"""Half of a character, perhaps: without the other half the text cannot be written anywhere."""


class BodyLimit:
    """ASGI middleware that refuses bodies larger than ``limit`` bytes before anything reads them."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limit, then let the app have it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            answer = problem_response("too-large", f"the body is larger than {self._limit} bytes; send less")
            await answer(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> list[Message] | None:
        """The messages that make up the body; None when it is too large.

        Some of what is too much is read and thrown away, so that a client which sends before it listens
        gets its answer.
        """
        messages: list[Message] = []
        size = 0
        while size <= DRAIN * self._limit:
            message = await receive()
            size += len(message.get("body", b""))
            if size <= self._limit:
                messages.append(message)
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        return messages if size <= self._limit else None


def _replay(messages: list[Message], receive: Receive) -> Receive:
    left = iter(messages)

    async def again() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return again


class StrictJsonRoute(APIRoute):
    """A route that refuses what JSON does not have: NaN, infinities, and nesting without end.

    A request whose transaction was undone because of another one is done again.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand requests on with a stricter parser."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            return await again_on_contention(lambda: handle(strict))

        return handler


class _StrictRequest(Request):
    async def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        """Parse the body."""
        try:
            return _parse((await self.body()).decode())
        except (ValueError, RecursionError) as error:
            problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise HTTPException(422, f"the body is not JSON: {problem}") from error


def _parse(text: str) -> Any:  # noqa: ANN401 - JSON is anything
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value
