"""Jobs that were too large go on as smaller ones, over both kinds of database: nothing is lost, nothing is done twice, it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import event
from support.control_world import JOB_MEMORY, ROOM, ControlWorld
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.brokerage.failures import MAX_HALVINGS
from hpcpanda.dispatcher.generation import halving
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases.control import pause_task, resume_task, retry_task
from hpcpanda.domain.exchange import LeaseGrant
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import single_events
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.splitting import JobSlice, JobSplit
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, TaskSpec

SLOW = "ran for more than 7200 s (job.walltime_s)"
BAD = "ValueError: cannot digest it"
PLAIN = JobPayload(command=("true",))


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


def files(count: int, *, size: int | None = None) -> Inputs:
    """So many input files of 10 entries."""
    listed = tuple(InputFile(path=f"/d/{n}.root", events=10, size=size) for n in range(count))
    return Inputs(format=InputFormat.ROOT, container="tree", files=listed)


async def submit(world: ControlWorld, **fields: Any) -> int:
    """A task of jobs of two hours."""
    plain: dict[str, Any] = {
        "name": "cut",
        "payload": PLAIN,
        "output": Output(file="out.zip", format=OutputFormat.ZIP),
        "job": JobRequest(walltime_s=7200.0, memory_mb=4000),
    }
    return await world._submit(TaskSpec(**plain | fields), "ada")


async def lease(world: ControlWorld, task_id: int, jobs: int = 1_000_000) -> LeaseGrant:
    (grant,) = await world.acquire("a", jobs, task_id=task_id, room=ROOM)
    return grant


def told(grant: LeaseGrant) -> dict[int, JobSlice]:
    """What each job of a lease has to do."""
    found = {one.job: one for one in grant.slices}
    assert single_events(found) == grant.events
    return found


def paths(one: JobSlice) -> list[str]:
    return [file.path for file in one.files]


def events_of(slices: Iterable[JobSlice]) -> IntervalSet:
    """All events of jobs, none of which is in two of them."""
    found = EMPTY
    for one in slices:
        span = IntervalSet.span(one.first, one.last)
        assert not found & span, "an event is in two jobs"
        found |= span
    return found


async def fail(world: ControlWorld, grant: LeaseGrant, jobs: Iterable[int], error: str = SLOW) -> None:
    await world.commit("a", grant, EMPTY, **{f"e{job}": error for job in jobs})


# ---- one split ----


@pytest.mark.parametrize("size", [None, 7], ids=["by rule", "boundaries kept"])
async def test_a_job_that_took_too_long_goes_on_as_two(world: ControlWorld, size: int | None) -> None:
    """The job keeps the first half of its files, a new one behind all others has the second; the user is told in a sentence,
    and the message that comes twice changes nothing."""
    split = JobSplit(files_per_job=4, max_bytes=None if size is None else 28)
    task_id = await submit(world, inputs=files(12, size=size), split=split)
    grant = await lease(world, task_id)
    before = told(grant)
    for _ in range(2):
        await fail(world, grant, [1])
    assert await world.counts(task_id) == (2, 2, 0, 0)
    again = await lease(world, task_id)
    after = told(again)
    assert (again.events, again.spec.jobs) == (single_events((1, 3)), 4)
    assert paths(after[1]) == ["/d/4.root", "/d/5.root"]
    assert paths(after[3]) == ["/d/6.root", "/d/7.root"]
    assert events_of(after.values()) == events_of([before[1]])
    assert again.spec.job_request == grant.spec.job_request
    reasons = " ".join((await world.explain(task_id)).reasons)
    assert "2 jobs had failed and got another chance." in reasons
    assert (
        "One job was too large and was split; the last time: job 1 needed more than 2 h; its 4 files go on as two jobs of 2, "
        "1 and 3."
    ) in reasons
    await world.commit("a", grant, single_events((0, 2)))
    await world.commit("a", again, again.events)
    assert (await world.task(task_id)).state is TaskState.MERGING
    await world.merge("a", task_id, IntervalSet.span(0, 4))
    assert (await world.task(task_id)).state is TaskState.DONE


async def test_files_that_may_be_cut_are_split_by_events(world: ControlWorld) -> None:
    """In the middle of a file, if need be."""
    task_id = await submit(world, inputs=files(3), split=JobSplit(events_per_job=15))
    grant = await lease(world, task_id)
    await fail(world, grant, [0])
    after = told(await lease(world, task_id))
    parts = {job: [(f.path, f.first, f.last) for f in one.files] for job, one in after.items()}
    assert parts == {
        0: [("/d/0.root", 0, 8)],
        2: [("/d/0.root", 8, 10), ("/d/1.root", 0, 5)],
    }


async def test_events_alone_are_split(world: ControlWorld) -> None:
    """However many there are: 10^12 of them in a job cost one row more."""
    task_id = await submit(world, events=3 * 10**12, split=JobSplit(events_per_job=10**12))
    grant = await lease(world, task_id)
    await fail(world, grant, [2])
    after = told(await lease(world, task_id))
    assert [(one.first, one.last) for one in after.values()] == [
        (2 * 10**12, 25 * 10**11),
        (25 * 10**11, 3 * 10**12),
    ]
    assert await rows(world) == 2


async def rows(world: ControlWorld) -> int:
    from sqlalchemy import text

    async with world.database.read() as connection:
        return (await connection.execute(text("SELECT count(*) FROM job_pieces"))).scalar_one()


# ---- where it is not possible ----


@pytest.mark.parametrize(
    "fields",
    [
        {"jobs": 3},
        {"inputs": files(3), "split": JobSplit(files_per_job=1)},
        {"events": 30, "split": JobSplit(events_per_job=10), "scouts": 1},
        {"events": 30, "split": JobSplit(events_per_job=10), "payload": JobPayload(command=("x", "{jobs}"))},
        {
            "events": 30,
            "split": JobSplit(events_per_job=10),
            "payload": JobPayload(command=("x",), inputs=("/cards/{job}.txt",)),
        },
    ],
    ids=["numbers", "one file", "scouts", "how many there are", "a file of its own"],
)
async def test_what_cannot_be_split_is_given_more_time(world: ControlWorld, fields: dict[str, Any]) -> None:
    """The rule's other action: jobs that are just numbers, have one file, are scouts, or depend on their number."""
    task_id = await submit(world, **fields)
    grant = await lease(world, task_id)
    await fail(world, grant, [0])
    again = await lease(world, task_id)
    assert again.events == IntervalSet.span(0, 1)
    assert again.spec.job_request is not None
    assert again.spec.job_request.walltime_s == 14_400.0
    assert await rows(world) == 0


async def test_more_memory_is_asked_for_first_and_then_it_is_split(world: ControlWorld) -> None:
    """When no site has more: nodes have 10 000 MiB here."""
    task_id = await submit(world, inputs=files(4), split=JobSplit(files_per_job=4))
    grant = await lease(world, task_id)
    await fail(world, grant, [0], JOB_MEMORY)
    grant = await lease(world, task_id)
    assert grant.spec.job_request is not None
    assert (grant.spec.job_request.memory_mb, len(grant.events)) == (8000, 1)
    await fail(world, grant, [0], JOB_MEMORY)
    assert (await lease(world, task_id)).events == IntervalSet.span(0, 2)
    reasons = " ".join((await world.explain(task_id)).reasons)
    assert "job 0 needed more than 8000 MiB of memory; its 4 files go on as two jobs of 2, 0 and 1" in reasons


async def test_who_wants_no_retries_has_no_job_split(world: ControlWorld) -> None:
    """It is set aside."""
    loss = LossPolicy(max_failed_events=1, retries=0)
    task_id = await submit(world, inputs=files(8), split=JobSplit(files_per_job=4), loss=loss)
    await fail(world, await lease(world, task_id), [0])
    assert await world.counts(task_id) == (0, 1, 0, 1)


async def test_when_all_are_too_large_more_time_is_asked_for(
    world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many splits of a task nobody splits on; those of one message count, too."""
    monkeypatch.setattr(halving, "MAX_SPLIT_JOBS", 3)
    task_id = await submit(world, inputs=files(20), split=JobSplit(files_per_job=4))
    grant = await lease(world, task_id)
    await fail(world, grant, range(5))
    again = await lease(world, task_id)
    assert again.events == IntervalSet.span(0, 8)
    assert again.spec.job_request is not None
    assert again.spec.job_request.walltime_s == 14_400.0
    assert events_of(told(again).values()) == IntervalSet.span(0, 200)


# ---- the whole way ----


async def test_it_ends_with_single_files_and_then_gives_up(world: ControlWorld) -> None:
    """A job that is too slow whatever it holds is split down to single files, these get more time, and are set aside; what
    was tried is told of each."""
    loss = LossPolicy(max_failed_events=100, retries=2)
    task_id = await submit(world, inputs=files(5), split=JobSplit(files_per_job=5), loss=loss)
    turns = 0
    while granted := await world.acquire("a", 1_000_000, task_id=task_id, room=ROOM):
        turns += 1
        assert turns < 20
        for grant in granted:
            assert events_of(told(grant).values()).issubset(IntervalSet.span(0, 50))
            await fail(world, grant, [one.job for one in grant.slices])
    task = await world.task(task_id)
    assert (task.state, task.progress.failed, task.progress.total) == (TaskState.FAILED, 5, 5)
    assert await rows(world) == 5


async def test_pieces_are_bounded(world: ControlWorld) -> None:
    """A job of very many events is split six times, and then given more time."""
    task_id = await submit(world, events=10**9, split=JobSplit(events_per_job=10**9))
    for turn in range(MAX_HALVINGS + 1):
        grant = await lease(world, task_id, 1)
        assert 0 in grant.events
        assert grant.spec.job_request is not None
        assert grant.spec.job_request.walltime_s == 7200.0
        assert (await world.task(task_id)).progress.total == turn + 1
        await fail(world, grant, [0])
        await world.sync("a", returns=())
    grant = await lease(world, task_id, 1)
    assert grant.spec.job_request is not None
    assert grant.spec.job_request.walltime_s == 14_400.0
    assert (await world.task(task_id)).progress.total == MAX_HALVINGS + 1


async def test_a_paused_task_is_split_too(world: ControlWorld) -> None:
    """What came of it waits with the rest."""
    task_id = await submit(world, inputs=files(8), split=JobSplit(files_per_job=4))
    grant = await lease(world, task_id)
    await pause_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    await fail(world, grant, [1])
    assert await world.acquire("a", task_id=task_id, room=ROOM) == ()
    await resume_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    assert (await lease(world, task_id)).events == IntervalSet.span(1, 3)


async def test_a_failed_task_is_tried_again_with_its_pieces(world: ControlWorld) -> None:
    """Each does what it did before; nothing is numbered anew."""
    task_id = await submit(world, inputs=files(8), split=JobSplit(files_per_job=4))
    grant = await lease(world, task_id)
    await fail(world, grant, [0])
    pieces = await lease(world, task_id)
    first = told(pieces)
    await fail(world, pieces, [2], BAD)
    assert (await world.task(task_id)).state is TaskState.FAILED
    await retry_task(world.store.writing(), task_id=task_id, caller="ada", now=world.now)
    again = told(await lease(world, task_id))
    assert {job: paths(one) for job, one in again.items()} == {
        0: paths(first[0]),
        1: ["/d/4.root", "/d/5.root", "/d/6.root", "/d/7.root"],
        2: paths(first[2]),
    }


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_fails_everything_is_done_once(world: ControlWorld, seed: int) -> None:
    """A campaign of random failures, pieces of pieces, leases given back and taken again: every event is done once at the
    end, and the edge was never told of one twice at a time."""
    random = Random(seed)
    loss = LossPolicy(retries=10)
    inputs, per_job = files(60, size=1), random.choice((7, 10))
    split = JobSplit(files_per_job=per_job, max_bytes=random.choice((None, per_job)))
    task_id = await submit(world, inputs=inputs, split=split, loss=loss)
    held: list[tuple[LeaseGrant, dict[int, JobSlice]]] = []
    done: list[JobSlice] = []
    for _ in range(400):
        if (await world.task(task_id)).state is TaskState.MERGING:
            break
        found = await world.acquire("a", random.choice((1, 3, 100)), task_id=task_id, room=ROOM)
        held += [(grant, told(grant)) for grant in found]
        in_hand = [one for _, slices in held for one in slices.values()]
        events_of([*done, *in_hand])
        if not held:
            continue
        grant, slices = random.choice(held)
        job = random.choice(sorted(slices))
        one = slices.pop(job)
        if len(one.files) > 2 and random.random() < 0.6:
            await fail(world, grant, [job])
        else:
            await world.commit("a", grant, single_events([job]))
            done.append(one)
        held = [(g, s) for g, s in held if s]
    assert (await world.task(task_id)).state is TaskState.MERGING
    assert events_of(done) == IntervalSet.span(0, 600)
    assert all(len(one.files) <= per_job for one in done)


async def test_splitting_costs_no_statement_where_nothing_is_split(world: ControlWorld) -> None:
    """Neither to lease nor to commit jobs of a task that is cut."""
    task_id = await submit(world, inputs=files(8), split=JobSplit(files_per_job=4))
    statements: list[str] = []

    def note(_c: object, _r: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(world.database.engine.sync_engine, "before_cursor_execute", note)
    grant = await lease(world, task_id)
    await world.commit("a", grant, grant.events)
    assert statements
    assert not [s for s in statements if "job_pieces" in s]
