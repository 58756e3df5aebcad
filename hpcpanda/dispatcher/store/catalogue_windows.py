"""Which files hold which events, and which of them are at a site, in the database.

Every query touches as many rows as it gives, whatever the size of the dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.catalogue import clusters_of
from hpcpanda.dispatcher.store.catalogue_tables import dataset_files, replicas
from hpcpanda.domain.inputs import InputFile

PORTION = 1000
"""Files read in one query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFile:
    """A file of a dataset, as those who read it need it."""

    ordinal: int
    first: int
    """Event of the dataset that its first entry is."""
    events: int
    size: int
    checksum: str | None
    clusters: tuple[int, ...]
    path: str | None
    """Of the copy at the site; None when no site was named or none is there."""

    @property
    def last(self) -> int:
        """The event after its last entry."""
        return self.first + self.events

    def as_input(self) -> InputFile:
        """The file as an input. Expects that it has a path."""
        assert self.path is not None, "the file is at the site"
        return InputFile(
            path=self.path,
            events=self.events,
            clusters=self.clusters,
            size=self.size or None,
            checksum=self.checksum,
            first=self.first,
        )


class Place(NamedTuple):
    """Where a file begins and ends in its dataset."""

    first: int
    last: int
    weight: int
    """Characters that its clusters take."""


class DatasetWindows:
    """Parts of datasets."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def files_between(
        self, dataset_id: int, first_ordinal: int, last_ordinal: int, *, site: str | None = None
    ) -> list[WindowFile]:
        """The files with ordinals ``[first_ordinal, last_ordinal)``, with the paths of their copies at a site."""
        t = dataset_files.c
        query = _files(site).where(
            t.dataset_id == dataset_id, t.ordinal >= first_ordinal, t.ordinal < last_ordinal
        )
        return [_window(row) for row in await self._connection.execute(query.order_by(t.ordinal))]

    async def files_covering(
        self, dataset_id: int, first_event: int, last_event: int, *, site: str | None = None
    ) -> list[WindowFile]:
        """The files that hold the events ``[first_event, last_event)``, with the paths of their copies at a site."""
        t = dataset_files.c
        query = _files(site).where(
            t.dataset_id == dataset_id,
            t.first >= _holding(dataset_id, first_event, "first"),
            t.first < last_event,
        )
        return [_window(row) for row in await self._connection.execute(query.order_by(t.first))]

    async def places(
        self, dataset_id: int, site: str, *, first_event: int, limit: int = PORTION
    ) -> list[Place]:
        """Where the next files that are at a site begin and end, in order, from the one that holds an event on."""
        t = dataset_files.c
        columns = (t.first, t.events, func.coalesce(func.length(t.clusters), 0).label("weight"))
        query = _at_site(dataset_id, site, first_event, columns).limit(limit)
        return [Place(r.first, r.first + r.events, r.weight) for r in await self._connection.execute(query)]

    async def at_site(
        self, dataset_id: int, site: str, *, first_event: int, last_event: int
    ) -> list[WindowFile]:
        """Of the files that hold the events ``[first_event, last_event)``, those that are at a site, in order; at most
        ``PORTION``."""
        query = _at_site(dataset_id, site, first_event, (*_COLUMNS, replicas.c.path))
        query = query.where(replicas.c.ordinal <= _holding(dataset_id, last_event - 1, "ordinal"))
        query = query.limit(PORTION)
        return [_window(row) for row in await self._connection.execute(query)]


_COLUMNS = tuple(
    dataset_files.c[name] for name in ("ordinal", "first", "events", "size", "checksum", "clusters")
)


def _files(site: str | None) -> Select[Any]:
    """All columns of files, with the path of the copy at a site."""
    if site is None:
        return select(*_COLUMNS)
    t, r = dataset_files.c, replicas.c
    here = (r.dataset_id == t.dataset_id) & (r.ordinal == t.ordinal) & (r.site == site)
    return select(*_COLUMNS, r.path).join(replicas, here, isouter=True)


def _at_site(
    dataset_id: int, site: str, first_event: int, columns: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    t, r = dataset_files.c, replicas.c
    here = (r.dataset_id == t.dataset_id) & (r.ordinal == t.ordinal)
    start = _holding(dataset_id, first_event, "ordinal")
    query = select(*columns).join_from(replicas, dataset_files, here)
    query = query.where(r.dataset_id == dataset_id, r.site == site, r.ordinal >= start)
    return query.order_by(r.ordinal)


def _holding(dataset_id: int, event: int, column: str) -> ScalarSelect[Any]:
    """A column of the file that holds an event."""
    t = dataset_files.alias("holding").c
    query = select(t[column]).where(t.dataset_id == dataset_id, t.first <= event)
    return query.order_by(t.first.desc()).limit(1).scalar_subquery()


def _window(row: Row[Any]) -> WindowFile:
    return WindowFile(
        ordinal=row.ordinal,
        first=row.first,
        events=row.events,
        size=row.size,
        checksum=row.checksum,
        clusters=clusters_of(row.clusters),
        path=row._mapping.get("path"),
    )
