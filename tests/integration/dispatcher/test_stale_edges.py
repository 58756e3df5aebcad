"""Ten thousand edges that have registered, hold a lease each, and are heard of no more; on both kinds of database."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event, insert, text, update
from support.dispatcher import spec
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.doctor import check_accounts
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.tables import edges, leases, ready_ranges, tasks
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import list_edges, register_edge
from hpcpanda.dispatcher.usecases.expiry import BATCH, beat, sweep
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.tasks import submit_task
from hpcpanda.domain.exchange import MAX_EDGES, Capacity, EdgeRegistration

NOW = 1e9
TERMS = Terms(lease_seconds=100)
EDGES, TASKS, EACH = 10_000, 20, 10
"""Edges; tasks of which they hold something; events that each holds."""


class World:
    """A database, with the statements that are run over it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = Store(database)
        self.statements = 0
        event.listen(database.engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, *_: object) -> None:
        self.statements += 1

    async def register(self, name: str, now: float) -> None:
        registration = EdgeRegistration(instance=name, cores=8, held=())
        await register_edge(self.store.writing(), name=name, registration=registration, terms=TERMS, now=now)

    async def acquire(self, now: float) -> int:
        """Lease one event; gives how many statements that took."""
        capacity = Capacity(instance="fresh", cores=1, seconds=1.0)
        before = self.statements
        grants = await acquire_work(
            self.store.writing(), edge="fresh", capacity=capacity, terms=TERMS, now=now
        )
        assert [len(grant.events) for grant in grants.leases] == [1]
        return self.statements - before

    async def grow_stale(self) -> None:
        """All the edges, and what they hold."""
        share = EDGES // TASKS
        total = share * EACH
        ids = []
        for _ in range(TASKS):
            task = await submit_task(
                self.store.writing(), spec=spec(total), owner="ada", idempotency_key=None, now=NOW
            )
            ids.append(task.task_id)
        names = [f"stale-{number:05}" for number in range(EDGES)]
        async with self.database.write() as connection:
            seen = {"instance": "gone", "cores": 8, "version": "", "last_seen": NOW}
            await connection.execute(insert(edges), [seen | {"name": name} for name in names])
            rows = [
                {
                    "task_id": ids[number % TASKS],
                    "epoch": number // TASKS + 1,
                    "edge": name,
                    "granted": f"[{number // TASKS * EACH},{number // TASKS * EACH + EACH}]",
                    "outstanding": f"[{number // TASKS * EACH},{number // TASKS * EACH + EACH}]",
                    "committed": "[]",
                    "expires": NOW + 100,
                    "is_open": True,
                }
                for number, name in enumerate(names)
            ]
            await connection.execute(insert(leases), rows)
            await connection.execute(ready_ranges.delete().where(ready_ranges.c.task_id.in_(ids)))
            counts = {"state": "running", "ready": 0, "leased": total, "next_epoch": share + 1}
            await connection.execute(update(tasks).where(tasks.c.task_id.in_(ids)).values(counts))


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "db.sqlite")
        await database.migrate()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=2)
    yield World(database)
    await database.close()


async def test_ten_thousand_stale_edges_cost_little_and_give_all_back(world: World) -> None:
    """While they are silent, asking for work takes as many statements as without them; when their time is up, their leases
    end a thousand at a time, also as part of somebody's request; in the end every event is ready, and every account
    holds. Nobody is listed in one answer of ten thousand."""
    await beat(world.store.writing(), lease_seconds=100, now=NOW)
    await world.register("fresh", NOW)
    task = await submit_task(
        world.store.writing(), spec=spec(100, priority=1000), owner="eve", idempotency_key=None, now=NOW
    )
    await world.acquire(NOW)
    alone = await world.acquire(NOW)
    await world.grow_stale()
    async with world.database.write() as connection:
        if world.database.shared:
            await connection.execute(text("ANALYZE"))
    assert await world.acquire(NOW) <= alone, "asking for work costs more beside stale edges"

    for seconds in range(20, 120, 20):
        await beat(world.store.writing(), lease_seconds=100, now=NOW + seconds)
    later = NOW + 101
    async with world.store.writing() as uow:
        assert await uow.leases.tasks_overdue(later, BATCH)
    ended, longest = [], 0.0
    while not ended or ended[-1]:
        began, before = time.monotonic(), world.statements
        ended.append(await sweep(world.store.writing(), now=later))
        longest = max(longest, time.monotonic() - began)
        assert world.statements - before < 60 * TASKS, "a sweep takes a statement a lease"
    assert max(ended) <= BATCH
    assert sum(ended) >= EDGES
    assert longest < 20.0
    print(f"{sum(ended)} leases ended in {len(ended) - 1} sweeps of at most {longest:.2f} s")
    async with world.database.read() as connection:
        rows = await connection.execute(
            text("SELECT SUM(ready), SUM(leased), COUNT(*) FROM tasks WHERE owner = 'ada'")
        )
        assert tuple(map(int, rows.one())) == (EDGES * EACH, 0, TASKS)
        fragments = await connection.execute(text("SELECT COUNT(*) FROM ready_ranges"))
        assert fragments.scalar_one() <= TASKS + 1 + EDGES, "rows are not joined"
    assert await check_accounts(world.database) == []

    found = await list_edges(world.store.reading(), after="", limit=MAX_EDGES, terms=TERMS, now=later)
    assert len(found) == MAX_EDGES
    rest = await list_edges(
        world.store.reading(), after="stale-09998", limit=MAX_EDGES, terms=TERMS, now=later
    )
    assert [info.name for info in rest] == ["stale-09999"]
    explained = await explain_task(world.store.reading(), task_id=task.task_id, terms=TERMS, now=later)
    assert len(" ".join(explained.reasons)) < 4000
