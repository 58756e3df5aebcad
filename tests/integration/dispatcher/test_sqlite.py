"""Writers of one SQLite file: turns, shared commits, what is left of those that fail, and others who hold the file."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event, text

from hpcpanda.dispatcher.store import sqlite_driver
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.domain.errors import Unavailable

PATIENCE_S = 60.0


class Notes:
    """A database with one table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = SqliteDatabase(path)
        self.commits = 0
        event.listen(self.database.engine.sync_engine, "connect", self._watch)

    async def make(self) -> None:
        async with self.database.write() as connection:
            await connection.execute(text("CREATE TABLE notes (n INTEGER PRIMARY KEY, said TEXT)"))

    async def add(self, n: int, *, fails: bool = False) -> None:
        async with self.database.write() as connection:
            await connection.execute(text("INSERT INTO notes VALUES (:n, 'x')"), {"n": n})
            if fails:
                raise Undone(n)

    def there(self) -> set[int]:
        """What a process of its own would find in the file."""
        other = sqlite3.connect(self.path)
        try:
            return {n for (n,) in other.execute("SELECT n FROM notes")}
        finally:
            other.close()

    def _watch(self, connection: sqlite3.Connection, _record: object) -> None:
        def note(statement: str) -> None:
            self.commits += statement == "COMMIT"

        connection.set_trace_callback(note)


class Undone(Exception):
    """What a writer that fails raises."""


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[Notes]:
    made = Notes(tmp_path / "db.sqlite")
    await made.make()
    yield made
    await made.database.close()


async def test_writers_at_once_share_commits_and_are_told_when_theirs_is_in_the_file(notes: Notes) -> None:
    """Of 300 writers at once each finds its row in the file when it is told of success, the first who came first;
    they take far fewer commits than there are writers."""
    told: list[int] = []

    async def write(n: int) -> None:
        await notes.add(n)
        if n % 30 == 0:
            assert n in notes.there()
        told.append(n)

    before = notes.commits
    await asyncio.gather(*(write(n) for n in range(300)))
    assert told == list(range(300))
    assert notes.there() == set(range(300))
    assert notes.commits - before < 150


async def test_a_writer_alone_has_a_commit_of_its_own(notes: Notes) -> None:
    """Without others nobody waits for company."""
    before = notes.commits
    for n in range(5):
        await notes.add(n)
        assert n in notes.there()
    assert notes.commits - before == 5


async def test_of_those_who_fail_nothing_stays_and_of_the_others_all(notes: Notes) -> None:
    """One of three writers that share transactions raises, the first and the last among them: exactly theirs is undone."""
    failing = {n for n in range(100) if n % 3 == 0}
    ended = await asyncio.gather(
        *(notes.add(n, fails=n in failing) for n in range(100)), return_exceptions=True
    )
    assert {n for n, problem in enumerate(ended) if isinstance(problem, Undone)} == failing
    assert {n for n, problem in enumerate(ended) if problem is None} == set(range(100)) - failing
    assert notes.there() == set(range(100)) - failing


async def test_a_statement_that_fails_spoils_nobody_elses_work(notes: Notes) -> None:
    """A row that is there already is refused to its writer; those who share the transaction keep theirs."""
    await notes.add(7)
    ended = await asyncio.gather(*(notes.add(n) for n in range(20)), return_exceptions=True)
    assert [n for n, problem in enumerate(ended) if problem is not None] == [7]
    assert notes.there() == set(range(20))


async def test_writers_that_are_given_up_leave_nothing_and_hold_nobody_up(notes: Notes) -> None:
    """Writers are cancelled while they wait and in the middle of their work; the others get their turns."""
    inside = asyncio.Event()

    async def linger() -> None:
        async with notes.database.write() as connection:
            await connection.execute(text("INSERT INTO notes VALUES (1000, 'x')"))
            inside.set()
            await asyncio.Event().wait()

    lingering = asyncio.create_task(linger())
    await inside.wait()
    others = [asyncio.create_task(notes.add(n)) for n in range(60)]
    await asyncio.sleep(0)
    for n in (0, 1, 30, 59):
        others[n].cancel()
    lingering.cancel()
    await asyncio.sleep(0)
    others[2].cancel()  # it has been given the turn, and does not know it yet
    await asyncio.wait_for(asyncio.gather(*others, lingering, return_exceptions=True), PATIENCE_S)
    given_up = {n for n, task in enumerate(others) if task.cancelled()}
    assert given_up >= {0, 1, 30, 59}
    assert set(range(60)) - given_up <= notes.there() <= set(range(60))
    await asyncio.wait_for(notes.add(2000), PATIENCE_S)


async def test_a_file_that_another_process_holds_is_waited_for_without_holding_up_the_loop(
    notes: Notes,
) -> None:
    """While another connection writes, writers wait, and everything else goes on; then they are served."""
    other = sqlite3.connect(notes.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = [asyncio.create_task(notes.add(n)) for n in range(10)]
    for _ in range(20):
        await asyncio.sleep(0.01)
        async with notes.database.read() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM notes"))).scalar_one() == 0
    assert not any(task.done() for task in waiting)
    other.execute("COMMIT")
    await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
    other.close()
    assert notes.there() == set(range(10))


async def test_a_file_that_stays_held_is_said_to_be(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited long enough is told which file is held; later it is served."""
    monkeypatch.setattr(sqlite_driver, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(notes.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match=r"db\.sqlite cannot be used: database is locked"):
        await notes.add(1)
    other.close()
    await notes.add(1)
    assert notes.there() == {1}


FULL = """
import asyncio, resource, sys
from pathlib import Path
from sqlalchemy import text
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.domain.errors import Unavailable

async def main(path):
    database = SqliteDatabase(path)
    told = []

    async def add(n, size):
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO notes VALUES (:n, :said)"), {"n": n, "said": "x" * size})
        told.append(n)

    await add(0, 10)
    written = Path(f"{path}-wal").stat().st_size
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (written + 20_000, most))
    ended = await asyncio.gather(*(add(n, 3000) for n in range(1, 40)), return_exceptions=True)
    assert all(isinstance(problem, Unavailable) for problem in ended if problem), ended
    assert any(ended), "the file was large enough"
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    await add(100, 10)
    await database.close()
    print(*told)

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_when_the_disk_is_full_nobody_is_told_of_success_who_had_none(notes: Notes) -> None:
    """The file cannot grow in the middle of shared transactions: what was told is there and nothing else is; once there
    is room again, writers are served."""
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FULL, str(notes.path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = {int(n) for n in run.stdout.split()}
    assert {0, 100} <= told < {*range(40), 100}
    assert notes.there() == told


async def test_a_statement_that_takes_long_does_not_hold_up_the_loop_again(notes: Notes) -> None:
    """Known to take long, it runs beside everything else; its rows are the same."""
    query = text(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 300000)"
        " SELECT count(*), max(n) FROM numbers"
    )
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async def ask() -> int:
        nonlocal ticks
        async with notes.database.read() as connection:
            ticks = 0
            assert tuple((await connection.execute(query)).one()) == (300000, 300000)
            return ticks

    ticking = asyncio.create_task(tick())
    assert await ask() <= 2
    assert await ask() > 2
    ticking.cancel()


async def test_many_rows_are_written_beside_everything_else(notes: Notes) -> None:
    """A statement with very many rows leaves the loop to others, and all of its rows are written."""
    rows = [{"n": n, "said": "y"} for n in range(50_000)]
    ticks = 0
    async with notes.database.write() as connection:
        work = asyncio.create_task(connection.execute(text("INSERT INTO notes VALUES (:n, :said)"), rows))
        while not work.done():
            await asyncio.sleep(0)
            ticks += 1
        await work
    assert ticks > 2
    assert notes.there() == set(range(50_000))
