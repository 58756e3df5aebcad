"""A dispatcher's use cases over a database of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hpcpanda.brokerage.shares import SharePlan, ShareTree
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import submit_task
from hpcpanda.domain.exchange import Capacity, EdgeRegistration, Grants, LeaseCommit, SyncReply, SyncRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.task import Resources, TaskSpec
from hpcpanda.domain.task_views import Explanation


class World:
    """Edges and users over one database, at a time that tests set."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.database = database
        self.store = Store(database)
        self.terms = Terms(edge_alive_seconds=1e9, lease_seconds=1e6)
        self.now = 1e9

    def share(self, plan: SharePlan) -> None:
        self.terms = Terms(edge_alive_seconds=1e9, lease_seconds=1e6, tree=ShareTree(plan))

    async def edge(self, name: str, **fields: Any) -> None:
        registration = EdgeRegistration(instance=name, cores=8, **fields)
        await register_edge(
            self.store.writing(), name=name, registration=registration, terms=self.terms, now=self.now
        )

    async def submit(
        self, events: int = 1000, *, owner: str = "ada", seconds: float = 1.0, **fields: Any
    ) -> int:
        spec = TaskSpec(
            name="t",
            payload=CommandPayload(command=("a", "{output}")),
            output=Output(file="o.zip", format=OutputFormat.ZIP),
            events=events,
            resources=Resources(event_seconds=seconds),
            **fields,
        )
        task = await submit_task(
            self.store.writing(), spec=spec, owner=owner, idempotency_key=None, now=self.now
        )
        return task.task_id

    async def grants(self, edge: str = "e", cores: int = 1, seconds: float = 10.0, **more: Any) -> Grants:
        capacity = Capacity(instance=edge, cores=cores, seconds=seconds, **more)
        return await acquire_work(
            self.store.writing(), edge=edge, capacity=capacity, terms=self.terms, now=self.now
        )

    async def ask(
        self, edge: str = "e", cores: int = 1, seconds: float = 10.0, **more: Any
    ) -> list[tuple[int, int]]:
        """Tasks of which something is leased, with how much."""
        found = await self.grants(edge, cores, seconds, **more)
        return [(grant.task_id, len(grant.events)) for grant in found.leases]

    async def sync(self, edge: str = "e", **fields: Any) -> SyncReply:
        request = SyncRequest(instance=edge, **fields)
        reply, _ = await sync_edge(
            self.store.writing(), edge=edge, request=request, terms=self.terms, now=self.now
        )
        return reply

    async def work(self, edge: str = "e", cores: int = 1, seconds: float = 10.0) -> dict[int, int]:
        """Ask, and finish what was leased in as many core-seconds as events; gives events by task."""
        found = await self.grants(edge, cores, seconds)
        commits = tuple(
            LeaseCommit(task_id=g.task_id, epoch=g.epoch, done=g.events, core_seconds=float(len(g.events)))
            for g in found.leases
        )
        await self.sync(edge, commits=commits)
        return {grant.task_id: len(grant.events) for grant in found.leases}

    async def explain(self, task_id: int) -> Explanation:
        return await explain_task(self.store.reading(), task_id=task_id, terms=self.terms, now=self.now)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    await database.migrate()
    made = World(database)
    await made.edge("e")
    yield made
    await database.close()
