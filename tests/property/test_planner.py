"""Whatever the situation, and whatever plans did to it: limits are kept, nothing is given twice, plans come to rest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import AllocationSettings, LimitSettings, NodeSettings, QueueLimits, Site
from hpcpanda.domain.states import TaskState
from hpcpanda.packing.forecast import Forecast, QueueWait
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.planning.actions import (
    Action,
    AddPack,
    CancelAllocation,
    EndPart,
    FeedPack,
    FreeNodes,
    GiveBack,
    NewAllocation,
    PackPlan,
    Plan,
    Reason,
)
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import AllocationView, PackView, PartView, Situation, TaskView

SITE = Site(
    name="here",
    spool="/spool",
    nodes=NodeSettings(count=6, cores=2, memory_mb=1000),
    allocation=AllocationSettings(walltime_s=60, margin_s=1, lookahead_s=10),
    limits=LimitSettings(allocations=3),
)
"""6 nodes of 2 cores and 1000 MiB, 3 allocations of 60 s with a margin of 1 s."""
LONG = replace(SITE, allocation=replace(SITE.allocation, walltime_s=600.0))


@dataclass
class World:
    """A model of what plans act on: it refuses what must never be planned."""

    site: Site
    windows: tuple[BackfillWindow, ...] | None
    tasks: dict[int, TaskView]
    allocations: dict[str, AllocationView] = field(default_factory=dict)
    draining: bool = False
    submit_not_before: float = 0.0
    forecast: Forecast = field(default_factory=Forecast)
    now: float = 100.0
    numbers: int = 0
    ended: set[tuple[str, str, int]] = field(default_factory=set)
    """Tasks that a pack was told to be done with; it shows them until time passes."""

    @property
    def situation(self) -> Situation:
        return Situation(
            site=self.site,
            now=self.now,
            tasks=tuple(self.tasks.values()),
            allocations=tuple(self.allocations.values()),
            windows=self.windows,
            windows_seen=self.now - 20.0,
            forecast=self.forecast,
            submit_not_before=self.submit_not_before,
            draining=self.draining,
        )

    def act(self) -> Plan:
        found = make_plan(self.situation)
        assert found.reasons.keys() == self.tasks.keys() == found.numbers.keys()
        assert all(why.code and why.sentence for why in found.refusals)
        assert all(w.cores > 0 and w.seconds > 0 for w in found.wants)
        copied = {t.task_id for t in self.tasks.values() if t.staging}
        for want in found.wants:
            assert want.task_id not in copied, "more is asked for than can be copied"
            assert want.task_id is not None or copied <= {*want.without}
        placed = {t for a in found.actions for t in tasks_of(a)}
        for task in self.tasks.values():
            waits = found.reasons[task.task_id] in (
                Reason.WAITING_FOR_NODES,
                Reason.STARTING,
                Reason.RUNNING,
            )
            mpi = task.job is not None and task.job.nodes > 1
            assert not task.ready or task.task_id in placed or (mpi and waits), "lies here without a reason"
        for action in found.actions:
            self.apply(action)
        left = {t.task_id for t in self.tasks.values() if t.ready and (t.job is None or t.job.nodes == 1)}
        assert not left, "neither given to packs nor given back"
        assert not (self.draining and any(t.staging for t in self.tasks.values())), "it would never end"
        new = [a for a in found.actions if isinstance(a, NewAllocation)]
        assert not new or len(self.allocations) <= self.site.limits.allocations
        assert not new or sum(a.nodes for a in self.allocations.values()) <= self.site.node_limit
        assert not (self.draining and (new or found.wants))
        return found

    def apply(self, action: Action) -> None:
        match action:
            case GiveBack():
                task = self.tasks[action.task_id]
                assert task.ready or task.staging, "there is nothing to give back"
                self.tasks[action.task_id] = replace(task, ready=0, staging=False)
            case FeedPack():
                self.feed(self.allocations[action.allocation_id], action)
            case EndPart():
                allocation = self.allocations[action.allocation_id]
                pack = pack_of(allocation, action.pack_id)
                part = pack.part(action.task_id)
                assert part is not None
                assert part.idle
                assert not part.of_jobs
                self.ended.add((action.allocation_id, action.pack_id, action.task_id))
            case FreeNodes():
                allocation = self.allocations[action.allocation_id]
                assert not any(p.draining for p in allocation.packs), "one at a time"
                pack = pack_of(allocation, action.pack_id)
                assert pack.kind == "work"
                self.put(allocation, replace(pack, draining=True))
            case AddPack():
                allocation = self.allocations[action.allocation_id]
                assert allocation.running
                assert allocation.accepts
                assert action.pack.nodes <= allocation.free_nodes, "nodes used twice"
                self.allocations[allocation.allocation_id] = replace(
                    allocation,
                    packs=(*allocation.packs, self.started(action.pack, allocation.seconds_left)),
                )
            case NewAllocation():
                self.submit(action)
            case CancelAllocation():
                allocation = self.allocations[action.allocation_id]
                assert not allocation.running, "it works"
                assert action.because.sentence
                self.allocations[action.allocation_id] = replace(allocation, accepts=False)

    def submit(self, action: NewAllocation) -> None:
        queue, useful = self.site.queue, action.walltime_s - self.site.allocation.margin_s
        assert self.now >= self.submit_not_before
        assert queue.min_nodes <= action.nodes <= (queue.max_nodes or action.nodes)
        assert action.walltime_s <= self.site.allocation.walltime_s
        assert action.why
        assert action.because is not None
        assert 0 <= action.because.numbers["useful_share"] <= 1
        used = sum(p.nodes for p in action.packs)
        assert used == action.nodes or (used < queue.min_nodes == action.nodes)
        assert used == action.nodes or all(p.kind != "work" for p in action.packs)
        self.numbers += 1
        name = f"new{self.numbers}"
        self.allocations[name] = AllocationView(
            allocation_id=name,
            nodes=action.nodes,
            packs=tuple(self.started(p, useful) for p in action.packs),
            accepts=True,
            seconds_left=useful,
            in_window=action.in_window,
            asked=self.now,
        )

    def take(self, task_id: int, count: int, kind: str, nodes: int, seconds: float) -> PartView:
        """Some of what is ready, as a part of a pack in which it fits."""
        task = self.tasks[task_id]
        assert not task.state.final
        assert not task.fault
        if kind == "merge":
            assert (count, task.state.final, task.mergeable) == (0, False, True)
            return PartView(task_id=task_id)
        assert 0 < count <= task.ready, "given twice"
        self.tasks[task_id] = replace(task, ready=task.ready - count)
        if task.job is None:
            assert kind == "work"
        elif task.job.nodes > 1:
            assert (kind, nodes, count) == ("mpi-job", task.job.nodes, 1)
            assert task.job.walltime_s <= seconds
        else:
            assert kind == "work"
            assert self.can_start(task, nodes, seconds) >= count
        return PartView(task_id=task_id, of_jobs=task.job is not None, waiting=count, held=count)

    def can_start(self, task: TaskView, nodes: int, seconds: float) -> int:
        """Jobs that a pack which has nothing else can start in time, worked out in another way."""
        job = task.job
        assert job is not None
        known = task.job_seconds if task.job_seconds is not None else (task.event_seconds or 1e9) / job.cores
        expected = min(job.walltime_s, known)
        on_node = min(2 // job.cores, 1000 // job.memory_mb)
        at_once, at, started = max(1, on_node * nodes // job.clones), 0.0, 0
        assert on_node
        while at <= seconds - job.walltime_s + 1e-6 and started < 100_000:
            started, at = started + at_once, at + max(expected, 0.01)
        return started

    def started(self, pack: PackPlan, seconds: float) -> PackView:
        self.numbers += 1
        parts = tuple(self.take(s.task_id, s.events, pack.kind, pack.nodes, seconds) for s in pack.work)
        assert parts
        assert sum(not p.of_jobs for p in parts) <= 1
        return PackView(pack_id=f"new{self.numbers}", kind=pack.kind, nodes=pack.nodes, parts=parts)

    def feed(self, allocation: AllocationView, action: FeedPack) -> None:
        pack, share = pack_of(allocation, action.pack_id), action.share
        assert allocation.accepts
        assert not pack.draining
        assert share.task_id not in pack.past, "a task is given to a pack that is done with it"
        more = self.take(share.task_id, share.events, pack.kind, pack.nodes, allocation.seconds_left)
        over = {t for a, p, t in self.ended if (a, p) == (allocation.allocation_id, pack.pack_id)}
        assert share.task_id not in over, "a task is given to a pack that was told to end it"
        streams = [p for p in pack.parts if not p.of_jobs and p.task_id not in over]
        assert more.of_jobs or not streams or streams == [pack.part(share.task_id)], "two streams"
        old = pack.part(share.task_id)
        if old is not None:
            more = replace(more, waiting=old.waiting + more.waiting, held=old.held + more.held)
        parts = (*(p for p in pack.parts if p is not old), more)
        self.put(allocation, replace(pack, parts=parts, job_cores=None))

    def put(self, allocation: AllocationView, pack: PackView) -> None:
        packs = tuple(pack if p.pack_id == pack.pack_id else p for p in allocation.packs)
        self.allocations[allocation.allocation_id] = replace(allocation, packs=packs)

    def move_on(self, *, starts: bool, ends: bool) -> None:
        """Time passes: allocations start; tasks that were told to end, packs that drain, and MPI jobs, are over."""
        for name, pack_id, task_id in self.ended:
            pack = pack_of(self.allocations[name], pack_id)
            parts = tuple(p for p in pack.parts if p.task_id != task_id)
            self.put(self.allocations[name], replace(pack, parts=parts, past=pack.past | {task_id}))
        self.ended.clear()
        for name, allocation in self.allocations.items():
            running = allocation.running or starts
            packs = [
                p
                for p in allocation.packs
                if not (running and (p.draining or (ends and p.kind == "mpi-job")))
            ]
            self.allocations[name] = replace(
                allocation,
                running=running,
                packs=tuple(replace(p, cores=2 * p.nodes) if running else p for p in packs),
            )


def pack_of(allocation: AllocationView, pack_id: str) -> PackView:
    return next(p for p in allocation.packs if p.pack_id == pack_id)


def tasks_of(action: Action) -> set[int]:
    match action:
        case NewAllocation():
            return {s.task_id for p in action.packs for s in p.work}
        case AddPack():
            return {s.task_id for s in action.pack.work}
        case FeedPack():
            return {action.share.task_id}
        case GiveBack():
            return {action.task_id}
    return set()


requests = st.builds(
    JobRequest,
    cores=st.integers(1, 3),
    memory_mb=st.sampled_from([100, 400, 600, 2000]),
    clones=st.sampled_from([1, 1, 2]),
    walltime_s=st.sampled_from([1.0, 10.0, 30.0, 59.0, 400.0]),
)
mpi_requests = st.builds(
    JobRequest,
    nodes=st.integers(2, 7),
    memory_mb=st.just(100),
    walltime_s=st.sampled_from([1.0, 10.0, 30.0, 59.0, 400.0]),
)
views = st.builds(
    TaskView,
    task_id=st.integers(1, 6),
    state=st.sampled_from([*TaskState, *(4 * [TaskState.RUNNING])]),
    job=st.none() | requests | mpi_requests,
    ready=st.integers(0, 40) | st.integers(0, 10_000),
    staging=st.sampled_from([False, False, True]),
    event_seconds=st.none() | st.floats(0.1, 100),
    job_seconds=st.sampled_from([None, None, 5.0, 500.0]),
    deadline=st.sampled_from([None, None, 50.0, 1e6]),
    not_before=st.sampled_from([0.0, 0.0, 0.0, 1000.0]),
    priority=st.integers(-1, 1),
    mergeable=st.booleans(),
    merged=st.booleans(),
    fault=st.sampled_from([False, False, False, True]),
)
windows = st.none() | st.lists(
    st.builds(
        BackfillWindow,
        queue=st.sampled_from([None, None, "other"]),
        nodes=st.integers(1, 8),
        seconds=st.none() | st.floats(1, 1000),
    ),
    max_size=3,
).map(tuple)
sites = st.builds(
    lambda site, allocations, nodes, fewest, most, preemptible, queued: replace(
        site,
        limits=replace(
            site.limits,
            allocations=allocations,
            nodes=max(nodes, fewest),
            queued=min(queued, allocations) if queued else None,
        ),
        queue=QueueLimits(min_nodes=fewest, max_nodes=most, preemptible=preemptible),
    ),
    st.sampled_from([SITE, LONG]),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 2),
    st.none() | st.just(6),
    st.booleans(),
    st.none() | st.integers(1, 3),
)
forecasts = st.builds(
    Forecast,
    startup_s=st.sampled_from([0.0, 3.0, 40.0, 1e5]),
    preemptions_per_node_hour=st.sampled_from([0.0, 0.0, 0.1, 50.0]),
    queue_waits=st.sampled_from([(), (QueueWait(nodes=2, seconds=60.0, median_s=30.0, p90_s=300.0),)]),
)


@st.composite
def pack_views(draw: st.DrawFn, tasks: dict[int, TaskView], name: str, nodes: int) -> PackView:
    """A pack as it could have come to be."""
    loose = [t for t in tasks.values() if t.job is None or t.job.nodes == 1]
    rigid = [t for t in tasks.values() if t.job is not None and t.job.nodes == nodes > 1]
    running = draw(st.booleans())
    if rigid and draw(st.booleans()):
        part = PartView(task_id=draw(st.sampled_from(rigid)).task_id, of_jobs=True, held=1)
        return PackView(pack_id=name, kind="mpi-job", nodes=nodes, parts=(part,))
    chosen = (
        draw(st.lists(st.sampled_from(loose), unique_by=lambda t: t.task_id, max_size=3)) if loose else []
    )
    events = [t for t in chosen if t.job is None][:1]
    parts = [
        PartView(
            task_id=t.task_id,
            of_jobs=t.job is not None,
            backlog_s=draw(st.none() | st.floats(0, 50)),
            held=draw(st.integers(0, 20)),
            idle=draw(st.booleans()),
        )
        for t in chosen
        if t.job is not None or t in events
    ]
    return PackView(
        pack_id=name,
        kind="work",
        nodes=nodes,
        parts=tuple(parts),
        past=draw(st.frozensets(st.integers(1, 6), max_size=2)) - {p.task_id for p in parts},
        cores=2 * nodes if running else 0,
        job_cores=draw(st.none() | st.integers(0, 2 * nodes)),
        draining=draw(st.sampled_from([False, False, True])),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    tasks = {t.task_id: t for t in draw(st.lists(views, max_size=6, unique_by=lambda t: t.task_id))}
    world = World(site=draw(sites), windows=draw(windows), tasks=tasks, forecast=draw(forecasts))
    for i in range(draw(st.integers(0, 3))):
        sizes = draw(st.lists(st.integers(1, 3), max_size=2))
        packs = tuple(draw(pack_views(tasks, f"p{n}", size)) for n, size in enumerate(sizes))
        nodes = sum(sizes) + draw(st.integers(0 if sizes else 1, 2))
        world.allocations[f"a{i}"] = AllocationView(
            allocation_id=f"a{i}",
            nodes=nodes,
            packs=packs,
            accepts=draw(st.sampled_from([True, True, False])),
            running=draw(st.booleans()),
            in_window=draw(st.booleans()),
            seconds_left=draw(st.floats(-10, 590)),
            asked=draw(st.sampled_from([None, 10.0, 99.0])),
            since=draw(st.sampled_from([None, 50.0, 99.0])),
        )
    world.draining = draw(st.sampled_from([False, False, False, True]))
    world.submit_not_before = draw(st.sampled_from([0.0, 0.0, 1000.0]))
    return world


@given(worlds(), st.lists(st.tuples(st.booleans(), st.booleans(), st.dictionaries(st.integers(1, 6), st.integers(0, 500), max_size=2)), max_size=5))  # fmt: skip
def test_no_sequence_of_plans_breaks_a_limit_or_gives_anything_twice(
    world: World, rounds: list[tuple[bool, bool, dict[int, int]]]
):
    """Plans are applied to a model that refuses what must not be; new work comes between them."""
    world.act()
    for starts, ends, arriving in rounds:
        world.move_on(starts=starts, ends=ends)
        for task_id, count in arriving.items():
            if task_id in world.tasks:
                task = world.tasks[task_id]
                world.tasks[task_id] = replace(task, ready=task.ready + count)
        world.act()


@given(worlds())
def test_a_situation_that_does_not_change_comes_to_rest(world: World):
    """After one plan has been carried out the next has nothing to add."""
    world.act()
    again = world.act()
    assert not [a for a in again.actions if not isinstance(a, GiveBack)]


@given(worlds())
def test_packs_are_not_freed_for_ever(world: World):
    """Packs that make place do so for an MPI job: after a few rounds in which nothing is finished, all is quiet."""
    for _ in range(12):
        world.act()
        world.move_on(starts=False, ends=False)
    last = world.act()
    assert not [a for a in last.actions if isinstance(a, FreeNodes | EndPart | NewAllocation | AddPack)]
    kinds = Counter(p.kind for a in world.allocations.values() for p in a.packs)
    assert all(kinds)


@given(worlds())
def test_the_same_situation_gives_the_same_plan(world: World):
    """Neither the order of tasks nor chance decides anything."""
    turned = replace(world.situation, tasks=world.situation.tasks[::-1])
    assert make_plan(turned) == replace(make_plan(world.situation), reasons=make_plan(turned).reasons)
