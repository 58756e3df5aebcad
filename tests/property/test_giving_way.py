"""Giving way over time, whatever comes when: no pack is begun for nothing, nothing is interrupted for little, all is done."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.domain.site import AllocationSettings, LimitSettings, NodeSettings, Site
from hpcpanda.planning.actions import AddPack, EndPart, FeedPack, FreeNodes, GiveBack, Plan
from hpcpanda.planning.giving_way import CLEARLY, LEAST_RUN_S
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import AllocationView, PackView, PartView, Situation, TaskView

NODES = 3
SITE = Site(
    name="here",
    spool="/spool",
    nodes=NodeSettings(count=NODES, cores=1, memory_mb=1000),
    allocation=AllocationSettings(walltime_s=100_000, margin_s=1, lookahead_s=10, linger_s=2),
    limits=LimitSettings(allocations=1),
)
"""One allocation of 3 nodes of a core each."""
RANGE_S = 3
"""What a pack has in hand when it is told to end takes so long."""


@dataclass
class Task:
    """A task of events of a second each."""

    number: int
    priority: int
    comes: int
    left: int
    """Events that nobody holds."""
    ready: int = 0
    """Events at the edge that no pack holds."""
    done: int = 0


@dataclass
class Pack:
    """A pack of one stream at a time."""

    name: str
    nodes: int
    stream: int
    held: int
    setup_s: int
    started: int | None = None
    begun: int | None = None
    """Of its present stream."""
    since: int | None = None
    idle_since: int | None = None
    ends: int | None = None
    past: set[int] = field(default_factory=set)

    def view(self, now: int) -> PackView:
        part = PartView(
            task_id=self.stream,
            held=self.held,
            backlog_s=self.held / self.nodes if self.begun is not None else None,
            idle=self.begun is not None and not self.held,
            begun=self.begun,
            since=self.since,
        )
        return PackView(
            pack_id=self.name,
            kind="work",
            nodes=self.nodes,
            parts=(part,),
            past=frozenset(self.past),
            cores=self.nodes if self.started is not None else 0,
            job_cores=0 if self.started is not None else None,
            draining=self.ends is not None,
        )


class World:
    """An edge with one allocation, second by second; every want is answered at once."""

    def __init__(self, tasks: list[Task], setups: list[int]) -> None:
        self.tasks = {t.number: t for t in tasks}
        self.setups = itertools.cycle(setups)
        self.packs: list[Pack] = []
        self.names = itertools.count(1)
        self.now = 0
        self.interrupted = 0

    @property
    def finished(self) -> bool:
        return not any(t.left or t.ready for t in self.tasks.values()) and not any(p.held for p in self.packs)

    def live(self) -> None:
        """A second passes."""
        self.now += 1
        free = NODES - sum(p.nodes for p in self.packs if p.started is not None)
        for pack in list(self.packs):
            if pack.started is None and pack.nodes <= free:
                pack.started = pack.begun = self.now
                free -= pack.nodes
            elif pack.started is not None:
                self.work(pack)
        found = make_plan(self.situation())
        self.act(found)
        self.answer(found)

    def work(self, pack: Pack) -> None:
        assert pack.begun is not None
        task = self.tasks[pack.stream]
        if pack.ends is not None:
            if self.now >= pack.ends:
                task.ready += pack.held
                pack.held = 0
                self.packs.remove(pack)
        elif self.now - pack.begun >= pack.setup_s and pack.held:
            finished = min(pack.held, pack.nodes)
            pack.held -= finished
            task.done += finished
            pack.since = pack.since or self.now
        if pack.held or pack.ends is not None:
            pack.idle_since = None
        elif pack.idle_since is None:
            pack.idle_since = self.now
        elif self.now - pack.idle_since > SITE.allocation.linger_s and pack in self.packs:
            self.packs.remove(pack)

    def situation(self) -> Situation:
        views = tuple(
            TaskView(task_id=t.number, ready=t.ready, priority=t.priority, event_seconds=1.0)
            for t in self.tasks.values()
            if t.comes <= self.now
        )
        allocation = AllocationView(
            allocation_id="a1",
            nodes=NODES,
            packs=tuple(p.view(self.now) for p in self.packs),
            accepts=True,
            running=True,
            seconds_left=50_000.0,
        )
        return Situation(site=SITE, now=float(self.now), tasks=views, allocations=(allocation,))

    def act(self, found: Plan) -> None:
        waiting = sum(p.nodes for p in self.packs if p.started is None)
        for action in found.actions:
            match action:
                case FeedPack(pack_id=name, share=share):
                    pack = self.pack(name)
                    assert pack.ends is None, "it ends"
                    if pack.stream != share.task_id:
                        assert not pack.held
                        pack.past.add(pack.stream)
                        pack.stream, pack.begun, pack.since = share.task_id, self.now, None
                    self.take(share.task_id, share.events, pack)
                case AddPack(pack=plan):
                    (share,) = plan.work
                    made = Pack(f"p{next(self.names)}", plan.nodes, share.task_id, 0, next(self.setups))
                    self.take(share.task_id, share.events, made)
                    self.packs.append(made)
                case FreeNodes():
                    self.interrupt(self.pack(action.pack_id), self.tasks[action.for_task])
                case EndPart(pack_id=name):
                    assert not self.pack(name).held, "what runs is not ended"
                case GiveBack(task_id=task_id):
                    task = self.tasks[task_id]
                    task.left, task.ready = task.left + task.ready, 0
                case _:
                    raise AssertionError(action)
        assert waiting <= NODES

    def interrupt(self, pack: Pack, urgent: Task) -> None:
        """The rule, as it is promised."""
        assert urgent.priority >= self.tasks[pack.stream].priority + CLEARLY
        assert pack.since is not None, "it has come to nothing"
        assert pack.begun is not None
        assert self.now - pack.since >= max(LEAST_RUN_S, pack.since - pack.begun)
        pack.ends = self.now + RANGE_S
        self.interrupted += 1

    def answer(self, found: Plan) -> None:
        """The dispatcher gives what is wanted, the most urgent first."""
        for want in found.wants:
            above = -10_000 if want.above is None else want.above
            for task in sorted(self.tasks.values(), key=lambda t: (-t.priority, t.number)):
                mine = want.task_id in (None, task.number) and task.number not in want.without
                if (
                    mine
                    and want.only != "jobs"
                    and task.comes <= self.now
                    and task.left
                    and task.priority > above
                ):
                    events = min(task.left, max(1, int(want.cores * want.seconds)))
                    task.left, task.ready = task.left - events, task.ready + events
                    break

    def take(self, number: int, events: int, pack: Pack) -> None:
        task = self.tasks[number]
        assert task.ready >= events
        task.ready -= events
        pack.held += events

    def pack(self, name: str) -> Pack:
        return next(p for p in self.packs if p.name == name)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A long task that is not urgent, and others of any priority that come at any time, also again and again."""
    later = draw(
        st.lists(
            st.tuples(st.integers(-10, 30), st.integers(0, 300), st.integers(1, 120)), min_size=1, max_size=8
        )
    )
    tasks = [Task(1, 0, 0, draw(st.integers(100, 600)))]
    tasks += [Task(n, *rest) for n, rest in enumerate(later, 2)]
    return World(tasks, draw(st.lists(st.integers(0, 40), min_size=1, max_size=5)))


def seconds(world: World) -> Iterator[int]:
    """Until all is done; far more than that takes if nodes are used half of the time."""
    work = sum(t.left for t in world.tasks.values())
    for _ in range(int(600 + 4 * work + 200 * len(world.tasks))):
        if world.finished and world.now > 300:
            return
        world.live()
        yield world.now
    raise AssertionError("it never ends")


@settings(max_examples=40)
@given(worlds())
def test_every_pack_comes_to_something_and_all_is_done(world: World) -> None:
    """Interrupted is only what has worked as long as it took to begin, for a clearly higher priority; every event is
    done once, also those of the task that is less urgent than all others."""
    total = {t.number: t.left for t in world.tasks.values()}
    for _ in seconds(world):
        held = {n: t.left + t.ready + t.done for n, t in world.tasks.items()}
        for pack in world.packs:
            held[pack.stream] += pack.held
        assert held == total, "an event is lost, or there twice"
    assert {n: t.done for n, t in world.tasks.items()} == total


def test_the_model_interrupts() -> None:
    """What the test above looks at does come about; an urgent task is served soon, and the long one goes on."""
    world = World([Task(1, 0, 0, 600), Task(2, 50, 100, 30)], [2])
    served = 0
    for now in seconds(world):
        served = served or (now if world.tasks[2].done == 30 else 0)
    assert world.interrupted >= 1
    assert 100 < served < 100 + LEAST_RUN_S + RANGE_S + 2 + 30 + 10
    assert world.tasks[1].done == 600


def test_urgent_tasks_one_after_the_other_leave_the_long_one_half_of_the_time() -> None:
    """A set-up of 40 s and a new urgent task every 50 s: what runs is left alone for as long as it took to begin, so the
    long one ends in time."""
    urgent = [Task(n, 100, 50 * n, 1) for n in range(2, 40)]
    world = World([Task(1, 0, 0, 900), *urgent], [40])
    ends = next(now for now in seconds(world) if world.tasks[1].done == 900)
    assert world.interrupted > 5
    assert ends < 5 * 900 / NODES
