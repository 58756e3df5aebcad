"""The planner: a pure function from where things are to what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.edge import small_site

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import QueueLimits
from hpcpanda.domain.states import TaskState
from hpcpanda.packing.forecast import Forecast
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.planning.actions import (
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
    Share,
)
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import AllocationView, PackView, PartView, Situation, TaskView

SITE = small_site(Path("/spool"), nodes=4, allocations=2, lookahead_s=10.0)
"""4 nodes of 2 cores, 2 allocations of 60 s with a margin of 1 s."""
MPI = JobRequest(nodes=2, walltime_s=20.0, memory_mb=100)


def allocation(
    name: str = "a1",
    *,
    nodes: int = 2,
    packs: tuple[PackView, ...] = (),
    accepts: bool = True,
    **more: object,
):
    values = {"running": True, "seconds_left": 50.0} | more
    return AllocationView(allocation_id=name, nodes=nodes, packs=packs, accepts=accepts, **values)


def pack(
    task_id: int | None = 1,
    *,
    nodes: int = 1,
    backlog_s: float | None = 1.0,
    kind: str = "work",
    jobs: int = 0,
    pack_id: str = "p1",
    idle: bool = False,
    **more: object,
):
    """A pack that streams events of a task, with so many one-core jobs of task 7 beside them."""
    parts = [PartView(task_id=task_id, backlog_s=backlog_s, idle=idle)] if task_id is not None else []
    parts += [PartView(task_id=7, of_jobs=True, held=jobs)] if jobs else []
    values = {"cores": 2 * nodes, "job_cores": jobs} | more
    return PackView(pack_id=pack_id, kind=kind, nodes=nodes, parts=tuple(parts), **values)


def mpi_pack(*, nodes: int = 2, pack_id: str = "p9"):
    """A pack of task 8, an MPI job."""
    part = PartView(task_id=8, of_jobs=True, held=1)
    return PackView(pack_id=pack_id, kind="mpi-job", nodes=nodes, parts=(part,))


def jobs(task_id: int = 7, ready: int = 0, *, walltime_s: float = 20.0, **more: object):
    """A task of jobs."""
    values = {"event_seconds": more.pop("event_seconds", None), "priority": more.pop("priority", 0)}
    return TaskView(
        task_id=task_id,
        ready=ready,
        job=JobRequest(**({"walltime_s": walltime_s, "memory_mb": 100} | more)),
        **values,
    )


def mpi(ready: int = 1, task_id: int = 8, **more: object):
    """A task of MPI jobs on two nodes."""
    return TaskView(task_id=task_id, ready=ready, job=replace(MPI, **more))


def plan(*tasks: TaskView, allocations: tuple[AllocationView, ...] = (), **more: object) -> Plan:
    values = {"site": SITE, "now": 100.0} | more
    return make_plan(Situation(tasks=tasks, allocations=allocations, **values))


def work(nodes: int, *shares: tuple[int, int]) -> PackPlan:
    return PackPlan(kind="work", nodes=nodes, work=tuple(Share(task_id=t, events=n) for t, n in shares))


def feed(task_id: int, events: int, pack_id: str = "p1", allocation_id: str = "a1") -> FeedPack:
    share = Share(task_id=task_id, events=events)
    return FeedPack(allocation_id=allocation_id, pack_id=pack_id, share=share)


def asked(found: Plan) -> tuple[NewAllocation, ...]:
    return tuple(a for a in found.actions if isinstance(a, NewAllocation))


# ---- events ----


def test_an_idle_site_asks_for_work_for_all_its_nodes():
    """All cores for the look-ahead, of any task, with room for the largest job."""
    (want,) = plan().wants
    assert (want.cores, want.seconds, want.task_id, want.only) == (8, 10.0, None, None)
    assert want.room is not None
    assert (want.room.nodes, want.room.seconds) == (4, 59.0)


def test_work_gets_an_allocation_of_the_size_it_can_use():
    """25 core-seconds on 2 cores a node for 10 s: two nodes."""
    found = plan(TaskView(task_id=1, ready=50, event_seconds=0.5))
    (new,) = asked(found)
    assert (new.nodes, new.walltime_s, new.packs, new.in_window) == (2, 60.0, (work(2, (1, 50)),), False)
    assert "nothing is known of windows" in new.why
    assert found.reasons == {1: Reason.STARTING}


def test_a_running_pack_is_fed_before_another_allocation_is_started():
    """New events of a task go to the pack that runs it."""
    found = plan(TaskView(task_id=1, ready=50), allocations=(allocation(packs=(pack(),)),))
    assert found.actions == (feed(1, 50),)


def test_a_pack_with_plenty_leaves_events_to_free_nodes():
    """Beyond two look-aheads of a known cost other nodes get the events."""
    task = TaskView(task_id=1, ready=50, event_seconds=1.0)
    found = plan(task, allocations=(allocation(packs=(pack(backlog_s=4.0),)),))
    assert found.actions == (feed(1, 32), AddPack(allocation_id="a1", pack=work(1, (1, 18))))


def test_another_task_uses_free_nodes_of_a_running_allocation():
    """A pack of its own, on the nodes that are free; a new allocation takes what these cannot."""
    found = plan(TaskView(task_id=2, ready=500), allocations=(allocation(packs=(pack(),)),))
    add, new = found.actions
    assert isinstance(add, AddPack)
    assert isinstance(new, NewAllocation)
    assert [p.nodes for p in (add.pack, *new.packs)] == [1, 2]
    assert sum(p.work[0].events for p in (add.pack, *new.packs)) == 500


def test_a_pack_with_little_left_is_refilled():
    """The want names the task and the seconds that are missing."""
    found = plan(TaskView(task_id=1), allocations=(allocation(packs=(pack(nodes=2, backlog_s=4.0),)),))
    assert (6.0, 1, 4) in [(w.seconds, w.task_id, w.cores) for w in found.wants]


@pytest.mark.parametrize("backlog_s", [9.0, None])
def test_a_pack_with_enough_or_with_unread_messages_is_not_refilled(backlog_s: float | None):
    """Nothing is asked for twice."""
    found = plan(TaskView(task_id=1), allocations=(allocation(packs=(pack(nodes=2, backlog_s=backlog_s),)),))
    assert all(w.task_id is None for w in found.wants)


def test_a_task_that_backs_off_gives_its_events_back_and_says_why():
    """Others may run them meanwhile."""
    found = plan(TaskView(task_id=1, ready=5, not_before=200.0))
    assert found.actions == (GiveBack(task_id=1),)
    assert found.reasons == {1: Reason.BACKING_OFF}


def test_the_limit_of_allocations_is_named_as_the_reason():
    """No slot left: the events go back, and nothing is asked for the nodes of others."""
    full = tuple(allocation(f"a{i}", packs=(pack(9, nodes=2, job_cores=None),)) for i in range(2))
    found = plan(TaskView(task_id=1, ready=5), allocations=full)
    assert found.actions == (GiveBack(task_id=1),)
    assert found.reasons == {1: Reason.ALLOCATION_LIMIT}
    assert not found.wants


def test_a_settled_task_is_merged_once_its_commits_are_answered():
    """First it waits for answers, then one pack on one node merges it, then nothing more happens."""
    merging = TaskState.MERGING
    assert plan(TaskView(task_id=1, state=merging)).reasons == {1: Reason.WAITING_FOR_COMMITS}
    ready = TaskView(task_id=1, state=merging, mergeable=True)
    (new,) = asked(plan(ready))
    assert new.packs == (PackPlan(kind="merge", nodes=1, work=(Share(task_id=1, events=0),)),)
    assert plan(ready, allocations=(allocation(packs=(pack(kind="merge"),)),)).actions == ()
    assert plan(TaskView(task_id=1, state=merging, mergeable=True, merged=True)).actions == ()


def test_a_merge_that_finds_no_node_says_which_limit_it_waits_for():
    """It is tried again each round, where packs run in every allocation, but not beside another merge."""
    other = pack(3, kind="merge", nodes=0, pack_id="p2")
    full = tuple(allocation(f"a{i}", packs=(pack(9, nodes=2), other)) for i in range(2))
    found = plan(TaskView(task_id=1, state=TaskState.MERGING, mergeable=True), allocations=full)
    assert (found.actions, found.reasons) == ((), {1: Reason.ALLOCATION_LIMIT})


def test_a_settled_task_is_merged_beside_packs_that_hold_all_nodes():
    """Nobody waits for a node until other tasks are finished; unless a pack has nothing to do, and its node is free soon."""
    settled = TaskView(task_id=1, state=TaskState.MERGING, mergeable=True)
    full = tuple(allocation(f"a{i}", packs=(pack(9, nodes=2, jobs=3),)) for i in range(2))
    found = plan(settled, TaskView(task_id=2, mergeable=True), allocations=full)
    merges = [a.pack for a in found.actions if isinstance(a, AddPack)]
    assert merges == [PackPlan(kind="merge", nodes=0, work=(Share(task_id=t, events=0),)) for t in (1, 2)]
    assert found.reasons[1] is Reason.STARTING
    idle = (full[0], allocation("a1", packs=(pack(9, nodes=2, idle=True),)))
    found = plan(settled, allocations=idle)
    assert (found.actions, found.reasons[1]) == ((), Reason.ALLOCATION_LIMIT)


def test_a_file_of_a_task_that_goes_on_is_merged_beside_packs():
    """Where all nodes are taken: it needs none. One a time in an allocation, and what the task does is said as before."""
    goes_on = TaskView(task_id=1, mergeable=True)
    beside = PackPlan(kind="merge", nodes=0, work=(Share(task_id=1, events=0),))
    full = allocation(packs=(pack(nodes=2),))
    found = plan(goes_on, allocations=(full,))
    assert found.actions == (AddPack(allocation_id="a1", pack=beside),)
    assert found.reasons == {1: Reason.NO_WORK if not full.packs[0].cores else Reason.RUNNING}
    other = TaskView(task_id=2, mergeable=True)
    longest = allocation("a2", packs=(pack(9, nodes=2),), seconds_left=55.0)
    found = plan(goes_on, other, allocations=(full, longest))
    assert [(a.allocation_id, a.pack.work[0].task_id) for a in found.actions if isinstance(a, AddPack)] == [
        ("a2", 1),
        ("a1", 2),
    ]
    merging = allocation(packs=(pack(nodes=2), pack(kind="merge", nodes=0, pack_id="p2")))
    assert not [a for a in plan(goes_on, allocations=(merging,)).actions if isinstance(a, AddPack)]


def test_no_allocation_is_asked_for_a_file_of_a_task_that_goes_on():
    """Nor is it merged while the edge drains, while the last merge's failure is fresh, or where nothing runs yet."""
    goes_on = TaskView(task_id=1, mergeable=True)
    full = allocation(packs=(pack(nodes=2),))
    assert plan(goes_on).actions == ()
    assert plan(goes_on, allocations=(full,), draining=True).actions == ()
    assert plan(replace(goes_on, not_before=1e9), allocations=(full,)).actions == ()
    for closed in (replace(full, running=False), replace(full, accepts=False)):
        assert not [a for a in plan(goes_on, allocations=(closed,)).actions if isinstance(a, AddPack)]


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


def test_a_pack_that_only_runs_jobs_streams_events_beside_them():
    """It has no stream and a free core: events are asked for it, and given to it."""
    there = (allocation(nodes=1, packs=(pack(None, jobs=1),)),)
    (want,) = [w for w in plan(jobs(), allocations=there).wants if w.only == "events"]
    assert want.cores == 1
    assert plan(jobs(), TaskView(task_id=2, ready=5), allocations=there).actions == (feed(2, 5),)


def test_no_events_are_given_to_a_pack_whose_cores_jobs_have_for_long():
    """They would wait there. The pack's own word counts as the edge's accounts do."""
    for full in (pack(None, jobs=2), pack(None, job_cores=2)):
        there = (allocation(nodes=1, packs=(full,)),)
        found = plan(
            jobs(walltime_s=61.0), TaskView(task_id=2, ready=5), allocations=there, submit_not_before=200.0
        )
        assert found.actions == (GiveBack(task_id=2),)
        assert not [w for w in found.wants if w.only == "events"]


def test_a_pack_full_of_short_jobs_has_events_in_hand():
    """For one core and two look-aheads: a core that a job leaves has something to do at once."""
    there = (allocation(nodes=1, packs=(pack(None, jobs=2),)),)
    (want,) = [w for w in plan(jobs(), allocations=there).wants if w.only == "events"]
    assert (want.cores, want.seconds) == (1, 10.0)
    events = TaskView(task_id=2, ready=100, event_seconds=1.0)
    assert feed(2, 20) in plan(jobs(), events, allocations=there, submit_not_before=200.0).actions


def test_events_asked_for_an_idle_pack_do_not_all_go_to_one_that_has_enough():
    """Few are at hand, and the pack that streams their task could hold them all: the one without a stream gets a share,
    and does not ask again and again for what goes elsewhere."""
    busy = allocation("a1", packs=(pack(1, nodes=2, backlog_s=9.0),))
    idle = allocation("a2", packs=(pack(None, nodes=2),))
    task = TaskView(task_id=1, ready=10, event_seconds=1.0)
    assert feed(1, 5, "p1", "a2") in plan(task, allocations=(busy, idle)).actions
    hungry = allocation("a1", packs=(pack(1, nodes=2, backlog_s=1.0),))
    assert plan(task, allocations=(hungry, idle)).actions == (feed(1, 10, "p1", "a1"),)


def test_a_pack_that_makes_place_streams_events_until_its_jobs_have_ended():
    """For an MPI job it gets no further jobs, but events, and asks for none but these; without jobs it is ended."""
    there = (allocation(packs=(pack(1, nodes=2, jobs=1),)),)
    events = TaskView(task_id=1, ready=5, event_seconds=1.0)
    found = plan(jobs(ready=3), events, mpi(), allocations=there, submit_not_before=200.0)
    assert [a for a in found.actions if isinstance(a, FeedPack | FreeNodes)] == [feed(1, 5)]
    assert not [w for w in found.wants if w.only == "jobs"]
    there = (allocation(packs=(pack(1, nodes=2),)),)
    found = plan(jobs(ready=3), events, mpi(), allocations=there, submit_not_before=200.0)
    assert [a for a in found.actions if isinstance(a, FeedPack | FreeNodes)] == [
        FreeNodes(allocation_id="a1", pack_id="p1", for_task=8)
    ]


def test_an_idle_stream_makes_place_when_nothing_else_is_to_be_had():
    """The idle task is ended in the pack, and the other follows it there."""
    there = tuple(allocation(f"a{i}", packs=(pack(9, nodes=2, idle=True),)) for i in range(2))
    found = plan(TaskView(task_id=9), TaskView(task_id=1, ready=5), allocations=there)
    assert found.actions == (EndPart(allocation_id="a0", pack_id="p1", task_id=9), feed(1, 5, "p1", "a0"))
    past = tuple(replace(a, packs=(replace(a.packs[0], past=frozenset({1})),)) for a in there)
    assert plan(TaskView(task_id=1, ready=5), allocations=past).actions == (GiveBack(task_id=1),)


def test_a_stream_that_makes_place_is_not_fed_again():
    """Until the pack has ended it, both tasks are there; the later one is the stream."""
    both = (PartView(task_id=9, backlog_s=0.0, idle=True), PartView(task_id=1, backlog_s=0.0, idle=True))
    there = tuple(allocation(f"a{i}", packs=(replace(pack(nodes=2), parts=both),)) for i in range(2))
    assert plan(TaskView(task_id=9, ready=5), allocations=there).actions == (GiveBack(task_id=9),)


# ---- jobs ----


def test_jobs_go_to_packs_of_other_tasks_by_their_free_cores():
    """A pack without jobs gets them before one whose cores are taken."""
    first = allocation("a1", packs=(pack(1, nodes=2, jobs=4),))
    second = allocation("a2", packs=(pack(1, nodes=2),))
    found = plan(jobs(ready=4), TaskView(task_id=1), allocations=(first, second))
    assert found.actions == (feed(7, 4, "p1", "a2"),)
    assert found.reasons[7] is Reason.RUNNING


def test_jobs_are_shared_by_the_size_of_packs():
    """Not all of them are poured into one."""
    first = allocation("a1", nodes=1, packs=(pack(1),))
    second = allocation("a2", nodes=3, packs=(pack(1, nodes=3),))
    found = plan(jobs(ready=8), allocations=(first, second))
    assert found.actions == (feed(7, 2, "p1", "a1"), feed(7, 6, "p1", "a2"))


def test_work_goes_to_packs_that_run_before_those_that_queue():
    """A free core now is worth more than one that comes some time."""
    queued = allocation("a1", packs=(pack(nodes=2, cores=0),), running=False)
    running = allocation("a2", packs=(pack(nodes=2),))
    site = small_site(Path("/spool"), nodes=4, allocations=2, lookahead_s=3.0)  # to which 20 s are long
    events = TaskView(task_id=1, ready=8, event_seconds=1.0)
    found = plan(jobs(ready=4), events, allocations=(queued, running), site=site)
    assert {(a.allocation_id, a.share.task_id) for a in found.actions if isinstance(a, FeedPack)} == {
        ("a2", 7),
        ("a1", 1),
    }
    found = plan(events, allocations=(queued, running))
    assert found.actions == (feed(1, 8, "p1", "a2"),)


def test_a_pack_gets_no_more_jobs_than_it_can_start_in_time():
    """50 s left and 20 s a job: a third wave would be cut off, so the rest goes back."""
    there = (
        allocation(nodes=1, packs=(pack(),)),
        allocation("a2", nodes=3, packs=(pack(1, nodes=3, draining=True),)),
    )
    found = plan(jobs(ready=9), allocations=there)
    assert found.actions == (feed(7, 4), GiveBack(task_id=7))


def test_jobs_longer_than_the_time_left_get_another_allocation():
    """The walltime of the new one, less its margin, suffices."""
    found = plan(jobs(ready=1, walltime_s=55.0), allocations=(allocation(packs=(pack(nodes=2),)),))
    (new,) = found.actions
    assert isinstance(new, NewAllocation)
    assert new.packs == (work(1, (7, 1)),)


def test_a_pack_that_is_done_with_a_task_gets_no_more_of_it():
    """Other packs and allocations may."""
    there = (allocation(nodes=1, packs=(pack(past=frozenset({7})),)),)
    found = plan(jobs(ready=2), allocations=there, submit_not_before=200.0)
    assert found.actions == (GiveBack(task_id=7),)


def test_a_job_that_fits_nowhere_is_given_back():
    """More cores than a node has, more time than an allocation, more nodes than one can have."""
    for task in (jobs(ready=1, cores=3), jobs(ready=1, walltime_s=60.0), mpi(nodes=5)):
        found = plan(task)
        assert found.actions == (GiveBack(task_id=task.task_id),)
        assert found.reasons == {task.task_id: Reason.DOES_NOT_FIT}
    site = replace(SITE, limits=replace(SITE.limits, nodes=3), queue=QueueLimits(max_nodes=3))
    assert plan(mpi(nodes=4), site=site).reasons == {8: Reason.DOES_NOT_FIT}


def test_a_new_pack_holds_jobs_of_several_tasks_and_the_events_of_one():
    """One program for all of it; the second task of events gets a pack of its own."""
    found = plan(jobs(5, 2), jobs(6, 2), TaskView(task_id=1, ready=10), TaskView(task_id=2, ready=10))
    (new,) = asked(found)
    assert new.packs == (work(3, (5, 2), (6, 2), (1, 10)), work(1, (2, 10)))
    assert new.nodes == 4


def test_memory_and_gpus_bound_jobs_as_cores_do():
    """Jobs of 600 MiB on nodes of 1000 MiB: one at a time, although there are two cores."""
    one = (allocation(nodes=1, packs=(pack(None),)),)
    found = plan(jobs(ready=9, memory_mb=600), allocations=one, submit_not_before=200.0)
    assert found.actions == (feed(7, 2), GiveBack(task_id=7))


def test_jobs_that_leave_room_for_each_other_share_nodes():
    """Two that take nearly all memory of a node and two that take little need two nodes, not three."""
    large = jobs(7, ready=2, memory_mb=SITE.nodes.memory_mb - 200)
    small = jobs(9, ready=2, memory_mb=100)
    (new,) = [a for a in plan(large, small).actions if isinstance(a, NewAllocation)]
    assert new.nodes == 2
    assert sum(s.events for p in new.packs for s in p.work) == 4


def test_jobs_are_asked_for_cores_that_jobs_do_not_hold():
    """One question for all packs; none for a pack with unread messages, and none once jobs have all cores."""
    packs = (pack(jobs=1), pack(jobs=0, pack_id="p2"), pack(job_cores=None, pack_id="p3"))
    found = plan(TaskView(task_id=1), jobs(), allocations=(allocation(nodes=4, packs=packs),))
    (want,) = [w for w in found.wants if w.only == "jobs"]
    assert want is found.wants[0]
    assert (want.cores, want.seconds) == (3, 10.0)
    assert want.room is not None
    assert (want.room.nodes, want.room.seconds) == (4, 50.0)
    full = (allocation(nodes=1, packs=(pack(jobs=2),)),)
    assert not [w for w in plan(jobs(), allocations=full).wants if w.only == "jobs"]


def test_short_jobs_are_asked_for_ahead():
    """Cores that all have a job of a second will be free again within the look-ahead."""
    there = (allocation(nodes=1, packs=(pack(jobs=2),)),)
    (want,) = [w for w in plan(jobs(event_seconds=1.0), allocations=there).wants if w.only == "jobs"]
    assert (want.cores, want.seconds) == (1, 10.0)


# ---- MPI jobs ----


def test_mpi_jobs_start_on_free_nodes_of_their_own():
    """Each is a pack of its own; never more of them than there are nodes."""
    found = plan(mpi(3), allocations=(allocation(nodes=4),), submit_not_before=200.0)
    one = PackPlan(kind="mpi-job", nodes=2, work=(Share(task_id=8, events=1),))
    assert found.actions == (
        AddPack(allocation_id="a1", pack=one),
        AddPack(allocation_id="a1", pack=one),
    )
    assert found.reasons == {8: Reason.STARTING}


def test_a_new_allocation_starts_with_mpi_jobs_and_a_work_pack_beside_them():
    """All its nodes have a pack."""
    (new,) = asked(plan(mpi(1), TaskView(task_id=1, ready=1000)))
    assert new.nodes == 4
    assert [(p.kind, p.nodes) for p in new.packs] == [("mpi-job", 2), ("work", 2)]


def test_the_smallest_sufficient_pack_makes_place_for_an_mpi_job():
    """One at a time; the job stays here, no second one is asked for, and the pack is given nothing more."""
    packs = (pack(nodes=1), pack(1, nodes=3, pack_id="p2"))
    there = (allocation(nodes=4, packs=packs),)
    found = plan(mpi(), TaskView(task_id=1, ready=4), allocations=there)
    assert found.actions == (feed(1, 4), FreeNodes(allocation_id="a1", pack_id="p2", for_task=8))
    assert found.reasons[8] is Reason.WAITING_FOR_NODES
    assert all(w.room is None or (w.room.nodes == 1 and 8 in w.without) for w in found.wants)
    packs = (packs[0], replace(packs[1], draining=True))
    found = plan(mpi(), allocations=(allocation(nodes=4, packs=packs),))
    assert found.actions == ()
    assert found.reasons[8] is Reason.WAITING_FOR_NODES


def test_free_nodes_are_kept_while_a_pack_makes_place():
    """Otherwise a work pack would take them, and the next pack would have to go."""
    packs = (pack(nodes=1, draining=True),)
    there = (allocation(nodes=2, packs=packs), allocation("a2", nodes=2, packs=(pack(1, nodes=2),)))
    found = plan(mpi(), TaskView(task_id=3, ready=5), allocations=there)
    assert found.actions == (GiveBack(task_id=3),)


def test_an_mpi_job_waits_for_another_without_freeing_a_pack():
    """Its nodes are coming: the one that runs ends in time."""
    there = (allocation(nodes=4, packs=(mpi_pack(), pack(nodes=2))),)
    found = plan(mpi(), TaskView(task_id=1), allocations=there)
    assert found.actions == ()
    assert found.reasons[8] is Reason.WAITING_FOR_NODES
    late = (replace(there[0], seconds_left=30.0),)
    found = plan(mpi(), TaskView(task_id=1), allocations=late)
    assert found.actions == (FreeNodes(allocation_id="a1", pack_id="p1", for_task=8),)


def test_an_mpi_job_is_given_back_when_no_allocation_has_time_for_it():
    """Nor may another be asked for."""
    there = (allocation(nodes=4, packs=(pack(nodes=4),), seconds_left=19.0),)
    found = plan(mpi(), allocations=there)
    assert found.actions == (GiveBack(task_id=8),)
    assert found.reasons[8] is Reason.NODE_LIMIT


def test_an_mpi_job_does_not_start_on_nodes_that_have_no_time_for_it():
    """They stay free for work that can be cut."""
    found = plan(mpi(), allocations=(allocation(seconds_left=19.0),), submit_not_before=200.0)
    assert found.actions == (GiveBack(task_id=8),)


def test_nodes_of_mpi_jobs_that_are_over_go_back_to_work():
    """Events are asked for them, and start there."""
    there = (allocation(nodes=4, packs=(pack(nodes=2),)),)
    assert [w.cores for w in plan(allocations=there).wants if w.only is None and w.task_id is None] == [4]
    (add,) = plan(TaskView(task_id=2, ready=100), allocations=there).actions
    assert isinstance(add, AddPack)
    assert add.pack.nodes == 2


# ---- limits of one allocation, windows ----


def test_one_allocation_keeps_the_limits_of_its_queue():
    """More nodes than one may have become two; fewer than it must have are filled up."""
    site = replace(SITE, nodes=replace(SITE.nodes, count=4), limits=replace(SITE.limits, nodes=3))
    most = replace(site, queue=QueueLimits(max_nodes=3))
    assert [n.nodes for n in asked(plan(TaskView(task_id=1, ready=1000), site=most))] == [3]
    fewest = replace(SITE, queue=QueueLimits(min_nodes=3))
    (new,) = asked(plan(TaskView(task_id=1, ready=1), site=fewest))
    assert (new.nodes, new.packs) == (3, (work(3, (1, 1)),))


LONG = replace(SITE, allocation=replace(SITE.allocation, walltime_s=3600.0))


def test_a_window_decides_nodes_and_walltime():
    """As many nodes as the work keeps busy, for as long as the hole lasts."""
    found = plan(
        TaskView(task_id=1, ready=1000),
        site=LONG,
        windows=(BackfillWindow(queue=None, nodes=2, seconds=700),),
    )
    (new,) = asked(found)
    assert (new.nodes, new.walltime_s, new.in_window) == (2, 660.0, True)
    assert new.why == "2 nodes for 660 s; fits into the window of 2 nodes for 700 s in the default queue"


def test_the_last_events_get_their_allocation_too():
    """Little work is no reason to leave it undone."""
    windows = (BackfillWindow(queue=None, nodes=4, seconds=700),)
    (new,) = asked(plan(TaskView(task_id=1, ready=1), site=LONG, windows=windows))
    assert new.nodes == 1


def test_a_window_is_not_used_for_jobs_that_outlast_it():
    """The job gets a request in the queue with time enough; events alone would have taken the hole."""
    windows = (BackfillWindow(queue=None, nodes=4, seconds=700),)
    (new,) = asked(plan(jobs(ready=1, walltime_s=800.0), site=LONG, windows=windows))
    assert (new.walltime_s, new.in_window) == (3600.0, False)


def test_without_a_window_one_request_waits_and_no_second():
    """The reason is told, the work goes back, and nothing is asked for."""
    (new,) = asked(plan(TaskView(task_id=1, ready=9), site=LONG, windows=()))
    assert "waits in the queue" in new.why
    queued = (allocation(nodes=1, packs=(pack(9, cores=0),), running=False, seconds_left=3599.0),)
    tasks = (TaskView(task_id=1, ready=9), TaskView(task_id=9))
    found = plan(*tasks, allocations=queued, site=LONG, windows=())
    assert found.actions == (GiveBack(task_id=1),)
    assert found.reasons[1] is Reason.NO_WINDOW
    assert [why.code for why in found.refusals] == ["already-queued"]
    assert found.wants == ()


def test_no_more_is_asked_for_than_the_windows_have():
    """Cores of the hole, not of the site."""
    windows = (BackfillWindow(queue=None, nodes=3, seconds=700), BackfillWindow(queue="other", nodes=9))
    (want,) = plan(site=LONG, windows=windows).wants
    assert want.cores == 6
    assert want.room is not None
    assert (want.room.nodes, want.room.seconds) == (3, 659.0)


def test_a_pack_without_a_stream_gets_no_task_that_it_is_done_with():
    """It may take another one."""
    there = (allocation(nodes=1, packs=(pack(None, past=frozenset({1})),)),)
    found = plan(TaskView(task_id=1, ready=5), allocations=there, submit_not_before=200.0)
    assert found.actions == (GiveBack(task_id=1),)


def test_nodes_that_are_asked_for_now_are_not_counted_on_for_more_work():
    """One of two nodes and one of two allocations are left; with neither nothing is asked for."""
    site = replace(SITE, limits=replace(SITE.limits, nodes=2))
    one = TaskView(task_id=1, ready=1)
    assert [w.cores for w in plan(one, site=site).wants] == [2]
    site = replace(SITE, limits=replace(SITE.limits, allocations=1))
    assert plan(one, site=site).wants == ()


def test_a_task_that_backs_off_is_given_to_packs_that_have_it_only():
    """Its events go on where they run; a pack without a stream does not try it."""
    packs = (pack(1), pack(None, pack_id="p2"))
    task = TaskView(task_id=1, ready=500, event_seconds=1.0, not_before=200.0)
    found = plan(task, allocations=(allocation(nodes=3, packs=packs),))
    assert found.actions == (feed(1, 500),)


def test_a_request_that_missed_its_window_keeps_others_out_of_what_is_left_of_it():
    """It will start there, or wait; a shorter one for the same nodes would only make the queue longer."""
    windows = (BackfillWindow(queue=None, nodes=2, seconds=500),)
    waiting = allocation(nodes=2, packs=(pack(9, nodes=2, cores=0),), running=False, seconds_left=539.0)
    missed = replace(waiting, in_window=True)
    task = TaskView(task_id=1, ready=50)
    assert not asked(plan(task, allocations=(missed,), site=LONG, windows=windows))
    assert asked(plan(task, allocations=(waiting,), site=LONG, windows=windows))


# ---- what was learnt ----

SOON = Forecast(startup_s=5.0)


def test_start_up_is_taken_off_what_a_new_allocation_can_do():
    """A job of 58 s fits into 59 s, but not behind a start-up of 5 s: it is refused here, not submitted for ever."""
    assert len(asked(plan(jobs(ready=1, walltime_s=58.0)))) == 1
    found = plan(jobs(ready=1, walltime_s=58.0), forecast=SOON)
    assert found.actions == (GiveBack(task_id=7),)
    assert found.reasons == {7: Reason.DOES_NOT_FIT}
    assert found.numbers[7]["room_seconds"] == 54.0
    assert plan(forecast=SOON).wants[0].room.seconds == 54.0


def test_start_up_is_taken_off_what_a_queued_allocation_can_do():
    """Of two waves of jobs of 20 s in 50 s the second ends in time, of 12 s later no third one does."""
    waits = (allocation(nodes=1, packs=(pack(cores=0, job_cores=None),), running=False),)
    tasks = (TaskView(task_id=1), jobs(ready=9))
    full = plan(*tasks, allocations=waits, submit_not_before=200.0)
    late = plan(*tasks, allocations=waits, submit_not_before=200.0, forecast=Forecast(startup_s=12.0))
    assert full.actions == (feed(7, 4), GiveBack(task_id=7))
    assert late.actions == (feed(7, 2), GiveBack(task_id=7))


def test_predicted_walltimes_make_plans_denser_and_start_nothing_that_cannot_finish():
    """Jobs of at most 20 s that take 5 s: seven waves in 50 s, for the last must begin 20 s before the end."""
    there = (allocation(nodes=1, packs=(pack(),)),)
    tasks = (TaskView(task_id=1), replace(jobs(ready=99), job_seconds=5.0))
    found = plan(*tasks, allocations=there, submit_not_before=200.0)
    assert feed(7, 14) in found.actions
    longer = plan(tasks[0], replace(tasks[1], job_seconds=500.0), allocations=there, submit_not_before=200.0)
    assert feed(7, 4) in longer.actions


def test_urgent_tasks_wait_in_the_queue_beside_what_fills_windows():
    """Raised priority, or a deadline that an allocation through the queue would hardly meet; others wait for windows."""
    site = replace(LONG, limits=replace(LONG.limits, allocations=3))
    windows = (BackfillWindow(queue=None, nodes=2, seconds=700),)

    def in_queue(**fields: object) -> int:
        task = TaskView(task_id=1, ready=1000, **fields)
        return sum(not a.in_window for a in asked(plan(task, site=site, windows=windows)))

    assert in_queue() == in_queue(deadline=1e6) == 0
    assert in_queue(deadline=3000.0) == in_queue(priority=1) == 1


def test_the_site_file_bounds_what_waits_where_nothing_is_known_of_windows():
    """Otherwise as many may wait as there may be allocations; what keeps the second away is told."""
    bounded = replace(LONG, limits=replace(LONG.limits, queued=1))
    waits = (allocation(nodes=1, packs=(pack(1, cores=0),), running=False, seconds_left=3599.0),)
    tasks = (TaskView(task_id=1), mpi())
    assert len(asked(plan(*tasks, allocations=waits, site=LONG))) == 1
    found = plan(*tasks, allocations=waits, site=bounded)
    assert not asked(found)
    assert [why.code for why in found.refusals] == ["already-queued"]
    assert found.reasons[8] is Reason.NO_WINDOW


def test_an_allocation_that_began_after_the_look_at_windows_keeps_its_nodes():
    """The windows still have them; an older one does not count."""
    windows = (BackfillWindow(queue=None, nodes=2, seconds=700),)
    began = allocation(nodes=2, packs=(pack(9, nodes=2, backlog_s=99.0),), since=95.0, seconds_left=640.0)
    tasks = (TaskView(task_id=1, ready=1000), TaskView(task_id=9))
    more = {"site": LONG, "windows": windows, "windows_seen": 90.0}
    assert not any(a.in_window for a in asked(plan(*tasks, allocations=(began,), **more)))
    earlier = replace(began, since=85.0)
    assert any(a.in_window for a in asked(plan(*tasks, allocations=(earlier,), **more)))


def test_a_preemptible_queue_is_asked_for_more_than_the_window():
    """The longest walltime on the nodes that are idle."""
    site = replace(LONG, queue=QueueLimits(preemptible=True))
    windows = (BackfillWindow(queue=None, nodes=2, seconds=700),)
    (new,) = asked(plan(TaskView(task_id=1, ready=1000), site=site, windows=windows))
    assert (new.nodes, new.walltime_s, new.in_window) == (2, 3600.0, True)
    assert new.because is not None
    assert new.because.code == "preemptible"


def test_windows_that_were_missed_are_not_asked_for_at_once_again():
    """Until the pause is over one request waits in the queue, and the plan says why."""
    windows = (BackfillWindow(queue=None, nodes=2, seconds=700),)
    found = plan(TaskView(task_id=1, ready=1000), site=LONG, windows=windows, windows_not_before=130.0)
    assert [a.in_window for a in asked(found)] == [False]
    assert found.refusals[0].code == "windows-missed"
    assert found.refusals[0].numbers == {"seconds": 30.0}


# ---- queued for nothing ----


def queued_for_window(**fields: object) -> AllocationView:
    values = {"running": False, "in_window": True, "asked": 10.0, "seconds_left": 600.0} | fields
    return allocation(nodes=2, packs=(pack(1, nodes=2, cores=0, job_cores=None),), **values)


def cancelled(found: Plan) -> list[tuple[str, str]]:
    return [(a.allocation_id, a.because.code) for a in found.actions if isinstance(a, CancelAllocation)]


def test_a_request_whose_window_has_passed_is_taken_back():
    """It has waited for longer than it had to spare, and no window takes it; one that is wide and long enough might."""
    task, waits = TaskView(task_id=1), (queued_for_window(),)
    short = (BackfillWindow(queue=None, nodes=2, seconds=500),)
    assert cancelled(plan(task, allocations=waits, site=LONG, windows=short)) == [("a1", "window-passed")]
    wide = (BackfillWindow(queue=None, nodes=2, seconds=900),)
    assert not cancelled(plan(task, allocations=waits, site=LONG, windows=wide))
    assert not cancelled(plan(task, allocations=waits, site=LONG, windows=None))
    for patient in (
        queued_for_window(asked=50.0),
        queued_for_window(in_window=False),
        queued_for_window(running=True),
    ):
        assert not cancelled(plan(task, allocations=(patient,), site=LONG, windows=short))


def test_a_queued_allocation_without_work_is_taken_back():
    """Its task is over and it holds nothing of it; not while it holds something, nor while more may come."""
    waits = (queued_for_window(in_window=False),)
    over = TaskView(task_id=1, state=TaskState.ABORTED)
    assert cancelled(plan(over, allocations=waits)) == [("a1", "no-work")]
    assert not cancelled(plan(TaskView(task_id=1), allocations=waits))
    (part,) = waits[0].packs[0].parts
    holding = replace(waits[0].packs[0], parts=(replace(part, held=3),))
    assert not cancelled(plan(over, allocations=(replace(waits[0], packs=(holding,)),)))
    assert not cancelled(plan(over, allocations=waits, draining=True))


# ---- reasons as data ----


def test_a_new_allocation_says_why_as_data():
    """The code, the sentence, and the numbers of the shape."""
    windows = (BackfillWindow(queue=None, nodes=2, seconds=700),)
    (new,) = asked(plan(TaskView(task_id=1, ready=1000), site=LONG, windows=windows))
    assert new.because is not None
    assert new.because.code == "fills-window"
    assert (new.because.numbers["nodes"], new.because.numbers["walltime_s"]) == (2, 660.0)
    assert new.because.sentence in new.why


def test_a_reason_comes_with_its_numbers():
    """What is in use, and of how much."""
    full = tuple(allocation(f"a{i}", packs=(pack(9, nodes=2, job_cores=None),)) for i in range(2))
    found = plan(TaskView(task_id=1, ready=5), allocations=full)
    assert found.numbers[1] == {
        "ready": 5, "allocations": 2, "allocations_limit": 2, "nodes": 4, "nodes_limit": 4,
    }  # fmt: skip
    assert [why.code for why in found.refusals] == ["allocation-limit"]
    assert plan(TaskView(task_id=1, ready=5), submit_not_before=130.0).numbers[1]["seconds"] == 30.0


# ---- many packs ----


def test_packs_with_far_less_time_ask_for_jobs_of_their_own():
    """A question tells the room of packs with about as much time left, so that no more long jobs come than fit."""
    packs = [
        allocation(f"a{n}", nodes=1, packs=(pack(),), seconds_left=seconds)
        for n, seconds in enumerate((50.0, 40.0, 10.0))
    ]
    wants = [w for w in plan(TaskView(task_id=1), jobs(), allocations=tuple(packs)).wants if w.only == "jobs"]
    assert [(w.cores, w.room.seconds) for w in wants if w.room] == [(4, 50.0), (2, 10.0)]


def test_one_question_fills_all_packs_of_a_task_up():
    """As soon as one is low; so neither questions nor messages grow with the square of the packs."""
    packs = [pack(backlog_s=b) for b in (9.0, 9.5, 12.0)]
    full = tuple(allocation(f"a{n}", nodes=1, packs=(p,)) for n, p in enumerate(packs))
    assert not [w for w in plan(TaskView(task_id=1), allocations=full).wants if w.task_id == 1]
    low = (*full, allocation("a9", nodes=1, packs=(pack(backlog_s=5.5),)))
    (want,) = (w for w in plan(TaskView(task_id=1), allocations=low).wants if w.task_id == 1)
    assert (want.cores, want.seconds) == (6, pytest.approx((1.0 + 0.5 + 4.5) / 3))


def test_events_for_running_packs_do_not_go_to_queued_ones():
    """Those would only hoard them, and more would be fetched for the packs that run."""
    runs = allocation("a1", nodes=1, packs=(pack(backlog_s=5.0),))
    waits = allocation("a2", nodes=1, packs=(pack(backlog_s=None, cores=0, job_cores=None),), running=False)
    task = TaskView(task_id=1, ready=10, event_seconds=1.0)
    found = plan(task, allocations=(waits, runs))
    assert found.actions == (feed(1, 10),)


# ---- staging ----


def test_a_task_whose_inputs_are_copied_says_so_and_is_not_asked_for_again():
    """Neither anything of it for free nodes, nor more for a pack that runs it."""
    found = plan(TaskView(task_id=1, staging=True))
    assert (found.actions, found.reasons) == ((), {1: Reason.STAGING})
    assert all(want.without == (1,) for want in found.wants)
    low = (allocation(packs=(pack(backlog_s=0.1),)),)
    assert [w for w in plan(TaskView(task_id=1), allocations=low).wants if w.task_id == 1]
    assert not [w for w in plan(TaskView(task_id=1, staging=True), allocations=low).wants if w.task_id == 1]


def test_what_is_in_place_of_a_staging_task_runs():
    """The rest follows when it is copied."""
    found = plan(TaskView(task_id=1, ready=50, staging=True))
    assert len(asked(found)) == 1
    assert found.reasons == {1: Reason.STARTING}


def test_a_draining_edge_gives_back_what_is_staging():
    """Else it would wait for copies that nobody needs any more."""
    found = plan(TaskView(task_id=1, staging=True), draining=True)
    assert found.actions == (GiveBack(task_id=1),)
    assert found.reasons == {1: Reason.DRAINING}
