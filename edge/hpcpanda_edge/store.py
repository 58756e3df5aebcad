"""The edge's memory: tables in RAM, kept in SQLite, changed in transactions.

Inside ``with store.transaction():`` rows are put and dropped; at its end all of it is on disk, or, after any error,
none of it has happened, neither on disk nor in RAM.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Hashable, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter

from hpcpanda.domain.errors import CorruptData, Unavailable
from hpcpanda.domain.usage import UsageLedger
from hpcpanda_edge.records import (
    AllocationRecord,
    CommitRecord,
    JournalRecord,
    LeaseRecord,
    MessageRecord,
    OutputRecord,
    TaskRecord,
)
from hpcpanda_edge.slice_records import SlicesRecord
from hpcpanda_edge.upgrading import upgrade
from hpcpanda_edge.usage_records import ChargeRecord

VERSION: Final = 4
"""Version of the schema, kept in ``PRAGMA user_version``."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[V]) -> TypeAdapter[V]:
    """How rows of a kind become JSON and come back; it takes a while to make, so once a process."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


class Table(Mapping[K, V], Generic[K, V]):
    """Rows by key. Reads are free; writes belong into a transaction of the store."""

    def __init__(self, name: str, adapter: TypeAdapter[V], key: Callable[[V], K]) -> None:
        self.name = name
        self._adapter = adapter
        self._key = key
        self._rows: dict[K, V] = {}
        self._before: dict[K, V | None] | None = None

    def __getitem__(self, key: K) -> V:
        return self._rows[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def values(self) -> ValuesView[V]:
        """All rows, at the speed of a dictionary: every round goes over them a dozen times."""
        return self._rows.values()

    def put(self, row: V) -> None:
        """Add a row, or exchange the one with the same key."""
        key = self._key(row)
        self._remember(key)
        self._rows[key] = row

    def drop(self, key: K) -> None:
        """Remove a row; harmless when there is none."""
        if key in self._rows:
            self._remember(key)
            del self._rows[key]

    def begin(self) -> None:
        """A transaction of the store begins."""
        assert self._before is None, "transactions do not nest"
        self._before = {}

    @property
    def changed(self) -> bool:
        """Whether the transaction has touched a row."""
        return bool(self._before)

    def save(self, connection: sqlite3.Connection) -> None:
        """Write what has changed."""
        for key in self._before or ():
            row = self._rows.get(key)
            if row is None:
                connection.execute(f"DELETE FROM {self.name} WHERE key = ?", (repr(key),))  # noqa: S608
            else:
                connection.execute(
                    f"INSERT OR REPLACE INTO {self.name} VALUES (?, ?)",  # noqa: S608
                    (repr(key), self._adapter.dump_json(row)),
                )

    def end(self, *, undo: bool) -> None:
        """The transaction is over; with ``undo`` its changes are taken back."""
        before, self._before = self._before or {}, None
        if undo:
            for key, row in before.items():
                if row is None:
                    self._rows.pop(key, None)
                else:
                    self._rows[key] = row

    def load(self, connection: sqlite3.Connection) -> None:
        """Read all rows."""
        rows = connection.execute(f"SELECT body FROM {self.name}")  # noqa: S608
        loaded = (self._adapter.validate_json(body) for (body,) in rows)
        self._rows = {self._key(row): row for row in loaded}

    def _remember(self, key: K) -> None:
        assert self._before is not None, "rows are changed in transactions only"
        self._before.setdefault(key, self._rows.get(key))


class Store:
    """All the edge remembers, in one SQLite file.

    Args:
        path: the file; made when missing.
        read_only: only look, beside a running edge.

    Raises:
        Unavailable: the file cannot be opened.
        CorruptData: the file is of another version of the program, or broken.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.tasks = Table("tasks", _adapter(TaskRecord), lambda r: r.task_id)
        self.leases = Table("leases", _adapter(LeaseRecord), lambda r: r.key)
        self.allocations = Table("allocations", _adapter(AllocationRecord), lambda r: r.allocation_id)
        self.journals = Table("journals", _adapter(JournalRecord), lambda r: r.key)
        self.outputs = Table("outputs", _adapter(OutputRecord), lambda r: r.key)
        self.commits = Table("commits", _adapter(CommitRecord), lambda r: r.number)
        self.messages = Table("messages", _adapter(MessageRecord), lambda r: (r.allocation_id, r.number))
        self.charges = Table("charges", _adapter(ChargeRecord), lambda r: r.allocation_id)
        self.usage = Table("usage", _adapter(UsageLedger), lambda _: "ledger")
        self.slices = Table("slices", _adapter(SlicesRecord), lambda r: r.key)
        self.changes = 0
        """Transactions so far that have changed a row."""
        self.learnt: str | None = None
        """What was learnt of the site, as last kept; of no account for anything else."""
        self._path = path
        try:
            self._connection = self._open(read_only=read_only)
            for table in self._tables:
                table.load(self._connection)
            self.learnt = self._read_learnt()
        except sqlite3.DatabaseError as problem:
            raise Unavailable(f"{path}: {problem}") from problem
        except ValueError as problem:
            raise CorruptData(f"{path}: a row cannot be understood: {problem}") from problem

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes made inside are kept, or none.

        Raises:
            Unavailable: the disk refuses; nothing has changed.
        """
        for table in self._tables:
            table.begin()
        undo = True
        try:
            yield
            if any(table.changed for table in self._tables):
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    for table in self._tables:
                        table.save(self._connection)
                self.changes += 1
            undo = False
        except sqlite3.Error as problem:
            raise Unavailable(f"{self._path}: {problem}; nothing was changed") from problem
        finally:
            for table in self._tables:
                table.end(undo=undo)

    def keep_learnt(self, text: str) -> None:
        """Keep what was learnt in place of what was kept before.

        Raises:
            Unavailable: the disk refuses; nothing has changed.
        """
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("INSERT OR REPLACE INTO learnt VALUES ('site', ?)", (text,))
        except sqlite3.Error as problem:
            raise Unavailable(f"{self._path}: {problem}; nothing was changed") from problem
        self.learnt = text

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def _tables(self) -> tuple[Table[Hashable, object], ...]:
        return (  # type: ignore[return-value]  # a table of any key and row
            self.tasks,
            self.leases,
            self.allocations,
            self.journals,
            self.outputs,
            self.commits,
            self.messages,
            self.charges,
            self.usage,
            self.slices,
        )

    def _read_learnt(self) -> str | None:
        """None when there is none; a file that no edge of this version has opened yet has no table for it."""
        found = self._connection.execute("SELECT name FROM sqlite_master WHERE name = 'learnt'").fetchone()
        row = found and self._connection.execute("SELECT body FROM learnt WHERE key = 'site'").fetchone()
        return row[0] if row and isinstance(row[0], str) else None

    def _open(self, *, read_only: bool) -> sqlite3.Connection:
        if read_only:
            connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)
        else:
            connection = sqlite3.connect(self._path, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA busy_timeout = 5000")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0 and not read_only:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for table in self._tables:
                    connection.execute(
                        f"CREATE TABLE IF NOT EXISTS {table.name} (key TEXT PRIMARY KEY, body BLOB NOT NULL)"
                    )
                connection.execute(f"PRAGMA user_version = {VERSION}")
        elif 0 < version < VERSION:
            connection = upgrade(connection, version, in_memory=read_only)
        elif version != VERSION:
            connection.close()
            raise CorruptData(
                f"{self._path} has format {version}, this program reads {VERSION}; use the version that wrote it, "
                "or let it drain and start with an empty state folder"
            )
        if not read_only:
            connection.execute("CREATE TABLE IF NOT EXISTS learnt (key TEXT PRIMARY KEY, body TEXT NOT NULL)")
        return connection
