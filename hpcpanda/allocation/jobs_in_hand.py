"""The jobs that a node has in hand: taken from the queue, given back, ended for no fault of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hpcpanda.allocation.job_keeper import JobKeeper
from hpcpanda.allocation.job_messages import EndRun, ForgetJobs, JobBatch
from hpcpanda.allocation.job_news import JobNews
from hpcpanda.allocation.job_placement import JobPlacement, Placed
from hpcpanda.allocation.job_run import JobEnded, JobRun
from hpcpanda.allocation.job_space import Space
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.domain.task import TaskSpec


@dataclass(slots=True)
class JobInHand:
    """A ticket in hand."""

    task_id: int
    epoch: int
    number: int
    attempt: int
    spec: TaskSpec
    """The task's when it came."""
    content: JobSlice | None = None
    """What it has to do, of a task that was cut into jobs."""
    slots: tuple[int, ...] = ()
    """Empty until it has begun."""
    ended: JobEnded | None = None
    """It has succeeded, and waits for the queue's leave to be recorded."""
    condemned: bool = False
    """It was told to end for no fault of its own."""
    void: bool = False
    """Not to be recorded in any case."""

    @property
    def cloned(self) -> bool:
        """Whether another clone may be first."""
        request = self.spec.job_request
        return request is not None and request.clones > 1

    def run(self, placed: Placed, processors: tuple[int, ...]) -> JobRun:
        """What the keeper is told; ``processors``: of each slot, empty where jobs are not bound."""
        spec, request = self.spec, self.spec.job_request
        assert isinstance(spec.payload, JobPayload)
        assert request is not None
        return JobRun(
            run_id=placed.ticket,
            task_id=self.task_id,
            epoch=self.epoch,
            job=self.number,
            attempt=self.attempt,
            jobs=spec.event_count,
            seed=spec.seed,
            payload=spec.payload,
            request=request,
            content=self.content,
            container=spec.container,
            processors=tuple(processors[s] for s in placed.slots) if processors else (),
            gpus=placed.gpus,
        )


class JobsInHand(dict[int, JobInHand]):
    """Jobs by ticket.

    Args:
        keeper: runs them.
        placement: of the node.
        news: what the queue is to hear.
    """

    def __init__(self, keeper: JobKeeper, placement: JobPlacement, news: JobNews) -> None:
        super().__init__()
        self.specs: dict[int, TaskSpec] = {}
        """Of tasks, as they were last told."""
        self._keeper = keeper
        self._placement = placement
        self._news = news

    def take(self, batch: JobBatch, now: float, *, finishing: bool) -> None:
        """Jobs have come, to be placed; when the node finishes they go back."""
        contents = dict(batch.contents)
        for part in batch.slices:
            tickets = range(part.ticket, part.ticket + part.last - part.first)
            spec = self.specs[part.task_id]
            for n, ticket in enumerate(tickets):
                self[ticket] = JobInHand(
                    part.task_id, part.epoch, part.first + n, part.attempt, spec, contents.get(ticket)
                )
            if finishing:
                self.give_back(tickets)
                continue
            request = spec.job_request
            assert request is not None, "a task of events"
            self._placement.add(part.task_id, Space.of(request), request.walltime_s, tickets, now)

    def of_task(self, task_id: int) -> list[int]:
        """Tickets of a task."""
        return [ticket for ticket, job in self.items() if job.task_id == task_id]

    def give_back(self, tickets: Iterable[int]) -> None:
        """Those of these jobs that have not begun go back."""
        waiting = {t for t in tickets if not self[t].slots}
        self._placement.drop(waiting)
        for ticket in waiting:
            del self[ticket]
        self._news.back += waiting

    def drop_as_told(self, message: EndRun | ForgetJobs) -> None:
        """The queue does not want some any more."""
        match message:
            case EndRun(ticket=ticket):
                self.drop([ticket] if ticket in self else [], "another clone of the job was first")
            case ForgetJobs(task_id=task_id, epochs=epochs):
                tickets = [t for t in self.of_task(task_id) if self[t].epoch in epochs]
                self.drop(tickets, "its lease was revoked")

    def drop(self, tickets: Collection[int], why: str) -> None:
        """Be done with these jobs at once, whatever they have come to."""
        self.give_back(tickets)
        for ticket in [t for t in tickets if t in self]:
            job = self[ticket]
            job.void = True
            if job.ended is not None:
                self._keeper.forget(ticket)
                del self[ticket]
                self._news.back.append(ticket)
            else:
                self.condemn(ticket, why)

    def condemn(self, ticket: int, why: str) -> None:
        """End a run for no fault of its own."""
        if not self[ticket].condemned:
            self[ticket].condemned = True
            self._keeper.end(ticket, why)
