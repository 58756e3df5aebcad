"""Stand-ins around an edge: a dispatcher in RAM, a batch system of processes, small sites and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcpanda_edge.batch_system.processes import processes_of
from hpcpanda_edge.daemon import Edge
from hpcpanda_edge.ports import AllocationJob, JobState, Submitted
from hpcpanda_edge.state_folder import StateFolder

from hpcpanda.domain.errors import EdgeNameTaken, LeaseLost, SchedulerFailed, Unavailable
from hpcpanda.domain.exchange import (
    Capacity,
    CommitResult,
    EdgeInfo,
    EdgeRegistration,
    Grants,
    LeaseGrant,
    OutputFile,
    SyncReply,
    SyncRequest,
    TaskOrder,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLedger
from hpcpanda.domain.outputs import Output
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.site import AllocationSettings, LimitSettings, NodeSettings, SchedulerSettings, Site
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec

ALLOCATION = Path(__file__).with_name("edge_allocation.py")


def small_site(spool: Path, *, nodes: int = 2, allocations: int = 1, lookahead_s: float = 2.0) -> Site:
    """A site whose allocations start at once."""
    return Site(
        name="here",
        spool=str(spool),
        nodes=NodeSettings(count=nodes, cores=2, memory_mb=1000),
        scheduler=SchedulerSettings(executor="local", poll_seconds=0.1),
        allocation=AllocationSettings(
            walltime_s=60, margin_s=1, grace_s=1, lookahead_s=lookahead_s, linger_s=0.5, sync_s=0.1
        ),
        limits=LimitSettings(allocations=allocations),
    )


def small_task(events: int = 100, **settings: str | float | bool) -> TaskSpec:
    """A task that the stand-in for allocations can run."""
    payload = CallablePayload(call="module:function", settings=settings)
    return TaskSpec(name="sand", payload=payload, output=Output(file="out.h5"), events=events)


@dataclass
class FakeTask:
    spec: TaskSpec
    ledger: EventLedger
    state: TaskState = TaskState.READY
    outputs: list[OutputFile] = field(default_factory=list)


@dataclass
class FakeDispatcher:
    """A dispatcher in RAM, over the same ledger as the real one."""

    tasks: dict[int, FakeTask] = field(default_factory=dict)
    away: bool = False
    lose_answers: int = 0
    """So many answers of sync are lost on their way."""
    instance: str | None = None
    faults: dict[int, str] = field(default_factory=dict)
    work: asyncio.Event = field(default_factory=asyncio.Event)
    granted: int = 0

    def submit(self, spec: TaskSpec) -> int:
        task_id = len(self.tasks) + 1
        self.tasks[task_id] = FakeTask(spec, EventLedger.over(IntervalSet.span(0, spec.event_count)))
        self.work.set()
        return task_id

    async def register_edge(self, name: str, registration: EdgeRegistration) -> EdgeInfo:
        self._answer()
        if self.instance not in (None, registration.instance):
            raise EdgeNameTaken("somebody else")
        self.instance = registration.instance
        return EdgeInfo(
            name=name, instance=registration.instance, cores=1, version="", last_seen=0.0, alive=True,
            lease_seconds=20.0,
        )  # fmt: skip

    async def acquire(self, name: str, capacity: Capacity) -> Grants:
        self._answer()
        if capacity.wait_s and not self._ready(capacity):
            self.work.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(capacity.wait_s):
                    await self.work.wait()
            self._answer()
        grants: list[LeaseGrant] = []
        for task_id in self._ready(capacity)[:1]:
            task = self.tasks[task_id]
            limit = max(1, int(capacity.cores * capacity.seconds / 0.1))
            lease = task.ledger.grant(holder="here", limit=limit, expires=1e18)
            assert lease is not None
            task.state = TaskState.RUNNING
            self.granted += len(lease.granted)
            grants.append(
                LeaseGrant(
                    task_id=task_id,
                    epoch=lease.epoch,
                    events=lease.granted,
                    spec=task.spec,
                    expires_in_s=20.0,
                )
            )
        return Grants(leases=tuple(grants))

    async def sync(self, name: str, request: SyncRequest) -> SyncReply:
        self._answer()
        lost = []
        for task_id, epoch in request.renew:
            try:
                self.tasks[task_id].ledger.renew(epoch, holder="here", expires=1e18)
            except LeaseLost:
                lost.append((task_id, epoch))
        results = []
        for c in request.commits:
            ledger = self.tasks[c.task_id].ledger
            settled = ledger.commit(c.epoch, holder="here", done=c.done, failed=c.failed)
            results.append(
                CommitResult(
                    task_id=c.task_id, epoch=c.epoch, accepted=settled.accepted, refused=settled.refused
                )
            )
        for r in request.returns:
            if self.tasks[r.task_id].ledger.give_back(r.epoch, holder="here", events=r.events):
                self.work.set()
        rejected = [o.path for o in request.outputs if not self._record(o)]
        for fault in request.faults:
            self.faults[fault.task_id] = fault.error
            self.finish(fault.task_id, TaskState.FAILED)
        self._judge()
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("the answer was lost")
        orders = tuple(TaskOrder(task_id=t, state=self.tasks[t].state) for t in request.tasks)
        return SyncReply(
            commits=tuple(results), lost=tuple(lost), tasks=orders, rejected_outputs=tuple(rejected)
        )

    def finish(self, task_id: int, state: TaskState) -> None:
        """Put a task to an end: nothing of it is leased any more."""
        task = self.tasks[task_id]
        task.state = state
        task.ledger.release("here")

    def expire(self, task_id: int) -> None:
        """Let all leases of a task run out."""
        self.tasks[task_id].ledger.release("here")
        self.work.set()

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("away")

    def _ready(self, capacity: Capacity) -> list[int]:
        open_ = (TaskState.READY, TaskState.RUNNING)
        above = -math.inf if capacity.above is None else capacity.above
        ready = [
            t
            for t, task in self.tasks.items()
            if task.state in open_
            and task.ledger.ready
            and capacity.task_id in (None, t)
            and task.spec.priority > above
        ]
        return sorted(ready, key=lambda t: -self.tasks[t].spec.priority)

    def _record(self, output: OutputFile) -> bool:
        task = self.tasks[output.task_id]
        if output in task.outputs:
            return True
        recorded = IntervalSet.of(r for o in task.outputs for r in o.events.ranges())
        if not output.events.issubset(task.ledger.done - recorded) or task.state.final:
            return False
        task.outputs.append(output)
        return True

    def _judge(self) -> None:
        for task in self.tasks.values():
            task.ledger.validate()
            if task.state is TaskState.RUNNING and task.ledger.finished:
                task.state = TaskState.MERGING
            merged = sum(len(o.events) for o in task.outputs)
            if task.state is TaskState.MERGING and merged == len(task.ledger.done):
                task.state = TaskState.FINISHED if task.ledger.failed else TaskState.DONE


@dataclass
class FakeScheduler:
    """A batch system whose jobs are the stand-in for allocations, as processes."""

    refuse: int = 0
    """So many submissions are refused."""
    forget_answers: int = 0
    """So many submissions are carried out without an answer."""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    most: int = 0
    """The most jobs ever seen at a time."""

    def submit(self, job: AllocationJob) -> str:
        if self.refuse:
            self.refuse -= 1
            raise SchedulerFailed("refused")
        self.started.append(
            subprocess.Popen(
                [sys.executable, str(ALLOCATION), *job.command[-2:]],
                stdout=subprocess.DEVNULL,
                stderr=(job.folder / "head.err").open("wb"),
            )
        )
        self.most = max(self.most, sum(p.poll() is None for p in self.started))
        if self.forget_answers:
            self.forget_answers -= 1
            raise SchedulerFailed("no answer")
        return str(self.started[-1].pid)

    def states(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        for process in self.started:
            process.poll()
        found = processes_of([job.folder for job in jobs])
        return {job.allocation_id: JobState.RUNNING if found[job.folder] else JobState.GONE for job in jobs}

    def cancel(self, job: Submitted) -> None:
        for pid in processes_of([job.folder])[job.folder]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)

    def find(self, allocation_id: str, folder: Path) -> str | None:
        return next((str(pid) for pid in processes_of([folder])[folder]), None)

    def kill_all(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def running_edge(
    site: Site, dispatcher: FakeDispatcher, scheduler: FakeScheduler, *, crash: bool = False
) -> AsyncIterator[Edge]:
    """An edge in this process; at the end it is stopped in order, or as if it had crashed."""
    folder = StateFolder.of(site.spool)
    folder.create()
    edge = Edge(site, dispatcher, scheduler, round_s=0.05)
    task = asyncio.create_task(edge.run())
    try:
        yield edge
    finally:
        if crash:
            task.cancel()
        else:
            edge.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object], *, timeout_s: float = 90.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.02)


def bounds_in(path: Path) -> IntervalSet:
    """What the stand-in for merges has written."""
    words = path.read_text().strip("()").replace(",", " ").split()
    return IntervalSet(tuple(map(int, words))) if words else EMPTY
