"""Routes for users: datasets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from hpcpanda.dispatcher.context import ContextDep, TasksRead, TasksWrite
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.store.codec import MAX_ID
from hpcpanda.dispatcher.usecases.datasets import (
    add_files,
    close_dataset,
    create_dataset,
    get_dataset,
    list_datasets,
    list_files,
)
from hpcpanda.domain.dataset import Added, Dataset, DatasetPage, FilePage, NewDataset, NewFiles
from hpcpanda.domain.did import NAME_PATTERN, SCOPE_PATTERN, Did

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=StrictJsonRoute)

Scope = Annotated[str, Path(pattern=SCOPE_PATTERN)]
Name = Annotated[str, Path(pattern=NAME_PATTERN)]
Filter = Annotated[str | None, Query(max_length=250)]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int | None, Query(ge=0, le=MAX_ID)]


@router.post("", status_code=201)
async def create(new: NewDataset, caller: TasksWrite, context: ContextDep) -> Dataset:
    """Make a dataset. Sent again, it gives the same dataset."""
    return await create_dataset(context.store.writing(), new=new, owner=caller.name, now=context.clock())


@router.get("")
async def list_all(
    _: TasksRead,
    context: ContextDep,
    scope: Filter = None,
    name: Filter = None,
    owner: Filter = None,
    open: bool | None = None,  # noqa: A002, FBT001 - its name in addresses
    limit: Limit = 100,
    after: After = None,
) -> DatasetPage:
    """List datasets, newest first."""
    return await list_datasets(
        context.store.reading(), scope=scope, name=name, owner=owner, is_open=open, limit=limit, after=after
    )


@router.get("/{scope}/{name}")
async def get(scope: Scope, name: Name, _: TasksRead, context: ContextDep) -> Dataset:
    """Look at a dataset: where its files are, and which tasks write it."""
    return await get_dataset(context.store.reading(), did=Did(scope, name))


@router.get("/{scope}/{name}/files")
async def files(
    scope: Scope,
    name: Name,
    _: TasksRead,
    context: ContextDep,
    limit: Limit = 100,
    after: After = None,
) -> FilePage:
    """List the files of a dataset, in order."""
    return await list_files(context.store.reading(), did=Did(scope, name), after=after, limit=limit)


@router.post("/{scope}/{name}/files")
async def add(scope: Scope, name: Name, new: NewFiles, caller: TasksWrite, context: ContextDep) -> Added:
    """Add files, at most 10 000. Sent again, it changes nothing."""
    added = await add_files(
        context.store.writing(), did=Did(scope, name), files=new, caller=caller, now=context.clock()
    )
    context.bell.ring()
    return added


@router.post("/{scope}/{name}/close")
async def close(scope: Scope, name: Name, caller: TasksWrite, context: ContextDep) -> Dataset:
    """Let no more files come."""
    return await close_dataset(
        context.store.writing(), did=Did(scope, name), caller=caller, now=context.clock()
    )
