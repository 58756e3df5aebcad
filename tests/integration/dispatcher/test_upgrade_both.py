"""A database of the first version, with work in it, is brought to the newest one, be it SQLite's or PostgreSQL's."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, MetaData, text
from support.postgres import (
    PostgresServer,
    postgres_server,  # noqa: F401
)
from unit.dispatcher import test_upgrade as rules

from hpcpanda.dispatcher.backup import restore_backup, write_backup
from hpcpanda.dispatcher.doctor import check_accounts
from hpcpanda.dispatcher.store.database import Database, migrate_to, newest_version, schema_version
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import get_task, list_failures, submit_task
from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.exchange import Capacity, LeaseCommit, SyncRequest
from hpcpanda.domain.intervals import IntervalSet

NOW, TERMS = rules.NOW, rules.TERMS
DIGEST = hashlib.sha256(rules.SPEC_OF_THEN.encode()).hexdigest()
TASK = (
    "INSERT INTO tasks (task_id, owner, name, state, priority, total, ready, leased, done, failed, merged, max_failed,"
    " next_epoch, core_seconds, guess, rate, rate_at, created, updated, message)"
    " VALUES (:id, 'ada', 'old', :state, 0, 100, :ready, :leased, :done, :failed, :merged, 3, 2, 10.0, NULL, 0.0, :now,"
    " :now, :now, :message)"
)
ROWS = (
    (TASK, {"id": 7, "state": "running", "ready": 68, "leased": 20, "done": 10, "failed": 2, "merged": 0, "message": None}),
    (TASK, {"id": 8, "state": "ready", "ready": 100, "leased": 0, "done": 0, "failed": 0, "merged": 0, "message": None}),
    (TASK, {"id": 9, "state": "done", "ready": 0, "leased": 0, "done": 100, "failed": 0, "merged": 100, "message": None}),
    (TASK, {"id": 10, "state": "aborted", "ready": 0, "leased": 0, "done": 0, "failed": 0, "merged": 0, "message": "by ada"}),
    *(
        ("INSERT INTO task_specs VALUES (:id, 'ada', :key, :digest, :spec)",
         {"id": i, "key": f"key{i}", "digest": DIGEST, "spec": rules.SPEC_OF_THEN})
        for i in (7, 8, 9, 10)
    ),
    ("INSERT INTO ready_ranges VALUES (7, 32, 100), (8, 0, 100)", {}),
    ("INSERT INTO leases VALUES (7, 1, 'e', '[0,32]', '[10,30]', '[0,10,30,32]', :later, true)", {"later": NOW + 1000}),
    ("INSERT INTO leases VALUES (9, 1, 'e', '[0,100]', '[]', '[0,100]', :now, false)", {}),
    ("INSERT INTO failed_events VALUES (7, 30, 'bad', 3), (7, 31, 'worse', 3)", {}),
    ("INSERT INTO outputs VALUES (9, '/out/a.h5', 'e', '/out/a.json', '[0,100]', 'd', 17)", {}),
    ("INSERT INTO activity VALUES ('e', 7, 8, 7.5, :now)", {}),
    ("INSERT INTO edges VALUES ('e', 'e-1', 8, '0.1', :now)", {}),
    ("INSERT INTO tokens VALUES ('abc', 'user', 'ada', :now)", {}),
)  # fmt: skip
"""Rows of every table of version 0001."""


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database of version 0001 with work in it."""
    made: Database
    if request.param == "sqlite":
        made = SqliteDatabase(tmp_path / "db.sqlite")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        made = PostgresDatabase(server.create_database(), connections=2)
    async with made.write() as connection:
        await connection.run_sync(lambda c: migrate_to(c, "0001"))
        for statement, values in ROWS:
            given = {"now": NOW, **values} if ":now" in statement else values
            await connection.execute(text(statement), given)
        if request.param == "postgres":
            await connection.execute(text("SELECT setval('tasks_task_id_seq', 10)"))
    yield made
    await made.close()


async def test_everything_is_there_and_work_goes_on(database: Database) -> None:
    """All tasks, failures, outputs and leases of then are told, what was leased is committed, numbers go on."""
    before = await counts(database)
    await database.migrate()
    await database.migrate()
    async with database.read() as connection:
        assert await connection.run_sync(schema_version) == (newest_version(),)
    assert {name: count for name, count in (await counts(database)).items() if name in before} == before
    assert await check_accounts(database) == []
    store = Store(database)
    states = [(await get_task(store.reading(), task_id=i, now=NOW)).state for i in (7, 8, 9, 10)]
    assert states == ["running", "ready", "done", "aborted"]
    failures = await list_failures(store.reading(), task_id=7, after=None, limit=10)
    assert [f.error for f in failures.events] == ["bad", "worse"]
    update = LeaseCommit(task_id=7, epoch=1, done=IntervalSet.span(0, 30), core_seconds=20.0)
    request = SyncRequest(instance="e-1", commits=(update,))
    reply, _ = await sync_edge(store.writing(), edge="e", request=request, terms=TERMS, now=NOW)
    assert reply.commits[0].accepted == IntervalSet.span(0, 30)
    capacity = Capacity(instance="e-1", cores=8, seconds=1000.0)
    grants = await acquire_work(store.writing(), edge="e", capacity=capacity, terms=TERMS, now=NOW)
    assert {(g.task_id, g.epoch, g.events) for g in grants.leases} == {
        (7, 2, IntervalSet.span(32, 100)),
        (8, 2, IntervalSet.span(0, 100)),
    }
    again = await submit_task(store.writing(), spec=rules.SPEC, owner="ada", idempotency_key="key9", now=NOW)
    assert again.task_id == 9
    new = await submit_task(store.writing(), spec=rules.SPEC, owner="ada", idempotency_key="new", now=NOW)
    assert new.task_id == 11
    assert await check_accounts(database) == []


@pytest.mark.parametrize("used", [False, True], ids=["no schema yet", "newest schema"])
async def test_a_backup_of_the_first_version_is_restored(
    database: Database, tmp_path: Path, *, used: bool
) -> None:
    """Into a database without tables, and into one that has the newest tables already; it is then at the newest version."""
    told = await write_backup(database, tmp_path / "old.gz")
    before = await counts(database)
    if isinstance(database, SqliteDatabase):
        target: Database = SqliteDatabase(tmp_path / "new.sqlite")
    else:
        assert isinstance(database, PostgresDatabase)
        async with database.write() as connection:
            await connection.run_sync(lambda c: migrate_to(c, "0001", afresh=True))
            await connection.execute(text("DROP TABLE alembic_version"))
            for name in reversed((await connection.run_sync(reflected)).sorted_tables):
                await connection.execute(text(f"DROP TABLE {name}"))
        target = database
    if used:
        await target.migrate()
    assert await restore_backup(target, tmp_path / "old.gz") == told
    assert told.schema == "0001"
    assert {name: count for name, count in (await counts(target)).items() if name in before} == before
    async with target.read() as connection:
        assert await connection.run_sync(schema_version) == (newest_version(),)
    assert await check_accounts(target) == []
    await target.close()


def reflected(connection: Connection) -> MetaData:
    """The tables that are there."""
    metadata = MetaData()
    metadata.reflect(connection)
    return metadata


async def test_a_database_of_a_newer_version_is_left_alone(database: Database) -> None:
    """It is told, and not touched."""
    await database.migrate()
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        Unavailable, match="schema version 9999 is not known to this hpcpanda; use the hpcpanda"
    ):
        await database.migrate()


async def counts(database: Database) -> dict[str, int]:
    """Rows of the tables of then."""
    names = (
        "tasks",
        "task_specs",
        "ready_ranges",
        "leases",
        "failed_events",
        "outputs",
        "activity",
        "edges",
        "tokens",
    )
    async with database.read() as connection:
        return {
            name: (await connection.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()
            for name in names
        }
