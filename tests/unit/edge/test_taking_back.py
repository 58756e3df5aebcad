"""Allocations that are taken back from the queue, and what a missed window does to the next requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import situation
from support.edge import small_site

from hpcpanda.allocation.plan import Drain
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.states import AllocationState
from hpcpanda.domain.why import Why
from hpcpanda.planning.actions import CancelAllocation
from hpcpanda.planning.pointless import WINDOW_PASSED, patience_s

NOW = 1_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "edge.sqlite")
    yield made
    made.close()


def put(store: Store, name: str, **fields: object) -> None:
    """An allocation with a pack of task 1."""
    values = {"state": AllocationState.QUEUED, "created": NOW, "in_window": True} | fields
    pack = PackRecord(pack_id="p1", kind="work", nodes=2, parts=(PartRecord(task_id=1),))
    with store.transaction():
        store.allocations.put(
            AllocationRecord(allocation_id=name, nodes=2, walltime_s=60.0, packs=(pack,), **values)  # type: ignore[arg-type]
        )


def take_back(store: Store, folder: Path, name: str, code: str) -> AllocationRecord:
    steps = Steps(store, Spool(folder), small_site(folder, nodes=4, allocations=2))
    with store.transaction():
        steps.act([CancelAllocation(allocation_id=name, because=Why(code=code, sentence="A test."))], NOW)
    return store.allocations[name]


def windows_not_before(store: Store, folder: Path) -> float:
    site = small_site(folder, nodes=4, allocations=2)
    return situation(store, {}, site=site, now=NOW).windows_not_before


def test_an_allocation_in_the_queue_is_told_to_end_and_is_cancelled_with_the_next_look(
    store: Store, tmp_path: Path
) -> None:
    """Should it start before, it reads that it has to drain; told once only."""
    put(store, "a1")
    for _ in range(2):
        record = take_back(store, tmp_path, "a1", WINDOW_PASSED)
        assert (record.draining, record.missed, record.state) == (True, True, AllocationState.QUEUED)
        assert [type(m.message) for m in map(store.messages.__getitem__, store.messages)] == [Drain]


def test_an_allocation_that_was_never_submitted_is_gone_at_once(store: Store, tmp_path: Path) -> None:
    """Nobody has to be told."""
    put(store, "a1", state=AllocationState.PLANNED)
    assert take_back(store, tmp_path, "a1", "no-work").state is AllocationState.ENDED
    assert not list(store.messages)


def test_windows_missed_one_after_the_other_put_off_the_next_for_longer(store: Store, tmp_path: Path) -> None:
    """30 s after the first, 60 s after the second; one that has started in between makes up for them."""
    assert windows_not_before(store, tmp_path) == 0.0
    patience = patience_s(small_site(tmp_path).scheduler.poll_seconds)
    put(store, "a1", created=NOW - 300, missed=True)
    assert windows_not_before(store, tmp_path) == NOW - 300 + patience + 30
    put(store, "a2", created=NOW - 200, missed=True)
    assert windows_not_before(store, tmp_path) == NOW - 200 + patience + 60
    put(store, "a3", created=NOW - 100, started=NOW - 90, state=AllocationState.RUNNING)
    assert windows_not_before(store, tmp_path) == 0.0


def test_the_planner_is_told_when_allocations_were_asked_for_and_began(store: Store, tmp_path: Path) -> None:
    """So that windows seen before are known to be older."""
    put(store, "a1", created=NOW - 100, started=NOW - 90, state=AllocationState.RUNNING)
    site = small_site(tmp_path, nodes=4, allocations=2)
    (view,) = situation(store, {}, site=site, now=NOW, windows_seen=NOW - 95).allocations
    assert (view.asked, view.since) == (NOW - 100, NOW - 90)
