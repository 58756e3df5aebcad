"""The pack's job queue on rank 0: which jobs go to which node, what becomes of failed ones, when it is over.

A state machine without I/O: messages in, messages out. Jobs are bound late: a node is given what it has room for. Jobs
whose measured time is short flow ahead of that, about a second of them, so that a round trip leaves no core idle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from hpcpanda.allocation.job_account import Job, NodeAccount, TaskAccount
from hpcpanda.allocation.job_hand_out import HandOut, JobSend
from hpcpanda.allocation.job_messages import (
    AskRecord,
    EndJobTask,
    EndRun,
    FailedRun,
    FinishJobs,
    ForgetJobs,
    JobsBye,
    JobsReady,
    JobsReport,
    JobTaskEnded,
    JobToAgent,
    JobToCoordinator,
    NodeUnfit,
    RecordJob,
    SetJobAside,
)
from hpcpanda.allocation.job_space import Space
from hpcpanda.allocation.plan import LeasedEvents, TaskProgress, TaskWork
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.room import Room

MAX_FAULTS: Final = 3
"""So many runs in a row that fail by the node's fault, and the node gets no more jobs; so many of one job, and it is
left to another pack."""

_BROKEN_GRACE_S: Final = 1.0


class JobQueue:
    """Rank 0's account of a pack's jobs.

    Args:
        ranks: nodes of the pack.
        node: what each of them has; ``seconds`` are not looked at.
        deadline: jobs end before it; ``now`` of all methods is on the same clock.
    """

    def __init__(self, *, ranks: int, node: Room, deadline: float) -> None:
        self._node = node
        self._whole = Space.of(node)
        self._nodes = [NodeAccount(r, self._whole) for r in range(ranks)]
        self._tasks: dict[int, TaskAccount] = {}
        self._hand_out = HandOut(self._tasks, self._nodes, deadline)
        self._byes: dict[int, JobsBye] = {}
        self._draining = False

    @property
    def ended(self) -> bool:
        """Whether every agent has said bye."""
        return len(self._byes) == len(self._nodes)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to hand out and nothing in hand."""
        return not any(t.runs or t.has_waiting for t in self._tasks.values())

    @property
    def error(self) -> str | None:
        """Why the pack has to end."""
        return next((b.error for b in self._byes.values() if b.error), None)

    @property
    def again(self) -> bool:
        """Whether another start of the pack may go better."""
        return any(b.again for b in self._byes.values())

    @property
    def complaints(self) -> tuple[str, ...]:
        """Which nodes get no jobs since they are at fault, and why."""
        return tuple(f"node {n.rank} gets no jobs: {n.broken}" for n in self._nodes if n.broken)

    @property
    def job_cores(self) -> int:
        """Cores that jobs hold or wait for; at most all of the nodes that take jobs."""
        wanted = sum((t.runs + t.waiting) * t.request.cores for t in self._tasks.values())
        return min(wanted, self._whole.cores * sum(not n.out for n in self._nodes))

    def add(self, work: TaskWork, now: float) -> list[JobSend]:
        """Take on a task of jobs, or more jobs of one that is here.

        A task that no node of this pack can run is ``failed`` in :meth:`progress`; one that has ended stays so.
        """
        if work.task_id in self._tasks:
            return self.top_up(work.task_id, work.events, now, work.spec.job_request)
        request = work.spec.job_request
        assert request is not None, "a task of events"
        task = self._tasks[work.task_id] = TaskAccount(work, request, self._whole, now)
        refusal = self._refusal(request)
        if refusal is not None:
            task.error = f"a job {refusal}; this pack's nodes are too small for it"
        return self.top_up(task.task_id, work.events, now)

    def top_up(
        self, task_id: int, events: Iterable[LeasedEvents], now: float, request: JobRequest | None = None
    ) -> list[JobSend]:
        """More jobs of a task, and what those that nobody has ask for from now on, if a node here has so much; nothing
        when it is not here."""
        task = self._tasks.get(task_id)
        if task is None:
            return []
        if request is not None and request != task.request and self._refusal(request) is None:
            task.ask(request, self._whole)
            for node in self._nodes:
                node.knows.discard(task_id)
        if not (task.runs or task.has_waiting):
            served = [
                t.service - t.charged
                for t in self._tasks.values()
                if t is not task and (t.runs or t.has_waiting)
            ]
            task.service = max(task.service, min(served, default=0.0))  # no credit for having been away
        task.add(events)
        if self._draining or task.ending or task.error is not None:
            task.give_up()
        return self._feed(now)

    def revoke(self, task_id: int, epochs: tuple[int, ...], now: float) -> list[JobSend]:
        """Stop working under these epochs of a task."""
        task = self._tasks.get(task_id)
        if task is None:
            return []
        task.revoke(epochs)
        return self._to_all(ForgetJobs(task_id=task_id, epochs=epochs)) + self._feed(now)

    def end_task(self, task_id: int, grace_s: float, now: float) -> list[JobSend]:
        """Be done with a task: what runs has ``grace_s``, the rest stays undone."""
        task = self._tasks.get(task_id)
        if task is None or task.ending:
            return []
        task.ending = True
        task.give_up()
        return self._to_all(EndJobTask(task_id=task_id, grace_s=grace_s)) + self._feed(now)

    def drain(self, grace_s: float) -> list[JobSend]:
        """Start no job any more; what runs has ``grace_s``, the rest stays undone."""
        self._draining = True
        for task in self._tasks.values():
            task.give_up()
        return self._to_all(FinishJobs(grace_s=grace_s))

    def from_agent(self, rank: int, message: JobToCoordinator, now: float) -> list[JobSend]:
        """Act on a message of an agent."""
        node = self._nodes[rank]
        match message:
            case JobsReady():
                node.ready = True
                return self._feed(now, [node])
            case NodeUnfit(why=why):
                node.broken = why
                return self._feed(now)
            case JobsReport():
                return self._on_report(node, message, now)
            case AskRecord(ticket=ticket):
                return self._on_ask(node, ticket)
            case JobTaskEnded(task_id=task_id):
                if task := self._tasks.get(task_id):
                    task.ended_by.add(rank)
                return []
            case JobsBye():
                self._byes[rank] = message
                node.closed, node.loads = True, ()
                for ticket in list(node.runs):
                    self._on_back(node, ticket)
                if message.error is not None and not self._draining:
                    return self.drain(_BROKEN_GRACE_S)
                return self._feed(now)

    def progress(self, now: float) -> tuple[TaskProgress, ...]:
        """How each task is doing; restarts the windows of the rates."""
        self._hand_out.give_up_hopeless(now)
        return tuple(self._progress(t, now) for t in self._tasks.values())

    def validate(self) -> None:
        """Raise AssertionError when the accounts contradict themselves."""
        runs = [r for n in self._nodes for r in n.runs.values()]
        for task in self._tasks.values():
            assert task.runs == sum(r.job.task is task for r in runs)
            for epoch in task.epochs.values():
                epoch.validate()
                waiting = [j for q in task.again.values() for j in q]
                assert all(bool(j.tickets) != (j in waiting) for j in epoch.in_hand.values())

    def _feed(self, now: float, nodes: Collection[NodeAccount] | None = None) -> list[JobSend]:
        return [] if self._draining else self._hand_out.feed(now, nodes)

    def _to_all(self, message: JobToAgent) -> list[JobSend]:
        return [JobSend(n.rank, message) for n in self._nodes if n.rank not in self._byes]

    # ---- what becomes of jobs ----

    def _on_report(self, node: NodeAccount, report: JobsReport, now: float) -> list[JobSend]:
        sends: list[JobSend] = []
        node.closed |= report.stopped
        for ticket, wall_s in report.done:
            self._on_done(node, ticket, wall_s)
        for failure in report.failed:
            sends += self._on_failure(node, failure)
        for ticket in report.back:
            self._on_back(node, ticket)
        for ticket in report.late:
            self._on_back(node, ticket, late=True)
        if report.stale:
            for ticket in report.stale:
                self._on_back(node, ticket)
            node.hold_all()
        if report.loads is not None:
            node.loads = report.loads
        everywhere = report.failed or report.back or report.stale or node.out
        return sends + self._feed(now, None if everywhere else [node])

    def _settle(self, node: NodeAccount, ticket: int, wall_s: float = 0.0) -> Job | None:
        """Close a ticket; None when what becomes of its job does not matter."""
        run = node.settle(ticket)
        if run is None:
            return None
        job = run.job
        job.task.runs -= 1
        job.task.settle(run.charge_s, wall_s * job.task.share)
        del job.tickets[ticket]
        return None if job.over else job

    def _on_done(self, node: NodeAccount, ticket: int, wall_s: float) -> None:
        node.faults = 0
        if job := self._settle(node, ticket, wall_s):
            job.task.finish(job, wall_s)

    def _on_failure(self, node: NodeAccount, failure: FailedRun) -> list[JobSend]:
        job = self._settle(node, failure.ticket, failure.wall_s)
        at_fault = failure.node_at_fault
        if job is not None and failure.runner_lost:
            job.lost_runners += 1
            at_fault = job.lost_runners < MAX_FAULTS
        node.faults = node.faults + 1 if at_fault else 0
        if node.faults >= MAX_FAULTS:
            node.broken = f"{node.faults} in a row failed by its fault, the last: {failure.error}"
        if job is None:
            return []
        job.avoid |= {node.rank}
        if at_fault:
            job.faults += 1
        else:
            job.error, job.facts = failure.error, failure.facts
        return self._after_run(node, job, failure.ticket)

    def _on_back(self, node: NodeAccount, ticket: int, *, late: bool = False) -> None:
        job = self._settle(node, ticket)
        if job is not None:
            if late:
                job.faults = MAX_FAULTS
            self._after_run(node, job, ticket)

    def _after_run(self, node: NodeAccount, job: Job, ticket: int) -> list[JobSend]:
        """A run has ended without success: decide when none is left."""
        task = job.task
        if job.winner == ticket:
            job.winner = None
        if job.tickets:
            return []
        task.cloning.pop(job, None)
        error, job.error = job.error, None
        if self._draining or task.ending or (error is None and job.faults >= MAX_FAULTS):
            task.leave(job)
            return []
        if error is not None and job.attempt >= task.spec.loss.attempts:
            task.fail(job)
            event = FailedEvent(event=job.number, error=error, attempts=job.attempt, facts=job.facts)
            return [JobSend(node.rank, SetJobAside(task_id=task.task_id, epoch=job.epoch, event=event))]
        job.attempt += error is not None
        job.starts = 0
        task.try_again(job)
        return []

    def _on_ask(self, node: NodeAccount, ticket: int) -> list[JobSend]:
        """The first clone that asks has won; if it is lost before it is recorded, the next one may."""
        run = node.runs.get(ticket)
        if run is None:
            return []
        job = run.job
        if job.over or job.winner not in (None, ticket):
            return [JobSend(node.rank, EndRun(ticket=ticket))]
        job.winner = ticket
        job.task.cloning.pop(job, None)
        others = [JobSend(rank, EndRun(ticket=t)) for t, rank in job.tickets.items() if t != ticket]
        return [JobSend(node.rank, RecordJob(ticket=ticket)), *others]

    # ---- progress ----

    def _progress(self, task: TaskAccount, now: float) -> TaskProgress:
        loads = [load for n in self._nodes for load in n.loads if load.task_id == task.task_id]
        ended = task.ending and all(n.rank in task.ended_by or n.rank in self._byes for n in self._nodes)
        wall_s = task.wall_s
        cost = (task.request.walltime_s if wall_s is None else wall_s) * task.request.cores
        waiting = task.waiting
        return TaskProgress(
            task_id=task.task_id,
            state="ended" if ended or self.ended else "failed" if task.error else "running",
            done=task.done,
            per_second=task.rate(now),
            event_seconds=None if wall_s is None else wall_s * task.request.cores,
            cores=sum(load.cores for load in loads),
            cores_busy=sum(load.busy for load in loads),
            waiting=waiting,
            backlog_s=waiting * cost / (self._whole.cores * len(self._nodes)),
            idle=not waiting and not task.runs,
            error=task.error,
        )

    def _refusal(self, request: JobRequest) -> str | None:
        """What of a job no node here has, whatever the time left."""
        node = self._node
        room = Room(
            cores=node.cores,
            memory_mb=node.memory_mb,
            gpus=node.gpus,
            seconds=max(node.seconds, request.walltime_s),
        )
        return room.refusal(request)
