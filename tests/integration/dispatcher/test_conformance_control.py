"""Pause, resume, retry, other priorities and deadlines, over both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from support.control_world import ControlWorld
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.retention import DAY, Retention, prune
from hpcpanda.dispatcher.store.database import Database, migrations
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases import control
from hpcpanda.dispatcher.usecases.expiry import sweep
from hpcpanda.dispatcher.usecases.tasks import cancel_task, list_failures, list_outputs
from hpcpanda.domain.errors import Forbidden, IllegalTransition, NotFound
from hpcpanda.domain.exchange import LeaseCommit, LeaseReturn
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.states import TaskEvent, TaskState
from hpcpanda.domain.task_views import Task

span = IntervalSet.span


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


async def pause(world: ControlWorld, task_id: int, caller: str = "ada") -> Task:
    return await control.pause_task(world.store.writing(), task_id=task_id, caller=caller, now=world.now)


async def resume(world: ControlWorld, task_id: int) -> Task:
    return await control.resume_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)


async def retry(world: ControlWorld, task_id: int) -> Task:
    return await control.retry_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)


# ---- pause and resume ----


async def test_a_paused_task_is_leased_to_nobody_and_finishes_what_runs(world: ControlWorld) -> None:
    """Commits count, what comes back stays; a second pause and a second resume change nothing."""
    task_id = await world.submit(100)
    grant = await world.lease("a", task_id, 40)
    for _ in range(2):
        task = await pause(world, task_id)
        assert (task.state, task.message) == (TaskState.PAUSED, "paused by ada")
    assert await world.acquire("b", task_id=task_id) == ()
    assert await world.acquire("b") == ()
    reply = await world.commit("a", grant, span(0, 10))
    assert reply.commits[0].accepted == span(0, 10)
    assert reply.tasks[0].state is TaskState.PAUSED
    await world.sync("a", returns=(LeaseReturn(task_id=task_id, epoch=grant.epoch, events=span(10, 20)),))
    assert await world.counts(task_id) == (70, 20, 10, 0)
    said = (await world.explain(task_id)).reasons
    assert said[0].startswith("It is paused by ada, with 70 events not handed out")
    for _ in range(2):
        assert (await resume(world, task_id)).state is TaskState.RUNNING
    assert (await world.lease("b", task_id)).events == span(10, 20) | span(40, 100)


async def test_leases_of_a_paused_task_expire(world: ControlWorld) -> None:
    """What they held is not handed out before the task is resumed."""
    task_id = await world.submit(10)
    await world.lease("a", task_id, 4)
    await pause(world, task_id)
    world.now += 2e6
    async with world.store.writing() as uow:
        await uow.pulses.put(world.now)
    assert await sweep(world.store.writing(), now=world.now) == 1
    assert await world.counts(task_id) == (10, 0, 0, 0)
    assert await world.acquire("b", task_id=task_id) == ()
    await resume(world, task_id)
    assert (await world.lease("b", task_id)).events == span(0, 10)


async def test_a_task_paused_before_its_first_lease_is_ready_again(world: ControlWorld) -> None:
    """It goes on where it was."""
    task_id = await world.submit(10)
    await pause(world, task_id)
    assert (await resume(world, task_id)).state is TaskState.READY


async def test_a_paused_task_of_which_all_is_finished_is_merged(world: ControlWorld) -> None:
    """There is nothing left to be held back."""
    task_id = await world.submit(10)
    grant = await world.lease("a", task_id)
    await pause(world, task_id)
    assert (await world.commit("a", grant, span(0, 10))).tasks[0].state is TaskState.MERGING
    with pytest.raises(IllegalTransition, match="merging cannot take 'pause'"):
        await pause(world, task_id)
    await world.merge("a", task_id, span(0, 10))
    assert (await world.task(task_id)).state is TaskState.DONE


async def test_a_paused_task_can_be_cancelled(world: ControlWorld) -> None:
    """Nothing of it is left."""
    task_id = await world.submit(10)
    await pause(world, task_id)
    await cancel_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    assert await world.counts(task_id) == (0, 0, 0, 0)
    with pytest.raises(IllegalTransition, match="aborted"):
        await resume(world, task_id)


async def test_only_its_owner_controls_a_task(world: ControlWorld) -> None:
    """Or who may change anyone's; a task that is not there is not found."""
    task_id = await world.submit(10)
    with pytest.raises(Forbidden, match="belongs to ada"):
        await pause(world, task_id, "eve")
    task = await control.pause_task(
        world.store.writing(), task_id=task_id, caller="eve", anyone=True, now=world.now
    )
    assert task.message == "paused by eve"
    with pytest.raises(NotFound):
        await pause(world, 99)


# ---- priority and deadline ----


async def test_the_order_follows_priority_and_deadline(world: ControlWorld) -> None:
    """And edges are told with the next lease; the specification stays what was submitted."""
    first, second = await world.submit(100), await world.submit(100)
    task = await control.set_priority(
        world.store.writing(), task_id=second, priority=7, caller="ada", now=world.now
    )
    assert task.changes is not None
    assert (task.spec.priority, task.changes.priority) == (0, 7)
    (grant,) = await world.acquire("a", 10)
    assert (grant.task_id, grant.spec.priority) == (second, 7)
    soon = datetime.fromtimestamp(world.now + 60, UTC)
    await control.set_priority(world.store.writing(), task_id=second, priority=0, caller="ada", now=world.now)
    task = await control.set_deadline(
        world.store.writing(), task_id=first, deadline=soon, caller="ada", now=world.now
    )
    assert task.changes is not None
    assert task.changes.deadline == soon
    (grant,) = await world.acquire("b", 10)
    assert (grant.task_id, grant.spec.deadline) == (first, soon)
    task = await control.set_deadline(
        world.store.writing(), task_id=first, deadline=None, caller="ada", now=world.now
    )
    assert task.changes is None


async def test_what_has_ended_has_no_priority(world: ControlWorld) -> None:
    """It would change nothing."""
    task_id = await world.submit(10)
    await cancel_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    with pytest.raises(IllegalTransition, match="its priority changes nothing"):
        await control.set_priority(
            world.store.writing(), task_id=task_id, priority=1, caller="ada", now=world.now
        )


# ---- retry ----


async def finish_with_losses(world: ControlWorld) -> int:
    """A finished task of 10 events, 3 of which failed."""
    task_id = await world.submit(10, max_failed=5)
    grant = await world.lease("a", task_id)
    await world.commit("a", grant, span(3, 10), e0="bad", e1="bad", e2="bad")
    await world.merge("a", task_id, span(3, 10))
    assert (await world.task(task_id)).state is TaskState.FINISHED
    return task_id


async def test_a_finished_task_is_completed_by_a_retry(world: ControlWorld) -> None:
    """Only what failed is done again, into one more file of another name; what was in outputs stays."""
    task_id = await finish_with_losses(world)
    task = await retry(world, task_id)
    assert (task.state, task.message) == (TaskState.RUNNING, None)
    assert await world.counts(task_id) == (3, 0, 7, 0)
    assert (await retry(world, task_id)).progress == task.progress, "a repeated retry changes nothing"
    grant = await world.lease("b", task_id)
    assert (grant.events, grant.spec.output.file) == (span(0, 3), "out.try2.h5")
    assert grant.first_epoch == grant.epoch == 2
    await world.commit("b", grant, span(0, 3))
    await world.merge("b", task_id, span(0, 3))
    task = await world.task(task_id)
    assert (task.state, task.progress.failed) == (TaskState.DONE, 0)
    files = (await list_outputs(world.store.reading(), task_id=task_id)).files
    assert [f.events for f in files] == [span(0, 3), span(3, 10)]
    with pytest.raises(IllegalTransition, match="done cannot take 'retry'"):
        await retry(world, task_id)


async def test_an_edge_of_an_earlier_try_merges_nothing(world: ControlWorld) -> None:
    """Of a failed task all that is in no output is done again: late commits, renewals and files of before are refused,
    and the edge is told below which epoch all is void."""
    task_id = await world.submit(10)
    early = await world.lease("a", task_id)
    await world.commit("a", early, span(0, 6))
    reply = await world.commit("a", early, EMPTY, e9="bad")
    assert reply.tasks[0].state is TaskState.FAILED
    await retry(world, task_id)
    assert await world.counts(task_id) == (10, 0, 0, 0)
    late = LeaseCommit(task_id=task_id, epoch=early.epoch, done=span(0, 9))
    reply = await world.sync("a", commits=(late,), renew=((task_id, early.epoch),))
    assert reply.commits[0].refused == span(0, 9)
    assert reply.lost == ((task_id, early.epoch),)
    assert reply.tasks[0].first_epoch == 2
    assert (await world.merge("a", task_id, span(0, 6))).rejected_outputs == ("/out/1",)
    grant = await world.lease("b", task_id)
    await world.commit("b", grant, span(0, 10))
    assert (await world.merge("a", task_id, span(0, 6))).rejected_outputs == ("/out/2",)
    assert (await world.merge("b", task_id, span(0, 10))).rejected_outputs == ()
    assert (await world.task(task_id)).state is TaskState.DONE


async def test_outputs_of_a_failed_task_stay(world: ControlWorld) -> None:
    """What one site had merged before another one failed is not done again."""
    task_id = await world.submit(10)
    one, two = await world.lease("a", task_id, 5), await world.lease("b", task_id, 5)
    await world.commit("a", one, span(0, 5))
    await world.commit("b", two, span(5, 10))
    assert (await world.merge("a", task_id, span(0, 5))).tasks[0].state is TaskState.MERGING
    async with world.store.writing() as uow:
        account = await uow.accounts.get(task_id)
        account.take(TaskEvent.FAIL, now=world.now, message="lightning")
        await uow.accounts.save([account])
    await retry(world, task_id)
    assert await world.counts(task_id) == (5, 0, 5, 0)
    assert (await world.lease("b", task_id)).events == span(5, 10)


async def test_a_retry_after_the_leases_were_forgotten(world: ControlWorld) -> None:
    """What is in outputs stands under a new lease of the edge that wrote them: the accounts are whole."""
    task_id = await finish_with_losses(world)
    world.now += 8 * DAY
    retention = Retention(prune_days=7, archive_days=90)
    assert await prune(world.store.writing(), retention=retention, now=world.now) == 1
    await world.register("a", "b")
    await retry(world, task_id)
    await world.check()
    grant = await world.lease("b", task_id)
    assert grant.events == span(0, 3)
    await world.commit("b", grant, span(0, 2), e2="bad")
    await world.merge("b", task_id, span(0, 2))
    assert (await world.task(task_id)).state is TaskState.FINISHED
    failed = await list_failures(world.store.reading(), task_id=task_id, after=None, limit=10)
    assert [(f.event, f.kind, f.why) for f in failed.events] == [
        (2, "payload", "The payload failed on it; it was tried once on b.")
    ]


async def test_an_aborted_task_is_not_tried_again(world: ControlWorld) -> None:
    """Its user did not want it."""
    task_id = await world.submit(10)
    await cancel_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    with pytest.raises(IllegalTransition, match="aborted cannot take 'retry'"):
        await retry(world, task_id)


# ---- the schema ----


async def test_paused_tasks_run_on_in_an_older_version(world: ControlWorld) -> None:
    """Going back, nothing is lost but what that version cannot know; coming again, all is as it was for one that knew it."""
    paused, running = await world.submit(10), await world.submit(20)
    await world.lease("a", paused, 4)
    await pause(world, paused)

    def to(connection: Connection, step: Callable[[Config, str], None], version: str) -> None:
        config = migrations()
        config.attributes["connection"] = connection
        step(config, version)

    query = text("SELECT task_id, state, ready, leased FROM tasks ORDER BY task_id")
    async with world.database.write() as connection:
        await connection.run_sync(to, command.downgrade, "0007")
        rows = [tuple(row) for row in await connection.execute(query)]
        await connection.run_sync(to, command.upgrade, "head")
    assert rows == [(paused, "running", 6, 4), (running, "ready", 20, 0)]
    assert (await world.lease("b", paused)).events == span(4, 10)
