"""A dispatcher under load: its database, its replicas, tokens for very many edges."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.dispatcher.figures import cpu_of, rss_mb
from sqlalchemy import func, insert, select
from support.dispatcher import RunningDispatcher, running_dispatcher
from support.postgres import PostgresServer, running_server

from hpcpanda.dispatcher.auth import digest_of, make_token
from hpcpanda.dispatcher.store.opening import open_database
from hpcpanda.dispatcher.store.tables import metadata, tasks, tokens

Bearer = tuple[str, str]
"""Name and token of an edge or a user."""


@dataclass(frozen=True, slots=True)
class World:
    """Replicas of a dispatcher over one database."""

    replicas: list[RunningDispatcher]
    server: PostgresServer | None

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    @property
    def pids(self) -> list[int]:
        return [replica.process.pid for replica in self.replicas]

    def dispatcher_cpu(self) -> float:
        """Processor seconds of all replicas so far; SQLite's are among them."""
        return cpu_of(self.pids)

    def database_cpu(self) -> float:
        """Processor seconds of PostgreSQL so far."""
        return cpu_of([self.server.process.pid]) if self.server and self.server.process else 0.0

    def memory_mb(self) -> float:
        """Of all replicas."""
        return rss_mb(self.pids)

    def bearers(self, kind: str, number: int) -> list[Bearer]:
        """New tokens, written in one statement."""
        made = [(f"{kind}-{n}", make_token(kind)) for n in range(number)]
        rows = [
            {"digest": digest_of(token), "scope": kind, "name": name, "created": 0.0, "expires": None}
            for name, token in made
        ]
        self.execute(insert(tokens), rows)
        return made

    def counted(self) -> tuple[int, int]:
        """Events and jobs that are settled, and leases, as the tables say."""
        settled = self.execute(select(func.coalesce(func.sum(tasks.c.done + tasks.c.failed), 0)))
        return int(settled[0][0]), self.rows()["leases"]

    def rows(self) -> dict[str, int]:
        """Rows of every table that has any."""
        counts = {
            name: int(self.execute(select(func.count()).select_from(table))[0][0])
            for name, table in metadata.tables.items()
        }
        return {name: count for name, count in counts.items() if count}

    def execute(self, statement: Any, rows: list[dict[str, Any]] | None = None) -> list[Any]:
        """Run a statement beside the replicas; gives the rows, if it has any."""

        async def run() -> list[Any]:
            database = open_database(self.replicas[0].settings)
            try:
                async with database.write() as connection:
                    result = await connection.execute(statement, rows)
                    return list(result.all()) if result.returns_rows else []
            finally:
                await database.close()

        with ThreadPoolExecutor(1) as thread:  # there may be a loop here that runs already
            return thread.submit(lambda: asyncio.run(run())).result()


@contextlib.contextmanager
def running_world(database: str, *, replicas: int = 1, **settings: object) -> Iterator[World]:
    """Replicas as ``hpcpanda dispatcher`` starts them, each a process of its own, over a fresh database."""
    assert database in ("sqlite", "postgresql")
    assert database == "postgresql" or replicas == 1, "one dispatcher at a time uses a SQLite file"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcpanda-load-")))
        server = stack.enter_context(running_server()) if database == "postgresql" else None
        if server is not None:
            settings["database"] = server.create_database()
        running = [
            stack.enter_context(running_dispatcher(folder / f"state-{n}", **settings))
            for n in range(replicas)
        ]
        yield World(running, server)
