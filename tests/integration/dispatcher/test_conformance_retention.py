"""What is forgotten and put away of finished tasks, over both kinds of database: small tables, the same answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from support.dispatcher import spec
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.doctor import check_accounts
from hpcpanda.dispatcher.retention import BATCH, DAY, Retention, archive, prune, retain
from hpcpanda.dispatcher.store.archive import tables_of_a_task
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import get_task, list_failures, list_outputs, submit_task
from hpcpanda.domain.errors import InvalidValue, NotFound
from hpcpanda.domain.exchange import (
    Capacity,
    EdgeRegistration,
    LeaseCommit,
    OutputFile,
    SyncReply,
    SyncRequest,
    TaskActivity,
)
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.states import TaskState

NOW = 1e9
TERMS = Terms(lease_seconds=1e9)


class World:
    """One edge that finishes tasks over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = Store(database)
        self.now = NOW
        self.retention = Retention(prune_days=7, archive_days=90)

    async def start(self) -> None:
        await self.database.migrate()
        registration = EdgeRegistration(instance="e-1", cores=8)
        await register_edge(
            self.store.writing(), name="e", registration=registration, terms=TERMS, now=self.now
        )

    async def submit(self, events: int = 10, key: str | None = None) -> int:
        made = spec(events, max_failed=3)
        task = await submit_task(
            self.store.writing(), spec=made, owner="ada", idempotency_key=key, now=self.now
        )
        return task.task_id

    async def finish(self, task_id: int, events: int = 10) -> None:
        """All events done but the last, which failed; one output."""
        capacity = Capacity(instance="e-1", cores=events, seconds=1.0, task_id=task_id)
        uow = self.store.writing()
        (grant,) = (await acquire_work(uow, edge="e", capacity=capacity, terms=TERMS, now=self.now)).leases
        done = IntervalSet.span(0, events - 1)
        failed = (FailedEvent(event=events - 1, error="bad"),)
        commit = LeaseCommit(task_id=task_id, epoch=grant.epoch, done=done, failed=failed)
        output = OutputFile(
            task_id=task_id, path=f"/out/{task_id}", manifest="m", events=done, digest="d", size=1
        )
        activity = TaskActivity(task_id=task_id, cores=8, cores_busy=8.0)
        await self.sync(
            SyncRequest(instance="e-1", commits=(commit,), outputs=(output,), activity=(activity,))
        )

    async def sync(self, request: SyncRequest) -> SyncReply:
        reply, _ = await sync_edge(self.store.writing(), edge="e", request=request, terms=TERMS, now=self.now)
        return reply

    async def told(self, task_id: int) -> tuple[object, ...]:
        """All that can be asked of a task; without rates, which fade."""
        reading = self.store.reading
        task = await get_task(reading(), task_id=task_id, now=self.now)
        counts = task.progress
        return (
            (task.state, task.spec, task.owner, task.created, task.updated, task.message),
            (counts.total, counts.ready, counts.leased, counts.done, counts.failed, counts.event_seconds),
            await list_outputs(reading(), task_id=task_id),
            await list_failures(reading(), task_id=task_id, after=None, limit=10),
            (await explain_task(reading(), task_id=task_id, terms=TERMS, now=self.now)).reasons,
        )

    async def count(self, table: str) -> int:
        async with self.database.read() as connection:
            return (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()

    async def retain(self) -> int:
        return await retain(self.store.writing, retention=self.retention, now=self.now)


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "db.sqlite")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=2)
    made = World(database)
    await made.start()
    yield made
    await database.close()


async def test_a_finished_task_is_pruned_and_put_away_and_told_as_before(world: World) -> None:
    """At first nothing changes; then leases go, and late messages are refused; then one row is left of it; what can be
    asked for is the same all the time, and the same key is still the same task."""
    task_id = await world.submit(key="key")
    running = await world.submit()
    await world.finish(task_id)
    told = await world.told(task_id)
    late = LeaseCommit(task_id=task_id, epoch=1, done=IntervalSet.span(0, 5))
    message = SyncRequest(instance="e-1", commits=(late,), tasks=(task_id,))

    world.now += 6 * DAY
    assert await world.retain() == 0
    assert (await world.sync(message)).commits[0].accepted == IntervalSet.span(0, 5)

    world.now += 2 * DAY
    assert await world.retain() == 1
    assert await world.retain() == 0, "done again and again"
    assert (await world.count("leases"), await world.count("activity")) == (0, 0)
    assert (await world.sync(message)).commits[0].refused == IntervalSet.span(0, 5)
    assert await world.told(task_id) == told

    world.now += 90 * DAY
    assert await world.retain() == 1
    assert await world.retain() == 0
    for table, column in tables_of_a_task():
        async with world.database.read() as connection:
            query = text(f"SELECT count(*) FROM {table.name} WHERE {column.name} = :task")
            assert (await connection.execute(query, {"task": task_id})).scalar_one() == 0, table.name
    assert (await world.count("tasks"), await world.count("archived_tasks")) == (1, 1)
    assert await world.told(task_id) == told
    reply = await world.sync(message)
    assert reply.commits[0].refused == IntervalSet.span(0, 5)
    assert [(order.task_id, order.state) for order in reply.tasks] == [(task_id, TaskState.FINISHED)]
    assert await world.submit(key="key") == task_id
    with pytest.raises(NotFound):
        await world.told(99)
    assert (await world.told(running))[1][1] == 10
    assert await check_accounts(world.database) == []


async def test_retention_goes_in_small_portions(world: World) -> None:
    """More finished tasks than one transaction takes: each turn does one portion, all are done in the end."""
    tasks = BATCH + 3
    for _ in range(tasks):
        await world.finish(await world.submit())
        world.now += 1
    world.now += 8 * DAY
    turns = [await prune(world.store.writing(), retention=world.retention, now=world.now) for _ in range(3)]
    assert turns == [BATCH, 3, 0]
    world.now += 90 * DAY
    turns = [await archive(world.store.writing(), retention=world.retention, now=world.now) for _ in range(3)]
    assert turns == [BATCH, 3, 0]
    assert (await world.count("tasks"), await world.count("archived_tasks")) == (0, tasks)


def test_every_table_of_tasks_is_known_here() -> None:
    """Rows of these go when a task is put away. Who adds one decides: what is to be told of an archived task goes into
    ``TaskDetails``; what is to outlive it does not refer to ``tasks``."""
    assert {table.name for table, _ in tables_of_a_task()} == KNOWN


KNOWN = {
    *("task_specs", "ready_ranges", "leases", "failed_events", "outputs", "activity", "reasons"),
    *("broker_notes", "task_data"),
    *("generation", "job_bounds", "job_pieces", "growing_tasks"),
    *("fences", "tried_again"),
}


def test_what_is_forgotten_first_is_put_away_last() -> None:
    """Settings that contradict each other are refused."""
    with pytest.raises(InvalidValue, match="5 is less than HPCPANDA_DISPATCHER_PRUNE_DAYS, 7"):
        Retention(prune_days=7, archive_days=5)
