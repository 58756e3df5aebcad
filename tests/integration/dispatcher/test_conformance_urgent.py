"""An edge that is full asks for what is more urgent than what it has, over both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.control_world import ControlWorld
from support.dispatcher import spec
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.control import set_priority
from hpcpanda.dispatcher.usecases.tasks import submit_task
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import Capacity

TERMS = Terms(lease_seconds=1e9)


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ControlWorld]:
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "db.sqlite")
        await database.migrate()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=2)
    made = ControlWorld(database)
    await made.register("a", "b")
    yield made
    await made.check()
    await database.close()


async def submit(world: ControlWorld, priority: int, owner: str = "ada") -> int:
    made = replace(spec(100), priority=priority)
    task = await submit_task(
        world.store.writing(), spec=made, owner=owner, idempotency_key=None, now=world.now
    )
    return task.task_id


async def ask(world: ControlWorld, above: int | None, cores: int = 1000) -> list[int]:
    """Tasks of which edge ``a`` is given some."""
    capacity = Capacity(instance="a-1", cores=cores, seconds=1.0, only="events", above=above)
    grants = await acquire_work(
        world.store.writing(), edge="a", capacity=capacity, terms=TERMS, now=world.now
    )
    return [grant.task_id for grant in grants.leases]


async def test_only_tasks_above_the_priority_are_leased(world: ControlWorld) -> None:
    """Of whichever user; that of exactly this priority is not, and without a bound all are."""
    low, same, high = await submit(world, -5), await submit(world, 4), await submit(world, 5)
    other = await submit(world, 900, owner="eve")
    assert await ask(world, 900) == []
    assert sorted(await ask(world, 4)) == [high, other]
    assert await ask(world, 4) == []
    assert sorted(await ask(world, None)) == [low, same]


async def test_a_priority_that_was_raised_counts(world: ControlWorld) -> None:
    """What a task was submitted with is forgotten, and the edge is told what it is now."""
    task_id = await submit(world, 0)
    assert await ask(world, 4) == []
    await set_priority(world.store.writing(), task_id=task_id, priority=5, caller="ada", now=world.now)
    capacity = Capacity(instance="a-1", cores=1, seconds=1.0, only="events", above=4)
    grants = await acquire_work(
        world.store.writing(), edge="a", capacity=capacity, terms=TERMS, now=world.now
    )
    assert [(g.task_id, g.spec.priority) for g in grants.leases] == [(task_id, 5)]


async def test_a_question_for_what_is_urgent_says_nothing_of_hunger(world: ControlWorld) -> None:
    """The edge that asks it has work for all its cores: nothing is left to it that others could run at once."""
    await submit(world, 0)
    assert await ask(world, 4) == []
    async with world.store.reading() as uow:
        site = await uow.sites.get("a")
    assert site is not None
    assert (site.hungry, site.asked) == (False, 0.0)
    assert await ask(world, None, cores=10**6) != []
    async with world.store.reading() as uow:
        site = await uow.sites.get("a")
    assert site is not None
    assert (site.hungry, site.asked) == (True, world.now)


@pytest.mark.parametrize("above", [-1001, 1001])
def test_a_priority_that_no_task_can_have_is_refused(above: int) -> None:
    """With the name of the field."""
    with pytest.raises(InvalidValue, match=r"above: -?1001 is outside -1000\.\.1000"):
        Capacity(instance="a-1", cores=1, seconds=1.0, above=above)
