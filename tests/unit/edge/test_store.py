"""The edge's memory: all or nothing, and the same after a restart."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from hpcpanda_edge.records import AllocationRecord, JournalRecord, PackRecord, PartRecord, TaskRecord
from hpcpanda_edge.store import VERSION, Store
from support.edge import small_task
from support.edge_books import accept, entries, fresh

from hpcpanda.domain.errors import CorruptData, Unavailable
from hpcpanda.domain.intervals import IntervalSet

TABLES = ("tasks", "leases", "allocations", "journals", "commits", "messages")


def content(store: Store) -> dict[str, dict[object, object]]:
    return {name: dict(getattr(store, name)) for name in TABLES}


def test_a_restart_finds_everything_as_it_was(tmp_path: Path):
    """Leases, ledgers, allocations, journals and the outbox are equal before and after."""
    store = fresh(tmp_path / "edge.sqlite")
    accept(store, entries((0, 5), (10, 12)))
    pack = PackRecord(pack_id="p1", kind="work", nodes=1, parts=(PartRecord(task_id=1),))
    with store.transaction():
        store.allocations.put(
            AllocationRecord(allocation_id="a1", nodes=1, walltime_s=60, packs=(pack,), created=1.5)
        )
    before = content(store)
    store.close()
    again = Store(tmp_path / "edge.sqlite")
    assert content(again) == before
    assert again.leases[1, 7].ledger.done == IntervalSet((0, 5, 10, 12))
    again.close()


def test_an_error_inside_a_transaction_undoes_all_of_it(tmp_path: Path):
    """Neither memory nor disk keeps a part of a step that did not come to its end."""
    store = fresh(tmp_path / "edge.sqlite")
    before = content(store)
    with contextlib.suppress(RuntimeError), store.transaction():
        store.journals.put(JournalRecord(name="a1-p1-i0-r0.journal", task_id=1))
        store.leases.drop((1, 7))
        raise RuntimeError
    assert content(store) == before
    store.close()
    again = Store(tmp_path / "edge.sqlite")
    assert content(again) == before
    again.close()


def test_a_disk_that_refuses_changes_nothing(tmp_path: Path):
    """The error is Unavailable, and the step can be done again later."""
    store = fresh(tmp_path / "edge.sqlite")
    before = content(store)
    other = sqlite3.connect(tmp_path / "edge.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(Unavailable, match="nothing was changed"), store.transaction():
        store.tasks.put(TaskRecord(task_id=2, spec=small_task()))
    assert content(store) == before
    other.execute("ROLLBACK")
    other.close()
    with store.transaction():
        store.tasks.put(TaskRecord(task_id=2, spec=small_task()))
    assert 2 in store.tasks
    store.close()


def test_a_file_of_another_format_is_refused(tmp_path: Path):
    """The error names both formats and says what to do."""
    connection = sqlite3.connect(tmp_path / "edge.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CorruptData, match=f"has format 99, this program reads {VERSION}"):
        Store(tmp_path / "edge.sqlite")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    """The error names the file."""
    (tmp_path / "edge.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable, match=r"edge\.sqlite"):
        Store(tmp_path / "edge.sqlite")


def test_looking_at_it_beside_a_running_edge_sees_what_is_committed(tmp_path: Path):
    """A second, read-only store has the rows, and cannot write."""
    store = fresh(tmp_path / "edge.sqlite")
    look = Store(tmp_path / "edge.sqlite", read_only=True)
    assert content(look) == content(store)
    with pytest.raises(Unavailable), look.transaction():
        look.tasks.drop(1)
    look.close()
    store.close()
