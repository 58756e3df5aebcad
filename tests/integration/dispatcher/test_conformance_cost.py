"""What requests cost on both kinds of database: how many statements, and that each finds its rows by an index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
from sqlalchemy import event, text
from support.dispatcher import spec
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.expiry import sweep
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import submit_task
from hpcpanda.domain.exchange import Capacity, EdgeRegistration, Grants, LeaseCommit, SyncRequest

NOW = 1e9
TERMS = Terms(lease_seconds=100)
BOUNDS = {"acquire nothing": 6, "acquire one": 13, "sync nothing": 2, "sync commits": 8, "submit": 9}
"""Each statement is a round trip to PostgreSQL, most of them while a task is held."""


class Meter:
    """Use cases over one database, with their statements."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = Store(database)
        self.statements: list[tuple[str, object]] = []
        self.granted = Grants(leases=())
        event.listen(database.engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _c: object, _r: object, statement: str, given: object, _x: object, many: bool) -> None:
        if statement.split(maxsplit=1)[0] in {"SELECT", "UPDATE", "DELETE", "INSERT"}:
            self.statements.append((statement, given[0] if many and isinstance(given, list) else given))

    async def count(self, act: Awaitable[object]) -> int:
        self.statements.clear()
        await act
        return len(self.statements)

    async def register(self) -> None:
        registration = EdgeRegistration(instance="a", cores=8, held=())
        await register_edge(self.store.writing(), name="a", registration=registration, terms=TERMS, now=NOW)

    async def submit(self, events: int) -> None:
        await submit_task(self.store.writing(), spec=spec(events), owner="ada", idempotency_key=None, now=NOW)

    async def acquire(self, events: int = 1) -> Grants:
        capacity = Capacity(instance="a", cores=events, seconds=1.0)
        uow = self.store.writing()
        self.granted = await acquire_work(uow, edge="a", capacity=capacity, terms=TERMS, now=NOW)
        return self.granted

    async def commit(self, *grants: Grants) -> None:
        commits = tuple(
            LeaseCommit(task_id=g.task_id, epoch=g.epoch, done=g.events, core_seconds=1.0)
            for each in grants
            for g in each.leases
        )
        request = SyncRequest(instance="a", commits=commits)
        await sync_edge(self.store.writing(), edge="a", request=request, terms=TERMS, now=NOW)


@pytest.fixture(params=["sqlite", "postgres"])
async def meter(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Meter]:
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "db.sqlite")
        await database.migrate()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=2)
    made = Meter(database)
    await made.register()
    yield made
    await database.close()


async def test_requests_take_few_statements_however_much_they_carry(meter: Meter) -> None:
    """Fifty commits cost as many statements as one, work of twenty tasks as many as of one, and no request takes more
    than a handful."""
    counts = {"acquire nothing": await meter.count(meter.acquire())}
    counts["submit"] = await meter.count(meter.submit(1000))
    counts["acquire one"] = await meter.count(meter.acquire())
    grants = [await meter.acquire() for _ in range(51)]
    counts["sync nothing"] = await meter.count(meter.commit())
    counts["sync commits"] = await meter.count(meter.commit(grants[0]))
    assert await meter.count(meter.commit(*grants[1:])) == counts["sync commits"]
    for _ in range(20):
        await meter.submit(2)
    assert await meter.count(meter.acquire(1000)) <= BOUNDS["acquire one"]
    assert len(meter.granted.leases) > 15
    over = {name: (count, BOUNDS[name]) for name, count in counts.items() if count > BOUNDS[name]}
    assert not over, f"more statements than allowed: {over}"


async def test_hot_queries_use_indexes(meter: Meter) -> None:
    """Over 3000 tasks with 20 000 leases, no statement of submit, acquire, sync, register or sweep reads a large table
    from end to end."""
    await meter.submit(1000)
    is_postgres = isinstance(meter.database, PostgresDatabase)
    async with meter.database.write() as connection:
        for statement in BULK:
            await connection.execute(
                text(f"WITH RECURSIVE {NUMBERS} {statement}" if is_postgres else _in_order(statement))
            )
    async with meter.database.engine.connect() as connection:
        loose = (
            await connection.execution_options(isolation_level="AUTOCOMMIT") if is_postgres else connection
        )
        await loose.execute(text("ANALYZE"))
        await loose.commit()
    meter.statements.clear()
    await meter.submit(10)
    await meter.commit(await meter.acquire(10))
    await sweep(meter.store.writing(), now=NOW + 1000)
    await meter.register()
    statements = dict(meter.statements)
    assert len(statements) > 8
    explain, scan = ("EXPLAIN", "Seq Scan on {0} ") if is_postgres else ("EXPLAIN QUERY PLAN", "SCAN {0}\n")
    whole: list[str] = []
    async with meter.database.write() as connection:
        for statement, parameters in statements.items():
            if statement.startswith("INSERT"):
                continue
            rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
            plan = "".join(f"{row[-1]}\n" for row in rows)
            whole += [f"{statement}\n{plan}" for table in LARGE if scan.format(table) in plan]
    assert whole == []


def _in_order(statement: str) -> str:
    """SQLite has its WITH behind INSERT INTO."""
    target, _, query = statement.partition(" SELECT ")
    return f"{target} WITH RECURSIVE {NUMBERS} SELECT {query}"


LARGE = ("tasks", "leases", "ready_ranges")
NUMBERS = "numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)"
BULK = (
    (
        "INSERT INTO tasks (owner, name, state, priority, total, ready, leased, done, failed, merged, max_failed,"
        " next_epoch, core_seconds, rate, rate_at, created, updated, in_container)"
        " SELECT 'ada', 'bulk', CASE WHEN n % 10 = 0 THEN 'running' ELSE 'done' END, 0, 1000, 0, 0, 1000, 0, 1000, 0,"
        " 2, 1.0, 0, 0, 0, 0, false FROM numbers WHERE n <= 3000"
    ),
    (
        "INSERT INTO leases (task_id, epoch, edge, granted, outstanding, committed, expires, is_open)"
        " SELECT 2 + n % 3000, n / 3000 + 10, 'e' || (n % 100), '[0,1]', '[]', '[0,1]', n, false FROM numbers"
    ),
    "INSERT INTO ready_ranges (task_id, first, last) SELECT 2 + n % 3000, n * 10, n * 10 + 5 FROM numbers",
)
