"""What an explanation reads, over both kinds of database: no more, however many edges have registered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event, text
from support.control_world import ROOM, ControlWorld
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.brokering import MAX_SITES
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.domain.task import LossPolicy

EDGES = 3 * MAX_SITES


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ControlWorld]:
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "db.sqlite")
        await database.migrate()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=2)
    yield ControlWorld(database)
    await database.close()


async def register_many(world: ControlWorld) -> None:
    """More edges than an explanation looks at."""
    async with world.database.write() as connection:
        for first in range(0, EDGES, 100):
            names = [f"e{n:04}" for n in range(first, first + 100)]
            edges = ", ".join(f"('{name}', 'i', 8, '', {world.now})" for name in names)
            sites = ", ".join(f"('{name}', '[]', 0, false, 0, 0, 0, 0)" for name in names)
            await connection.execute(
                text(f"INSERT INTO edges (name, instance, cores, version, last_seen) VALUES {edges}")
            )
            await connection.execute(
                text(
                    "INSERT INTO sites (edge, tags, asked, hungry, granted, committed, failure_rate, "
                    f"queue_wait_s) VALUES {sites}"
                )
            )


async def test_no_statement_reads_all_edges(world: ControlWorld) -> None:
    """Each that reads edges reads a bounded number of them."""
    await register_many(world)
    task_id = await world.submit_jobs(loss=LossPolicy())
    statements: list[str] = []

    def note(_c: object, _r: object, statement: str, *_: object) -> None:
        statements.append(statement)

    for engine in (world.database.engine, getattr(world.database, "_reader", world.database.engine)):
        event.listen(engine.sync_engine, "before_cursor_execute", note)
    told = await world.explain(task_id)
    assert told.reasons[1] == f"No edge of the {MAX_SITES} that asked last has asked for jobs yet."
    reading = [s for s in statements if "FROM edges" in s or "JOIN edges" in s]
    assert reading
    assert all("LIMIT" in s for s in reading)


async def test_who_is_there_is_told_as_before(world: ControlWorld) -> None:
    """None registered, some alive and too small, none alive: in words."""
    small = LossPolicy()
    task_id = await world.submit_jobs(loss=small, cores=100)
    assert (await world.explain(task_id)).reasons[
        1
    ] == "No edge has registered yet: nothing runs until one does."
    await world.register("b", "a")
    assert (await world.explain(task_id)).reasons[1] == "No living edge has asked for jobs yet."
    await world.acquire("a", room=ROOM)
    assert (await world.explain(task_id)).reasons[1] == (
        "No living edge that has asked for jobs has room for one: on edge a a job asks for 100 cores, where there are 64."
    )
    late = await explain_task(
        world.store.reading(), task_id=task_id, terms=Terms(edge_alive_seconds=60.0), now=world.now + 600.0
    )
    assert late.reasons[1] == "No edge is alive: the last heard of is a, 10 min ago."
