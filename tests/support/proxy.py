"""A plain TCP proxy in front of several servers: connections go round, past those that do not take any."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

PORTION = 64 * 1024


class Proxy:
    """Listens on a free loopback port, in a thread of its own, and hands each connection to the next server that takes it.

    It knows nothing of HTTP. When one side of a connection ends, so does the other; what was under way is lost, as with
    any proxy that does not send requests twice.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = tuple(ports)
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.given: Counter[int] = Counter()
        """Connections handed to each server."""
        self.passed_over: Counter[int] = Counter()
        """How often each server did not take one."""
        self.turned_away = 0
        """Connections that no server took."""
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def _open(self) -> int:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind = await self._connect()
            if behind is None:
                self.turned_away += 1
                return
            ways = [
                asyncio.create_task(_pump(reader, behind[1])),
                asyncio.create_task(_pump(behind[0], writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                behind[1].transport.abort()
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        start = self._turn % len(self._ports)
        for port in (*self._ports[start:], *self._ports[:start]):
            try:
                behind = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.passed_over[port] += 1
            else:
                self.given[port] += 1
                return behind
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PORTION):
            writer.write(data)
            await writer.drain()
