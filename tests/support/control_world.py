"""Edges, users and time over one database, for tests of what is done to tasks and about failures."""

from __future__ import annotations

from typing import Any

from support.dispatcher import spec

from hpcpanda.dispatcher.doctor import check_accounts
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import get_task, submit_task
from hpcpanda.domain.exchange import (
    Capacity,
    EdgeRegistration,
    LeaseCommit,
    LeaseGrant,
    OutputFile,
    SyncReply,
    SyncRequest,
    TaskFault,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.room import Room
from hpcpanda.domain.task import LossPolicy, TaskSpec
from hpcpanda.domain.task_views import Explanation, Task

TERMS = Terms(lease_seconds=1e6, edge_alive_seconds=1e6)
MEMORY = "the worker used 2100 MiB of memory; the limit is 2000 MiB"
JOB_MEMORY = "used 2100 MiB; the limit is 2000 MiB (job.memory_mb)"
DISK = "OSError: [Errno 116] Stale file handle: '/in/a'"
ROOM = Room(cores=64, memory_mb=10_000, gpus=0, nodes=4, seconds=1e6)


class ControlWorld:
    """Whatever is asked of the dispatcher, at a time that tests set."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = Store(database)
        self.terms = TERMS
        self.now = 1e9
        self.files = 0

    async def register(self, *names: str) -> None:
        for name in names:
            await register_edge(
                self.store.writing(),
                name=name,
                registration=EdgeRegistration(instance=f"{name}-1", cores=8),
                terms=self.terms,
                now=self.now,
            )

    async def submit(self, events: int = 100, *, owner: str = "ada", **fields: Any) -> int:
        return await self._submit(spec(events, **fields), owner)

    async def submit_jobs(self, jobs: int = 4, *, owner: str = "ada", loss: LossPolicy, **job: Any) -> int:
        made = TaskSpec(
            name="jobs",
            payload=JobPayload(command=("true",)),
            output=Output(file="out.zip", format=OutputFormat.ZIP),
            jobs=jobs,
            job=JobRequest(**job),
            loss=loss,
        )
        return await self._submit(made, owner)

    async def _submit(self, made: TaskSpec, owner: str) -> int:
        task = await submit_task(
            self.store.writing(), spec=made, owner=owner, idempotency_key=None, now=self.now
        )
        return task.task_id

    async def acquire(self, edge: str, events: int = 100, **more: Any) -> tuple[LeaseGrant, ...]:
        """What is leased of an offer for so many events of a second each."""
        capacity = Capacity(**{"instance": f"{edge}-1", "cores": events, "seconds": 1.0} | more)
        self.now += 20.0
        grants = await acquire_work(
            self.store.writing(), edge=edge, capacity=capacity, terms=self.terms, now=self.now
        )
        return grants.leases

    async def lease(self, edge: str, task_id: int, events: int = 100, **more: Any) -> LeaseGrant:
        (grant,) = await self.acquire(edge, events, task_id=task_id, **more)
        return grant

    async def sync(self, edge: str, **fields: Any) -> SyncReply:
        reply, _ = await sync_edge(
            self.store.writing(),
            edge=edge,
            request=SyncRequest(instance=f"{edge}-1", **fields),
            terms=self.terms,
            now=self.now,
        )
        return reply

    async def commit(
        self, edge: str, grant: LeaseGrant, done: IntervalSet = EMPTY, **failed: str | int
    ) -> SyncReply:
        """Commit events as done; ``e7="bad"``: event 7 has failed."""
        failures = tuple(FailedEvent(event=int(k[1:]), error=str(v)) for k, v in failed.items())
        seconds = float(len(done))
        update = LeaseCommit(
            task_id=grant.task_id, epoch=grant.epoch, done=done, failed=failures, core_seconds=seconds
        )
        return await self.sync(edge, commits=(update,))

    async def merge(self, edge: str, task_id: int, events: IntervalSet) -> SyncReply:
        """Report a merged file with these events."""
        self.files += 1
        path = f"/out/{self.files}"
        file = OutputFile(task_id=task_id, path=path, manifest=path, events=events, digest="d", size=1)
        return await self.sync(edge, outputs=(file,), tasks=(task_id,))

    async def fault(self, edge: str, task_id: int, error: str) -> SyncReply:
        return await self.sync(edge, faults=(TaskFault(task_id=task_id, error=error),), tasks=(task_id,))

    async def task(self, task_id: int) -> Task:
        return await get_task(self.store.reading(), task_id=task_id, now=self.now)

    async def counts(self, task_id: int) -> tuple[int, int, int, int]:
        """Ready, leased, done, failed."""
        p = (await self.task(task_id)).progress
        return p.ready, p.leased, p.done, p.failed

    async def explain(self, task_id: int) -> Explanation:
        return await explain_task(self.store.reading(), task_id=task_id, terms=self.terms, now=self.now)

    async def check(self) -> None:
        """Every event of every task is in one account."""
        assert await check_accounts(self.database) == []
