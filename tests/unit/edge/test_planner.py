"""The planner: a pure function from where things are to what to do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hpcpanda_edge.planner import (
    AddPack,
    AllocationView,
    FeedPack,
    GiveBack,
    NewAllocation,
    PackView,
    Reason,
    Situation,
    TaskView,
    make_plan,
)
from hypothesis import given
from hypothesis import strategies as st
from support.edge import small_site

from hpcpanda.domain.states import TaskState

SITE = small_site(Path("/spool"), nodes=4, allocations=2, lookahead_s=10.0)


def allocation(name: str = "a1", *, nodes: int = 2, packs: tuple[PackView, ...] = (), accepts: bool = True):
    return AllocationView(
        allocation_id=name, nodes=nodes, packs=packs, accepts=accepts, running=True, seconds_left=50.0
    )


def pack(task_id: int = 1, *, nodes: int = 1, backlog_s: float | None = 1.0, kind: str = "events"):
    return PackView(
        pack_id="p1", task_id=task_id, kind=kind, nodes=nodes, cores=2 * nodes, backlog_s=backlog_s
    )


def plan(*tasks: TaskView, allocations: tuple[AllocationView, ...] = (), **more: object):
    return make_plan(Situation(site=SITE, now=100.0, tasks=tasks, allocations=allocations, **more))


def test_an_idle_site_asks_for_work_for_all_its_nodes():
    """All cores for the look-ahead, of any task."""
    (want,) = plan().wants
    assert (want.cores, want.seconds, want.task_id) == (8, 10.0, None)


def test_work_gets_an_allocation_of_the_size_it_can_use():
    """25 core-seconds on 2 cores a node for 10 s: two nodes."""
    found = plan(TaskView(task_id=1, ready=50, event_seconds=0.5))
    assert found.actions == (NewAllocation(task_id=1, kind="events", nodes=2),)
    assert found.reasons == {1: Reason.STARTING}


def test_a_running_pack_is_fed_before_another_allocation_is_started():
    """New events of a task go to the pack that runs it."""
    found = plan(TaskView(task_id=1, ready=50), allocations=(allocation(packs=(pack(),)),))
    assert found.actions == (FeedPack(task_id=1, allocation_id="a1", pack_id="p1", events=50),)


def test_another_task_uses_free_nodes_of_a_running_allocation():
    """A pack of its own, on the nodes that are free."""
    found = plan(TaskView(task_id=2, ready=500), allocations=(allocation(packs=(pack(),)),))
    assert found.actions == (AddPack(task_id=2, kind="events", allocation_id="a1", nodes=1),)


def test_a_pack_with_little_left_is_refilled():
    """The want names the task and the seconds that are missing."""
    found = plan(TaskView(task_id=1), allocations=(allocation(packs=(pack(nodes=2, backlog_s=4.0),)),))
    assert (6.0, 1, 4) in [(w.seconds, w.task_id, w.cores) for w in found.wants]


def test_a_pack_with_enough_or_with_unread_messages_is_not_refilled():
    """Nothing is asked for twice."""
    for backlog_s in (9.0, None):
        found = plan(
            TaskView(task_id=1), allocations=(allocation(packs=(pack(nodes=2, backlog_s=backlog_s),)),)
        )
        assert all(w.task_id is None for w in found.wants)


def test_a_task_that_backs_off_gives_its_events_back_and_says_why():
    """Others may run them meanwhile."""
    found = plan(TaskView(task_id=1, ready=5, not_before=200.0))
    assert found.actions == (GiveBack(task_id=1),)
    assert found.reasons == {1: Reason.BACKING_OFF}


def test_the_limit_of_allocations_is_named_as_the_reason():
    """No slot left: the events go back, and nothing is asked for."""
    full = tuple(allocation(f"a{i}", packs=(pack(9, nodes=2),)) for i in range(2))
    found = plan(TaskView(task_id=1, ready=5), allocations=full)
    assert found.actions == (GiveBack(task_id=1),)
    assert found.reasons == {1: Reason.ALLOCATION_LIMIT}
    assert not found.wants


def test_a_settled_task_is_merged_once_its_commits_are_answered():
    """First it waits for answers, then one pack on one node merges it, then nothing more happens."""
    merging = TaskState.MERGING
    assert plan(TaskView(task_id=1, state=merging)).reasons == {1: Reason.WAITING_FOR_COMMITS}
    ready = TaskView(task_id=1, state=merging, mergeable=True)
    assert plan(ready).actions == (NewAllocation(task_id=1, kind="merge", nodes=1),)
    assert plan(ready, allocations=(allocation(packs=(pack(kind="merge"),)),)).actions == ()
    assert plan(TaskView(task_id=1, state=merging, mergeable=True, merged=True)).actions == ()


def test_a_draining_edge_starts_nothing_and_gives_everything_back():
    """Events that no pack works on go back; nothing is asked for."""
    found = plan(TaskView(task_id=1, ready=5), allocations=(allocation(packs=(pack(),)),), draining=True)
    assert found.actions == (GiveBack(task_id=1),)
    assert not found.wants


def test_a_refused_submission_holds_new_allocations_back():
    """Until the pause is over nothing is submitted, and the reason is named."""
    found = plan(TaskView(task_id=1, ready=5), submit_not_before=101.0)
    assert found.actions == (GiveBack(task_id=1),)
    assert found.reasons == {1: Reason.SUBMISSION_FAILING}


tasks = st.lists(
    st.builds(
        TaskView,
        task_id=st.integers(1, 6),
        state=st.sampled_from(TaskState),
        ready=st.integers(0, 10_000),
        event_seconds=st.none() | st.floats(1e-6, 1e4),
        not_before=st.sampled_from([0.0, 1000.0]),
        priority=st.integers(-3, 3),
        mergeable=st.booleans(),
        merged=st.booleans(),
        fault=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda t: t.task_id,
)
packs = st.builds(
    PackView,
    pack_id=st.just("p1"),
    task_id=st.integers(1, 6),
    kind=st.sampled_from(["events", "merge"]),
    nodes=st.just(1),
    cores=st.integers(0, 4),
    backlog_s=st.none() | st.floats(0, 100),
)
allocations = st.lists(
    st.builds(
        AllocationView,
        allocation_id=st.sampled_from(["a1", "a2", "a3"]),
        nodes=st.integers(1, 3),
        packs=st.lists(packs, max_size=1).map(tuple),
        accepts=st.booleans(),
        running=st.booleans(),
        seconds_left=st.floats(-10, 60),
    ),
    max_size=3,
    unique_by=lambda a: a.allocation_id,
)


@given(tasks, allocations, st.booleans(), st.sampled_from([0.0, 1000.0]))
def test_limits_are_kept_and_every_event_is_accounted_for(
    some: list[TaskView], there: list[AllocationView], draining: bool, not_before: float
):
    """Whatever the situation: no limit is exceeded, no node used twice, and no ready event left lying."""
    situation = Situation(
        site=SITE,
        now=100.0,
        tasks=tuple(some),
        allocations=tuple(there),
        draining=draining,
        submit_not_before=not_before,
    )
    found = make_plan(situation)
    new = [a for a in found.actions if isinstance(a, NewAllocation)]
    assert not new or len(new) + len(there) <= SITE.limits.allocations
    assert not new or sum(a.nodes for a in [*new, *there]) <= SITE.node_limit
    used = Counter[str]()
    for action in found.actions:
        if isinstance(action, AddPack):
            used[action.allocation_id] += action.nodes
    for a in there:
        assert used[a.allocation_id] <= (a.free_nodes if a.accepts else 0)
    assert found.reasons.keys() == {t.task_id for t in some}
    for task in some:
        mine = [a for a in found.actions if a.task_id == task.task_id]
        fed = sum(a.events for a in mine if isinstance(a, FeedPack))
        placed = any(not isinstance(a, FeedPack) for a in mine if getattr(a, "kind", "events") == "events")
        assert not task.ready or placed or fed == task.ready
        started = [a for a in mine if isinstance(a, NewAllocation | AddPack)]
        assert len(started) <= 1
        assert not (started and (draining or task.state.final or task.fault))
    assert all(w.cores > 0 and w.seconds > 0 for w in found.wants)
    assert not (draining and found.wants)
