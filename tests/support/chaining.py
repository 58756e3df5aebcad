"""Chains of tasks through use cases: some write what others read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.datasets import DataBench, reading
from support.postgres import TEMPLATE, PostgresServer

from hpcpanda.dispatcher.chains.growing import grow_tasks, tasks_to_grow
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases.control import retry_task
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.tasks import get_task
from hpcpanda.domain.did import Did
from hpcpanda.domain.exchange import LeaseCommit, LeaseGrant
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.task import LossPolicy, Resources, TaskSpec
from hpcpanda.domain.task_views import Task

RAW, RECO = Did("user.ada", "raw"), Did("user.ada", "reco")


class ChainBench(DataBench):
    """Tasks that write and read datasets, and a dispatcher that looks now and then whether some can grow."""

    async def generate(self, events: int = 40, *, did: Did = RAW, may_lose: int = 0) -> int:
        """A task whose files go into a dataset."""
        spec = TaskSpec(
            name="generate",
            payload=CommandPayload(command=("generate", "{output}")),
            output=Output(file="raw.zip", format=OutputFormat.ZIP, max_events=10, dataset=str(did)),
            events=events,
            resources=Resources(event_seconds=1.0),
            loss=LossPolicy(max_failed_events=may_lose, retries=0),
        )
        return (await self.submit(spec)).task_id

    async def read(self, did: Did = RAW, *, writes: Did | None = None, if_abandoned: str = "wait") -> int:
        """A task that reads a dataset while it grows."""
        return (await self.submit(growing(did, writes=writes, if_abandoned=if_abandoned))).task_id

    async def grow(self) -> int:
        """Look, as a dispatcher does now and then; gives how many events became ready."""
        grown = 0
        while task_ids := await tasks_to_grow(self.store.reading()):
            grown += await grow_tasks(self.store.writing(), task_ids=task_ids, now=self.now)
        return grown

    async def task(self, task_id: int) -> Task:
        return await get_task(self.store.reading(), task_id=task_id, now=self.now)

    async def counts(self, task_id: int) -> tuple[str, int, int, int]:
        task = await self.task(task_id)
        return task.state.value, task.progress.total, task.progress.ready, task.progress.done

    async def work(self, task_id: int, events: int = 10, *, edge: str = "a") -> LeaseGrant:
        """Lease events of a task and finish them."""
        (grant,) = await self.acquire(edge, events, task_id=task_id)
        await self.finish(edge, grant)
        return grant

    async def finish(self, edge: str, grant: LeaseGrant) -> None:
        """Commit all events of a lease, a second each."""
        seconds = float(len(grant.events))
        commit = LeaseCommit(
            task_id=grant.task_id, epoch=grant.epoch, done=grant.events, core_seconds=seconds
        )
        await self.sync(edge, commits=(commit,))

    async def write(self, task_id: int, events: int = 10) -> None:
        """Finish events of a task, and a file of them."""
        grant = await self.work(task_id, events)
        await self.report("a", task_id, grant.events, f"/a/{task_id}/{grant.events.bounds[0]}.zip")

    async def fail(self, task_id: int, events: int = 10) -> None:
        """Lease events of a task, all of which fail."""
        (grant,) = await self.acquire("a", events, task_id=task_id)
        lost = [n for r in grant.events.ranges() for n in range(r.first, r.last)]
        failed = tuple(FailedEvent(event=n, error="exit status 3", attempts=3) for n in lost)
        await self.sync("a", commits=(LeaseCommit(task_id=task_id, epoch=grant.epoch, failed=failed),))

    async def retry(self, task_id: int) -> Task:
        return await retry_task(self.store.writing(), task_id=task_id, caller="ada", now=self.now)

    async def reasons(self, task_id: int) -> Sequence[str]:
        told = await explain_task(self.store.reading(), task_id=task_id, terms=self.terms, now=self.now)
        return told.reasons


def growing(did: Did = RAW, *, writes: Did | None = None, **inputs: object) -> TaskSpec:
    spec = reading(did, writes=writes)
    assert spec.inputs is not None
    return replace(spec, inputs=replace(spec.inputs, grows=True, **inputs))  # type: ignore[arg-type]


@asynccontextmanager
async def chain_bench(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[ChainBench]:
    """A bench over the database that a test has as its parameter: ``sqlite`` or ``postgres``."""
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(folder / "db.sqlite")
        await database.migrate()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=4)
    bench = ChainBench(database)
    await bench.register("a", "b")
    yield bench
    await database.close()
