"""The director of a pack: what it says of the pack's nodes and of its end."""

from __future__ import annotations

from hpcpanda.allocation.director import Director
from hpcpanda.allocation.job_messages import JobsReady, NodeUnfit
from hpcpanda.allocation.messages import Bye
from hpcpanda.allocation.plan import LeasedEvents, TaskWork, WorkPack
from hpcpanda.allocation.rank_messages import FromEvents, FromJobs, RankBye, ToldToEnd
from hpcpanda.domain.intervals import IntervalSet
from tests.support.edge import small_task
from tests.support.job_world import job_work, node_room


def test_complaints_of_nodes_are_in_the_status() -> None:
    """A pack whose nodes are all at fault is idle, and says why; its jobs go elsewhere."""
    work = WorkPack(pack_id="p", nodes=2, work=(job_work(1, jobs=3),))
    director = Director(work, incarnation=0, node=node_room(), deadline=1e6)
    director.begin(0.0)
    director.from_rank(0, FromJobs(message=NodeUnfit(why="n1: no scratch")), 0.0)
    assert director.status(1.0).complaints == ("node 0 gets no jobs: n1: no scratch",)
    assert not director.idle
    director.from_rank(1, FromJobs(message=NodeUnfit(why="n2: no scratch")), 2.0)
    said = director.status(3.0)
    assert (len(said.complaints), said.idle, said.job_cores) == (2, True, 0)


def test_a_node_that_is_ready_has_nothing_to_complain_of() -> None:
    """An empty list, not a missing one."""
    director = Director(
        WorkPack(pack_id="p", nodes=1, work=()), incarnation=0, node=node_room(), deadline=1e6
    )
    director.from_rank(0, FromJobs(message=JobsReady()), 0.0)
    assert director.status(1.0).complaints == ()


def test_the_end_is_wanted_when_all_ranks_were_told() -> None:
    """A launcher that ends the other ranks of one that has died does not end the allocation."""
    pack = WorkPack(pack_id="p", nodes=3, work=())
    director = Director(pack, incarnation=0, node=node_room(), deadline=1e6)
    director.from_rank(0, ToldToEnd(), 0.0)
    director.from_rank(1, ToldToEnd(), 0.0)
    assert not director.status(1.0).told_to_end
    director.from_rank(1, RankBye(), 2.0)
    assert not director.status(2.0).told_to_end
    director.from_rank(2, ToldToEnd(), 3.0)
    assert director.status(3.0).told_to_end


def test_a_pack_that_is_to_begin_again_is_not_idle() -> None:
    """Its head would end it as one without work, and not start it again, while its nodes still close their files."""
    work = TaskWork(
        task_id=1,
        spec=small_task(),
        events=(LeasedEvents(epoch=1, events=IntervalSet.span(0, 10)),),
    )
    director = Director(
        WorkPack(pack_id="p", nodes=1, work=(work,)), incarnation=0, node=node_room(), deadline=1e6
    )
    director.begin(0.0)
    bye = Bye(error="the fork server was ended by SIGKILL", again=True)
    director.from_rank(0, FromEvents(task_id=1, message=bye), 1.0)
    said = director.status(1.0)
    assert (said.state, said.idle) == ("running", False)
    assert said.complaints == ("the fork server was ended by SIGKILL",)
    director.from_rank(0, RankBye(), 2.0)
    assert (director.ended, director.status(2.0).state) == (True, "running")


def test_an_orderly_end_is_nobody_elses_wish() -> None:
    """Ranks that leave in order were not told to."""
    director = Director(
        WorkPack(pack_id="p", nodes=1, work=()), incarnation=0, node=node_room(), deadline=1e6
    )
    director.from_rank(0, RankBye(), 0.0)
    assert not director.status(1.0).told_to_end
