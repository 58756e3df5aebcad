"""A small HTTP/1.1 client over one kept connection: cheap enough to load a server from the same machine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

REPLY_SECONDS = 60.0
"""Longest wait for an answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection to a dispatcher with one token: a request at a time, made again when it was lost."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n".encode()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._buffer = bytearray()
        self._needed = 0
        self._body_at = 0
        self._status = 0

    async def request(self, method: bytes, path: bytes, body: bytes | None = None) -> Reply:
        """Ask; raises ConnectionError or TimeoutError when no answer comes."""
        if self._transport is None:
            await asyncio.get_running_loop().create_connection(lambda: self, *self._address)
        assert self._transport is not None
        assert self._answer is None, "one request at a time"
        self._answer = asyncio.get_running_loop().create_future()
        head = method + b" " + path + b" HTTP/1.1\r\n" + self._head
        if body is None:
            self._transport.write(head + b"\r\n")
        else:
            size = str(len(body)).encode()
            self._transport.write(
                head + b"Content-Type: application/json\r\nContent-Length: " + size + b"\r\n\r\n" + body
            )
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                return await self._answer
        except TimeoutError:
            self.close()
            raise
        finally:
            self._answer = None

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer.clear()
        self._body_at = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the connection was lost before the answer"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._body_at and not self._read_head():
            return
        if len(self._buffer) < self._needed:
            return
        reply = Reply(self._status, bytes(self._buffer[self._body_at : self._needed]))
        del self._buffer[: self._needed]
        self._body_at = 0
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).lower()
        self._status = int(head[9:12])
        _, found, rest = head.partition(b"\r\ncontent-length:")
        size = int(rest.partition(b"\r\n")[0]) if found else 0
        self._body_at = end + 4
        self._needed = self._body_at + size
        return True
