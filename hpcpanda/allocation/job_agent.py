"""The job side of a node agent: has the node's jobs run by its keeper and writes what they leave.

One thread around the rank's selector. Which job starts where is decided by
:class:`~hpcpanda.allocation.job_placement.JobPlacement`, what becomes of it by
:class:`~hpcpanda.allocation.job_queue.JobQueue`.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, Protocol

from hpcpanda.allocation.crew import obituary
from hpcpanda.allocation.job_keeper import JobKeeper
from hpcpanda.allocation.job_messages import (
    AskRecord,
    EndJobTask,
    EndRun,
    FailedRun,
    FinishJobs,
    ForgetJobs,
    JobBatch,
    JobsBye,
    JobsReady,
    JobTask,
    JobTaskEnded,
    JobToAgent,
    JobToCoordinator,
    NodeUnfit,
    RecordJob,
    SetJobAside,
)
from hpcpanda.allocation.job_news import JobNews
from hpcpanda.allocation.job_placement import JobPlacement, Placed
from hpcpanda.allocation.job_record import JobJournals, failure_facts, failure_text
from hpcpanda.allocation.job_run import JobEnded
from hpcpanda.allocation.job_usage import JobUsage
from hpcpanda.allocation.jobs_in_hand import JobInHand, JobsInHand
from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.events.recorder import Recorder

REPORT_S: Final = 0.05
_LOADS_S: Final = 1.0
_IDLE_S: Final = 0.5
_MORE_S: Final = 1.0
_LEAVE_S: Final = 1.0
"""Time that jobs have to obey when the agent's own time is over; then they are killed."""


class EventSlots(Protocol):
    """The event side of the node, which has all slots that jobs do not ask for."""

    def reserve(self, slots: frozenset[int]) -> None:
        """Start nothing new on these slots and retire their workers; :meth:`JobAgent.slots_free` is to be called for
        each when its worker is gone, within this call where there is none."""
        ...

    def unreserve(self, slots: frozenset[int]) -> None:
        """Slots that were reserved and reported free are the event side's again."""
        ...


class JobAgent:
    """The jobs of one node.

    Args:
        keeper: runs them; closed by the agent's end.
        placement: of this node.
        processors: the processor that each slot is bound to; empty: jobs are not bound.
        slots: cores of the node.
        events: the event side of the node.
        open_recorder: a new recorder for a task's journal of this rank; called once a task.
        send: to the queue.
        selector: of the rank's loop; data of a key is called when it is readable.
        unfit: why no job may run here, if that is so.
    """

    def __init__(
        self,
        *,
        keeper: JobKeeper,
        placement: JobPlacement,
        processors: tuple[int, ...],
        slots: int,
        events: EventSlots,
        open_recorder: Callable[[int], Recorder],
        send: Callable[[JobToCoordinator], None],
        selector: selectors.BaseSelector,
        unfit: str | None = None,
    ) -> None:
        self._keeper = keeper
        self._placement = placement
        self._processors = processors
        self._events = events
        self._journals = JobJournals(open_recorder)
        self._send = send
        self._selector = selector
        self._ending: dict[int, float] = {}
        """Tasks that are to end, and when their runs are ended."""
        self._finish_at: float | None = None
        self._more_until = 0.0
        """The queue has said that it has more, and may send it until then."""
        self._news = JobNews()
        self._jobs = JobsInHand(keeper, placement, self._news)
        self._stepping = self._step_again = False
        self._bye: JobsBye | None = None
        self._reported = self._loads_told = time.monotonic()
        self._usage = JobUsage(slots, self._reported)
        self._loaded = False
        selector.register(keeper.sock, selectors.EVENT_READ, self._on_keeper)
        send(JobsReady() if unfit is None else NodeUnfit(why=unfit))

    @property
    def ended(self) -> bool:
        """Whether the agent has said bye."""
        return self._bye is not None

    @property
    def hungry(self) -> bool:
        """Whether the queue's next answer may start a job here."""
        return time.monotonic() < self._more_until and not self._placement.waiting

    def receive(self, message: JobToAgent) -> None:
        """Act on a message of the queue; not to be called any more once it has ended."""
        match message:
            case JobTask():
                self._jobs.specs[message.task_id] = message.spec
            case JobBatch():
                self._take(message)
            case RecordJob(ticket=ticket):
                if (job := self._jobs.get(ticket)) is not None and job.ended is not None:
                    self._record(ticket, job, job.ended)
            case SetJobAside():
                self._write(lambda: self._journals.set_aside(message.task_id, message.epoch, message.event))
            case EndRun() | ForgetJobs():
                self._jobs.drop_as_told(message)
            case EndJobTask():
                self._ending[message.task_id] = time.monotonic() + message.grace_s
                self._jobs.give_back(self._jobs.of_task(message.task_id))
            case FinishJobs():
                self.finish(message.grace_s)
        self.tick()

    def slots_free(self, slots: Collection[int]) -> None:
        """The event workers of these slots, which were reserved, are gone."""
        self._placement.free(slots, time.monotonic())
        self._step()

    def set_event_memory(self, mb: int | None) -> None:
        """What one event worker may use, MiB; None while there is no task of events."""
        self._placement.set_event_memory(mb)
        self._step()

    def occupancy(self) -> tuple[float, ...]:
        """Share of the time since the last call that jobs held each slot, 0..1."""
        return self._usage.occupancy(time.monotonic())

    def finish(self, grace_s: float) -> None:
        """Start no job any more, give running ones ``grace_s``, then end them; then say bye."""
        deadline = time.monotonic() + grace_s
        first = self._finish_at is None
        self._finish_at = min(deadline, self._finish_at or deadline)
        self._jobs.give_back(list(self._jobs))
        if first:
            self._report(time.monotonic())
        self.tick()

    def tick(self) -> float:
        """Do what is due; gives the seconds until the next time something may be due."""
        now = time.monotonic()
        if self._bye is not None:
            return _IDLE_S
        if self._journals.error is not None:
            self._end(f"the spool folder refuses writing: {self._journals.error}")
            return _IDLE_S
        if self._ending or self._finish_at is not None:
            self._end_due(now)
        self._step()
        self._end_tasks()
        if self._finish_at is not None and (not self._jobs or now >= self._finish_at + _LEAVE_S):
            self._end(None)
        if self.ended:
            return _IDLE_S
        loads_due = now - self._loads_told >= _LOADS_S and (self._jobs or self._loaded)
        if loads_due or (self._news and (now - self._reported >= REPORT_S or not self._placement.waiting)):
            self._report(now)
        return REPORT_S if self._news or self._placement.lingering else _IDLE_S

    # ---- jobs ----

    def _take(self, batch: JobBatch) -> None:
        now = time.monotonic()
        self._more_until = now + _MORE_S if batch.more else 0.0
        self._jobs.take(batch, now, finishing=self._finish_at is not None)

    def _step(self) -> None:
        """Start what can be started, and settle with the event side who has which slots."""
        self._step_again = True
        if self._stepping:  # called back by the event side
            return
        self._stepping = True
        while self._step_again and not self.ended:
            self._step_again = False
            now = time.monotonic()
            step = self._placement.step(now, more=now < self._more_until)
            for placed in step.start:
                self._start(placed)
            self._news.late += step.late
            self._news.stale += step.stale
            for ticket in step.late + step.stale:
                del self._jobs[ticket]
            if step.reserve:
                self._events.reserve(step.reserve)
            if step.unreserve:
                self._events.unreserve(step.unreserve)
        self._stepping = False

    def _start(self, placed: Placed) -> None:
        job = self._jobs[placed.ticket]
        job.slots = placed.slots
        self._usage.begin(placed.ticket, job.task_id, placed.slots, time.monotonic())
        self._keeper.run(job.run(placed, self._processors))

    def _on_keeper(self) -> None:
        notices = self._keeper.notices()
        if notices is None:
            self._end(obituary("the keeper of the node's jobs", self._keeper.close()), again=True)
            return
        for ended in notices:
            self._on_ended(ended)
        if notices and not self.ended:
            self.tick()

    def _on_ended(self, ended: JobEnded) -> None:
        ticket = ended.run_id
        job = self._jobs.get(ticket)
        if job is None or not job.slots:
            return
        now = time.monotonic()
        self._placement.ended(ticket, now)
        self._usage.end(ticket, now)
        if ended.report.error is not None:
            del self._jobs[ticket]
            if job.condemned:
                self._news.back.append(ticket)
            else:
                self._news.failed.append(
                    FailedRun(
                        ticket=ticket,
                        error=failure_text(ended.report),
                        wall_s=ended.report.wall_s,
                        node_at_fault=ended.node_at_fault,
                        runner_lost=ended.runner_lost,
                        facts=failure_facts(ended.report),
                    )
                )
            return
        job.ended = ended
        if job.void:
            self._jobs.drop([ticket], "")
        elif job.cloned:
            self._send(AskRecord(ticket=ticket))
        else:
            self._record(ticket, job, ended)

    # ---- output ----

    def _record(self, ticket: int, job: JobInHand, ended: JobEnded) -> None:
        def write() -> None:
            self._journals.record(job.task_id, ended, epoch=job.epoch, slots=job.slots)

        try:
            if not self._write(write):
                return
            self._news.done.append((ticket, ended.report.wall_s))
        except PayloadFailed as problem:
            self._news.failed.append(FailedRun(ticket=ticket, error=str(problem), wall_s=ended.report.wall_s))
        del self._jobs[ticket]
        self._keeper.forget(ticket)

    def _write(self, write: Callable[[], None]) -> bool:
        """Whether it was written; if not, the agent has ended."""
        try:
            write()
        except OSError as problem:
            self._end(f"the spool folder refuses writing: {problem}")
            return False
        return True

    def _report(self, now: float) -> None:
        """Tell the queue all that it has not heard."""
        self._reported = now
        loads = None
        if now - self._loads_told >= _LOADS_S:
            self._loads_told = now
            loads = self._usage.loads(now)
            self._loaded = bool(loads)
        stopped = self._finish_at is not None or self.ended
        self._send(self._news.report(loads=loads, stopped=stopped))

    # ---- end ----

    def _end_due(self, now: float) -> None:
        """End what has had its grace."""
        for ticket, job in list(self._jobs.items()):
            times = [t for t in (self._finish_at, self._ending.get(job.task_id)) if t is not None]
            if times and now >= min(times):
                if job.ended is not None:  # nobody has answered whether to record it
                    self._jobs.drop([ticket], "")
                else:
                    self._jobs.condemn(ticket, "the time that was left to it is over")

    def _end_tasks(self) -> None:
        """Close the journals of tasks that are to end and of which nothing is in hand."""
        for task_id in [t for t in self._ending if not self._jobs.of_task(t)]:
            del self._ending[task_id]
            if not self._write(partial(self._journals.close, task_id)):
                return
            self._report(time.monotonic())
            self._send(JobTaskEnded(task_id=task_id))

    def _end(self, error: str | None, *, again: bool = False) -> None:
        """Stop everything, make durable what is finished, say bye. The first reason counts."""
        if self.ended:
            return
        self._bye = JobsBye(error=error, again=again)
        self._selector.unregister(self._keeper.sock)
        self._keeper.close()
        try:
            self._journals.close_all()
        except OSError as problem:
            self._bye = JobsBye(error=error or f"the spool folder refuses writing: {problem}")
        self._news.back += self._jobs
        self._jobs.clear()
        self._report(time.monotonic())
        self._send(self._bye)
