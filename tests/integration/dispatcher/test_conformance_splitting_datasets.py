"""Jobs over datasets that were too large go on as smaller ones, also while the dataset grows, over both kinds of database."""

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

from hpcpanda.domain.exchange import LeaseCommit, LeaseGrant
from hpcpanda.domain.failures import FailureFacts
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent, single_events
from hpcpanda.domain.splitting import JobSlice, JobSplit
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, Resources, TaskSpec

SLOW = FailureFacts(limit="time")


@pytest.fixture(params=["sqlite", "postgres"])
async def chain(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChainBench]:
    async with chain_bench(request, tmp_path) as bench:
        yield bench


def cutting(split: JobSplit, *, grows: bool) -> TaskSpec:
    spec = reading(
        RAW,
        payload=JobPayload(command=("true",)),
        job=JobRequest(walltime_s=100.0),
        split=split,
        resources=Resources(event_seconds=1.0),
        loss=LossPolicy(retries=10),
    )
    assert spec.inputs is not None
    return replace(spec, inputs=replace(spec.inputs, grows=grows))


async def lease(chain: ChainBench, task_id: int, edge: str = "a") -> list[tuple[LeaseGrant, JobSlice]]:
    """All jobs that an edge is given at once."""
    grants = await chain.acquire(edge, 100_000, task_id=task_id, room=ROOM)
    for grant in grants:
        assert single_events(one.job for one in grant.slices) == grant.events
    return [(grant, one) for grant in grants for one in grant.slices]


async def end(chain: ChainBench, grant: LeaseGrant, job: int, *, well: bool, edge: str = "a") -> None:
    done = single_events([job]) if well else EMPTY
    failed = () if well else (FailedEvent(event=job, error="ran for too long", facts=SLOW),)
    commit = LeaseCommit(task_id=grant.task_id, epoch=grant.epoch, done=done, failed=failed, core_seconds=1.0)
    await chain.sync(edge, commits=(commit,))


async def test_pieces_are_leased_where_their_files_are(chain: ChainBench) -> None:
    """The second half of a job is at a site that does not have all of it, and goes there."""
    await chain.fill(file(0, "a"), file(1, "a"), file(2, "a", "b"), file(3, "a", "b"), did=RAW)
    task_id = (await chain.submit(cutting(JobSplit(files_per_job=4), grows=False))).task_id
    ((grant, one),) = await lease(chain, task_id)
    assert len(one.files) == 4
    await end(chain, grant, 0, well=False)
    ((_, at_b),) = await lease(chain, task_id, "b")
    assert (at_b.job, [f.path for f in at_b.files]) == (1, ["/b/f2.root", "/b/f3.root"])
    ((_, at_a),) = await lease(chain, task_id, "a")
    assert (at_a.job, [f.path for f in at_a.files]) == (0, ["/a/f0.root", "/a/f1.root"])


@pytest.mark.parametrize(
    "split",
    [JobSplit(files_per_job=4), JobSplit(events_per_job=15), JobSplit(max_bytes=400, files_per_job=5)],
    ids=["files", "events", "bytes"],
)
async def test_a_task_that_grows_is_split_all_the_while(chain: ChainBench, split: JobSplit) -> None:
    """Files come, jobs of before are split, more jobs are cut behind the pieces: every event is done once."""
    random = Random(len(repr(split)))
    await chain.create(RAW)
    task_id = (await chain.submit(cutting(split, grows=True))).task_id
    coming = [file(n, "a", events=random.randint(1, 25)) for n in range(30)]
    events = sum(one.events for one in coming)
    held: list[tuple[LeaseGrant, JobSlice]] = []
    seen, failures = EMPTY, 0
    for _ in range(500):
        if coming:
            some = random.randint(0, 3)
            await chain.add(*coming[:some], did=RAW)
            coming = coming[some:]
            if not coming:
                await chain.close(RAW)
        await chain.grow()
        held += await lease(chain, task_id)
        if not held:
            if (await chain.task(task_id)).state is TaskState.MERGING:
                break
            continue
        grant, one = held.pop(random.randrange(len(held)))
        large = one.last - one.first > 4 if split.cuts_files else len(one.files) > 1
        if large and random.random() < 0.6:
            failures += 1
            await end(chain, grant, one.job, well=False)
            continue
        span = IntervalSet.span(one.first, one.last)
        assert not seen & span
        seen |= span
        await end(chain, grant, one.job, well=True)
    assert (await chain.task(task_id)).state is TaskState.MERGING
    assert seen == IntervalSet.span(0, events)
    assert failures > 1
    assert any("too large and was split" in reason for reason in await chain.reasons(task_id))
