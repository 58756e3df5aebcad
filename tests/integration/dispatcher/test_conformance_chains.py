"""Chains of tasks over both kinds of database: one reads what another is still writing, every event once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.chaining import RAW, RECO, ChainBench, chain_bench, growing
from support.datasets import DID, file
from support.postgres import postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.chains.growing import grow_tasks, tasks_to_grow
from hpcpanda.dispatcher.retrying import again_on_contention
from hpcpanda.dispatcher.store.accounts import Accounts
from hpcpanda.dispatcher.usecases import outputs as recording
from hpcpanda.dispatcher.usecases.control import pause_task, resume_task
from hpcpanda.dispatcher.usecases.tasks import cancel_task
from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import LeaseCommit
from hpcpanda.domain.inputs import InputFile
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.domain.states import TaskState


@pytest.fixture(params=["sqlite", "postgres"])
async def chain(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChainBench]:
    async with chain_bench(request, tmp_path) as bench:
        yield bench


async def test_a_task_grows_while_another_writes_what_it_reads(chain: ChainBench) -> None:
    """It waits for the first file, runs with what is there, and is complete when the other has ended well."""
    upstream = await chain.generate()
    downstream = await chain.read()
    assert await chain.counts(downstream) == ("pending", 0, 0, 0)
    assert await chain.acquire("a", 10, task_id=downstream) == ()
    await chain.write(upstream)
    assert await chain.grow() == 10
    assert await chain.counts(downstream) == ("ready", 10, 10, 0)
    first = await chain.work(downstream)
    assert first.events == IntervalSet.span(0, 10)
    assert first.spec.inputs is not None
    assert [f.path for f in first.spec.inputs.files] == [f"/a/{upstream}/0.zip"]
    assert await chain.counts(downstream) == ("running", 10, 0, 10)
    await chain.report("a", downstream, first.events, "/a/down/0.zip")
    assert await chain.counts(downstream) == ("running", 10, 0, 10)
    await chain.write(upstream)
    await chain.write(upstream)
    assert await chain.grow() == 20
    assert await chain.counts(downstream) == ("running", 30, 20, 10)
    await chain.write(upstream)
    assert (await chain.task(upstream)).state is TaskState.DONE
    assert not (await chain.dataset(RAW)).open
    second = await chain.work(downstream, 100)
    assert second.events == IntervalSet.span(10, 30)
    assert await chain.grow() == 10
    last = await chain.work(downstream, 100)
    assert await chain.counts(downstream) == ("merging", 40, 0, 40)
    await chain.report("a", downstream, second.events | last.events, "/a/down/10.zip")
    assert await chain.counts(downstream) == ("done", 40, 0, 40)
    assert await tasks_to_grow(chain.store.reading()) == []


async def test_an_end_that_comes_last_settles_the_task(chain: ChainBench) -> None:
    """All its events are done when the dataset is closed: then it is merged, or is done when all is in files."""
    await chain.create(RAW)
    tasks = [await chain.read() for _ in range(2)]
    await chain.add(file(0, "a"), file(1, "a"), did=RAW)
    assert await chain.grow() == 40
    for task_id in tasks:
        grant = await chain.work(task_id, 100)
        assert await chain.counts(task_id) == ("running", 20, 0, 20)
    await chain.report("a", tasks[1], grant.events, "/a/x.zip")
    await chain.close(RAW)
    assert await chain.grow() == 0
    assert [(await chain.task(n)).state for n in tasks] == ["merging", "done"]


async def test_files_that_are_there_are_read_at_once(chain: ChainBench) -> None:
    """A task may come when some files are there, or all: then it does not grow at all."""
    await chain.create(RAW)
    await chain.add(file(0, "a"), did=RAW)
    some = await chain.read()
    assert await chain.counts(some) == ("ready", 10, 10, 0)
    await chain.close(RAW)
    whole = await chain.read()
    assert await chain.grow() == 0
    for task_id in (some, whole):
        await chain.work(task_id, 100)
        assert await chain.counts(task_id) == ("merging", 10, 0, 10)


async def test_nothing_is_taken_in_twice(chain: ChainBench) -> None:
    """A report that is repeated, two dispatchers that look at once, and a look that found what another took in: the events
    of every file are ready once."""
    upstream, downstream = await chain.generate(), await chain.read()
    grant = await chain.work(upstream)
    for _ in range(3):
        await chain.report("a", upstream, grant.events, "/a/raw.zip")
    due = await tasks_to_grow(chain.store.reading())
    assert due == [downstream]

    async def look() -> int:
        return await again_on_contention(
            lambda: grow_tasks(chain.store.writing(), task_ids=due, now=chain.now)
        )

    assert sorted(await asyncio.gather(*(look() for _ in range(4)))) == [0, 0, 0, 10]
    await chain.report("a", upstream, grant.events, "/a/raw.zip")
    assert await chain.grow() == 0
    assert await chain.counts(downstream) == ("ready", 10, 10, 0)
    async with chain.store.reading() as uow:
        assert await uow.ready.all_of(downstream) == IntervalSet.span(0, 10)


@pytest.mark.parametrize("dies", ["before the file is recorded", "after it", "while the task grows"])
async def test_a_dispatcher_that_dies_loses_nothing(
    chain: ChainBench, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    """Whatever it was at: the file is in the dataset when it is recorded, and the task grows when somebody looks."""
    upstream, downstream = await chain.generate(), await chain.read()
    grant = await chain.work(upstream)

    class Killed(Exception):
        pass

    async def killed(*_: object, **__: object) -> None:
        raise Killed

    if dies == "before the file is recorded":
        with monkeypatch.context() as patch:
            patch.setattr(recording, "add_outputs", killed)
            with pytest.raises(Killed):
                await chain.report("a", upstream, grant.events, "/a/raw.zip")
        assert (await chain.dataset(RAW)).files == 0
    await chain.report("a", upstream, grant.events, "/a/raw.zip")
    if dies == "while the task grows":
        with monkeypatch.context() as patch:
            patch.setattr(Accounts, "rewrite", killed)
            with pytest.raises(Killed):
                await chain.grow()
        assert await chain.counts(downstream) == ("pending", 0, 0, 0)
    assert await chain.grow() == 10
    assert await chain.counts(downstream) == ("ready", 10, 10, 0)
    async with chain.store.reading() as uow:
        assert await uow.ready.all_of(downstream) == IntervalSet.span(0, 10)


async def test_events_are_leased_and_grow_at_once(chain: ChainBench) -> None:
    """Files come, events are leased, committed and given back beside each other: every event is done once."""
    await chain.create(RAW)
    downstream = await chain.read()
    done = EMPTY
    total = 12

    async def add() -> None:
        for number in range(total):
            await again_on_contention(lambda n=number: chain.add(file(n, "a", "b", events=7), did=RAW))
        await again_on_contention(lambda: chain.close(RAW))

    async def look() -> None:
        while (await chain.task(downstream)).state not in (TaskState.MERGING, TaskState.DONE):
            await again_on_contention(chain.grow)
            await asyncio.sleep(0)

    async def work(edge: str) -> None:
        nonlocal done
        while (await chain.task(downstream)).state is not TaskState.MERGING:
            for grant in await again_on_contention(lambda: chain.acquire(edge, 5, task_id=downstream)):
                assert not done & grant.events
                done |= grant.events
                await again_on_contention(lambda g=grant: chain.finish(edge, g))
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(add(), look(), work("a"), work("b"))
    assert done == IntervalSet.span(0, 7 * total)
    assert await chain.counts(downstream) == ("merging", 7 * total, 0, 7 * total)


async def test_a_chain_of_three_ends_link_by_link(chain: ChainBench) -> None:
    """The dataset between the second and the third is closed when the second has ended."""
    tasks = [await chain.generate(10), await chain.read(writes=RECO), await chain.read(RECO)]
    for number, task_id in enumerate(tasks):
        assert await chain.counts(task_id) == (("ready", 10, 10, 0) if not number else ("pending", 0, 0, 0))
        if number:
            assert await chain.grow() == 10
        await chain.write(task_id)
    await chain.grow()
    assert [(await chain.task(n)).state for n in tasks] == ["done"] * 3
    assert not (await chain.dataset(RECO)).open


async def test_it_is_said_what_a_task_waits_for(chain: ChainBench) -> None:
    """How much of the dataset it has read, who writes that, and what can be done when nobody does."""
    upstream, downstream = await chain.generate(), await chain.read()
    assert (await chain.reasons(downstream))[:2] == (
        f"It waits for dataset {RAW}: it has no files yet, still open.",
        f"Task {upstream} writes it and is ready.",
    )
    await chain.write(upstream)
    await chain.write(upstream)
    await chain.grow()
    assert (await chain.reasons(downstream))[:2] == (
        f"It waits for dataset {RAW}: 2 of its files used, with 20 events, still open.",
        f"Task {upstream} writes it and is running.",
    )
    await cancel_task(chain.store.writing(), task_id=upstream, caller="ada", now=chain.now)
    close = f"'hpcpanda dataset close {RAW}' lets this one end with what is there"
    assert (await chain.reasons(downstream))[1:3] == (
        f"Task {upstream}, which writes it, is aborted.",
        f"No task writes the dataset any more, and it is not closed: {close}.",
    )
    await chain.create(DID)
    alone = await chain.read(DID)
    assert (await chain.reasons(alone))[1] == "No task writes the dataset: it ends when its owner closes it."


@pytest.mark.parametrize("policy", ["wait", "finish", "fail"])
async def test_the_user_decides_what_becomes_of_it_when_the_other_fails(
    chain: ChainBench, policy: str
) -> None:
    """Nothing that was not written is left out silently: by default the task waits, and ends when the dataset is closed."""
    upstream, downstream = await chain.generate(), await chain.read(if_abandoned=policy)
    await chain.write(upstream)
    await chain.grow()
    await chain.work(downstream, 100)
    await cancel_task(chain.store.writing(), task_id=upstream, caller="ada", now=chain.now)
    await chain.grow()
    task = await chain.task(downstream)
    why = f"task {upstream}, which wrote dataset {RAW}, is aborted, and the dataset is open"
    match policy:
        case "wait":
            assert task.state is TaskState.RUNNING
            await chain.close(RAW)
            await chain.grow()
            assert (await chain.task(downstream)).state is TaskState.MERGING
        case "finish":
            assert task.state is TaskState.MERGING
        case _:
            assert (task.state, task.message) == (TaskState.FAILED, why)
    assert await tasks_to_grow(chain.store.reading()) == []


async def test_it_waits_for_the_last_that_writes(chain: ChainBench) -> None:
    """One of two that has failed is no reason to stop."""
    first, second = await chain.generate(10), await chain.generate(10)
    downstream = await chain.read(if_abandoned="fail")
    await cancel_task(chain.store.writing(), task_id=first, caller="ada", now=chain.now)
    assert await tasks_to_grow(chain.store.reading()) == []
    await chain.write(second)
    assert await chain.grow() == 10
    await chain.work(downstream)
    assert await chain.counts(downstream) == ("merging", 10, 0, 10)


@pytest.mark.parametrize("ends", ["closed", "abandoned"])
async def test_a_dataset_that_never_gets_a_file_fails_the_task(chain: ChainBench, ends: str) -> None:
    """It says why."""
    upstream = await chain.generate()
    downstream = await chain.read(if_abandoned="finish")
    if ends == "closed":
        await chain.close(RAW)
    else:
        await cancel_task(chain.store.writing(), task_id=upstream, caller="ada", now=chain.now)
    await chain.grow()
    task = await chain.task(downstream)
    assert task.state is TaskState.FAILED
    assert str(RAW) in str(task.message)


async def test_a_task_that_waits_can_be_cancelled_and_is_left_alone(chain: ChainBench) -> None:
    """What comes later changes nothing of it."""
    upstream, downstream = await chain.generate(), await chain.read()
    await cancel_task(chain.store.writing(), task_id=downstream, caller="ada", now=chain.now)
    await chain.write(upstream)
    assert await chain.grow() == 0
    assert await chain.counts(downstream) == ("aborted", 0, 0, 0)


@pytest.mark.parametrize("before", ["pending", "running"])
async def test_a_paused_task_grows_but_nothing_of_it_is_leased(chain: ChainBench, before: str) -> None:
    """Resumed, it goes on with all that has come; when the dataset was closed meanwhile it can end."""
    upstream, downstream = await chain.generate(20), await chain.read()
    if before == "running":
        await chain.write(upstream)
        await chain.grow()
        await chain.work(downstream)
    change = {"task_id": downstream, "caller": "ada", "now": chain.now}
    await pause_task(chain.store.writing(), **change)
    await chain.write(upstream, 20)
    assert await chain.grow() == (10 if before == "running" else 20)
    assert await chain.acquire("a", 10, task_id=downstream) == ()
    await chain.grow()
    await resume_task(chain.store.writing(), **change)
    state, total, ready, done = await chain.counts(downstream)
    assert (state, total, ready + done) == ("ready" if before == "pending" else "running", 20, 20)
    await chain.work(downstream, 100)
    assert (await chain.counts(downstream))[0] == "merging"


async def test_failed_events_do_not_end_a_task_that_grows(chain: ChainBench) -> None:
    """More than it may lose do, at once; all of those that were there so far do not, while it may lose them."""
    await chain.create(RAW)
    spec = growing()
    tolerant = (
        await chain.submit(replace(spec, loss=replace(spec.loss, max_failed_events=10, retries=0)))
    ).task_id
    strict = (await chain.submit(replace(spec, loss=replace(spec.loss, retries=0)))).task_id
    await chain.add(file(0, "a", events=4), did=RAW)
    await chain.grow()
    for task_id, state in ((tolerant, "running"), (strict, "failed")):
        (grant,) = await chain.acquire("a", 10, task_id=task_id)
        failed = tuple(FailedEvent(event=n, error="exit status 3", attempts=3) for n in range(4))
        await chain.sync("a", commits=(LeaseCommit(task_id=task_id, epoch=grant.epoch, failed=failed),))
        assert (await chain.task(task_id)).state == state
    await chain.add(file(1, "a"), did=RAW)
    await chain.grow()
    await chain.work(tolerant, 100)
    await chain.close(RAW)
    await chain.grow()
    assert await chain.counts(tolerant) == ("merging", 14, 0, 10)


async def test_no_task_waits_for_itself(chain: ChainBench) -> None:
    """A task that would write, by way of others, what it reads is refused, and those others are named."""
    third = Did("user.ada", "third")
    await chain.generate(did=RAW)
    await chain.read(RAW, writes=RECO)
    await chain.read(RECO, writes=third)
    before = await chain.dataset(RECO)
    for written in (RECO, RAW):
        with pytest.raises(
            InvalidValue, match=f"output.dataset: {written} is what the tasks read that write {third}"
        ):
            await chain.read(third, writes=written)
    with pytest.raises(InvalidValue, match="is what the task reads"):
        await chain.read(third, writes=third)
    assert await chain.dataset(RECO) == before
    await chain.read(third, writes=Did("user.ada", "fourth"))


async def test_two_tasks_that_would_close_a_circle_at_once(chain: ChainBench) -> None:
    """Only one of them is accepted."""
    for did in (RAW, RECO):
        await chain.create(did)

    async def submit(reads: Did, writes: Did) -> int:
        try:
            return await again_on_contention(lambda: chain.read(reads, writes=writes))
        except InvalidValue:
            return 0

    for _ in range(5):
        accepted = [n for n in await asyncio.gather(submit(RAW, RECO), submit(RECO, RAW)) if n]
        assert len(accepted) == 1
        await cancel_task(chain.store.writing(), task_id=accepted[0], caller="ada", now=chain.now)


async def test_growing_is_for_datasets(chain: ChainBench) -> None:
    """Anything else is refused when it is submitted, as are jobs that scouts would have to cut."""
    spec = growing()
    assert spec.inputs is not None
    with pytest.raises(InvalidValue, match=r"inputs\.grows: is for a dataset"):
        replace(spec.inputs, dataset=None, files=(InputFile(path="/f", events=1),))
    jobs = replace(spec, payload=JobPayload(command=("a",)), split=JobSplit(files_per_job=1))
    for refused in ({"scouts": 3}, {"split": JobSplit(max_output_mb=5)}):
        with pytest.raises(InvalidValue, match=r"inputs\.grows: jobs are cut as files come"):
            replace(jobs, **refused)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"\{jobs\} is not known before all files have come"):
        replace(jobs, payload=JobPayload(command=("a", "{jobs}")))
    with pytest.raises(InvalidValue, match=r"inputs\.if_abandoned: is for a dataset that grows"):
        replace(spec.inputs, grows=False, if_abandoned="fail")
    with pytest.raises(InvalidValue, match="there is no dataset"):
        await chain.read()
