"""The database of a production dispatcher: PostgreSQL, shared by any number of replicas."""

from __future__ import annotations

import math
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from hpcpanda.dispatcher.store.database import Contention, newest_version, schema_version, upgrade
from hpcpanda.dispatcher.store.postgres_wire import PostgresWire
from hpcpanda.dispatcher.wire import Wire
from hpcpanda.domain.errors import HpcPandaError, InvalidValue, Unavailable

CONNECTIONS = 10
"""Most connections of one replica that work at the same time; two more carry notes between replicas."""
POOL_SECONDS = 10.0
"""How long a request waits for one of them."""
IDLE_SECONDS = 1.0
"""A connection that was not used for longer is tried before it is: the server may have gone without a word."""
SCHEMA_LOCK = 0x6870637061
"""Advisory lock held by whoever changes the schema."""

_USED = "hpcpanda_used"
"""Where a connection notes when it was last used."""
_DEFAULTS = {
    "application_name": "hpcpanda-dispatcher",
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "target_session_attrs": "read-write",
}
"""A server that is gone without a word is noticed in half a minute; of several hosts the one that takes writes is used."""
_LIMITS = "-c lock_timeout=15s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
"""No transaction waits for ever, and one whose dispatcher is gone holds its locks no longer than this."""

_CONTENDED = {"40001", "40P01", "55P03", "23505"}
"""Serialization failure, deadlock, lock timeout; and a row that another transaction has just inserted."""
_IMPOSSIBLE = {None, "22001", "22003", "22021", "22P05"}
"""A value that no column holds: too long a text, too large a number, a character that cannot be stored. The driver itself
refuses some of these, without a code."""
_NOT_NOW = ("08", "53", "57", "25006")
"""Connection, resources, operator intervention and time-outs; a server that has become a standby."""


class PostgresDatabase:
    """A PostgreSQL database at READ COMMITTED, where whoever changes a task holds its row."""

    shared = True

    def __init__(self, url: str, *, connections: int = CONNECTIONS) -> None:
        """Raises InvalidValue when the address is none."""
        self._conninfo = _conninfo(url)
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
        )
        _try_idle_ones(self._engine)
        self._reader = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    @property
    def name(self) -> str:
        """Where it is and what it is called, without the password."""
        return shown(self._conninfo)

    @property
    def conninfo(self) -> str:
        """How to connect, as libpq understands it; holds the password, if one was given."""
        return self._conninfo

    @property
    def engine(self) -> AsyncEngine:
        """All connections."""
        return self._engine

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may change rows; commits at the end, unless the block raises."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            raise await self._told(error) from error

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one consistent state and changes nothing; it waits for no writer."""
        try:
            async with self._reader.connect() as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            raise await self._told(error) from error

    async def migrate(self) -> None:
        """Bring the schema to the newest version; of several replicas that start, one does it and the others wait.

        Raises:
            Unavailable: the database cannot be used, or is of a newer hpcpanda.
        """
        async with self.write() as connection:
            await connection.run_sync(_upgrade)

    async def time(self) -> float:
        """Unix seconds on the server's clock: replicas whose own clocks differ agree on it."""
        async with self.read() as connection:
            query = text("SELECT extract(epoch FROM clock_timestamp())::float8")
            return float((await connection.execute(query)).scalar_one())

    def wire(self) -> Wire:
        """LISTEN and NOTIFY, on connections of their own."""
        return PostgresWire(self._connect)

    async def check(self) -> None:
        """Raise when the database does not answer."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self._conninfo)

    async def _told(self, error: DBAPIError | PoolTimeout) -> Exception:
        """The error in the product's words; itself when it is a defect of this code."""
        if isinstance(error, PoolTimeout):
            return Unavailable(
                f"all {CONNECTIONS} connections to the database are busy; try again, or run more replicas"
            )
        told = _translated(error, self.name)
        if getattr(error.orig, "sqlstate", None) == "25006":
            await self._engine.dispose()
        return told or error


def _try_idle_ones(engine: AsyncEngine) -> None:
    """Try a connection before it is used, unless it has just been and the server has said nothing since: that would be
    one more round trip a request."""

    @event.listens_for(engine.sync_engine, "checkin")
    def on_checkin(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_USED] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def on_checkout(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        is_fresh = time.monotonic() - record.info.get(_USED, -math.inf) <= IDLE_SECONDS
        try:
            if not is_fresh or _has_spoken(connection):
                engine.dialect.do_ping(connection)
        except psycopg.Error as gone:
            raise InvalidatePoolError from gone


def _has_spoken(connection: DBAPIConnection) -> bool:
    """Whether the server has sent something unasked: mostly, that it ends the connection."""
    driver = connection.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    poll = select.poll()
    poll.register(driver.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def shown(conninfo: str) -> str:
    """An address without its secrets, for messages."""
    words = conninfo_to_dict(conninfo)
    host = words.get("host") or words.get("hostaddr") or "local socket"
    port = f" port {words['port']}" if words.get("port") else ""
    return f"PostgreSQL database {words.get('dbname') or '(default)'} at {host}{port}"


def _conninfo(url: str) -> str:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise InvalidValue(
            "HPCPANDA_DISPATCHER_DATABASE",
            "is no address of a PostgreSQL database; expected postgresql://user@host:port/name",
        ) from None  # the driver's message repeats the address, and the password with it
    options = f"{_LIMITS} {given.pop('options', None) or ''}".strip()
    return make_conninfo("", **{**_DEFAULTS, **given, "options": options})


def _translated(error: DBAPIError, name: str) -> HpcPandaError | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in _CONTENDED:
        return Contention("another request was changing the same rows; try again")
    if isinstance(error, DataError) and state in _IMPOSSIBLE:
        why = str(error.orig).strip().splitlines()[0]
        return InvalidValue("value", f"cannot be stored ({why}); leave it out")
    gone = error.connection_invalidated or (isinstance(error, OperationalError) and state is None)
    if gone or (state or "").startswith(_NOT_NOW):
        lines = str(error.orig).strip().splitlines()
        return Unavailable(f"{name} cannot be used now ({lines[0] if lines else state}); try again later")
    return None


def _upgrade(connection: Connection) -> None:
    if schema_version(connection) == (newest_version(),):
        return
    connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
    upgrade(connection)
