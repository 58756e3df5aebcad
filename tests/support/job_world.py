"""A pack of jobs in virtual time: the real job queue and the real placements, with pretended agents between them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from hpcpanda.allocation.job_hand_out import JobSend
from hpcpanda.allocation.job_messages import (
    AskRecord,
    EndJobTask,
    EndRun,
    FailedRun,
    FinishJobs,
    ForgetJobs,
    JobBatch,
    JobsBye,
    JobSlice,
    JobsReady,
    JobsReport,
    JobTask,
    JobTaskEnded,
    JobToAgent,
    RecordJob,
    SetJobAside,
)
from hpcpanda.allocation.job_placement import JobPlacement, Placed
from hpcpanda.allocation.job_queue import JobQueue
from hpcpanda.allocation.job_space import Space
from hpcpanda.allocation.plan import LeasedEvents, TaskWork
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.room import Room
from hpcpanda.domain.task import LossPolicy, TaskSpec

ROUND_TRIP_S = 0.02


def job_work(
    task_id: int,
    request: JobRequest | None = None,
    *,
    jobs: int = 10,
    epoch: int = 1,
    attempts: int = 3,
    seconds: float | None = None,
    command: tuple[str, ...] = ("true",),
    outputs: tuple[str, ...] = (),
) -> TaskWork:
    """A task of jobs, all of them leased under one epoch; ``seconds`` is what a job is thought to take."""
    request = request or JobRequest(memory_mb=100, walltime_s=60.0)
    spec = TaskSpec(
        name=f"task-{task_id}",
        payload=JobPayload(command=command, outputs=outputs),
        output=Output(file="out.zip", format=OutputFormat.ZIP),
        jobs=max(jobs, 1),
        job=request,
        loss=LossPolicy(attempts=attempts),
    )
    return TaskWork(
        task_id=task_id,
        spec=spec,
        events=(LeasedEvents(epoch=epoch, events=IntervalSet.span(0, jobs)),),
        event_seconds=None if seconds is None else seconds * request.cores,
    )


def node_room(cores: int = 4, memory_mb: int = 8000, gpus: int = 0) -> Room:
    """A node."""
    return Room(cores=cores, memory_mb=memory_mb, gpus=gpus, seconds=1e6)


@dataclass(frozen=True, slots=True)
class Lived:
    """A job's run."""

    rank: int
    task_id: int
    number: int
    begin: float
    slots: tuple[int, ...]


@dataclass(slots=True)
class PretendedNode:
    """What an agent does, without processes."""

    world: JobWorld
    rank: int
    placement: JobPlacement
    specs: dict[int, TaskSpec] = field(default_factory=dict)
    jobs: dict[int, tuple[JobSlice, int]] = field(default_factory=dict)
    running: dict[int, Placed] = field(default_factory=dict)
    asking: set[int] = field(default_factory=set)
    stopped: bool = False
    more: bool = False

    def receive(self, message: JobToAgent) -> None:
        match message:
            case JobTask():
                self.specs[message.task_id] = message.spec
            case JobBatch():
                assert not self.stopped
                self.more = message.more
                for part in message.slices:
                    self._take(part)
            case RecordJob(ticket=ticket):
                self._recorded(ticket)
            case EndRun(ticket=ticket):
                self._drop([ticket])
            case SetJobAside():
                self.world.aside.append((message.task_id, message.event.event, self.rank))
            case ForgetJobs():
                parts = self.jobs.items()
                wanted = [
                    t for t, (s, _) in parts if s.task_id == message.task_id and s.epoch in message.epochs
                ]
                self._drop(wanted)
            case EndJobTask():
                self._drop([t for t, (s, _) in self.jobs.items() if s.task_id == message.task_id])
                self.say(JobTaskEnded(task_id=message.task_id))
            case FinishJobs():
                self.stopped = True
                self._drop(list(self.jobs))
                self.say(JobsBye())
        self.step()

    def say(self, message: object) -> None:
        self.world.later(ROUND_TRIP_S / 2, lambda: self.world.to_queue(self.rank, message))

    def step(self) -> None:
        if self.stopped:
            return
        now = self.world.now
        step = self.placement.step(now, more=self.more)
        for placed in step.start:
            self._start(placed)
        if step.late or step.stale:
            for ticket in step.late + step.stale:
                del self.jobs[ticket]
            self.say(JobsReport(late=step.late, stale=step.stale))
        for slot in step.reserve:
            self.world.later(self.world.range_s, lambda s=slot: self._free(s))

    def _free(self, slot: int) -> None:
        self.placement.free([slot], self.world.now)
        self.step()

    def _take(self, part: JobSlice) -> None:
        request = self.specs[part.task_id].job_request
        assert request is not None
        tickets = range(part.ticket, part.ticket + part.last - part.first)
        for n, ticket in enumerate(tickets):
            assert ticket not in self.world.tickets, "a ticket is given twice"
            self.world.tickets.add(ticket)
            self.jobs[ticket] = (part, part.first + n)
        self.placement.add(part.task_id, Space.of(request), request.walltime_s, tickets, self.world.now)

    def _start(self, placed: Placed) -> None:
        part, number = self.jobs[placed.ticket]
        assert self.world.now + self._request(placed.ticket).walltime_s <= self.world.deadline
        others = list(self.running.values())
        assert not {s for p in others for s in p.slots} & set(placed.slots)
        assert not {g for p in others for g in p.gpus} & set(placed.gpus)
        self.running[placed.ticket] = placed
        self.world.lived.append(Lived(self.rank, part.task_id, number, self.world.now, placed.slots))
        seconds = min(self.world.seconds(part.task_id, number), self._request(placed.ticket).walltime_s)
        self.world.later(seconds, lambda: self._ended(placed.ticket))

    def _request(self, ticket: int) -> JobRequest:
        request = self.specs[self.jobs[ticket][0].task_id].job_request
        assert request is not None
        return request

    def _ended(self, ticket: int) -> None:
        if ticket not in self.running:
            return
        part, number = self.jobs[ticket]
        del self.running[ticket]
        self.placement.ended(ticket, self.world.now)
        why = self.world.fails(part.task_id, number, self.rank)
        if why is not None:
            del self.jobs[ticket]
            self.say(JobsReport(failed=(FailedRun(ticket=ticket, error=why, node_at_fault=why == "node"),)))
        elif self._clones(part.task_id):
            self.asking.add(ticket)
            self.say(AskRecord(ticket=ticket))
        else:
            self._recorded(ticket)
        self.step()

    def _clones(self, task_id: int) -> bool:
        request = self.specs[task_id].job_request
        return request is not None and request.clones > 1

    def _recorded(self, ticket: int) -> None:
        if ticket not in self.jobs:
            return
        part, number = self.jobs.pop(ticket)
        self.asking.discard(ticket)
        key = (part.task_id, part.epoch, number)
        assert key not in self.world.recorded, f"{key} is recorded twice"
        self.world.recorded.add(key)
        self.say(JobsReport(done=((ticket, self.world.seconds(part.task_id, number)),)))

    def _drop(self, tickets: list[int]) -> None:
        tickets = [t for t in tickets if t in self.jobs]
        self.placement.drop(tickets)
        for ticket in tickets:
            del self.jobs[ticket]
            self.asking.discard(ticket)
            if self.running.pop(ticket, None):
                self.placement.ended(ticket, self.world.now)
        if tickets:
            self.say(JobsReport(back=tuple(tickets)))


class JobWorld:
    """Time, messages and the clock of the pretended pack."""

    def __init__(
        self,
        *,
        ranks: int = 1,
        node: Room | None = None,
        deadline: float = 1e6,
        seconds: Callable[[int, int], float] = lambda task, job: 1.0,
        fails: Callable[[int, int, int], str | None] = lambda task, job, rank: None,
        range_s: float = 0.0,
        event_memory: int | None = None,
    ) -> None:
        node = node or node_room()
        self.now = 0.0
        self.deadline = deadline
        self.seconds, self.fails, self.range_s = seconds, fails, range_s
        self.queue = JobQueue(ranks=ranks, node=node, deadline=deadline)
        self.nodes = [PretendedNode(self, r, self._placement(node, event_memory)) for r in range(ranks)]
        self.tickets: set[int] = set()
        self.recorded: set[tuple[int, int, int]] = set()
        self.aside: list[tuple[int, int, int]] = []
        self.lived: list[Lived] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        for rank in range(ranks):
            self.to_queue(rank, JobsReady())

    def _placement(self, node: Room, event_memory: int | None) -> JobPlacement:
        placement = JobPlacement(
            slots=node.cores, memory_mb=node.memory_mb, gpus=node.gpus, deadline=self.deadline
        )
        placement.set_event_memory(event_memory)
        return placement

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something after a time."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), do))

    def send(self, sends: list[JobSend]) -> None:
        """Messages of the queue, which arrive after a while."""
        for send in sends:
            self.later(ROUND_TRIP_S / 2, lambda s=send: self.nodes[s.rank].receive(s.message))

    def to_queue(self, rank: int, message: object) -> None:
        """A message of an agent has arrived."""
        self.send(self.queue.from_agent(rank, message, self.now))  # type: ignore[arg-type]

    def add(self, work: TaskWork) -> None:
        """Give the queue a task."""
        self.send(self.queue.add(work, self.now))

    def run(self, until: float = 1e9) -> None:
        """Let time pass until nothing happens any more, or that time."""
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()
        if until < 1e9:
            self.now = max(self.now, until)

    def begun(self, task_id: int) -> list[float]:
        """When jobs of a task have begun."""
        return [run.begin for run in self.lived if run.task_id == task_id]
