"""The edge as a daemon, against a dispatcher in RAM and allocations that are real processes."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hpcpanda_edge.outlook import read_outlook
from hpcpanda_edge.state_folder import StateFolder
from support.edge import (
    FakeDispatcher,
    FakeScheduler,
    bounds_in,
    running_edge,
    small_site,
    small_task,
    until,
)

from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.exchange import Capacity, Grants
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.planning.actions import Reason


@pytest.fixture
def scheduler() -> Iterator[FakeScheduler]:
    fake = FakeScheduler()
    yield fake
    fake.kill_all()


async def test_a_task_runs_from_submission_to_its_merged_output(tmp_path: Path, scheduler: FakeScheduler):
    """All events are done once, the output holds them, and afterwards only the output is left."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(small_task(400))]
        await until(lambda: task.state is TaskState.DONE)
        await until(lambda: not (tmp_path / "tasks/1/events").exists())
    assert task.ledger.done == IntervalSet.span(0, 400)
    assert bounds_in(tmp_path / "tasks/1/output/out.h5") == IntervalSet.span(0, 400)


async def test_work_submitted_later_starts_at_once(tmp_path: Path, scheduler: FakeScheduler):
    """An idle edge waits at the dispatcher, so a task needs no polling interval to begin."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        await until(lambda: dispatcher.instance)
        await asyncio.sleep(0.3)
        dispatcher.submit(small_task(10))
        await until(lambda: scheduler.started, timeout_s=1.0)


class Listener(FakeDispatcher):
    """A dispatcher that notes which room for jobs it was asked to fill; a question without answer lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: list[int] = []

    async def acquire(self, name: str, capacity: Capacity) -> Grants:
        if capacity.only is None and capacity.room is not None:
            self.rooms.append(capacity.room.nodes)
        return await super().acquire(name, capacity)


async def test_more_room_is_told_while_a_question_is_open(tmp_path: Path, scheduler: FakeScheduler):
    """Half of the site was taken when it was asked. When all is free, a job that needs all does not wait for the end
    of that question, which lasts for 20 s."""
    dispatcher = Listener()
    async with running_edge(small_site(tmp_path, allocations=2), dispatcher, scheduler):
        dispatcher.submit(small_task(2))
        await until(lambda: dispatcher.rooms[-1:] == [1])
        await until(lambda: dispatcher.rooms[-1:] == [2], timeout_s=12.0)


async def test_two_tasks_share_a_site_inside_its_limits(tmp_path: Path, scheduler: FakeScheduler):
    """Both tasks finish, and never more allocations live at a time than the site allows."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path, allocations=2), dispatcher, scheduler):
        tasks = [dispatcher.tasks[dispatcher.submit(small_task(150))] for _ in range(2)]
        await until(lambda: all(t.state is TaskState.DONE for t in tasks))
    assert scheduler.most <= 2


async def test_an_allocation_killed_in_the_middle_costs_nothing_but_time(
    tmp_path: Path, scheduler: FakeScheduler
):
    """What the dead allocation had journalled counts, the rest is done by another one, nothing twice."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(small_task(200, die_after=60))]
        await until(lambda: task.state is TaskState.DONE)
    assert (tmp_path / "died").exists()
    assert bounds_in(tmp_path / "tasks/1/output/out.h5") == IntervalSet.span(0, 200)


async def test_a_failed_event_is_reported_and_left_out(tmp_path: Path, scheduler: FakeScheduler):
    """An event that was set aside reaches the dispatcher as failed, and the output is without it."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(small_task(50, bad_event=7))]
        await until(lambda: task.state is TaskState.FINISHED)
    assert list(task.ledger.failed) == [7]
    assert 7 not in bounds_in(tmp_path / "tasks/1/output/out.h5")


async def test_a_payload_that_cannot_be_set_up_is_reported_at_once(tmp_path: Path, scheduler: FakeScheduler):
    """The set-up error reaches the dispatcher as the task's fault, and no second allocation is wasted."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task_id = dispatcher.submit(small_task(50, fault="no module named physics"))
        await until(lambda: task_id in dispatcher.faults)
        await until(lambda: not (tmp_path / "tasks/1").exists())
    assert "no module named physics" in dispatcher.faults[task_id]
    assert len(scheduler.started) == 1


async def test_a_merge_that_fails_again_and_again_is_reported(tmp_path: Path, scheduler: FakeScheduler):
    """After three tries the dispatcher is told, with the words of the merge."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task_id = dispatcher.submit(small_task(20, bad_merge="segment torn"))
        await until(lambda: task_id in dispatcher.faults)
    assert dispatcher.faults[task_id] == "the merge failed 3 times: segment torn"


async def test_an_edge_waits_for_its_name(tmp_path: Path, scheduler: FakeScheduler):
    """While another instance has the name nothing is pulled; once it is free, work begins."""
    dispatcher = FakeDispatcher(instance="another")
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(small_task(20))]
        await asyncio.sleep(0.3)
        assert not dispatcher.granted
        dispatcher.instance = None
        await until(lambda: task.state is TaskState.DONE)


async def test_an_aborted_task_is_stopped_and_cleaned_up(tmp_path: Path, scheduler: FakeScheduler):
    """Its allocation ends long before the work would have, and its journals go."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task_id = dispatcher.submit(small_task(100_000, event_s=0.01))
        await until(lambda: dispatcher.tasks[task_id].ledger.done)
        dispatcher.finish(task_id, TaskState.ABORTED)
        await until(lambda: not (tmp_path / "tasks/1").exists())
        await until(lambda: scheduler.started[0].poll() is not None)


async def test_the_dispatcher_away_loses_nothing(tmp_path: Path, scheduler: FakeScheduler):
    """Work leased goes on while the dispatcher is away, and is reported when it is back."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler) as edge:
        task = dispatcher.tasks[dispatcher.submit(small_task(80, event_s=0.01))]
        await until(lambda: task.ledger.done)
        dispatcher.away = True
        known = len(task.ledger.done)
        held = len(task.ledger.leased)
        await until(
            lambda: sum(len(v.ledger.done) for v in edge.control.store.leases.values()) >= known + held
        )
        dispatcher.away = False
        await until(lambda: task.state is TaskState.DONE)


async def test_lost_answers_change_nothing(tmp_path: Path, scheduler: FakeScheduler):
    """What is said again after a lost answer is answered alike, and every event counts once."""
    dispatcher = FakeDispatcher(lose_answers=5)
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(small_task(100))]
        await until(lambda: task.state is TaskState.DONE)
    assert bounds_in(tmp_path / "tasks/1/output/out.h5") == IntervalSet.span(0, 100)


async def test_leases_that_ran_out_are_done_again_elsewhere_and_merged_once(
    tmp_path: Path, scheduler: FakeScheduler
):
    """Events whose lease expired in the middle are leased anew, and the output has them once."""
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task_id = dispatcher.submit(small_task(150, event_s=0.005))
        task = dispatcher.tasks[task_id]
        await until(lambda: len(task.ledger.done) > 20)
        dispatcher.expire(task_id)
        await until(lambda: task.state is TaskState.DONE)
    assert bounds_in(tmp_path / "tasks/1/output/out.h5") == IntervalSet.span(0, 150)
    assert dispatcher.granted > 150


async def test_an_edge_that_crashes_again_and_again_finishes_the_task(
    tmp_path: Path, scheduler: FakeScheduler
):
    """Allocations outlive the edge, the next one picks them up, and every event counts once."""
    dispatcher = FakeDispatcher()
    task = dispatcher.tasks[dispatcher.submit(small_task(300, event_s=0.004))]
    rng = random.Random(5)
    for _ in range(8):
        async with running_edge(small_site(tmp_path), dispatcher, scheduler, crash=True):
            await asyncio.sleep(rng.uniform(0.05, 0.4))
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        await until(lambda: task.state is TaskState.DONE)
    assert bounds_in(tmp_path / "tasks/1/output/out.h5") == IntervalSet.span(0, 300)


async def test_an_edge_that_is_stopped_leaves_its_allocations_running(
    tmp_path: Path, scheduler: FakeScheduler
):
    """Stopping the service does not throw work away: the allocation is there when it starts again."""
    dispatcher = FakeDispatcher()
    task = dispatcher.tasks[dispatcher.submit(small_task(100, event_s=0.02))]
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        await until(lambda: task.ledger.done)
    assert scheduler.started[0].poll() is None
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        await until(lambda: task.state is TaskState.DONE)


async def test_a_drain_ends_allocations_and_gives_the_rest_back(tmp_path: Path, scheduler: FakeScheduler):
    """After a drain nothing runs, what was done is committed, and the rest is ready for another edge."""
    dispatcher = FakeDispatcher()
    task = dispatcher.tasks[dispatcher.submit(small_task(10_000, event_s=0.01))]
    async with running_edge(small_site(tmp_path), dispatcher, scheduler) as edge:
        await until(lambda: task.ledger.done)
        edge.drain()
        await until(lambda: scheduler.started[0].poll() is not None and edge.control.idle)
        await until(lambda: not task.ledger.leased)
    assert task.ledger.done
    assert len(task.ledger.ready) + len(task.ledger.done) == 10_000


async def test_a_refused_submission_is_tried_again(tmp_path: Path, scheduler: FakeScheduler):
    """The batch system refusing once costs a pause, not the task."""
    scheduler.refuse = 1
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(small_task(20))]
        await until(lambda: task.state is TaskState.DONE)


async def test_an_unanswered_submission_that_was_carried_out_is_found(
    tmp_path: Path, scheduler: FakeScheduler
):
    """An allocation that runs although its submission was not answered is used, and no second is started for it."""
    scheduler.forget_answers = 1
    dispatcher = FakeDispatcher()
    async with running_edge(small_site(tmp_path), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(small_task(60, event_s=0.01))]
        await until(lambda: task.state is TaskState.DONE)
    assert scheduler.most == 1


async def test_a_spool_that_cannot_be_written_to_heals(tmp_path: Path, scheduler: FakeScheduler):
    """While allocations' folders cannot be made nothing is submitted; when they can, all goes on."""
    dispatcher = FakeDispatcher()
    (tmp_path / "allocations").write_text("in the way")
    async with running_edge(small_site(tmp_path), dispatcher, scheduler) as edge:
        task = dispatcher.tasks[dispatcher.submit(small_task(20))]
        await until(lambda: edge.control.submitter.troubled)
        assert not scheduler.started
        (tmp_path / "allocations").unlink()
        await until(lambda: task.state is TaskState.DONE)


def test_a_second_edge_over_the_same_spool_is_refused(tmp_path: Path):
    """The lock names the process that holds the spool, and goes with it."""
    folder = StateFolder.of(tmp_path)
    folder.create()
    with folder.only_one():
        assert folder.in_use()
        with pytest.raises(Unavailable, match=f"process {os.getpid()}"), folder.only_one():
            pass
    assert not folder.in_use()
    with folder.only_one():
        pass


async def test_what_a_running_edge_knows_is_left_for_explain(tmp_path: Path, scheduler: FakeScheduler):
    """Why nothing is known of windows, and why work went back to the dispatcher."""
    dispatcher = FakeDispatcher()
    site = small_site(tmp_path)
    path = StateFolder.of(tmp_path).outlook
    async with running_edge(site, dispatcher, scheduler):
        too_large = TaskSpec(
            name="large",
            jobs=3,
            payload=JobPayload(command=("true",)),
            job=JobRequest(cores=3),
            output=Output(file="out.zip", format=OutputFormat.ZIP),
        )
        task_id = dispatcher.submit(too_large)
        await until(lambda: (left := read_outlook(path, time.time())) and task_id in left.given_back)
    left = read_outlook(path, time.time())
    assert left is not None
    assert left.given_back[task_id].reason is Reason.DOES_NOT_FIT
    assert left.windows_unknown == "there is no window probe for the executor 'local'"
