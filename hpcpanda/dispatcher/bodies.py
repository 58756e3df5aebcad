"""Bodies of requests: how large they may be, whose large ones are read at all, and how much of them at the same time."""

from __future__ import annotations

from collections import Counter, deque

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpcpanda.dispatcher.context import Context
from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.problems import error_response, problem_response
from hpcpanda.domain.errors import HpcPandaError, InvalidValue, TooLarge, TooManyRequests, Unavailable

SMALL = 64 * 1024
"""Bodies of at most so many bytes are read whoever sends them; of larger ones no more before the sender is known."""
SHARE = 8
"""So many bodies of the largest size are held at the same time, of all callers together; of one caller, one."""

CHARGED = 16 * 1024
"""So many bytes of a body that is not small count as one request of its caller: they are as much work."""


class BodyLimit:
    """ASGI middleware that reads bodies before anything else does, and refuses those that are too much.

    A stranger can make the dispatcher hold ``SMALL`` bytes a connection; a caller that is known, ``limit`` bytes in all;
    all of them together, ``SHARE`` times as much. What is refused is not read any further.

    Args:
        app: what the requests are for.
        limit: largest body, bytes.
        context: knows who is let in.
    """

    def __init__(self, app: ASGIApp, *, limit: int, context: Context) -> None:
        self._app = app
        self._limit = limit
        self._context = context
        self._held: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then let the app have it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared, encoding = _announced(scope)
        if encoding is not None:
            text = f"Content-Encoding {encoding[:40]!r} is not understood here; send the body as it is"
            await problem_response("invalid-value", text, status=415)(scope, receive, send)
            return
        reading = _Reading()
        try:
            try:
                _require_text(scope)
                messages = await self._read(reading, Request(scope), receive, declared)
            except HpcPandaError as problem:
                await error_response(Request(scope), problem)(scope, receive, send)
            else:
                await self._app(scope, _replay(messages, receive), send)
        finally:
            self._release(reading)

    async def _read(
        self, reading: _Reading, request: Request, receive: Receive, declared: int
    ) -> deque[Message]:
        """The messages that make up the body.

        Raises:
            TooLarge: it is larger than the limit.
            TooManyRequests: the caller sends too much at the same time.
            Unavailable: all callers together do.
            Unauthenticated: it is large, and its sender has no good token.
        """
        messages: deque[Message] = deque()
        size = 0
        await self._allow(reading, request, declared)
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            await self._allow(reading, request, size)
            messages.append(message)
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages

    async def _allow(self, reading: _Reading, request: Request, size: int) -> None:
        """Let a body grow to a size."""
        if size > self._limit:
            raise TooLarge(f"the body is larger than {self._limit} bytes; send less")
        if size <= max(SMALL, reading.held):
            return
        if reading.caller is None:
            reading.caller = await self._context.identity.door.admit(request, now=self._context.clock())
        more = size - reading.held
        key = reading.caller.key
        if self._held[key] + more > self._limit:
            raise TooManyRequests(
                f"large bodies of one caller may be {self._limit} bytes together; wait for the answers to the others"
            )
        if self._held.total() + more > SHARE * self._limit:
            raise Unavailable("too many large bodies are being read; try again later")
        self._held[key] += more
        reading.held = size

    def _release(self, reading: _Reading) -> None:
        if reading.caller is None:
            return
        key = reading.caller.key
        self._held[key] -= reading.held
        if not self._held[key]:
            del self._held[key]
        self._context.identity.door.charge(reading.caller, reading.held / CHARGED, now=self._context.clock())


class _Reading:
    """What one request makes the dispatcher hold."""

    __slots__ = ("caller", "held")

    def __init__(self) -> None:
        self.caller: Principal | None = None
        self.held = 0


def _announced(scope: Scope) -> tuple[int, str | None]:
    """The length that a request says its body has (0 when it does not), and how it says that it is encoded."""
    length, encoding = 0, None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value) if value.isdigit() and len(value) < 20 else 0
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            encoding = value.decode("latin-1")
    return length, encoding


def _require_text(scope: Scope) -> None:
    """Refuse NUL in a URL: PostgreSQL has no text with it, and nobody means it."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise InvalidValue("url", "holds the character NUL; leave it out")


def _replay(messages: deque[Message], receive: Receive) -> Receive:
    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return again
