"""Make datasets, add files to them, close and look at them."""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.dispatcher.catalogue.port import Catalogue, Entry
from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.identity.scopes import Scope
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.dataset import (
    Added,
    Dataset,
    DatasetFile,
    DatasetPage,
    FilePage,
    NewDataset,
    NewFiles,
    grow,
)
from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import Conflict, Forbidden, IllegalTransition, NotFound

MAX_WRITERS = 100
"""Most tasks told of that write a dataset."""


async def create_dataset(uow: UnitOfWork, *, new: NewDataset, owner: str, now: float) -> Dataset:
    """Make a dataset, open and empty; one that the owner has made before is left as it is.

    Raises:
        Conflict: there is one of that name, of somebody else or with other facts.
    """
    did = Did(new.scope, new.name)
    async with uow:
        uow.target = f"dataset {did}"
        before = await uow.datasets.find(did)
        if before is None:
            return (await uow.datasets.create(new, owner=owner, now=now)).dataset
        if before.dataset.owner != owner or before.dataset.meta != new.meta:
            raise Conflict(
                f"there is a dataset {did} of {before.dataset.owner} already; use another name, or add to that one"
            )
        return before.dataset


async def add_files(uow: UnitOfWork, *, did: Did, files: NewFiles, caller: Principal, now: float) -> Added:
    """Add files to a dataset, in their order; those that are there stay, and what is told of their copies is noted:
    tasks that read the dataset may run where these are.

    Raises:
        NotFound: there is no such dataset.
        Forbidden: it is somebody else's.
        Conflict: it has another file of the same name.
        IllegalTransition: it is closed, and a file is new.
    """
    async with uow:
        uow.target = f"dataset {did}"
        entry = await existing(uow.datasets, did, hold=True)
        _require_owner(entry, caller)
        added = await append(uow.datasets, entry, files.files, task_id=None, now=now)
        if added.known:
            await uow.data.follow(entry.dataset_id)
        return added


async def append(
    catalogue: Catalogue, entry: Entry, files: tuple[DatasetFile, ...], *, task_id: int | None, now: float
) -> Added:
    """Add files to a dataset that is held; those that are there stay.

    Raises:
        Conflict: it has another file of the same name.
        IllegalTransition: it is closed, and a file is new.
    """
    was = entry.dataset
    did = Did(was.scope, was.name)
    known = await catalogue.known(entry.dataset_id, {file.name for file in files})
    growth = grow(did, files, known, count=was.files, events=was.events)
    if growth.new and not was.open:
        raise IllegalTransition(
            f"dataset {did} is closed, and {growth.new[0].file.name} is not in it; add it to a new dataset"
        )
    dataset = await catalogue.add(entry, growth, task_id=task_id, now=now)
    return Added(added=len(growth.new), known=growth.known, dataset=dataset)


async def close_dataset(uow: UnitOfWork, *, did: Did, caller: Principal, now: float) -> Dataset:
    """Let no more files come; a dataset that is closed is left as it is. One that the end of a task has closed is then not
    opened again either when that task is tried again.

    Raises:
        NotFound: there is no such dataset.
        Forbidden: it is somebody else's.
    """
    async with uow:
        uow.target = f"dataset {did}"
        entry = await existing(uow.datasets, did, hold=True)
        _require_owner(entry, caller)
        if entry.dataset.open or entry.closed_by is not None:
            await uow.datasets.close(entry.dataset_id, by=None, now=now)
            return replace(entry.dataset, open=False, updated=now)
        return entry.dataset


async def get_dataset(uow: UnitOfWork, *, did: Did) -> Dataset:
    """One dataset, with where its files are and which tasks write it.

    Raises:
        NotFound: there is no such dataset.
    """
    async with uow:
        entry = await existing(uow.datasets, did)
        sites = await uow.datasets.sites(entry.dataset_id)
        writers = await uow.datasets.writers(entry.dataset_id, limit=MAX_WRITERS)
    return replace(entry.dataset, sites=sites, provenance=tuple(writers))


async def list_datasets(
    uow: UnitOfWork,
    *,
    scope: str | None,
    name: str | None,
    owner: str | None,
    is_open: bool | None,
    limit: int,
    after: int | None,
) -> DatasetPage:
    """Datasets, newest first."""
    async with uow:
        found = await uow.datasets.page(
            scope=scope, name=name, owner=owner, is_open=is_open, limit=limit + 1, after=after
        )
    page = found[:limit]
    return DatasetPage(
        datasets=tuple(entry.dataset for entry in page),
        next_after=page[-1].dataset_id if len(found) > limit else None,
    )


async def list_files(uow: UnitOfWork, *, did: Did, after: int | None, limit: int) -> FilePage:
    """Files of a dataset, in order.

    Raises:
        NotFound: there is no such dataset.
    """
    async with uow:
        entry = await existing(uow.datasets, did)
        found = await uow.datasets.files(entry.dataset_id, after=after, limit=limit + 1)
    page = tuple(found[:limit])
    return FilePage(files=page, next_after=page[-1].ordinal if len(found) > limit else None)


async def existing(catalogue: Catalogue, did: Did, *, hold: bool = False) -> Entry:
    """A dataset.

    Raises:
        NotFound: there is none of that name.
    """
    entry = await catalogue.find(did, hold=hold)
    if entry is None:
        raise NotFound(f"there is no dataset {did}; 'hpcpanda dataset create' makes one")
    return entry


def _require_owner(entry: Entry, caller: Principal) -> None:
    owner = entry.dataset.owner
    if caller.name != owner and Scope.ADMIN not in caller.scopes:
        raise Forbidden(f"dataset {entry.dataset.did} belongs to {owner}; only its owner may change it")
