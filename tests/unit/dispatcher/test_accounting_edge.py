"""What an edge counts as used: all of it, once, whatever it and its allocations suffer."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.store import Store
from hpcpanda_edge.usage import UsageKeeper, answered, earn, ledger_of
from support.edge import small_site

from hpcpanda.allocation.plan import AllocationStatus, PackStatus, TaskProgress
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import CommitResult, LeaseCommit
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.states import AllocationState
from hpcpanda.domain.usage import Amounts, UsageReport

BEGAN = 1e9
"""When edges begin to count here."""


class Rig:
    """An edge's memory with one allocation of 2 nodes of 2 cores, and a dispatcher that counts each number once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder)
        self.site = small_site(folder)
        self.told: dict[int, Amounts] = {}
        self.sequence = 0
        self.status: AllocationStatus | None = None
        self.open()

    def open(self) -> None:
        """A new process; what was only in the memory of the one before is gone."""
        self.store = Store(self.folder / "edge.sqlite")
        self.keeper = UsageKeeper(self.store, self.spool, self.site, BEGAN)

    def crash(self) -> None:
        self.store.close()
        self.open()

    def put(self, **fields: object) -> None:
        """Change the allocation; made when there is none."""
        parts = tuple(PartRecord(task_id=t) for t in (1, 2))
        made = AllocationRecord(
            allocation_id="a1", nodes=2, walltime_s=1000.0, created=BEGAN + 10,
            packs=(PackRecord(pack_id="p1", kind="work", nodes=2, parts=parts),),
        )  # fmt: skip
        with self.store.transaction():
            known = self.store.allocations.get("a1", made)
            self.store.allocations.put(replace(known, **fields))  # type: ignore[arg-type]

    def hear(
        self, at: float, busy_s: float, *, cores: tuple[float, float] = (3.0, 1.0), **fields: object
    ) -> None:
        """The head has said how many cores worked for the two tasks, and what that comes to in all."""
        tasks = tuple(TaskProgress(task_id=t, cores_busy=n) for t, n in enumerate(cores, 1))
        pack = PackStatus(pack_id="p1", state="running", tasks=tasks)
        made = AllocationStatus(
            allocation_id="a1", state="running", head_pid=1, host="h", written=BEGAN + at, inbox_read=0,
            packs=(pack,), life=0, busy_s=busy_s,
        )  # fmt: skip
        self.status = replace(made, **fields)  # type: ignore[arg-type]
        self.keeper.look({"a1": self.status})

    def count(self) -> None:
        self.keeper.count({} if self.status is None else {"a1": self.status}, at_once=True)

    def tell(self, *, answer: bool = True) -> None:
        """Send what there is to say; the dispatcher counts it, and its answer may be lost."""
        ledger = ledger_of(self.store)
        report: UsageReport | None = ledger.report if ledger is not None else None
        if report is None:
            return
        if report.sequence > self.sequence:
            self.sequence = report.sequence
            for use in report.tasks:
                self.told[use.task_id] = self.told.get(use.task_id, Amounts()).plus(use.amounts)
        if answer:
            with self.store.transaction():
                answered(self.store, (), report.sequence)

    def all_told(self) -> dict[int, Amounts]:
        """All that was ever counted."""
        while not self.keeper.all_said:
            self.count()
            self.tell()
        return self.told

    def end(self) -> None:
        self.put(state=AllocationState.CLOSED)
        self.count()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_an_allocation_is_divided_as_its_cores_worked(rig: Rig) -> None:
    """Nodes x time is charged to the tasks as cores worked for them; waiting is theirs in equal parts."""
    rig.put(state=AllocationState.RUNNING, started=BEGAN + 40, life=0)
    rig.hear(50, 0.0)
    rig.hear(140, 360.0)
    rig.put(started=BEGAN + 40)
    rig.count()
    told = rig.all_told()
    assert told[1] == Amounts(used_s=270, held_s=300, node_s=150, waiting_s=15)
    assert told[2] == Amounts(used_s=90, held_s=100, node_s=50, waiting_s=15)


def test_time_counts_from_what_the_batch_system_says(rig: Rig) -> None:
    """It says that an allocation runs some seconds before its head does; another run begins anew."""
    rig.put(state=AllocationState.RUNNING, started=BEGAN + 20)
    rig.keeper.look({})
    rig.put(started=BEGAN + 25, life=0)
    rig.hear(30, 0.0)
    rig.count()
    rig.put(state=AllocationState.QUEUED, started=None)
    rig.keeper.look({})
    rig.put(state=AllocationState.RUNNING, started=BEGAN + 100, life=1)
    rig.hear(104, 0.0, life=1)
    rig.count()
    assert sum(a.node_s for a in rig.all_told().values()) == 2 * (10 + 4)


def test_what_nothing_came_of_is_lost(rig: Rig) -> None:
    """At the end of an allocation that ended by itself, what cores did beyond what was accepted is lost."""
    rig.put(state=AllocationState.RUNNING, started=BEGAN + 40, life=0)
    rig.hear(50, 0.0)
    rig.hear(140, 360.0)
    with rig.store.transaction():
        earn(rig.store, "a1-p1-i0-r0.journal", 1, 200.0)
        earn(rig.store, "a1-p1-i0-r1.journal", 1, 60.0)
        earn(rig.store, "a1-p1-i0-r1.journal", 2, 100.0)
    rig.hear(140, 360.0, state="ended")
    rig.end()
    told = rig.all_told()
    assert (told[1].lost_s, told[1].preempted_s, told[2].lost_s) == (10.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "preempted"),
    [
        ({}, True),
        ({"life": 1}, True),
        ({"walltime_s": 101.0}, False),
        ({"cancelled": True}, False),
        ({"draining": True}, False),
    ],
)
def test_what_preemption_took_is_told_apart(rig: Rig, fields: dict[str, object], preempted: bool) -> None:
    """Ended long before its walltime by nobody here, or requeued: preempted. At its walltime, or by order: not."""
    rig.put(state=AllocationState.RUNNING, started=BEGAN + 40, life=0)
    rig.hear(50, 0.0)
    rig.hear(140, 360.0)
    rig.put(**fields)
    rig.end()
    lost = [(a.preempted_s, a.lost_s) for a in rig.all_told().values()]
    assert lost == ([(270, 0), (90, 0)] if preempted else [(0, 270), (0, 90)])


def test_a_history_tells_of_what_no_edge_saw(rig: Rig) -> None:
    """The edge was away while the allocation ran twice: its history and its last status say how long, and that counts."""
    rig.put(state=AllocationState.PLANNED)
    rig.count()
    folder = rig.spool.allocation("a1")
    folder.create()
    lines = [
        (100, "allocation-started"),
        (150, "pack-ended"),
        (200, "allocation-started"),
        (230, "allocation-ended"),
    ]
    folder.history.write_text(
        "".join(json.dumps({"at": BEGAN + at, "what": w}) + "\n" for at, w in lines) + "{torn"
    )
    rig.crash()
    rig.put(state=AllocationState.CLOSED, started=BEGAN + 400, life=1)
    rig.count()
    told = rig.all_told()
    assert sum(a.node_s for a in told.values()) == 2 * (50 + 30)


def test_commits_count_as_the_dispatcher_answered_them(rig: Rig) -> None:
    """What was accepted is useful, what was refused is lost; events set aside are told apart."""
    commit = LeaseCommit(
        task_id=1,
        epoch=1,
        done=IntervalSet.span(0, 10),
        failed=(FailedEvent(event=10, error="x"),),
        core_seconds=50.0,
    )
    refused = IntervalSet.span(8, 10)
    result = CommitResult(
        task_id=1, epoch=1, accepted=IntervalSet.of([*IntervalSet.span(0, 8).ranges(), *IntervalSet.span(10, 11).ranges()]),
        refused=refused,
    )  # fmt: skip
    with rig.store.transaction():
        answered(rig.store, [(commit, result)], None)
    nothing = CommitResult(task_id=2, epoch=1, accepted=EMPTY, refused=EMPTY)
    with rig.store.transaction():
        answered(rig.store, [(LeaseCommit(task_id=2, epoch=1), nothing)], None)
    assert rig.all_told() == {1: Amounts(useful_s=40, lost_s=10, done=8, failed=1)}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_counted_twice_or_lost_by_crashes(tmp_path: Path, seed: int) -> None:
    """However often the edge dies and answers are lost between statuses, the sums are those of a life in peace."""
    rng = random.Random(seed)
    rig = Rig(tmp_path)
    rig.put(state=AllocationState.RUNNING, started=BEGAN + 40, life=0)
    rig.hear(40, 0.0)
    busy = earned = 0.0
    at = 40.0
    for _ in range(40):
        match rng.choice(("work", "work", "count", "tell", "lost answer", "crash", "commit")):
            case "work":
                step = rng.uniform(0.1, 20)
                at, busy = at + step, busy + 3.5 * step
                rig.hear(at, busy)
            case "count":
                rig.count()
            case "tell":
                rig.tell()
            case "lost answer":
                rig.tell(answer=False)
            case "crash":
                rig.crash()
            case "commit":
                with rig.store.transaction():
                    earn(rig.store, "a1-p1-i0-r0.journal", 1, 5.0)
                    done = LeaseCommit(task_id=1, epoch=1, done=IntervalSet.span(0, 3), core_seconds=5.0)
                    said = CommitResult(task_id=1, epoch=1, accepted=done.done, refused=EMPTY)
                    answered(rig.store, [(done, said)], None)
                earned += 5.0
    rig.hear(at, busy, state="ended")
    rig.end()
    total = Amounts()
    for amounts in rig.all_told().values():
        total = total.plus(amounts)
    assert total.node_s == pytest.approx(2 * (at - 40))
    assert total.held_s == pytest.approx(4 * (at - 40))
    assert (total.used_s, total.useful_s) == (pytest.approx(busy), pytest.approx(earned))
    assert total.waiting_s == pytest.approx(30)
    assert rig.store.charges["a1"].closed


def test_allocations_from_before_counting_began_are_left_out(rig: Rig) -> None:
    """An edge that is brought up to date does not count what it knows only the end of."""
    rig.put(state=AllocationState.RUNNING, started=BEGAN - 90, created=BEGAN - 100, life=0)
    rig.hear(50, 100.0)
    with rig.store.transaction():
        earn(rig.store, "a1-p1-i0-r0.journal", 1, 5.0)
    rig.end()
    assert rig.all_told() == {}
