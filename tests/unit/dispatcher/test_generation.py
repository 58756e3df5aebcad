"""Tasks that are cut into jobs, and scouts, at the dispatcher: through its use cases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from unit.dispatcher.test_jobs import ROOM, ZIP, Bench

from hpcpanda.dispatcher.generation.judging import PATIENCE_S, judge_scouts, tasks_to_judge
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.control import pause_task, resume_task, retry_task
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import cancel_task, get_task, submit_task
from hpcpanda.domain import splitting
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import Capacity, LeaseCommit, LeaseGrant, LeaseReturn, SyncRequest
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.scouting import JobMeasure
from hpcpanda.domain.splitting import JobSlice, JobSplit, SliceFile
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, Resources, TaskSpec
from hpcpanda.domain.task_views import Task

JOB = JobRequest(walltime_s=600.0, memory_mb=8000)


def spec(**fields: Any) -> TaskSpec:
    """A task of jobs."""
    plain: dict[str, Any] = {"name": "t", "payload": JobPayload(command=("true",)), "output": ZIP, "job": JOB}
    return TaskSpec(**plain | fields)


def files(*events: int, size: int | None = None) -> Inputs:
    """Input files with so many entries each."""
    listed = (InputFile(path=f"/d/{n}.root", events=e, size=size) for n, e in enumerate(events))
    return Inputs(format=InputFormat.ROOT, container="tree", files=tuple(listed))


class Cutting:
    """What is done with a task here, on a bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def submit(self, **fields: Any) -> int:
        """A new task."""
        task = await submit_task(
            self.bench.store.writing(),
            spec=spec(**fields),
            owner="ada",
            idempotency_key=None,
            now=self.bench.now,
        )
        return task.task_id

    async def lease(self, cores: int = 1_000_000) -> list[LeaseGrant]:
        """Ask for work; by default for as much as there is."""
        capacity = Capacity(instance="e", cores=cores, seconds=600.0, room=ROOM)
        grants = await acquire_work(
            self.bench.store.writing(),
            edge="e",
            capacity=capacity,
            terms=self.bench.terms,
            now=self.bench.now,
        )
        return list(grants.leases)

    async def lease_all(self) -> dict[int, JobSlice]:
        """Lease until there is nothing more; what each job has to do."""
        found: dict[int, JobSlice] = {}
        while grants := await self.lease():
            for grant in grants:
                told = {one.job: one for one in grant.slices}
                assert list(told) == [n for r in grant.events.ranges() for n in range(r.first, r.last)]
                assert not found.keys() & told
                found |= told
        return found

    async def done(self, grant: LeaseGrant, jobs: Iterable[int], measured: Iterable[JobMeasure] = ()) -> None:
        """Jobs of a lease are finished."""
        numbers = sorted(jobs)
        events = IntervalSet.of(r for n in numbers for r in IntervalSet.span(n, n + 1).ranges())
        commit = LeaseCommit(
            task_id=grant.task_id,
            epoch=grant.epoch,
            done=events,
            core_seconds=len(numbers) * 10.0,
            measured=tuple(measured),
        )
        await self.sync(commits=(commit,))

    async def failed(self, grant: LeaseGrant, jobs: Iterable[int]) -> None:
        """Jobs of a lease have failed."""
        failures = tuple(FailedEvent(event=n, error="no such file") for n in jobs)
        await self.sync(commits=(LeaseCommit(task_id=grant.task_id, epoch=grant.epoch, failed=failures),))

    async def sync(self, **said: Any) -> None:
        """The edge says something."""
        request = SyncRequest(instance="e", **said)
        await sync_edge(
            self.bench.store.writing(), edge="e", request=request, terms=self.bench.terms, now=self.bench.now
        )

    async def judge(self) -> list[int]:
        """What housekeeping does about scouts; the tasks of which they were judged."""
        bench = self.bench
        due = await tasks_to_judge(bench.store.reading(), now=bench.now)
        return [t for t in due if await judge_scouts(bench.store.writing(), task_id=t, now=bench.now)]

    async def task(self, task_id: int) -> Task:
        """As users see it."""
        return await get_task(self.bench.store.reading(), task_id=task_id, now=self.bench.now)

    async def reasons(self, task_id: int) -> str:
        """What is said of why it is where it is."""
        bench = self.bench
        found = await explain_task(bench.store.reading(), task_id=task_id, terms=bench.terms, now=bench.now)
        return " ".join(found.reasons)


def used(job: int, wall_s: float = 10.0, rss: float = 100.0, output_mb: float = 1.0) -> JobMeasure:
    """What a scout has used."""
    return JobMeasure(job=job, wall_s=wall_s, max_rss_mb=rss, output_mb=output_mb)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    await database.migrate()
    made = Bench(database)
    await made.register()
    yield made
    await database.close()


async def test_one_job_per_file(bench: Bench) -> None:
    """Each job is told its file, and of its events where they stand in the task; the edge sees a task of so many jobs."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(inputs=files(3, 1, 6), split=JobSplit(files_per_job=1))
    (grant,) = await cutting.lease()
    assert grant.events == IntervalSet.span(0, 3)
    assert (grant.spec.jobs, grant.spec.inputs, grant.spec.split) == (3, None, None)
    assert grant.slices == tuple(
        JobSlice(job=n, first=a, last=b, files=(SliceFile(path=f"/d/{n}.root", first=0, last=b - a),))
        for n, (a, b) in enumerate([(0, 3), (3, 4), (4, 10)])
    )
    assert (await cutting.task(task_id)).progress.total == 3
    await cutting.done(grant, range(3))
    assert (await cutting.task(task_id)).state is TaskState.MERGING


async def test_jobs_of_so_many_events_cross_files(bench: Bench) -> None:
    """Where events a job are given, files are cut: each job is told which entries of which files."""
    cutting = Cutting(bench)
    await cutting.submit(inputs=files(3, 1, 6), split=JobSplit(events_per_job=4))
    slices = await cutting.lease_all()
    assert slices[0].files == (
        SliceFile(path="/d/0.root", first=0, last=3),
        SliceFile(path="/d/1.root", first=0, last=1),
    )
    assert slices[1].files == (SliceFile(path="/d/2.root", first=0, last=4),)
    assert slices[2].files == (SliceFile(path="/d/2.root", first=4, last=6),)


async def test_bytes_a_job_make_irregular_boundaries(bench: Bench) -> None:
    """What follows no rule is kept in rows of thousands, and told alike after some of it came back."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(
        inputs=files(*[1] * 12_000, size=10), split=JobSplit(max_bytes=25, files_per_job=5)
    )
    assert (await cutting.task(task_id)).progress.total == 6000
    first = (await cutting.lease())[0]
    assert len(first.slices) == 1000
    await cutting.sync(returns=(LeaseReturn(task_id=task_id, epoch=first.epoch, events=first.events),))
    slices = await cutting.lease_all()
    assert {one.job: one for one in first.slices}.items() <= slices.items()
    assert sorted(slices) == list(range(6000))
    assert [f.path for n in range(6000) for f in slices[n].files] == [f"/d/{n}.root" for n in range(12_000)]


async def test_a_task_of_countless_events_is_cut_when_it_is_leased(bench: Bench) -> None:
    """10^15 events in jobs of a million: submitting writes no boundary, and a lease tells only of its own jobs."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(events=10**15, split=JobSplit(events_per_job=10**6))
    (grant,) = await cutting.lease(cores=3)
    assert (await cutting.task(task_id)).progress.total == 10**9
    assert grant.slices[-1] == JobSlice(
        job=len(grant.slices) - 1, first=(len(grant.slices) - 1) * 10**6, last=len(grant.slices) * 10**6
    )


async def test_scouts_go_first_and_alone(bench: Bench) -> None:
    """Of a task with scouts nothing else is leased; when 80% are back the rest follows, asking for what they have shown,
    and an edge is told so with its next lease."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(jobs=100, scouts=10)
    (grant,) = await cutting.lease()
    assert grant.events == IntervalSet.span(0, 10)
    assert grant.spec.job == JOB
    assert not await cutting.lease()
    assert (await cutting.task(task_id)).state is TaskState.SCOUTING
    await cutting.done(grant, range(7), [used(n, 10.0 + n, 300.0) for n in range(7)])
    assert not await cutting.judge()
    assert "scouting: 7 of 10 back. 90 other jobs wait until 80%" in await cutting.reasons(task_id)
    await cutting.done(grant, [7], [used(7, 20.0, 400.0)])
    assert await cutting.judge() == [task_id]
    assert not await cutting.judge()
    (rest,) = await cutting.lease()
    assert rest.events == IntervalSet.span(10, 100)
    assert rest.spec.job is not None
    assert 400 < rest.spec.job.memory_mb < 1000
    assert 20.0 < rest.spec.job.walltime_s < 200.0
    assert rest.spec.jobs == 100
    task = await cutting.task(task_id)
    assert (task.state, task.progress.total) == (TaskState.RUNNING, 100)
    assert "8 of 10 scouts succeeded and took at most 20 s and 400 MiB" in str(task.message)
    await cutting.done(grant, [8, 9])
    await cutting.done(rest, range(10, 100))
    assert (await cutting.task(task_id)).state is TaskState.MERGING


async def test_scouts_decide_how_much_a_job_holds(bench: Bench) -> None:
    """A walltime a job, and nothing known: 10 scouts of 10 events run; 2 s an event makes jobs of 40 events of 100 s."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(events=1000, split=JobSplit(max_walltime_s=100.0))
    (grant,) = await cutting.lease()
    assert [(s.first, s.last) for s in grant.slices] == [(n * 10, n * 10 + 10) for n in range(10)]
    assert "The rest waits until 80%" in await cutting.reasons(task_id)
    await cutting.done(grant, range(10), [used(n, 20.0) for n in range(10)])
    assert await cutting.judge() == [task_id]
    slices = await cutting.lease_all()
    assert sorted(slices) == list(range(10, 33))
    assert [slices[n].last - slices[n].first for n in sorted(slices)] == [40] * 22 + [20]
    assert (slices[10].first, slices[32].last) == (100, 1000)
    assert (await cutting.task(task_id)).progress.total == 33


async def test_scouts_of_files_take_a_file_each(bench: Bench) -> None:
    """Limits never cut a file: after scouts, jobs hold as many whole files as fit, told under boundaries that are kept."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(
        inputs=files(*[10] * 10, *[5, 20, 100, 5] * 25), split=JobSplit(max_output_mb=50), scouts=5
    )
    (grant,) = await cutting.lease()
    assert [len(s.files) for s in grant.slices] == [1] * 5
    assert grant.spec.jobs == 110, "the most jobs there can be: names in the output do not change later"
    await cutting.done(grant, range(5), [used(n, output_mb=10.0) for n in range(5)])
    assert await cutting.judge() == [task_id]
    slices = await cutting.lease_all()
    held = [one.last - one.first for one in slices.values()]
    assert max(n for one, n in zip(slices.values(), held, strict=True) if len(one.files) > 1) <= 40
    assert [f.path for n in sorted(slices) for f in slices[n].files] == [
        f"/d/{n}.root" for n in range(5, 110)
    ]


async def test_when_all_scouts_fail_the_task_does(bench: Bench) -> None:
    """The rest, which would fail, too, is never run; the message says so."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(jobs=1000, scouts=3, loss=LossPolicy(max_failed_events=500))
    (grant,) = await cutting.lease()
    await cutting.failed(grant, [0, 1])
    assert (await cutting.task(task_id)).state is TaskState.SCOUTING
    await cutting.failed(grant, [2])
    task = await cutting.task(task_id)
    assert task.state is TaskState.FAILED
    assert "all of its 3 jobs, which ran before the others, failed; the first is job 0" in str(task.message)
    assert not await cutting.lease()


async def test_the_rest_does_not_wait_for_ever(bench: Bench) -> None:
    """When no scout has come back for its walltime and ten minutes, those that are back have to do; one at least."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(jobs=100, scouts=10)
    (grant,) = await cutting.lease()
    bench.now += 10 * PATIENCE_S
    assert not await cutting.judge(), "none is back"
    await cutting.done(grant, [3], [used(3)])
    bench.now += JOB.walltime_s + PATIENCE_S - 1
    assert not await cutting.judge()
    bench.now += 2
    assert await cutting.judge() == [task_id]
    assert (await cutting.task(task_id)).state is TaskState.RUNNING


async def test_scouts_that_were_not_measured_change_nothing(bench: Bench) -> None:
    """Of jobs whose edge says nothing of what they used, the rest asks for what the user stated."""
    cutting = Cutting(bench)
    await cutting.submit(jobs=20, scouts=5)
    (grant,) = await cutting.lease()
    await cutting.done(grant, range(5))
    await cutting.judge()
    (rest,) = await cutting.lease()
    assert rest.spec.job == JOB
    assert rest.events == IntervalSet.span(5, 20)


async def test_an_edge_cannot_measure_what_it_does_not_hold(bench: Bench) -> None:
    """Figures of jobs that are not newly done under the lease are left out: others' scouts, and the same twice."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(jobs=100, scouts=2)
    (grant,) = await cutting.lease()
    lies = [used(1, 1e5, 1e6), used(99, 1e5)]
    await cutting.done(grant, [0], [used(0), *lies])
    await cutting.done(grant, [0], [used(0, 9999.0)])
    async with bench.store.reading() as uow:
        assert (await uow.generation.get(task_id)).measured == (used(0),)


async def test_a_task_smaller_than_its_scouts_has_none(bench: Bench) -> None:
    """There is no rest that could learn from them."""
    cutting = Cutting(bench)
    for fields in (
        {"jobs": 5, "scouts": 5},
        {"events": 50, "split": JobSplit(events_per_job=10), "scouts": 9},
        {"events": 50, "split": JobSplit(max_walltime_s=100.0)},
    ):
        task_id = await cutting.submit(**fields)
        task = await cutting.task(task_id)
        assert (task.state, task.progress.total) == (TaskState.READY, 5)


async def test_a_guess_of_the_cost_needs_no_scouts(bench: Bench) -> None:
    """Who says what an event takes has the task cut at once."""
    cutting = Cutting(bench)
    resources = Resources(event_seconds=2.0)
    task_id = await cutting.submit(events=100, split=JobSplit(max_walltime_s=100.0), resources=resources)
    task = await cutting.task(task_id)
    assert (task.state, task.progress.total) == (TaskState.READY, 3)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"events": 9, "split": JobSplit(files_per_job=1)},
            "split.files_per_job: is for tasks with input files",
        ),
        ({"events": 9, "split": JobSplit(max_bytes=1)}, "split.max_bytes: is for tasks with input files"),
        (
            {"events": 9, "split": JobSplit(max_disk_mb=1), "scouts": 0},
            "max_disk_mb needs jobs that find out",
        ),
        ({"events": 9, "split": JobSplit(max_walltime_s=9), "scouts": 0}, "say in resources.event_seconds"),
        (
            {"events": 9, "split": JobSplit(max_walltime_s=601)},
            "601 is more than a job is given, job.walltime_s",
        ),
        ({"jobs": 9, "split": JobSplit(events_per_job=1)}, "leave 'jobs' out"),
        ({"events": 9}, "jobs: goes with a payload of the form 'job'"),
        ({"jobs": 9, "scouts": 1001}, "scouts: 1001 is outside"),
        (
            {
                "events": 9,
                "split": JobSplit(max_memory_mb=9),
                "payload": JobPayload(command=("a", "{jobs}")),
            },
            "{jobs} is not known before scouts",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(fields: dict[str, Any], problem: str) -> None:
    """Each refusal names the field and what to do."""
    with pytest.raises(InvalidValue) as raised:
        spec(**fields)
    assert problem in str(raised.value)


def test_a_split_that_says_nothing_is_refused() -> None:
    """There would be nothing by which to cut."""
    with pytest.raises(InvalidValue, match="split: says nothing"):
        JobSplit()
    with pytest.raises(InvalidValue, match="scouts: are jobs"):
        replace(spec(jobs=1), payload=None, jobs=None, events=1, job=None, scouts=1)  # type: ignore[arg-type]


async def test_a_task_that_cannot_be_cut_changes_nothing(bench: Bench) -> None:
    """Refused by the sizes of its files: no task is there, and none of its rows."""
    cutting = Cutting(bench)
    with pytest.raises(InvalidValue, match=r"split\.max_bytes: is less than the 10 bytes of /d/0\.root"):
        await cutting.submit(inputs=files(1, 2, size=10), split=JobSplit(max_bytes=9))
    async with bench.store.reading() as uow:
        assert not await uow.accounts.some([1])


async def test_a_lease_costs_the_same_however_much_is_cut(bench: Bench) -> None:
    """Statements of a request for work do not grow with the task, and are few more than those of a task that is not cut."""
    cutting = Cutting(bench)
    statements: list[str] = []

    def note(_c: object, _r: object, statement: str, *_: object) -> None:
        statements.append(statement)

    counts = []
    for fields in (
        {"jobs": 10**9},
        {"events": 10**3, "split": JobSplit(events_per_job=1)},
        {"events": 10**15, "split": JobSplit(events_per_job=10**6)},
        {"inputs": files(*[1] * 20_000, size=10), "split": JobSplit(max_bytes=25)},
    ):
        task_id = await cutting.submit(**fields)
        await cutting.lease(cores=1)
        event.listen(bench.database.engine.sync_engine, "before_cursor_execute", note)
        statements.clear()
        (grant,) = await cutting.lease(cores=1)
        counts.append(len(statements))
        event.remove(bench.database.engine.sync_engine, "before_cursor_execute", note)
        assert grant.task_id == task_id
        await cancel_task(bench.store.writing(), task_id=task_id, caller="ada", now=bench.now)
    plain, small, large, kept = counts
    assert small == large <= plain + 4
    assert kept <= large + 1


async def test_scouting_goes_on_after_a_pause(bench: Bench) -> None:
    """While a task is paused its scouts may end, and nothing follows; when it is resumed, the rest does."""
    cutting = Cutting(bench)
    task_id = await cutting.submit(jobs=100, scouts=4)
    (grant,) = await cutting.lease()
    await pause_task(bench.store.writing(), task_id=task_id, caller="ada", now=bench.now)
    await cutting.done(grant, range(4), [used(n) for n in range(4)])
    assert not await cutting.judge()
    assert (await cutting.task(task_id)).state is TaskState.PAUSED
    await resume_task(bench.store.writing(), task_id=task_id, caller="ada", now=bench.now)
    assert (await cutting.task(task_id)).state is TaskState.SCOUTING
    assert await cutting.judge() == [task_id]
    assert (await cutting.task(task_id)).progress.ready == 96


async def test_a_task_that_scouts_show_to_be_too_large_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More jobs than can be kept: it fails with what to do; tried again it is not done before all of it is."""
    monkeypatch.setattr(splitting, "MAX_STORED_JOBS", 5)
    cutting = Cutting(bench)
    task_id = await cutting.submit(inputs=files(*[10] * 20), split=JobSplit(max_output_mb=10), scouts=3)
    (grant,) = await cutting.lease()
    await cutting.done(grant, range(3), [used(n, output_mb=8.0) for n in range(3)])
    assert await cutting.judge() == [task_id]
    task = await cutting.task(task_id)
    assert task.state is TaskState.FAILED
    assert "its scouts have run, but split: it makes more than 5 jobs; let each job hold more" in str(
        task.message
    )
    await retry_task(bench.store.writing(), task_id=task_id, caller="ada", now=bench.now)
    (again,) = await cutting.lease()
    await cutting.done(again, range(3))
    assert (await cutting.task(task_id)).state is TaskState.RUNNING
    monkeypatch.undo()
    assert await cutting.judge() == [task_id]
    slices = await cutting.lease_all()
    assert [f.path for n in sorted(slices) for f in slices[n].files] == [f"/d/{n}.root" for n in range(3, 20)]
