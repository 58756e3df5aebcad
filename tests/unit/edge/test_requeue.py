"""An allocation that the batch system queues again: what its head said before is over, and so is the time it had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.control import Control
from hpcpanda_edge.ports import AllocationJob, JobState, Submitted
from hpcpanda_edge.present_runs import STATUS_STALE_S
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.view import situation
from hpcpanda_edge.windows.choose import make_window_probe
from hpcpanda_edge.windows.watch import WindowWatch
from support.edge import small_site
from support.edge_books import fresh

from hpcpanda.allocation.plan import AllocationStatus, Drain, EndWork, PackStatus
from hpcpanda.allocation.spool import MESSAGE, STATUS, Spool, read_message, write_message
from hpcpanda.domain.states import AllocationEvent, AllocationState, next_allocation_state

WALLTIME_S = 60.0


@dataclass
class Queue:
    """A batch system that says what it is told to."""

    state: JobState = JobState.QUEUED
    asked: int = 0
    cancelled: list[str] = field(default_factory=list)

    def submit(self, job: AllocationJob) -> str:
        raise AssertionError(job)

    def states(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        self.asked += 1
        return {job.allocation_id: self.state for job in jobs}

    def cancel(self, job: Submitted) -> None:
        self.cancelled.append(job.allocation_id)

    def find(self, allocation_id: str, folder: Path) -> str | None:
        raise AssertionError(allocation_id, folder)


class World:
    """An edge with one allocation that queues, and its pack that holds 100 events."""

    def __init__(self, folder: Path) -> None:
        self.site = small_site(folder / "spool")
        self.spool = Spool(Path(self.site.spool))
        self.spool.allocation("a1").create()
        self.store = fresh(folder / "edge.db")
        pack = PackRecord(pack_id="p1", kind="work", nodes=2, parts=(PartRecord(task_id=1),))
        self.put(
            AllocationRecord(
                allocation_id="a1", nodes=2, walltime_s=WALLTIME_S, packs=(pack,), created=1.0,
                state=AllocationState.QUEUED, native_id="77",
            )
        )  # fmt: skip
        self.queue = Queue()
        self.start()

    def start(self) -> None:
        """Begin, or begin again as after a kill."""
        windows = WindowWatch(make_window_probe(self.site), every_s=1.0)
        stager = Stager(self.spool, self.site)
        self.control = Control(self.store, self.spool, self.site, self.queue, windows, stager)

    @property
    def record(self) -> AllocationRecord:
        """What the edge knows of the allocation."""
        return self.store.allocations["a1"]

    @property
    def held(self) -> int:
        """Events that the pack holds."""
        return accounts.held_events(self.store).get((1, "a1-p1"), 0)

    @property
    def seconds_left(self) -> float:
        """Of the allocation, as the planner sees it."""
        (view,) = situation(self.store, self.control.statuses, site=self.site, now=time.time()).allocations
        return view.seconds_left

    def put(self, record: AllocationRecord) -> None:
        """Change what the edge knows."""
        with self.store.transaction():
            self.store.allocations.put(record)

    def write(self, life: int, state: Literal["running", "ended"] = "running", *, age_s: float = 0.0) -> None:
        """Let the head of a life write its status."""
        status = AllocationStatus(
            allocation_id="a1", state=state, head_pid=1, host="n1", written=time.time() - age_s, inbox_read=0,
            packs=(PackStatus(pack_id="p1", state=state, cores=4),), life=life, nodes=2,
        )  # fmt: skip
        write_message(self.spool.allocation("a1").status, STATUS, status)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Make rounds until something is so."""
        async with asyncio.timeout(60.0):
            while not condition():
                await self.control.round()
                await asyncio.sleep(0.02)

    async def look(self) -> None:
        """Make rounds until the batch system and the files were looked at."""
        before = self.queue.asked
        await self.until(lambda: self.queue.asked >= before + 2)


@pytest.fixture
async def ran(tmp_path: Path) -> World:
    """The allocation ran for longer than it may, and queues again; its head has left word that it ended."""
    world = World(tmp_path)
    world.queue.state = JobState.RUNNING
    world.write(0)
    await world.until(lambda: world.record.state is AllocationState.RUNNING and world.record.life == 0)
    await world.look()
    world.put(replace(world.record, started=time.time() - 10_000))
    world.queue.state = JobState.QUEUED
    world.write(0, "ended")
    await world.until(lambda: world.record.state is AllocationState.QUEUED)
    return world


async def test_an_allocation_that_queues_again_has_its_time_before_it(ran: World) -> None:
    """It is neither overdue nor over, and its pack keeps its events; an edge that begins again sees it so, too."""
    for _ in range(2):
        await ran.look()
        assert ran.record.state is AllocationState.QUEUED
        assert ran.record.started is None
        assert ran.seconds_left == WALLTIME_S - ran.site.allocation.margin_s
        assert ran.control.statuses == {}
        assert ran.held == 100
        assert not ran.record.packs[0].settled
        assert ran.queue.cancelled == []
        ran.start()


async def test_the_next_head_is_heard_and_the_one_before_is_not(ran: World) -> None:
    """The second run counts from its own begin, whatever a head that was thought dead still writes."""
    ran.write(1)
    await ran.until(lambda: ran.record.state is AllocationState.RUNNING)
    ran.queue.state = JobState.RUNNING
    assert ran.seconds_left > WALLTIME_S - ran.site.allocation.margin_s - 10
    ran.write(0, "ended")
    await ran.look()
    assert ran.control.statuses["a1"].life == 1
    assert ran.record.state is AllocationState.RUNNING
    assert ran.queue.cancelled == []


async def test_a_restart_that_nobody_saw_queue_is_known_by_its_head(tmp_path: Path) -> None:
    """Between two looks at the queue the job was queued and began again."""
    world = World(tmp_path)
    world.queue.state = JobState.RUNNING
    world.write(0)
    await world.look()
    world.put(replace(world.record, started=time.time() - 50))
    assert world.seconds_left < 10
    world.write(1)
    await world.until(lambda: world.record.life == 1)
    assert world.seconds_left > 40


async def test_a_head_is_believed_before_an_old_word_of_the_queue(tmp_path: Path) -> None:
    """A job that has just begun may still be said to queue: only when its head is silent it queues again."""
    world = World(tmp_path)
    world.write(0)
    await world.look()
    assert world.record.state is AllocationState.RUNNING
    world.write(0, age_s=STATUS_STALE_S + 1)
    await world.until(lambda: world.record.state is AllocationState.QUEUED)


async def test_what_was_settled_before_is_not_done_again(tmp_path: Path) -> None:
    """A head that begins again begins with its whole plan: it is told what others do now."""
    world = World(tmp_path)
    world.write(0)
    await world.look()
    first, second = PartRecord(task_id=1), PartRecord(task_id=2, settled=True)
    packs = (
        PackRecord(pack_id="p1", kind="work", nodes=1, parts=(first, second)),
        PackRecord(pack_id="p2", kind="work", nodes=1, parts=(second,), settled=True),
    )
    world.put(replace(world.record, packs=packs))
    world.write(1)
    await world.until(lambda: world.record.life == 1)
    grace_s = world.site.allocation.grace_s
    inbox = world.spool.allocation("a1")
    assert [read_message(inbox.message(n), MESSAGE) for n in (1, 2)] == [
        EndWork(pack_id="p1", task_id=2, grace_s=grace_s),
        Drain(pack_id="p2", grace_s=grace_s),
    ]


def test_only_a_requeue_goes_back() -> None:
    """From running to queued; an allocation that has ended stays so."""
    for state in AllocationState:
        after = next_allocation_state(state, AllocationEvent.REQUEUED)
        assert after is (AllocationState.QUEUED if state is AllocationState.RUNNING else state)
