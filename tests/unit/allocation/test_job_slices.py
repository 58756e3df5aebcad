"""Slices of cut tasks on their way through a pack: from its plan and its messages to the node that runs the job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcpanda.allocation.job_messages import FailedRun, JobBatch, JobsReady, JobsReport, JobTask
from hpcpanda.allocation.job_queue import JobQueue
from hpcpanda.allocation.pack_work import join, topped_up
from hpcpanda.allocation.plan import LeasedEvents, WorkPack
from hpcpanda.allocation.recovery import work_left
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.splitting import JobSlice
from tests.support.job_world import job_work, node_room


def leased(first: int, last: int, epoch: int = 1) -> LeasedEvents:
    """Jobs of a hundred events each."""
    slices = tuple(JobSlice(job=n, first=100 * n, last=100 * n + 100) for n in range(first, last))
    return LeasedEvents(epoch=epoch, events=IntervalSet.span(first, last), slices=slices)


def test_every_job_is_sent_with_its_slice_also_when_it_is_tried_again() -> None:
    """The first jobs, those of a later message, and one that has failed: each ticket with what its job has to do."""
    queue = JobQueue(ranks=1, node=node_room(4), deadline=1e6)
    queue.from_agent(0, JobsReady(), 0.0)
    work = replace(job_work(1, jobs=0), events=(leased(0, 3),))
    sends = [*queue.add(work, 0.0), *queue.top_up(1, (leased(7, 8),), 0.0)]
    sends += queue.from_agent(0, JobsReport(failed=(FailedRun(ticket=2, error="no", wall_s=1.0),)), 1.0)
    batches = [s.message for s in sends if isinstance(s.message, JobBatch)]
    for batch in batches:
        jobs = {p.ticket + n: p.first + n for p in batch.slices for n in range(p.last - p.first)}
        assert {ticket: one.job for ticket, one in batch.contents} == jobs
        assert all(one.first == 100 * one.job for _, one in batch.contents)
    assert [one.job for b in batches for _, one in b.contents] == [0, 1, 2, 7, 1]


def test_tasks_that_are_not_cut_send_nothing_more() -> None:
    """Their messages stay as small as they were."""
    queue = JobQueue(ranks=1, node=node_room(4), deadline=1e6)
    queue.from_agent(0, JobsReady(), 0.0)
    (batch,) = (s.message for s in queue.add(job_work(1), 0.0) if isinstance(s.message, JobBatch))
    assert batch.contents == ()


def test_joined_work_has_all_slices() -> None:
    """Messages of one epoch become one part; another's stay apart."""
    first, second, other = leased(0, 2), leased(2, 3), leased(5, 6, epoch=2)
    assert join((first, second, other)) == (leased(0, 3), other)


def test_a_pack_that_begins_again_knows_the_slices(tmp_path: Path) -> None:
    """What its journals do not show as done is left, each job with what it has to do."""
    work = replace(job_work(1, jobs=0), events=(leased(0, 3),))
    (left,) = work_left(Spool(tmp_path), "a1", WorkPack(pack_id="p1", nodes=1, work=(work,)))
    assert left == work


def test_a_running_pack_hears_what_jobs_ask_for_now() -> None:
    """Told with further jobs, as after scouts: those that no node has yet ask for less, so that more run beside each
    other; nodes are told before they are given any. What a node cannot have is not taken over."""
    queue = JobQueue(ranks=1, node=node_room(4), deadline=1e6)
    queue.from_agent(0, JobsReady(), 0.0)
    room = node_room(4).memory_mb
    stated = JobRequest(memory_mb=room, walltime_s=60.0)
    queue.add(job_work(1, stated, jobs=1), 0.0)
    assert not queue.top_up(1, (leased(1, 5),), 0.0), "one job fills the memory"
    too_much = replace(stated, memory_mb=room + 1)
    assert not queue.top_up(1, (), 0.0, too_much)
    less = replace(stated, memory_mb=room // 4)
    assert not queue.top_up(1, (leased(5, 9),), 0.0, less), "the first still has all"
    told, batch = (s.message for s in queue.from_agent(0, JobsReport(done=((1, 1.0),)), 1.0))
    assert isinstance(told, JobTask)
    assert told.spec.job == less
    assert isinstance(batch, JobBatch)
    assert sum(p.last - p.first for p in batch.slices) >= 4
    queue.validate()


def test_a_pack_that_has_not_begun_asks_for_what_was_said_last() -> None:
    """What changes the plan of a waiting pack changes what its jobs ask for."""
    less = JobRequest(memory_mb=50, walltime_s=60.0)
    (work,) = topped_up((job_work(1, jobs=1),), 1, (leased(1, 2),), less)
    assert work.spec.job == less
    (work,) = topped_up((work,), 1, (leased(2, 3),))
    assert work.spec.job == less
