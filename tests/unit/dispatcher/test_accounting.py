"""What edges say was used is counted once, by day, site and task, on both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest
from support.dispatcher import spec
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.retention import DAY, Retention, archive
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.accounting import report_usage
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import cancel_task, submit_task
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import Capacity, EdgeRegistration, SyncRequest
from hpcpanda.domain.usage import AMOUNTS, Amounts, TaskUsage, UsageBy, UsageReport, UsageTable
from hpcpanda.domain.validation import MAX_EVENTS

NOW = 1e9
TODAY = "2001-09-09"
TERMS = Terms(lease_seconds=1e9)


class World:
    """Edges that say what they used, over one database."""

    def __init__(self, database: Database) -> None:
        self.store = Store(database)
        self.now = NOW

    async def register(self, edge: str) -> None:
        made = EdgeRegistration(instance=f"{edge}-1", cores=8)
        await register_edge(self.store.writing(), name=edge, registration=made, terms=TERMS, now=self.now)

    async def task_at(self, *edges: str, owner: str = "ada", team: str | None = None) -> int:
        """A task of which each of the edges has some."""
        task = await submit_task(
            self.store.writing(), spec=spec(10), owner=owner, team=team, idempotency_key=None, now=self.now
        )
        for edge in edges:
            await self.register(edge)
            wanted = Capacity(instance=f"{edge}-1", cores=1, seconds=1.0, task_id=task.task_id)
            uow = self.store.writing()
            assert (await acquire_work(uow, edge=edge, capacity=wanted, terms=TERMS, now=self.now)).leases
        return task.task_id

    async def say(self, edge: str, sequence: int, **used: Amounts) -> None:
        """``t1=Amounts(...)``: what task 1 has used."""
        tasks = tuple(TaskUsage(task_id=int(name[1:]), amounts=amounts) for name, amounts in used.items())
        request = SyncRequest(instance=f"{edge}-1", usage=UsageReport(sequence=sequence, tasks=tasks))
        await sync_edge(self.store.writing(), edge=edge, request=request, terms=TERMS, now=self.now)

    async def report(
        self,
        by: str,
        *,
        first: str | None = None,
        last: str | None = None,
        sight: Sight | None = None,
        limit: int = 9,
    ) -> UsageTable:
        return await report_usage(
            self.store.reading(),
            by=UsageBy(by),
            first=date.fromisoformat(first) if first else None,
            last=date.fromisoformat(last) if last else None,
            sight=sight,
            limit=limit,
            now=self.now,
        )

    async def held(self, by: str, **how: object) -> dict[str, float]:
        return {row.key: row.amounts.held_s for row in (await self.report(by, **how)).rows}  # type: ignore[arg-type]


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


def held(seconds: float) -> Amounts:
    return Amounts(held_s=seconds)


async def test_a_report_counts_once_however_often_it_is_sent(world: World) -> None:
    """An edge that was not answered says the same again; only what has a new number is added. Each amount arrives in
    the place it was meant for."""
    await world.task_at("a")
    amounts = {name: n + 1.0 for n, name in enumerate(AMOUNTS)} | {"done": 70, "failed": 7}
    for _ in range(3):
        await world.say("a", 1, t1=Amounts(**amounts))
    (row,) = (await world.report("task")).rows
    assert (row.key, row.name, row.amounts) == ("1", "sand", Amounts(**amounts))
    await world.say("a", 2, t1=held(0.5))
    await world.say("a", 1, t1=held(0.5))
    table = await world.report("task")
    assert table.total == table.rows[0].amounts == Amounts(**amounts | {"held_s": amounts["held_s"] + 0.5})


async def test_an_edge_that_lost_its_folder_begins_to_number_anew(world: World) -> None:
    """Reports are numbered by the instance, not by the name."""
    await world.task_at("a")
    await world.say("a", 5, t1=held(1))
    world.now += 1000
    made = EdgeRegistration(instance="new", cores=8)
    terms = Terms(edge_alive_seconds=1)
    await register_edge(world.store.writing(), name="a", registration=made, terms=terms, now=world.now)
    for _ in range(2):
        report = UsageReport(sequence=1, tasks=(TaskUsage(task_id=1, amounts=held(2)),))
        request = SyncRequest(instance="new", usage=report)
        await sync_edge(world.store.writing(), edge="a", request=request, terms=terms, now=world.now)
    assert await world.held("site") == {"a": 3}


async def test_usage_is_divided_by_task_user_group_site_and_day(world: World) -> None:
    """The same sum, cut in five ways; most first, days in order, from a day to a day."""
    await world.task_at("a", "b", owner="ada", team="atlas")
    await world.task_at("a", owner="bob")
    await world.say("a", 1, t1=held(1), t2=held(2))
    world.now += DAY
    await world.say("b", 1, t1=held(4))
    await world.say("a", 2, t2=held(8))
    assert await world.held("task") == {"2": 10, "1": 5}
    assert await world.held("user") == {"bob": 10, "ada": 5}
    assert await world.held("group") == {"": 10, "atlas": 5}
    assert await world.held("site") == {"a": 11, "b": 4}
    assert list((await world.held("day")).items()) == [(TODAY, 3), ("2001-09-10", 12)]
    assert await world.held("site", last=TODAY) == {"a": 3}
    assert await world.held("task", first="2001-09-10") == {"2": 8, "1": 4}
    short = await world.report("task", limit=1)
    assert (len(short.rows), short.left_out, short.total.held_s) == (1, 1, 15)
    with pytest.raises(InvalidValue, match="from: 2001-09-10 comes after 2001-09-09"):
        await world.report("task", first="2001-09-10", last=TODAY)


async def test_users_see_their_own_and_their_groups(world: World) -> None:
    """What others use is not even in the sums."""
    await world.task_at("a", owner="ada", team="atlas")
    await world.task_at("a", owner="bob", team="cms")
    await world.task_at("a", owner="bob")
    await world.say("a", 1, t1=held(1), t2=held(2), t3=held(4))
    ada = Sight(name="ada", groups=frozenset({"cms"}))
    assert await world.held("task", sight=ada) == {"2": 2, "1": 1}
    assert (await world.report("site", sight=ada)).total.held_s == 3
    assert await world.held("user", sight=Sight(name="eve", groups=frozenset())) == {}


async def test_an_edge_is_believed_of_tasks_that_it_was_given_only(world: World) -> None:
    """Neither others' tasks nor numbers that are none are counted, and nothing overflows; of its own it may say more
    when they are long over."""
    await world.task_at("a")
    await world.task_at("b")
    most = Amounts(held_s=1e15, done=MAX_EVENTS)
    for n in range(3):
        await world.say(
            "a", n + 1, t1=most, t2=held(7), t99=held(7), t0=held(7), t99999999999999999999=held(7)
        )
    table = await world.report("task")
    assert [row.key for row in table.rows] == ["1"]
    assert table.total.held_s == 3e15
    assert table.total.done == pytest.approx(3 * MAX_EVENTS)


@pytest.mark.parametrize(
    "wrong", [{"used_s": -1.0}, {"node_s": float("nan")}, {"held_s": 1e16}, {"done": -1}]
)
def test_amounts_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    """They are named."""
    with pytest.raises(InvalidValue, match=f"usage.tasks.{next(iter(wrong))}"):
        TaskUsage(task_id=1, amounts=Amounts(**wrong))  # type: ignore[arg-type]


async def test_usage_outlives_the_task(world: World) -> None:
    """A task that was put away is still in the reports, and what is said of it late is counted."""
    task_id = await world.task_at("a", team="atlas")
    await world.say("a", 1, t1=held(1))
    await cancel_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    world.now += 100 * DAY
    await archive(world.store.writing(), retention=Retention(prune_days=7, archive_days=90), now=world.now)
    async with world.store.reading() as uow:
        assert not await uow.accounts.some((task_id,))
    await world.say("a", 2, t1=held(2))
    assert await world.held("group", first=TODAY) == {"atlas": 3}
