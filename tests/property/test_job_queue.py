"""Whatever agents answer in whatever order, each job is in exactly one place, and recorded at most once an epoch."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
    JobsReady,
    JobsReport,
    RecordJob,
    SetJobAside,
)
from hpcpanda.allocation.job_queue import JobQueue
from hpcpanda.allocation.job_space import Space
from hpcpanda.allocation.plan import LeasedEvents
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobRequest
from tests.support.job_world import JobWorld, job_work, node_room

RANKS, JOBS, ATTEMPTS, DEADLINE = 3, 12, 2, 1000.0
NODE = node_room(4, 4000, 2)
REQUESTS = (
    JobRequest(memory_mb=100, walltime_s=50.0),
    JobRequest(memory_mb=100, walltime_s=50.0, clones=2),
    JobRequest(cores=4, memory_mb=4000, walltime_s=300.0),
    JobRequest(cores=1, memory_mb=1500, gpus=1, walltime_s=100.0),
)
Key = tuple[int, int, int]


def ends(message: object, ticket: int, key: Key) -> bool:
    """Whether a message ends what an agent holds."""
    match message:
        case EndRun():
            return message.ticket == ticket
        case ForgetJobs():
            return message.task_id == key[0] and key[1] in message.epochs
        case EndJobTask():
            return message.task_id == key[0]
    return isinstance(message, FinishJobs)


class QueueMachine(RuleBasedStateMachine):
    """Pretended agents that hold tickets, and sets that know what became of each job."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = JobQueue(ranks=RANKS, node=NODE, deadline=DEADLINE)
        self.now = 0.0
        self.held: list[dict[int, Key]] = [{} for _ in range(RANKS)]
        self.granted: list[set[int]] = [set() for _ in range(RANKS)]
        self.tickets: set[int] = set()
        self.added: set[Key] = set()
        self.revoked: set[tuple[int, int]] = set()
        self.recorded: set[Key] = set()
        self.failures: dict[Key, int] = {}
        self.aside: set[Key] = set()
        self.ready: set[int] = set()
        self.gone: set[int] = set()
        self.draining = False
        self.ended_tasks: set[int] = set()
        self.next_task = 1

    # ---- what the queue says ----

    def deliver(self, sends: list[JobSend]) -> None:
        for send in sends:
            if isinstance(send.message, JobBatch):
                assert send.rank in self.ready
                assert not self.draining
                for part in send.message.slices:
                    for n in range(part.last - part.first):
                        self.take(send.rank, part.ticket + n, (part.task_id, part.epoch, part.first + n))
            elif isinstance(send.message, SetJobAside):
                key = (send.message.task_id, send.message.epoch, send.message.event.event)
                assert self.failures[key] >= ATTEMPTS == send.message.event.attempts
                assert key not in self.aside | self.recorded
                self.aside.add(key)
            elif isinstance(send.message, RecordJob):
                self.granted[send.rank].add(send.message.ticket)
            else:
                held = self.held[send.rank]
                self.give_back(send.rank, [t for t, k in held.items() if ends(send.message, t, k)])

    def take(self, rank: int, ticket: int, key: Key) -> None:
        assert ticket not in self.tickets
        self.tickets.add(ticket)
        assert key in self.added
        assert key[:2] not in self.revoked
        assert key not in self.recorded | self.aside
        assert key[0] not in self.ended_tasks
        request = REQUESTS[key[0] % len(REQUESTS)]
        assert self.now + request.walltime_s <= DEADLINE
        copies = sum(list(h.values()).count(key) for h in self.held)
        assert copies < request.clones
        self.held[rank][ticket] = key
        room = Space.of(NODE)
        for other in self.held[rank].values():
            room -= Space.of(REQUESTS[other[0] % len(REQUESTS)])
        assert room.covers(Space()), "more than the node has"

    def say(self, rank: int, message: object) -> None:
        self.deliver(self.queue.from_agent(rank, message, self.now))  # type: ignore[arg-type]

    def give_back(self, rank: int, tickets: list[int]) -> None:
        tickets = [t for t in tickets if t in self.held[rank]]
        for ticket in tickets:
            del self.held[rank][ticket]
        if tickets:
            self.say(rank, JobsReport(back=tuple(tickets)))

    def pick(self, data: st.DataObject) -> tuple[int, int]:
        return data.draw(st.sampled_from([(r, t) for r, h in enumerate(self.held) for t in sorted(h)]))

    @property
    def anything(self) -> bool:
        return any(self.held)

    # ---- rules ----

    @rule(rank=st.integers(0, RANKS - 1))
    def become_ready(self, rank: int) -> None:
        if rank not in self.ready | self.gone:
            self.ready.add(rank)
            self.say(rank, JobsReady())

    @precondition(lambda self: self.next_task < 6)
    @rule()
    def add(self) -> None:
        number, self.next_task = self.next_task, self.next_task + 1
        self.added |= {(number, 1, n) for n in range(JOBS)}
        # jobs take longer than a second here, so none is given beyond the room
        work = job_work(number, REQUESTS[number % len(REQUESTS)], jobs=JOBS, attempts=ATTEMPTS, seconds=20.0)
        self.deliver(self.queue.add(work, self.now))

    @precondition(lambda self: self.next_task > 1)
    @rule(data=st.data(), epoch=st.integers(1, 3))
    def top_up(self, data: st.DataObject, epoch: int) -> None:
        task = data.draw(st.integers(1, self.next_task - 1))
        if (task, epoch) not in self.revoked:
            self.added |= {(task, epoch, n) for n in range(JOBS)}
        part = LeasedEvents(epoch=epoch, events=IntervalSet.span(0, JOBS))
        self.deliver(self.queue.top_up(task, (part,), self.now))

    @precondition(lambda self: self.next_task > 1)
    @rule(data=st.data(), epoch=st.integers(1, 3))
    def revoke(self, data: st.DataObject, epoch: int) -> None:
        task = data.draw(st.integers(1, self.next_task - 1))
        self.revoked.add((task, epoch))
        self.deliver(self.queue.revoke(task, (epoch,), self.now))

    @precondition(lambda self: self.anything)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        rank, ticket = self.pick(data)
        self.finish(rank, ticket)

    def finish(self, rank: int, ticket: int) -> None:
        key = self.held[rank][ticket]
        if REQUESTS[key[0] % len(REQUESTS)].clones > 1 and ticket not in self.granted[rank]:
            self.say(rank, AskRecord(ticket=ticket))
            return
        del self.held[rank][ticket]
        assert key not in self.recorded, "recorded twice"
        self.recorded.add(key)
        self.say(rank, JobsReport(done=((ticket, 20.0),)))

    @precondition(lambda self: self.anything)
    @rule(data=st.data(), node=st.booleans())
    def fail(self, data: st.DataObject, node: bool) -> None:
        rank, ticket = self.pick(data)
        key = self.held[rank].pop(ticket)
        if not node:
            self.failures[key] = self.failures.get(key, 0) + 1
        self.say(rank, JobsReport(failed=(FailedRun(ticket=ticket, error="x", node_at_fault=node),)))

    @precondition(lambda self: self.anything)
    @rule(data=st.data(), how=st.sampled_from(["back", "stale", "late"]))
    def return_it(self, data: st.DataObject, how: str) -> None:
        rank, ticket = self.pick(data)
        del self.held[rank][ticket]
        self.say(rank, JobsReport(**{how: (ticket,)}))

    @rule(seconds=st.floats(0.1, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.next_task > 2)
    @rule(data=st.data())
    def end_task(self, data: st.DataObject) -> None:
        task = data.draw(st.integers(1, self.next_task - 1))
        self.ended_tasks.add(task)
        self.deliver(self.queue.end_task(task, 0.0, self.now))

    @precondition(lambda self: len(self.ready) > 1)
    @rule(data=st.data(), error=st.sampled_from([None, "keeper is gone"]))
    def bye(self, data: st.DataObject, error: str | None) -> None:
        rank = data.draw(st.sampled_from(sorted(self.ready)))
        self.ready.remove(rank)
        self.gone.add(rank)
        self.held[rank].clear()
        self.draining |= error is not None
        self.say(rank, JobsBye(error=error))

    @invariant()
    def accounts_agree(self) -> None:
        self.queue.validate()
        alive = {k for k in self.recorded if k[:2] not in self.revoked}
        late = {k for k in self.recorded if k[:2] in self.revoked}
        done = sum(p.done for p in self.queue.progress(self.now))
        assert len(alive) <= done <= len(alive) + len(late)

    def teardown(self) -> None:
        """Left alone, every job ends: recorded, set aside, revoked, or undone when nobody can run it."""
        for _ in range(3000):
            if not self.anything:
                break
            rank = next(r for r, h in enumerate(self.held) if h)
            self.finish(rank, min(self.held[rank]))
        assert not self.anything
        usable = self.ready and not self.draining and not self.queue.complaints
        if usable:
            assert self.queue.idle
        self.queue.validate()


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


@settings(max_examples=25, deadline=None)
@given(
    seconds=st.lists(st.floats(0.01, 40.0), min_size=1, max_size=6),
    ranks=st.integers(1, 3),
    range_s=st.sampled_from([0.0, 2.0]),
    walltime=st.sampled_from([41.0, 300.0]),
)
def test_a_whole_node_job_never_starves(
    seconds: list[float], ranks: int, range_s: float, walltime: float
) -> None:
    """However long the small ones are, it starts when the least served and one small job's walltime have passed."""
    world = JobWorld(ranks=ranks, seconds=lambda task, job: seconds[job % len(seconds)], range_s=range_s)
    world.add(job_work(1, JobRequest(memory_mb=100, walltime_s=walltime), jobs=3000))
    world.run(until=20.0)
    world.add(job_work(2, JobRequest(cores=4, memory_mb=100, walltime_s=walltime), jobs=1))
    world.run(until=20.0 + walltime + 40.0)
    small_left = 3000 - len(world.begun(1))
    assert len(world.begun(2)) == 1 or small_left == 0
    world.queue.validate()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_job_ends_once(data: st.DataObject) -> None:
    """Queue, placements and events together, with failures: all are recorded or set aside, and slots are never shared."""
    bad = data.draw(st.sets(st.integers(0, 15), max_size=4))
    sizes = data.draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4))
    world = JobWorld(
        ranks=data.draw(st.integers(1, 3)),
        node=NODE,
        seconds=lambda task, job: 0.02 * (1 + job) * task**3,
        fails=lambda task, job, rank: "bad" if job in bad else None,
        range_s=data.draw(st.sampled_from([0.0, 2.0])),
        event_memory=data.draw(st.sampled_from([None, 900])),
    )
    for n, request in enumerate(sizes, 1):
        world.add(job_work(n, request, jobs=16, attempts=2))
    world.run()
    everything = {(n, job) for n in range(1, len(sizes) + 1) for job in range(16)}
    assert {(t, j) for t, _, j in world.recorded} == {(t, j) for t, j in everything if j not in bad}
    assert sorted((t, j) for t, j, _ in world.aside) == sorted((t, j) for t, j in everything if j in bad)
    assert world.queue.idle
