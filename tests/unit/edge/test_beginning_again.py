"""Another try of a task: what an edge has of the earlier one is void, whatever it was doing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.beginning_again import begin_again
from hpcpanda_edge.merge_work import accepted_events, due_merge, failed_events, outputs_of
from hpcpanda_edge.records import (
    AllocationRecord,
    MergeOrder,
    OutputRecord,
    OutputState,
    PackRecord,
    PartRecord,
)
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from support.edge import small_site, small_task
from support.edge_books import accept, entries, fresh

from hpcpanda.allocation.plan import Revoke
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import Grants, LeaseGrant, OutputFile
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.states import TaskState
from hpcpanda.events.journal import FailedInEpoch

span = IntervalSet.span


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Ten events under epoch 7: four done, one failed, all recorded by the dispatcher; five in the hands of a pack. A file of
    two events is recorded, one of two is not, and a merge is under way."""
    made = fresh(tmp_path / "edge.sqlite", events=10, held=10)
    accept(made, entries((0, 4)), FailedInEpoch(epoch=7, events=(FailedEvent(event=4, error="bad"),)))
    with made.transaction():
        accounts.acknowledge(made, (1, 7), span(0, 5), EMPTY)
        pack = PackRecord(pack_id="p1", kind="work", nodes=1, parts=(PartRecord(task_id=1),))
        made.allocations.put(
            AllocationRecord(
                allocation_id="a1", nodes=1, walltime_s=60, packs=(pack,), created=0.0, native_id="1"
            )
        )
        for first, state in ((0, OutputState.RECORDED), (2, OutputState.MOVED)):
            file = OutputFile(
                task_id=1, path=f"/{first}", manifest="m", events=span(first, first + 2), digest="d", size=1
            )
            made.outputs.put(OutputRecord(file=file, state=state))
        order = MergeOrder(events=span(2, 4), rest=True)
        made.tasks.put(
            replace(made.tasks[1], merge=order, fault="no", merges_failed=2, state=TaskState.FAILED)
        )
    yield made
    made.close()


@pytest.fixture
def steps(store: Store, tmp_path: Path) -> Steps:
    return Steps(store, Spool(tmp_path), small_site(tmp_path))


def test_nothing_of_an_earlier_try_is_merged(store: Store, steps: Steps) -> None:
    """Its leases, journals, files that are not recorded, merges and faults are forgotten, packs are told to stop, and what
    they still write is ignored; the second time nothing happens."""
    for _ in range(2):
        with store.transaction():
            begin_again(store, steps, 1, 8)
        task = store.tasks[1]
        assert (task.state, task.merge, task.fault, task.merges_failed) == (TaskState.RUNNING, None, None, 0)
        assert accounts.leases_of(store, 1) == []
        assert accepted_events(store, 1) == ()
        assert failed_events(store, 1) == EMPTY
        assert [record.state for record in outputs_of(store, 1)] == [OutputState.RECORDED]
        told = [m.message for m in store.messages.values()]
        assert [m for m in told if isinstance(m, Revoke)] == [Revoke(pack_id="p1", task_id=1, epochs=(7,))]
    assert accept(store, entries((5, 9))) == 0


def test_the_new_try_merges_its_own(store: Store, steps: Steps) -> None:
    """Also events that the first had finished; and the events of recorded files, which nobody leases again, are left."""
    grant = LeaseGrant(
        task_id=1, epoch=8, events=span(2, 10), spec=small_task(10), expires_in_s=60.0, first_epoch=8
    )
    with store.transaction():
        begin_again(store, steps, 1, 8)
        accounts.take_grants(store, Grants(leases=(grant,)))
        accounts.hand_out(store, 1, "a1-p1", 10)
    accept(store, entries((2, 10), epoch=8))
    with store.transaction():
        accounts.acknowledge(store, (1, 8), span(2, 10), EMPTY)
        store.tasks.put(replace(store.tasks[1], state=TaskState.MERGING))
    order = due_merge(store, store.tasks[1])
    assert order is not None
    assert (order.events, order.failed) == (span(2, 10), EMPTY)


def test_an_edge_that_begins_with_a_later_try_knows_it(tmp_path: Path, steps: Steps, store: Store) -> None:
    """What it is told again does not make it forget its lease."""
    grant = LeaseGrant(
        task_id=5, epoch=4, events=span(0, 10), spec=small_task(10), expires_in_s=60.0, first_epoch=3
    )
    with store.transaction():
        accounts.take_grants(store, Grants(leases=(grant,)))
        begin_again(store, steps, 5, 3)
    assert [lease.epoch for lease in accounts.leases_of(store, 5)] == [4]
