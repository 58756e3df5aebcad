"""Whatever comes in whatever order: no slot, GPU or MiB is given twice, and everything is placed in the end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hpcpanda.allocation.job_placement import JobPlacement, Placed
from hpcpanda.allocation.job_space import Space

SLOTS, MEMORY, GPUS, DEADLINE = 6, 6000, 2, 500.0

spaces = st.builds(Space, st.integers(1, SLOTS), st.integers(1, MEMORY), st.integers(0, GPUS))


class PlacementMachine(RuleBasedStateMachine):
    """A node whose event side gives up slots whenever it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.node = JobPlacement(slots=SLOTS, memory_mb=MEMORY, gpus=GPUS, deadline=DEADLINE)
        self.now = 0.0
        self.events = set(range(SLOTS))
        self.asked: set[int] = set()
        self.waiting: dict[int, tuple[Space, float]] = {}
        self.running: dict[int, tuple[Placed, Space]] = {}
        self.worker_mb = 0
        self.tasks: list[tuple[Space, float]] = []
        self.next_ticket = 1

    @rule(space=spaces, walltime=st.floats(1, 100), count=st.integers(1, 5))
    def add(self, space: Space, walltime: float, count: int) -> None:
        self.tasks.append((space, walltime))
        self.more(len(self.tasks) - 1, count)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), count=st.integers(1, 5))
    def add_more(self, data: st.DataObject, count: int) -> None:
        self.more(data.draw(st.integers(0, len(self.tasks) - 1)), count)

    def more(self, task: int, count: int) -> None:
        space, walltime = self.tasks[task]
        tickets = range(self.next_ticket, self.next_ticket + count)
        self.next_ticket += count
        self.waiting.update(dict.fromkeys(tickets, (space, walltime)))
        self.node.add(task, space, walltime, tickets, self.now)
        self.step()

    @rule(mb=st.sampled_from([None, 100, 1000, 2000]))
    def change_events(self, mb: int | None) -> None:
        self.worker_mb = mb or 0
        self.node.set_event_memory(mb)
        self.step()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        slots = data.draw(st.sets(st.sampled_from(sorted(self.asked)), min_size=1))
        self.asked -= slots
        self.node.free(slots, self.now)
        self.step()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[ticket]
        self.node.ended(ticket, self.now)
        self.step()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        tickets = data.draw(st.sets(st.sampled_from(sorted(self.waiting)), min_size=1))
        assert set(self.node.drop(tickets)) == tickets
        for ticket in tickets:
            del self.waiting[ticket]
        self.step()

    @rule(seconds=st.floats(0.01, 20))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    def step(self, *, more: bool = True) -> None:
        step = self.node.step(self.now, more=more)
        for placed in step.start:
            self.start(placed)
        for ticket in step.late:
            assert self.now + self.waiting.pop(ticket)[1] > DEADLINE
        for ticket in step.stale:
            del self.waiting[ticket]
        assert step.reserve <= self.events
        self.events -= step.reserve
        self.asked |= step.reserve
        held = {s for p, _ in self.running.values() for s in p.slots}
        assert not step.unreserve & (self.events | self.asked | held)
        self.events |= step.unreserve

    def start(self, placed: Placed) -> None:
        space, walltime = self.waiting.pop(placed.ticket)
        assert self.now + walltime <= DEADLINE
        assert len(set(placed.slots)) == space.cores
        assert len(set(placed.gpus)) == space.gpus
        assert not set(placed.slots) & (self.events | self.asked)
        for other, _ in self.running.values():
            assert not set(other.slots) & set(placed.slots)
            assert not set(other.gpus) & set(placed.gpus)
        self.running[placed.ticket] = (placed, space)
        jobs_mb = sum(s.memory_mb for _, s in self.running.values())
        assert jobs_mb + self.worker_mb * len(self.events | self.asked) <= MEMORY

    @invariant()
    def knows_what_waits(self) -> None:
        assert self.node.waiting == len(self.waiting)

    def teardown(self) -> None:
        """When events leave and jobs end, all that has time is run, and events get everything back."""
        for _ in range(2000):
            if not (self.waiting or self.running or self.asked):
                break
            if self.asked:
                slots, self.asked = self.asked, set()
                self.node.free(slots, self.now)
            if self.running:
                ticket = min(self.running)
                del self.running[ticket]
                self.node.ended(ticket, self.now)
            self.step(more=False)
        self.step(more=False)
        assert (self.waiting, self.running, self.asked) == ({}, {}, set())
        assert self.events == set(range(SLOTS))


TestPlacement = PlacementMachine.TestCase
TestPlacement.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
