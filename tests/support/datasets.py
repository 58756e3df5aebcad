"""Datasets, and tasks that read and write them, through use cases over one database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.identity.scopes import BUNDLES, TokenKind
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.datasets import (
    add_files,
    close_dataset,
    create_dataset,
    get_dataset,
    list_files,
)
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import submit_task
from hpcpanda.domain.dataset import Added, Dataset, DatasetFile, NewDataset, NewFiles, PlacedFile, Replica
from hpcpanda.domain.did import Did
from hpcpanda.domain.exchange import (
    Capacity,
    EdgeRegistration,
    LeaseCommit,
    LeaseGrant,
    OutputFile,
    SyncReply,
    SyncRequest,
)
from hpcpanda.domain.inputs import InputFormat, Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.task import Resources, TaskSpec
from hpcpanda.domain.task_views import Task

NOW = 1e9
DID = Did("user.ada", "data.v1")


def principal(name: str, kind: TokenKind = TokenKind.USER) -> Principal:
    return Principal(name=name, scopes=BUNDLES[kind])


def file(number: int, *sites: str, events: int = 10, size: int = 100, **fields: Any) -> DatasetFile:
    """The file ``f<number>``, with copies at sites."""
    copies = tuple(Replica(site=s, path=f"/{s}/f{number}.root") for s in sites)
    return DatasetFile(name=f"f{number}.root", events=events, size=size, replicas=copies, **fields)


def reading(did: Did = DID, *, writes: Did | None = None, **fields: Any) -> TaskSpec:
    """A task whose events are the entries of a dataset."""
    return TaskSpec(
        **{
            "name": "read",
            "payload": CommandPayload(command=("cp", "{input}", "{output}")),
            "output": Output(
                file="out.zip", format=OutputFormat.ZIP, dataset=None if writes is None else str(writes)
            ),
            "inputs": Inputs(format=InputFormat.ROOT, container="t", dataset=str(did)),
            "resources": Resources(event_seconds=1.0),
        }
        | fields
    )


@dataclass
class DataBench:
    """A dispatcher's use cases over a database of their own."""

    database: Database
    terms: Terms = field(default_factory=Terms)
    now: float = NOW

    @property
    def store(self) -> Store:
        return Store(self.database)

    async def register(self, *names: str) -> None:
        for name in names:
            registration = EdgeRegistration(instance=name, cores=8)
            await register_edge(
                self.store.writing(), name=name, registration=registration, terms=self.terms, now=self.now
            )

    async def create(self, did: Did = DID, owner: str = "ada") -> Dataset:
        new = NewDataset(scope=did.scope, name=did.name)
        return await create_dataset(self.store.writing(), new=new, owner=owner, now=self.now)

    async def add(self, *files: DatasetFile, did: Did = DID, caller: Principal | None = None) -> Added:
        return await add_files(
            self.store.writing(),
            did=did,
            files=NewFiles(files=files),
            caller=caller or principal("ada"),
            now=self.now,
        )

    async def close(self, did: Did = DID, caller: Principal | None = None) -> Dataset:
        return await close_dataset(
            self.store.writing(), did=did, caller=caller or principal("ada"), now=self.now
        )

    async def fill(self, *files: DatasetFile, did: Did = DID) -> None:
        """A closed dataset of these files."""
        await self.create(did)
        await self.add(*files, did=did)
        await self.close(did)

    async def dataset(self, did: Did = DID) -> Dataset:
        return await get_dataset(self.store.reading(), did=did)

    async def files(self, did: Did = DID, limit: int = 1000) -> list[PlacedFile]:
        found: list[PlacedFile] = []
        after = None
        while True:
            page = await list_files(self.store.reading(), did=did, after=after, limit=limit)
            found += page.files
            after = page.next_after
            if after is None:
                return found

    async def submit(self, spec: TaskSpec, owner: str = "ada", key: str | None = None) -> Task:
        return await submit_task(
            self.store.writing(), spec=spec, owner=owner, idempotency_key=key, now=self.now
        )

    async def acquire(self, edge: str, events: int = 10, **fields: Any) -> tuple[LeaseGrant, ...]:
        capacity = Capacity(instance=edge, cores=1, seconds=float(events), **fields)
        grants = await acquire_work(
            self.store.writing(), edge=edge, capacity=capacity, terms=self.terms, now=self.now
        )
        return grants.leases

    async def sync(self, edge: str, **said: Any) -> SyncReply:
        request = SyncRequest(instance=edge, **said)
        reply, _ = await sync_edge(
            self.store.writing(), edge=edge, request=request, terms=self.terms, now=self.now
        )
        return reply

    async def finish(self, edge: str, grant: LeaseGrant) -> None:
        """Commit all events of a lease."""
        commit = LeaseCommit(task_id=grant.task_id, epoch=grant.epoch, done=grant.events, core_seconds=1.0)
        await self.sync(edge, commits=(commit,))

    async def report(self, edge: str, task_id: int, events: IntervalSet, path: str) -> SyncReply:
        """Report a merged file."""
        output = OutputFile(
            task_id=task_id,
            path=path,
            manifest=f"{path}.manifest.json",
            events=events,
            digest=f"sha256:{'a' * 64}",
            size=7,
        )
        return await self.sync(edge, outputs=(output,))
