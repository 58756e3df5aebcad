"""What the planner sees of an allocation that has lost nodes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.view import situation
from support.edge import small_site
from support.edge_books import fresh

from hpcpanda.allocation.plan import AllocationStatus, PackStatus
from hpcpanda.domain.states import AllocationState
from hpcpanda.packing.requests import WorkAtHand
from hpcpanda.planning.requests import ask
from hpcpanda.planning.situation import AllocationView, Situation


def seen(folder: Path, *, left: int | None, pack_left: int | None) -> tuple[Situation, AllocationView]:
    """An allocation of all four nodes with a pack of three; its head tells how many are left."""
    site = small_site(folder / "spool", nodes=4, allocations=2)
    store = fresh(folder / "edge.db")
    record = AllocationRecord(
        allocation_id="a1", nodes=4, walltime_s=60.0, created=1.0, state=AllocationState.RUNNING, life=0,
        packs=(PackRecord(pack_id="p1", kind="work", nodes=3, parts=(PartRecord(task_id=1),)),),
    )  # fmt: skip
    with store.transaction():
        store.allocations.put(replace(record, started=time.time()))
    status = AllocationStatus(
        allocation_id="a1", state="running", head_pid=1, host="n1", written=0.0, inbox_read=0, nodes=left,
        packs=(PackStatus(pack_id="p1", state="running", nodes=pack_left),),
    )  # fmt: skip
    s = situation(store, {"a1": status}, site=site, now=time.time())
    return s, s.allocations[0]


def test_work_is_planned_for_nodes_that_live(tmp_path: Path) -> None:
    """The pack has two nodes left, and the allocation none without a pack; the lost one is not asked for again."""
    s, allocation = seen(tmp_path, left=2, pack_left=2)
    assert (allocation.usable_nodes, allocation.packs[0].nodes, allocation.free_nodes) == (2, 2, 0)
    assert ask(s, WorkAtHand(loose=(), rigid=())).shapes == ()


@pytest.mark.parametrize("left", [None, 0, -3, 4, 99])
def test_a_head_that_does_not_know_changes_nothing(tmp_path: Path, left: int | None) -> None:
    """Neither silence nor nonsense."""
    _, allocation = seen(tmp_path, left=left, pack_left=left)
    assert (allocation.usable_nodes, allocation.free_nodes) == (4, 4 - allocation.packs[0].nodes)
    assert 1 <= allocation.packs[0].nodes <= 3
