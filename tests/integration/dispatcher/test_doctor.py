"""Backup, restore and doctor over both kinds of database, and from the one to the other."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData, insert, select, text
from support.dispatcher import running_dispatcher, spec
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture
from typer.testing import CliRunner

from hpcpanda.client.cli import app
from hpcpanda.dispatcher.backup import LEAP, restore_backup, write_backup
from hpcpanda.dispatcher.doctor import Finding, check_accounts, examine
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.tables import metadata
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import get_task, submit_task
from hpcpanda.domain.errors import Conflict, CorruptData, HpcPandaError, InvalidValue
from hpcpanda.domain.exchange import Capacity, EdgeRegistration, LeaseCommit, SyncRequest
from hpcpanda.domain.intervals import IntervalSet

NOW = 1e9
TERMS = Terms(lease_seconds=1e6)
KINDS = ("sqlite", "postgres")


class Databases:
    """Makes databases of either kind."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self.made: list[Database] = []

    def new(self, kind: str, *, empty: bool = False) -> Database:
        database: Database
        if kind == "sqlite":
            database = SqliteDatabase(self._folder / f"{len(self.made)}.sqlite")
        else:
            server: PostgresServer = self._request.getfixturevalue("postgres_server")
            database = PostgresDatabase(server.create_database(None if empty else TEMPLATE), connections=2)
        self.made.append(database)
        return database

    async def working(self, kind: str) -> Database:
        """One with a task of which some events are done, some leased, some failed, some ready."""
        database = self.new(kind)
        await database.migrate()
        store = Store(database)
        registration = EdgeRegistration(instance="e-1", cores=8)
        await register_edge(store.writing(), name="e", registration=registration, terms=TERMS, now=NOW)
        await submit_task(
            store.writing(), spec=spec(100, name="sand"), owner="ada", idempotency_key="key", now=NOW
        )
        await lease(database, 30)
        update = LeaseCommit(task_id=1, epoch=1, done=IntervalSet.span(0, 10))
        await sync_edge(
            store.writing(),
            edge="e",
            request=SyncRequest(instance="e-1", commits=(update,)),
            terms=TERMS,
            now=NOW,
        )
        return database


async def lease(database: Database, events: int) -> list[tuple[int, int, IntervalSet]]:
    capacity = Capacity(instance="e-1", cores=events, seconds=1.0)
    grants = await acquire_work(Store(database).writing(), edge="e", capacity=capacity, terms=TERMS, now=NOW)
    return [(grant.task_id, grant.epoch, grant.events) for grant in grants.leases]


@pytest.fixture
async def databases(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Databases]:
    made = Databases(request, tmp_path)
    yield made
    for database in made.made:
        await database.close()


async def rows_of(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    async with database.read() as connection:

        def read(sync) -> dict[str, list[tuple[object, ...]]]:
            there = MetaData()
            there.reflect(sync)
            return {
                table.name: sorted((tuple(row) for row in sync.execute(select(table))), key=str)
                for table in there.sorted_tables
            }

        return await connection.run_sync(read)


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
async def test_a_backup_restored_goes_on_where_it_was(
    databases: Databases, tmp_path: Path, source: str, target: str
) -> None:
    """Every row comes back, to either kind of database; leases of then are committed; numbers given since are never
    given again."""
    before = await databases.working(source)
    told = await write_backup(before, tmp_path / "backup.gz")
    after = databases.new(target, empty=source == "sqlite")
    assert await restore_backup(after, tmp_path / "backup.gz") == told
    there, here = await rows_of(before), await rows_of(after)
    for tables in (there, here):
        tables["tasks"] = [tuple(v for v in row if v not in (2, 2 + LEAP)) for row in tables["tasks"]]
    assert here == there
    assert sum(map(len, there.values())) - 1 == told.rows

    store = Store(after)
    assert (await get_task(store.reading(), task_id=1, now=NOW)).spec.name == "sand"
    update = LeaseCommit(task_id=1, epoch=1, done=IntervalSet.span(0, 20))
    reply, _ = await sync_edge(
        store.writing(),
        edge="e",
        request=SyncRequest(instance="e-1", commits=(update,)),
        terms=TERMS,
        now=NOW,
    )
    assert reply.commits[0].accepted == IntervalSet.span(0, 20)
    assert await lease(after, 5) == [(1, 2 + LEAP, IntervalSet.span(30, 35))]
    new = await submit_task(store.writing(), spec=spec(1), owner="ada", idempotency_key="new", now=NOW)
    assert new.task_id > LEAP
    assert await check_accounts(after) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_backup_is_of_one_moment(databases: Databases, tmp_path: Path, kind: str) -> None:
    """While leases are given and committed all the time, what is backed up holds every event once."""
    database = await databases.working(kind)
    going = True
    cycles = 0

    async def work() -> None:
        nonlocal cycles
        while going:
            store = Store(database)
            task = await submit_task(
                store.writing(), spec=spec(9), owner="ada", idempotency_key=None, now=NOW
            )
            for task_id, epoch, events in await lease(database, 3):
                update = LeaseCommit(task_id=task_id, epoch=epoch, done=events)
                request = SyncRequest(instance="e-1", commits=(update,))
                await sync_edge(store.writing(), edge="e", request=request, terms=TERMS, now=NOW)
            cycles += bool(task)

    working = asyncio.create_task(work())
    for number in range(4):
        at_least = cycles + 2
        while cycles < at_least:
            await asyncio.sleep(0.01)
        await write_backup(database, tmp_path / f"{number}.gz")
        after = databases.new("sqlite")
        await restore_backup(after, tmp_path / f"{number}.gz")
        assert await check_accounts(after) == []
    going = False
    await working
    assert cycles >= 8


@pytest.mark.parametrize("kind", KINDS)
async def test_only_an_empty_database_is_filled(databases: Databases, tmp_path: Path, kind: str) -> None:
    """One with rows is left as it is; so is a file that is there already."""
    database = await databases.working(kind)
    path = tmp_path / "backup.gz"
    await write_backup(database, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Conflict, match="is there already"):
        await write_backup(database, path)
    before = await rows_of(database)
    with pytest.raises(Conflict, match="is not empty: there are rows in"):
        await restore_backup(database, path)
    assert await rows_of(database) == before
    assert sorted(p.name for p in tmp_path.iterdir() if "backup" in p.name) == ["backup.gz"]


def damaged(whole: bytes) -> dict[str, bytes]:
    """A backup, spoilt in several ways."""
    lines = gzip.decompress(whole).splitlines(keepends=True)
    head = json.loads(lines[0])

    def packed(*parts: bytes) -> bytes:
        return gzip.compress(b"".join(parts))

    return {
        "empty": b"",
        "text": b"hello",
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:100] + bytes([whole[100] ^ 255]) + whole[101:],
        "no end": packed(*lines[:-1]),
        "a row less": packed(*(line for line in lines if not line.startswith(b'["e"'))),
        "other JSON": packed(b"[1]\n"),
        "newer": packed(json.dumps({**head, "hpcpanda-backup": 99}).encode() + b"\n", *lines[1:]),
        "later schema": packed(json.dumps({**head, "schema": "9999"}).encode() + b"\n", *lines[1:]),
        "unknown table": packed(lines[0], b'{"table":"robert","columns":["a"]}\n["b"]\n{"end":1}\n'),
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_damaged_backup_changes_nothing(databases: Databases, tmp_path: Path, kind: str) -> None:
    """Cut, flipped, spoilt, of another version: told as such, and the database stays empty."""
    source = await databases.working("sqlite")
    await write_backup(source, tmp_path / "whole.gz")
    target = databases.new(kind, empty=True)
    for name, content in damaged((tmp_path / "whole.gz").read_bytes()).items():
        path = tmp_path / "spoilt.gz"
        path.write_bytes(content)
        with pytest.raises(HpcPandaError) as caught:
            await restore_backup(target, path)
        assert isinstance(caught.value, CorruptData | InvalidValue) or name == "later schema", name
        assert await rows_of(target) == {}, name
    await restore_backup(target, tmp_path / "whole.gz")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_doctor_finds_what_is_wrong(databases: Databases, kind: str) -> None:
    """Each account that is spoilt is told with its task; a sound one is not."""
    database = await databases.working(kind)
    assert await check_accounts(database) == []
    spoils = {
        "UPDATE tasks SET ready = ready + 1": "it counts 71 events ready, and has 70",
        "UPDATE tasks SET leased = leased - 1": "it counts 19 events leased, and has 20",
        "UPDATE tasks SET done = 0": "it counts 0 events done, and has 10",
        "UPDATE leases SET outstanding = '[10,31]'": "events [30, 31) are in two accounts",
        "DELETE FROM ready_ranges": "it counts 100 events all, and has 30",
        "INSERT INTO failed_events (task_id, event, error, attempts) VALUES (1, 3, 'x', 1)": "0 events failed, and has 1",
    }
    for spoil, told in spoils.items():
        async with database.read() as reading:
            rows = {t: (await reading.execute(text(f"SELECT * FROM {t}"))).mappings().all() for t in TOUCHED}
        async with database.write() as connection:
            await connection.execute(text(spoil))
        problems = await check_accounts(database)
        assert any(told in problem and problem.startswith("task 1: ") for problem in problems), (
            spoil,
            problems,
        )
        async with database.write() as connection:
            for table in TOUCHED[1:]:
                await connection.execute(text(f"DELETE FROM {table}"))
                if rows[table]:
                    await connection.execute(
                        insert(metadata.tables[table]), [dict(row) for row in rows[table]]
                    )
            (task,) = rows["tasks"]
            await connection.execute(
                metadata.tables["tasks"].update().values(ready=task.ready, leased=task.leased, done=task.done)
            )
    assert await check_accounts(database) == []


TOUCHED = ("tasks", "leases", "ready_ranges", "failed_events")


async def test_findings_over_postgres(postgres_server: PostgresServer, tmp_path: Path) -> None:  # noqa: F811
    """All is told, the password is not; a server that is unsafe is told as such."""
    url = postgres_server.create_database(TEMPLATE)
    settings = DispatcherSettings(state=tmp_path, database=url, prune_days=3)
    found = {finding.what: finding for finding in await examine(settings)}
    assert [f.what for f in found.values() if not f.fine] == []
    assert set(found) == {"settings", "database", "schema", "clock", "durability", "dispatchers", "accounts"}
    assert "prune_days=3" in found["settings"].says
    told = " ".join(f.says for f in found.values())
    assert "loopback-only" not in told
    assert "loopback-only" not in repr(settings)
    name = url.rpartition("/")[2]
    postgres_server.execute("postgres", f"ALTER DATABASE {name} SET synchronous_commit = off")
    found = {finding.what: finding for finding in await examine(settings)}
    assert not found["durability"].fine
    assert "synchronous_commit is off" in found["durability"].says
    away = DispatcherSettings(state=tmp_path, database="postgresql://u:hidden@127.0.0.1:1/x")
    assert [(f.what, f.fine) for f in await examine(away)] == [("settings", True), ("database", False)]
    assert "hidden" not in str(await examine(away))


async def test_findings_over_sqlite(tmp_path: Path) -> None:
    """No file yet; an empty one; one that is no database."""

    async def look() -> dict[str, Finding]:
        return {finding.what: finding for finding in await examine(DispatcherSettings(state=tmp_path))}

    assert "'hpcpanda dispatcher run' makes it" in (await look())["database"].says
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "dispatcher.sqlite").touch()
    assert not (await look())["schema"].fine
    (tmp_path / "dispatcher.sqlite").write_bytes(os.urandom(8192))
    assert not (await look())["database"].fine


def test_the_commands_work_beside_a_running_dispatcher(tmp_path: Path) -> None:
    """Doctor and backup while it runs; restore into a new state folder, where the task is there again."""
    command = CliRunner()
    with running_dispatcher(tmp_path / "state") as dispatcher, dispatcher.user() as user:
        task_id = user.submit(spec(10)).task_id
        state = ["--state", str(tmp_path / "state")]
        looked = command.invoke(app, ["dispatcher", "doctor", *state])
        assert looked.exit_code == 0, looked.output
        assert "every event of every task is in one account" in looked.output
        made = command.invoke(app, ["dispatcher", "backup", str(tmp_path / "b.gz"), *state, "-o", "json"])
        assert json.loads(made.output)["rows"] > 3
        refused = command.invoke(app, ["dispatcher", "restore", str(tmp_path / "b.gz"), *state])
        assert "another dispatcher is running" in str(refused.exception)
        token = dispatcher.user_token
    filled = command.invoke(
        app, ["dispatcher", "restore", str(tmp_path / "b.gz"), "--state", str(tmp_path / "new")]
    )
    assert filled.exit_code == 0, filled.output
    with running_dispatcher(tmp_path / "new") as again:
        from hpcpanda.client.sdk import DispatcherClient

        with DispatcherClient(again.url, token) as user:
            assert user.task(task_id).progress.ready == 10
    assert command.invoke(app, ["dispatcher", "doctor", "--state", str(tmp_path / "none")]).exit_code == 1
