"""A store of an earlier version, with work in it, is brought up to date."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from support.schema import differences

from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import get_task, submit_task
from hpcpanda.domain.errors import Conflict
from hpcpanda.domain.exchange import Capacity, LeaseCommit, SyncRequest
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.room import Room
from hpcpanda.domain.task import TaskSpec

NOW = 1e9
TERMS = Terms(lease_seconds=1e6)
SPEC = TaskSpec(
    name="old", payload=CallablePayload(call="module:function"), output=Output(file="out.h5"), events=100
)
SPEC_OF_THEN = json.dumps(
    {
        "name": "old",
        "events": 100,
        "inputs": None,
        "seed": 1,
        "priority": 0,
        "payload": {
            "call": "module:function",
            "setup": None,
            "settings": {},
            "python_path": [],
            "form": "callable",
        },
        "output": {"file": "out.h5", "format": "hdf5"},
        "resources": {
            "memory_mb": 2000,
            "event_seconds": None,
            "range_timeout_s": 3600.0,
            "setup_timeout_s": 600.0,
        },
        "ranges": {"target_seconds": 2.0, "max_events": None},
        "loss": {"max_failed_events": 0, "attempts": 3},
    }
)
"""The specification as version 0001 has stored it: without jobs and containers."""


async def migrate(database: SqliteDatabase, to: Callable[[Config, str], None], version: str) -> None:
    """To another version than the newest, which is what the database itself can do."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "hpcpanda.dispatcher.store:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        to(config, version)

    async with database.write() as connection:
        await connection.run_sync(run)


def fill(path: Path) -> None:
    """A task of which 10 events are done and 20 leased, by an edge that is registered."""
    digest = hashlib.sha256(SPEC_OF_THEN.encode()).hexdigest()
    store = sqlite3.connect(path)
    with store:
        store.execute(
            "INSERT INTO tasks (task_id, owner, name, state, priority, total, ready, leased, done, failed, merged,"
            " max_failed, next_epoch, core_seconds, guess, rate, rate_at, created, updated, message)"
            " VALUES (7, 'ada', 'old', 'running', 0, 100, 70, 20, 10, 0, 0, 0, 2, 10.0, NULL, 0.0, ?, ?, ?, NULL)",
            (NOW, NOW, NOW),
        )
        store.execute("INSERT INTO task_specs VALUES (7, 'ada', 'key', ?, ?)", (digest, SPEC_OF_THEN))
        store.execute("INSERT INTO ready_ranges VALUES (7, 30, 100)")
        store.execute(
            "INSERT INTO leases VALUES (7, 1, 'e', '[0,30]', '[10,30]', '[0,10]', ?, 1)", (NOW + 1000,)
        )
        store.execute("INSERT INTO edges VALUES ('e', 'e-1', 8, '0.1', ?)", (NOW,))
    store.close()


@pytest.fixture
async def database(tmp_path: Path) -> SqliteDatabase:
    return SqliteDatabase(tmp_path / "db.sqlite")


async def test_work_goes_on_after_an_upgrade(database: SqliteDatabase, tmp_path: Path) -> None:
    """What was leased is committed, what was ready is leased, and a repeated submission is the same task."""
    await migrate(database, command.upgrade, "0001")
    fill(tmp_path / "db.sqlite")
    await database.migrate()
    store = Store(database)

    task = await get_task(store.reading(), task_id=7, now=NOW)
    assert (task.spec, task.progress.leased, task.progress.ready) == (SPEC, 20, 70)
    update = LeaseCommit(task_id=7, epoch=1, done=IntervalSet.span(10, 30), core_seconds=20.0)
    request = SyncRequest(instance="e-1", commits=(update,))
    reply, _ = await sync_edge(store.writing(), edge="e", request=request, terms=TERMS, now=NOW)
    assert reply.commits[0].accepted == IntervalSet.span(10, 30)
    assert (
        "70 events are ready, waiting for an edge to ask for work."
        in (await explain_task(store.reading(), task_id=7, terms=TERMS, now=NOW)).reasons
    )
    room = Room(cores=8, memory_mb=1000, seconds=60.0)
    capacity = Capacity(instance="e-1", cores=8, seconds=1000.0, room=room)
    grants = await acquire_work(store.writing(), edge="e", capacity=capacity, terms=TERMS, now=NOW)
    assert [(grant.epoch, grant.events) for grant in grants.leases] == [(2, IntervalSet.span(30, 100))]

    again = await submit_task(store.writing(), spec=SPEC, owner="ada", idempotency_key="key", now=NOW)
    assert again.task_id == 7
    other = TaskSpec(name="old", payload=SPEC.payload, output=SPEC.output, events=101)
    with pytest.raises(Conflict, match="task 7, which is specified differently"):
        await submit_task(store.writing(), spec=other, owner="ada", idempotency_key="key", now=NOW)
    new = await submit_task(store.writing(), spec=other, owner="ada", idempotency_key="new", now=NOW)
    assert new.task_id == 8
    await database.close()


async def test_an_upgraded_store_is_like_a_new_one(database: SqliteDatabase, tmp_path: Path) -> None:
    """Same tables and columns, all rows there, every foreign key in order; also after there and back."""
    await migrate(database, command.upgrade, "0001")
    fill(tmp_path / "db.sqlite")
    await database.migrate()
    await migrate(database, command.downgrade, "0001")
    store = sqlite3.connect(tmp_path / "db.sqlite")
    assert store.execute("SELECT digest, spec FROM task_specs").fetchall() == [
        (hashlib.sha256(SPEC_OF_THEN.encode()).hexdigest(), SPEC_OF_THEN)
    ]
    store.close()
    await database.migrate()
    async with database.write() as connection:
        found = await connection.run_sync(differences)
    await database.close()
    assert found == []
    store = sqlite3.connect(tmp_path / "db.sqlite")
    assert store.execute("PRAGMA foreign_key_check").fetchall() == []
    assert store.execute("SELECT task_id, job_cores, in_container FROM tasks").fetchall() == [(7, None, 0)]
    assert store.execute("SELECT name, room FROM edges").fetchall() == [("e", None)]
    assert store.execute("SELECT outstanding FROM leases").fetchall() == [("[10,30]",)]
    store.close()
