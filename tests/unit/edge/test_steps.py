"""Steps of the edge's round: how a pack is judged when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.judging import FRUITLESS_LIMIT
from hpcpanda_edge.merge_work import MERGE_ATTEMPTS
from hpcpanda_edge.records import AllocationRecord, MergeOrder, PackRecord, PartRecord, TaskRecord
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from support.edge import small_site, small_task
from support.edge_books import fresh

from hpcpanda.allocation.director import Director
from hpcpanda.allocation.head_rules import RESTARTS, HeadRules, Launch
from hpcpanda.allocation.messages import Bye
from hpcpanda.allocation.plan import (
    AllocationPlan,
    LeasedEvents,
    MergePack,
    PackStatus,
    TaskProgress,
    TaskWork,
    WorkPack,
)
from hpcpanda.allocation.rank_messages import FromEvents
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.intervals import IntervalSet
from tests.support.job_world import node_room

NOW = 100.0
WORK = TaskWork(task_id=1, spec=small_task(), events=(LeasedEvents(epoch=7, events=IntervalSet.span(0, 10)),))


@dataclass
class Book:
    """An edge's memory in which packs of task 1 end, one after the other."""

    store: Store
    steps: Steps
    packs: int = 0

    def ends(self, status: PackStatus | None, *, kind: str = "work") -> TaskRecord:
        """A pack that held ten events has ended with that as its last word; gives the task afterwards."""
        self.packs += 1
        name = f"a{self.packs}"
        pack = PackRecord(pack_id="p1", kind=kind, nodes=1, parts=(PartRecord(task_id=1),))  # type: ignore[arg-type]
        with self.store.transaction():
            record = AllocationRecord(allocation_id=name, nodes=1, walltime_s=60, packs=(pack,), created=0.0)
            self.store.allocations.put(record)
            if kind == "work":
                accounts.hand_out(self.store, 1, record.holder("p1"), 10)
            else:
                order = MergeOrder(events=IntervalSet.span(0, 10), rest=True)
                self.store.tasks.put(replace(self.store.tasks[1], merge=order))
            released = self.steps.settle(name, "p1", 1, status, NOW, late=False)
        assert released == (10 if kind == "work" else 0)
        return self.store.tasks[1]


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A lease of a hundred events, none of them handed out."""
    store = fresh(tmp_path / "edge.sqlite", held=0)
    yield Book(store, Steps(store, Spool(tmp_path), small_site(tmp_path)))
    store.close()


def head_over(pack: WorkPack | MergePack) -> HeadRules:
    """A head that has started the pack."""
    plan = AllocationPlan(
        allocation_id="a", site=small_site(Path("/spool")), nodes=1, walltime_s=60, packs=(pack,)
    )
    rules = HeadRules(plan, 0.0)
    assert [type(e) for e in rules.tick(0.0)] == [Launch]
    return rules


def killed_at_its_start(pack: WorkPack | MergePack) -> PackStatus:
    """The head's last word of a pack that was killed each time before it could do anything."""
    rules = head_over(pack)
    for number in range(RESTARTS + 1):
        assert not rules.packs["p1"].over
        rules.on_exit("p1", "signal SIGKILL", float(number))
        rules.on_nodes(None, float(number))
    assert rules.packs["p1"].over
    return rules.packs["p1"].status


def killed_while_it_drains(pack: WorkPack | MergePack) -> PackStatus:
    """The same of one that did not outlive its allocation's grace time."""
    rules = head_over(pack)
    rules.drain(1.0, 1.0)
    rules.on_exit("p1", "exit status 9", 2.0)
    return rules.packs["p1"].status


def killed_set_up(pack: WorkPack) -> PackStatus:
    """The last word of a pack whose process that sets the payload up was killed, and whose head was killed then."""
    director = Director(pack, incarnation=0, node=node_room(), deadline=1e6)
    director.begin(0.0)
    bye = Bye(error="the process that sets the payload up was killed by signal SIGKILL", again=True)
    director.from_rank(0, FromEvents(task_id=1, message=bye), 1.0)
    return director.status(1.0)


@pytest.mark.parametrize("killed", [killed_at_its_start, killed_while_it_drains, killed_set_up])
def test_packs_that_were_killed_are_no_fault_of_the_task(
    book: Book, killed: Callable[[WorkPack], PackStatus]
) -> None:
    """However often, and whoever killed: the next try is put off, the reason is kept, and the task goes on."""
    status = killed(WorkPack(pack_id="p1", nodes=1, work=(WORK,)))
    for number in range(1, 2 * FRUITLESS_LIMIT + 1):
        task = book.ends(status)
        assert (task.fault, task.fruitless) == (None, number)
        assert task.not_before > NOW
    assert "SIGKILL" in str(task.error) or "exit status 9" in str(task.error)


def test_a_lost_allocation_is_no_fault_of_the_task(book: Book) -> None:
    """Nothing was heard of its packs, or something unimportant before all was lost."""
    for status in (None, PackStatus(pack_id="p1", state="running")) * FRUITLESS_LIMIT:
        task = book.ends(status)
    assert (task.fault, task.fruitless) == (None, 2 * FRUITLESS_LIMIT)


def test_only_packs_that_ended_by_themselves_are_counted(book: Book) -> None:
    """Five of those are the task's fault, and not one less because others were killed between."""
    killed = killed_at_its_start(WorkPack(pack_id="p1", nodes=1, work=(WORK,)))
    own = PackStatus(
        pack_id="p1", state="ended", tasks=(TaskProgress(task_id=1, state="ended", error="bad results"),)
    )
    for _ in range(FRUITLESS_LIMIT - 1):
        assert book.ends(own).fault is None
        assert book.ends(killed).fault is None
    fault = book.ends(own).fault
    assert fault == f"{FRUITLESS_LIMIT} packs ended without a finished event; the last said: bad results"


def test_progress_makes_up_for_the_packs_before(book: Book) -> None:
    """Counting begins anew when an event was accepted."""
    own = PackStatus(pack_id="p1", state="ended", error="bad results")
    for _ in range(FRUITLESS_LIMIT - 1):
        book.ends(own)
    with book.store.transaction():
        book.steps.accepted(f"a{book.packs}", "p1", 1, 5)
    task = book.ends(own)
    assert (task.fault, task.fruitless) == (None, 1)


def test_a_pack_whose_nodes_are_at_fault_leaves_the_reason_and_no_fault_of_the_task(book: Book) -> None:
    """The next try is put off again and again, with what the nodes complain of; the task is not to blame."""
    status = PackStatus(pack_id="p1", state="ended", complaints=("node 0 gets no jobs: n1: no scratch",))
    for _ in range(FRUITLESS_LIMIT + 1):
        task = book.ends(status)
    assert task.error == "node 0 gets no jobs: n1: no scratch"
    assert (task.fault, task.fruitless) == (None, FRUITLESS_LIMIT + 1)
    assert task.not_before > NOW


@pytest.mark.parametrize("killed", [killed_at_its_start, killed_while_it_drains])
def test_merges_that_were_killed_are_tried_again(
    book: Book, killed: Callable[[MergePack], PackStatus]
) -> None:
    """They are no failed merges; each is put off longer than the one before."""
    pack = MergePack(pack_id="p1", task_id=1, spec=small_task(), accepted=(), output="/out.h5")
    waits = [0.0]
    for _ in range(MERGE_ATTEMPTS + 1):
        task = book.ends(killed(pack), kind="merge")
        assert (task.fault, task.merges_failed) == (None, 0)
        waits.append(task.not_before - NOW)
    assert waits == sorted(set(waits))
    assert "the pack died" in str(task.error)


def test_merges_that_fail_are_the_tasks_fault(book: Book) -> None:
    """What the merge itself says is believed."""
    status = PackStatus(pack_id="p1", state="ended", error="no space left")
    for _ in range(MERGE_ATTEMPTS - 1):
        assert book.ends(status, kind="merge").fault is None
    assert book.ends(status, kind="merge").fault == "the merge failed 3 times: no space left"
