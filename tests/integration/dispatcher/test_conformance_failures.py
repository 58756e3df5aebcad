"""What is done about failures, over both kinds of database: tried again, elsewhere, with more, or set aside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from support.control_world import DISK, JOB_MEMORY, MEMORY, ROOM, ControlWorld
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.brokerage.quarantine import BARRED_S
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases.bad_nodes import lift_quarantine
from hpcpanda.dispatcher.usecases.control import retry_task
from hpcpanda.dispatcher.usecases.failing import AVOIDED_S
from hpcpanda.dispatcher.usecases.faults import OFF_S
from hpcpanda.dispatcher.usecases.tasks import list_failures
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.exchange import LeaseCommit
from hpcpanda.domain.failures import FailureAction, FailureFacts, FailureKind, ListedFailure
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy

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
    await made.register("a")
    yield made
    await made.check()
    await database.close()


async def failures(world: ControlWorld, task_id: int) -> tuple[ListedFailure, ...]:
    return (await list_failures(world.store.reading(), task_id=task_id, after=None, limit=10)).events


async def count(world: ControlWorld, table: str) -> int:
    async with world.database.read() as connection:
        return (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()


# ---- events and jobs ----


async def test_what_the_payload_fails_on_is_set_aside(world: ControlWorld) -> None:
    """At once, with its kind, a sentence and its history."""
    task_id = await world.submit(10, max_failed=1)
    grant = await world.lease("a", task_id)
    facts = FailureFacts(exit_status=3, node="n17")
    failed = FailedEvent(event=7, error="cannot digest event 7", attempts=3, facts=facts)
    update = LeaseCommit(task_id=task_id, epoch=grant.epoch, failed=(failed,))
    assert (await world.sync("a", commits=(update,))).commits[0].accepted == span(7, 8)
    (told,) = await failures(world, task_id)
    assert (told.event, told.kind, told.why) == (
        7,
        FailureKind.PAYLOAD,
        "The payload failed on it; it was tried 3 times on a.",
    )
    (step,) = told.history
    assert (step.edge, step.rule, step.action, step.facts) == ("a", "anything-else", "give-up", facts)
    assert await count(world, "tried_again") == 0


async def test_more_memory_is_asked_for_where_it_was_too_little(world: ControlWorld) -> None:
    """Failed events are ready again and refused to the epoch, also when the message comes twice; what is leased next has
    twice the memory, then four times; then they are set aside."""
    task_id = await world.submit(10, max_failed=5)
    for expected in (2000, 4000, 8000):
        grant = await world.lease("a", task_id)
        assert grant.spec.resources.memory_mb == expected
        for _ in range(2):
            reply = await world.commit("a", grant, EMPTY, e0=MEMORY, e1=MEMORY)
            given_up = expected == 8000
            assert reply.commits[0].accepted == (span(0, 2) if given_up else EMPTY)
            assert reply.commits[0].refused == (EMPTY if given_up else span(0, 2))
        await world.commit("a", grant, grant.events - span(0, 2))
    changes = (await world.task(task_id)).changes
    assert changes is not None
    assert (changes.more_memory, changes.more_time) == (4.0, 1.0)
    assert await world.counts(task_id) == (0, 0, 8, 2)
    first = (await failures(world, task_id))[0]
    assert [step.action for step in first.history] == ["more-memory", "more-memory", "give-up"]
    assert first.why == "It needed more memory than it was given; it was tried 3 times on a."
    await world.merge("a", task_id, span(2, 10))
    assert (await world.task(task_id)).state is TaskState.FINISHED


async def test_memory_is_raised_once_for_many_leases(world: ControlWorld) -> None:
    """What ran before more was asked for is only tried again."""
    task_id = await world.submit(10)
    one, two = await world.lease("a", task_id, 5), await world.lease("a", task_id, 5)
    await world.commit("a", one, span(1, 5), e0=MEMORY)
    await world.commit("a", two, span(6, 10), e5=MEMORY)
    grant = await world.lease("a", task_id)
    assert (grant.events, grant.spec.resources.memory_mb) == (span(0, 1) | span(5, 6), 4000)
    told = (await world.explain(task_id)).reasons
    assert told[-1] == "2 events had failed and got another chance; it asks for 2 times the memory since."
    await world.commit("a", grant, grant.events)
    assert await world.counts(task_id) == (0, 0, 10, 0)


async def test_jobs_ask_for_more_as_far_as_a_site_has_it(world: ControlWorld) -> None:
    """Twice as much fits nodes of 10 000 MiB, four times as much does not: then the job is set aside, and not left to
    wait for ever."""
    task_id = await world.submit_jobs(loss=LossPolicy(max_failed_events=1, retries=5), memory_mb=4000)
    grant = await world.lease("a", task_id, 400, room=ROOM)
    assert grant.events == span(0, 4)
    await world.commit("a", grant, span(1, 4), e0=JOB_MEMORY)
    grant = await world.lease("a", task_id, 400, room=ROOM)
    assert grant.spec.job_request is not None
    assert grant.spec.job_request.memory_mb == 8000
    reply = await world.commit("a", grant, EMPTY, e0=JOB_MEMORY)
    assert reply.tasks[0].state is TaskState.MERGING
    assert [f.kind for f in await failures(world, task_id)] == [FailureKind.MEMORY]


async def test_the_user_may_want_no_retries(world: ControlWorld) -> None:
    """Then what a site reports is set aside."""
    task_id = await world.submit_jobs(loss=LossPolicy(max_failed_events=1, retries=0))
    grant = await world.lease("a", task_id, 400, room=ROOM)
    reply = await world.commit("a", grant, span(1, 4), e0="ran for more than 3600 s (job.walltime_s)")
    assert reply.tasks[0].state is TaskState.MERGING


async def test_a_bad_disk_is_avoided_when_there_is_another_site(world: ControlWorld) -> None:
    """For a while; the others of the task go on there, and explain says so."""
    await world.register("b")
    task_id = await world.submit(20)
    grant = await world.lease("a", task_id, 10)
    reply = await world.commit("a", grant, span(1, 5), e0=DISK)
    assert reply.tasks[0].first_epoch == 1
    assert await world.acquire("a", task_id=task_id) == ()
    await world.commit("a", grant, span(5, 10))
    assert (await world.lease("b", task_id, 3)).events == span(0, 1) | span(10, 12)
    (why,) = [said.why for said in (await world.explain(task_id)).brokerage if said.edge == "a"]
    assert why.code == "avoided"
    assert "A file or disk of the site could not be used here (file-system)" in why.sentence
    world.now += AVOIDED_S
    assert (await world.lease("a", task_id, 3)).events == span(12, 15)


async def test_a_bad_disk_is_used_again_when_there_is_no_other_site(world: ControlWorld) -> None:
    """Better than nothing, as often as the user wants."""
    task_id = await world.submit(10, max_failed=1)
    for _ in range(3):
        grant = await world.lease("a", task_id)
        await world.commit("a", grant, EMPTY, e0=DISK)
    assert (await world.counts(task_id))[3] == 1


async def test_preemption_counts_for_nothing(world: ControlWorld) -> None:
    """However often."""
    task_id = await world.submit(1)
    for _ in range(6):
        grant = await world.lease("a", task_id)
        await world.commit("a", grant, EMPTY, e0="slurmstepd: CANCELLED DUE TO PREEMPTION")
    assert await world.counts(task_id) == (1, 0, 0, 0)


async def test_failures_cost_no_statement_where_there_are_none(world: ControlWorld) -> None:
    """Only who commits failed events looks for what is known of them."""
    task_id = await world.submit(10)
    grant = await world.lease("a", task_id)
    statements: list[str] = []
    from sqlalchemy import event

    def note(_c: object, _r: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(world.database.engine.sync_engine, "before_cursor_execute", note)
    await world.commit("a", grant, span(0, 10))
    assert statements
    assert not [s for s in statements if "tried_again" in s or "fences" in s or "sites.faults" in s]


# ---- tasks that a site cannot run ----


async def test_a_task_that_cannot_run_at_one_site_runs_at_another(world: ControlWorld) -> None:
    """What the first had finished and no output holds is done again; it is told that all of it is void, and is given
    nothing more of the task; saying it again changes nothing."""
    await world.register("b")
    task_id = await world.submit(10)
    grant = await world.lease("a", task_id)
    await world.commit("a", grant, span(0, 4))
    reply = await world.fault("a", task_id, "ModuleNotFoundError: module")
    assert [(o.state, o.first_epoch) for o in reply.tasks] == [(TaskState.RUNNING, 2)]
    assert await world.counts(task_id) == (10, 0, 0, 0)
    assert await world.acquire("a", task_id=task_id) == ()
    other = await world.lease("b", task_id)
    again = await world.fault("a", task_id, "ModuleNotFoundError: module")
    assert again.tasks[0].state is TaskState.RUNNING
    assert (await world.commit("a", grant, span(0, 10))).commits[0].refused == span(0, 10)
    await world.commit("b", other, span(0, 10))
    assert (await world.merge("a", task_id, span(0, 4))).rejected_outputs == ("/out/1",)
    await world.merge("b", task_id, span(0, 10))
    assert (await world.task(task_id)).state is TaskState.DONE


async def test_a_merge_that_fails_is_made_elsewhere(world: ControlWorld) -> None:
    """The task runs again until what was lost is done; files that there are stay."""
    await world.register("b")
    task_id = await world.submit(10)
    one, two = await world.lease("a", task_id, 5), await world.lease("b", task_id, 5)
    await world.commit("a", one, span(0, 5))
    await world.commit("b", two, span(5, 10))
    assert (await world.merge("b", task_id, span(5, 10))).tasks[0].state is TaskState.MERGING
    await world.fault("a", task_id, "the merge failed 3 times: the segment is damaged")
    assert (await world.task(task_id)).state is TaskState.RUNNING
    grant = await world.lease("b", task_id)
    assert (grant.events, grant.spec.output.file) == (span(0, 5), "out.try2.h5")
    await world.commit("b", grant, span(0, 5))
    await world.merge("b", task_id, span(0, 5))
    assert (await world.task(task_id)).state is TaskState.DONE


async def test_a_site_may_have_the_task_again_later(world: ControlWorld) -> None:
    """What it is then given counts, what it had before does not."""
    await world.register("b")
    task_id = await world.submit(10)
    early = await world.lease("a", task_id)
    await world.commit("a", early, span(0, 4))
    await world.fault("a", task_id, "the payload does not import")
    world.now += OFF_S
    grant = await world.lease("a", task_id)
    assert grant.first_epoch == 2
    reply = await world.commit("a", grant, span(0, 10))
    assert reply.tasks[0].first_epoch == 2
    await world.merge("a", task_id, span(0, 10))
    assert (await world.task(task_id)).state is TaskState.DONE


async def test_a_task_fails_when_several_sites_cannot_run_it(world: ControlWorld) -> None:
    """And when there is no other: with the words of the last."""
    await world.register("b", "c", "d")
    task_id = await world.submit(10)
    for edge in ("a", "b", "c"):
        assert (await world.task(task_id)).state is not TaskState.FAILED
        await world.lease(edge, task_id)
        await world.fault(edge, task_id, "no module named x")
    task = await world.task(task_id)
    assert (task.state, task.message) == (
        TaskState.FAILED,
        "edge c cannot run it: no module named x; nor could a, b",
    )
    await retry_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    assert (await world.lease("a", task_id)).events == span(0, 10)


# ---- quarantine ----


async def test_a_site_that_fails_many_users_is_given_nothing_for_a_while(world: ControlWorld) -> None:
    """Not before several tasks of several users have failed by its fault; an operator can lift it."""
    await world.register("b")
    for number in range(6):
        task_id = await world.submit(4, owner="bob" if number == 5 else "ada", max_failed=3)
        grant = await world.lease("a", task_id)
        await world.commit("a", grant, EMPTY, e0=DISK)
    fresh = await world.submit(10, owner="cleo")
    assert await world.acquire("a") == ()
    assert (await world.acquire("b", 10))[0].task_id == 1
    (why,) = [said.why for said in (await world.explain(fresh)).brokerage if said.edge == "a"]
    assert why.code == "quarantine"
    assert "6 failures in 6 tasks were its own" in why.sentence
    await lift_quarantine(world.store.writing(), edge="a", now=world.now)
    assert len((await world.lease("a", fresh, 2)).events) == 2
    with pytest.raises(NotFound, match="nobody"):
        await lift_quarantine(world.store.writing(), edge="nobody", now=world.now)


async def test_one_user_alone_bars_no_site(world: ControlWorld) -> None:
    """Whatever their payloads say; and a quarantine ends by itself."""
    for number in range(8):
        task_id = await world.submit(1, max_failed=1)
        await world.commit("a", await world.lease("a", task_id), EMPTY, e0=DISK)
        assert number < 8
    other = await world.submit(1, owner="bob")
    grant = await world.lease("a", other)
    await world.commit("a", grant, EMPTY, e0=DISK)
    assert await world.acquire("a") == ()
    world.now += BARRED_S
    assert (await world.lease("a", other)).events == span(0, 1)


def test_actions_are_words_of_the_interface() -> None:
    """They are told in JSON."""
    words = {"retry", "elsewhere", "more-memory", "more-time", "split", "quarantine-node", "give-up"}
    assert {action.value for action in FailureAction} == words
