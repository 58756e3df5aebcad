"""The job queue binds late, is fair, tries again elsewhere, and knows what cannot be done here."""

from __future__ import annotations

from hpcpanda.allocation.job_hand_out import JobSend
from hpcpanda.allocation.job_messages import (
    AskRecord,
    EndRun,
    FailedRun,
    FinishJobs,
    ForgetJobs,
    JobBatch,
    JobLoad,
    JobsBye,
    JobSlice,
    JobsReady,
    JobsReport,
    JobTask,
    NodeUnfit,
    RecordJob,
    SetJobAside,
)
from hpcpanda.allocation.job_queue import JobQueue
from hpcpanda.allocation.plan import LeasedEvents
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobRequest
from tests.support.job_world import JobWorld, job_work, node_room


def slices(sends: list[JobSend], rank: int) -> list[JobSlice]:
    """Jobs among the messages to a rank."""
    return [s for m in sends if m.rank == rank and isinstance(m.message, JobBatch) for s in m.message.slices]


def numbers(sends: list[JobSend], rank: int) -> list[int]:
    """Numbers of these jobs."""
    return [n for s in slices(sends, rank) for n in range(s.first, s.last)]


def queue_of(ranks: int = 1, *, cores: int = 4, deadline: float = 1e6) -> JobQueue:
    """A queue whose agents are ready."""
    queue = JobQueue(ranks=ranks, node=node_room(cores), deadline=deadline)
    for rank in range(ranks):
        assert queue.from_agent(rank, JobsReady(), 0.0) == []
    return queue


def test_gives_no_node_more_long_jobs_than_it_has_room_for() -> None:
    """Jobs of which nothing is known may be long, and another node can take them."""
    queue = queue_of(2)
    sends = queue.add(job_work(1, jobs=20), 0.0)
    assert len(numbers(sends, 0)) == len(numbers(sends, 1)) == 4
    assert isinstance(sends[0].message, JobTask)
    first = slices(sends, 0)[0]
    assert (first.last - first.first, first.attempt) == (4, 1), "neighbours travel as one slice"


def test_gives_nothing_to_a_node_that_is_not_ready() -> None:
    """Late binding: a node that is slow to start delays nobody."""
    queue = JobQueue(ranks=2, node=node_room(), deadline=1e6)
    assert queue.add(job_work(1), 0.0) == []
    assert len(numbers(queue.from_agent(1, JobsReady(), 0.0), 1)) == 4


def test_short_jobs_flow_a_second_ahead() -> None:
    """10 ms jobs on 4 cores: about a second of them in hand, and not all of the task."""
    queue = queue_of()
    given = numbers(queue.add(job_work(1, jobs=10_000, seconds=0.01), 0.0), 0)
    assert 300 <= len(given) <= 500
    done = JobsReport(done=tuple((ticket, 0.01) for ticket in range(1, 101)))
    assert 90 <= len(numbers(queue.from_agent(0, done, 0.3), 0)) <= 110


def test_memory_and_gpus_bound_what_a_node_gets() -> None:
    """The scarcest resource decides."""
    queue = JobQueue(ranks=1, node=node_room(8, 8000, 2), deadline=1e6)
    queue.from_agent(0, JobsReady(), 0.0)
    heavy = JobRequest(memory_mb=3000, walltime_s=10.0)
    assert len(numbers(queue.add(job_work(1, heavy), 0.0), 0)) == 2
    gpu = JobRequest(memory_mb=100, gpus=1, walltime_s=10.0)
    assert len(numbers(queue.add(job_work(2, gpu), 0.0), 0)) == 2


def test_a_failed_job_is_tried_elsewhere_and_then_set_aside_by_the_last() -> None:
    """Attempts count, another node is preferred, and the one that ran it last journals the failure."""
    queue = queue_of(2)
    queue.add(job_work(1, jobs=1, attempts=2), 0.0)
    again = queue.from_agent(0, JobsReport(failed=(FailedRun(ticket=1, error="bad"),)), 1.0)
    assert numbers(again, 1) == [0]
    assert slices(again, 1)[0].attempt == 2
    last = queue.from_agent(1, JobsReport(failed=(FailedRun(ticket=2, error="bad again"),)), 2.0)
    assert [s.rank for s in last] == [1]
    aside = last[0].message
    assert isinstance(aside, SetJobAside)
    assert (aside.event.event, aside.event.attempts, aside.event.error) == (0, 2, "bad again")
    assert queue.idle
    queue.validate()


def test_a_failed_job_is_tried_again_on_the_only_node() -> None:
    """Elsewhere is a wish, not a condition."""
    queue = queue_of(1)
    queue.add(job_work(1, jobs=1), 0.0)
    again = queue.from_agent(0, JobsReport(failed=(FailedRun(ticket=1, error="bad"),)), 1.0)
    assert numbers(again, 0) == [0]


def test_a_node_at_fault_three_times_gets_nothing_more() -> None:
    """Its faults do not count as attempts, and the reason can be read."""
    queue = queue_of(2)
    queue.add(job_work(1, jobs=8, attempts=1), 0.0)
    failures = tuple(FailedRun(ticket=t, error="disk full", node_at_fault=True) for t in (1, 2, 3))
    sends = queue.from_agent(0, JobsReport(failed=failures), 1.0)
    assert not numbers(sends, 0)
    assert not any(isinstance(s.message, SetJobAside) for s in sends)
    assert "disk full" in " ".join(queue.complaints)
    freed = queue.from_agent(1, JobsReport(done=tuple((t, 9.0) for t in (5, 6, 7, 8))), 2.0)
    assert len(numbers(freed, 1)) == 3


def test_a_job_that_ends_its_runner_again_and_again_is_at_fault_itself() -> None:
    """Else it would be given back for ever, and each time a node would be taken for broken: two losses are put down to the node,
    the third counts as an attempt, and the node goes on with other jobs."""
    queue = queue_of(1)
    queue.add(job_work(1, jobs=1, attempts=1), 0.0)
    lost = [FailedRun(ticket=t, error="runner gone", node_at_fault=True, runner_lost=True) for t in (1, 2, 3)]
    for failure in lost[:2]:
        assert numbers(queue.from_agent(0, JobsReport(failed=(failure,)), 1.0), 0) == [0]
    (last,) = queue.from_agent(0, JobsReport(failed=(lost[2],)), 2.0)
    assert isinstance(last.message, SetJobAside)
    assert (last.message.event.event, last.message.event.error) == (0, "runner gone")
    assert not queue.complaints
    assert numbers(queue.add(job_work(2, jobs=1), 3.0), 0) == [0]
    queue.validate()


def test_runners_of_three_jobs_that_end_are_the_node_s_fault() -> None:
    """As any other fault of the node: no job has failed by it."""
    queue = queue_of(1)
    queue.add(job_work(1, jobs=4, attempts=1), 0.0)
    lost = tuple(FailedRun(ticket=t, error="gone", node_at_fault=True, runner_lost=True) for t in (1, 2, 3))
    sends = queue.from_agent(0, JobsReport(failed=lost), 1.0)
    assert not any(isinstance(s.message, SetJobAside) for s in sends)
    assert "gone" in " ".join(queue.complaints)


def test_a_node_that_is_not_what_the_site_file_says_gets_nothing() -> None:
    """It complains in place of being ready; the others run the jobs."""
    queue = JobQueue(ranks=2, node=node_room(), deadline=1e6)
    queue.from_agent(0, NodeUnfit(why="n1: 1 processor"), 0.0)
    queue.from_agent(1, JobsReady(), 0.0)
    sends = queue.add(job_work(1, jobs=20), 0.0)
    assert (len(numbers(sends, 0)), len(numbers(sends, 1))) == (0, 4)
    assert queue.complaints == ("node 0 gets no jobs: n1: 1 processor",)


def test_without_any_usable_node_the_rest_stays_undone() -> None:
    """A pack of broken nodes is idle, so that its work can go elsewhere."""
    queue = queue_of(1)
    queue.add(job_work(1, jobs=8), 0.0)
    failures = tuple(FailedRun(ticket=t, error="disk full", node_at_fault=True) for t in (1, 2, 3))
    queue.from_agent(0, JobsReport(failed=failures), 1.0)
    queue.from_agent(0, JobsReport(back=(4,)), 1.0)
    assert queue.idle
    assert queue.progress(2.0)[0].done == 0
    queue.validate()


def test_what_has_no_time_left_stays_undone() -> None:
    """I7: nothing starts that cannot finish."""
    queue = queue_of(deadline=50.0)
    assert queue.add(job_work(1), 0.0) == []
    assert queue.progress(0.0)[0].idle
    short = JobRequest(memory_mb=100, walltime_s=20.0)
    assert numbers(queue.add(job_work(2, short), 0.0), 0)
    assert not numbers(queue.from_agent(0, JobsReport(done=((1, 20.0),)), 30.0), 0)
    assert queue.progress(30.0)[1].waiting == 0


def test_a_job_too_large_for_the_nodes_fails_its_task_here() -> None:
    """The edge learns that this task cannot be run here at all, and why."""
    queue = queue_of(cores=4)
    assert queue.add(job_work(1, JobRequest(cores=5, memory_mb=100)), 0.0) == []
    progress = queue.progress(0.0)[0]
    assert progress.state == "failed"
    assert "5 cores" in (progress.error or "")


def test_jobs_of_an_epoch_are_taken_once() -> None:
    """A top-up that repeats jobs changes nothing; a new epoch makes them new."""
    queue = queue_of(cores=64)
    work = job_work(1, jobs=4)
    assert len(numbers(queue.add(work, 0.0), 0)) == 4
    assert queue.top_up(1, work.events, 0.0) == []
    other = (LeasedEvents(epoch=2, events=IntervalSet.span(0, 4)),)
    assert len(numbers(queue.top_up(1, other, 0.0), 0)) == 4


def test_revoked_jobs_are_forgotten_and_their_results_do_not_count() -> None:
    """Late answers for them close the tickets and nothing else."""
    queue = queue_of()
    queue.add(job_work(1, jobs=8), 0.0)
    sends = queue.revoke(1, (1,), 1.0)
    assert sends == [JobSend(0, ForgetJobs(task_id=1, epochs=(1,)))]
    assert not queue.from_agent(0, JobsReport(done=((1, 1.0),), back=(2, 3, 4)), 2.0)
    progress = queue.progress(2.0)[0]
    assert (progress.done, progress.waiting, progress.idle) == (0, 0, True)
    queue.validate()


def test_the_first_clone_to_ask_wins() -> None:
    """It is recorded, the other is ended, and the job is done once."""
    queue = queue_of(2)
    cloned = JobRequest(memory_mb=100, walltime_s=60.0, clones=2)
    sends = queue.add(job_work(1, cloned, jobs=1), 0.0)
    assert numbers(sends, 0) == numbers(sends, 1) == [0]
    granted = queue.from_agent(1, AskRecord(ticket=2), 1.0)
    assert granted == [JobSend(1, RecordJob(ticket=2)), JobSend(0, EndRun(ticket=1))]
    assert queue.from_agent(0, AskRecord(ticket=1), 1.0) == [JobSend(0, EndRun(ticket=1))]
    queue.from_agent(1, JobsReport(done=((2, 1.0),)), 1.1)
    queue.from_agent(0, JobsReport(back=(1,)), 1.2)
    assert queue.progress(2.0)[0].done == 1
    assert queue.idle
    queue.validate()


def test_a_winner_that_is_lost_before_it_is_recorded_is_run_again() -> None:
    """A granted clone whose node cannot read its output is as if it had failed."""
    queue = queue_of(2)
    cloned = JobRequest(memory_mb=100, walltime_s=60.0, clones=2)
    queue.add(job_work(1, cloned, jobs=1), 0.0)
    queue.from_agent(0, AskRecord(ticket=1), 1.0)
    queue.from_agent(0, JobsReport(failed=(FailedRun(ticket=1, error="output vanished"),)), 1.1)
    again = queue.from_agent(1, JobsReport(back=(2,)), 1.2)
    assert numbers(again, 1) == [0]
    assert slices(again, 1)[0].attempt == 2


def test_clones_share_the_only_node_and_fail_together() -> None:
    """An attempt has failed when the last clone has; a failed clone is not replaced."""
    queue = queue_of(1)
    cloned = JobRequest(memory_mb=100, walltime_s=60.0, clones=2)
    assert numbers(queue.add(job_work(1, cloned, jobs=1, attempts=1), 0.0), 0) == [0, 0]
    assert queue.from_agent(0, JobsReport(failed=(FailedRun(ticket=1, error="x"),)), 1.0) == []
    sends = queue.from_agent(0, JobsReport(failed=(FailedRun(ticket=2, error="y"),)), 1.0)
    assert [type(s.message) for s in sends] == [SetJobAside]


def test_a_broken_agent_drains_the_pack() -> None:
    """What it had is undone; the others are told to finish; whether to start again is passed on."""
    queue = queue_of(2)
    queue.add(job_work(1), 0.0)
    sends = queue.from_agent(0, JobsBye(error="keeper is gone", again=True), 1.0)
    assert [(s.rank, type(s.message)) for s in sends] == [(1, FinishJobs)]
    queue.from_agent(1, JobsReport(back=(5, 6, 7, 8)), 1.0)
    queue.from_agent(1, JobsBye(), 1.0)
    assert queue.ended
    assert queue.idle
    assert (queue.error, queue.again) == ("keeper is gone", True)
    queue.validate()


def test_progress_tells_cores_rate_and_cost() -> None:
    """What the edge plans with."""
    queue = queue_of()
    queue.add(job_work(1, JobRequest(cores=2, memory_mb=100, walltime_s=60.0), jobs=10), 0.0)
    loads = (JobLoad(task_id=1, cores=4, busy=3.5),)
    queue.from_agent(0, JobsReport(done=((1, 5.0),), loads=loads), 1.0)
    progress = queue.progress(1.0)[0]
    assert (progress.done, progress.cores, progress.cores_busy) == (1, 4, 3.5)
    assert progress.event_seconds == 10.0
    assert progress.waiting == 7
    assert progress.backlog_s == 7 * 10.0 / 4
    assert queue.job_cores == 4


def test_equal_tasks_share_the_nodes() -> None:
    """Two tasks of long jobs that came one after the other: neither waits for the other's end."""
    world = JobWorld(ranks=2, seconds=lambda task, job: 10.0)
    world.add(job_work(1, jobs=100))
    world.add(job_work(2, jobs=100))
    world.run(until=110.0)
    first, second = len(world.begun(1)), len(world.begun(2))
    assert abs(first - second) <= 0.35 * (first + second)
    assert first + second >= 8 * 10


def test_a_whole_node_job_gets_through_a_stream_of_small_ones() -> None:
    """One node is kept for it as soon as it is its turn; it starts after one small job's walltime at most."""
    world = JobWorld(ranks=2, seconds=lambda task, job: 10.0 + (job % 7), range_s=2.0)
    small = JobRequest(memory_mb=100, walltime_s=20.0)
    world.add(job_work(1, small, jobs=2000))
    world.run(until=100.0)
    world.add(job_work(2, JobRequest(cores=4, memory_mb=100, walltime_s=30.0), jobs=3))
    world.run(until=400.0)
    assert len(world.begun(2)) == 3
    assert world.begun(2)[0] <= 130.0


def test_a_short_job_runs_beside_a_long_one_on_spare_cores() -> None:
    """Two of four cores are busy for long and the next job needs four: what is done before starts meanwhile."""
    world = JobWorld(seconds=lambda task, job: {1: 100.0, 2: 10.0, 3: 5.0}[task])
    world.add(job_work(1, JobRequest(cores=2, memory_mb=100, walltime_s=100.0), jobs=1))
    world.add(job_work(2, JobRequest(cores=4, memory_mb=100, walltime_s=20.0), jobs=1))
    world.run(until=1.0)
    world.add(job_work(3, JobRequest(memory_mb=100, walltime_s=10.0), jobs=4))
    world.add(job_work(4, JobRequest(memory_mb=100, walltime_s=150.0), jobs=4))
    world.run(until=99.0)
    assert len(world.begun(3)) == 4
    assert not world.begun(2)
    assert not world.begun(4), "these would make the large one wait"
    world.seconds = lambda task, job: 1.0
    world.run(until=102.0)
    assert len(world.begun(2)) == 1
