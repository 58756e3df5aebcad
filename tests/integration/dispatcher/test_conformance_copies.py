"""Copies of files that are told of when tasks wait for them already, over both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event
from support.datasets import DataBench, file, reading
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases.tasks import cancel_task
from hpcpanda.domain.did import Did

OUT = Did("user.ada", "out.v1")


@pytest.fixture(params=["sqlite", "postgres"])
async def data(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DataBench]:
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "db.sqlite")
        await database.migrate()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=4)
    bench = DataBench(database)
    await bench.register("a", "b")
    yield bench
    await database.close()


async def test_copies_that_are_told_of_later_count(data: DataBench) -> None:
    """A site that has got the files since a task was submitted is as good as the one that had them, at once; and a task
    whose files nobody had is leased as soon as somebody has them. A task that has ended is left alone."""
    files = [file(n, "a", size=10**10) for n in range(20)]
    await data.fill(*files)
    ended = await data.submit(reading())
    await cancel_task(data.store.writing(), task_id=ended.task_id, caller="ada", now=data.now)
    filler = await data.submit(reading(), owner="bob")
    await data.acquire("a", 1, task_id=filler.task_id)
    await data.acquire("a", 10_000, task_id=10**6)  # asks for what is not there: it is hungry
    task = await data.submit(reading())
    assert await data.acquire("b", 10, task_id=task.task_id) == ()
    lost = Did("user.ada", "lost")
    await data.fill(file(0), did=lost)
    alone = await data.submit(reading(lost))
    assert await data.acquire("b", 10, task_id=alone.task_id) == ()
    await data.add(*(file(n, "b", size=10**10) for n in range(20)))
    (grant,) = await data.acquire("b", 10, task_id=task.task_id)
    assert grant.spec.inputs is not None
    assert [f.path for f in grant.spec.inputs.files] == ["/b/f0.root"]
    await data.add(file(0, "b"), did=lost)
    assert [len(g.events) for g in await data.acquire("b", 10, task_id=alone.task_id)] == [10]
    async with data.store.reading() as uow:
        told = await uow.data.of_tasks([ended.task_id, task.task_id, alone.task_id])
    assert {n: dict(one.at or {}) for n, one in told.items()} == {
        ended.task_id: {"a": 20 * 10**10},
        task.task_id: {"a": 20 * 10**10, "b": 20 * 10**10},
        alone.task_id: {"b": 100},
    }


async def test_what_copies_cost_does_not_grow_with_the_tasks_that_read(data: DataBench) -> None:
    """One statement tells brokerage of new copies, however many tasks wait for them; files that are new cost none."""
    await data.create()
    await data.add(file(0, "a"))
    await data.close()
    statements: list[str] = []
    event.listen(
        data.database.engine.sync_engine, "before_cursor_execute", lambda _c, _r, s, *_: statements.append(s)
    )
    counts = []
    for site in ("b", "c"):
        for _ in range(5):
            await data.submit(reading())
        statements.clear()
        await data.add(file(0, site))
        counts.append(len(statements))
        assert sum("INTO task_data" in s for s in statements) == 1
    assert counts[0] == counts[1]
    await data.create(OUT)
    statements.clear()
    await data.add(file(0, "b"), did=OUT)
    assert not any("task_data" in s for s in statements)
