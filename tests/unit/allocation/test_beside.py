"""A merge without a node of its own starts beside packs that have them all, and takes none from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcpanda.allocation.head_rules import HeadRules, Launch
from hpcpanda.allocation.plan import (
    AllocationPlan,
    Drain,
    LeasedEvents,
    MergePack,
    PackStatus,
    StartPack,
    TaskWork,
    WorkPack,
)
from hpcpanda.domain.intervals import IntervalSet
from tests.support.edge import small_site, small_task

WORK = TaskWork(task_id=1, spec=small_task(), events=(LeasedEvents(epoch=7, events=IntervalSet.span(0, 10)),))


def merge(nodes: int) -> MergePack:
    return MergePack(pack_id="m", task_id=1, spec=small_task(), accepted=(), output="/out.h5", nodes=nodes)


@pytest.mark.parametrize("nodes", [0, 1])
def test_a_merge_without_nodes_starts_where_all_are_taken(nodes: int) -> None:
    """One with a node waits until one is free."""
    work = WorkPack(pack_id="p1", nodes=2, work=(WORK,))
    plan = AllocationPlan(
        allocation_id="a", site=small_site(Path("/spool")), nodes=2, walltime_s=60, packs=(work,)
    )
    rules = HeadRules(plan, 0.0)
    assert [e.pack for e in rules.tick(0.0) if isinstance(e, Launch)] == [work]
    effects = [*rules.on_message(StartPack(pack=merge(nodes)), 1.0), *rules.tick(1.0)]
    assert [e.pack for e in effects if isinstance(e, Launch)] == ([merge(0)] if not nodes else [])
    rules.on_report(PackStatus(pack_id="p1", state="ended"), 2.0)
    effects = [*rules.on_exit("p1", "exit status 0", 2.0), *rules.tick(2.0)]
    assert [e.pack for e in effects if isinstance(e, Launch)] == ([merge(1)] if nodes else [])


def test_a_merge_without_nodes_does_not_wait_behind_a_pack_that_needs_some() -> None:
    """A pack that is to have the nodes of one that ends may wait for long; it still comes next when they are free."""
    work = WorkPack(pack_id="p1", nodes=2, work=(WORK,))
    urgent = WorkPack(pack_id="p2", nodes=1, work=(WORK,))
    plan = AllocationPlan(
        allocation_id="a", site=small_site(Path("/spool")), nodes=2, walltime_s=60, packs=(work,)
    )
    rules = HeadRules(plan, 0.0)
    rules.tick(0.0)
    rules.on_message(StartPack(pack=urgent), 1.0)
    rules.on_message(Drain(grace_s=60.0, pack_id="p1"), 1.0)
    rules.on_message(StartPack(pack=merge(0)), 1.0)
    assert [e.pack for e in rules.tick(1.0) if isinstance(e, Launch)] == [merge(0)]
    rules.on_report(PackStatus(pack_id="p1", state="ended"), 2.0)
    assert [e.pack for e in rules.on_exit("p1", "exit status 0", 2.0) if isinstance(e, Launch)] == [urgent]
