"""Tasks of a chain that are tried again, over both kinds of database: what they write is added, and read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from support.chaining import RAW, RECO, ChainBench, chain_bench
from support.datasets import file
from support.postgres import postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.chains.growing import tasks_to_grow
from hpcpanda.dispatcher.retrying import again_on_contention
from hpcpanda.dispatcher.store.database import migrations
from hpcpanda.dispatcher.usecases.tasks import cancel_task
from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import IllegalTransition
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskState


@pytest.fixture(params=["sqlite", "postgres"])
async def chain(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChainBench]:
    async with chain_bench(request, tmp_path) as bench:
        yield bench


async def finished(chain: ChainBench) -> int:
    """A task that has written 30 events into the dataset and lost 10, as it may: the dataset is closed."""
    upstream = await chain.generate(40, may_lose=10)
    for _ in range(3):
        await chain.write(upstream)
    await chain.fail(upstream)
    assert (await chain.task(upstream)).state is TaskState.FINISHED
    assert not (await chain.dataset(RAW)).open
    return upstream


async def test_a_task_that_is_tried_again_goes_on_with_its_dataset(chain: ChainBench) -> None:
    """Its new files come behind those that are there, with where they are from, and the dataset is closed with the task."""
    upstream = await finished(chain)
    before = await chain.files(RAW)
    assert (await chain.retry(upstream)).state is TaskState.RUNNING
    assert (await chain.dataset(RAW)).open
    await chain.write(upstream)
    assert (await chain.task(upstream)).state is TaskState.DONE
    shown, files = await chain.dataset(RAW), await chain.files(RAW)
    assert (shown.open, shown.files, shown.events) == (False, 4, 40)
    assert files[:3] == before
    assert (files[3].first, files[3].file.events, files[3].task_id) == (30, 10, upstream)
    assert [writer.task_id for writer in shown.provenance] == [upstream]


async def test_a_task_at_work_reads_on(chain: ChainBench) -> None:
    """It had seen the end of the dataset: it sees that there is none yet, and is complete only with what comes."""
    upstream, downstream = await finished(chain), await chain.read()
    await chain.grow()
    first = await chain.work(downstream, 20)
    await chain.retry(upstream)
    assert await chain.grow() == 0
    second = await chain.work(downstream, 100)
    assert await chain.counts(downstream) == ("running", 30, 0, 30)
    assert (await chain.reasons(downstream))[:2] == (
        f"It waits for dataset {RAW}: 3 of its files used, with 30 events, still open.",
        f"Task {upstream} writes it and is running.",
    )
    await chain.write(upstream)
    assert await chain.grow() == 10
    third = await chain.work(downstream, 100)
    assert third.events == IntervalSet.span(30, 40)
    assert await chain.counts(downstream) == ("merging", 40, 0, 40)
    await chain.report("a", downstream, first.events | second.events | third.events, "/a/down.zip")
    assert await chain.counts(downstream) == ("done", 40, 0, 40)
    assert await tasks_to_grow(chain.store.reading()) == []


@pytest.mark.parametrize("looks", ["while the dataset is open", "when it is closed again"])
async def test_a_task_that_came_late_reads_on_too(chain: ChainBench, looks: str) -> None:
    """Submitted when the dataset was closed; also if nobody looked as long as it was open."""
    upstream, downstream = await finished(chain), await chain.read()
    await chain.retry(upstream)
    if looks == "while the dataset is open":
        await chain.grow()
    await chain.write(upstream)
    assert await chain.grow() == 10
    assert await chain.counts(downstream) == ("ready", 40, 40, 0)
    await chain.work(downstream, 100)
    assert (await chain.task(downstream)).state is TaskState.MERGING


async def test_a_task_that_has_ended_reads_the_rest_when_it_is_tried_again(chain: ChainBench) -> None:
    """What was being merged is not changed; it is said that there is more; what is in outputs is not done again."""
    upstream = await finished(chain)
    downstream = await chain.read(writes=RECO)
    first = await chain.work(downstream, 100)
    assert (await chain.task(downstream)).state is TaskState.MERGING
    await chain.retry(upstream)
    await chain.write(upstream)
    assert await chain.grow() == 0
    await chain.report("a", downstream, first.events, "/a/down.zip")
    assert await chain.counts(downstream) == ("done", 30, 0, 30)
    assert (await chain.reasons(downstream)) == (
        "All 30 events are in the outputs.",
        f"Since then 10 events came to dataset {RAW}, which it reads: 'hpcpanda task retry {downstream}' reads them, too.",
    )
    assert not (await chain.dataset(RECO)).open
    await chain.retry(downstream)
    assert (await chain.dataset(RECO)).open
    assert await chain.counts(downstream) == ("running", 30, 0, 30)
    assert await chain.grow() == 10
    rest = await chain.work(downstream, 100)
    assert (rest.events, rest.spec.output.file) == (IntervalSet.span(30, 40), "out.try2.zip")
    await chain.report("a", downstream, rest.events, "/a/down.try2.zip")
    assert await chain.counts(downstream) == ("done", 40, 0, 40)
    shown = await chain.dataset(RECO)
    assert (shown.open, shown.files, shown.events) == (False, 2, 40)
    with pytest.raises(IllegalTransition, match="done cannot take 'retry': all of it is in its outputs"):
        await chain.retry(downstream)


async def test_a_task_without_events_is_tried_again_when_some_may_come(chain: ChainBench) -> None:
    """It had failed since the dataset was closed without a file."""
    upstream = await chain.generate(10)
    downstream = await chain.read(if_abandoned="fail")
    await chain.fail(upstream)
    await chain.grow()
    assert (await chain.task(downstream)).state is TaskState.FAILED
    await chain.retry(upstream)
    await chain.retry(downstream)
    await chain.write(upstream)
    assert await chain.grow() == 10
    await chain.work(downstream)
    assert (await chain.task(downstream)).state is TaskState.MERGING


@pytest.mark.parametrize("closes", ["before the task ends", "after it"])
async def test_what_its_owner_has_closed_stays_closed(chain: ChainBench, closes: str) -> None:
    """The files of the second try are outputs of the task all the same."""
    if closes == "after it":
        upstream = await finished(chain)
        await chain.close(RAW)
    else:
        upstream = await chain.generate(40, may_lose=10)
        for _ in range(3):
            await chain.write(upstream)
        await chain.close(RAW)
        await chain.fail(upstream)
    downstream = await chain.read()
    await chain.retry(upstream)
    await chain.write(upstream)
    assert (await chain.task(upstream)).state is TaskState.DONE
    shown = await chain.dataset(RAW)
    assert (shown.open, shown.files) == (False, 3)
    assert await chain.grow() == 0
    assert await chain.counts(downstream) == ("ready", 30, 30, 0)


async def test_a_second_try_that_fails_leaves_the_dataset_open(chain: ChainBench) -> None:
    """A task that reads it waits, as after any failure, and it is said for whom."""
    upstream, downstream = await finished(chain), await chain.read()
    await chain.retry(upstream)
    await chain.grow()
    await cancel_task(chain.store.writing(), task_id=upstream, caller="ada", now=chain.now)
    assert (await chain.dataset(RAW)).open
    await chain.work(downstream, 100)
    assert await chain.grow() == 0
    assert (await chain.task(downstream)).state is TaskState.RUNNING
    assert f"Task {upstream}, which writes it, is aborted." in await chain.reasons(downstream)
    await chain.close(RAW)
    await chain.grow()
    assert (await chain.task(downstream)).state is TaskState.MERGING


async def two_writers(chain: ChainBench, did: Did) -> tuple[int, int]:
    """Two tasks that write a dataset: one has ended with a loss, the other is at work."""
    first, second = await chain.generate(20, did=did, may_lose=10), await chain.generate(10, did=did)
    await chain.write(first)
    await chain.fail(first)
    assert (await chain.dataset(did)).open
    return first, second


async def test_a_dataset_is_closed_with_the_last_try(chain: ChainBench) -> None:
    """One of two tasks that write it is tried again when the other has closed it."""
    first, second = await two_writers(chain, RAW)
    await chain.write(second)
    assert not (await chain.dataset(RAW)).open
    await chain.retry(first)
    assert (await chain.dataset(RAW)).open
    await chain.write(first)
    assert not (await chain.dataset(RAW)).open


async def test_a_task_is_tried_again_while_another_closes_the_dataset(chain: ChainBench) -> None:
    """Whichever comes first, the dataset is open as long as the task is at work."""
    for number in range(5):
        did = Did("user.ada", f"both{number}")
        first, second = await two_writers(chain, did)
        last = await chain.work(second)

        async def end(task: int = second, events: IntervalSet = last.events) -> None:
            await chain.report("a", task, events, f"/a/{task}.zip")

        async def again(task: int = first) -> None:
            await chain.retry(task)

        await asyncio.gather(again_on_contention(end), again_on_contention(again))
        assert (await chain.task(second)).state is TaskState.DONE
        assert (await chain.dataset(did)).open
        await chain.write(first)
        assert not (await chain.dataset(did)).open


async def test_no_second_try_waits_for_itself(chain: ChainBench) -> None:
    """A task that has ended may have become a link of a circle: it is refused, and nothing has changed."""
    await chain.create(RAW)
    await chain.create(RECO)
    await chain.add(file(0, "a"), did=RAW)
    upstream = await chain.generate(10)
    task_id = await chain.read(writes=RECO, if_abandoned="finish")
    await cancel_task(chain.store.writing(), task_id=upstream, caller="ada", now=chain.now)
    await chain.grow()
    await chain.fail(task_id, 100)
    assert (await chain.task(task_id)).state is TaskState.FAILED
    other = await chain.read(RECO, writes=RAW)
    with pytest.raises(IllegalTransition, match="all of them would wait for each other"):
        await chain.retry(task_id)
    assert (await chain.task(task_id)).state is TaskState.FAILED
    await cancel_task(chain.store.writing(), task_id=other, caller="ada", now=chain.now)
    assert (await chain.retry(task_id)).state is TaskState.RUNNING


async def test_chains_go_on_after_an_upgrade(chain: ChainBench) -> None:
    """A task that grows goes on with what comes next, and takes in nothing twice; who had closed a dataset is not known any
    more: it stays closed."""
    upstream, downstream = await chain.generate(20), await chain.read()
    await chain.write(upstream)
    await chain.grow()
    other = Did("user.ada", "other")
    ended = await chain.generate(20, did=other, may_lose=10)
    await chain.write(ended)
    await chain.fail(ended)
    assert not (await chain.dataset(other)).open

    def to(connection: Connection, step: Callable[[Config, str], None], version: str) -> None:
        config = migrations()
        config.attributes["connection"] = connection
        step(config, version)

    async with chain.database.write() as connection:
        await connection.run_sync(to, command.downgrade, "0012")
        await connection.run_sync(to, command.upgrade, "head")
    assert await tasks_to_grow(chain.store.reading()) == []
    await chain.write(upstream)
    assert await chain.grow() == 10
    assert await chain.counts(downstream) == ("ready", 20, 20, 0)
    await chain.retry(ended)
    assert not (await chain.dataset(other)).open
