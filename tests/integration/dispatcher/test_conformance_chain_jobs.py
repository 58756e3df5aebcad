"""Jobs that are cut as the files of a dataset come, over both kinds of database: no job twice, no file left out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from support.chaining import RAW, ChainBench, chain_bench
from support.datasets import file, reading
from support.postgres import postgres_server  # noqa: F401 - fixture
from unit.dispatcher.test_jobs import ROOM

from hpcpanda.dispatcher.chains.growing import tasks_to_grow
from hpcpanda.dispatcher.generation import growing as late
from hpcpanda.dispatcher.generation.judging import judge_scouts, tasks_to_judge
from hpcpanda.dispatcher.generation.making import MOST_GROWN_JOBS
from hpcpanda.dispatcher.usecases.tasks import cancel_task
from hpcpanda.domain.dataset import DatasetFile
from hpcpanda.domain.exchange import LeaseCommit
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.scouting import JobMeasure
from hpcpanda.domain.splitting import JobSlice, JobSplit
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Resources, TaskSpec

SPLITS = {
    "files": JobSplit(files_per_job=3),
    "events": JobSplit(events_per_job=15),
    "bytes": JobSplit(max_bytes=250),
    "events of few files": JobSplit(events_per_job=15, files_per_job=2),
    "seconds": JobSplit(max_walltime_s=40.0, files_per_job=4),
}


@pytest.fixture(params=["sqlite", "postgres"])
async def chain(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChainBench]:
    async with chain_bench(request, tmp_path) as bench:
        yield bench


def cutting(split: JobSplit = SPLITS["files"], *, grows: bool = True, **inputs: object) -> TaskSpec:
    """A task whose jobs read the dataset."""
    spec = reading(
        RAW,
        payload=JobPayload(command=("true",)),
        job=JobRequest(walltime_s=100.0),
        split=split,
        resources=Resources(event_seconds=1.0),
    )
    assert spec.inputs is not None
    return replace(spec, inputs=replace(spec.inputs, grows=grows, **inputs))  # type: ignore[arg-type]


async def lease_all(chain: ChainBench, task_id: int) -> dict[int, JobSlice]:
    """Lease what there is; what each job has to do."""
    found: dict[int, JobSlice] = {}
    while grants := await chain.acquire("a", 100_000, task_id=task_id, room=ROOM):
        (grant,) = grants
        told = {one.job: one for one in grant.slices}
        assert not found.keys() & told.keys()
        assert IntervalSet.of(r for n in told for r in IntervalSet.span(n, n + 1).ranges()) == grant.events
        found |= told
    return found


def files(seed: int, count: int = 30) -> list[DatasetFile]:
    random = Random(seed)
    return [
        file(n, "a", events=random.randint(1, 25), size=random.choice((50, 100, 250))) for n in range(count)
    ]


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
async def test_jobs_are_those_of_a_closed_dataset(chain: ChainBench, split: JobSplit) -> None:
    """However many files come at once, and whenever somebody looks: the very same jobs, each leased once."""
    await chain.create(RAW)
    task_id = (await chain.submit(cutting(split))).task_id
    assert await chain.counts(task_id) == ("pending", 0, 0, 0)
    found: dict[int, JobSlice] = {}
    all_files, random = files(1), Random(2)
    while all_files:
        some = random.randint(1, 4)
        await chain.add(*all_files[:some], did=RAW)
        all_files = all_files[some:]
        await chain.grow()
        if random.random() < 0.5:
            told = await lease_all(chain, task_id)
            assert not found.keys() & told.keys()
            found |= told
    await chain.close(RAW)
    await chain.grow()
    found |= await lease_all(chain, task_id)
    assert await tasks_to_grow(chain.store.reading()) == []
    plain = (await chain.submit(cutting(split, grows=False))).task_id
    assert found == await lease_all(chain, plain)
    assert (await chain.task(task_id)).progress.total == len(found) > 1
    async with chain.store.reading() as uow:
        assert len((await uow.generation.get(task_id)).plan) == 1


async def test_a_job_waits_for_its_files_and_the_last_for_the_end(chain: ChainBench) -> None:
    """What is left of files that are there is cut when no more come; it is said how far the task has come."""
    upstream = await chain.generate(70)
    task_id = (await chain.submit(cutting())).task_id
    for written, jobs in enumerate((0, 0, 1, 1, 1, 2), start=1):
        await chain.write(upstream)
        await chain.grow()
        assert (await chain.task(task_id)).progress.total == jobs
        state = "pending" if not jobs else "ready"
        assert (await chain.task(task_id)).state == state
        used = {0: "it has no files yet", 1: "3 of its files used, with 1 job"}.get(jobs)
        if used:
            assert f"It waits for dataset {RAW}: {used}, still open." in await chain.reasons(task_id), written
    assert await chain.grow() == 0
    found = await lease_all(chain, task_id)
    assert [[f.path for f in one.files] for one in found.values()] == [
        [f"/a/{upstream}/{n}.zip" for n in (0, 10, 20)],
        [f"/a/{upstream}/{n}.zip" for n in (30, 40, 50)],
    ]
    await chain.write(upstream)
    assert not (await chain.dataset(RAW)).open
    assert await chain.grow() == 1
    (last,) = (await lease_all(chain, task_id)).values()
    assert (last.job, last.first, last.last, len(last.files)) == (2, 60, 70, 1)


async def test_the_end_comes_after_the_last_job(chain: ChainBench) -> None:
    """All jobs of so far are done: the task is not, before the dataset is closed; then the last ones are cut and done."""
    await chain.create(RAW)
    task_id = (await chain.submit(cutting())).task_id
    await chain.add(*(file(n, "a") for n in range(4)), did=RAW)
    await chain.grow()
    for total in (1, 2):
        (grant,) = await chain.acquire("a", 100_000, task_id=task_id, room=ROOM)
        assert grant.spec.jobs == MOST_GROWN_JOBS
        await chain.finish("a", grant)
        assert await chain.counts(task_id) == ("running" if total == 1 else "merging", total, 0, total)
        await chain.close(RAW)
        await chain.grow()
    await chain.report("a", task_id, IntervalSet.span(0, 2), "/a/out.zip")
    assert await chain.counts(task_id) == ("done", 2, 0, 2)


@pytest.mark.parametrize("policy", ["wait", "finish", "fail"])
async def test_what_becomes_of_jobs_when_the_other_task_fails(chain: ChainBench, policy: str) -> None:
    """It waits, and it is said for what; or ends with what is there, its last job too; or fails with one sentence."""
    upstream = await chain.generate(50)
    task_id = (await chain.submit(cutting(if_abandoned=policy))).task_id
    for _ in range(4):
        await chain.write(upstream)
    assert await chain.grow() == 1
    await cancel_task(chain.store.writing(), task_id=upstream, caller="ada", now=chain.now)
    await chain.grow()
    task = await chain.task(task_id)
    assert (task.state, task.progress.total) == {
        "wait": (TaskState.READY, 1),
        "finish": (TaskState.READY, 2),
        "fail": (TaskState.FAILED, 1),
    }[policy]
    if policy == "wait":
        close = f"'hpcpanda dataset close {RAW}' lets this one end with what is there"
        said = await chain.reasons(task_id)
        assert f"No task writes the dataset any more, and it is not closed: {close}." in said
        await chain.close(RAW)
        assert await chain.grow() == 1
    if policy == "fail":
        why = f"task {upstream}, which wrote dataset {RAW}, is aborted, and the dataset is open"
        assert task.message == why
    else:
        assert [len(one.files) for one in (await lease_all(chain, task_id)).values()] == [3, 1]


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
async def test_jobs_go_on_when_the_dataset_is_opened_again(chain: ChainBench, split: JobSplit) -> None:
    """The last job of before stays as it is, and the next begins behind it: every entry is in one job."""
    upstream = await chain.generate(80, may_lose=40)
    task_id = (await chain.submit(cutting(split))).task_id
    for _ in range(4):
        await chain.write(upstream)
    await chain.fail(upstream, 40)
    await chain.grow()
    found = await lease_all(chain, task_id)
    await chain.retry(upstream)
    for _ in range(4):
        await chain.grow()
        await chain.write(upstream)
    assert not (await chain.dataset(RAW)).open
    await chain.grow()
    more = await lease_all(chain, task_id)
    assert more
    assert list(found | more) == list(range(len(found) + len(more)))
    ends = [(one.first, one.last) for one in (found | more).values()]
    assert [first for first, _ in ends] == [0, *(last for _, last in ends[:-1])]
    assert ends[-1][1] == 80
    assert (await chain.task(task_id)).progress.total == len(ends)


async def test_what_cannot_be_cut_fails_the_task(chain: ChainBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sentence: a file larger than a job may read, or more jobs than a task may have."""
    await chain.create(RAW)
    by_bytes = (await chain.submit(cutting(SPLITS["bytes"]))).task_id
    by_files = (await chain.submit(cutting(JobSplit(files_per_job=1)))).task_id
    await chain.add(file(0, "a"), file(1, "a"), did=RAW)
    await chain.grow()
    monkeypatch.setattr(late, "MOST_GROWN_JOBS", 2)
    await chain.add(file(2, "a", size=251), did=RAW)
    await chain.grow()
    told = [(await chain.task(n)).message for n in (by_bytes, by_files)]
    why = "what has come cannot be cut into jobs:"
    assert told == [
        f"{why} split.max_bytes: is less than the 251 bytes of file 2 of the dataset; allow at least those",
        f"{why} split: it makes more than 2 jobs; let each job hold more, or submit several tasks",
    ]
    assert await tasks_to_grow(chain.store.reading()) == []


async def test_scouts_of_a_closed_dataset_cut_what_it_had(chain: ChainBench) -> None:
    """A task that was submitted on a closed dataset reads that: not what has come since it was opened again."""
    upstream = await chain.generate(80, may_lose=40)
    for _ in range(4):
        await chain.write(upstream)
    await chain.fail(upstream, 40)
    learning = replace(cutting(JobSplit(max_output_mb=1, events_per_job=10), grows=False), scouts=2)
    task_id = (await chain.submit(learning)).task_id
    (grant,) = await chain.acquire("a", 100_000, task_id=task_id, room=ROOM)
    assert grant.events == IntervalSet.span(0, 2)
    await chain.retry(upstream)
    await chain.write(upstream)
    measured = tuple(JobMeasure(job=n, wall_s=10.0, output_mb=0.4) for n in range(2))
    commit = LeaseCommit(
        task_id=task_id, epoch=grant.epoch, done=grant.events, core_seconds=2.0, measured=measured
    )
    await chain.sync("a", commits=(commit,))
    assert await tasks_to_judge(chain.store.reading(), now=chain.now) == [task_id]
    assert await judge_scouts(chain.store.writing(), task_id=task_id, now=chain.now)
    rest = await lease_all(chain, task_id)
    assert [(one.first, one.last) for one in rest.values()] == [(20, 30), (30, 40)]


@pytest.mark.parametrize(
    "split", [JobSplit(files_per_job=4), JobSplit(files_per_job=4, max_bytes=400)], ids=["by rule", "kept"]
)
async def test_jobs_come_behind_those_that_were_split(chain: ChainBench, split: JobSplit) -> None:
    """A job that was too large goes on as two, and what comes then is cut as before: every file is in one job."""
    await chain.create(RAW)
    task_id = (await chain.submit(cutting(split))).task_id
    found: dict[int, JobSlice] = {}
    for count in (0, 8):
        await chain.add(*(file(n, "a") for n in range(count, count + 8)), did=RAW)
        await chain.grow()
        (grant,) = await chain.acquire("a", 100_000, task_id=task_id, room=ROOM)
        first, *others = grant.slices
        found |= {one.job: one for one in others}
        failed = (FailedEvent(event=first.job, error="ran for more than 100 s (job.walltime_s)", attempts=1),)
        commit = LeaseCommit(task_id=task_id, epoch=grant.epoch, failed=failed)
        await chain.sync("a", commits=(commit,))
    await chain.add(file(16, "a"), did=RAW)
    await chain.close(RAW)
    await chain.grow()
    found |= await lease_all(chain, task_id)
    covered = sorted((one.first, one.last) for one in found.values())
    assert [(found[job].first, found[job].last) for job in sorted(found)] != covered
    assert [first for first, _ in covered] == [0, *(last for _, last in covered[:-1])]
    assert covered[-1][1] == 170
    assert sorted(found) == list(range((await chain.task(task_id)).progress.total))
