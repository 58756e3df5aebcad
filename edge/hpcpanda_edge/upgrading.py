"""Bring what an edge of an earlier version remembers to the present form."""

from __future__ import annotations

import json
import sqlite3
from typing import Any


def upgrade(connection: sqlite3.Connection, version: int, *, in_memory: bool) -> sqlite3.Connection:
    """Take over a file of an earlier version, as one change; gives the connection to go on with.

    Args:
        connection: to the file.
        version: of the file.
        in_memory: change a copy only, to look at.
    """
    if in_memory:
        copy = sqlite3.connect(":memory:", isolation_level=None)
        connection.backup(copy)
        connection.close()
        connection = copy
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for step in _STEPS[version - 1 :]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {len(_STEPS) + 1}")
    return connection


def _outputs_apart(connection: sqlite3.Connection) -> None:
    """2: a task may have several merged files, each a row; before, the row of the task had the only one."""
    connection.execute("CREATE TABLE outputs (key TEXT PRIMARY KEY, body BLOB NOT NULL)")
    for key, body in connection.execute("SELECT key, body FROM tasks").fetchall():
        task: dict[str, Any] = json.loads(body)
        file, state = task.pop("output", None), task.pop("output_state", None)
        connection.execute("UPDATE tasks SET body = ? WHERE key = ?", (json.dumps(task).encode(), key))
        if file is not None and file["events"]["bounds"]:
            name = repr((task["task_id"], file["events"]["bounds"][0]))
            row = json.dumps({"file": file, "state": state}).encode()
            connection.execute("INSERT INTO outputs VALUES (?, ?)", (name, row))


def _usage_counted(connection: sqlite3.Connection) -> None:
    """3: what is used is counted."""
    for table in ("charges", "usage"):
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, body BLOB NOT NULL)")


def _slices_kept(connection: sqlite3.Connection) -> None:
    """4: leases of jobs that are parts of something are told with what the jobs have to do."""
    connection.execute("CREATE TABLE IF NOT EXISTS slices (key TEXT PRIMARY KEY, body BLOB NOT NULL)")


_STEPS = (_outputs_apart, _usage_counted, _slices_kept)
"""From each version to the next."""
