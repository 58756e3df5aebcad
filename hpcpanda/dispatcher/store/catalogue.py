"""The built-in catalogue: datasets and their files in the dispatcher's own database."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.catalogue.port import Entry
from hpcpanda.dispatcher.store.catalogue_tables import (
    dataset_files,
    dataset_sites,
    dataset_tasks,
    datasets,
    replicas,
)
from hpcpanda.dispatcher.store.chunks import CHUNK, chunks
from hpcpanda.dispatcher.store.upsert import upsert
from hpcpanda.domain.dataset import (
    Dataset,
    DatasetFile,
    Growth,
    NewDataset,
    PlacedFile,
    Provenance,
    Replica,
    SiteShare,
)
from hpcpanda.domain.did import Did

MAX_SITES = 1000
"""Most sites of one dataset that are told."""


class Datasets:
    """Datasets; see :class:`hpcpanda.dispatcher.catalogue.port.Catalogue`."""

    def __init__(self, connection: AsyncConnection, *, holds_rows: bool) -> None:
        self._connection = connection
        self._holds_rows = holds_rows

    async def find(self, did: Did, *, hold: bool = False) -> Entry | None:
        """A dataset, if there is one; ``hold``: nobody else changes it until the transaction ends."""
        query = select(datasets).where(datasets.c.scope == did.scope, datasets.c.name == did.name)
        return await self._one(query, hold=hold)

    async def get(self, dataset_id: int, *, hold: bool = False) -> Entry:
        """The dataset of a number."""
        query = select(datasets).where(datasets.c.dataset_id == dataset_id)
        entry = await self._one(query, hold=hold)
        assert entry is not None, "datasets are never removed"
        return entry

    async def create(self, new: NewDataset, *, owner: str, now: float) -> Entry:
        """Make a dataset, empty and open. Expects that there is none of that name."""
        row = {"scope": new.scope, "name": new.name, "owner": owner, "is_open": True}
        row |= {
            "files": 0,
            "events": 0,
            "size": 0,
            "meta": json.dumps(new.meta),
            "created": now,
            "updated": now,
        }
        result = await self._connection.execute(insert(datasets).values(row))
        key = result.inserted_primary_key
        assert key is not None, "the database numbers datasets"
        entry = await self.find(Did(new.scope, new.name))
        assert entry is not None, "it was just made"
        return entry

    async def page(
        self,
        *,
        scope: str | None,
        name: str | None,
        owner: str | None,
        is_open: bool | None,
        limit: int,
        after: int | None,
    ) -> list[Entry]:
        """Datasets, newest first, of those made before ``after``."""
        t = datasets.c
        query = select(datasets).order_by(t.dataset_id.desc()).limit(limit)
        for column, value in ((t.scope, scope), (t.name, name), (t.owner, owner), (t.is_open, is_open)):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            query = query.where(t.dataset_id < after)
        return [_entry(row) for row in await self._connection.execute(query)]

    async def known(self, dataset_id: int, names: Collection[str]) -> dict[str, PlacedFile]:
        """The files of a dataset that have one of these names, without their copies."""
        t = dataset_files.c
        found: dict[str, PlacedFile] = {}
        for portion in _portions(names):
            query = select(dataset_files).where(t.dataset_id == dataset_id, t.name.in_(portion))
            for row in await self._connection.execute(query):
                found[row.name] = placed_file(row)
        return found

    async def add(self, entry: Entry, growth: Growth, *, task_id: int | None, now: float) -> Dataset:
        """Add files and copies; gives the dataset as it then is. Expects that it is held."""
        dataset_id = entry.dataset_id
        if growth.new:
            rows = [_file_row(dataset_id, placed, task_id) for placed in growth.new]
            await self._connection.execute(insert(dataset_files), rows)
        await self._add_copies(dataset_id, growth, there=entry.dataset.files)
        if not growth.new:
            return entry.dataset
        events = sum(p.file.events for p in growth.new)
        size = sum(p.file.size for p in growth.new)
        was = entry.dataset
        dataset = replace(
            was,
            files=was.files + len(growth.new),
            events=was.events + events,
            size=was.size + size,
            updated=now,
        )
        await self._change(
            dataset_id, files=dataset.files, events=dataset.events, size=dataset.size, updated=now
        )
        return dataset

    async def close(self, dataset_id: int, *, by: int | None, now: float) -> None:
        """No more files come; ``by``: the task whose end closes it, None when its owner does. Expects that it is held."""
        await self._change(dataset_id, is_open=False, closed_by=by, updated=now)

    async def open_again(self, dataset_id: int, *, now: float) -> None:
        """Files may come again. Expects that it is held."""
        await self._change(dataset_id, is_open=True, closed_by=None, updated=now)

    async def files(self, dataset_id: int, *, after: int | None, limit: int) -> Sequence[PlacedFile]:
        """Files in their order, behind the ordinal ``after``, with their copies."""
        t = dataset_files.c
        query = select(dataset_files).where(t.dataset_id == dataset_id).order_by(t.ordinal).limit(limit)
        if after is not None:
            query = query.where(t.ordinal > after)
        rows = (await self._connection.execute(query)).all()
        if not rows:
            return ()
        r = replicas.c
        copies: dict[int, list[Replica]] = defaultdict(list)
        among = select(r.ordinal, r.site, r.path).where(
            r.dataset_id == dataset_id,
            r.site.in_(select(dataset_sites.c.site).where(dataset_sites.c.dataset_id == dataset_id)),
            r.ordinal.between(rows[0].ordinal, rows[-1].ordinal),
        )
        for ordinal, site, path in await self._connection.execute(among.order_by(r.site)):
            copies[ordinal].append(Replica(site=site, path=path))
        return [placed_file(row, tuple(copies[row.ordinal])) for row in rows]

    async def sites(self, dataset_id: int) -> tuple[SiteShare, ...]:
        """How much of a dataset is where, by site."""
        t = dataset_sites.c
        query = (
            select(t.site, t.files, t.size)
            .where(t.dataset_id == dataset_id)
            .order_by(t.site)
            .limit(MAX_SITES)
        )
        rows = await self._connection.execute(query)
        return tuple(SiteShare(site=row.site, files=row.files, size=row.size) for row in rows)

    async def note_writer(self, dataset_id: int, writer: Provenance) -> None:
        """Note that a task writes a dataset."""
        await self._connection.execute(
            insert(dataset_tasks).values(
                dataset_id=dataset_id,
                task_id=writer.task_id,
                spec_digest=writer.spec_digest,
                source=writer.source,
            )
        )

    async def writers(self, dataset_id: int, *, limit: int) -> Sequence[Provenance]:
        """Tasks that write a dataset, newest first."""
        t = dataset_tasks.c
        query = select(t.task_id, t.spec_digest, t.source).where(t.dataset_id == dataset_id)
        rows = await self._connection.execute(query.order_by(t.task_id.desc()).limit(limit))
        return [Provenance(task_id=n, spec_digest=digest, source=source) for n, digest, source in rows]

    async def _one(self, query: Select[Any], *, hold: bool) -> Entry | None:
        if hold and self._holds_rows:
            query = query.with_for_update(key_share=True)
        row = (await self._connection.execute(query)).first()
        return None if row is None else _entry(row)

    async def _change(self, dataset_id: int, **values: object) -> None:
        statement = update(datasets).where(datasets.c.dataset_id == dataset_id).values(values)
        await self._connection.execute(statement)

    async def _add_copies(self, dataset_id: int, growth: Growth, *, there: int) -> None:
        """Write where copies are, of new files and of those that were ``there`` before; the newest path counts."""
        copies = {(p.ordinal, r.site): (p.file.size, r.path) for p in growth.new for r in p.file.replicas}
        copies |= {(ordinal, r.site): (size, r.path) for ordinal, size, r in growth.copies}
        rows = [
            {"dataset_id": dataset_id, "site": site, "ordinal": ordinal, "path": path}
            for (ordinal, site), (_, path) in copies.items()
        ]
        old = await self._copied(dataset_id, {key for key in copies if key[0] < there})
        await upsert(self._connection, replicas, rows, changes=("path",))
        files: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for (ordinal, site), (size, _) in copies.items():
            if (ordinal, site) not in old:
                files[site] += 1
                sizes[site] += size
        totals = [
            {"dataset_id": dataset_id, "site": site, "files": count, "size": sizes[site]}
            for site, count in files.items()
        ]
        await upsert(self._connection, dataset_sites, totals, adds=("files", "size"))

    async def _copied(self, dataset_id: int, keys: Collection[tuple[int, str]]) -> set[tuple[int, str]]:
        """Those of the copies, by ordinal and site, that the catalogue has."""
        r = replicas.c
        found: set[tuple[int, str]] = set()
        ordinals: dict[str, list[int]] = defaultdict(list)
        for ordinal, site in keys:
            ordinals[site].append(ordinal)
        for site, numbers in ordinals.items():
            for portion in chunks(numbers):
                query = select(r.ordinal).where(
                    r.dataset_id == dataset_id, r.site == site, r.ordinal.in_(portion)
                )
                found |= {(ordinal, site) for ordinal in (await self._connection.execute(query)).scalars()}
        return found


def placed_file(row: Row[Any], copies: tuple[Replica, ...] = ()) -> PlacedFile:
    """The file in a row of ``dataset_files``."""
    file = DatasetFile(
        name=row.name,
        events=row.events,
        size=row.size,
        checksum=row.checksum,
        digest=row.digest,
        clusters=clusters_of(row.clusters),
        meta=json.loads(row.meta) if row.meta else {},
        replicas=copies,
    )
    return PlacedFile(ordinal=row.ordinal, first=row.first, file=file, task_id=row.task_id)


def clusters_of(text: str | None) -> tuple[int, ...]:
    """The entry numbers in a column ``clusters``."""
    return tuple(json.loads(text)) if text else ()


def _file_row(dataset_id: int, placed: PlacedFile, task_id: int | None) -> dict[str, object]:
    file = placed.file
    return {
        "dataset_id": dataset_id,
        "ordinal": placed.ordinal,
        "name": file.name,
        "first": placed.first,
        "events": file.events,
        "size": file.size,
        "checksum": file.checksum,
        "digest": file.digest,
        "clusters": json.dumps(file.clusters, separators=(",", ":")) if file.clusters else None,
        "meta": json.dumps(file.meta) if file.meta else None,
        "task_id": task_id,
    }


def _entry(row: Row[Any]) -> Entry:
    dataset = Dataset(
        scope=row.scope,
        name=row.name,
        owner=row.owner,
        open=row.is_open,
        files=row.files,
        events=row.events,
        size=row.size,
        meta=json.loads(row.meta),
        created=row.created,
        updated=row.updated,
    )
    return Entry(dataset_id=row.dataset_id, dataset=dataset, closed_by=row.closed_by)


def _portions(names: Collection[str]) -> Iterator[list[str]]:
    """The names in lists that a statement can carry."""
    it = iter(names)
    while portion := list(islice(it, CHUNK)):
        yield portion
