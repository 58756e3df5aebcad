"""The ledger kept in rows of SQLite, driven in random order with duplicated and late messages."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings
from support.ledger_machine import LedgerMachine

from hpcpanda.dispatcher.store.sqlite import SqliteDatabase


class LedgerInSqlite(LedgerMachine):
    """Over a new file every time."""

    def open_database(self, folder: Path) -> SqliteDatabase:
        return SqliteDatabase(folder / "db.sqlite")


LedgerInSqlite.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedgerInSqlite = LedgerInSqlite.TestCase
