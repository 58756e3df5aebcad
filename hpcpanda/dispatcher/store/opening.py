"""Open the database that the operator chose."""

from __future__ import annotations

from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase


def open_database(settings: DispatcherSettings) -> Database:
    """The PostgreSQL database of the settings, or the SQLite file in the state folder. Connects to nothing yet.

    Raises:
        InvalidValue: the address is none of a PostgreSQL database.
    """
    if settings.database is None:
        return SqliteDatabase(settings.database_file)
    from hpcpanda.dispatcher.store.postgres import PostgresDatabase

    return PostgresDatabase(settings.database)
