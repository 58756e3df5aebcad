"""The agents of a node: one that runs the events of a task, one that runs jobs, and the cores that they share."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hpcpanda.allocation.agent import Agent, node_log_path
from hpcpanda.allocation.board import Board
from hpcpanda.allocation.forkserver import ForkSettings
from hpcpanda.allocation.job_agent import JobAgent
from hpcpanda.allocation.job_keeper import JobKeeper
from hpcpanda.allocation.job_placement import JobPlacement
from hpcpanda.allocation.messages import ToCoordinator
from hpcpanda.allocation.node_check import check_node
from hpcpanda.allocation.node_quarantine import node_name, why_kept_out
from hpcpanda.allocation.node_work import NodeWork
from hpcpanda.allocation.nursery import Nursery
from hpcpanda.allocation.pack_journal import new_recorder
from hpcpanda.allocation.pack_run import PackRun
from hpcpanda.allocation.plan import TaskWork, WorkPack
from hpcpanda.allocation.rank_messages import (
    BeginEvents,
    FinishAll,
    FromEvents,
    FromJobs,
    ToDirector,
    ToEvents,
    ToJobs,
    ToRank,
)
from hpcpanda.allocation.spool import Spool
from hpcpanda.allocation.work_folder import make_work_folder
from hpcpanda.allocation.worker_log import LogPipe, NodeLog

_IDLE_S = 0.5


class NodeAgents:
    """One node's agents. Construction forks, so it comes before MPI and before any thread."""

    def __init__(self, run: PackRun, pack: WorkPack, selector: selectors.BaseSelector) -> None:
        self._run = run
        self._pack = pack
        self._selector = selector
        self._cores = run.site.nodes.cores
        self._deadline = time.monotonic() + run.deadline - time.time()
        self._folder = Spool(Path(run.spool)).allocation(run.allocation_id)
        self._scratch = make_work_folder(run.allocation_id, run.site.nodes.scratch)
        self._pins = _pins(run)
        self._board = Board(self._cores)
        settings = ForkSettings(work_folder=self._scratch, pins=self._pins, containers=run.site.containers)
        self._nursery = Nursery(settings, self._board)
        # Which rank this is cannot be known before MPI is initialised, so all share this log.
        self._job_log = os.open(
            self._folder.logs / f"{pack.pack_id}-jobs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        self._keeper = JobKeeper(scratch=self._scratch, site=run.site, log=self._job_log)
        self._events: Agent | None = None
        self._task_id = 0
        self._reserved: frozenset[int] = frozenset()
        self._kept_from_events: frozenset[int] = frozenset()
        """Cores that run no events: all, when the node is in quarantine."""
        self._finish_at: float | None = None
        self._rank = 0
        self._send: Callable[[ToDirector], None] = lambda _: None
        self._job_agent: JobAgent | None = None

    def begin(self, rank: int, send: Callable[[ToDirector], None]) -> None:
        """MPI is there: begin with jobs; events follow when a task of them comes."""
        self._rank = rank
        self._send = send
        nodes = self._run.site.nodes
        complaints = check_node(self._run.site, self._scratch)
        spool = Spool(Path(self._run.spool))
        kept_out = why_kept_out(spool, self._run.site, nodes=self._pack.nodes, now=time.time())
        if kept_out is not None:
            complaints.append(kept_out)
            self._kept_from_events = frozenset(range(self._cores))
        self._job_agent = JobAgent(
            keeper=self._keeper,
            placement=JobPlacement(
                slots=self._cores, memory_mb=nodes.memory_mb, gpus=nodes.gpus, deadline=self._deadline
            ),
            processors=self._pins,
            slots=self._cores,
            events=self,
            open_recorder=lambda task_id: new_recorder(self._run, task_id, rank=rank, cores=self._cores),
            send=lambda message: send(FromJobs(message=message)),
            selector=self._selector,
            unfit=f"{socket.gethostname()}: {'; '.join(complaints)}" if complaints else None,
        )

    @property
    def _jobs(self) -> JobAgent:
        assert self._job_agent is not None, "begin() comes first"
        return self._job_agent

    @property
    def ended(self) -> bool:
        """Whether all has ended that was told to."""
        told = self._finish_at is not None
        return told and self._jobs.ended and self._events is None

    @property
    def hungry(self) -> bool:
        """Whether cores may be waiting for the director's answer."""
        return self._jobs.hungry or (self._events is not None and self._events.hungry)

    def receive(self, message: ToRank) -> None:
        """Act on a message of the director."""
        match message:
            case BeginEvents():
                self._begin_events(message.work)
            case ToEvents(task_id=task_id):
                if self._events is not None and task_id == self._task_id and not self._events.ended:
                    self._events.receive(message.message)
            case ToJobs():
                if not self._jobs.ended:
                    self._jobs.receive(message.message)
            case FinishAll():
                self.finish(message.grace_s)

    def finish(self, grace_s: float) -> None:
        """Start nothing new, end within the grace time."""
        deadline = time.monotonic() + grace_s
        self._finish_at = min(deadline, self._finish_at or deadline)
        if self._events is not None and not self._events.ended:
            self._events.finish(grace_s)
        if not self._jobs.ended:
            self._jobs.finish(grace_s)

    def tick(self) -> float:
        """Do what is due; gives the seconds until the next time something may be due."""
        due = [_IDLE_S]
        if self._events is not None:
            due.append(self._events.tick())
            if self._events.ended:
                self._events = None
                self._jobs.set_event_memory(None)
        if not self._jobs.ended:
            due.append(self._jobs.tick())
        return min(due)

    def use(self, now: float, over: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Share of the last ``over`` seconds that each core ran events, and jobs, 0..1."""
        seconds = self._events.busy_seconds(now) if self._events is not None else [0.0] * self._cores
        return tuple(min(1.0, s / over) for s in seconds), self._jobs.occupancy()

    def close(self) -> None:
        """Leave no process behind."""
        self._keeper.close()
        self._nursery.close()
        os.close(self._job_log)

    # ---- the cores that events leave to jobs ----

    def reserve(self, slots: frozenset[int]) -> None:
        """See :class:`~hpcpanda.allocation.job_agent.EventSlots`."""
        self._reserved |= slots
        if self._events is not None and not self._events.ended:
            self._events.reserve(slots)
        else:
            self._freed(slots)

    def unreserve(self, slots: frozenset[int]) -> None:
        """See :class:`~hpcpanda.allocation.job_agent.EventSlots`."""
        self._reserved -= slots
        if self._events is not None and not self._events.ended:
            self._events.unreserve(slots)

    def _freed(self, slots: frozenset[int]) -> None:
        if not self._jobs.ended:
            self._jobs.slots_free(slots)

    # ---- events ----

    def _begin_events(self, work: TaskWork) -> None:
        spec = work.spec
        self._task_id = work.task_id
        pipe = LogPipe(NodeLog(self._folder.logs / f"{self._pack.pack_id}-setup.log"))
        server = self._nursery.fork_server(spec, pipe.write_end)
        os.close(pipe.write_end)
        self._events = Agent(
            spec=spec,
            work=NodeWork(
                slots=self._cores,
                cores_in_pack=self._cores * self._pack.nodes,
                policy=spec.ranges,
                prior=work.event_seconds or spec.resources.event_seconds,
                deadline=self._deadline,
                node=node_name(),
            ),
            recorder=new_recorder(self._run, work.task_id, rank=self._rank, cores=self._cores),
            server=server,
            server_log=pipe,
            board=self._board,
            log=NodeLog(node_log_path(self._folder.logs, self._pack.pack_id, self._rank)),
            send=partial(self._send_of_events, work.task_id),
            selector=self._selector,
            reserved=self._reserved | self._kept_from_events,
            freed=self._freed,
        )
        self._jobs.set_event_memory(spec.resources.memory_mb)
        if self._finish_at is not None:
            self._events.finish(max(0.0, self._finish_at - time.monotonic()))

    def _send_of_events(self, task_id: int, message: ToCoordinator) -> None:
        self._send(FromEvents(task_id=task_id, message=message))


def _pins(run: PackRun) -> tuple[int, ...]:
    """The processor of each worker slot; none where nodes are only pretended or cores do not suffice."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = run.site.nodes.cores
    if run.site.nodes.oversubscribe or len(allowed) < cores:
        return ()
    return tuple(allowed[:cores])
