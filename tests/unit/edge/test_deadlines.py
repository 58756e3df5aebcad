"""A task's deadline reaches the planner."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hpcpanda_edge.view import situation
from support.edge import small_site
from support.edge_books import fresh

from hpcpanda.planning.tasks import urgent

DEADLINE = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_task_near_its_deadline_is_urgent(tmp_path: Path) -> None:
    """Not a day before; when no more than an allocation of a minute is left it must not wait for a window."""
    store = fresh(tmp_path / "edge.sqlite", events=100, held=0)
    with store.transaction():
        task = store.tasks[1]
        store.tasks.put(replace(task, spec=replace(task.spec, deadline=DEADLINE)))
    site = small_site(tmp_path, nodes=4, allocations=2)
    found = []
    for before in (86_400, 30):
        s = situation(store, {}, site=site, now=DEADLINE.timestamp() - before)
        found.append(urgent(s, s.tasks[0]))
    assert found == [False, True]
    store.close()
