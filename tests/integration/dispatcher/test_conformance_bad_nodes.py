"""Nodes on which things fail again and again, over both kinds of database: remembered, told, lifted, over in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event
from support.control_world import ROOM, ControlWorld
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.brokerage.node_quarantine import BARRED_S, FAULTS
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases.bad_nodes import lift_quarantine, list_quarantines
from hpcpanda.domain.control import Quarantine
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.exchange import LeaseCommit, SyncReply
from hpcpanda.domain.failures import FailureFacts
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.site_report import SiteReport
from hpcpanda.domain.task import LossPolicy

ECC = "it ended with exit status 1; stderr ends with: EDAC MC0: 1 UE Uncorrectable ECC memory error"


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


async def fail_on(world: ControlWorld, node: str | None, task_id: int, error: str = ECC) -> SyncReply:
    """A job of a task has failed on a node of site a."""
    (grant,) = await world.acquire("a", 1, task_id=task_id, room=ROOM)
    job = grant.events.bounds[0]
    failed = FailedEvent(event=job, error=error, facts=FailureFacts(exit_status=1, node=node))
    return await world.sync("a", commits=(LeaseCommit(task_id=task_id, epoch=grant.epoch, failed=(failed,)),))


async def two_tasks(world: ControlWorld) -> tuple[int, int]:
    loss = LossPolicy(retries=10)
    return await world.submit_jobs(loss=loss), await world.submit_jobs(loss=loss)


async def bar(world: ControlWorld, node: str) -> SyncReply:
    """Three failures of two tasks on a node."""
    one, two = await two_tasks(world)
    for task_id in (one, two):
        await fail_on(world, node, task_id)
    return await fail_on(world, node, one)


async def listed(world: ControlWorld) -> tuple[Quarantine, ...]:
    return await list_quarantines(world.store.reading(), now=world.now)


async def test_a_node_is_barred_and_its_edge_is_told(world: ControlWorld) -> None:
    """With the answer that bars it, and with each report of how long allocations wait, until it is over; the site itself is
    given work, the other site hears nothing of it, and what has failed is tried again."""
    one, two = await two_tasks(world)
    assert (await fail_on(world, "nid7", one)).nodes == ()
    assert (await fail_on(world, "nid7", two)).nodes == ()
    assert await listed(world) == ()
    reply = await fail_on(world, "nid7", one)
    assert reply.nodes is not None
    (told,) = reply.nodes
    assert (told.node, told.until) == ("nid7", world.now + BARRED_S)
    assert (
        "The last 3 failures there, in 2 tasks, were its own: node-broken: it ended with exit status 1"
        in told.why
    )
    assert (await world.sync("a")).nodes is None
    news = SiteReport(queue_wait_s=60.0)
    assert (await world.sync("a", site=news)).nodes == (told,)
    assert (await world.sync("b", site=news)).nodes == ()
    (seen,) = await listed(world)
    assert (seen.edge, seen.node, seen.until, seen.why) == ("a", told.node, told.until, told.why)
    assert await world.counts(one) == (4, 0, 0, 0)
    assert await world.acquire("a", 1, task_id=one, room=ROOM)
    world.now += BARRED_S
    assert (await world.sync("a", site=news)).nodes == ()
    assert await listed(world) == ()


async def test_it_is_put_down_to_the_node_and_not_to_the_site(world: ControlWorld) -> None:
    """However many users' jobs die there."""
    for number in range(8):
        await fail_on(world, "nid7", await new_task(world, number))
    assert [(q.edge, q.node) for q in await listed(world)] == [("a", "nid7")]


@pytest.mark.parametrize("node", [None, "nid7; rm -rf /"], ids=["none", "no name"])
async def test_it_is_the_sites_where_no_node_is_named(world: ControlWorld, node: str | None) -> None:
    """Nor one that can be: the site is barred after five of them, as before."""
    for number in range(5):
        await fail_on(world, node, await new_task(world, number))
    assert [(q.edge, q.node) for q in await listed(world)] == [("a", None)]
    assert await world.acquire("a", 1, room=ROOM) == ()


async def new_task(world: ControlWorld, number: int) -> int:
    """One of several users."""
    owner = ("ada", "bob", "cleo")[number % 3]
    return await world.submit_jobs(loss=LossPolicy(retries=10), owner=owner)


async def test_a_rule_without_that_action_bars_no_node(world: ControlWorld) -> None:
    """A payload that fails on a node says nothing of it."""
    one, two = await two_tasks(world)
    for _ in range(FAULTS):
        for task_id in (one, two):
            assert (await fail_on(world, "nid7", task_id, "it was ended by SIGKILL")).nodes is None
    assert await listed(world) == ()


async def test_an_operator_lifts_it(world: ControlWorld) -> None:
    """One node, or all of a site; the edge is told, and what had counted does not count any more."""
    await bar(world, "nid7")
    await bar(world, "nid8")
    await lift_quarantine(world.store.writing(), edge="a", node="nid7", now=world.now)
    reply = await world.sync("a", site=SiteReport(queue_wait_s=1.0))
    assert reply.nodes is not None
    assert [one.node for one in reply.nodes] == ["nid8"]
    one, _ = await two_tasks(world)
    again = await fail_on(world, "nid7", one)
    assert again.nodes is not None
    assert [one.node for one in again.nodes] == ["nid8"]
    with pytest.raises(NotFound, match="edge a has no node 'nid9' in quarantine"):
        await lift_quarantine(world.store.writing(), edge="a", node="nid9", now=world.now)
    await lift_quarantine(world.store.writing(), edge="a", now=world.now)
    assert (await world.sync("a", site=SiteReport(queue_wait_s=1.0))).nodes == ()
    assert await listed(world) == ()


async def test_quarantine_costs_no_statement_where_there_is_none(world: ControlWorld) -> None:
    """A report of how long allocations wait takes as many as it did, and one without asks for nothing of nodes."""
    statements: list[str] = []

    def note(_c: object, _r: object, statement: str, *_: object) -> None:
        statements.append(" ".join(statement.split()))

    event.listen(world.database.engine.sync_engine, "before_cursor_execute", note)
    await world.sync("a")
    bare = [s for s in statements if s.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "INSERT", "DELETE")]
    statements.clear()
    await world.sync("a", site=SiteReport(queue_wait_s=5.0))
    more = [s for s in statements if s.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "INSERT", "DELETE")]
    assert not [s for s in bare if "sites" in s]
    assert len(more) == len(bare) + 1
    assert [s.split()[0] for s in more if "sites" in s] == ["UPDATE"]
