"""Tasks of jobs at the dispatcher: to whom they are leased, how many, and what is said of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import event

from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import MAX_LEASES, acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import get_task, submit_task
from hpcpanda.domain.exchange import Capacity, EdgeRegistration, LeaseCommit, SyncRequest
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.room import Room
from hpcpanda.domain.task import LossPolicy, Resources, TaskSpec

NOW = 1e9
ROOM = Room(cores=8, memory_mb=16_000, gpus=2, nodes=4, seconds=600.0)
ZIP = Output(file="out.zip", format=OutputFormat.ZIP)


class Bench:
    """A dispatcher's use cases over a database of their own, with edge ``e`` registered."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = Store(database)
        self.terms = Terms()
        self.now = NOW

    async def register(self, name: str = "e") -> None:
        registration = EdgeRegistration(instance=name, cores=8)
        await register_edge(
            self.store.writing(), name=name, registration=registration, terms=self.terms, now=self.now
        )

    async def submit(self, jobs: int = 100, *, priority: int = 0, **fields: Any) -> int:
        """A task of jobs that ask for ``fields``; those of a task spec among them are the task's."""
        of_task = {k: fields.pop(k) for k in ("container", "resources", "loss", "name") if k in fields}
        spec = TaskSpec(
            **{"name": "t", "payload": JobPayload(command=("true",)), "output": ZIP, "jobs": jobs}
            | {"priority": priority, "job": JobRequest(**{"walltime_s": 100.0, **fields})}
            | of_task
        )
        return await self._submit(spec)

    async def submit_events(self, events: int = 100, **fields: Any) -> int:
        payload = CommandPayload(command=("a", "{output}"))
        return await self._submit(
            TaskSpec(**{"name": "e", "payload": payload, "output": ZIP, "events": events} | fields)
        )

    async def _submit(self, spec: TaskSpec) -> int:
        task = await submit_task(
            self.store.writing(), spec=spec, owner="ada", idempotency_key=None, now=self.now
        )
        return task.task_id

    async def ask(
        self, cores: int = 8, seconds: float = 100.0, *, edge: str = "e", **more: Any
    ) -> list[tuple[int, int]]:
        """Ask for work with room unless said otherwise; gives tasks and numbers of events or jobs leased."""
        capacity = Capacity(**{"instance": edge, "cores": cores, "seconds": seconds, "room": ROOM} | more)
        grants = await acquire_work(
            self.store.writing(), edge=edge, capacity=capacity, terms=self.terms, now=self.now
        )
        return [(grant.task_id, len(grant.events)) for grant in grants.leases]

    async def commit(self, task_id: int, done: IntervalSet, *failed: int, seconds: float = 0.0) -> None:
        failures = tuple(FailedEvent(event=e, error="exit status 3") for e in failed)
        update = LeaseCommit(task_id=task_id, epoch=1, done=done, failed=failures, core_seconds=seconds)
        request = SyncRequest(instance="e", commits=(update,))
        await sync_edge(self.store.writing(), edge="e", request=request, terms=self.terms, now=self.now)

    async def explain(self, task_id: int) -> tuple[str, ...]:
        told = await explain_task(self.store.reading(), task_id=task_id, terms=self.terms, now=self.now)
        return told.reasons


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    await database.migrate()
    made = Bench(database)
    await made.register()
    yield made
    await database.close()


@pytest.mark.parametrize(
    ("only", "room", "of_events", "of_jobs"),
    [
        (None, ROOM, True, True),
        (None, None, True, False),
        ("events", ROOM, True, False),
        ("jobs", ROOM, False, True),
        ("jobs", None, False, False),
    ],
)
async def test_an_edge_is_given_the_kind_of_work_it_asks_for(
    bench: Bench, only: str | None, room: Room | None, of_events: bool, of_jobs: bool
) -> None:
    """Jobs only with a room; of a named task too."""
    events, jobs = await bench.submit_events(4), await bench.submit(2)
    there = {events: of_events, jobs: of_jobs}
    for task_id in (events, jobs):
        given = [t for t, _ in await bench.ask(1, 0.001, only=only, room=room, task_id=task_id)]
        assert given == ([task_id] if there[task_id] else [])
    given = [t for t, _ in await bench.ask(only=only, room=room)]
    assert given == [task_id for task_id, wanted in there.items() if wanted]


@pytest.mark.parametrize(
    "job",
    [
        {"cores": 9},
        {"memory_mb": 16_001},
        {"gpus": 3},
        {"nodes": 5},
        {"walltime_s": 601.0},
        {"container": "image"},
    ],
    ids=str,
)
async def test_jobs_that_do_not_fit_are_passed_over(bench: Bench, job: dict[str, Any]) -> None:
    """A task without room is not leased even by name, and does not hold up what comes after it."""
    large = await bench.submit(10, priority=5, **job)
    small = await bench.submit(2)
    assert await bench.ask() == [(small, 2)]
    assert await bench.ask(task_id=large) == []
    wide = Room(cores=9, memory_mb=20_000, gpus=3, nodes=5, seconds=700.0, containers=True)
    assert [t for t, _ in await bench.ask(9, room=wide)] == [large]


async def test_the_database_chooses_as_the_rule_says(bench: Bench) -> None:
    """The condition on rows and Room.refusal agree on random jobs and rooms."""
    random = Random(3)
    requests: dict[int, tuple[JobRequest, bool]] = {}
    for _ in range(40):
        job = {
            "memory_mb": random.choice((16, 1000, 16_000)),
            "gpus": random.randrange(3),
            "walltime_s": random.choice((0.5, 60.0, 600.0)),
            "nodes": random.choice((1, 1, 2, 4)),
            "cores": random.choice((1, 4, 8, 64)),
        }
        container = random.choice((None, "image"))
        task_id = await bench.submit(1, container=container, **job)
        requests[task_id] = JobRequest(**job), container is not None
    fitted = 0
    for _ in range(100):
        room = Room(
            cores=random.choice((1, 4, 8)),
            memory_mb=random.choice((100, 1000, 20_000)),
            gpus=random.randrange(3),
            nodes=random.choice((1, 2, 4)),
            seconds=random.choice((1.0, 60.0, 600.0)),
            containers=random.choice((True, False)),
        )
        capacity = Capacity(instance="e", cores=1, seconds=1, room=room)
        async with bench.store.reading() as uow:
            lanes = await uow.lanes.waiting()
            found = await uow.lanes.candidates(lanes, capacity, each=1000, long_before=0.0)
        chosen = {account.task_id for account in found}
        fitting = {t for t, (job, c) in requests.items() if room.refusal(job, container=c) is None}
        assert chosen == fitting
        fitted += len(fitting)
    assert 100 < fitted < 3900


async def test_events_in_a_container_need_one_too(bench: Bench) -> None:
    """An edge that says it runs none is not given them; of one that says nothing, nothing is known."""
    task_id = await bench.submit_events(container="image")
    assert await bench.ask(1, 1.0) == []
    assert await bench.ask(1, 1.0, room=replace(ROOM, containers=True)) == [(task_id, 1)]
    assert await bench.ask(1, 1.0, room=None) == [(task_id, 1)]


async def test_jobs_are_sized_by_half_their_walltime_at_first(bench: Bench) -> None:
    """8 cores for 100 s hold 16 jobs of 100 s walltime: 50 s is what each is taken to run."""
    task_id = await bench.submit(walltime_s=100.0)
    assert await bench.ask(8, 100.0) == [(task_id, 16)]


async def test_jobs_are_sized_by_the_guess_then_by_what_is_measured(bench: Bench) -> None:
    """Core-seconds a job, as said and as committed; never more than there are."""
    task_id = await bench.submit(1000, cores=2, resources=Resources(event_seconds=20.0))
    assert await bench.ask(8, 100.0) == [(task_id, 40)]
    await bench.commit(task_id, IntervalSet.span(0, 4), seconds=10.0)
    assert await bench.ask(8, 100.0) == [(task_id, 320)]
    assert await bench.ask(8, 100_000.0) == [(task_id, 640)]


@pytest.mark.parametrize(("cores_of_job", "granted"), [(1, 8), (2, 4), (3, 2), (8, 1)])
async def test_the_cores_offered_are_filled_once(bench: Bench, cores_of_job: int, granted: int) -> None:
    """However much longer than the offer a job is expected to run."""
    task_id = await bench.submit(cores=cores_of_job, walltime_s=600.0)
    assert await bench.ask(8, 1.0) == [(task_id, granted)]


async def test_several_tasks_fill_the_cores_together(bench: Bench) -> None:
    """What a task takes of the cores is missing to the next; a job too wide for the rest is passed over."""
    first = await bench.submit(3, walltime_s=600.0)
    await bench.submit(5, cores=6, walltime_s=600.0)
    third = await bench.submit(9, cores=2, walltime_s=600.0)
    events = await bench.submit_events(10)
    assert await bench.ask(8, 1.0) == [(first, 3), (third, 2), (events, 1)]


async def test_clones_are_counted(bench: Bench) -> None:
    """Each job takes the cores of all its clones."""
    task_id = await bench.submit(walltime_s=600.0, clones=4)
    assert await bench.ask(8, 1.0) == [(task_id, 2)]


@pytest.mark.parametrize(("cores", "granted"), [(1, 1), (31, 1), (32, 2), (64, 4)])
async def test_jobs_on_several_nodes_count_as_all_their_cores(bench: Bench, cores: int, granted: int) -> None:
    """Two nodes of 8 cores a job; one alone where fewer are offered."""
    task_id = await bench.submit(nodes=2, walltime_s=600.0)
    assert await bench.ask(cores, 1.0) == [(task_id, granted)]


async def test_a_job_wider_than_the_offer_is_leased_only_when_it_comes_first(bench: Bench) -> None:
    """So that it is not starved, and does not crowd out what fits."""
    small, wide = await bench.submit(2, priority=1, walltime_s=600.0), await bench.submit(nodes=2)
    assert await bench.ask(8, 1.0) == [(small, 2)]
    assert await bench.ask(8, 1.0) == [(wide, 1)]


async def test_tasks_that_are_not_wanted_are_not_offered(bench: Bench) -> None:
    """``without`` holds for jobs and events, and for numbers that no task has."""
    jobs, events = await bench.submit(), await bench.submit_events()
    assert await bench.ask(1, 1.0, without=(jobs, 10**30, -5, 0)) == [(events, 1)]
    assert await bench.ask(1, 1.0, without=(events,)) == [(jobs, 1)]
    assert await bench.ask(without=(events, jobs)) == []
    assert await bench.ask(task_id=jobs, without=(jobs,)) == []
    assert await bench.ask(without=tuple(range(1, 1001))) == []


async def test_misfits_cost_nothing_however_many(bench: Bench) -> None:
    """More tasks without room than one answer can have leases stand before one that fits: as many statements."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    async def asking() -> tuple[list[tuple[int, int]], int]:
        nonlocal statements
        statements = 0
        return await bench.ask(1, 1.0), statements

    fitting = await bench.submit(1000)
    await bench.ask()
    event.listen(bench.database.engine.sync_engine, "before_cursor_execute", count)
    given, alone = await asking()
    assert given == [(fitting, 1)]
    for _ in range(MAX_LEASES + 20):
        await bench.submit(1, priority=9, cores=64)
    assert await asking() == ([(fitting, 1)], alone)


async def test_explaining_says_who_has_no_room(bench: Bench) -> None:
    """Nobody has asked, everybody is too small, somebody is large enough."""
    task_id = await bench.submit(40, cores=16, memory_mb=17_000)
    assert "40 jobs are ready, waiting for an edge to ask for work." in await bench.explain(task_id)
    assert "No living edge has asked for jobs yet." in await bench.explain(task_id)
    await bench.ask()
    await bench.register("f")
    await bench.ask(edge="f", room=replace(ROOM, cores=64))
    assert (await bench.explain(task_id))[-1] == (
        "No living edge that has asked for jobs has room for one: on edge e a job asks for 16 cores, where there "
        "are 8; on edge f a job asks for 17000 MiB of memory, where there are 16000."
    )
    await bench.ask(edge="f", room=Room(cores=64, memory_mb=64_000, seconds=900.0), only="events")
    assert not any("room" in reason for reason in await bench.explain(task_id))


async def test_a_small_ask_does_not_hide_what_an_edge_has_room_for(bench: Bench) -> None:
    """What is left of an allocation is less than the site has; a new registration forgets both."""
    task_id = await bench.submit(40)
    await bench.ask(only="events")
    await bench.ask(only="events", room=Room(cores=1, memory_mb=16, seconds=1.0))
    assert not any("room" in reason for reason in await bench.explain(task_id))
    await bench.register()
    assert "No living edge has asked for jobs yet." in await bench.explain(task_id)


async def test_an_edge_that_repeats_itself_writes_nothing(bench: Bench) -> None:
    """A request without work that says nothing new leaves no row changed."""
    await bench.ask()
    statements: list[str] = []
    event.listen(
        bench.database.engine.sync_engine,
        "before_cursor_execute",
        lambda *call: statements.append(call[2].split()[0]),
    )
    await bench.ask(room=Room(cores=1, memory_mb=16, seconds=1.0))
    assert set(statements) <= {"BEGIN", "SELECT"}


async def test_explaining_a_task_behind_jobs_counts_jobs(bench: Bench) -> None:
    """Each task is counted in its own words."""
    await bench.submit(1, name="one")
    task_id = await bench.submit_events()
    assert "It waits behind task 1 (one), submitted earlier, which has 1 job ready." in await bench.explain(
        task_id
    )


@pytest.mark.parametrize(
    ("jobs", "failed", "says"),
    [
        (5, (2, 4), "2 jobs failed and the task may lose 1; the first is job 2: exit status 3"),
        (1, (0,), "all of its 1 job failed; the first is job 0: exit status 3"),
    ],
)
async def test_failures_speak_of_jobs(bench: Bench, jobs: int, failed: tuple[int, ...], says: str) -> None:
    """The message of a task that failed names the job and its error."""
    task_id = await bench.submit(jobs, loss=LossPolicy(max_failed_events=1))
    await bench.ask()
    await bench.commit(task_id, IntervalSet.span(0, 0), *failed)
    assert (await get_task(bench.store.reading(), task_id=task_id, now=NOW)).message == says


async def test_allowed_losses_are_told_as_jobs(bench: Bench) -> None:
    """While it runs, and while it waits for its merge."""
    task_id = await bench.submit(3, loss=LossPolicy(max_failed_events=1))
    await bench.ask()
    await bench.commit(task_id, IntervalSet.span(0, 1), 1)
    assert await bench.explain(task_id) == (
        "1 job is leased to edge e.",
        "1 job failed, of at most 1 that it may lose; the first is job 1 (payload): exit status 3",
    )
    await bench.commit(task_id, IntervalSet.span(2, 3))
    assert (await bench.explain(task_id))[0] == (
        "All 3 jobs are settled; 0 of 2 finished ones are in outputs, the rest is to be merged where it was made: e."
    )
