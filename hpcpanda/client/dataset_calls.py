"""Calls of the REST API about datasets, and the methods of both clients that make them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter

from hpcpanda.client.calls import Call
from hpcpanda.domain.dataset import (
    Added,
    Dataset,
    DatasetFile,
    DatasetPage,
    Fact,
    FilePage,
    NewDataset,
    NewFiles,
)
from hpcpanda.domain.did import Did

Answer = TypeVar("Answer")

_JSON = {"Content-Type": "application/json"}
_NEW_DATASET: TypeAdapter[NewDataset] = TypeAdapter(NewDataset)
_NEW_FILES: TypeAdapter[NewFiles] = TypeAdapter(NewFiles)


def create(did: str, meta: dict[str, Fact]) -> Call[Dataset]:
    """Make a dataset."""
    named = Did.parse(did)
    body = _NEW_DATASET.dump_json(NewDataset(scope=named.scope, name=named.name, meta=meta))
    return Call(method="POST", path="/v1/datasets", headers=_JSON, body=body, answer=Dataset)


def add(did: str, files: Sequence[DatasetFile]) -> Call[Added]:
    """Add files to a dataset."""
    body = _NEW_FILES.dump_json(NewFiles(files=tuple(files)))
    return Call(method="POST", path=f"{_path(did)}/files", headers=_JSON, body=body, answer=Added)


def close(did: str) -> Call[Dataset]:
    """Let no more files come."""
    return Call(method="POST", path=f"{_path(did)}/close", answer=Dataset)


def show(did: str) -> Call[Dataset]:
    """Look at a dataset."""
    return Call(method="GET", path=_path(did), answer=Dataset)


def files(did: str, *, after: int | None, limit: int) -> Call[FilePage]:
    """List the files of a dataset."""
    return Call(
        method="GET", path=f"{_path(did)}/files", params=_params(after=after, limit=limit), answer=FilePage
    )


def page(
    *,
    scope: str | None,
    name: str | None,
    owner: str | None,
    is_open: bool | None,
    limit: int,
    after: int | None,
) -> Call[DatasetPage]:
    """List datasets."""
    state = None if is_open is None else str(is_open).lower()
    params = _params(scope=scope, name=name, owner=owner, open=state, limit=limit, after=after)
    return Call(method="GET", path="/v1/datasets", params=params, answer=DatasetPage)


def _path(did: str) -> str:
    named = Did.parse(did)
    return f"/v1/datasets/{quote(named.scope, safe='')}/{quote(named.name, safe='')}"


def _params(**values: str | int | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


class DatasetMethods:
    """What a client for plain code does with datasets; a dataset is named by its ``scope:name``."""

    @abstractmethod
    def _send(self, call: Call[Answer]) -> Answer: ...

    def create_dataset(self, did: str, meta: dict[str, Fact] | None = None) -> Dataset:
        """Make a dataset, open and empty; one that the caller has made before is left as it is.

        Raises:
            InvalidValue: the name is none.
            Conflict: there is one of that name, of somebody else or with other facts.
        """
        return self._send(create(did, meta or {}))

    def add_files(self, did: str, files: Sequence[DatasetFile]) -> Added:
        """Add files, at most 10 000; may be sent again after a lost answer.

        Raises:
            NotFound: there is no such dataset.
            Forbidden: it is somebody else's.
            Conflict: it has another file of the same name.
            IllegalTransition: it is closed, and a file is new.
        """
        return self._send(add(did, files))

    def close_dataset(self, did: str) -> Dataset:
        """Let no more files come. Raises NotFound when there is none, Forbidden when it is somebody else's."""
        return self._send(close(did))

    def dataset(self, did: str) -> Dataset:
        """A dataset, with where its files are and which tasks write it. Raises NotFound when there is none."""
        return self._send(show(did))

    def dataset_files(self, did: str, *, after: int | None = None, limit: int = 100) -> FilePage:
        """One page of a dataset's files, in order. Raises NotFound when there is no such dataset."""
        return self._send(files(did, after=after, limit=limit))

    def datasets(
        self,
        *,
        scope: str | None = None,
        name: str | None = None,
        owner: str | None = None,
        is_open: bool | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> DatasetPage:
        """One page of datasets, newest first; pass ``next_after`` of a page as ``after`` for the next."""
        return self._send(
            page(scope=scope, name=name, owner=owner, is_open=is_open, limit=limit, after=after)
        )


class AsyncDatasetMethods:
    """The same for asyncio; arguments and errors are those of :class:`DatasetMethods`."""

    @abstractmethod
    async def _send(self, call: Call[Answer]) -> Answer: ...

    async def create_dataset(self, did: str, meta: dict[str, Fact] | None = None) -> Dataset:
        """Make a dataset, open and empty."""
        return await self._send(create(did, meta or {}))

    async def add_files(self, did: str, files: Sequence[DatasetFile]) -> Added:
        """Add files, at most 10 000; may be sent again after a lost answer."""
        return await self._send(add(did, files))

    async def close_dataset(self, did: str) -> Dataset:
        """Let no more files come."""
        return await self._send(close(did))

    async def dataset(self, did: str) -> Dataset:
        """A dataset, with where its files are and which tasks write it."""
        return await self._send(show(did))

    async def dataset_files(self, did: str, *, after: int | None = None, limit: int = 100) -> FilePage:
        """One page of a dataset's files, in order."""
        return await self._send(files(did, after=after, limit=limit))
