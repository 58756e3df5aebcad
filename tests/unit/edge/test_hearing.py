"""What heads say of the progress of packs, and what `explain` says of one that makes place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import situation
from support.edge import small_site
from support.edge_books import fresh

from hpcpanda.allocation.plan import AllocationStatus, Drain, PackStatus, TaskProgress
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.states import AllocationState
from hpcpanda.planning.actions import FreeNodes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An allocation that was submitted, with a pack of task 1."""
    store = fresh(tmp_path / "edge.sqlite", held=0)
    pack = PackRecord(pack_id="p1", kind="work", nodes=1, parts=(PartRecord(task_id=1),))
    with store.transaction():
        store.allocations.put(
            AllocationRecord(
                allocation_id="a1",
                nodes=1,
                walltime_s=60.0,
                packs=(pack,),
                created=0.0,
                state=AllocationState.QUEUED,
            )
        )
    yield store
    store.close()


def hear(
    store: Store, folder: Path, now: float, *, state: str = "running", done: int = 0, life: int = 0
) -> None:
    """The head says how the pack is doing."""
    progress = TaskProgress(task_id=1, done=done, waiting=50, backlog_s=5.0)
    said = PackStatus(pack_id="p1", state=state, cores=2, tasks=(progress,))  # type: ignore[arg-type]
    status = AllocationStatus(
        allocation_id="a1",
        state="running",
        head_pid=1,
        host="here",
        written=now,
        inbox_read=0,
        packs=(said,),
        life=life,
    )
    with store.transaction():
        Steps(store, Spool(folder), small_site(folder)).heard(status, now)


def part(store: Store) -> tuple[float | None, float | None]:
    """When the pack began with the task, and when it came to something: as the planner sees it."""
    ((allocation,),) = (situation(store, {}, site=small_site(Path("/spool")), now=100.0).allocations,)
    (seen,) = allocation.packs[0].parts
    return seen.begun, seen.since


def test_the_first_word_of_a_kind_counts(store: Store, tmp_path: Path) -> None:
    """Nothing while the pack starts; its begin, then its first event; later words change neither."""
    hear(store, tmp_path, 10.0, state="starting")
    assert part(store) == (None, None)
    hear(store, tmp_path, 11.0)
    hear(store, tmp_path, 12.0)
    assert part(store) == (11.0, None)
    hear(store, tmp_path, 15.0, done=3)
    hear(store, tmp_path, 16.0, done=9)
    assert part(store) == (11.0, 15.0)


def test_a_head_that_begins_again_begins_anew(store: Store, tmp_path: Path) -> None:
    """After a requeue of its batch job the pack has come to nothing yet."""
    hear(store, tmp_path, 10.0, done=3)
    assert part(store) == (10.0, 10.0)
    hear(store, tmp_path, 50.0, life=1)
    assert part(store) == (50.0, None)


def test_a_pack_that_gives_way_is_told_to_end_in_its_own_time(store: Store, tmp_path: Path) -> None:
    """All that it has begun is finished, and for whom is kept, also when the task is over before."""
    steps = Steps(store, Spool(tmp_path), small_site(tmp_path))
    with store.transaction():
        steps.act([FreeNodes(allocation_id="a1", pack_id="p1", for_task=2)], 10.0)
    pack = store.allocations["a1"].pack("p1")
    assert pack is not None
    assert (pack.draining, pack.gives_way_to) == (True, 2)
    (message,) = [m.message for m in store.messages.values()]
    assert message == Drain(grace_s=60.0, pack_id="p1")
    with store.transaction():
        steps.end_parts(1)
    pack = store.allocations["a1"].pack("p1")
    assert pack is not None
    assert pack.gives_way_to == 2
