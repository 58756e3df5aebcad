"""What the dispatcher asks of a database, whichever it is; the adapters are beside this module.

Rules for whoever changes rows are in ``docs/decisions/0008-one-store-two-databases.md``.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hpcpanda.dispatcher.wire import Wire
from hpcpanda.domain.errors import Unavailable


class Contention(Unavailable):
    """Two transactions were in each other's way and this one was undone: it may be tried again at once."""


class Database(Protocol):
    """Transactions over the tables of :mod:`hpcpanda.dispatcher.store.tables`.

    A finished write is on disk: it survives a power cut. While the database does not answer, every method raises
    :class:`Unavailable`; once it answers again they work again.
    """

    @property
    def shared(self) -> bool:
        """Whether several dispatchers may work on it at the same time."""

    @property
    def name(self) -> str:
        """Which database it is, for messages: without passwords."""

    @property
    def engine(self) -> AsyncEngine:
        """The connections that write; for instruments."""

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that may change rows; commits at the end, unless the block raises.

        Raises:
            Contention: it was undone since it met another; the whole of it may be tried again.
            Unavailable: the database does not answer. Whether a commit under way has happened is not known.
        """

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that sees one consistent state and changes nothing; it waits for no writer."""

    async def migrate(self) -> None:
        """Bring the schema to the newest version; does nothing when it is.

        Raises:
            Unavailable: the database cannot be used, or is of a newer hpcpanda.
        """

    async def time(self) -> float:
        """Unix seconds on the one clock that all dispatchers over this database go by."""

    def wire(self) -> Wire:
        """What reaches the other dispatchers over this database."""

    async def check(self) -> None:
        """Raise when the database does not answer."""

    async def close(self) -> None:
        """Close all connections."""


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest version.

    Raises:
        Unavailable: the database was made by a newer hpcpanda.
    """
    migrate_to(connection, "head")


def migrate_to(connection: Connection, version: str, *, afresh: bool = False) -> None:
    """Bring the schema forward to a version.

    Args:
        connection: in a transaction that writes.
        version: the schema's, or "head".
        afresh: undo everything first; all rows are lost.

    Raises:
        Unavailable: this hpcpanda does not know that version, or the one that the database has.
    """
    config = migrations()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()} | {"head"}
    if unknown := {*schema_version(connection), version} - known:
        raise Unavailable(
            f"schema version {', '.join(sorted(unknown))} is not known to this hpcpanda; "
            "use the hpcpanda that made it, or a newer one"
        )
    config.attributes["connection"] = connection
    if afresh:
        command.downgrade(config, "base")
    command.upgrade(config, version)


def schema_version(connection: Connection) -> tuple[str, ...]:
    """The version of the schema; nothing when the database is empty."""
    return MigrationContext.configure(connection).get_current_heads()


def newest_version() -> str:
    """The version of the schema that this code expects."""
    head = ScriptDirectory.from_config(migrations()).get_current_head()
    assert head is not None, "there are migrations"
    return head


def migrations() -> Config:
    """Where Alembic finds the migrations."""
    config = Config()
    config.set_main_option("script_location", "hpcpanda.dispatcher.store:migrations")
    config.set_main_option("path_separator", "os")
    return config
