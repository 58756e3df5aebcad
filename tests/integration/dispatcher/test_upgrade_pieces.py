"""Back to the version before jobs were split, and forward again, on both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.dispatcher import test_conformance_splitting as splitting
from sqlalchemy import text
from support.control_world import ControlWorld
from support.postgres import PostgresServer, postgres_server  # noqa: F401 - fixture
from support.schema import differences

from hpcpanda.dispatcher.doctor import check_accounts
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.domain.exchange import LeaseGrant
from hpcpanda.domain.splitting import JobSplit


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    made: Database
    if request.param == "sqlite":
        made = SqliteDatabase(tmp_path / "db.sqlite")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        made = PostgresDatabase(server.create_database(), connections=2)
    await made.migrate()
    yield made
    await made.close()


async def test_tasks_whose_jobs_were_split_fail_and_others_go_on(database: Database) -> None:
    """The code of then would give a job twice what it has, and know nothing of its other half."""
    world = ControlWorld(database)
    await world.register("a")
    split, whole = [
        await splitting.submit(world, inputs=splitting.files(8), split=JobSplit(files_per_job=4))
        for _ in range(2)
    ]
    grant = await splitting.lease(world, split)
    await splitting.fail(world, grant, [1])
    held: LeaseGrant = await splitting.lease(world, whole, 1)
    await to(database, "0011")
    async with database.read() as connection:
        query = text("SELECT task_id, state, total, ready, leased FROM tasks ORDER BY task_id")
        assert [tuple(row) for row in await connection.execute(query)] == [
            (split, "failed", 3, 0, 0),
            (whole, "running", 2, 1, 1),
        ]
    await database.migrate()
    async with database.write() as connection:
        assert await connection.run_sync(differences) == []
    assert await check_accounts(database) == []
    task = await world.task(split)
    assert task.message == "its jobs were split, which this version does not know"
    rest = await splitting.lease(world, whole)
    assert splitting.told(rest).keys() | splitting.told(held).keys() == {0, 1}


async def to(database: Database, version: str) -> None:
    """Back to an earlier version."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import Connection

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "hpcpanda.dispatcher.store:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.downgrade(config, version)

    async with database.write() as connection:
        await connection.run_sync(run)
